//! The server's side of WebSocket frames: bytes in, messages out, and back.
//!
//! Contains RFC 6455 framing, RFC 7692 permessage-deflate without context takeover, and the two
//! computed header values of the handshake. Does not contain sockets, timers, tasks, when to answer a
//! ping or a close, or the meaning of a message.
//!
//! A frame for browsers is encoded once into [`Bytes`] that any number of sockets share. That is also
//! why no compression context outlives a message. Between messages a [`Decoder`] owns no memory beyond
//! itself: compressors and decompressors belong to the thread, not to the connection.

use std::cell::RefCell;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use sha1::{Digest as _, Sha1};

/// The longest payload of a ping, pong or close, in bytes.
pub const MAX_CONTROL: usize = 125;

/// The most frames that one message may have; more is [`Violation::TooBig`].
pub const MAX_FRAGMENTS: u32 = 4096;

/// One text frame with the whole message. `payload` must be UTF-8, which is not checked here.
pub fn text(payload: &[u8]) -> Bytes {
    frame(FIN | TEXT, payload)
}

/// One compressed text frame with the whole message, for sockets that agreed to [`negotiate_deflate`].
/// `payload` must be UTF-8. If compressing saves nothing, the frame is a plain one, which such sockets
/// accept as well.
pub fn deflated_text(payload: &[u8]) -> Bytes {
    DEFLATER.with_borrow_mut(|(deflater, deflated)| {
        deflate(deflater, payload, deflated);
        let frame = if deflated.len() < payload.len() {
            frame(FIN | RSV1 | TEXT, deflated)
        } else {
            text(payload)
        };
        if deflated.capacity() > KEPT_SCRATCH {
            *deflated = Vec::new();
        }
        frame
    })
}

/// A ping; the first 125 bytes of `payload` are sent.
pub fn ping(payload: &[u8]) -> Bytes {
    frame(FIN | PING, &payload[..payload.len().min(MAX_CONTROL)])
}

/// The answer to a ping with this `payload`; the first 125 bytes are sent.
pub fn pong(payload: &[u8]) -> Bytes {
    frame(FIN | PONG, &payload[..payload.len().min(MAX_CONTROL)])
}

/// The last frame of a connection. `code` must be one that may be sent (1000–1003, 1007–1014,
/// 3000–4999); `reason` is cut to 123 bytes, between characters.
pub fn close(code: u16, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(MAX_CONTROL - 2)];
    frame(
        FIN | CLOSE,
        &[&code.to_be_bytes(), reason.as_bytes()].concat(),
    )
}

/// What a client sent: a whole message, or a control frame, which may come between two fragments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A text message, inflated if it was compressed.
    Text(String),
    /// A binary message. Nothing reads its payload, so it was counted and dropped.
    Binary,
    /// A ping with its payload of at most 125 bytes, to be answered with [`pong`].
    Ping(Vec<u8>),
    /// A pong with its payload of at most 125 bytes.
    Pong(Vec<u8>),
    /// The client's last frame, with its close code if it gave one. Nothing is decoded after it.
    Close(Option<u16>),
}

/// Why a stream is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// The client violates the protocol; the text says how.
    Protocol(&'static str),
    /// A text message, or the reason of a close frame, is not UTF-8.
    NotUtf8,
    /// A message is longer than the limit, before or after inflating, or has more than
    /// [`MAX_FRAGMENTS`] frames.
    TooBig,
}

impl Violation {
    /// The close code to answer with: 1002, 1007 or 1009.
    pub fn code(self) -> u16 {
        match self {
            Violation::Protocol(_) => 1002,
            Violation::NotUtf8 => 1007,
            Violation::TooBig => 1009,
        }
    }

    /// A short description that fits into a close frame.
    pub fn reason(self) -> &'static str {
        match self {
            Violation::Protocol(reason) => reason,
            Violation::NotUtf8 => "text is not UTF-8",
            Violation::TooBig => "message too big",
        }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Violation {}

/// Turns the bytes of one client's socket, split anywhere, into [`Incoming`].
///
/// Feed bytes as they arrive, then ask for messages until there is no whole one left. Memory is freed
/// at that point.
pub struct Decoder {
    /// Bytes fed; those before `read` are done.
    input: Vec<u8>,
    read: usize,
    /// Boxed, so that a silent connection needs no memory for it.
    message: Option<Box<Message>>,
    limit: usize,
    deflate: bool,
    /// How the stream ended, whatever bytes follow.
    end: Option<Result<(), Violation>>,
}

impl Decoder {
    /// A decoder for one connection. `limit` is the most payload bytes a message may have, both
    /// compressed and inflated; `deflate` says whether permessage-deflate was agreed.
    pub fn new(limit: usize, deflate: bool) -> Self {
        Decoder {
            input: Vec::new(),
            read: 0,
            message: None,
            limit,
            deflate,
            end: None,
        }
    }

