//! Sessions that are resumed: under the same name and the same state alone.

use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::keys::Keys;
use oilskin_tests::mounted::Mounted;
use oilskin_tests::process::Process;
use oilskin_tests::secured::Open;
use oilskin_tests::tools;

use super::swaps::{CLIENT, empty_answers, pair};

fn resumed(process: &Process, version: &str) -> u64 {
    let page = process.metrics_page();
    let wanted = |line: &&str| {
        line.starts_with("oilskin_tls_handshakes_total{")
            && line.contains(&format!("version=\"{version}\""))
            && line.contains("outcome=\"resumed\"")
    };
    page.lines().filter(wanted).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// A listener that speaks both versions, with two certificates, and asks for clients'.
struct Bench {
    authority: Authority,
    mounted: Mounted,
    changes: std::cell::Cell<usize>,
    process: Process,
}

impl Bench {
    fn new() -> Self {
        let (authority, mounted, upstream) = (Authority::new(), Mounted::new(), empty_answers());
        for name in ["server", "second"] {
            authority.issue(name, &Wish::default());
        }
        authority.issue("other", &Wish { names: "DNS:other.test", ..Wish::default() });
        authority.issue("client", &CLIENT);
        authority.revoke(&[]);
        let files = Self::files(&authority, "server", "ca.pem");
        mounted.put(&files);
        let path = |file: &str| mounted.path(file);
        let yaml = format!(
            "listeners: [{{name: out, bind: 127.0.0.1:0, tls: {{min_version: '1.2', cert_file: {}, key_file: {}, client_ca_file: {}, \
             crl_file: {}, more: [{{cert_file: {}, key_file: {}}}]}}}}]\nupstreams: {{up: {{url: \"{}\"}}}}\n\
             routes: [{{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up}}]\n",
            path("tls.crt"),
            path("tls.key"),
            path("ca.crt"),
            path("crl.pem"),
            authority.path("other.pem"),
            authority.path("other.key"),
            upstream.url()
        );
        let process = Process::start(&Keys::new(), &[("OILSKIN_CONFIG_YAML", &yaml)]);
        Self { authority, mounted, changes: std::cell::Cell::new(0), process }
    }

    fn files(authority: &Authority, server: &str, ca: &str) -> Vec<(&'static str, String)> {
        let trust = [("ca.crt", authority.path(ca)), ("crl.pem", authority.path("crl.pem"))];
        [pair(authority, server), trust.to_vec()].concat()
    }

    /// Puts other files in place and waits until they are in force.
    fn change(&self, server: &str, ca: &str) {
        self.mounted.put(&Self::files(&self.authority, server, ca));
        let count = self.changes.get() + 1;
        tools::until("the change", || {
            let changed = |line: &&String| line.contains("certificates, keys or authorities were changed");
            (self.process.log().iter().filter(changed).count() == count).then_some(())
        });
        self.changes.set(count);
    }

    fn asks(&self, more: &[&str]) -> bool {
        Open::new(&self.process, &self.authority, more).asks()
    }
}

#[test]
fn a_session_is_resumed_under_no_other_name_and_after_no_change_of_anything() {
    let bench = Bench::new();
    // Another authority beside the first, which the client still knows.
    let other = Authority::new();
    let read = |path: String| std::fs::read_to_string(path).unwrap();
    std::fs::write(
        bench.authority.path("both.pem"),
        read(bench.authority.path("ca.pem")) + &read(other.path("ca.pem")),
    )
    .unwrap();
    for (flag, version) in [("-tls1_3", "1.3"), ("-tls1_2", "1.2")] {
        let session = tempfile::NamedTempFile::new().unwrap();
        let session = session.path().to_str().unwrap();
        let kept = || assert!(bench.asks(&[flag, "-sess_out", session]), "{version}");
        kept();
        assert!(bench.asks(&[flag, "-sess_in", session]));
        assert_eq!(resumed(&bench.process, version), 1, "{}", bench.process.metrics_page());
        let in_full = |what: &str, name: &str| {
            assert!(bench.asks(&[flag, "-sess_in", session, "-servername", name]), "{version} {what}");
            assert_eq!(resumed(&bench.process, version), 1, "{version} {what}");
        };
        kept();
        in_full("another name", "other.test");
        kept();
        assert!(bench.asks(&[flag, "-sess_in", session, "-noservername"]), "{version}");
        assert_eq!(resumed(&bench.process, version), 1, "{version} no name");
        kept();
        bench.change("second", "ca.pem");
        in_full("another certificate", "localhost");
        kept();
        bench.change("second", "both.pem");
        in_full("another authority", "localhost");
        kept();
        bench.authority.revoke(&[]);
        bench.change("second", "both.pem");
        in_full("another list", "localhost");
        bench.change("server", "ca.pem");
    }
}

#[test]
fn who_was_revoked_gets_in_by_no_session_over_either_version() {
    for flag in ["-tls1_3", "-tls1_2"] {
        let bench = Bench::new();
        let session = tempfile::NamedTempFile::new().unwrap();
        let session = session.path().to_str().unwrap();
        assert!(bench.asks(&[flag, "-sess_out", session]));
        bench.authority.revoke(&["client"]);
        bench.change("server", "ca.pem");
        assert!(!bench.asks(&[flag, "-sess_in", session]), "{flag}");
        bench.process.refused("revoked", 1);
    }
}
