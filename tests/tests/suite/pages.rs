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
    let documents = blocks(&page, "yaml");
    assert_eq!(documents.len(), 1);
    for document in documents {
        let vars = [("OILSKIN_CONFIG_YAML".to_owned(), document.to_owned())].into();
        let config = oilskin_tests::config::parse(&vars).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
}

/// Blocks of a page in this language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).filter_map(|after| after.split("```").next()).collect()
}

/// What a configuration needs besides, where a page shows a part of one.
fn completed(part: &str) -> String {
    let mut document = part.to_owned();
    if !document.contains("listeners:") {
        document.push_str("listeners: [{name: in, bind: 127.0.0.1:0, direction: egress}]\n");
    }
    if !document.contains("upstreams:") {
        document.push_str("upstreams: {store: {url: \"http://127.0.0.1:1\"}}\n");
    }
    document + "routes: [{name: all, match: {listener: in, path: \"/{*rest}\"}, upstream: store}]\n"
}

#[test]
fn what_the_page_on_tls_shows_is_a_configuration() {
    let page = std::fs::read_to_string(tools::top().join("docs/tls.md")).unwrap();
    let read = |name: &str, vars: std::collections::BTreeMap<String, String>| {
        oilskin_tests::config::parse(&vars).unwrap_or_else(|problems| panic!("{name}: {problems}"))
    };
    let documents = blocks(&page, "yaml").into_iter().filter(|block| !is_of_kubernetes(block));
    let documents: Vec<&str> = documents.collect();
    assert_eq!(documents.len(), 4, "a listener by files, SDS, Vault, SPIFFE");
    for document in documents {
        let config = read(document, [("OILSKIN_CONFIG_YAML".to_owned(), completed(document))].into());
        assert!(config.listeners.iter().any(|listener| listener.tls.is_some()), "{document}");
    }
    // Others run programs.
    let settings = blocks(&page, "sh").into_iter().filter(|block| !block.contains("bao ") && !block.contains("curl "));
    let settings: Vec<&str> = settings.collect();
    assert_eq!(settings.len(), 4, "by files, SDS, Vault, SPIFFE");
    for block in settings {
        // As a shell reads them.
        let script = format!("set -aeu\n{block}\nenv -0");
        let mut shell = tools::program("sh");
        let printed = tools::run(shell.env_clear().env("PATH", "/usr/bin:/bin").args(["-c", &script]));
        let config = read(block, with_ends(printed.split('\0')));
        assert!(config.listeners.iter().any(|listener| listener.tls.is_some()), "{block}");
    }
}

/// The settings among `NAME=VALUE`, with what they need besides.
fn with_ends<'v>(shown: impl Iterator<Item = &'v str>) -> std::collections::BTreeMap<String, String> {
    let known = ["OILSKIN_", "VAULT_", "SPIFFE_"];
    let mut vars: std::collections::BTreeMap<String, String> = shown
        .filter_map(|one| one.split_once('='))
        .filter(|(name, _)| known.iter().any(|known| name.starts_with(known)))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert!(vars.len() >= 3, "{vars:?}");
    let any = |begin: &str| vars.keys().any(|name| name.starts_with(begin));
    let secure = any("OILSKIN_UPSTREAM_");
    let mut more = vec![("OILSKIN_UPSTREAM", if secure { "https://store.test" } else { "http://127.0.0.1:1" })];
    if any("OILSKIN_INGRESS") {
        more.extend([("OILSKIN_APP", "http://127.0.0.1:1"), ("OILSKIN_INGRESS_LISTEN", "127.0.0.1:0")]);
    }
    vars.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    vars
}

fn is_of_kubernetes(block: &str) -> bool {
    block.starts_with("spec:") || block.starts_with("apiVersion:")
}

#[test]
fn what_the_page_on_tls_shows_of_pods_is_yaml_mounts_what_is_named_and_is_a_configuration() {
    let page = std::fs::read_to_string(tools::top().join("docs/tls.md")).unwrap();
    let pods = blocks(&page, "yaml").into_iter().filter(|block| is_of_kubernetes(block));
    let script = "import sys,yaml\n\
                  spec = yaml.safe_load(sys.argv[1])['spec']\n\
                  for c in spec.get('template', {'spec': {'containers': []}})['spec']['containers']:\n\
                  \x20   print('\\n'.join(m['mountPath'] for m in c['volumeMounts']))\n\
                  \x20   print('\\n'.join(e['name'] + '=' + e['value'] for e in c.get('env', [])))\n";
    let mut mounted = Vec::new();
    for pod in pods {
        let said = tools::run(tools::python().args(["-c", script, pod]));
        let (settings, paths): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| line.contains('='));
        mounted.extend(paths.into_iter().map(str::to_owned));
        if !settings.is_empty() {
            let vars = with_ends(settings.into_iter());
            oilskin_tests::config::parse(&vars).unwrap_or_else(|problems| panic!("{pod}: {problems}"));
        }
    }
    mounted.retain(|path| !path.is_empty());
    assert_eq!(mounted.len(), 3, "{mounted:?}");
    for path in mounted {
        assert!(page.contains(&format!("{path}/tls.crt")) || page.contains(&format!("unix:{path}/")), "{path}");
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
