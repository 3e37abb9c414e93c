//! The page's policies for AWS, against what is called.

use std::collections::BTreeSet;

use oilskin_tests::aws::Door;
use oilskin_tests::process::Process;
use oilskin_tests::{Upstream, tools};
use serde_json::{Value, json};

use super::aws::{Bench, SECRET, ended, serving};

/// The JSON of the page's section on AWS: a replica's policy, what a job needs besides, and the statement for names of keys.
fn documented() -> [Value; 3] {
    let page = std::fs::read_to_string(tools::top().join("docs/keys.md")).unwrap();
    let (_, from) = page.split_once("\n### AWS\n").unwrap();
    let (section, _) = from.split_once("\n### ").unwrap();
    let blocks = section.split("```json\n").skip(1).map(|block| block.split_once("```").unwrap().0);
    let blocks: Vec<Value> = blocks.map(|block| serde_json::from_str(block).unwrap()).collect();
    blocks.try_into().unwrap()
}

fn allowed(policies: &[&Value]) -> BTreeSet<String> {
    let statements = policies.iter().flat_map(|policy| match policy["Statement"].as_array() {
        Some(statements) => statements.clone(),
        None => vec![(*policy).clone()],
    });
    let actions = statements.flat_map(|statement| {
        assert_eq!(statement["Effect"], "Allow");
        match &statement["Action"] {
            Value::Array(actions) => actions.clone(),
            one => vec![one.clone()],
        }
    });
    actions.map(|action| action.as_str().unwrap().to_owned()).collect()
}

/// What IAM would have to allow for what came.
fn taken(door: &Door) -> BTreeSet<String> {
    let mut taken = BTreeSet::new();
    for call in door.seen("") {
        let target = call.header("x-amz-target").unwrap();
        taken.insert(target.replace("TrentService.", "kms:").replace("secretsmanager.", "secretsmanager:"));
        if call.text().contains("\"Tags\"") {
            taken.insert("secretsmanager:TagResource".to_owned());
        }
    }
    taken
}

#[test]
fn the_policies_of_the_page_allow_what_is_called_and_no_more() {
    let mut bench = Bench::new();
    let arn = bench.aws.kms("DescribeKey", &json!({"KeyId": "alias/root"}))["KeyMetadata"]["Arn"].clone();
    bench.root = format!("awskms:///{}", arn.as_str().unwrap());
    let [replica, job, names] = documented();
    bench.well(&["init"]);
    bench.well(&["init", "--name", "other"]);
    assert!(bench.well(&["list"]).contains("other  epoch 1"));
    let door = bench.aws.another_door();
    let (code, said) = ended(bench.command().envs(door.vars()).args(["keys", "rotate"]));
    assert_eq!(code, Some(0), "{said}");
    let needed = ["kms:Decrypt", "secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"];
    let needed = needed.into_iter().chain(["secretsmanager:UpdateSecretVersionStage"]).map(str::to_owned);
    assert_eq!(taken(&door), needed.collect(), "a rotation wraps nothing");
    bench.well(&["rewrap"]);
    assert_eq!(taken(&bench.aws), allowed(&[&replica, &job]));
    for (root, policies) in [(bench.root.as_str(), vec![&replica]), ("awskms:///alias/root", vec![&replica, &names])] {
        let (door, upstream) = (bench.aws.another_door(), Upstream::echo());
        let mut command = bench.command();
        command.envs(door.vars()).env("OILSKIN_ROOT_KEY", root);
        let vars = [("OILSKIN_UPSTREAM", upstream.url()), ("OILSKIN_FIELDS", "$.ssn".to_owned())];
        let process = Process::start_as(command, &vars.each_ref().map(|(name, value)| (*name, value.as_str())));
        serving(&process);
        tools::until("a check of the root", || (door.seen("Decrypt").len() > 1).then_some(()));
        assert_eq!(taken(&door), allowed(&policies), "{root}");
        // What its conditions speak of is what is sent.
        let call: Value = serde_json::from_slice(&door.seen("Decrypt")[0].body).unwrap();
        let condition = replica["Statement"][0]["Condition"]["StringEquals"].as_object().unwrap();
        for (key, value) in condition {
            assert_eq!(call["EncryptionContext"][key.strip_prefix("kms:EncryptionContext:").unwrap()], *value);
        }
    }
    let described = bench.aws.secrets("DescribeSecret", &json!({"SecretId": SECRET}));
    let resource = replica["Statement"][1]["Resource"].as_str().unwrap().replace('?', "");
    let name = |arn: &str| arn.split(":secret:").nth(1).unwrap().to_owned();
    let found = name(described["ARN"].as_str().unwrap());
    assert!(found.starts_with(&name(&resource)) && found.len() == name(&resource).len() + 6, "{found}");
}