    /// Adds bytes as they arrived. After a close frame or a violation they are ignored.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.end.is_some() {
            return;
        }
        // Only when half of it is done, so that each byte moves once, however often this is called.
        if self.read > self.input.len() / 2 {
            self.input.drain(..self.read);
            self.read = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    /// The next whole message or control frame; `None` if more bytes are needed, and always after a
    /// close frame.
    ///
    /// # Errors
    ///
    /// The violation that broke the stream; every later call returns the same one.
    pub fn next_incoming(&mut self) -> Result<Option<Incoming>, Violation> {
        if let Some(end) = self.end {
            return end.map(|()| None);
        }
        let incoming = self.advance();
        match incoming {
            Err(violation) => self.end(Err(violation)),
            Ok(Some(Incoming::Close(_))) => self.end(Ok(())),
            Ok(Some(_)) => {}
            Ok(None) => self.settle(),
        }
        incoming
    }

    /// Payload and frame bytes held now: fed, but not returned yet.
    pub fn buffered(&self) -> usize {
        let message = self.message.as_ref();
        self.input.len() - self.read + message.map_or(0, |message| message.data.len())
    }

    fn advance(&mut self) -> Result<Option<Incoming>, Violation> {
        loop {
            if let Some(message) = &mut self.message {
                self.read += message.take(&self.input[self.read..]);
                if message.left > 0 {
                    return Ok(None);
                }
            }
            if let Some(message) = self.message.take_if(|message| message.last) {
                return message.finish(self.limit).map(Some);
            }
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            if is_control(header.opcode) {
                return self.control(&header);
            }
            self.read += header.size;
            self.open(&header)?;
        }
    }

    /// Reads the next header and rejects it as soon as it is known to be wrong: a message that is too
    /// big ends here, before its bytes arrive.
    fn header(&self) -> Result<Option<Header>, Violation> {
        let &[first, second, ref rest @ ..] = &self.input[self.read..] else {
            return Ok(None);
        };
        check(first, second, self.deflate, self.message.is_some())?;
        let (len, rest) = match (second & !MASKED, rest) {
            (126, [a, b, rest @ ..]) => {
                let len = u16::from_be_bytes([*a, *b]);
                (long(len.into(), 126)?, rest)
            }
            (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
                let len = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
                (long(len, 1 << 16)?, rest)
            }
            (126 | 127, _) => return Ok(None),
            (len, rest) => (len.into(), rest),
        };
        let opcode = first & OPCODE;
        let len = usize::try_from(len).map_err(|_| Violation::TooBig)?;
        let so_far = self.message.as_ref().map_or(0, |message| message.size);
        if !is_control(opcode) && len > self.limit - so_far {
            return Err(Violation::TooBig);
        }
        let Some((&mask, rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        Ok(Some(Header {
            opcode,
            last: first & FIN != 0,
            deflated: first & RSV1 != 0,
            len,
            mask,
            size: self.input.len() - self.read - rest.len(),
        }))
    }

    /// A control frame is short, so it waits in the input until it is whole.
    fn control(&mut self, header: &Header) -> Result<Option<Incoming>, Violation> {
        let payload = &self.input[self.read + header.size..];
        let Some(payload) = payload.get(..header.len) else {
            return Ok(None);
        };
        let mut payload = payload.to_vec();
        unmask(&mut payload, header.mask);
        self.read += header.size + header.len;
        Ok(Some(match header.opcode {
            PING => Incoming::Ping(payload),
            PONG => Incoming::Pong(payload),
            _ => Incoming::Close(close_code(&payload)?),
        }))
    }

    /// Begins the payload of a data frame: of a new message, or of the next fragment.
    fn open(&mut self, header: &Header) -> Result<(), Violation> {
        let message = self.message.get_or_insert_with(|| {
            Box::new(Message {
                binary: header.opcode == BINARY,
                deflated: header.deflated,
                ..Message::default()
            })
        });
        message.last = header.last;
        message.mask = header.mask;
        message.left = header.len;
        message.size += header.len;
        // Empty fragments add nothing to the size, so a message of them would never end.
        message.fragments += 1;
        if message.fragments > MAX_FRAGMENTS {
            return Err(Violation::TooBig);
        }
        Ok(())
    }

    fn end(&mut self, end: Result<(), Violation>) {
        *self = Decoder {
            end: Some(end),
            ..Decoder::new(self.limit, self.deflate)
        };
    }

    /// Frees what is done. The rest is at most the beginning of a header or of a control frame.
    fn settle(&mut self) {
        if self.read > 0 {
            self.input = self.input[self.read..].to_vec();
            self.read = 0;
        }
    }
}

/// The value of `Sec-WebSocket-Accept` for this `Sec-WebSocket-Key`.
pub fn accept_key(key: &str) -> String {
    let digest = Sha1::new()
        .chain_update(key)
        .chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
        .finalize();
    STANDARD.encode(digest)
}

/// The value of `Sec-WebSocket-Extensions` to answer with if one of the client's offers of
/// permessage-deflate can be accepted; with `None`, nothing is compressed. `offers` are the values of
/// all its headers of that name, in their order.
///
/// Neither side keeps a context between messages. An offer that requires a window smaller than 15 bits
/// is skipped, since the frames are shared with all other sockets.
pub fn negotiate_deflate<'a>(offers: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
    offers
        .into_iter()
        .flat_map(|header| split_unquoted(header, ','))
        .find_map(accept_offer)
}

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2: u8 = 0x20;
const RSV3: u8 = 0x10;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// What a flush ends with and RFC 7692 leaves out on the wire: the rest of an empty stored block.
const FLUSH_TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// An empty block marked as the last. It completes the stream of a message that was cut at a flush, but
/// not of one that breaks off, and so tells the two apart.
const FINAL_BLOCK: [u8; 5] = [0x01, 0x00, 0x00, 0xff, 0xff];

/// Measured on fragments in JSON: level 1 uses fixed codes only and makes a fragment of 600 bytes a
/// quarter larger. At level 3 a fragment stays the same size, and a page takes two fifths more time for
/// one twenty-fifth fewer bytes.
const LEVEL: u32 = 2;

/// The most bytes that a thread keeps for compressing; a page is well below it.
const KEPT_SCRATCH: usize = 128 * 1024;

thread_local! {
    /// With the output buffer. A new compressor each time would reserve and fill 300 KiB.
    static DEFLATER: RefCell<(Compress, Vec<u8>)> =
        RefCell::new((Compress::new(Compression::new(LEVEL), false), Vec::new()));
    static INFLATER: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

struct Header {
    opcode: u8,
    last: bool,
    deflated: bool,
    /// Bytes of payload.
    len: usize,
    mask: [u8; 4],
    /// Bytes of the header itself.
    size: usize,
}

fn is_control(opcode: u8) -> bool {
    opcode >= CLOSE
}

/// Rejects invalid first bytes, given whether compression was agreed and whether a message is under
/// way.
fn check(first: u8, second: u8, deflate: bool, under_way: bool) -> Result<(), Violation> {
    let deflated = first & RSV1 != 0;
    let wrong = match first & OPCODE {
        _ if first & (RSV2 | RSV3) != 0 => "reserved bit set",
        _ if second & MASKED == 0 => "frame not masked",
        CLOSE | PING | PONG if first & FIN == 0 => "control frame in fragments",
        CLOSE | PING | PONG if usize::from(second & !MASKED) > MAX_CONTROL => {
            "control frame too long"
        }
        CLOSE | PING | PONG if deflated => "control frame compressed",
        CLOSE | PING | PONG => return Ok(()),
        CONTINUATION if !under_way => "continuation without a message",
        CONTINUATION if deflated => "continuation marked as compressed",
        CONTINUATION => return Ok(()),
        TEXT | BINARY if under_way => "new message before the end of the last one",
        TEXT | BINARY if deflated && !deflate => "compression not agreed upon",
        TEXT | BINARY => return Ok(()),
        _ => "reserved opcode",
    };
    Err(Violation::Protocol(wrong))
}

/// A message with at least one header received.
#[derive(Default)]
struct Message {
    binary: bool,
    deflated: bool,
    /// Whether the current frame is the last.
    last: bool,
    /// The mask of the current frame, rotated to match the next byte.
    mask: [u8; 4],
    /// Bytes missing from the current frame.
    left: usize,
    /// Bytes announced so far.
    size: usize,
    fragments: u32,
    /// Grows with the bytes received, not with the announced size.
    data: Vec<u8>,
}

impl Message {
    /// Takes the part of `input` that belongs to the current frame, and returns its length in bytes.
    fn take(&mut self, input: &[u8]) -> usize {
        let taken = self.left.min(input.len());
        self.left -= taken;
        if !self.binary {
            let start = self.data.len();
            self.data.extend_from_slice(&input[..taken]);
            unmask(&mut self.data[start..], self.mask);
            self.mask.rotate_left(taken % 4);
        }
        taken
    }

    fn finish(self, limit: usize) -> Result<Incoming, Violation> {
        if self.binary {
            return Ok(Incoming::Binary);
        }
        let data = match self.deflated {
            true => inflate(self.data, limit)?,
            false => self.data,
        };
        let text = String::from_utf8(data).map_err(|_| Violation::NotUtf8)?;
        Ok(Incoming::Text(text))
    }
}

fn frame(first: u8, payload: &[u8]) -> Bytes {
    let len = payload.len();
    let header = match len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    // The exact size, so that `Bytes` takes the vector over without a copy.
    let mut frame = Vec::with_capacity(header + len);
    frame.push(first);
    match header {
        2 => frame.push(len as u8),
        4 => {
            frame.push(126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    Bytes::from(frame)
}

/// Compresses `payload` into `deflated`, from a fresh context up to a flush, without its tail.
fn deflate(deflater: &mut Compress, payload: &[u8], deflated: &mut Vec<u8>) {
    deflater.reset();
    deflated.clear();
    // Incompressible text grows by an eighth at most, so one round is usually enough.
    deflated.reserve(payload.len() + payload.len() / 8 + 64);
    loop {
        let done = deflater.total_in() as usize;
        deflater
            .compress_vec(&payload[done..], deflated, FlushCompress::Sync)
            .expect("only fails when the compressor was told to finish, which it never is");
        // If there is room left, nothing waits inside.
        if deflated.len() < deflated.capacity() {
            break;
        }
        deflated.reserve(deflated.len());
    }
    deflated.truncate(deflated.len() - FLUSH_TAIL.len());
}

/// Inflates to at most `limit` bytes. Memory grows with the output and stops there.
fn inflate(mut deflated: Vec<u8>, limit: usize) -> Result<Vec<u8>, Violation> {
    const BROKEN: Violation = Violation::Protocol("broken compression");
    let len = deflated.len();
    deflated.extend_from_slice(&FLUSH_TAIL);
    deflated.extend_from_slice(&FINAL_BLOCK);
    // One byte above the limit tells “exactly” from “more”.
    let most = limit.saturating_add(1);
    let mut inflated = Vec::with_capacity(most.min(4 * deflated.len()));
    INFLATER.with_borrow_mut(|inflater| {
        inflater.reset(false);
        loop {
            let done = inflater.total_in() as usize;
            let status = inflater
                .decompress_vec(&deflated[done..], &mut inflated, FlushDecompress::None)
                .map_err(|_| BROKEN)?;
            if inflated.len() > limit {
                return Err(Violation::TooBig);
            }
            if status == Status::StreamEnd {
                break;
            }
            if inflated.len() < inflated.capacity() {
                return Err(BROKEN);
            }
            inflated.reserve_exact(inflated.len().min(most - inflated.len()));
        }
        let done = inflater.total_in() as usize;
        // A client may end the stream itself; then it adds a zero byte for the tail to complete.
        let ended_itself = matches!(deflated.get(done..len), Some([] | [0]));
        let is_whole = done == deflated.len() || ended_itself;
        is_whole.then_some(inflated).ok_or(BROKEN)
    })
}

/// Eight bytes at a time, which the compiler widens further.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// A length in a longer form, which is valid from `least` bytes on.
fn long(len: u64, least: u64) -> Result<u64, Violation> {
    if len < least {
        return Err(Violation::Protocol("length not in its shortest form"));
    }
    if len > i64::MAX as u64 {
        return Err(Violation::Protocol("length of more than 63 bits"));
    }
    Ok(len)
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Violation::Protocol("incomplete close code")),
        [a, b, reason @ ..] => (u16::from_be_bytes([*a, *b]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::Protocol("invalid close code"));
    }
    str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
    Ok(Some(code))
}

/// The answer to one offer; `None` if it is another extension, malformed, or not supported.
fn accept_offer(offer: &str) -> Option<&'static str> {
    let mut parts = split_unquoted(offer, ';');
    if parts.next() != Some("permessage-deflate") {
        return None;
    }
    let mut names = Vec::new();
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(unquoted(value.trim_start()))),
            None => (part, None),
        };
        match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
            // The client says what its own window can be. The largest is always understood.
            ("client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(bits)) if WINDOW_BITS.contains(&bits) => {}
            ("server_max_window_bits", Some("15")) => {}
            _ => return None,
        }
        if names.contains(&name) {
            return None;
        }
        names.push(name);
    }
    // A window that was required has to be in the answer.
    Some(if names.contains(&"server_max_window_bits") {
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15"
    } else {
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    })
}

const WINDOW_BITS: [&str; 8] = ["8", "9", "10", "11", "12", "13", "14", "15"];

fn split_unquoted(header: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    header
        .split(move |c| {
            if escaped {
                escaped = false;
            } else if c == '"' {
                quoted = !quoted;
            } else if quoted {
                escaped = c == '\\';
            } else {
                return c == separator;
            }
            false
        })
        .map(str::trim)
}

fn unquoted(value: &str) -> &str {
    let inside = value.strip_prefix('"');
    let inside = inside.and_then(|value| value.strip_suffix('"'));
    inside.unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Cursor, Read, Write};

