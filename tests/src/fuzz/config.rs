//! Settings: any text gives a configuration or problems of one line each, never a panic.

use std::ffi::OsString;

use oilskin_config::Vars;

/// Lines of `NAME=value` where the text begins with a variable of ours, a YAML document elsewhere.
pub(super) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut vars = Vars::new();
    if text.starts_with("OILSKIN_") {
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            vars.insert(name.into(), value.into());
        }
    } else {
        vars.insert("OILSKIN_CONFIG_YAML".into(), text.into());
        for (name, value) in [("OILSKIN_ROOT_KEY", "file:/k/root.key"), ("OILSKIN_KEY_STORE", "file:/k/keys")] {
            vars.insert(name.into(), OsString::from(value));
        }
    }
    match oilskin_config::parse(&vars, &|_| Err("no such file".to_owned())) {
        Ok(config) => assert!(config.listeners.len() < 100_000),
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            for problem in problems {
                let line = problem.to_string();
                assert!(!line.contains(['\n', '\r']) && !line.is_empty(), "not one line: {line:?}");
            }
        }
    }
}
