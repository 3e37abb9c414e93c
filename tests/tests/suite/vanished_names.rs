//! Providers whose names go while keys are served, and come back.

use std::process::Command;

use oilskin_tests::aws::{self, Front};
use oilskin_tests::client::json;
use oilskin_tests::host_names::{HostNames, NAME};
use oilskin_tests::hostile::{Hostile, Mood};
use oilskin_tests::process::Process;
use oilskin_tests::{Upstream, tools};

use super::vault_keys::{ask, until_serving};

/// Served, not served once the budget is over, served again. `cut` ends connections, `mend` lets them be made again.
fn comes_back(names: &HostNames, mut command: Command, cut: impl FnOnce(), mend: impl FnOnce()) {
    let upstream = Upstream::echo();
    command.envs(names.vars()).env("OILSKIN_KEY_STALE_ENCRYPT", "5s").env("OILSKIN_KEY_STALE_DECRYPT", "5s");
    let process = Process::start_as(command, &[("OILSKIN_UPSTREAM", &upstream.url()), ("OILSKIN_FIELDS", "$.ssn")]);
    until_serving(&process);
    names.vanish();
    cut();
    process.logged(|line| line.contains("cannot refresh keys") && line.contains("be reached"));
    mend();
    tools::until("the budget to be over", || (ask(&process) == 503).then_some(()));
    assert_eq!(json(process.health, "GET", "/live", "").status(), 200);
    names.appear();
    until_serving(&process);
}

#[test]
fn a_name_of_vault_s_that_goes_while_keys_are_served_is_an_outage() {
    let (bench, names) = (super::vault_keys::Bench::new(), HostNames::new());
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    let hostile = Hostile::before(bench.vault.address());
    let mut command = bench.command();
    command.env("VAULT_ADDR", format!("http://{NAME}:{}", hostile.address().port()));
    let cut = || hostile.turn(Mood::Throws(Vec::new()));
    comes_back(&names, command, cut, || hostile.turn(Mood::Good));
}

#[test]
fn a_name_of_aws_that_goes_while_keys_are_served_is_an_outage() {
    let (bench, names) = (super::aws::Bench::made(), HostNames::new());
    let door = bench.aws.another_door();
    let mut command = bench.command();
    command.envs(aws::endpoints(&format!("http://{NAME}:{}", door.address().port())));
    comes_back(&names, command, || door.front(Front::Gone), || door.front(Front::Open));
}
