//! The life of one connection: frames in → chat, outbox → frames out, pings, close codes.
//!
//! Knows nothing of rooms, messages or templates. Waiting frames go out in one vectored write of shared
//! bytes. An idle socket owns no buffer for bytes in either direction.

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

use crate::chat::{Chat, Client, NotLetIn, Request, log_failure};
use crate::hub::{self, Close};
use crate::metrics::METRICS;
use crate::protocol::{Frame, Hello};
use crate::websocket::{self, Decoder, Incoming, Violation};

/// How much one write takes from the outbox, in bytes.
const WRITE_BYTES: usize = 64 * 1024;
/// How many frames one write joins at most, which is the limit of most systems.
const WRITE_FRAMES: usize = 64;
/// How much one read takes, in bytes.
const READ_BYTES: usize = 8 * 1024;
/// How long waiting frames may take to go out before the socket closes.
const CLOSE_DRAIN: Duration = Duration::from_secs(2);
/// How long the other side may take to answer our close frame.
const CLOSE_ANSWER: Duration = Duration::from_secs(1);
/// How long to wait before retrying when a tab could not be brought up to date.
const RETRY: Duration = Duration::from_secs(1);

/// The last notice for a tab whose outbox has stayed full.
const TOO_SLOW: &str = "This tab is too slow to receive messages.";

/// The limits and timeouts of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest message, in bytes, after joining its frames and inflating.
    pub frame_bytes: usize,
    /// A socket that is silent for this long is pinged.
    pub ping_after: Duration,
    /// A socket that is silent for this long is disconnected.
    pub drop_after: Duration,
    /// A socket is closed when its outbox has stayed full for this long.
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

/// How much memory the messages of one client may take until they have come back to it, in bytes. They must not fill its
/// own outbox.
const UNDER_WAY_BYTES: usize = 32 * 1024;
/// The memory of a waiting action besides its text, in bytes.
const ACTION_BYTES: usize = 256;

/// A request of the client that is under way. Returns whether it succeeded.
type Work = Pin<Box<dyn Future<Output = bool> + Send>>;

/// What a connection waits for.
enum Event {
    /// The work under way is done; whether it succeeded.
    Worked(bool),
    /// There may be something in the outbox.
    Woken,
    /// The system accepts bytes again.
    Writable(io::Result<()>),
    /// Bytes have arrived.
    Readable(io::Result<()>),
    /// A timer may have expired.
    Time,
}

/// Why a connection ends.
enum End {
    /// The other side has gone, or nothing can be sent to it.
    Gone,
    /// The other side has been silent for too long.
    Silent,
    /// The other side sent a close frame, with this code.
    Closed(Option<u16>),
    /// The server closes it.
    Close(Close),
}

impl End {
    /// The reason in metrics.
    fn reason(&self) -> &'static str {
        let close = match self {
            Self::Gone => return "lost",
            Self::Silent => return "silent",
            Self::Closed(_) => return "closed",
            Self::Close(close) => close,
        };
        match (close.code, close.reason) {
            (1000, "taken over") => "taken_over",
            (1000, "reconnect") => "reconnect",
            (1000, _) => "group_changed",
            (1008, "banned") => "banned",
            (1008, TOO_SLOW) => "slow",
            (1012, _) => "restart",
            _ => "protocol",
        }
    }
}

impl From<Violation> for End {
    fn from(violation: Violation) -> Self {
        Self::Close(Close::now(violation.code(), violation.reason()))
    }
}

/// Writes frames, and nothing else: those that wait for the socket, and how far they are sent.
#[derive(Default)]
struct Writer {
    deflate: bool,
    waiting: VecDeque<Frame>,
    /// How many bytes of the first frame are sent.
    begun: usize,
    /// The system accepts no more bytes for now.
    blocked: bool,
}

/// What the hub sends frames with while the socket has nothing to send.
struct Line {
    stream: Arc<TcpStream>,
    deflate: bool,
}

impl hub::Line for Line {
    fn send(&self, frames: &VecDeque<Frame>) -> (usize, usize) {
        let (mut sent, mut begun) = (0, 0);
        while sent < frames.len() {
            let rest = frames.range(sent..);
            let Ok(mut written) = try_write(&self.stream, self.deflate, rest, begun) else {
                break;
            };
            if written == 0 {
                break;
            }
            METRICS.sent.inc_by(written as u64);
            written += begun;
            begun = 0;
            for frame in frames.range(sent..) {
                let size = frame.bytes(self.deflate).len();
                if written < size {
                    begun = written;
                    break;
                }
                written -= size;
                sent += 1;
            }
        }
        (sent, begun)
    }
}

