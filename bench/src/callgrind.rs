//! Instructions a request, counted by callgrind in the release binary: the difference between a run with N requests and one with 2 N
//! leaves the start and the end out. What the kernel does is not counted.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::answer::Client;
use crate::process::Core;
use crate::proxies::oilskin::Settings;
use crate::tools;

/// Instructions of each function by itself, for one request.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) total: f64,
    /// The dearest first.
    pub(crate) functions: Vec<(String, f64)>,
}

/// Sends `requests`, then twice as many to a second process, and divides the difference.
pub(crate) fn per_request(settings: &Settings, request: &[u8], requests: u32, folder: &Path) -> Result<Profile> {
    let once = count(settings, request, requests, &folder.join("once"))?;
    let twice = count(settings, request, requests * 2, &folder.join("twice"))?;
    let each = |twice: i64, once: i64| (twice - once) as f64 / f64::from(requests);
    let mut functions: Vec<_> = twice
        .iter()
        .map(|(name, cost)| (name.clone(), each(*cost, once.get(name).copied().unwrap_or_default())))
        .filter(|(_, cost)| *cost >= 1.0)
        .collect();
    functions.sort_by(|one, other| other.1.total_cmp(&one.1));
    let total = each(twice.values().sum(), once.values().sum());
    ensure!(total > 0.0, "twice the requests cost no more");
    Ok(Profile { total, functions })
}

fn count(settings: &Settings, request: &[u8], requests: u32, folder: &Path) -> Result<HashMap<String, i64>> {
    fs::create_dir_all(folder)?;
    let file = folder.join("callgrind.out");
    let under = vec![
        tools::valgrind()?,
        "--tool=callgrind".into(),
        "--quiet".into(),
        "--compress-strings=no".into(),
        "--compress-pos=no".into(),
        format!("--callgrind-out-file={}", file.display()).into(),
    ];
    let (mut running, address) = settings.clone().under(under).start(Core::Proxy, folder)?;
    let mut client = Client::connect(address)?;
    for done in 0..requests {
        client
            .ask(request)
            .with_context(|| format!("after {done} requests under callgrind; it said {}", running.said()))?;
    }
    drop(client);
    let ended = running.end()?;
    ensure!(ended.success(), "under callgrind it ended with {ended}: {}", running.said());
    let said = fs::read_to_string(&file).context("callgrind wrote nothing")?;
    read(&said).context("what callgrind wrote")
}

/// Sums what each function cost by itself.
fn read(said: &str) -> Result<HashMap<String, i64>> {
    let mut costs: HashMap<String, i64> = HashMap::new();
    let mut function = None;
    let mut called = false;
    for line in said.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            function = Some(name);
        } else if line.starts_with("calls=") {
            // The next line is what the called one cost, which is counted there.
            called = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) && !std::mem::take(&mut called) {
            let cost: i64 = line.split_whitespace().nth(1).unwrap_or("0").parse()?;
            *costs.entry(function.context("a cost before any function")?.to_owned()).or_default() += cost;
        }
    }
    ensure!(!costs.is_empty(), "no costs");
    Ok(costs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_function_costs_by_itself_is_counted() {
        let said = "version: 1\nevents: Ir\n\nfl=a.c\nfn=main\n10 5\nfi=b.h\n11 7\ncfi=c.c\ncfn=work\ncalls=3 20\n12 900\n13 1\n\n\
                    fl=c.c\nfn=work\n20 900\n\ntotals: 913\n";
        let costs = read(said).unwrap();
        assert_eq!((costs["main"], costs["work"]), (13, 900));
        assert!(read("events: Ir\n").is_err());
        assert!(read("10 5\n").is_err());
    }
}
