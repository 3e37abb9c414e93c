//! Whose credentials sign what is sent to AWS: each of the places that they may come from.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use oilskin_tests::aws::Aws;
use oilskin_tests::aws::REGION;
use oilskin_tests::process::Process;
use oilskin_tests::upstream::{Then, respond};
use oilskin_tests::{Message, Upstream, client, tools};
use serde_json::json;

use super::aws::{Bench, ask, ended, serving};

/// The command without credentials.
fn without(bench: &Bench) -> Command {
    let mut command = bench.command();
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    command
}

fn is_signed_by(call: &Message, key: &str) -> bool {
    call.header("authorization").is_some_and(|signed| signed.contains(&format!("Credential={key}/")))
}

/// Runs a change of the keyset; returns what KMS and Secrets Manager were sent, none of it signed by another key than this.
fn signed(bench: &Bench, mut command: Command, key: &str) -> Vec<Message> {
    let before = bench.aws.seen("").len();
    let (code, said) = ended(command.args(["keys", "rewrap"]));
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("secret-of-"), "{said}");
    let calls = bench.aws.seen("").split_off(before);
    let has = |call: &str| calls.iter().any(|seen| seen.header("x-amz-target").unwrap().ends_with(call));
    assert!(has("Decrypt") && has("GetSecretValue") && has("PutSecretValue"));
    for call in &calls {
        assert!(is_signed_by(call, key), "{}", call.header("authorization").unwrap());
    }
    calls
}

/// Seconds from now, as AWS writes moments.
fn moment(seconds: u64) -> String {
    let at = SystemTime::now() + Duration::from_secs(seconds);
    let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let told = tools::run(tools::program("date").args(["-u", "-d", &format!("@{at}"), "+%Y-%m-%dT%H:%M:%SZ"]));
    told.trim().to_owned()
}

/// Credentials as the endpoints of ECS, EKS and EC2 give them.
fn given(key: &str, seconds: u64) -> String {
    let given = json!({
        "Code": "Success",
        "Type": "AWS-HMAC",
        "LastUpdated": moment(0),
        "AccessKeyId": key,
        "SecretAccessKey": "secret-of-a-role",
        "Token": format!("session-{key}"),
        "Expiration": moment(seconds),
    });
    given.to_string()
}

fn answered(stream: &mut std::net::TcpStream, status: &str, kind: &str, body: &str) -> Then {
    respond(stream, status, &[("Content-Type", kind)], body.as_bytes())
}

#[test]
fn the_environment_s_credentials_sign() {
    let bench = Bench::made();
    let mut command = without(&bench);
    command.env("AWS_ACCESS_KEY_ID", "AKIDOFENVIRONMENT").env("AWS_SECRET_ACCESS_KEY", "secret-of-environment");
    command.env("AWS_SESSION_TOKEN", "session-of-environment");
    for call in signed(&bench, command, "AKIDOFENVIRONMENT") {
        assert_eq!(call.header("x-amz-security-token"), Some("session-of-environment"));
    }
}

#[test]
fn a_profile_s_credentials_sign_and_its_region_is_the_region() {
    let bench = Bench::made();
    let folder = bench.keys.folder().join(".aws");
    std::fs::create_dir(&folder).unwrap();
    let one = |name: &str| {
        format!(
            "[{name}]\naws_access_key_id = AKIDOF{}\naws_secret_access_key = secret-of-profile\n",
            name.to_uppercase()
        )
    };
    std::fs::write(folder.join("credentials"), one("default") + &one("work")).unwrap();
    std::fs::write(
        folder.join("config"),
        format!("[default]\nregion = eu-west-3\n[profile work]\nregion = {REGION}\n"),
    )
    .unwrap();
    let mut command = without(&bench);
    command.env_remove("AWS_REGION").env("AWS_PROFILE", "work");
    for call in signed(&bench, command, "AKIDOFWORK") {
        assert!(call.header("authorization").unwrap().contains(&format!("/{REGION}/")));
    }
}

/// As a pod of EKS has it: a token in a file and a role, given to STS for credentials.
#[test]
fn a_web_identity_becomes_credentials() {
    let bench = Bench::made();
    let sts = Aws::moto();
    let token = bench.keys.folder().join("token");
    std::fs::write(&token, "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhcHAifQ.").unwrap();
    let mut command = without(&bench);
    command.env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/app").env("AWS_WEB_IDENTITY_TOKEN_FILE", &token);
    command.env("AWS_ENDPOINT_URL_STS", sts.url());
    let before = bench.aws.seen("Decrypt").len();
    let (code, said) = ended(command.args(["keys", "rewrap"]));
    assert_eq!(code, Some(0), "{said}");
    let calls = bench.aws.seen("Decrypt").split_off(before);
    assert!(!calls.is_empty());
    for call in calls {
        let signed = call.header("authorization").unwrap();
        assert!(!signed.contains("Credential=test/") && signed.contains("Credential=ASIA"), "{signed}");
        assert!(call.header("x-amz-security-token").is_some());
    }
}

