//! What Vault answers to a call, and what an app sends as one of its ciphertexts.

/// The first byte says how many items were asked about, the rest is the answer.
pub(super) fn vault(data: &[u8]) {
    let Some((&asked, rest)) = data.split_first() else { return };
    let asked = usize::from(asked & 7);
    let words = ["vault_tag", "vault_version", "vault_item"];
    for answers in oilskin::vault_answers(rest, asked).into_iter().flatten() {
        assert_eq!(answers.len(), asked);
        assert!(answers.iter().filter_map(|answer| answer.as_ref().err()).all(|word| words.contains(word)));
    }
    if oilskin::is_vault_ciphertext(rest) {
        // It goes into calls and bodies as it is.
        let text = std::str::from_utf8(rest).unwrap();
        let json = format!("[\"{text}\"]");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [text]);
    }
}