    use miniz_oxide::{MZFlush, deflate, inflate};
    use proptest::prelude::*;
    use tungstenite::Message as Theirs;
    use tungstenite::protocol::frame::{Frame, coding};
    use tungstenite::protocol::{CloseFrame, Role, WebSocket};

    use super::*;

    const LIMIT: usize = 70_000;

    /// The messages of a stream, and the violation that broke it.
    type Outcome = (Vec<Incoming>, Option<Violation>);

    fn decode(limit: usize, deflate: bool, input: &[u8], piece: usize) -> Outcome {
        let mut decoder = Decoder::new(limit, deflate);
        let mut incoming = Vec::new();
        for bytes in input.chunks(piece) {
            decoder.feed(bytes);
            loop {
                match decoder.next_incoming() {
                    Ok(Some(one)) => incoming.push(one),
                    Ok(None) => break,
                    Err(violation) => return (incoming, Some(violation)),
                }
            }
        }
        (incoming, None)
    }

    /// However the bytes are split, the outcome is the same.
    #[track_caller]
    fn check_with(limit: usize, deflate: bool, input: &[u8], expected: &Outcome) {
        for piece in [usize::MAX, 1, 2, 3, 7, 64, 1000] {
            let outcome = decode(limit, deflate, input, piece);
            assert!(
                outcome == *expected,
                "in pieces of {piece}: {:.300}, expected {:.300}",
                format!("{outcome:?}"),
                format!("{expected:?}")
            );
        }
    }

