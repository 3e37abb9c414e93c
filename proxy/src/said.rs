//! What others say of themselves, as much of it as is shown.

/// What is kept of a message, in characters.
const MOST: usize = 200;

/// Its first characters, on one line, nothing among them that a terminal obeys.
pub(crate) fn shortened(message: &str) -> String {
    let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().filter(|character| !character.is_control()).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn a_message_is_short_and_on_one_line_and_commands_no_terminal() {
        assert_eq!(shortened(" a\n b\u{1b}[31m"), "a b[31m");
        assert_eq!(shortened(&"é".repeat(1000)).chars().count(), 200);
    }
}
