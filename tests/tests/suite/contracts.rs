//! The contracts of key stores and root keys, over each that there is.

use std::process::Command;

use oilskin_tests::aws::Aws;
use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::hsm::Hsm;
use oilskin_tests::keys::Keys;
use oilskin_tests::kubernetes::Kubernetes;
use oilskin_tests::vault::{ROOT, Vault};
use oilskin_tests::{contract, process, tools};

/// As large a document as all stores take, but Secrets Manager.
const LARGE: usize = 1_000_000;

fn quick(keys: &Keys) -> Command {
    let mut command = process::command(keys);
    command.env("OILSKIN_KEY_REFRESH", "1s");
    command
}

/// A root key in a file, and no keyset.
fn root_alone() -> Keys {
    let keys = Keys::empty();
    let mut init = process::command(&keys);
    tools::run(init.args(["keys", "init"]));
    std::fs::remove_file(keys.folder().join("keys/default.json")).unwrap();
    keys
}

fn bao() -> (Vault, Authority) {
    let authority = Authority::new();
    authority.issue("server", &Wish::default());
    (Vault::start(&authority), authority)
}

#[test]
fn a_folder_keeps_the_contract_of_stores() {
    let keys = root_alone();
    let command = || quick(&keys);
    contract::store(&command);
    contract::large(&command, LARGE);
    contract::too_large(&command, (1 << 20) + 8, "longer than 1 MiB");
}

#[test]
fn vault_keeps_the_contract_of_stores() {
    let (keys, (vault, _authority)) = (root_alone(), bao());
    let command = || {
        let mut command = quick(&keys);
        command.env("OILSKIN_KEY_STORE", "vault:secret/oilskin/{keyset}");
        command.env("VAULT_ADDR", vault.url()).env("VAULT_TOKEN", ROOT);
        command
    };
    contract::store(&command);
    contract::large(&command, LARGE);
}

#[test]
fn kubernetes_keeps_the_contract_of_stores() {
    let (keys, cluster) = (root_alone(), Kubernetes::start());
    let command = || {
        let mut command = quick(&keys);
        command.env("OILSKIN_KEY_STORE", "k8s:crm/oilskin-{keyset}").env("KUBECONFIG", cluster.config());
        command
    };
    contract::store(&command);
    contract::large(&command, LARGE);
    contract::too_large(&command, (1 << 20) + 8, "larger than a Secret may be");
}

#[test]
fn a_file_keeps_the_contract_of_roots() {
    let keys = root_alone();
    contract::root(&|| quick(&keys), &keys.folder().join("keys"));
}

#[test]
fn a_token_keeps_the_contract_of_roots() {
    let hsm = Hsm::new();
    contract::root(&|| hsm.command(), &hsm.path("keys"));
}

#[test]
fn vault_keeps_the_contract_of_roots() {
    let (keys, (vault, _authority)) = (Keys::empty(), bao());
    vault.transit_with("root", "type=aes256-gcm96");
    let command = || {
        let mut command = quick(&keys);
        command.env("OILSKIN_ROOT_KEY", "vault:transit/keys/root");
        command.env("VAULT_ADDR", vault.url()).env("VAULT_TOKEN", ROOT);
        command
    };
    contract::root(&command, &keys.folder().join("keys"));
}

#[test]
fn secrets_manager_keeps_the_contract_of_stores() {
    let (keys, aws) = (root_alone(), Aws::start());
    let command = || {
        let mut command = quick(&keys);
        command.env("OILSKIN_KEY_STORE", "awssm:oilskin/{keyset}").envs(aws.vars());
        command
    };
    contract::store(&command);
    // A secret holds 64 KiB.
    contract::large(&command, 60_000);
}

#[test]
fn kms_keeps_the_contract_of_roots() {
    let (keys, aws) = (Keys::empty(), Aws::start());
    let root = format!("awskms:///{}", aws.key("root"));
    let command = || {
        let mut command = quick(&keys);
        command.env("OILSKIN_ROOT_KEY", &root).envs(aws.vars());
        command
    };
    contract::root(&command, &keys.folder().join("keys"));
}
