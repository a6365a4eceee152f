//! The whole page of a group over HTTP, while messages are written in it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::Options;
use crate::crowd::Crowd;
use crate::fan_out::new_message;
use crate::machine::Machine;
use crate::server::Process;
use crate::table::{self, Figure, milliseconds, quantile};
use crate::wire::Wire;

/// Messages per second.
const RATES: [u32; 3] = [0, 10, 100];
/// Messages that are written one after the other, as often as the rate needs it.
const TOGETHER: u32 = 3;

#[derive(Clone, Default)]
struct Figures {
    /// Milliseconds of the server's processor time for one page.
    cost: Figure,
    half: Figure,
    most: Figure,
    pages: Figure,
    written: Figure,
}

/// Measures and prints.
pub(crate) fn measure(options: &Options, machine: &Machine) -> anyhow::Result<()> {
    machine.step_aside();
    let mut figures = vec![Figures::default(); RATES.len()];
    for run in 1..=options.runs() {
        for (rate, figures) in RATES.into_iter().zip(&mut figures) {
            eprintln!("run {run}: pages with {rate} messages per second");
            figures.run(options, machine, rate)?;
        }
    }
    machine.step_back();
    let row = |(rate, figures): (u32, &Figures)| {
        let Figures {
            cost, half, most, ..
        } = figures;
        let shown = [cost, half, most, &figures.pages, &figures.written].map(Figure::show);
        std::iter::once(rate.to_string()).chain(shown).collect()
    };
    table::print(
        "The whole page of a group with 50 messages, over HTTP",
        &[
            "messages per second",
            "server, ms per page",
            "milliseconds to the whole page, p50",
            "p99",
            "pages",
            "messages",
        ],
        &RATES.into_iter().zip(&figures).map(row).collect::<Vec<_>>(),
    );
    Ok(())
}

impl Figures {
    fn run(&mut self, options: &Options, machine: &Machine, rate: u32) -> anyhow::Result<()> {
        let folder = tempfile::tempdir_in(&options.folder)?;
        let database = folder.path().join("pages.db");
        let mut server = Process::server(machine.on_its_own(&options.server), &database, "normal")?;
        let mut talk = Crowd::new()?;
        talk.arrive(server.address, 1, "/chat/hi/", "")?;
        talk.settle(options.size().silence)?;
        let post = |wire: &mut Wire, room: &str, numbers: &[usize]| {
            let mut numbers = numbers.iter();
            numbers.try_for_each(|number| wire.send(0, &new_message(room, *number)))
        };
        talk.load(50, Duration::ZERO, false, post)?;
        let mut reader = Reader::new(server.address)?;
        reader.page()?;
        let before = server.processor_time()?;
        let began = Instant::now();
        let (mut times, mut written) = (Vec::new(), 0);
        while began.elapsed() < options.each() {
            if f64::from(rate) * began.elapsed().as_secs_f64() >= f64::from(written + TOGETHER) {
                let load = talk.load(1, Duration::ZERO, false, post)?;
                written += u32::try_from(load.messages)?;
            }
            let asked = Instant::now();
            reader.page()?;
            times.push(milliseconds(asked.elapsed()));
        }
        let spent = server.processor_time()? - before;
        for id in talk.ids().iter().rev().take(50) {
            let message = format!("id='message-{id}'");
            ensure!(
                reader.page()?.contains(&message),
                "{message} is not on the page"
            );
        }
        self.cost.add(milliseconds(spent) / times.len() as f64);
        self.pages.add(times.len() as f64);
        self.written.add(f64::from(written));
        self.half.add(quantile(&mut times, 0.5));
        self.most.add(quantile(&mut times, 0.99));
        server.kill()
    }
}

/// A connection that pages are fetched over, one after the other.
pub(crate) struct Reader {
    stream: TcpStream,
    request: String,
    buffer: Vec<u8>,
}

impl Reader {
    /// Connects.
    pub(crate) fn new(server: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            request: format!("GET /chat/hi/ HTTP/1.1\r\nHost: {server}\r\n\r\n"),
            buffer: vec![0; 256 * 1024],
        })
    }

    /// Fetches the page.
    pub(crate) fn page(&mut self) -> anyhow::Result<&str> {
        self.stream.write_all(self.request.as_bytes())?;
        let mut read = 0;
        while !whole(&self.buffer[..read])? {
            let came = self.stream.read(&mut self.buffer[read..])?;
            ensure!(came > 0, "the server closed the connection");
            read += came;
        }
        Ok(std::str::from_utf8(&self.buffer[..read])?)
    }
}

/// Whether a response is complete.
fn whole(answer: &[u8]) -> anyhow::Result<bool> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(false);
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    ensure!(head.starts_with("http/1.1 200 "), "{head}");
    let size = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .context("a response without its length")?;
    Ok(answer.len() >= end + 4 + size.parse::<usize>()?)
}