/// A connection whose client has been admitted.
pub struct Socket {
    stream: Arc<TcpStream>,
    decoder: Decoder,
    writer: Writer,
    chat: Arc<Chat>,
    client: Arc<Client>,
    limits: Arc<Limits>,
    /// In their order. More than one are messages, and all but the last have been given to the store.
    works: VecDeque<(Work, usize)>,
    works_bytes: usize,
    /// Actions that arrived while another was under way or the outbox was full, and their sizes.
    waiting: VecDeque<(Request, usize)>,
    waiting_bytes: usize,
    heard: Instant,
    pings: u64,
    pinged: bool,
    /// Pings that have to be sent.
    due: Vec<Frame>,
    probes: Vec<(u64, oneshot::Sender<()>)>,
    /// The payload of the newest ping that is not answered yet.
    pong: Option<Vec<u8>>,
    retry_at: Option<Instant>,
}

/// Admits the client of a connection that was just upgraded. `early` are bytes that came with the
/// request. Returns `None` if the client could not be admitted; the connection is closed then.
pub async fn arrive(
    mut stream: TcpStream,
    early: &[u8],
    hello: Hello,
    deflate: bool,
    limits: Arc<Limits>,
    chat: Arc<Chat>,
) -> Option<Box<Socket>> {
    let mut decoder = Decoder::new(limits.frame_bytes, deflate);
    decoder.feed(early);
    let mut writer = Writer::new(deflate);
    let dialect = hello.dialect;
    let client = match chat.connect(hello).await {
        Ok(client) => Arc::new(client),
        // As for the ban itself, the tab retries by itself after a while.
        Err(NotLetIn::Banned) => {
            METRICS.refused("banned");
            tracing::info!("rejected a banned client");
            let (notice, close) = chat.farewell_to_banned(dialect);
            turn_away(stream, deflate, notice, close).await;
            return None;
        }
        Err(error) => {
            METRICS.refused("unavailable");
            if let NotLetIn::Store(error) = &error {
                log_failure("admit a client", error);
            }
            // Without a notice: the tab retries by itself, less and less often, until a push arrives.
            let close = Close::now(1011, "not possible now");
            close_stream(&mut stream, &mut writer, close).await;
            return None;
        }
    };
    let stream = Arc::new(stream);
    let line = Arc::clone(&stream);
    client.outbox.connect(Line {
        stream: line,
        deflate,
    });
    Some(Box::new(Socket {
        stream,
        decoder,
        writer,
        chat,
        client,
        limits,
        works: VecDeque::new(),
        works_bytes: 0,
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        heard: Instant::now(),
        pings: 0,
        pinged: false,
        due: Vec::new(),
        probes: Vec::new(),
        pong: None,
        retry_at: None,
    }))
}

/// A numbered ping. Its pong says which pings have been answered.
fn ping(number: u64) -> Frame {
    Frame::control(websocket::ping(number.to_string().as_bytes()))
}

/// Rejects a connection before its client is admitted: sends why, and closes.
pub async fn turn_away(mut stream: TcpStream, deflate: bool, notice: Option<Frame>, close: Close) {
    let mut writer = Writer::new(deflate);
    writer.put(Vec::from_iter(notice));
    close_stream(&mut stream, &mut writer, close).await;
}

