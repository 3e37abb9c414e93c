//! Who we are at Vault: every way in, with a real OpenBao. What is asked for is a field to encrypt.

use std::path::Path;
use std::process::Command;

use oilskin_tests::client::json;
use oilskin_tests::process::Process;
use oilskin_tests::transit::{Bench, PII, calls, is_ready, without_keys};
use oilskin_tests::upstream::respond;
use oilskin_tests::{Upstream, tools};
use serde_json::{Value, json};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const POLICY: &str = r#"
path "transit/keys/pii"    { capabilities = ["read"] }
path "transit/+/pii"       { capabilities = ["update"] }
"#;

/// A signer of JWTs, RS256.
struct Signer<'a>(&'a Bench);

impl Signer<'_> {
    fn new(bench: &Bench) -> Signer<'_> {
        let (private, public) = (bench.vault.path("jwt.key"), bench.vault.path("jwt.pub"));
        tools::run(tools::program("openssl").args(["genrsa", "-out", &private, "2048"]));
        tools::run(tools::program("openssl").args(["rsa", "-in", &private, "-pubout", "-out", &public]));
        Signer(bench)
    }

    fn public(&self) -> String {
        self.0.vault.path("jwt.pub")
    }

    /// Writes a JWT with these claims into `jwt`, as Kubernetes replaces a pod's.
    fn sign(&self, claims: &Value) -> String {
        let mut claims = claims.clone();
        for (name, offset) in [("iat", 5), ("nbf", 5)] {
            claims[name] = json!(now() - offset);
        }
        claims["exp"] = json!(now() + 3_600);
        let claims = &claims;
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&json!({"alg": "RS256", "typ": "JWT"})), part(claims));
        let (input, output) = (self.0.vault.path("jwt.text"), self.0.vault.path("jwt.sig"));
        std::fs::write(&input, &text).unwrap();
        let key = self.0.vault.path("jwt.key");
        tools::run(tools::program("openssl").args(["dgst", "-sha256", "-sign", &key, "-out", &output, &input]));
        let signature = URL_SAFE_NO_PAD.encode(std::fs::read(output).unwrap());
        let file = self.0.vault.path("jwt");
        std::fs::write(&file, format!("{text}.{signature}\n")).unwrap();
        file
    }
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn start(command: Command, upstream: &Upstream, vars: &[(&str, &str)]) -> Process {
    let all = [
        ("OILSKIN_UPSTREAM", upstream.url()),
        ("OILSKIN_FIELDS", "$.ssn".to_owned()),
        ("OILSKIN_BACKEND", PII.to_owned()),
    ];
    let all: Vec<_> = all.iter().map(|(name, value)| (*name, value.as_str())).chain(vars.iter().copied()).collect();
    Process::start_as(command, &all)
}

