//! One connection's life: frames in → chat, outbox → frames out, pings, close codes.
//!
//! Knows nothing of rooms, messages or templates. What waits for the socket goes out in one
//! vectored write of shared bytes; an idle socket owns no buffer in either direction.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::chat::{Chat, Client, NotLetIn};
use crate::hub::Close;
use crate::protocol::{Frame, Hello};
use crate::websocket::{self, Decoder, Incoming, Violation};

/// How much is taken from the outbox for one write, in bytes.
const WRITE_BYTES: usize = 64 * 1024;
/// How many frames one write joins at most, which is what systems take.
const WRITE_FRAMES: usize = 64;
/// How much is read at one time, in bytes.
const READ_BYTES: usize = 8 * 1024;
/// How long what waits may take to go out once the socket is to close.
const CLOSE_DRAIN: Duration = Duration::from_secs(2);
/// How long the other side may take to close after us.
const CLOSE_ANSWER: Duration = Duration::from_secs(1);
/// After a failure to bring the tab forward, the next try comes so much later.
const RETRY: Duration = Duration::from_secs(1);

/// What a socket may do and how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message, whole and inflated.
    pub frame_bytes: usize,
    /// After this silence the socket is pinged.
    pub ping_after: Duration,
    /// After this silence it is dropped.
    pub drop_after: Duration,
    /// An outbox that has been full for so long without draining is cut.
    pub drain_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: 64 * 1024,
            ping_after: Duration::from_secs(20),
            drop_after: Duration::from_secs(40),
            drain_within: Duration::from_secs(60),
        }
    }
}

/// Something the client asked for that is under way; answers whether it went well.
type Work = Pin<Box<dyn Future<Output = bool> + Send>>;

/// What a connection waits for.
enum Event {
    /// What was under way is done, and whether it went well.
    Worked(bool),
    /// There may be something in the outbox.
    Woken,
    /// The system takes bytes again.
    Writable(io::Result<()>),
    /// Bytes have come.
    Readable(io::Result<()>),
    /// Something may be due.
    Time,
}

/// Why a connection ends.
enum End {
    /// The other side has gone, or nothing can be said to it any more.
    Gone,
    /// Its close frame came, with this code.
    Closed(Option<u16>),
    /// We close it.
    Close(Close),
}

impl From<Violation> for End {
    fn from(violation: Violation) -> Self {
        Self::Close(Close {
            code: violation.code(),
            reason: violation.reason(),
            drain: false,
        })
    }
}

/// The writing of frames, and nothing else: what waits for the socket and how far it is.
struct Writer {
    deflate: bool,
    waiting: VecDeque<Frame>,
    /// Bytes of the first that have gone out.
    begun: usize,
    /// The system takes no more for now.
    blocked: bool,
}

/// A connection once somebody has arrived by it.
pub struct Socket {
    stream: TcpStream,
    decoder: Decoder,
    writer: Writer,
    chat: Arc<Chat>,
    client: Arc<Client>,
    limits: Limits,
    work: Option<Work>,
    /// Actions that came while one was under way or the outbox was full.
    waiting: VecDeque<Option<String>>,
    waiting_bytes: usize,
    heard: Instant,
    pings: u64,
    pinged: bool,
    probes: Vec<(u64, oneshot::Sender<()>)>,
    /// What the newest ping that has not been answered said.
    pong: Option<Vec<u8>>,
    retry_at: Option<Instant>,
}

/// Somebody arrives by a connection that has just been upgraded. `early` are bytes that came with
/// the request. Without an answer they could not be let in, and the connection has ended.
pub async fn arrive(
    mut stream: TcpStream,
    early: &[u8],
    hello: Hello,
    deflate: bool,
    limits: Limits,
    chat: Arc<Chat>,
) -> Option<Box<Socket>> {
    let mut decoder = Decoder::new(limits.frame_bytes, deflate);
    decoder.feed(early);
    let mut writer = Writer::new(deflate);
    let dialect = hello.dialect;
    let client = match chat.connect(hello).await {
        Ok(client) => Arc::new(client),
        // As at the ban itself: the tab tries again by itself after a while.
        Err(NotLetIn::Banned) => {
            tracing::info!("somebody banned was turned away");
            let (notice, close) = chat.farewell_to_banned(dialect);
            turn_away(stream, deflate, notice, close).await;
            return None;
        }
        Err(error) => {
            tracing::error!(?error, "somebody could not be let in");
            // Without a word: the tab tries again by itself, each time later, until a push comes.
            let close = Close {
                code: 1011,
                reason: "not possible now",
                drain: false,
            };
            close_stream(&mut stream, &mut writer, close).await;
            return None;
        }
    };
    Some(Box::new(Socket {
        stream,
        decoder,
        writer,
        chat,
        client,
        limits,
        work: None,
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        heard: Instant::now(),
        pings: 0,
        pinged: false,
        probes: Vec::new(),
        pong: None,
        retry_at: None,
    }))
}

