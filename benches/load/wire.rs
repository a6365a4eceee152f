//! Many plain sockets and their frames. It is the lightest client that can tell frames apart, so that
//! the server is measured and not the client.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use overwire::websocket;

const READ_BYTES: usize = 256 * 1024;
const EVENTS: usize = 1024;

/// Open connections.
pub(crate) struct Wire {
    poll: Poll,
    events: Events,
    links: Vec<Link>,
    buffer: Vec<u8>,
    /// How often a socket was read.
    pub(crate) reads: u64,
}

struct Link {
    stream: TcpStream,
    /// The beginning of an incomplete frame.
    begun: Vec<u8>,
}

impl Wire {
    /// A wire without connections.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            links: Vec::new(),
            buffer: vec![0; READ_BYTES],
            reads: 0,
        })
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// Opens a connection that carries frames from the start.
    pub(crate) fn open(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let stream = std::net::TcpStream::connect(address)?;
        self.add(stream, Vec::new())
    }

    /// Opens a connection and upgrades it; `headers` are further lines of the request.
    pub(crate) fn upgrade(
        &mut self,
        address: SocketAddr,
        path: &str,
        headers: &str,
    ) -> anyhow::Result<()> {
        let (stream, begun) = upgraded(address, path, headers)?;
        self.add(stream, begun)
    }

    /// Adds an upgraded connection, with the bytes that were already read from it.
    pub(crate) fn add(
        &mut self,
        stream: std::net::TcpStream,
        begun: Vec<u8>,
    ) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let token = Token(self.links.len());
        self.poll
            .registry()
            .register(&mut stream, token, Interest::READABLE)?;
        self.links.push(Link { stream, begun });
        Ok(())
    }

    /// Sends a text, masked as a client must, with the mask that costs nothing.
    pub(crate) fn send(&mut self, link: usize, text: &str) -> anyhow::Result<()> {
        let mut frame = websocket::text(text.as_bytes()).to_vec();
        frame[1] |= 0x80;
        let header = frame.len() - text.len();
        frame.splice(header..header, [0; 4]);
        self.write(link, &frame)
    }

    /// Sends raw bytes.
    pub(crate) fn write(&mut self, link: usize, bytes: &[u8]) -> anyhow::Result<()> {
        // So few bytes always fit, unless the server has stopped reading.
        let written = self.links[link].stream.write(bytes)?;
        if written < bytes.len() {
            bail!("the server does not read");
        }
        Ok(())
    }

    /// Waits for frames and passes each to `take`, whole, with the number of its connection. Returns
    /// whether any arrived. Answers pings.
    pub(crate) fn read(
        &mut self,
        wait: Duration,
        mut take: impl FnMut(usize, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(false),
            done => done?,
        }
        let mut any = false;
        for event in &self.events {
            let number = event.token().0;
            let link = &mut self.links[number];
            loop {
                let read = match link.stream.read(&mut self.buffer) {
                    Ok(0) => bail!("connection {number} was closed"),
                    Ok(read) => read,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("reading"),
                };
                self.reads += 1;
                any |= link.took(number, &self.buffer[..read], &mut take)?;
                // If there is more, the poll reports it again.
                if read < self.buffer.len() {
                    break;
                }
            }
        }
        Ok(any)
    }
}

impl Link {
    fn took(
        &mut self,
        number: usize,
        bytes: &[u8],
        take: &mut impl FnMut(usize, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        let mut begun = std::mem::take(&mut self.begun);
        let mut bytes = if begun.is_empty() {
            bytes
        } else {
            begun.extend_from_slice(bytes);
            &begun
        };
        let mut any = false;
        while let Some((header, size)) = measure(bytes) {
            let (frame, rest) = bytes.split_at(size);
            bytes = rest;
            match frame[0] & 0x0f {
                0x8 => bail!(
                    "the server closed connection {number}: {}",
                    String::from_utf8_lossy(&frame[header..])
                ),
                0x9 => {
                    let mut pong = vec![0x8a, 0x80 | frame[1], 0, 0, 0, 0];
                    pong.extend_from_slice(&frame[header..]);
                    self.stream.write_all(&pong)?;
                }
                _ => take(number, frame)?,
            }
            any = true;
        }
        self.begun = bytes.to_vec();
        Ok(any)
    }
}

/// Opens a connection and upgrades it. Returns it with the bytes that came after the answer.
pub(crate) fn upgraded(
    address: SocketAddr,
    path: &str,
    headers: &str,
) -> anyhow::Result<(std::net::TcpStream, Vec<u8>)> {
    let mut stream = std::net::TcpStream::connect(address)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: overwire.v1\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    let end = loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            bail!(
                "the server closed the connection: {}",
                String::from_utf8_lossy(&answer)
            );
        }
        answer.extend_from_slice(&buffer[..read]);
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    if !answer.starts_with(b"HTTP/1.1 101 ") {
        bail!("the upgrade failed: {}", String::from_utf8_lossy(&answer));
    }
    let agreed = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    if headers.contains("permessage-deflate") && !agreed.contains("permessage-deflate") {
        bail!("compression was not agreed upon");
    }
    Ok((stream, answer.split_off(end)))
}

/// The size of the header and of the whole frame at the beginning of `bytes`, if it is complete.
pub(crate) fn measure(bytes: &[u8]) -> Option<(usize, usize)> {
    let (header, payload) = match (bytes.get(1)? & 0x7f, &bytes[2..]) {
        (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        (127, rest) => {
            let length: &[u8; 8] = rest.first_chunk()?;
            (10, usize::try_from(u64::from_be_bytes(*length)).ok()?)
        }
        (126, _) => return None,
        (payload, _) => (2, usize::from(payload)),
    };
    (bytes.len() >= header + payload).then_some((header, header + payload))
}

/// The payload of a whole frame.
pub(crate) fn payload(frame: &[u8]) -> anyhow::Result<Vec<u8>> {
    let (header, _) = measure(frame).context("not a frame")?;
    if frame[0] & 0x40 == 0 {
        return Ok(frame[header..].to_vec());
    }
    let mut deflated = frame[header..].to_vec();
    // What a flush ends with and leaves out on the wire, and an empty last block.
    deflated.extend_from_slice(&[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]);
    miniz_oxide::inflate::decompress_to_vec(&deflated)
        .map_err(|error| anyhow::anyhow!("a frame does not inflate: {error}"))
}
