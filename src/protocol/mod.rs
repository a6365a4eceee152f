//! The protocol: what a tab sends ([`Action`], [`Hello`]) and what it receives ([`Push`], [`Frame`]).
//! `docs/PROTOCOL.md` describes it in prose; a test compares the two.
//!
//! Nothing here knows sockets, the store, or what an action does.

mod action;
mod frame;
mod hello;
mod push;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::model::{File, MessageId, Target};

pub use action::{Action, Moderate, ModeratorAction, NO_SUCH_ROOM, Refusal, Tone};
pub use frame::Frame;
pub use hello::{Dialect, Feed, Hello};
pub use push::{Push, Selector, Swap};

/// The address of the page's socket.
pub const SOCKET_PATH: &str = "/ws/chat/";
/// The subprotocol of a tab that supports swaps and versions.
pub const SUBPROTOCOL: &str = "overwire.v1";
/// The address of the lobby.
pub const LOBBY_PATH: &str = "/chat/";
/// The address of the results of a search, with what was typed as `q` in its query. It is outside of
/// [`LOBBY_PATH`], where any name may be a group's.
pub const SEARCH_PATH: &str = "/search/";
/// The address of the moderators' page.
pub const MODERATION_PATH: &str = "/admin/";
/// The address at which a visitor becomes a moderator. The link's token is the query, which is never
/// logged.
pub const MODERATION_LINK_PATH: &str = "/admin/link/";
/// The address at which a moderator creates a link to reset somebody's password.
pub const MODERATION_PASSWORD_PATH: &str = "/admin/password-link/";
/// The address at which such a link leads to a new password. Its token is the query too.
pub const PASSWORD_LINK_PATH: &str = "/reset-password/";
/// The address of the moderators' socket.
pub const MODERATION_SOCKET_PATH: &str = "/admin/ws/";
/// The address that files are sent to, and below which they are.
pub const FILES_PATH: &str = "/files/";
/// The query of a file's address for the smaller copy of a picture.
pub const THUMBNAIL: &str = "thumbnail";
/// The group in which a person starts.
pub const FIRST_GROUP: &str = "hi";

/// The maximum size of a page of messages or a catch-up. Whichever limit is reached first applies, but
/// there is always at least one message.
pub const PAGE_MESSAGES: usize = 50;
/// How much of what somebody types to search for messages is used, in characters.
pub const SEARCH_CHARACTERS: usize = 256;
/// See [`PAGE_MESSAGES`]; in bytes of the messages' HTML.
pub const PAGE_BYTES: usize = 64 * 1024;

/// The characters of a part of an address that stand for something else.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// The address of a room, `/chat/python/` or `/chat/@brenda82/`.
pub fn address(target: &Target) -> Option<String> {
    match target {
        Target::Group(name) => Some(format!("/chat/{}/", utf8_percent_encode(name, SEGMENT))),
        Target::Private(name) => Some(format!("/chat/@{}/", utf8_percent_encode(name, SEGMENT))),
        Target::Room(_) => None,
    }
}

/// The address of a file. Its name is there for people, and for what a browser saves it as.
pub fn file_address(file: &File) -> String {
    let name = utf8_percent_encode(&file.name, SEGMENT);
    format!("{FILES_PATH}{}/{name}", file.id)
}

/// What a page shows of a picture: its smaller copy if there is one. `None` for other files.
pub fn picture_address(file: &File) -> Option<String> {
    let address = file_address(file);
    Some(match file.picture?.thumbnail {
        true => format!("{address}?{THUMBNAIL}"),
        false => address,
    })
}

/// Parses an address as in the browser's address bar, still percent-encoded.
pub fn read_address(address: &str) -> Option<Target> {
    let segment = address.strip_prefix("/chat/")?;
    let segment = segment.strip_suffix('/').unwrap_or(segment);
    if segment.is_empty() || segment.contains('/') {
        return None;
    }
    let name = percent_decode_str(segment).decode_utf8().ok()?;
    Some(match name.strip_prefix('@') {
        Some(name) => Target::Private(name.to_owned()),
        None => Target::Group(name.into_owned()),
    })
}

/// The address of the results of a search, as browsers write it.
pub fn search_address(typed: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let query = query.append_pair("q", typed).finish();
    format!("{SEARCH_PATH}?{query}")
}

/// What is searched for to list the messages that mention me.
pub const MENTIONS: &str = "is:mention";

/// What was typed for a search, if the address is one of its results.
pub fn read_search(path: &str, query: Option<&str>) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let typed = pairs.find(|(name, _)| name == "q");
    (path == SEARCH_PATH).then(|| typed.map_or(String::new(), |(_, typed)| typed.into_owned()))
}