    #[track_caller]
    fn check(input: &[u8], expected: &[Incoming]) {
        check_with(LIMIT, true, input, &(expected.to_vec(), None));
    }

    #[track_caller]
    fn check_broken(input: &[u8], expected: Violation) {
        check_with(LIMIT, true, input, &(vec![], Some(expected)));
    }

    #[track_caller]
    fn check_wrong(input: &[u8], reason: &'static str) {
        check_broken(input, Violation::Protocol(reason));
    }

    /// A frame as a client sends it, with the length in the shortest form.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = match payload.len() {
            len @ 0..=125 => vec![first, 0x80 | len as u8],
            len @ 126..=65535 => vec![first, 0xfe, (len >> 8) as u8, len as u8],
            len => [&[first, 0xff][..], &(len as u64).to_be_bytes()].concat(),
        };
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        frame.extend(mask);
        frame.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
        frame
    }

    fn stream(frames: &[(u8, &[u8])]) -> Vec<u8> {
        let frames = frames.iter();
        frames
            .flat_map(|(first, payload)| masked(*first, payload))
            .collect()
    }

    fn said(text: &str) -> Incoming {
        Incoming::Text(text.to_owned())
    }

    /// An independent compressor: one message, flushed, without the tail.
    fn deflated(payload: &[u8]) -> Vec<u8> {
        let flags = deflate::core::create_comp_flags_from_zip_params(6, -15, 0);
        let mut compressor = deflate::core::CompressorOxide::new(flags);
        let mut out = vec![0; payload.len() * 2 + 100];
        let done = deflate::stream::deflate(&mut compressor, payload, &mut out, MZFlush::Sync);
        assert_eq!(done.bytes_consumed, payload.len());
        out.truncate(done.bytes_written);
        assert_eq!(out.split_off(out.len() - 4), [0, 0, 0xff, 0xff]);
        out
    }

    /// The inverse.
    fn inflated(payload: &[u8]) -> Vec<u8> {
        let whole = [payload, &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]].concat();
        inflate::decompress_to_vec(&whole).expect("a proper stream")
    }

    /// Roughly the page of a room.
    fn page(messages: usize) -> String {
        let message = |id| {
            format!(
                "<li class=\\\"message\\\" id=\\\"message-{id}\\\" data-user=\\\"brenda{}\\\"><strong>Brenda</strong> \
                 <p>said {} in {} words</p></li>",
                id * 7919 % 97,
                id * 104_729 % 10_007,
                id * 31 % 13
            )
        };
        (0..messages).map(message).collect()
    }

    #[test]
    fn a_masked_hello_is_read() {
        // RFC 6455, 5.7.
        let hello = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        check(&hello, &[said("Hello")]);
    }

    #[test]
    fn every_width_of_length_is_read() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, LIMIT] {
            let text = "x".repeat(len);
            check(&masked(0x81, text.as_bytes()), &[said(&text)]);
            check(&masked(0x82, text.as_bytes()), &[Incoming::Binary]);
        }
    }

    #[test]
    fn fragments_are_joined_around_control_frames() {
        let input = stream(&[
            (0x01, "Grü".as_bytes().split_at(3).0),
            (0x89, b"still there?"),
            (0x00, "Grü".as_bytes().split_at(3).1),
            (0x00, b""),
            (0x8a, b""),
            (0x80, "ße".as_bytes()),
            (0x02, b"12"),
            (0x80, b"34"),
            (0x81, b"{}"),
        ]);
        let expected = [
            Incoming::Ping(b"still there?".to_vec()),
            Incoming::Pong(vec![]),
            said("Grüße"),
            Incoming::Binary,
            said("{}"),
        ];
        check(&input, &expected);
    }

    #[test]
    fn a_wrong_header_is_a_violation() {
        let long = [0; 126];
        check_wrong(
            &[0x81, 0x05, b'H', b'e', b'l', b'l', b'o'],
            "frame not masked",
        );
        check_wrong(&[0x89, 0x00], "frame not masked");
        for first in [0xa1, 0x91, 0xb1, 0xe1, 0xa9, 0x90] {
            check_wrong(&masked(first, b"x"), "reserved bit set");
        }
        for opcode in (0x3..=0x7).chain(0xb..=0xf) {
            check_wrong(&masked(0x80 | opcode, b"x"), "reserved opcode");
        }
        for opcode in 0x8..=0xa {
            check_wrong(&masked(opcode, b""), "control frame in fragments");
            check_wrong(&masked(0x80 | opcode, &long), "control frame too long");
            check_wrong(&masked(0xc0 | opcode, b""), "control frame compressed");
        }
        check_wrong(&masked(0x80, b"x"), "continuation without a message");
        check_wrong(&masked(0x00, b"x"), "continuation without a message");
    }

    #[test]
    fn fragments_out_of_order_are_a_violation() {
        for second in [0x81, 0x01, 0x82, 0x02, 0xc1] {
            let input = stream(&[(0x01, b"a"), (second, b"b")]);
            check_wrong(&input, "new message before the end of the last one");
        }
        let input = stream(&[(0x41, b"a"), (0xc0, b"b")]);
        check_wrong(&input, "continuation marked as compressed");
        let input = stream(&[(0x81, b"a"), (0x80, b"b")]);
        let wrong = Violation::Protocol("continuation without a message");
        check_with(LIMIT, true, &input, &(vec![said("a")], Some(wrong)));
    }

    #[test]
    fn a_length_is_written_the_shortest_way() {
        let wrong = "length not in its shortest form";
        check_wrong(&[0x81, 0xfe, 0, 125], wrong);
        check_wrong(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 5], wrong);
        check_wrong(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], wrong);
        let wrong = "length of more than 63 bits";
        check_wrong(&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], wrong);
        check_wrong(
            &[0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            wrong,
        );
    }

    #[test]
    fn a_big_message_is_refused_when_it_is_announced() {
        let header = |first, len: usize| [&[first, 0xff][..], &(len as u64).to_be_bytes()].concat();
        for first in [0x81, 0x01, 0x82, 0xc1] {
            check_broken(&header(first, LIMIT + 1), Violation::TooBig);
            check_broken(&header(first, i64::MAX as usize), Violation::TooBig);
            check(&header(first, LIMIT), &[]);
        }
    }

    #[test]
    fn fragments_are_summed() {
        for kind in [0x01, 0x02] {
            let half = vec![b'x'; LIMIT / 2];
            check(&stream(&[(kind, &half), (0x00, &half), (0x00, b"")]), &[]);
            check_broken(
                &stream(&[(kind, &half), (0x00, &half), (0x00, b"y")]),
                Violation::TooBig,
            );
        }
    }

    #[test]
    fn a_message_of_empty_fragments_ends_some_time() {
        let fragments =
            |more: u32| [masked(0x01, b""), masked(0x00, b"").repeat(more as usize)].concat();
        check(&fragments(MAX_FRAGMENTS - 1), &[]);
        check_broken(&fragments(MAX_FRAGMENTS), Violation::TooBig);
    }

    #[test]
    fn text_is_utf8() {
        for bytes in [
            &b"\xff"[..],
            b"ok \xc3",
            b"\xc0\x80",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
        ] {
            check_broken(&masked(0x81, bytes), Violation::NotUtf8);
            check_broken(&stream(&[(0x01, bytes), (0x80, b"")]), Violation::NotUtf8);
            check_broken(&masked(0xc1, &deflated(bytes)), Violation::NotUtf8);
            check(&masked(0x82, bytes), &[Incoming::Binary]);
        }
    }

    #[test]
    fn a_close_says_why_or_nothing() {
        check(&masked(0x88, b""), &[Incoming::Close(None)]);
        let with = |code: u16, reason: &[u8]| masked(0x88, &[&code.to_be_bytes(), reason].concat());
        for code in [1000, 1001, 1003, 1007, 1012, 1014, 3000, 4999] {
            check(
                &with(code, "bis später".as_bytes()),
                &[Incoming::Close(Some(code))],
            );
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
            check_wrong(&with(code, b""), "invalid close code");
        }
        check_wrong(&masked(0x88, &[3]), "incomplete close code");
        check_broken(&with(1000, b"\xff"), Violation::NotUtf8);
    }

    #[test]
    fn nothing_is_read_after_the_end() {
        let input = stream(&[(0x88, b""), (0x81, b"one more thing"), (0xff, b"")]);
        check(&input, &[Incoming::Close(None)]);

        let mut decoder = Decoder::new(LIMIT, false);
        decoder.feed(&masked(0x81, b"\xff"));
        for _ in 0..2 {
            assert_eq!(decoder.next_incoming(), Err(Violation::NotUtf8));
            decoder.feed(&masked(0x81, b"sorry"));
            assert_eq!(decoder.buffered(), 0);
        }
    }

    #[test]
    fn a_violation_says_its_close_code() {
        let all = [
            Violation::Protocol("words"),
            Violation::NotUtf8,
            Violation::TooBig,
        ];
        assert_eq!(all.map(Violation::code), [1002, 1007, 1009]);
        assert_eq!(all[0].to_string(), "words");
    }

    #[test]
    fn a_silent_connection_holds_nothing() {
        assert!(size_of::<Decoder>() <= 80, "{}", size_of::<Decoder>());
        let mut decoder = Decoder::new(LIMIT, true);
        assert_eq!((decoder.input.capacity(), decoder.buffered()), (0, 0));

        // An announced size alone reserves no memory.
        let frame = masked(0x81, &[b'x'; 60_000]);
        decoder.feed(&frame[..8]);
        assert_eq!(decoder.next_incoming(), Ok(None));
        assert_eq!(decoder.input.capacity(), 0);
        assert_eq!(
            decoder
                .message
                .as_ref()
                .map(|message| message.data.capacity()),
            Some(0)
        );

        decoder.feed(&frame[8..20_000]);
        assert_eq!(decoder.next_incoming(), Ok(None));
        assert_eq!(decoder.buffered(), 20_000 - 8);

        // The rest, with the first bytes of the next frame.
        decoder.feed(&frame[20_000..]);
        decoder.feed(&frame[..3]);
        assert_eq!(decoder.next_incoming(), Ok(Some(said(&"x".repeat(60_000)))));
        assert_eq!(decoder.next_incoming(), Ok(None));
        assert_eq!((decoder.input.capacity(), decoder.buffered()), (3, 3));
        assert!(decoder.message.is_none());

        decoder.feed(&frame[3..]);
        assert!(matches!(decoder.next_incoming(), Ok(Some(_))));
        assert_eq!(decoder.next_incoming(), Ok(None));
        assert_eq!((decoder.input.capacity(), decoder.buffered()), (0, 0));
    }

    #[test]
    fn a_binary_payload_is_not_kept() {
        let mut decoder = Decoder::new(LIMIT, false);
        let frame = masked(0x82, &[1; 60_000]);
        decoder.feed(&frame[..50_000]);
        assert_eq!(decoder.next_incoming(), Ok(None));
        assert_eq!((decoder.input.capacity(), decoder.buffered()), (0, 0));
        decoder.feed(&frame[50_000..]);
        assert_eq!(decoder.next_incoming(), Ok(Some(Incoming::Binary)));
    }

    #[test]
    fn what_is_read_does_not_pile_up_behind_a_backlog() {
        let mut decoder = Decoder::new(LIMIT, false);
        let frame = masked(0x81, &[b'x'; 1000]);
        for _ in 0..10 {
            decoder.feed(&frame);
        }
        for _ in 0..500 {
            decoder.feed(&frame);
            assert!(matches!(decoder.next_incoming(), Ok(Some(_))));
            assert_eq!(decoder.buffered(), 10 * frame.len());
            assert!(decoder.input.len() <= 3 * decoder.buffered());
        }
        let rest = std::iter::from_fn(|| decoder.next_incoming().expect("no violation"));
        assert_eq!(rest.count(), 10);
    }

    #[test]
    fn compressed_messages_of_the_rfc_are_read() {
        // RFC 7692, 7.2.3: fixed codes, a block without compression, a block marked as the last, two
        // blocks.
        let whole: [&[u8]; 4] = [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
            &[
                0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
            ],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[
                0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
            ],
        ];
        for payload in whole {
            check(&masked(0xc1, payload), &[said("Hello")]);
            let (one, two) = payload.split_at(3);
            let fragments = stream(&[(0x41, one), (0x89, b"!"), (0x00, b""), (0x80, two)]);
            check(&fragments, &[Incoming::Ping(b"!".to_vec()), said("Hello")]);
        }
        // Empty, as in the RFC and as Chromium sends it.
        check(&masked(0xc1, &[0x00]), &[said("")]);
        check(&masked(0xc1, &[0x02, 0x00]), &[said("")]);
        // Agreed does not mean used.
        check(&masked(0x81, b"Hello"), &[said("Hello")]);
        check(&masked(0xc2, b"whatever"), &[Incoming::Binary]);
    }

    #[test]
    fn compression_has_to_be_agreed_upon() {
        let wrong = Violation::Protocol("compression not agreed upon");
        for first in [0xc1, 0x41, 0xc2] {
            check_with(
                LIMIT,
                false,
                &masked(first, &[0x00]),
                &(vec![], Some(wrong)),
            );
        }
    }

    #[test]
    fn a_compressed_message_that_breaks_off_is_a_violation() {
        let whole = deflated(page(5).as_bytes());
        check(&masked(0xc1, &whole), &[said(&page(5))]);
        for len in 0..whole.len() {
            check_wrong(&masked(0xc1, &whole[..len]), "broken compression");
        }
        // A last block with more behind it, and an invalid kind of block.
        check_wrong(
            &masked(0xc1, &[0x03, 0x00, 0x00, 0x00]),
            "broken compression",
        );
        check_wrong(&masked(0xc1, &[0x03, 0x00, 0x01]), "broken compression");
        check_wrong(&masked(0xc1, &[0x06, 0x00]), "broken compression");
        // A broken message does not affect the next.
        check(&masked(0xc1, &whole), &[said(&page(5))]);
    }

    #[test]
    fn a_reference_into_the_message_before_is_a_violation() {
        // RFC 7692, 7.2.3.2: the second "Hello" of a client that keeps its context.
        let input = stream(&[
            (0xc1, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]),
            (0xc1, &[0xf2, 0x00, 0x11, 0x00, 0x00]),
        ]);
        let wrong = Violation::Protocol("broken compression");
        check_with(LIMIT, true, &input, &(vec![said("Hello")], Some(wrong)));
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let bomb = deflated(&vec![b' '; 20_000_000]);
        assert!(bomb.len() < LIMIT);
        check_broken(&masked(0xc1, &bomb), Violation::TooBig);

        // Exactly the limit is allowed.
        for limit in [0, 1, 64, 65, 1000, 32_768, 65_536] {
            let text = " ".repeat(limit);
            let more = text.clone() + " ";
            assert_eq!(
                super::inflate(deflated(text.as_bytes()), limit),
                Ok(text.into_bytes())
            );
            assert_eq!(
                super::inflate(deflated(more.as_bytes()), limit),
                Err(Violation::TooBig)
            );
        }
    }

    #[test]
    fn our_frames_are_the_bytes_of_the_rfc() {
        assert_eq!(text(b"Hello"), b"\x81\x05Hello"[..]);
        assert_eq!(ping(b"Hello"), b"\x89\x05Hello"[..]);
        assert_eq!(pong(b""), b"\x8a\x00"[..]);
        assert_eq!(close(1001, "bye"), b"\x88\x05\x03\xe9bye"[..]);
        assert_eq!(text(&[b'x'; 256])[..4], [0x81, 0x7e, 0x01, 0x00]);
        assert_eq!(text(&[b'x'; 65_535])[..4], [0x81, 0x7e, 0xff, 0xff]);
        assert_eq!(
            text(&vec![b'x'; 65_536])[..10],
            [0x81, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]
        );
    }

    #[test]
    fn our_control_frames_stay_short() {
        let long = "ä".repeat(100);
        assert_eq!(ping(long.as_bytes()).len(), 2 + 125);
        assert_eq!(pong(long.as_bytes()).len(), 2 + 125);
        // 123 bytes would end inside a letter.
        assert_eq!(close(1008, &long)[4..], long.as_bytes()[..122]);
    }

    /// What an independent client reads from our bytes.
    fn read_by_their_client(bytes: &[u8]) -> Theirs {
        let mut client = their_client(bytes);
        client.read().expect("a proper frame")
    }

    #[test]
    fn their_client_reads_our_frames() {
        for len in [0, 1, 124, 125, 126, 127, 65_535, 65_536, 300_000] {
            let long = ["ü".repeat(len / 2), "x".repeat(len % 2)].concat();
            assert_eq!(
                read_by_their_client(&text(long.as_bytes())),
                Theirs::text(long)
            );
        }
        assert_eq!(read_by_their_client(&ping(b"1")), Theirs::Ping("1".into()));
        assert_eq!(
            read_by_their_client(&pong(&[7; 125])),
            Theirs::Pong(vec![7; 125].into())
        );
        let bye = CloseFrame {
            code: 1012.into(),
            reason: "stopping".into(),
        };
        assert_eq!(
            read_by_their_client(&close(1012, "stopping")),
            Theirs::Close(Some(bye))
        );
    }

    #[test]
    fn a_compressed_frame_stands_alone() {
        for text in [page(2), page(3), page(200), page(2000), "x".repeat(200_000)] {
            let frame = deflated_text(text.as_bytes());
            assert_eq!(frame[0], 0xc1);
            let header = match frame[1] {
                126 => 4,
                127 => 10,
                _ => 2,
            };
            assert!(frame.len() < text.len());
            assert_ne!(frame[frame.len() - 4..], FLUSH_TAIL);
            assert_eq!(inflated(&frame[header..]), text.as_bytes());
            // The same again, whatever was compressed in between.
            deflated_text(page(7).as_bytes());
            assert_eq!(deflated_text(text.as_bytes()), frame);
        }
    }

    #[test]
    fn what_does_not_compress_goes_as_it_is() {
        assert_eq!(deflated_text(b""), text(b""));
        assert_eq!(deflated_text(b"{}"), text(b"{}"));
        let mut state = 1u64;
        let noise = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        });
        let noise: Vec<u8> = noise.take(300_000).collect();
        for len in [1, 50, 1000, 66_000, 300_000] {
            assert_eq!(deflated_text(&noise[..len]), text(&noise[..len]));
            let mut out = Vec::new();
            super::deflate(
                &mut Compress::new(Compression::new(LEVEL), false),
                &noise[..len],
                &mut out,
            );
            assert_eq!(inflated(&out), &noise[..len]);
        }
    }

    #[test]
    fn the_key_of_the_rfc_is_accepted() {
        assert_eq!(
            accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn compression_is_agreed_upon_where_it_can_be() {
        let plain =
            Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover");
        let window = Some(
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15",
        );
        let table: &[(&[&str], Option<&str>)] = &[
            (&[], None),
            (&[""], None),
            (&["permessage-deflate"], plain),
            // As Chromium offers it.
            (&["permessage-deflate; client_max_window_bits"], plain),
            (
                &["permessage-deflate; client_no_context_takeover; server_no_context_takeover"],
                plain,
            ),
            (
                &["permessage-deflate;client_max_window_bits=15 ; server_no_context_takeover"],
                plain,
            ),
            (&["permessage-deflate; client_max_window_bits=8"], plain),
            (
                &["permessage-deflate; client_max_window_bits=\"10\""],
                plain,
            ),
            (
                &["  permessage-deflate ;  client_max_window_bits = 10 "],
                plain,
            ),
            (&["permessage-deflate; server_max_window_bits=15"], window),
            (
                &["permessage-deflate; server_max_window_bits=\"15\"; client_max_window_bits"],
                window,
            ),
            (&["permessage-deflate; server_max_window_bits=10"], None),
            (
                &["permessage-deflate; server_max_window_bits=10, permessage-deflate"],
                plain,
            ),
            (
                &[
                    "permessage-deflate; server_max_window_bits=10",
                    "permessage-deflate",
                ],
                plain,
            ),
            (
                &["permessage-deflate; server_max_window_bits=15, permessage-deflate"],
                window,
            ),
            (
                &[
                    "x-webkit-deflate-frame, permessage-bzip2; level=9",
                    "permessage-deflate",
                ],
                plain,
            ),
            (
                &["x-first; why=\"a, b; \\\"permessage-deflate\\\"\", permessage-deflate"],
                plain,
            ),
            (&["x-first; why=\", permessage-deflate, \""], None),
            (&["x-first; why=\"\\\", permessage-deflate, \""], None),
            (&[", ,permessage-deflate,"], plain),
            (&["x-webkit-deflate-frame"], None),
            (&["permessage-deflate2"], None),
            (&["permessage-deflate; level=9"], None),
            (&["permessage-deflate; server_no_context_takeover=1"], None),
            (
                &["permessage-deflate; client_no_context_takeover=\"\""],
                None,
            ),
            (&["permessage-deflate; server_max_window_bits"], None),
            (&["permessage-deflate; server_max_window_bits=16"], None),
            (&["permessage-deflate; client_max_window_bits=7"], None),
            (&["permessage-deflate; client_max_window_bits=08"], None),
            (&["permessage-deflate; client_max_window_bits=\"10"], None),
            (&["permessage-deflate; client_max_window_bits="], None),
            (
                &["permessage-deflate; client_max_window_bits; client_max_window_bits"],
                None,
            ),
            (&["permessage-deflate;"], None),
        ];
        for (offers, expected) in table {
            assert_eq!(
                negotiate_deflate(offers.iter().copied()),
                *expected,
                "{offers:?}"
            );
        }
    }

    /// An in-memory connection.
    struct Pipe {
        input: Cursor<Vec<u8>>,
        output: Vec<u8>,
    }

    impl Read for Pipe {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.input.read(buffer)
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.output.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn their_client(input: &[u8]) -> WebSocket<Pipe> {
        let pipe = Pipe {
            input: Cursor::new(input.to_vec()),
            output: Vec::new(),
        };
        WebSocket::from_raw_socket(pipe, Role::Client, None)
    }

    #[derive(Debug, Clone)]
    enum Sent {
        Text(String),
        Binary(Vec<u8>),
        Ping(Vec<u8>),
        Pong(Vec<u8>),
        /// A message split at these places (in thousandths), with a ping after each piece; compressed
        /// or not.
        Pieces(String, Vec<usize>, bool),
    }

    fn any_sent() -> impl Strategy<Value = Sent> {
        let text = prop_oneof!["\\PC{0,200}", "[a-c]{0,2000}", (0usize..400).prop_map(page)];
        let control = prop::collection::vec(any::<u8>(), 0..=125);
        prop_oneof![
            text.clone().prop_map(Sent::Text),
            prop::collection::vec(any::<u8>(), 0..1000).prop_map(Sent::Binary),
            control.clone().prop_map(Sent::Ping),
            control.prop_map(Sent::Pong),
            (
                text,
                prop::collection::vec(0usize..=1000, 0..6),
                any::<bool>()
            )
                .prop_map(|(text, cuts, deflated)| Sent::Pieces(text, cuts, deflated)),
        ]
    }

    fn send(client: &mut WebSocket<Pipe>, message: Theirs) {
        client.write(message).expect("memory takes all");
    }

    /// The bytes of the independent client, with its masks, and what we should read from them.
    fn send_by_their_client(all: &[Sent]) -> (Vec<u8>, Vec<Incoming>) {
        let mut client = their_client(&[]);
        let mut expected = Vec::new();
        for sent in all {
            match sent.clone() {
                Sent::Text(text) => {
                    send(&mut client, Theirs::text(text.clone()));
                    expected.push(Incoming::Text(text));
                }
                Sent::Binary(bytes) => {
                    send(&mut client, Theirs::binary(bytes));
                    expected.push(Incoming::Binary);
                }
                Sent::Ping(bytes) => {
                    send(&mut client, Theirs::Ping(bytes.clone().into()));
                    expected.push(Incoming::Ping(bytes));
                }
                Sent::Pong(bytes) => {
                    send(&mut client, Theirs::Pong(bytes.clone().into()));
                    // The client holds back a pong until it flushes, and sends only the last of
                    // several.
                    client.flush().expect("memory takes all");
                    expected.push(Incoming::Pong(bytes));
                }
                Sent::Pieces(text, mut cuts, deflate) => {
                    let bytes = if deflate {
                        deflated(text.as_bytes())
                    } else {
                        text.clone().into_bytes()
                    };
                    cuts.sort_unstable();
                    let mut ends: Vec<usize> =
                        cuts.iter().map(|cut| bytes.len() * cut / 1000).collect();
                    ends.push(bytes.len());
                    let (mut start, last) = (0, ends.len() - 1);
                    for (i, end) in ends.into_iter().enumerate() {
                        let kind = if i == 0 {
                            coding::Data::Text
                        } else {
                            coding::Data::Continue
                        };
                        let piece = bytes[start..end].to_vec();
                        let mut frame =
                            Frame::message(piece, coding::OpCode::Data(kind), i == last);
                        frame.header_mut().rsv1 = deflate && i == 0;
                        send(&mut client, Theirs::Frame(frame));
                        if i < last {
                            send(&mut client, Theirs::Ping("between".into()));
                            expected.push(Incoming::Ping(b"between".to_vec()));
                        }
                        start = end;
                    }
                    expected.push(Incoming::Text(text));
                }
            }
        }
        client.flush().expect("memory takes all");
        (std::mem::take(&mut client.get_mut().output), expected)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_their_client_sends_is_what_we_read(
            all in prop::collection::vec(any_sent(), 0..12),
            piece in 1usize..5000,
        ) {
            let (bytes, expected) = send_by_their_client(&all);
            prop_assert_eq!(decode(LIMIT, true, &bytes, piece), (expected, None));
        }

        #[test]
        fn a_damaged_stream_is_read_alike_however_it_is_cut(
            all in prop::collection::vec(any_sent(), 1..4),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            piece in 1usize..300,
        ) {
            let (mut bytes, _) = send_by_their_client(&all);
            for (place, byte) in damage {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            prop_assert_eq!(decode(LIMIT, true, &bytes, piece), decode(LIMIT, true, &bytes, usize::MAX));
        }

        #[test]
        fn any_text_goes_there_and_back(text in "\\PC{0,3000}") {
            prop_assert_eq!(read_by_their_client(&super::text(text.as_bytes())), Theirs::text(text.clone()));
            let frame = deflated_text(text.as_bytes());
            let header = if frame[1] == 126 { 4 } else { 2 };
            if frame[0] == 0xc1 {
                prop_assert_eq!(inflated(&frame[header..]), text.as_bytes());
            } else {
                prop_assert_eq!(&frame[header..], text.as_bytes());
            }
            // As if a client had sent it.
            let sent = masked(frame[0], &frame[header..]);
            prop_assert_eq!(decode(LIMIT, true, &sent, usize::MAX), (vec![said(&text)], None));
        }

        #[test]
        fn unmasking_fits_wherever_it_begins(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            mask in any::<[u8; 4]>(),
        ) {
            let mut unmasked = bytes.clone();
            unmask(&mut unmasked, mask);
            let expected: Vec<u8> = bytes.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
            prop_assert_eq!(unmasked, expected);
        }
    }
}
