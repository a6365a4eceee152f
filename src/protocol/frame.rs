//! What is sent on a socket: encoded once, for any number of sockets.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::websocket;

/// An encoded push: a complete WebSocket frame. Its bytes are shared by all sockets it is sent to. They
/// exist uncompressed and, once the first socket needs them, deflated.
#[derive(Clone, Debug)]
pub struct Frame(Arc<Encoded>);

#[derive(Debug)]
struct Encoded {
    plain: Bytes,
    payload: usize,
    deflated: OnceLock<Bytes>,
    /// The frames that were joined, if there are any.
    parts: Vec<Frame>,
}

/// Shorter payloads are not worth deflating: they fit into a packet anyway.
const DEFLATE_FROM: usize = 200;

impl Frame {
    pub(super) fn text(payload: &[u8]) -> Self {
        let plain = websocket::text(payload);
        let payload = plain.len() - payload.len();
        Self(Arc::new(Encoded {
            plain,
            payload,
            deflated: OnceLock::new(),
            parts: Vec::new(),
        }))
    }

    /// A frame of JSON.
    pub fn json(value: &Value) -> Self {
        Self::text(value.to_string().as_bytes())
    }

    /// Joins frames that are shown together, so that each outbox keeps one item and each socket writes
    /// one.
    pub fn joined(parts: Vec<Self>) -> Self {
        let single = |frame: Self| match frame.0.parts.is_empty() {
            true => vec![frame],
            false => frame.0.parts.clone(),
        };
        let parts: Vec<_> = parts.into_iter().flat_map(single).collect();
        let plain = concatenated(&parts, false);
        Self(Arc::new(Encoded {
            payload: plain.len(),
            plain,
            deflated: OnceLock::new(),
            parts,
        }))
    }

    /// A frame of JSON that another node has encoded.
    fn encoded(json: &RawValue) -> Self {
        Self::text(json.get().as_bytes())
    }

    /// A ping, pong or close frame, which has no JSON and is never deflated.
    pub fn control(plain: Bytes) -> Self {
        Self(Arc::new(Encoded {
            payload: plain.len(),
            plain,
            deflated: OnceLock::new(),
            parts: Vec::new(),
        }))
    }

    /// The frame's bytes, for a socket with or without deflate.
    pub fn bytes(&self, deflate: bool) -> &Bytes {
        let Encoded {
            plain,
            payload,
            deflated,
            parts,
        } = &*self.0;
        if deflate && !parts.is_empty() {
            return deflated.get_or_init(|| concatenated(parts, true));
        }
        if !deflate || plain.len() - payload < DEFLATE_FROM {
            return plain;
        }
        deflated.get_or_init(|| websocket::deflated_text(&plain[*payload..]))
    }

    /// The JSON of each of the joined frames.
    pub fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        let whole = match self.0.parts.is_empty() {
            true => std::slice::from_ref(self),
            false => &self.0.parts,
        };
        whole.iter().map(|frame| &frame.0.plain[frame.0.payload..])
    }

    /// How many frames were joined to this one.
    pub fn count(&self) -> usize {
        self.0.parts.len().max(1)
    }

    /// The size of the frame in an outbox, in bytes.
    pub fn size(&self) -> usize {
        self.0.plain.len()
    }
}

/// A frame is serialized as its JSON, joined frames as an array. Control frames have none.
impl Serialize for Frame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json: Result<Vec<&RawValue>, _> = self.payloads().map(serde_json::from_slice).collect();
        match json.map_err(S::Error::custom)?.as_slice() {
            [json] => json.serialize(serializer),
            parts => parts.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Frame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?;
        if !json.get().starts_with('[') {
            return Ok(Self::encoded(json));
        }
        let parts: Vec<&RawValue> = serde_json::from_str(json.get()).map_err(D::Error::custom)?;
        Ok(Self::joined(parts.into_iter().map(Self::encoded).collect()))
    }
}

fn concatenated(frames: &[Frame], deflate: bool) -> Bytes {
    let bytes: Vec<&[u8]> = frames
        .iter()
        .map(|frame| &frame.bytes(deflate)[..])
        .collect();
    bytes.concat().into()
}