/// The message that the query of an address names: `at=<id>`.
pub fn read_at(query: Option<&str>) -> Option<MessageId> {
    read_id(query, "at")
}

/// The message that the query of an address has under this name.
pub fn read_id(query: Option<&str>, name: &str) -> Option<MessageId> {
    let mut pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, id) = pairs.find(|(key, _)| *key == name)?;
    id.parse().ok().map(MessageId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{History, ResumeToken, RoomId, Version};

    #[test]
    fn an_action_is_read() {
        #[track_caller]
        fn check(text: &str, expected: Result<Action, &str>) {
            assert_eq!(
                Action::parse(text).map_err(|refusal| refusal.text),
                expected.map_err(str::to_owned)
            );
        }
        let group = Target::Group("python".into());
        check(
            r#"{"action":"Change group","data":{"groupName":"python","isGroup":true}}"#,
            Ok(Action::ChangeGroup { target: group }),
        );
        check(
            r#"{"action":"Change group","data":{"groupName":"brenda82","isGroup":false,"more":1}}"#,
            Ok(Action::ChangeGroup {
                target: Target::Private("brenda82".into()),
            }),
        );
        check(r#"{"action":"Ping"}"#, Ok(Action::Ping {}));
        check(r#"{"action":"Ping","data":null}"#, Ok(Action::Ping {}));
        check(
            r#"{"action":"New message","data":{"message":"a"}}"#,
            Ok(Action::NewMessage {
                files: Vec::new(),
                sender: None,
                text: "a".into(),
                to: None,
                key: None,
                reply_to: None,
            }),
        );
        check(
            r#"{"action":"Read","data":{"message":7,"room":"AAAAAAAAAAE"}}"#,
            Ok(Action::Read {
                message: MessageId(7),
                room: Some(RoomId(1)),
            }),
        );
        let shape = "Invalid message. Send {\"action\": \"…\", \"data\": {…}}.";
        for text in [
            "",
            "{",
            "[]",
            "null",
            "7",
            r#"{"data":{}}"#,
            r#"{"action":7}"#,
        ] {
            check(text, Err(shape));
        }
        check(r#"{"action":"ping"}"#, Err("There is no action “ping”."));
        check(
            r#"{"action":"Ping","data":7}"#,
            Err("The data of “Ping” must be an object."),
        );
        check(r#"{"action":"New message"}"#, Err("“message” is missing."));
        check(
            r#"{"action":"New message","data":{"message":7}}"#,
            Err("“message” must be a string."),
        );
        check(
            r#"{"action":"New message","data":{"message":"a","key":"x"}}"#,
            Err("“key” must be a UUID."),
        );
        check(
            r#"{"action":"New message","data":{"message":"a","room":"nowhere"}}"#,
            Err(NO_SUCH_ROOM),
        );
        check(
            r#"{"action":"Change group","data":{"groupName":"a","isGroup":"yes"}}"#,
            Err("“isGroup” must be true or false."),
        );
        check(
            r#"{"action":"Older messages","data":{"before":1.5}}"#,
            Err("“before” must be the id of a message."),
        );
    }

    #[test]
    fn a_refused_action_names_its_key() {
        let key = "1b4e28ba-2fa1-4d5e-883f-0016d3cca427";
        for action in [
            format!(r#"{{"action":"New message","data":{{"message":7,"key":"{key}"}}}}"#),
            format!(
                r#"{{"action":"New message","data":{{"message":"a","room":"?","key":"{key}"}}}}"#
            ),
            format!(r#"{{"action":"New message","data":{{"message":"\ud83d","key":"{key}"}}}}"#),
            format!(r#"{{"action":"New mesage","data":{{"key":"{key}","message":"a"}}}}"#),
            format!(r#"{{"action":7,"data":{{"message":"a","key":"{key}"}}}}"#),
        ] {
            let refusal = Action::parse(&action).unwrap_err();
            assert_eq!(refusal.key, Some(key.parse().unwrap()), "{action}");
        }
    }

    #[test]
    fn joined_frames_have_the_same_bytes_in_one_piece() {
        let texts = ["short".to_owned(), "long ".repeat(100), "last".to_owned()];
        let frames: Vec<_> = texts
            .iter()
            .map(|text| Push::inner(Selector::NOTICE, text.clone()).encode())
            .collect();
        let joined = Frame::joined(frames.clone());
        for deflate in [false, true] {
            let apart: Vec<_> = frames
                .iter()
                .map(|frame| frame.bytes(deflate).clone())
                .collect();
            assert_eq!(joined.bytes(deflate), &apart.concat());
        }
        assert!(joined.bytes(true).len() < joined.bytes(false).len());
        assert_eq!(joined.size(), joined.bytes(false).len());
        assert!(
            joined
                .payloads()
                .eq(frames.iter().flat_map(Frame::payloads))
        );
        let again = Frame::joined(vec![joined, frames[0].clone()]);
        let all = frames.iter().chain(&frames[..1]);
        assert!(again.payloads().eq(all.flat_map(Frame::payloads)));

        // Other nodes get them in this form.
        for frame in [&again, &frames[1]] {
            let json = serde_json::to_string(frame).unwrap();
            let received: Frame = serde_json::from_str(&json).unwrap();
            assert!(received.payloads().eq(frame.payloads()));
            assert_eq!(received.bytes(false), frame.bytes(false));
        }
    }

    #[test]
    fn every_action_of_the_list_is_known() {
        for name in Action::NAMES {
            let refusal = Action::parse(&format!(r#"{{"action":"{name}","data":{{}}}}"#));
            if let Err(refusal) = refusal {
                assert!(!refusal.text.contains("no action"), "{name}");
            }
        }
    }

    #[test]
    fn a_push_omits_missing_fields() {
        #[track_caller]
        fn check(push: &Push, expected: &str) {
            assert_eq!(
                std::str::from_utf8(push.encode().payloads().next().unwrap()).unwrap(),
                expected
            );
        }
        let push = Push::inner(Selector::NOTICE, "<p>\"</p>".into());
        check(&push, r##"{"selector":"#notice","html":"<p>\"</p>"}"##);
        let version = Version {
            room: RoomId(1),
            history: History(1),
            number: 3,
        };
        check(
            &push.swapped(Swap::Append).at(version),
            r##"{"selector":"#notice","html":"<p>\"</p>","swap":"append","version":"00000000.3"}"##,
        );
    }

    #[test]
    fn a_hello_is_read_and_invalid_values_are_ignored() {
        let token = ResumeToken::random();
        let offers = format!("overwire.v1, resume.{token}");
        let hello = Hello::read(
            [offers.as_str()].into_iter(),
            "after=6a1f93c8.3&room=AAAAAAAAAAE&at=%2Fchat%2F%40a%2F",
        );
        assert_eq!(hello.dialect, Dialect::V1);
        assert_eq!(hello.resume, Some(token));
        assert_eq!(hello.room, Some(RoomId(1)));
        let after = Version {
            room: RoomId(1),
            history: History(0x6a1f_93c9),
            number: 3,
        };
        assert_eq!(hello.after, Some(after));
        assert_eq!(hello.at.as_deref(), Some("/chat/@a/"));

        let hello = Hello::read(
            ["resume.%%%", "other"].into_iter(),
            "room=%ff&after=&&=&at=%ff&x",
        );
        assert_eq!(hello, Hello::default());
        assert_eq!(hello.dialect, Dialect::Plain);
    }

    #[test]
    fn an_address_reads_back_what_it_wrote() {
        for target in [
            Target::Group("python".into()),
            Target::Group("off-topic".into()),
            Target::Group("größe / 50%".into()),
            Target::Private("brenda82".into()),
        ] {
            assert_eq!(read_address(&address(&target).unwrap()), Some(target));
        }
        for text in [
            "/",
            "/chat/",
            "/chat//",
            "/chat/a/b/",
            "/chat/%ff/",
            "chat/a/",
        ] {
            assert_eq!(read_address(text), None, "{text}");
        }
    }

    #[test]
    fn the_protocol_document_names_every_action_selector_and_tone() {
        const DOCUMENT: &str = include_str!("../../docs/PROTOCOL.md");
        let cell = |name: &str| {
            DOCUMENT
                .lines()
                .any(|line| line.starts_with(&format!("| `{name}` |")))
        };
        for action in [Action::NAMES, Moderate::NAMES, ModeratorAction::NAMES].concat() {
            assert!(cell(action), "the action {action} is not documented");
        }
        for selector in Selector::FIXED {
            assert!(
                cell(selector.as_str()),
                "the selector {selector:?} is not documented"
            );
        }
        for tone in [Tone::Refusal, Tone::Wait, Tone::Trouble, Tone::Done] {
            let tone = serde_json::to_value(tone).unwrap();
            let tone = tone.as_str().unwrap();
            assert!(cell(tone), "the tone {tone} is not documented");
        }
        let (_, actions) = DOCUMENT.split_once("## Actions").unwrap();
        let (actions, _) = actions.split_once("###").unwrap();
        for line in actions.lines().filter_map(|line| line.strip_prefix("| `")) {
            let (action, _) = line.split_once('`').unwrap();
            assert!(
                Action::NAMES.contains(&action),
                "there is no action {action}"
            );
        }
    }
}
