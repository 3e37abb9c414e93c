//! What is made from the table: the page of settings and the schema for editors.

use std::fmt::Write as _;

use crate::table::{ENV_ONLY, Kind, ROWS, Reload, Row};

/// `docs/configuration.md`.
pub fn configuration_page() -> String {
    let mut page = String::from(
        "# Configuration\n\n<!-- Made from the table in config/src/table.rs; `make docs` rewrites it. -->\n\n\
         Environment variables alone are enough for one upstream; a YAML document (`OILSKIN_CONFIG`, or the document itself in\n\
         `OILSKIN_CONFIG_YAML`) is for many routes. The environment wins over the document. `oilskin check` reads both and names\n\
         everything that is wrong at once. Durations are `300ms`, `2s`, `5m`, `4h`; sizes `512B`, `64KiB`, `1MiB`.\n\n\
         ## Environment alone\n\n| variable | is | default | what it is |\n|---|---|---|---|\n",
    );
    for row in ENV_ONLY {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{}` | {} | {} | {} |", row.env, kind(row.kind), default(row), row.text);
    }
    page.push_str(
        "\n## Document\n\n`[]` is each element of a list, `*` any name; `fields[]` stands under `routes[]`, `routes[].request` and\n\
         `routes[].response`. *restart*: a change needs a new process (live reload comes later; today every change does).\n\n\
         | setting | variable | is | default | reload | what it is |\n|---|---|---|---|---|---|\n",
    );
    for row in ROWS {
        let env = if row.env.is_empty() { String::new() } else { format!("`{}`", row.env) };
        let reload = if row.reload == Reload::Live { "live" } else { "restart" };
        let _ = writeln!(
            page,
            "| `{}` | {env} | {} | {} | {reload} | {} |",
            row.path,
            kind(row.kind),
            default(row),
            row.text
        );
    }
    page
}

fn default(row: &Row) -> String {
    if row.default.is_empty() { String::new() } else { format!("`{}`", row.default) }
}

fn kind(kind: Kind) -> String {
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Duration => "duration".to_owned(),
        Kind::Size => "size".to_owned(),
        Kind::Count => "number".to_owned(),
        Kind::Boolean => "true, false".to_owned(),
        Kind::Address => "address".to_owned(),
        Kind::Path => "path".to_owned(),
        Kind::List => "list".to_owned(),
        Kind::Map => "map".to_owned(),
        Kind::OneOf(words) => words.join(", "),
    }
}

/// `docs/config.schema.json`: JSON Schema 2020-12.
pub fn json_schema() -> String {
    let mut schema = String::from(
        "{\n  \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n  \"title\": \"Oilskin\",\n  \"$defs\": {\n    \"field\": ",
    );
    let field = format!("{{\"anyOf\": [{{\"type\": \"string\"}}, {}]}}", object("fields[]"));
    schema.push_str(&field);
    schema.push_str("\n  },\n  ");
    let top = object("");
    schema.push_str(top.strip_prefix('{').and_then(|top| top.strip_suffix('}')).unwrap_or_default());
    schema.push_str("\n}\n");
    schema
}

/// The schema of the map at `pattern`.
fn object(pattern: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for row in ROWS {
        let rest = if pattern.is_empty() {
            Some(row.path)
        } else {
            row.path.strip_prefix(pattern).and_then(|rest| rest.strip_prefix('.'))
        };
        let name = rest.and_then(|rest| rest.split('.').next()).unwrap_or_default().trim_end_matches("[]");
        // `fields` at the top is the environment's shortcut, no key of a document.
        let shortcut = pattern.is_empty() && name == "fields";
        if !name.is_empty() && !shortcut && !names.contains(&name) {
            names.push(name);
        }
    }
    if names == ["*"] {
        return format!("{{\"type\": \"object\", \"additionalProperties\": {}}}", value(&format!("{pattern}.*")));
    }
    let properties: Vec<String> = names
        .iter()
        .map(|name| {
            let path = if pattern.is_empty() { (*name).to_owned() } else { format!("{pattern}.{name}") };
            format!("\"{name}\": {}", value(&path))
        })
        .collect();
    format!("{{\"type\": \"object\", \"additionalProperties\": false, \"properties\": {{{}}}}}", properties.join(", "))
}

fn value(path: &str) -> String {
    let has = |prefix: &str| ROWS.iter().any(|row| row.path.starts_with(prefix));
    if path.ends_with(".fields") {
        return "{\"type\": \"array\", \"items\": {\"$ref\": \"#/$defs/field\"}}".to_owned();
    }
    if has(&format!("{path}[].")) {
        return format!("{{\"type\": \"array\", \"items\": {}}}", object(&format!("{path}[]")));
    }
    let row = ROWS.iter().find(|row| row.path == path);
    let scalar = row.map(|row| match row.kind {
        Kind::Count => "{\"type\": \"integer\", \"minimum\": 0}".to_owned(),
        Kind::Boolean => "{\"type\": \"boolean\"}".to_owned(),
        Kind::Duration => "{\"type\": \"string\", \"pattern\": \"^[0-9]+(ms|s|m|h|d)$\"}".to_owned(),
        Kind::Size => "{\"type\": [\"string\", \"integer\"], \"pattern\": \"^[0-9]+(B|KiB|MiB|GiB)$\"}".to_owned(),
        Kind::List => {
            "{\"anyOf\": [{\"type\": \"string\"}, {\"type\": \"array\", \"items\": {\"type\": \"string\"}}]}".to_owned()
        }
        Kind::OneOf(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
            format!(
                "{{\"enum\": [{}{}]}}",
                words.join(", "),
                if path.ends_with("on_decrypt_error") { ", null" } else { "" }
            )
        }
        Kind::Text | Kind::Address | Kind::Path | Kind::Map => "{\"type\": \"string\"}".to_owned(),
    });
    if has(&format!("{path}.")) {
        let object = object(path);
        return match row.is_some_and(|row| row.kind == Kind::Text) {
            true => format!("{{\"anyOf\": [{{\"type\": \"string\"}}, {object}]}}"),
            false => object,
        };
    }
    scalar.unwrap_or_else(|| "{}".to_owned())
}
