//! The messages of the JSON sockets, for bots and other front ends. `docs/PROTOCOL.md` describes them
//! in prose.
//!
//! Nothing here knows sockets, the store, or when something is sent.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::{File, Message, MessageId, Millis, Person};
use crate::protocol::{self, Action, Dialect, Frame, Refusal, Tone};

/// Parses what a program sends, in its dialect.
pub fn read(dialect: Dialect, text: &str) -> Result<Action, Refusal> {
    #[derive(Deserialize)]
    struct Object {
        #[serde(default)]
        message: Option<String>,
        #[serde(default)]
        files: Vec<String>,
        reply_to: Option<i64>,
    }
    #[derive(Deserialize)]
    struct Line {
        r#type: String,
        text: String,
        sender: Option<String>,
        reply_to: Option<i64>,
    }
    let (text, sender, reply_to, files) = match dialect {
        Dialect::Lines => {
            let line: Line = serde_json::from_str(text).map_err(|_| {
                let words = "Invalid message. Send {\"type\": \"message\", \"text\": \
                    \"…\", \"sender\": \"…\"}.";
                Refusal::new(words)
            })?;
            if line.r#type != "message" {
                return Err(Refusal::new("The type must be “message”."));
            }
            (line.text, line.sender, line.reply_to, Vec::new())
        }
        _ => {
            let odd = || Refusal::new("Invalid message. Send {\"message\": \"…\"}.");
            let object: Object = serde_json::from_str(text).map_err(|_| odd())?;
            let files = object.files.iter().map(|id| id.parse().ok());
            let files: Option<Vec<_>> = files.collect();
            let files = files.filter(|files| files.len() <= Message::FILES);
            let files = files.ok_or_else(odd)?;
            let text = match object.message {
                None if files.is_empty() => return Err(odd()),
                text => text.unwrap_or_default(),
            };
            (text, None, object.reply_to, files)
        }
    };
    Ok(Action::NewMessage {
        text,
        to: None,
        key: None,
        reply_to: reply_to.map(MessageId),
        files,
        sender,
    })
}

/// A message in its current state; `None` if the dialect is not for programs.
pub fn message(dialect: Dialect, message: &Message) -> Option<Frame> {
    let name = &message.author.name;
    let text = match message.deleted {
        true if message.by_moderator => format!("A moderator deleted a message of {name}."),
        true => format!("{name} deleted a message."),
        false => message.said().into_owned(),
    };
    Some(match dialect {
        Dialect::Objects => {
            let mut object = json!({
                "type": "chat_message",
                "id": message.id.0,
                "user": name,
                "message": text,
                "time": message.created_at.to_rfc3339(),
            });
            if !message.files.is_empty() {
                object["files"] = message.files.iter().map(file).collect();
            }
            if message.edited && !message.deleted {
                object["edited"] = Value::Bool(true);
            }
            if message.deleted {
                object["deleted"] = Value::Bool(true);
            }
            if let Some(original) = &message.reply_to {
                object["reply_to"] = original.id.0.into();
            }
            Frame::json(&object)
        }
        Dialect::Lines => match message.deleted {
            true => line(&text, ""),
            false => line(&text, name),
        },
        Dialect::V1 | Dialect::Plain | Dialect::Moderation | Dialect::Forms => return None,
    })
}

fn file(file: &File) -> Value {
    let url = protocol::file_address(file);
    json!({ "name": file.name, "type": file.media_type, "bytes": file.bytes, "url": url })
}

fn line(text: &str, sender: &str) -> Frame {
    Frame::json(&json!({ "text": text, "sender": sender }))
}

/// A notice. A failure is a message of nobody with a tone, so that a program that knows only messages
/// can show it. `None` if the dialect is not for programs.
pub fn notice(dialect: Dialect, words: &str, tone: Tone) -> Option<Frame> {
    match dialect {
        Dialect::Objects => Some(Frame::json(&match tone {
            Tone::Done => json!({ "type": "notice", "message": words }),
            Tone::Refusal | Tone::Wait | Tone::Trouble => json!({
                "type": "chat_message",
                "user": "",
                "message": words,
                "time": Millis::now().to_rfc3339(),
                "tone": tone,
            }),
        })),
        Dialect::Lines => Some(line(words, "")),
        Dialect::V1 | Dialect::Plain | Dialect::Moderation | Dialect::Forms => None,
    }
}