/// A field goes to Vault and back by that login.
fn gets_in(bench: &Bench, vars: &[(&str, &str)]) -> Process {
    let upstream = Upstream::echo();
    let mut command = without_keys();
    command.env("VAULT_ADDR", bench.vault.url());
    let process = start(command, &upstream, vars);
    tools::until("ready", || is_ready(&process).then_some(()));
    assert_eq!(json(process.address(), "POST", "/", r#"{"ssn":"123"}"#).text(), r#"{"ssn":"123"}"#);
    process
}

#[test]
fn a_jwt_logs_in_and_is_read_anew_for_the_next_login() {
    let bench = Bench::new();
    bench.vault.policy(POLICY);
    let signer = Signer::new(&bench);
    bench.vault.bao(&["auth", "enable", "jwt"]);
    bench.vault.bao(&["write", "auth/jwt/config", &format!("jwt_validation_pubkeys=@{}", signer.public())]);
    let role = [
        "role_type=jwt",
        "bound_audiences=vault",
        "user_claim=sub",
        "token_policies=oilskin",
        "token_ttl=2s",
        "token_max_ttl=3s",
    ];
    bench.vault.bao(&[&["write", "auth/jwt/role/web"], role.as_slice()].concat());
    let file = signer.sign(&json!({"sub": "crm", "aud": "vault"}));
    let vars = [("OILSKIN_VAULT_AUTH", "jwt"), ("OILSKIN_VAULT_ROLE", "web"), ("OILSKIN_VAULT_JWT_FILE", &file)];
    let process = gets_in(&bench, &vars);
    // Its tokens live for three seconds at most: another login, with what the file holds then.
    signer.sign(&json!({"sub": "crm", "aud": "another"}));
    process.logged(|line| line.contains("no token of Vault's"));
    signer.sign(&json!({"sub": "crm", "aud": "vault"}));
    tools::until("fields again", || {
        (json(process.address(), "POST", "/", r#"{"ssn":"1"}"#).status() == 200).then_some(())
    });
    let jwt = std::fs::read_to_string(file).unwrap();
    assert!(!process.log().iter().any(|line| line.contains(jwt.trim())));
}

#[test]
fn a_service_account_logs_in_where_the_cluster_vouches_for_it() {
    let bench = Bench::new();
    bench.vault.policy(POLICY);
    let signer = Signer::new(&bench);
    // What Vault asks the cluster: whether this token is good, and whose it is.
    let cluster = Upstream::scripted(|request, stream| {
        let review: Value = serde_json::from_slice(&request.body).unwrap();
        let good =
            request.target() == "/apis/authentication.k8s.io/v1/tokenreviews" && review["spec"]["token"].is_string();
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": {
            "authenticated": good, "user": {"username": "system:serviceaccount:crm:web", "uid": "u-1",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:crm"]}}});
        respond(stream, "201 Created", &[("Content-Type", "application/json")], body.to_string().as_bytes())
    });
    bench.vault.bao(&["auth", "enable", "-path=k8s/one", "kubernetes"]);
    bench.vault.bao(&[
        "write",
        "auth/k8s/one/config",
        &format!("kubernetes_host={}", cluster.url()),
        "kubernetes_ca_cert=none",
        "disable_local_ca_jwt=true",
        &format!("pem_keys=@{}", signer.public()),
    ]);
    let role = [
        "bound_service_account_names=web",
        "bound_service_account_namespaces=crm",
        "token_policies=oilskin",
        "token_ttl=1h",
    ];
    bench.vault.bao(&[&["write", "auth/k8s/one/role/web"], role.as_slice()].concat());
    let claims = json!({"iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:crm:web",
        "kubernetes.io": {"namespace": "crm", "serviceaccount": {"name": "web", "uid": "u-1"}}});
    let file = signer.sign(&claims);
    gets_in(
        &bench,
        &[
            ("OILSKIN_VAULT_AUTH", "kubernetes"),
            ("OILSKIN_VAULT_AUTH_MOUNT", "k8s/one"),
            ("OILSKIN_VAULT_ROLE", "web"),
            ("OILSKIN_VAULT_JWT_FILE", &file),
        ],
    );
    assert!(!cluster.seen().is_empty());
}

#[test]
fn our_certificate_logs_in() {
    let bench = Bench::new();
    bench.vault.policy(POLICY);
    let authority = bench.authority();
    authority.svid("client", "DNS:crm", 30);
    bench.vault.bao(&["auth", "enable", "cert"]);
    let certificate = format!("certificate=@{}", authority.path("ca.pem"));
    bench.vault.bao(&[
        "write",
        "auth/cert/certs/web",
        &certificate,
        "allowed_names=crm,*",
        "token_policies=oilskin",
        "token_ttl=1h",
    ]);
    let upstream = Upstream::echo();
    let (ca, cert, key) = (authority.path("ca.pem"), authority.path("client.pem"), authority.path("client.key"));
    let mut command = without_keys();
    command.env("VAULT_ADDR", bench.vault.tls_url()).env("VAULT_TLS_SERVER_NAME", "localhost").env("VAULT_CACERT", ca);
    command.env("VAULT_CLIENT_CERT", cert).env("VAULT_CLIENT_KEY", key).env("OILSKIN_VAULT_AUTH", "cert");
    let process = start(command, &upstream, &[]);
    tools::until("ready", || is_ready(&process).then_some(()));
    assert_eq!(json(process.address(), "POST", "/", r#"{"ssn":"123"}"#).status(), 200);
}

#[test]
fn a_token_that_was_made_for_us_is_given_back_at_the_end() {
    let bench = Bench::new();
    let role = bench.vault.app_role(POLICY, "1h", "2h");
    let secret = bench.vault.path("secret_id");
    let process = gets_in(
        &bench,
        &[
            ("OILSKIN_VAULT_AUTH", "approle"),
            ("OILSKIN_VAULT_ROLE_ID", &role),
            ("OILSKIN_VAULT_SECRET_ID_FILE", &secret),
        ],
    );
    let tokens = || bench.vault.bao(&["list", "-format=json", "auth/token/accessors"]).lines().count();
    let before = tokens();
    let mut process = process;
    process.signal("TERM");
    assert_eq!(process.ended(), Some(0));
    assert_eq!(tokens(), before - 1);
    assert!(Path::new(&secret).exists());
}

/// What it is denied, it is not to have, and is borne with; yet it may be taken away meanwhile.
#[test]
fn a_token_that_is_revoked_while_denials_are_borne_with_is_replaced_at_once() {
    const NO_DECRYPTION: &str = r#"
path "transit/keys/pii"    { capabilities = ["read"] }
path "transit/encrypt/pii" { capabilities = ["update"] }
"#;
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    let role = bench.vault.app_role(NO_DECRYPTION, "1h", "2h");
    let secret = bench.vault.path("secret_id");
    let mut command = without_keys();
    command.env("VAULT_ADDR", bench.vault.url()).env("OILSKIN_VAULT_AUTH", "approle");
    command.env("OILSKIN_VAULT_ROLE_ID", role).env("OILSKIN_VAULT_SECRET_ID_FILE", secret);
    let process = start(command, &upstream, &[]);
    tools::until("ready", || is_ready(&process).then_some(()));
    let post = || json(process.address(), "POST", "/", r#"{"ssn":"123"}"#).status();
    let looked = || calls(&process, "lookup");
    // Written, and not read back.
    let denied = || {
        let before = looked();
        assert_eq!(post(), 503);
        tools::until("Vault to say that the token lives", || (looked() > before).then_some(()));
    };
    denied();
    process.logged(|line| line.contains("something was denied"));
    tools::until("the second token", || (calls(&process, "login") == 2).then_some(()));
    denied();
    let seen = upstream.seen().len();
    bench.vault.bao(&["token", "revoke", "-mode=path", "auth/approle"]);
    tools::until("the third token", || {
        post();
        (upstream.seen().len() > seen).then_some(())
    });
    process.logged(|line| line.contains("does not know the token any more"));
}
