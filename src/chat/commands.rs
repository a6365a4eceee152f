//! Parses messages that begin with a slash. This module knows no rooms and stores nothing.

use crate::model::DisplayName;

/// A command, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// `/help`.
    Help,
    /// `/pm name text`; both may be missing.
    Private(Addressed<'a>),
    /// Any other word after a slash.
    Unknown(&'a str),
}

/// The name and the text of a private message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Addressed<'a> {
    /// All ways to split them, quoted names and longer names first.
    pub(super) ways: Vec<(&'a str, &'a str)>,
    /// Used if nobody has any of the names.
    pub(super) first: (&'a str, &'a str),
}

/// The answer to `/help`.
pub(super) const HELP: &str = "/pm name text sends a private message from any room. Put a name of \
    several words in \"quotes\". /help shows this list. To send text that starts with a slash, type a \
    space first.";

/// Parses a command. A text is a command if it begins with a slash and a word of letters only, so paths
/// and fractions are not.
pub(super) fn read(text: &str) -> Option<Command<'_>> {
    let (word, rest) = first_word(text.strip_prefix('/')?);
    if word.is_empty() || !word.chars().all(char::is_alphabetic) {
        return None;
    }
    Some(match word {
        "help" => Command::Help,
        "pm" => Command::Private(addressed(rest)),
        _ => Command::Unknown(word),
    })
}

/// Splits off the name. A name of several words may be in quotes. Without quotes, its first word is
/// used, unless somebody has the longer name.
fn addressed(rest: &str) -> Addressed<'_> {
    let quoted = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
    let quoted = quoted.map(|(name, text)| (name, text.trim_start()));
    let ends = rest
        .char_indices()
        .filter(|(_, c)| c.is_whitespace())
        .map(|(at, _)| at)
        .chain([rest.len()])
        // People write a sign before and after a name.
        .take_while(|end| rest[..*end].chars().count() <= DisplayName::CHARACTERS + 2);
    let (mut ways, mut first) = (Vec::new(), None);
    for end in ends {
        let (name, text) = rest.split_at(end);
        let bare = name.strip_prefix('@').unwrap_or(name);
        let bare = bare.trim_end_matches([':', ',']);
        let text = text.trim_start();
        // The bare name is added last, so that it is tried first.
        ways.extend([(name, text), (bare, text)]);
        first.get_or_insert((bare, text));
    }
    ways.dedup();
    let first = quoted.or(first).unwrap_or_default();
    ways.extend(quoted);
    ways.reverse();
    Addressed { ways, first }
}

/// The text up to its first white space, and what follows.
fn first_word(text: &str) -> (&str, &str) {
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_read() {
        #[track_caller]
        fn check(text: &str, expected: Option<&Command<'_>>) {
            assert_eq!(read(text).as_ref(), expected, "{text}");
        }
        check("/help", Some(&Command::Help));
        check("/help me", Some(&Command::Help));
        check("/pn anna secret", Some(&Command::Unknown("pn")));
        check("/PM anna", Some(&Command::Unknown("PM")));
        for text in [
            "",
            "hello",
            " /pm anna hello",
            "/",
            "/ pm",
            "//pm",
            "/etc/hosts",
            "/2 of it",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn a_name_is_its_first_word_or_the_quoted_text() {
        #[track_caller]
        fn check(text: &str, name: &str, rest: &str) {
            let Some(Command::Private(addressed)) = read(text) else {
                panic!("{text} addresses nobody");
            };
            assert_eq!(addressed.first, (name, rest), "{text}");
        }
        check("/pm anna hello  you", "anna", "hello  you");
        check("/pm   @anna: hello", "anna", "hello");
        check("/pm anna\nhello\nyou", "anna", "hello\nyou");
        check("/pm \"anna lee\" hello", "anna lee", "hello");
        check("/pm \"anna lee\"", "anna lee", "");
        check("/pm \"anna", "\"anna", "");
        check("/pm anna", "anna", "");
        check("/pm", "", "");
    }

    #[test]
    fn a_name_may_have_any_number_of_words() {
        let Some(Command::Private(addressed)) = read("/pm @anna lee: hi you") else {
            panic!("somebody is addressed");
        };
        assert_eq!(
            addressed.ways,
            [
                ("anna lee: hi you", ""),
                ("@anna lee: hi you", ""),
                ("anna lee: hi", "you"),
                ("@anna lee: hi", "you"),
                ("anna lee", "hi you"),
                ("@anna lee:", "hi you"),
                ("anna", "lee: hi you"),
                ("@anna", "lee: hi you"),
            ]
        );
        let long = format!("/pm {}", "word ".repeat(1000));
        let Some(Command::Private(addressed)) = read(&long) else {
            panic!("somebody is addressed");
        };
        assert_eq!(addressed.ways.len(), 7);
    }
}
