//! The table: printed, and written with the machine it was measured on.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::parts::Found;
use crate::row::{Goal, Row, Verdict};

/// The table of all rows.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from("| part | what | must reach | measured | interval | |\n|---|---|--:|--:|--:|---|\n");
    for row in rows {
        let (measured, interval) = match &row.measured {
            Ok(found) => (
                format!("{}{}", number(found.mid), unit(row.unit)),
                format!("{} – {}", number(found.low), number(found.high)),
            ),
            Err(error) => (escape(error), String::new()),
        };
        let note = if row.note.is_empty() { String::new() } else { format!(" ({})", row.note) };
        let _ = writeln!(
            text,
            "| {} | {}{} | {} | {measured} | {interval} | {} |",
            row.part,
            escape(&row.what),
            escape(&note),
            goal(row),
            verdict(row.verdict())
        );
    }
    text
}

/// The page that is kept: the machine, the table, the plot and the details.
pub(crate) fn page(found: &Found, machine: &str, run: &str) -> String {
    let sections = found.sections.join("\n");
    format!(
        "# Results\n\n<!-- Written by `make bench`; bench/README.md says how to read it. -->\n\n{machine}\n{run}\n\n{}\n\
         {BELOW} where the unfavourable end of its interval meets the figure.\n\n\
         ![Ratios with their intervals](results.svg)\n\n{sections}",
        table(&found.rows)
    )
}

/// The sentence below the table.
const BELOW: &str = "A row is *met*";

/// What stands behind the names of parts that were run later than the rest.
const ALONE: &str = ": run by themselves.";

/// A page with the rows of some parts in the place of those that it had of them. `machine` and `run` say where and how.
pub(crate) fn merged(page: &str, found: &Found, machine: &str, run: &str) -> String {
    let parts: BTreeSet<&str> = found.rows.iter().map(|row| row.part).collect();
    let is_old = |row: &str| {
        parts.iter().any(|part| row.strip_prefix("| ").is_some_and(|row| row.starts_with(&format!("{part} |"))))
    };
    let named = |parts: &[&str]| parts.iter().map(|part| format!("`{part}`")).collect::<Vec<_>>().join(", ");
    let (above, below) = page.split_once(BELOW).unwrap_or((page, ""));
    let (mut intro, mut rows, mut notes) = (String::new(), String::new(), String::new());
    for line in above.lines() {
        if line.starts_with('|') {
            if !is_old(line) {
                rows.extend([line, "\n"]);
            }
        } else if let Some((names, how)) = line.split_once(ALONE) {
            let left: Vec<_> =
                names.split(", ").map(|name| name.trim_matches('`')).filter(|part| !parts.contains(part)).collect();
            if !left.is_empty() {
                notes.extend([&named(&left), ALONE, how, "\n\n"]);
            }
        } else {
            intro.extend([line, "\n"]);
        }
    }
    table(&found.rows).lines().skip(2).for_each(|row| rows.extend([row, "\n"]));
    let names = named(&parts.iter().copied().collect::<Vec<_>>());
    format!("{}\n\n{rows}\n{notes}{names}{ALONE} {machine} {run}\n\n{BELOW}{below}", intro.trim_end())
}

fn goal(row: &Row) -> String {
    match row.goal {
        Goal::AtMost(most) => format!("≤ {}{}", number(most), unit(row.unit)),
        Goal::AtLeast(least) => format!("≥ {}{}", number(least), unit(row.unit)),
        Goal::Shown(expected) => expected.to_owned(),
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "met",
        Verdict::Missed => "**missed**",
        Verdict::Shown => "",
        Verdict::Failed => "**FAILED**",
    }
}

fn unit(unit: &str) -> String {
    if unit.is_empty() { String::new() } else { format!(" {unit}") }
}

/// Three figures: more would be noise.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_part_take_the_place_of_those_before() {
        let row = |part, what: &str, mid| {
            let interval = crate::stats::Interval { low: mid, mid, high: mid };
            Row::ratio(part, what, Goal::AtMost(1.0), interval)
        };
        let rows = vec![row("pass", "a", 0.5), row("keys", "old", 0.5)];
        let before = page(&Found { rows, sections: vec!["## More".to_owned()] }, "A machine.", "21 rounds.");
        let found = Found { rows: vec![row("keys", "new", 0.25)], sections: Vec::new() };
        let once = merged(&before, &found, "Another.", "9 rounds.");
        assert!(
            once.contains("| pass | a |") && once.contains("| keys | new |") && !once.contains("| keys | old |"),
            "{once}"
        );
        assert!(once.contains("\n\n`keys`: run by themselves. Another. 9 rounds.\n\nA row is"), "{once}");
        assert!(once.contains("## More"), "{once}");
        assert!(
            once.contains("| pass | a | ≤ 1.00 × | 0.50 × | 0.50 – 0.50 | met |\n| keys | new |"),
            "one table: {once}"
        );
        assert_eq!(merged(&once, &found, "Another.", "9 rounds."), once, "again changes nothing");
        let found = Found { rows: vec![row("keys", "newer", 0.25), row("pass", "a", 0.5)], sections: Vec::new() };
        let twice = merged(&once, &found, "A third.", "5 rounds.");
        assert!(!twice.contains("Another") && twice.contains("`keys`, `pass`: run by themselves. A third."), "{twice}");
    }

    use crate::stats::Interval;

    fn rows() -> Vec<Row> {
        let interval = Interval { low: 0.98, mid: 1.0, high: 1.234 };
        vec![
            Row::ratio("pass", "a / b", Goal::AtMost(1.25), interval).note("as | is"),
            Row::ratio("pass", "a / c", Goal::AtMost(1.2), interval),
            Row::value("start", "idle", Goal::Shown("beside"), "MB", interval),
            Row::failed("stream", &anyhow::anyhow!("no\nvalgrind")),
        ]
    }

    #[test]
    fn every_row_is_a_line_with_goal_interval_and_verdict() {
        let table = table(&rows());
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines[2], "| pass | a / b (as \\| is) | ≤ 1.25 × | 1.00 × | 0.98 – 1.23 | met |");
        assert_eq!(lines[3], "| pass | a / c | ≤ 1.20 × | 1.00 × | 0.98 – 1.23 | **missed** |");
        assert_eq!(lines[4], "| start | idle | beside | 1.00 MB | 0.98 – 1.23 |  |");
        assert_eq!(lines[5], "| stream | stream |  | no valgrind |  | **FAILED** |");
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn the_page_names_the_machine_and_shows_the_plot() {
        let found = Found { rows: rows(), sections: vec!["### More".to_owned()] };
        let page = page(&found, "Two cores.", "21 rounds.");
        for part in ["Two cores.", "21 rounds.", "](results.svg)", "### More", "**missed**"] {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn numbers_keep_three_figures() {
        assert_eq!([number(1.2345), number(12.345), number(123.45)], ["1.23", "12.3", "123"]);
    }
}
