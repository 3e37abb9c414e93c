//! Closed-loop load: wrk for HTTP/1.1, h2load for HTTP/2 without TLS. Any answer that is no 200 fails the round.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::messages::{self, REQUEST};
use crate::tools;

/// Requests open at once: connections with HTTP/1.1, streams of eight connections with HTTP/2.
const OPEN: usize = 32;
const H2_CONNECTIONS: usize = 8;

/// What a proxy is asked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    /// HTTP/1.1.
    H1,
    /// HTTP/2 by prior knowledge.
    H2c,
}

/// What a load program counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Counted {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
}

/// Posts the same JSON for so many seconds.
pub(crate) fn run(front: Front, address: SocketAddr, path: &str, seconds: u32, folder: &Path) -> Result<Counted> {
    let url = format!("http://{address}{path}");
    match front {
        Front::H1 => wrk(&url, seconds, folder),
        Front::H2c => h2load(&url, seconds, folder),
    }
}

/// Posts 15 kB over TLS and is answered as much.
pub(crate) fn bulk(address: SocketAddr, seconds: u32, folder: &Path) -> Result<Counted> {
    let script = folder.join("bulk.lua");
    fs::write(&script, lua(&messages::bulk()))?;
    let mut command = Command::new(tools::wrk()?);
    command.args(["-t1", &format!("-c{OPEN}"), &format!("-d{seconds}s"), "-s"]).arg(&script);
    read_wrk(&tools::output(command.arg(format!("https://{address}/bulk")))?)
}

/// Posts the same JSON over so many connections for so many seconds, with these fields.
pub(crate) fn posts(
    url: &str,
    body: &str,
    fields: &[(&str, &str)],
    (connections, seconds): (usize, u32),
    folder: &Path,
) -> Result<Counted> {
    let script = folder.join("posts.lua");
    let fields: String = fields.iter().map(|(name, value)| format!("wrk.headers['{name}'] = '{value}'\n")).collect();
    fs::write(&script, lua(body) + &fields)?;
    let mut command = Command::new(tools::wrk()?);
    command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "-s"]).arg(&script).arg(url);
    read_wrk(&tools::output(&mut command)?)
}

fn wrk(url: &str, seconds: u32, folder: &Path) -> Result<Counted> {
    let script = folder.join("post.lua");
    fs::write(&script, lua(REQUEST))?;
    let mut command = Command::new(tools::wrk()?);
    command.args(["-t1", &format!("-c{OPEN}"), &format!("-d{seconds}s"), "-s"]).arg(&script).arg(url);
    read_wrk(&tools::output(&mut command)?)
}

fn lua(body: &str) -> String {
    format!(
        "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = [==[{body}]==]\n\
         done = function(summary)\n  local e = summary.errors\n\
         \x20 print('counted', summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout)\nend\n"
    )
}

fn read_wrk(said: &str) -> Result<Counted> {
    let line =
        said.lines().find_map(|line| line.strip_prefix("counted")).with_context(|| format!("wrk said {said}"))?;
    let numbers: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [requests, micros, refused, broken] = *numbers.as_slice() else { anyhow::bail!("wrk said {line}") };
    ensure!(refused == 0.0 && broken == 0.0, "{refused} answers were no success, {broken} failed");
    counted(requests, micros / 1e6)
}

fn h2load(url: &str, seconds: u32, folder: &Path) -> Result<Counted> {
    let body = folder.join("body.json");
    fs::write(&body, REQUEST)?;
    let mut command = Command::new(tools::h2load()?);
    command.args(["-t1", &format!("-c{H2_CONNECTIONS}"), &format!("-m{}", OPEN / H2_CONNECTIONS)]);
    command.args([&format!("-D{seconds}"), "-H", "content-type: application/json", "-d"]).arg(&body).arg(url);
    read_h2load(&tools::output(&mut command)?)
}

fn read_h2load(said: &str) -> Result<Counted> {
    let number = |before: &str, after: &str| -> Result<f64> {
        let found =
            said.lines().find_map(|line| line.strip_prefix(before)?.split(after).next()?.split([' ', ',']).next_back());
        found.and_then(|word| word.parse().ok()).with_context(|| format!("no `{after}` in what h2load said: {said}"))
    };
    let (good, broken) = (number("status codes:", " 2xx")?, number("requests:", " failed")?);
    let others = number("status codes:", " 4xx")? + number("status codes:", " 5xx")?;
    ensure!(broken == 0.0 && others == 0.0, "{others} answers were no success, {broken} failed");
    let seconds = number("finished in", "s,")?;
    counted(good, seconds)
}

fn counted(requests: f64, seconds: f64) -> Result<Counted> {
    ensure!(requests >= 1.0 && seconds > 0.0, "no request was answered");
    Ok(Counted { requests: requests as u64, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_wrk_are_read_and_its_errors_are_errors() {
        let said = "Running 2s test\ncounted\t5000\t2000000\t0\t0\n";
        assert_eq!(read_wrk(said).unwrap(), Counted { requests: 5000, seconds: 2.0 });
        assert!(read_wrk("counted\t5000\t2000000\t1\t0").is_err());
        assert!(read_wrk("counted\t5000\t2000000\t0\t1").is_err());
        assert!(read_wrk("counted\t0\t2000000\t0\t0").is_err());
        assert!(read_wrk("unable to connect").is_err());
    }

    const H2LOAD: &str = "finished in 2.00s, 26111.50 req/s, 12.13MB/s\n\
        requests: 52223 total, 52255 started, 52223 done, 52223 succeeded, 0 failed, 0 errored, 0 timeout\n\
        status codes: 52223 2xx, 0 3xx, 0 4xx, 0 5xx\n";

    #[test]
    fn counts_of_h2load_are_read_and_its_errors_are_errors() {
        assert_eq!(read_h2load(H2LOAD).unwrap(), Counted { requests: 52223, seconds: 2.0 });
        assert!(read_h2load(&H2LOAD.replace(" 0 failed", " 2 failed")).is_err());
        assert!(read_h2load(&H2LOAD.replace(" 0 5xx", " 9 5xx")).is_err());
        assert!(read_h2load("").is_err());
    }
}
