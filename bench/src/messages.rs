//! What is sent and answered: the same bytes for every proxy.

/// The request's body: 370 bytes with three fields to protect.
pub(crate) const REQUEST: &str = r#"{"id":"c0a80101-7f3e-4b1c-9d2a-5e8f90ab12cd","name":"Ada Lovelace","ssn":"123-45-6789","email":"ada@example.com","card":{"number":"4111111111111111","expires":"12/29","holder":"A LOVELACE"},"address":{"street":"12 St Martins Square","city":"London","postcode":"SW1Y 4JH","country":"GB"},"tags":["vip","newsletter"],"active":true,"balance":1042.5,"note":"mail, no calls"}"#;

/// The answer's body: as long, and read by the same rules, which find nothing.
pub(crate) const ANSWER: &str = r#"{"id":"c0a80101-7f3e-4b1c-9d2a-5e8f90ab12cd","status":"stored","version":170,"created":"2025-03-01T09:12:44Z","updated":"2025-06-14T17:03:09Z","links":{"self":"/customers/c0a80101","orders":"/customers/c0a80101/orders"},"audit":{"by":"crm-api","region":"eu-west-2","trace":"4bf92f3577b34da6a3ce929d0e0e4736"},"flags":["indexed","replicated"],"partial":false,"cost":0.25}"#;

/// The rules of rows with fields.
pub(crate) const FIELDS: &str = "$..ssn, $..email, $.card.number";

/// A body with `members` members, none of which the rules of the benchmark select unless they name it.
pub(crate) fn document(members: usize) -> String {
    let members: Vec<String> = (0..members)
        .map(|n| format!(r#""member{n}":{{"id":{n},"label":"entry number {n}","parts":[{n},true,null,"text of {n}"],"more":{{"deep":"value {n}"}}}}"#))
        .collect();
    format!(r#"{{"ssn":"123-45-6789",{}}}"#, members.join(","))
}

/// 15 kB of JSON.
pub(crate) fn bulk() -> String {
    let mut text = document(100);
    text.truncate(15_000 - 2);
    // Nobody reads it as JSON: what matters is its length.
    text.push_str("\"}");
    text
}

/// A POST of JSON over a connection that is kept.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_of_370_bytes() {
        for body in [REQUEST, ANSWER] {
            assert_eq!(body.len(), 370);
            serde_json::from_str::<serde_json::Value>(body).unwrap();
            assert!(!body.contains(['$', '\'']) && !ANSWER.contains("ssn"), "nginx reads $ as a variable");
        }
        serde_json::from_str::<serde_json::Value>(&document(3)).unwrap();
    }
}