impl Writer {
    fn new(deflate: bool) -> Self {
        Self {
            deflate,
            ..Self::default()
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

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Writes as much as the system accepts.
    fn write(&mut self, stream: &TcpStream) -> io::Result<()> {
        while !self.waiting.is_empty() {
            match try_write(stream, self.deflate, self.waiting.iter(), self.begun) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    METRICS.sent.inc_by(written as u64);
                    self.advance(written);
                }
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

    /// Drops all waiting frames except one that is partly sent: frames may be dropped, but never cut.
    fn cut(&mut self) {
        self.waiting.truncate(usize::from(self.begun > 0));
    }
}

/// Writes what the system accepts of these frames. `begun` bytes of the first are already sent.
fn try_write<'a>(
    stream: &TcpStream,
    deflate: bool,
    frames: impl ExactSizeIterator<Item = &'a Frame>,
    begun: usize,
) -> io::Result<usize> {
    let count = frames.len();
    let mut frames = frames.map(|frame| frame.bytes(deflate));
    let first = frames.next().map_or(&[][..], |first| &first[begun..]);
    if count == 1 {
        return stream.try_write(first);
    }
    let mut slices = [IoSlice::new(first); WRITE_FRAMES];
    for (slice, bytes) in slices[1..].iter_mut().zip(frames) {
        *slice = IoSlice::new(bytes);
    }
    stream.try_write_vectored(&slices[..count.min(WRITE_FRAMES)])
}

impl Drop for Socket {
    /// After a panic, nobody sends on the connection any more, so that the browser notices.
    fn drop(&mut self) {
        self.client.outbox.hang_up();
    }
}

impl Socket {
    /// Serves the connection until it ends. Run it in its own task, which needs far less memory than
    /// the one that admitted the client.
    pub async fn serve(mut self: Box<Self>) {
        let end = self.live().await;
        // Boxed, since it is a large future for something that happens once.
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
            // A busy socket gives other tasks their turn.
            tokio::task::coop::consume_budget().await;
            let event = poll_fn(|context| self.poll_event(timer.as_mut(), context)).await;
            match event {
                Event::Worked(went_well) => {
                    self.works_bytes -= self.works.pop_front().map_or(0, |(_, bytes)| bytes);
                    if self.works.is_empty() {
                        self.works = VecDeque::new();
                    }
                    self.retry_at = (!went_well).then(|| Instant::now() + RETRY);
                    if let Some(at) = self.retry_at {
                        timer.as_mut().reset(at);
                    }
                }
                Event::Woken => {}
                // The other side has taken bytes, so it is alive.
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

    /// Waits for the first event. Polled by hand, so that neither a waiting tab nor a push that wakes
    /// it needs one future per source of events.
    fn poll_event(&mut self, timer: Pin<&mut Sleep>, context: &mut Context<'_>) -> Poll<Event> {
        if let Some((first, _)) = self.works.front_mut()
            && let Poll::Ready(went_well) = first.as_mut().poll(context)
        {
            return Poll::Ready(Event::Worked(went_well));
        }
        // Only the last may have to be polled to reach the store. It may be refused before that.
        if self.works.len() > 1
            && let Some((last, bytes)) = self.works.back_mut()
            && last.as_mut().poll(context).is_ready()
        {
            self.works_bytes -= *bytes;
            self.works.pop_back();
            return Poll::Ready(Event::Woken);
        }
        if self.may_act() {
            return Poll::Ready(Event::Woken);
        }
        if self.client.outbox.poll_woken(context).is_ready() {
            return Poll::Ready(Event::Woken);
        }
        if self.writer.blocked
            && let Poll::Ready(ready) = self.stream.poll_write_ready(context)
        {
            return Poll::Ready(Event::Writable(ready));
        }
        // Polling also frees the request that the connection began with: its finished task stays in
        // memory until another waker replaces its own.
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
        METRICS.received.inc_by(read as u64);
        self.decoder.feed(&bytes[..read]);
        Ok(read)
    }

    /// Reads frames, as far as there is room for them.
    fn read_frames(&mut self) -> Result<(), End> {
        while self.waiting_bytes < self.limits.frame_bytes {
            let Some(incoming) = self.decoder.next_incoming()? else {
                return Ok(());
            };
            match incoming {
                Incoming::Text(text) => {
                    let request = self.chat.read(&self.client, &text);
                    self.waits(request, text.len());
                }
                Incoming::Binary => self.waits(Request::binary(), 0),
                // Only the newest needs an answer (RFC 6455, 5.5.3), so pings cannot fill the memory.
                Incoming::Ping(payload) => self.pong = Some(payload),
                Incoming::Pong(payload) => self.ponged(&payload),
                Incoming::Close(code) => return Err(End::Closed(code)),
            }
        }
        Ok(())
    }

    fn waits(&mut self, request: Request, bytes: usize) {
        self.waiting_bytes += bytes + ACTION_BYTES;
        self.waiting.push_back((request, bytes + ACTION_BYTES));
    }

    fn ponged(&mut self, payload: &[u8]) {
        let number = std::str::from_utf8(payload).ok();
        let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) else {
            return;
        };
        let answered = self.probes.extract_if(.., |(ping, _)| *ping <= number);
        for (_, asked) in answered {
            // The other tab may have stopped waiting.
            let _ = asked.send(());
        }
    }

    /// Whether the next action may begin: after the one before it, or, if both are messages, as soon as that is
    /// with the store. Actions wait while the outbox is full, and messages while too many of the tab's own have
    /// not come back.
    fn may_act(&self) -> bool {
        let Some((next, bytes)) = self.waiting.front() else {
            return false;
        };
        let (outbox, under_way) = (&self.client.outbox, self.works.len());
        let is_turn = match under_way {
            0 => true,
            _ => next.is_message() && self.client.queued() == under_way && !outbox.wants_rest(),
        };
        if !is_turn || outbox.is_full() {
            return false;
        }
        let before = self.works_bytes + outbox.unsettled_bytes();
        !next.is_message() || before == 0 || before + bytes <= UNDER_WAY_BYTES
    }

    /// Begins the next work for the client: the rest of its room, or its next action.
    fn begin_work(&mut self) {
        let outbox = &self.client.outbox;
        let rests = self.retry_at.is_none() && self.writer.is_empty() && outbox.wants_rest();
        if self.works.is_empty() && rests {
            let (chat, client) = (Arc::clone(&self.chat), Arc::clone(&self.client));
            let work = Box::pin(async move { chat.catch_up(&client).await });
            self.works.push_back((work, 0));
        } else if self.may_act()
            && let Some((request, bytes)) = self.waiting.pop_front()
        {
            self.waiting_bytes -= bytes;
            if self.waiting.is_empty() {
                self.waiting = VecDeque::new();
            }
            let (chat, client) = (Arc::clone(&self.chat), Arc::clone(&self.client));
            let work = Box::pin(async move {
                chat.handle(&client, request).await;
                true
            });
            self.works.push_back((work, bytes));
            self.works_bytes += bytes;
        }
    }

    /// Writes waiting frames, as far as the system accepts them.
    fn write(&mut self, timer: Pin<&mut Sleep>) -> Result<(), End> {
        let outbox = &self.client.outbox;
        while !self.writer.blocked {
            if self.writer.is_empty() {
                let taken = outbox.take(WRITE_BYTES);
                for asked in taken.probes {
                    self.pings += 1;
                    self.due.push(ping(self.pings));
                    self.probes.push((self.pings, asked));
                }
                if taken.begun == 0 {
                    // Somebody waits for the answers.
                    self.writer.put(std::mem::take(&mut self.due));
                }
                let pushes = taken.frames.iter().map(Frame::count);
                METRICS.pushes.inc_by(pushes.sum::<usize>() as u64);
                self.writer.put(taken.frames);
                self.writer.begun = taken.begun;
            }
            if let Some(payload) = self.pong.take() {
                self.writer.control(websocket::pong(&payload));
            }
            if !self.due.is_empty() {
                self.writer.put(std::mem::take(&mut self.due));
            }
            if self.writer.is_empty() {
                outbox.rest();
                break;
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

    /// The earliest time at which something may be due.
    fn next_look(&self) -> Instant {
        let silence = match self.pinged {
            true => self.limits.drop_after,
            false => self.limits.ping_after,
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
            return Some(End::Close(Close::now(1008, TOO_SLOW)));
        }
        if now >= self.heard + self.limits.drop_after {
            return Some(End::Silent);
        }
        if now >= self.heard + self.limits.ping_after && !self.pinged {
            self.pinged = true;
            self.pings += 1;
            self.due.push(ping(self.pings));
        }
        None
    }

    /// Finishes the actions that were sent before the end. A client that the server closes counts as
    /// connected until then, so that a stopping server waits for it.
    async fn end(&mut self, end: End) {
        METRICS.disconnected(end.reason());
        for (work, _) in std::mem::take(&mut self.works) {
            work.await;
        }
        while let Some((request, _)) = self.waiting.pop_front() {
            self.chat.handle(&self.client, request).await;
        }
        // A frame that is partly sent comes before everything else, or the browser could read nothing more.
        if let Some((frame, begun)) = self.client.outbox.hang_up() {
            self.writer.put([frame]);
            self.writer.begun = begun;
        }
        match end {
            End::Gone | End::Silent => self.chat.disconnect(&self.client),
            End::Closed(code) => {
                self.chat.disconnect(&self.client);
                let close = Close::now(code.unwrap_or(1000), "");
                self.close_stream(close).await;
            }
            End::Close(close) => {
                self.client.outbox.close(close);
                if close.drain {
                    let rest = self.client.outbox.take(usize::MAX);
                    self.writer.put(rest.frames);
                } else if close.code == 1008 {
                    self.writer.cut();
                    let dialect = self.client.outbox.dialect;
                    let farewell = self.chat.farewell(dialect, close.reason);
                    self.writer.put(Vec::from_iter(farewell));
                }
                self.close_stream(close).await;
                self.chat.disconnect(&self.client);
            }
        }
    }

    async fn close_stream(&mut self, close: Close) {
        // Since the outbox has hung up, the stream is used here only.
        if let Some(stream) = Arc::get_mut(&mut self.stream) {
            close_stream(stream, &mut self.writer, close).await;
        }
    }
}

/// Sends the waiting frames and the close frame, and gives the other side a moment to do the same.
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
    // The other side waits for the end of our stream. We have to wait for theirs too: closing with
    // unread bytes would reset the connection and lose what was just sent.
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

/// Reads and discards. A separate function, so that its buffer is not part of a future.
fn ignore(stream: &TcpStream) -> io::Result<usize> {
    stream.try_read(&mut [0; 1024])
}