/// The people in a room, as far as they are listed, and their number.
pub fn user_list(people: &[Person], count: u64) -> Frame {
    let users: Vec<_> = people
        .iter()
        .map(|person| person.user.shown_name())
        .collect();
    let more = count.saturating_sub(people.len() as u64);
    let names = users.join(", ");
    let message = match (users.len(), more) {
        (0, _) => "Nobody is here.".to_owned(),
        (_, 0) => format!("Here: {names}."),
        (_, more) => format!("Here: {names} and {more} more."),
    };
    Frame::json(&json!({ "type": "user_list", "users": users, "message": message }))
}

/// People joined the room or, if not `joined`, left it. `who` names some of them and the number of the
/// others.
pub fn moved(who: &str, joined: bool) -> Frame {
    let (kind, did) = match joined {
        true => ("user_join", "joined"),
        false => ("user_leave", "left"),
    };
    Frame::json(&json!({ "type": kind, "user": who, "message": format!("{who} {did}") }))
}

/// A message in a private room.
pub fn private_message(message: &Message) -> Frame {
    let (user, message) = (&message.author.name, message.said());
    Frame::json(&json!({ "type": "private_message", "user": user, "message": message }))
}

/// The author's receipt for a private message.
pub fn private_message_delivered(target: &str, text: &str) -> Frame {
    Frame::json(&json!({
        "type": "private_message_delivered", "target": target, "message": text,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{User, UserId};

    #[test]
    fn only_some_of_a_crowd_are_listed_and_the_others_counted() {
        let people: Vec<_> = (0..3)
            .map(|id| Person {
                user: User {
                    id: UserId(id),
                    name: format!("user{id}"),
                    display_name: (id == 1).then(|| "Anna Lee".to_owned()),
                },
                unread: 0,
                online: true,
            })
            .collect();
        let told = |count| {
            let frame = user_list(&people, count);
            let payload = frame.payloads().next().unwrap();
            serde_json::from_slice::<Value>(payload).unwrap()
        };
        assert_eq!(told(3)["users"], json!(["user0", "Anna Lee", "user2"]));
        assert_eq!(told(3)["message"], "Here: user0, Anna Lee, user2.");
        assert_eq!(
            told(40)["message"],
            "Here: user0, Anna Lee, user2 and 37 more."
        );
    }

    #[test]
    fn a_programs_message_is_read_in_its_dialect() {
        #[track_caller]
        fn check(dialect: Dialect, text: &str, expected: Result<(&str, Option<&str>), &str>) {
            let expected = match expected {
                Ok((text, sender)) => Ok(Action::NewMessage {
                    text: text.to_owned(),
                    to: None,
                    key: None,
                    reply_to: None,
                    files: Vec::new(),
                    sender: sender.map(str::to_owned),
                }),
                Err(words) => Err(Refusal::new(words)),
            };
            assert_eq!(read(dialect, text), expected, "{text}");
        }
        let odd = "Invalid message. Send {\"message\": \"…\"}.";
        check(Dialect::Objects, r#"{"message": "hi"}"#, Ok(("hi", None)));
        check(
            Dialect::Objects,
            r#"{"message": "hi", "sender": "x", "user": 1}"#,
            Ok(("hi", None)),
        );
        for text in [
            "hi",
            "{}",
            "[]",
            "5",
            r#"{"message": 5}"#,
            r#"{"message": null}"#,
            "",
        ] {
            check(Dialect::Objects, text, Err(odd));
        }
        let odd = "Invalid message. Send {\"type\": \"message\", \"text\": \"…\", \
                   \"sender\": \"…\"}.";
        check(
            Dialect::Lines,
            r#"{"type": "message", "text": "hi", "sender": "Anna"}"#,
            Ok(("hi", Some("Anna"))),
        );
        check(
            Dialect::Lines,
            r#"{"type": "message", "text": "hi"}"#,
            Ok(("hi", None)),
        );
        check(
            Dialect::Lines,
            r#"{"type": "join", "text": "hi"}"#,
            Err("The type must be “message”."),
        );
        for text in [
            "{}",
            r#"{"message": "hi"}"#,
            r#"{"type": "message", "text": 1}"#,
        ] {
            check(Dialect::Lines, text, Err(odd));
        }
    }
}
