//! What a message that begins with a slash asks for. It knows no rooms and stores nothing.

/// A command, as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// `/help`.
    Help,
    /// `/pm name text`; both may be missing.
    Private { name: &'a str, text: &'a str },
    /// Another word with a slash before it.
    Unknown(&'a str),
}

/// What `/help` answers.
pub(super) const HELP: &str = "/pm name text writes to one person alone, from any room; a name of \
    several words stands in \"quotes\". /help shows this. Begin with a space to write a slash as it is.";

/// Reads a command. A text is one if it begins with a slash and a word of letters alone, so that
/// neither a path nor a fraction is.
pub(super) fn read(text: &str) -> Option<Command<'_>> {
    let (word, rest) = first_word(text.strip_prefix('/')?);
    if word.is_empty() || !word.chars().all(char::is_alphabetic) {
        return None;
    }
    Some(match word {
        "help" => Command::Help,
        "pm" => {
            let (name, text) = match rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
                Some((name, text)) => (name, text.trim_start()),
                None => {
                    let (name, text) = first_word(rest);
                    // As people write it: @anna, anna: or anna,
                    let name = name.strip_prefix('@').unwrap_or(name);
                    (name.trim_end_matches([':', ',']), text)
                }
            };
            Command::Private { name, text }
        }
        _ => Command::Unknown(word),
    })
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
        fn check(text: &str, expected: Option<Command<'_>>) {
            assert_eq!(read(text), expected, "{text}");
        }
        let private = |name, text| Some(Command::Private { name, text });
        check("/help", Some(Command::Help));
        check("/help me", Some(Command::Help));
        check("/pm anna hello  you", private("anna", "hello  you"));
        check("/pm   @anna: hello", private("anna", "hello"));
        check("/pm anna\nhello\nyou", private("anna", "hello\nyou"));
        check("/pm \"anna lee\" hello", private("anna lee", "hello"));
        check("/pm \"anna lee\"", private("anna lee", ""));
        check("/pm \"anna", private("\"anna", ""));
        check("/pm anna", private("anna", ""));
        check("/pm", private("", ""));
        check("/pn anna secret", Some(Command::Unknown("pn")));
        check("/PM anna", Some(Command::Unknown("PM")));
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
}
