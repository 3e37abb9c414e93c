//! Keysets in Kubernetes Secrets.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oilskin_tests::client::json;
use oilskin_tests::keys::Keys;
use oilskin_tests::kubernetes::Kubernetes;
use oilskin_tests::process::{self, Process};
use oilskin_tests::replicas;
use oilskin_tests::{Upstream, tools};

struct Bench {
    keys: Keys,
    cluster: Kubernetes,
}

const STORE: &str = "k8s:crm/oilskin-{keyset}";

impl Bench {
    fn new() -> Self {
        Self { keys: Keys::new(), cluster: Kubernetes::start() }
    }

    fn command(&self) -> Command {
        let mut command = process::command(&self.keys);
        command.env("OILSKIN_KEY_STORE", STORE).env("KUBECONFIG", self.cluster.config());
        command.env("OILSKIN_KEY_REFRESH", "1s").env("OILSKIN_KEY_ROOT_CHECK", "1s");
        command
    }

    fn keys(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = self.command().arg("keys").args(words).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    }

    fn start(&self, upstream: &Upstream) -> Process {
        Process::start_as(self.command(), &[("OILSKIN_UPSTREAM", &upstream.url()), ("OILSKIN_FIELDS", "$.ssn")])
    }
}

fn ask(process: &Process) -> u16 {
    json(process.address(), "POST", "/", r#"{"ssn":"123"}"#).status()
}

#[test]
fn a_keyset_lives_in_a_secret_and_rotates_there() {
    let bench = Bench::new();
    let (code, said) = bench.keys(&["init"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(bench.keys(&["init"]).0, Some(1), "it is there already");
    for name in ["a", "b", "c.d"] {
        assert_eq!(bench.keys(&["init", "--name", name]).0, Some(0));
    }
    let (_, said) = bench.keys(&["list"]);
    for name in ["default  epoch 1", "a  epoch 1", "b  epoch 1", "c.d  epoch 1"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    // Whatever else is in the Secret stays there; a copy of the document that kubectl makes does not.
    bench.cluster.change("oilskin-default", |secret| {
        secret["data"]["other"] = STANDARD.encode("x").into();
        secret["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = "old".into();
        secret["metadata"]["annotations"]["team"] = "crm".into();
    });
    let upstream = Upstream::echo();
    let process = bench.start(&upstream);
    tools::until("keys", || process.ready().contains("true").then_some(()));
    assert_eq!(ask(&process), 200);
    let (code, said) = bench.keys(&["rotate"]);
    assert!(code == Some(0) && said.contains("epoch 3"), "{said}");
    let secret = bench.cluster.secret("oilskin-default").unwrap();
    assert_eq!(bench.cluster.member("oilskin-default", "other"), b"x");
    assert_eq!(secret["metadata"]["annotations"], serde_json::json!({"team": "crm"}));
    tools::until("the new epoch", || {
        process.metrics_page().contains("oilskin_keyset_epoch{keyset=\"default\"} 3").then_some(())
    });
    assert_eq!(ask(&process), 200);
}

/// A Secret that a controller makes is never written: it would be put back.
#[test]
fn a_secret_that_belongs_to_a_controller_is_only_read() {
    let bench = Bench::new();
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    bench.cluster.change("oilskin-default", |secret| {
        secret["metadata"]["ownerReferences"] =
            serde_json::json!([{"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "name": "x", "uid": "y", "controller": true}]);
    });
    let before = bench.cluster.secret("oilskin-default");
    let (code, said) = bench.keys(&["rotate"]);
    assert!(code == Some(1) && said.contains("belongs to a SealedSecret") && said.contains("--out"), "{said}");
    assert_eq!(bench.cluster.secret("oilskin-default"), before);
    let out = bench.keys.folder().join("next.json");
    let (code, said) = bench.keys(&["rotate", "--out", out.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    // The controller takes it over; the next run promotes it, into a file again.
    bench.cluster.change("oilskin-default", |secret| {
        secret["data"]["keyset.json"] = STANDARD.encode(std::fs::read(&out).unwrap()).into();
    });
    let (code, said) = bench.keys(&["rotate", "--out", out.to_str().unwrap()]);
    assert!(code == Some(0) && said.contains("is active, epoch 3"), "{said}");
}

#[test]
fn of_two_writers_one_wins_and_nothing_is_lost() {
    let bench = Bench::new();
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    let children: Vec<_> = (0..4).map(|_| bench.command().args(["keys", "rotate"]).spawn().unwrap()).collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    let (_, said) = bench.keys(&["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&said).unwrap();
    let (epoch, versions) = (listed[0]["epoch"].as_u64().unwrap(), listed[0]["versions"].as_array().unwrap().len());
    assert_eq!(epoch, 1 + 2 * (versions as u64 - 2), "{said}");
}

#[test]
fn an_api_server_that_is_away_is_waited_for_and_one_that_denies_takes_the_keys() {
    let bench = Bench::new();
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    bench.cluster.refuse(Some((503, "ServiceUnavailable")));
    let upstream = Upstream::echo();
    let process = bench.start(&upstream);
    process.logged(|line| line.contains("the API server answers 503"));
    assert_eq!(ask(&process), 503);
    assert_eq!(json(process.health, "GET", "/live", "").status(), 200);
    bench.cluster.refuse(None);
    tools::until("keys", || (ask(&process) == 200).then_some(()));
    for refusal in [(429, "TooManyRequests"), (401, "Unauthorized"), (500, "InternalError")] {
        bench.cluster.refuse(Some(refusal));
        process.logged(|line| line.contains(&format!("refused: {}", refusal.1)));
        assert_eq!(ask(&process), 200, "{refusal:?} says nothing of this keyset");
    }
    bench.cluster.refuse(Some((403, "Forbidden")));
    process.logged(|line| line.contains("denied twice"));
    assert_eq!(ask(&process), 503);
    bench.cluster.refuse(None);
    tools::until("keys again", || (ask(&process) == 200).then_some(()));
}

#[test]
fn what_is_no_document_of_this_keyset_is_not_taken() {
    let bench = Bench::new();
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    assert_eq!(bench.keys(&["init", "--name", "other"]).0, Some(0));
    let upstream = Upstream::echo();
    let process = bench.start(&upstream);
    tools::until("keys", || (ask(&process) == 200).then_some(()));
    let good = bench.cluster.member("oilskin-default", "keyset.json");
    let other = bench.cluster.member("oilskin-other", "keyset.json");
    let put = |bytes: &[u8]| {
        bench.cluster.change("oilskin-default", |secret| secret["data"]["keyset.json"] = STANDARD.encode(bytes).into());
    };
    for (bytes, said) in
        [(&other[..], "another keyset's"), (b"{}", "cut short"), (&good[..good.len() / 2], "cut short")]
    {
        put(bytes);
        process.logged(|line| line.contains(said));
        assert_eq!(ask(&process), 200, "the last good one serves");
    }
    bench.cluster.change("oilskin-default", |secret| secret["data"] = serde_json::json!({}));
    process.logged(|line| line.contains("does not exist in the store"));
    assert_eq!(ask(&process), 200);
    put(&good);
    process.logged(|line| line.contains("keys are refreshed again"));
}

/// A start learns of it only when it has asked; then it ends as it does where everything is on its own machine.
#[test]
fn a_start_ends_where_the_store_holds_what_is_no_keyset() {
    let bench = Bench::new();
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    bench.cluster.change("oilskin-default", |secret| secret["data"]["keyset.json"] = STANDARD.encode("{}").into());
    let upstream = Upstream::echo();
    let mut process = bench.start(&upstream);
    assert_eq!(process.ended(), Some(78));
    assert!(process.log().iter().any(|line| line.contains("keyset default: ")), "{:?}", process.log());
}

#[test]
fn replicas_on_secrets_read_one_anothers_tokens_while_keys_rotate() {
    let bench = Bench::new();
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    let vars = vec![
        ("OILSKIN_ROOT_KEY".to_owned(), bench.keys.root_uri()),
        ("OILSKIN_KEY_STORE".to_owned(), STORE.to_owned()),
        ("KUBECONFIG".to_owned(), bench.cluster.config().display().to_string()),
    ];
    let run = replicas::run(Path::new(env!("CARGO_BIN_EXE_replica")), &vars, 5, 1, Duration::from_secs(8));
    assert!(run.rotations >= 2 && run.read > 200, "{run:?}");
}

/// A controller's key and its certificate of one day, made then.
fn controller(folder: &Path, when: &str) -> (String, String) {
    let at = |name: &str| folder.join(name).display().to_string();
    let (key, cert) = (at("controller.key"), at("controller.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/", "-keyout", &key, "-out", &cert]);
    tools::run(openssl.args(["-days", "1"]).env("LD_PRELOAD", tools::faketime()).env("FAKETIME", when));
    (key, cert)
}

fn opened(key: &str, place: [&str; 3], sealed: &str) -> Result<String, String> {
    let mut python = tools::python();
    python.arg(tools::top().join("tests/tools/sealed_secrets.py")).arg(key).args(place);
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(sealed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn a_keyset_is_sealed_for_git_as_the_controller_opens_it() {
    let bench = Bench::new();
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    let document = String::from_utf8(bench.cluster.member("oilskin-default", "keyset.json")).unwrap();
    let (key, cert) = controller(bench.keys.folder(), "-1h");
    let sealed = |more: &[&str]| {
        let (code, said) = bench.keys(&[&["export", "--sealed-secret", "--cert", &cert], more].concat());
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str::<serde_json::Value>(&said).unwrap()
    };
    let data =
        |manifest: &serde_json::Value| manifest["spec"]["encryptedData"]["keyset.json"].as_str().unwrap().to_owned();
    let strict = sealed(&[]);
    assert_eq!(
        (strict["kind"].as_str(), strict["metadata"]["name"].as_str()),
        (Some("SealedSecret"), Some("oilskin-default"))
    );
    assert_eq!(strict["spec"]["template"]["metadata"]["namespace"], "crm");
    assert_eq!(opened(&key, ["strict", "crm", "oilskin-default"], &data(&strict)).unwrap(), document);
    assert!(opened(&key, ["strict", "crm", "other"], &data(&strict)).is_err(), "bound to its name");
    let wide = sealed(&["--scope", "namespace-wide", "--secret-name", "any"]);
    assert_eq!(wide["metadata"]["annotations"]["sealedsecrets.bitnami.com/namespace-wide"], "true");
    assert_eq!(opened(&key, ["namespace-wide", "crm", "-"], &data(&wide)).unwrap(), document);
    let anywhere = sealed(&["--scope", "cluster-wide"]);
    assert_eq!(opened(&key, ["cluster-wide", "-", "-"], &data(&anywhere)).unwrap(), document);
    // The same decryptor opens what another implementation makes, so it is no twin of ours.
    let public = tools::run(Command::new("openssl").args(["x509", "-pubkey", "-noout", "-in", &cert]));
    let path = bench.keys.folder().join("public.pem");
    std::fs::write(&path, public).unwrap();
    let mut node = tools::node();
    node.arg(tools::top().join("tests/node/kubeseal.mjs"))
        .arg(&path)
        .arg("crm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = node.spawn().unwrap();
    child.stdin.take().unwrap().write_all("Ünder seal".as_bytes()).unwrap();
    let theirs = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(opened(&key, ["namespace-wide", "crm", "-"], &theirs).unwrap(), "Ünder seal");
}

#[test]
fn a_certificate_that_is_none_or_has_ended_seals_nothing() {
    let bench = Bench::new();
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    let root = bench.keys.folder().join("root.key");
    let refused = |cert: &str, said: &str| {
        let (code, answer) = bench.keys(&["export", "--sealed-secret", "--cert", cert]);
        assert!(code == Some(1) && answer.contains(said), "{answer}");
    };
    refused(root.to_str().unwrap(), "no certificate in it");
    refused(&controller(bench.keys.folder(), "-3d").1, "has ended");
    assert_eq!(bench.keys(&["export", "--sealed-secret"]).0, Some(2), "--cert is missing");
}

/// What Git holds is rotated through Git: a manifest at a time, and none twice.
#[test]
fn a_sealed_keyset_is_rotated_by_manifests() {
    let bench = Bench::new();
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    let (key, cert) = controller(bench.keys.folder(), "-1h");
    let out = bench.keys.folder().join("keyset.yaml");
    let file = out.to_str().unwrap();
    let rotate = || bench.keys(&["rotate", "--out", file, "--sealed-secret", "--cert", &cert]);
    let document = || {
        let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
        let data = manifest["spec"]["encryptedData"]["keyset.json"].as_str().unwrap();
        (opened(&key, ["strict", "crm", "oilskin-default"], data).unwrap(), manifest["metadata"].clone())
    };
    let (code, said) = rotate();
    assert!(code == Some(0) && said.contains("is pending in the document written"), "{said}");
    let (pending, metadata) = document();
    assert!(pending.contains("\"epoch\":2") && metadata["annotations"]["oilskin-epoch"] == "2", "{metadata}");
    let (code, said) = rotate();
    assert!(code == Some(1) && said.contains("a document of epoch 2 waits there"), "{said}");
    // The controller puts it into its place.
    let sealed = bench.keys.folder().join("pending.json");
    std::fs::write(&sealed, &pending).unwrap();
    assert_eq!(bench.keys(&["import", sealed.to_str().unwrap()]).0, Some(0));
    let (code, said) = rotate();
    assert!(code == Some(0) && said.contains("epoch 3"), "{said}");
    assert!(document().0.contains("\"epoch\":3"));
    let (code, said) = bench.keys(&["rotate", "--sealed-secret", "--cert", &cert]);
    assert!(code == Some(1) && said.contains("asks for --out"), "{said}");
}