/// Ends a connection before anybody arrives by it: says why, and closes.
pub async fn turn_away(mut stream: TcpStream, deflate: bool, notice: Option<Frame>, close: Close) {
    let mut writer = Writer::new(deflate);
    writer.put(Vec::from_iter(notice));
    close_stream(&mut stream, &mut writer, close).await;
}

impl Writer {
    fn new(deflate: bool) -> Self {
        Self {
            deflate,
            waiting: VecDeque::new(),
            begun: 0,
            blocked: false,
        }
    }

    fn put(&mut self, frames: impl Into<VecDeque<Frame>>) {
        if self.waiting.is_empty() {
            self.waiting = frames.into();
        } else {
            self.waiting.extend(frames.into());
        }
    }

    fn control(&mut self, frame: Bytes) {
        self.waiting.push_back(Frame::control(frame));
    }

    /// A numbered ping: its pong says which pings have been answered.
    fn ping(&mut self, number: u64) {
        self.control(websocket::ping(number.to_string().as_bytes()));
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Writes what the system takes.
    fn write(&mut self, stream: &TcpStream) -> io::Result<()> {
        while !self.waiting.is_empty() {
            match self.try_write(stream) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.waiting = VecDeque::new();
        Ok(())
    }

    fn try_write(&self, stream: &TcpStream) -> io::Result<usize> {
        let mut frames = self.waiting.iter().map(|frame| frame.bytes(self.deflate));
        let first = frames.next().map_or(&[][..], |first| &first[self.begun..]);
        if self.waiting.len() == 1 {
            return stream.try_write(first);
        }
        let mut slices = [IoSlice::new(first); WRITE_FRAMES];
        for (slice, bytes) in slices[1..].iter_mut().zip(frames) {
            *slice = IoSlice::new(bytes);
        }
        let count = self.waiting.len().min(WRITE_FRAMES);
        stream.try_write_vectored(&slices[..count])
    }

    fn advance(&mut self, written: usize) {
        self.begun += written;
        while let Some(first) = self.waiting.front() {
            let size = first.bytes(self.deflate).len();
            if self.begun < size {
                return;
            }
            self.begun -= size;
            self.waiting.pop_front();
        }
    }

    /// Keeps of what waits only the frame that has been begun, if one has: the rest may be cut,
    /// but never inside a frame.
    fn cut(&mut self) {
        self.waiting.truncate(usize::from(self.begun > 0));
    }
}

impl Socket {
    /// Lives the connection to its end. Meant for a task of its own, which needs far less memory
    /// than arriving does.
    pub async fn serve(mut self: Box<Self>) {
        let end = self.live().await;
        // Boxed, since it is long for something that happens once.
        Box::pin(self.end(end)).await;
    }

    async fn live(&mut self) -> End {
        let timer = sleep_until(self.heard + self.limits.ping_after);
        tokio::pin!(timer);
        loop {
            if let Err(end) = self.read_frames() {
                return end;
            }
            if let Err(end) = self.write(timer.as_mut()) {
                return end;
            }
            self.begin_work();
            // Somebody who always has something to read or to write lets others have their turn.
            tokio::task::coop::consume_budget().await;
            let event = poll_fn(|context| self.poll_event(timer.as_mut(), context)).await;
            match event {
                Event::Worked(went_well) => {
                    self.work = None;
                    self.retry_at = (!went_well).then(|| Instant::now() + RETRY);
                    if let Some(at) = self.retry_at {
                        timer.as_mut().reset(at);
                    }
                }
                Event::Woken => {}
                // The other side has taken bytes, which is a sign of life.
                Event::Writable(Ok(())) => {
                    self.writer.blocked = false;
                    self.alive();
                }
                Event::Readable(Ok(())) => match self.receive() {
                    Ok(0) => return End::Gone,
                    Ok(_) => self.alive(),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return End::Gone,
                },
                Event::Writable(Err(_)) | Event::Readable(Err(_)) => return End::Gone,
                Event::Time => {
                    if let Some(end) = self.look_at_the_clock() {
                        return end;
                    }
                    timer.as_mut().reset(self.next_look());
                }
            }
        }
    }

    /// Waits for whatever comes first. Polled by hand, so that a tab that waits, and each push
    /// that wakes it, does without a future per thing it waits for.
    fn poll_event(&mut self, timer: Pin<&mut Sleep>, context: &mut Context<'_>) -> Poll<Event> {
        if let Some(work) = &mut self.work
            && let Poll::Ready(went_well) = work.as_mut().poll(context)
        {
            return Poll::Ready(Event::Worked(went_well));
        }
        if self.client.outbox.poll_woken(context).is_ready() {
            return Poll::Ready(Event::Woken);
        }
        if self.writer.blocked
            && let Poll::Ready(ready) = self.stream.poll_write_ready(context)
        {
            return Poll::Ready(Event::Writable(ready));
        }
        // This also lets go of the request that the connection began with: until another waker
        // takes its place, the finished task of it stays in memory.
        if self.waiting_bytes < self.limits.frame_bytes
            && let Poll::Ready(ready) = self.stream.poll_read_ready(context)
        {
            return Poll::Ready(Event::Readable(ready));
        }
        timer.poll(context).map(|()| Event::Time)
    }

    fn alive(&mut self) {
        self.heard = Instant::now();
        self.pinged = false;
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut bytes = [0; READ_BYTES];
        let read = self.stream.try_read(&mut bytes)?;
        self.decoder.feed(&bytes[..read]);
        Ok(read)
    }

    /// Takes what has come, as far as there is room for it.
    fn read_frames(&mut self) -> Result<(), End> {
        while self.waiting_bytes < self.limits.frame_bytes {
            let Some(incoming) = self.decoder.next_incoming()? else {
                return Ok(());
            };
            match incoming {
                Incoming::Text(text) => {
                    // Even an empty action takes room.
                    self.waiting_bytes += text.len() + 64;
                    self.waiting.push_back(Some(text));
                }
                Incoming::Binary => {
                    self.waiting_bytes += 64;
                    self.waiting.push_back(None);
                }
                // Only the newest needs an answer, so that pinging fills no memory (RFC 6455, 5.5.3).
                Incoming::Ping(payload) => self.pong = Some(payload),
                Incoming::Pong(payload) => self.ponged(&payload),
                Incoming::Close(code) => return Err(End::Closed(code)),
            }
        }
        Ok(())
    }

    fn ponged(&mut self, payload: &[u8]) {
        let number = std::str::from_utf8(payload)
            .ok()
            .and_then(|number| number.parse().ok());
        let Some(number) = number else { return };
        let (answered, waiting) = std::mem::take(&mut self.probes)
            .into_iter()
            .partition(|(ping, _)| *ping <= number);
        self.probes = waiting;
        let answered: Vec<(u64, oneshot::Sender<()>)> = answered;
        for (_, asked) in answered {
            // Whoever asked may have stopped waiting.
            let _ = asked.send(());
        }
    }

    /// Begins the next thing to do for the client, one at a time: the rest of its room, or what
    /// it asks for, which waits while its outbox is full.
    fn begin_work(&mut self) {
        if self.work.is_some() {
            return;
        }
        let outbox = &self.client.outbox;
        if self.retry_at.is_none() && self.writer.is_empty() && outbox.wants_rest() {
            let (chat, client) = (Arc::clone(&self.chat), Arc::clone(&self.client));
            self.work = Some(Box::pin(async move { chat.catch_up(&client).await }));
        } else if !self.waiting.is_empty()
            && !outbox.is_full()
            && let Some(text) = self.waiting.pop_front()
        {
            self.waiting_bytes -= text.as_ref().map_or(0, String::len) + 64;
            if self.waiting.is_empty() {
                self.waiting = VecDeque::new();
            }
            let (chat, client) = (Arc::clone(&self.chat), Arc::clone(&self.client));
            self.work = Some(Box::pin(async move {
                act(&chat, &client, text).await;
                true
            }));
        }
    }

    /// Writes what waits, as far as the system takes it.
    fn write(&mut self, timer: Pin<&mut Sleep>) -> Result<(), End> {
        let outbox = &self.client.outbox;
        while !self.writer.blocked {
            if let Some(payload) = self.pong.take() {
                self.writer.control(websocket::pong(&payload));
            }
            if self.writer.is_empty() {
                let taken = outbox.take(WRITE_BYTES);
                for asked in taken.probes {
                    self.pings += 1;
                    self.writer.ping(self.pings);
                    self.probes.push((self.pings, asked));
                }
                self.writer.put(taken.frames);
                if self.writer.is_empty() {
                    break;
                }
            }
            self.writer.write(&self.stream).map_err(|_| End::Gone)?;
        }
        if let Some(close) = outbox.closing() {
            return Err(End::Close(close));
        }
        if self.writer.blocked {
            timer.reset(self.next_look());
        }
        Ok(())
    }

    /// When something may be due at the earliest.
    fn next_look(&self) -> Instant {
        let silence = if self.pinged {
            self.limits.drop_after
        } else {
            self.limits.ping_after
        };
        let mut next = self.heard + silence;
        if let Some(since) = self.client.outbox.full_since() {
            next = next.min(Instant::from_std(since) + self.limits.drain_within);
        }
        self.retry_at.map_or(next, |at| next.min(at))
    }

    fn look_at_the_clock(&mut self) -> Option<End> {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
        let full = self.client.outbox.full_since().map(Instant::from_std);
        if full.is_some_and(|since| now >= since + self.limits.drain_within) {
            return Some(End::Close(Close {
                code: 1008,
                reason: "This tab reads too slowly.",
                drain: false,
            }));
        }
        if now >= self.heard + self.limits.drop_after {
            return Some(End::Gone);
        }
        if now >= self.heard + self.limits.ping_after && !self.pinged {
            self.pinged = true;
            self.pings += 1;
            self.writer.ping(self.pings);
        }
        None
    }

    /// What was sent before the end is still done. Whoever is closed by us counts as connected
    /// until that is through, so that a server that stops waits for it.
    async fn end(&mut self, end: End) {
        if let Some(work) = self.work.take() {
            work.await;
        }
        while let Some(text) = self.waiting.pop_front() {
            act(&self.chat, &self.client, text).await;
        }
        match end {
            End::Gone => self.chat.disconnect(&self.client),
            End::Closed(code) => {
                self.chat.disconnect(&self.client);
                let close = Close {
                    code: code.unwrap_or(1000),
                    reason: "",
                    drain: false,
                };
                close_stream(&mut self.stream, &mut self.writer, close).await;
            }
            End::Close(close) => {
                self.client.outbox.close(close);
                if close.drain {
                    self.writer.put(self.client.outbox.take(usize::MAX).frames);
                } else if close.code == 1008 {
                    self.writer.cut();
                    self.writer.put(Vec::from_iter(
                        self.chat.farewell(self.client.outbox.dialect, close.reason),
                    ));
                }
                close_stream(&mut self.stream, &mut self.writer, close).await;
                self.chat.disconnect(&self.client);
            }
        }
    }
}

async fn act(chat: &Chat, client: &Client, text: Option<String>) {
    match text {
        Some(text) => chat.handle(client, &text).await,
        None => chat.refuse(client, "Binary frames are not understood here."),
    }
}

/// Sends what waits and the close frame, and gives the other side a moment to do the same.
async fn close_stream(stream: &mut TcpStream, writer: &mut Writer, close: Close) {
    writer.control(websocket::close(close.code, close.reason));
    let deadline = Instant::now() + CLOSE_DRAIN;
    loop {
        if writer.write(stream).is_err() {
            return;
        }
        if writer.is_empty() {
            break;
        }
        let Ok(Ok(())) = timeout_at(deadline, stream.writable()).await else {
            return;
        };
    }
    // The other side waits for our end of the stream. Its end has to be waited for as well: closing
    // with bytes unread would reset the connection and lose what was just sent.
    if stream.shutdown().await.is_err() {
        return;
    }
    let deadline = Instant::now() + CLOSE_ANSWER;
    while let Ok(Ok(())) = timeout_at(deadline, stream.readable()).await {
        match ignore(stream) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}

/// Reads and forgets. A function of its own, so that its buffer is no part of a future.
fn ignore(stream: &TcpStream) -> io::Result<usize> {
    stream.try_read(&mut [0; 1024])
}
