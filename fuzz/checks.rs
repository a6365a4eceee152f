//! What must hold for any bytes that a stranger may send. The fuzz targets call these with bytes that
//! are made up, the tests with those in `corpus/`.

use overwire::forms;
use overwire::json;
use overwire::model::{DisplayName, GroupName, MessageText, Password};
use overwire::protocol::{Action, Dialect, Hello, address, read_address};
use overwire::websocket::{Decoder, Incoming, Violation};

/// The largest frame, in bytes, with the server's default settings.
const FRAME_BYTES: usize = 65_536;

/// An action is read or refused, and a refusal has words.
pub(crate) fn action(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Action::parse(text) {
        Ok(action) => assert!(!action.name().is_empty()),
        Err(refusal) => assert!(!refusal.text.is_empty()),
    }
}

/// Frames mean the same however the network splits them.
pub(crate) fn websocket(data: &[u8]) {
    same_if_split(data, false);
}

/// The same with compressed messages, which never grow above the limit.
pub(crate) fn websocket_deflate(data: &[u8]) {
    same_if_split(data, true);
}

fn same_if_split(data: &[u8], deflate: bool) {
    let Some((&size, stream)) = data.split_first() else {
        return;
    };
    let whole = decoded([stream], deflate);
    let split = decoded(stream.chunks(usize::from(size).max(1)), deflate);
    assert_eq!(whole, split);
}

fn decoded<'a>(
    parts: impl IntoIterator<Item = &'a [u8]>,
    deflate: bool,
) -> (Vec<Incoming>, Option<Violation>) {
    let mut decoder = Decoder::new(FRAME_BYTES, deflate);
    let mut all = Vec::new();
    for part in parts {
        decoder.feed(part);
        loop {
            match decoder.next_incoming() {
                Ok(Some(Incoming::Text(text))) => {
                    assert!(text.len() <= FRAME_BYTES);
                    all.push(Incoming::Text(text));
                }
                Ok(Some(incoming)) => all.push(incoming),
                Ok(None) => break,
                Err(violation) => return (all, Some(violation)),
            }
        }
    }
    (all, None)
}

/// What a program sends to a JSON socket is read or refused, and a refusal has words.
pub(crate) fn json_socket(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for dialect in [Dialect::Objects, Dialect::Lines] {
        if let Err(refusal) = json::read(dialect, text) {
            assert!(!refusal.text.is_empty());
        }
    }
}

/// A handshake is read from any query and any subprotocols. An address that is understood is written
/// in one way only.
pub(crate) fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (offered, query) = text.split_once('\n').unwrap_or(("", text));
    let hello = Hello::read([offered].into_iter(), query);
    if let Some(target) = hello.at.as_deref().and_then(read_address)
        && let Some(written) = address(&target)
    {
        assert_eq!(read_address(&written), Some(target));
    }
}

/// A form leads back into the chat only, and what is accepted as a name or text stays so.
pub(crate) fn form(data: &[u8]) {
    for (name, value) in form_urlencoded::parse(data) {
        match &*name {
            "at" => {
                let path = forms::return_path(&value);
                assert!(path.starts_with('/') && !path.starts_with("//"), "{path}");
                assert!(!path.contains(['\\', '\r', '\n']), "{path}");
                assert_eq!(forms::return_path(&path), path);
            }
            "group" => {
                if let Ok(group) = GroupName::new(&value) {
                    assert_eq!(GroupName::key_of(&group.key()), group.key());
                    // What earlier versions took for the same name still is.
                    let former = GroupName::former_key_of(group.as_str());
                    assert_eq!(GroupName::key_of(&former), group.key());
                    assert_eq!(GroupName::new(group.as_str()).ok(), Some(group));
                }
            }
            "display_name" => {
                if let Ok(wish) = DisplayName::new(&value) {
                    assert_eq!(DisplayName::new(wish.as_str()).ok(), Some(wish));
                }
            }
            "text" => {
                if let Ok(text) = MessageText::new(&value, 4000) {
                    assert_eq!(MessageText::new(text.as_str(), 4000).ok(), Some(text));
                }
            }
            _ => drop(Password::new(&value)),
        }
    }
}