/// As ECS and EKS Pod Identity have it: an address, and a token in a file that is read for every question.
#[test]
fn a_container_s_credentials_sign() {
    let bench = Bench::made();
    let agent = Upstream::scripted(|request, stream| match request.header("authorization") {
        Some("token-of-a-pod") if request.target() == "/v1/credentials" => {
            answered(stream, "200 OK", "application/json", &given("ASIAOFCONTAINER", 3_600))
        }
        _ => answered(stream, "403 Forbidden", "application/json", "{}"),
    });
    let token = bench.keys.folder().join("token");
    std::fs::write(&token, "token-of-a-pod").unwrap();
    let mut command = without(&bench);
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/v1/credentials", agent.url()));
    command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token);
    for call in signed(&bench, command, "ASIAOFCONTAINER") {
        assert_eq!(call.header("x-amz-security-token"), Some("session-ASIAOFCONTAINER"));
    }
}

/// As an instance of EC2 has it, which says its region, too; only who came by a session of version 2 is told.
#[test]
fn an_instance_s_role_signs_where_the_instance_is() {
    let bench = Bench::made();
    let metadata = Upstream::scripted(|request, stream| {
        let path = request.target().trim_end_matches('/');
        let known = request.header("x-aws-ec2-metadata-token") == Some("session-of-an-instance");
        match path {
            "/latest/api/token" if request.method() == "PUT" => {
                let fields = [("Content-Type", "text/plain"), ("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")];
                respond(stream, "200 OK", &fields, b"session-of-an-instance")
            }
            _ if !known => answered(stream, "401 Unauthorized", "text/plain", ""),
            "/latest/meta-data/placement/region" => answered(stream, "200 OK", "text/plain", REGION),
            _ if path.ends_with("/security-credentials") || path.ends_with("/security-credentials-extended") => {
                answered(stream, "200 OK", "text/plain", "role-of-an-instance")
            }
            _ if path.ends_with("/role-of-an-instance") => {
                answered(stream, "200 OK", "application/json", &given("ASIAOFINSTANCE", 3_600))
            }
            _ => answered(stream, "404 Not Found", "text/plain", ""),
        }
    });
    let mut command = without(&bench);
    command.env_remove("AWS_REGION").env_remove("AWS_EC2_METADATA_DISABLED");
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url());
    for call in signed(&bench, command, "ASIAOFINSTANCE") {
        assert_eq!(call.header("x-amz-security-token"), Some("session-ASIAOFINSTANCE"));
        assert!(call.header("authorization").unwrap().contains(&format!("/{REGION}/")));
    }
}

/// Whoever keeps the keys fresh renews credentials, without any request of the app's, and while they cannot be had requests go on.
#[test]
fn credentials_that_end_are_renewed_without_a_request_and_their_absence_is_an_outage() {
    let bench = Bench::made();
    let (times, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (given_out, refuses) = (Arc::clone(&times), Arc::clone(&broken));
    let agent = Upstream::scripted(move |_, stream| {
        if refuses.load(Ordering::SeqCst) > 0 {
            return answered(stream, "503 Service Unavailable", "application/json", "{}");
        }
        let number = given_out.fetch_add(1, Ordering::SeqCst);
        // The SDK asks anew when less than about ten seconds are left.
        answered(stream, "200 OK", "application/json", &given(&format!("ASIANUMBER{number}"), 9))
    });
    let mut command = without(&bench);
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.url());
    let upstream = Upstream::echo();
    let process = Process::start_as(command, &[("OILSKIN_UPSTREAM", &upstream.url()), ("OILSKIN_FIELDS", "$.ssn")]);
    serving(&process);
    let before = times.load(Ordering::SeqCst);
    for call in ["Decrypt", "GetSecretValue"] {
        let is_new = |seen: &Message| (before..before + 50).any(|at| is_signed_by(seen, &format!("ASIANUMBER{at}")));
        tools::until("a call with new credentials", || bench.aws.seen(call).iter().any(is_new).then_some(()));
    }
    assert!(!process.log().iter().any(|line| line.contains("cannot refresh")), "{:?}", process.log());
    assert!(upstream.seen().len() <= 20, "nobody asked meanwhile");
    broken.store(1, Ordering::SeqCst);
    process.logged(|line| line.contains("no AWS credentials were found") && line.contains("unreachable"));
    assert_eq!(ask(&process), 200);
    assert_eq!(client::json(process.health, "GET", "/live", "").status(), 200);
    broken.store(0, Ordering::SeqCst);
    process.logged(|line| line.contains("keys are refreshed again"));
    let log = process.log();
    assert!(!log.iter().any(|line| line.contains("secret-of-a-role") || line.contains("session-ASIA")), "{log:?}");
}
