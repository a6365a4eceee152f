//! What a message that begins with a slash asks for. It knows no rooms and stores nothing.

use crate::model::DisplayName;

/// A command, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// `/help`.
    Help,
    /// `/pm name text`; both may be missing.
    Private(Addressed<'a>),
    /// Another word with a slash before it.
    Unknown(&'a str),
}

/// To whom, and what: the name and the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Addressed<'a> {
    /// All ways to tell them apart, what is quoted and the longest name first.
    pub(super) ways: Vec<(&'a str, &'a str)>,
    /// What is meant if nobody is called by any of the names.
    pub(super) first: (&'a str, &'a str),
}

/// What `/help` answers.
pub(super) const HELP: &str = "/pm name text writes to one person alone, from any room; a name of \
    several words may stand in \"quotes\". /help shows this. Begin with a space to write a slash as it is.";

/// Reads a command. A text is one if it begins with a slash and a word of letters alone, so that
/// neither a path nor a fraction is.
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

/// Splits off a name. One of several words may stand in quotes; without, its first word is meant
/// unless a longer name is somebody's.
fn addressed(rest: &str) -> Addressed<'_> {
    let quoted = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
    let quoted = quoted.map(|(name, text)| (name, text.trim_start()));
    let ends = rest
        .char_indices()
        .filter(|(_, c)| c.is_whitespace())
        .map(|(at, _)| at)
        .chain([rest.len()])
        // With a sign before and one after it, as people write.
        .take_while(|end| rest[..*end].chars().count() <= DisplayName::CHARACTERS + 2);
    let (mut ways, mut first) = (Vec::new(), None);
    for end in ends {
        let (name, text) = rest.split_at(end);
        let bare = name.strip_prefix('@').unwrap_or(name);
        let bare = bare.trim_end_matches([':', ',']);
        let text = text.trim_start();
        // The bare name last, which is to be tried first.
        ways.extend([(name, text), (bare, text)]);
        first.get_or_insert((bare, text));
    }
    ways.dedup();
    let first = quoted.or(first).unwrap_or_default();
    ways.extend(quoted);
    ways.reverse();
    Addressed { ways, first }
}

/// A text up to its first white space, and from what follows that on.
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
    fn of_a_name_the_first_word_or_what_is_quoted_is_meant() {
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
    fn a_name_may_have_as_many_words_as_there_are() {
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
