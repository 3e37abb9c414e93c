//! stand-in until the parser lands: the environment's subset
use oilskin_config::*;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

pub fn parse(vars: &BTreeMap<String, String>) -> Result<Config, String> {
    let get = |n: &str| vars.get(n).cloned();
    if vars.contains_key("OILSKIN_CONFIG_YAML") { return Err("yaml not yet".into()); }
    let s = Duration::from_secs;
    let dur = |n: &str, d: Duration| get(n).map_or(d, |v| Duration::from_millis(v.trim_end_matches("ms").parse().unwrap()));
    let rules: Vec<Rule> = get("OILSKIN_FIELDS").map(|f| f.split(", ").map(|t| { let select = Selector::parse(t).unwrap(); Rule { name: t.into(), contexts: vec![select.default_context()], select, each: false, keyset: "default".into(), mode: Mode::Random, bind: vec![], pad: None, unlinkable: false, plaintext_accepted: false, accept_tokens: false, on_decrypt_error: OnDecryptError::Fail } }).collect()).unwrap_or_default();
    let url = get("OILSKIN_UPSTREAM").ok_or("no upstream")?;
    let authority = url.trim_start_matches("http://").to_owned();
    let (host, port) = authority.split_once(':').unwrap();
    let path = |n: &str| get(n).map(|v| v.trim_start_matches("file:").into());
    Ok(Config { workers: None, listeners: vec![Listener { name: "egress".into(), bind: Bind::Tcp(get("OILSKIN_LISTEN").unwrap().parse().unwrap()), direction: Direction::Egress, trust: Trust::Bind }],
        upstreams: vec![Upstream { name: "upstream".into(), scheme: Scheme::Http, target: Target::Tcp { host: host.into(), port: port.parse().unwrap() }, authority: authority.clone(), prefix: String::new(), protocol: Protocol::Auto, ca_file: None }],
        routes: vec![Route { name: "egress".into(), listener: 0, path: None, methods: vec![], host: None, upstream: 0, keep_host: false, request: Phase { op: Op::Encrypt, rules: rules.clone() }, response: Phase { op: Op::Decrypt, rules }, opaque: vec![], require_inspection: false, tenant: None, access_log: false }],
        keys: path("OILSKIN_ROOT_KEY").map(|p| Keys { roots: vec![Root::File(p)], hold: Hold::Any, store: Store::File(path("OILSKIN_KEY_STORE").unwrap()), signer: None, min_epoch: 0, development: false }),
        limits: Limits { head: 16384, head_fields: 100, streams: 100, connections: None, upstream_connections: NonZeroUsize::new(1000).unwrap(), depth: 128, body: None, min_body_rate: 100, field: 1 << 20, hold: 65536, bind_window: 262144, key_slab: 49152 },
        timeouts: Timeouts { connect: s(2), head: dur("OILSKIN_TIMEOUTS_HEAD", s(10)), idle: s(60), body_idle: dur("OILSKIN_TIMEOUTS_BODY_IDLE", s(30)), total: dur("OILSKIN_TIMEOUTS_TOTAL", s(60)), drain: dur("OILSKIN_DRAIN", s(20)), upstream_age: s(600), pool_wait: s(1) },
        service: Service { admin: None, metrics: None, health: None }, log: Log { filter: "info".into(), format: None }, unsafe_unlocked_keys: true, warnings: vec![] })
}
