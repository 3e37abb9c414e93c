//! The pages hold: `docs/promises.md` names tests that exist and numbers its promises, documents shown are read, links lead somewhere.

use std::path::Path;

use oilskin_tests::tools;

/// The tests that a row names: `name::test`, or a file's path and a test.
fn named(row: &str) -> Vec<(String, &str)> {
    let quoted = row.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|code| code.rsplit_once("::"))
        .map(|(place, test)| match place.contains('/') {
            true => (place.to_owned(), test),
            false => (format!("tests/tests/suite/{place}.rs"), test),
        })
        .collect()
}

fn stands_in(text: &str, test: &str) -> bool {
    text.split("#[test]").skip(1).any(|after| {
        let function = after.trim_start().lines().find(|line| !line.trim_start().starts_with("//")).unwrap_or_default();
        function.trim_start().starts_with(&format!("fn {test}("))
    })
}

#[test]
fn every_promise_has_its_number_a_boundary_and_tests_that_exist() {
    let page = std::fs::read_to_string(tools::top().join("docs/promises.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| ") && line[2..].starts_with(|first: char| first.is_ascii_digit()))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    assert!(rows.len() > 20, "only {} promises were found", rows.len());
    for (number, row) in (1..).zip(&rows) {
        let [id, promise, boundary, held_by] = row[..] else { panic!("a row has four cells: {row:?}") };
        assert_eq!(id, number.to_string(), "{promise}");
        assert!(!promise.is_empty() && !boundary.is_empty(), "promise {id}");
        let tests = named(held_by);
        assert!(!tests.is_empty(), "promise {id} names no test");
        for (file, test) in tests {
            let text = std::fs::read_to_string(tools::top().join(Path::new(&file)));
            let text = text.unwrap_or_else(|error| panic!("promise {id} names {file}: {error}"));
            assert!(stands_in(&text, test), "promise {id} names {test}, which {file} does not have");
        }
    }
}

#[test]
fn a_document_that_the_docs_show_is_a_configuration() {
    let page = std::fs::read_to_string(tools::top().join("docs/fields.md")).unwrap();
    let documents: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|after| after.split("```").next()).collect();
    assert_eq!(documents.len(), 1);
    for document in documents {
        let vars = [("OILSKIN_CONFIG_YAML".to_owned(), document.to_owned())].into();
        let config = oilskin_tests::config::parse(&vars).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut pages = vec!["README.md".into(), "SECURITY.md".into(), "bench/README.md".into()];
    pages.extend(
        std::fs::read_dir(tools::top().join("docs"))
            .unwrap()
            .map(|entry| Path::new("docs").join(entry.unwrap().file_name())),
    );
    let mut links = 0;
    for page in pages.iter().filter(|page: &&std::path::PathBuf| page.extension().is_some_and(|kind| kind == "md")) {
        let text = std::fs::read_to_string(tools::top().join(page)).unwrap();
        for after in text.split("](").skip(1) {
            let target = after.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            links += 1;
            let found = tools::top().join(page.parent().unwrap()).join(target);
            assert!(found.exists(), "{} links to {target}", page.display());
        }
    }
    assert!(links > 10, "only {links} links were found");
}
