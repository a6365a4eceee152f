//! Everybody comes back at once after a restart: how long that takes, what it costs, and what those who talk notice.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::crowd::{Crowd, between};
use crate::fan_out::new_message;
use crate::machine::Machine;
use crate::server::Process;
use crate::table::{self, Figure, quantile};
use crate::wire::{self, Wire};
use crate::{Options, posts};

/// The tabs that talk in a room of their own meanwhile.
const TALKING: usize = 50;
/// Connections that are opened at the same time.
const AT_ONCE: usize = 128;
/// How long the talk is measured at a time.
const TALK: Duration = Duration::from_millis(100);
/// A run fails if nothing happens for this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A tab that comes back.
#[derive(Clone, Default)]
struct Returning {
    name: String,
    token: String,
    room: String,
    version: String,
}

/// An upgraded connection, and the bytes that were already read from it.
type Opened = (usize, TcpStream, Vec<u8>);

#[derive(Default)]
struct Figures {
    seconds: Figure,
    /// Milliseconds of the server's processor time for one arrival.
    arrival: Figure,
    /// Milliseconds from posting to the last tab: quiet and during the storm, the median and the 99th percentile.
    delays: [Figure; 4],
    messages: Figure,
    /// KiB for each tab: opened one after the other, at the peak of the storm, and a while after it.
    memory: [Figure; 3],
}

/// Measures and prints.
pub(crate) fn measure(options: &Options, machine: &Machine) -> anyhow::Result<()> {
    machine.step_aside();
    let mut rows = Vec::new();
    for &tabs in options.tabs() {
        let mut figures = Figures::default();
        for run in 1..=options.runs() {
            eprintln!("run {run}: {tabs} tabs come back");
            figures.run(options, machine, tabs)?;
        }
        rows.push((tabs, figures));
    }
    machine.step_back();
    let shown = |of: &dyn Fn(&Figures) -> Vec<String>| {
        let rows = rows.iter();
        rows.map(|(tabs, figures)| [vec![table::counted(*tabs)], of(figures)].concat())
            .collect::<Vec<_>>()
    };
    table::print(
        "All tabs come back at once",
        &[
            "tabs",
            "seconds until the last has its room",
            "server, ms per arrival",
        ],
        &shown(&|figures| vec![figures.seconds.show(), figures.arrival.show()]),
    );
    table::print(
        &format!("Milliseconds from posting to the last of {TALKING} other tabs"),
        &[
            "tabs",
            "before, p50",
            "p99",
            "meanwhile, p50",
            "p99",
            "messages",
        ],
        &shown(&|figures| {
            let delays = figures.delays.iter().chain([&figures.messages]);
            delays.map(Figure::show).collect()
        }),
    );
    table::print(
        "Memory per tab, in KiB",
        &[
            "tabs",
            "opened one by one",
            "come back, at the peak",
            "a minute later",
        ],
        &shown(&|figures| figures.memory.iter().map(Figure::show).collect()),
    );
    Ok(())
}

impl Figures {
    fn run(&mut self, options: &Options, machine: &Machine, tabs: usize) -> anyhow::Result<()> {
        let folder = tempfile::tempdir_in(&options.folder)?;
        let database = folder.path().join("storm.db");
        let start = || Process::server(machine.on_its_own(&options.server), &database, "full");
        let each = |kib: f64, idle: f64| (kib - idle) / tabs as f64;

        let server = start()?;
        std::thread::sleep(options.size().silence);
        let idle = server.resident_kib();
        let (people, wire) = arrive(server.address, tabs)?;
        std::thread::sleep(options.size().silence);
        self.memory[0].add(each(server.resident_kib(), idle));
        server.kill()?;
        drop(wire);

        let mut server = start()?;
        let mut talk = Crowd::new()?;
        talk.arrive(server.address, TALKING, "/chat/python/", "")?;
        talk.settle(options.size().silence)?;
        let post = |wire: &mut Wire, room: &str, numbers: &[usize]| {
            let mut numbers = numbers.iter();
            numbers.try_for_each(|number| wire.send(number % TALKING, &new_message(room, *number)))
        };
        let mut quiet = talk.load(1, options.each(), false, post)?.last;
        let (idle, before) = (server.resident_kib(), server.processor_time()?);
        let began = Instant::now();
        let storm = storm(server.address, people)?;
        let mut meanwhile = Vec::new();
        while !storm.is_finished() {
            meanwhile.append(&mut talk.load(1, TALK, false, post)?.last);
        }
        let spent = server.processor_time()? - before;
        let storm = storm.join().expect("the storm does not panic");
        let (seconds, wire) = storm?;
        self.seconds.add((seconds - began).as_secs_f64());
        self.arrival.add(table::milliseconds(spent) / tabs as f64);
        self.messages.add(meanwhile.len() as f64);
        for (place, values) in [&mut quiet, &mut meanwhile].into_iter().enumerate() {
            self.delays[2 * place].add(quantile(values, 0.5));
            self.delays[2 * place + 1].add(quantile(values, 0.99));
        }
        self.memory[1].add(each(server.peak_kib(), idle));
        rest(wire, &mut talk, 15 * options.size().silence)?;
        self.memory[2].add(each(server.resident_kib(), idle));
        server.kill()?;
        posts::audit_room(&database, "python", &talk.ids())?;
        audit_people(&database, tabs)
    }
}

/// Opens tabs one after the other, and remembers what they need for coming back.
fn arrive(server: SocketAddr, tabs: usize) -> anyhow::Result<(Vec<Returning>, Wire)> {
    let mut wire = Wire::new()?;
    let mut people = vec![Returning::default(); tabs];
    for tab in 0..tabs {
        wire.upgrade(server, "/ws/chat/?at=/chat/hi/", "")?;
        if tab % 100 == 99 {
            wire.read(Duration::ZERO, |tab, frame| people[tab].hear(frame))?;
        }
    }
    let began = Instant::now();
    while people.iter().any(|one| one.version.is_empty()) {
        ensure!(began.elapsed() < PATIENCE, "a tab does not show its room");
        wire.read(Duration::from_millis(100), |tab, frame| {
            people[tab].hear(frame)
        })?;
    }
    Ok((people, wire))
}

impl Returning {
    fn hear(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        let payload = String::from_utf8(wire::payload(frame)?)?;
        let value = |name: &str| {
            let value = between(&payload, &format!(r#"{name}=\""#), '\\');
            value.unwrap_or_default().to_owned()
        };
        if payload.starts_with(r##"{"selector":"#logged-user""##) {
            (self.name, self.token) = (value("data-user"), value("data-resume"));
        } else if payload.starts_with(r##"{"selector":"#messages-list""##) {
            (self.room, self.version) = (value("data-room"), value("data-version"));
        }
        Ok(())
    }
}

/// Lets everybody come back. Returns when the last of them had their room, and the connections.
fn storm(
    server: SocketAddr,
    people: Vec<Returning>,
) -> anyhow::Result<JoinHandle<anyhow::Result<(Instant, Wire)>>> {
    let waiting: VecDeque<_> = people.iter().cloned().enumerate().collect();
    let waiting = Arc::new(Mutex::new(waiting));
    let (sender, opened) = mpsc::channel();
    for _ in 0..AT_ONCE {
        let (waiting, sender) = (Arc::clone(&waiting), sender.clone());
        let next = move || waiting.lock().ok()?.pop_front();
        std::thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(move || {
                while let Some((tab, one)) = next() {
                    let connected = one
                        .connect(server)
                        .map(|(stream, begun)| (tab, stream, begun));
                    if sender.send(connected).is_err() {
                        return;
                    }
                }
            })?;
    }
    Ok(std::thread::spawn(move || come_back(&people, &opened)))
}

impl Returning {
    fn connect(&self, server: SocketAddr) -> anyhow::Result<(TcpStream, Vec<u8>)> {
        let Self {
            token,
            room,
            version,
            ..
        } = self;
        let path = format!("/ws/chat/?at=/chat/hi/&room={room}&after={version}");
        wire::upgraded(
            server,
            &path,
            &format!("Sec-WebSocket-Protocol: resume.{token}\r\n"),
        )
    }
}

/// Waits until all have their room again, each as the same person.
fn come_back(
    people: &[Returning],
    opened: &Receiver<anyhow::Result<Opened>>,
) -> anyhow::Result<(Instant, Wire)> {
    let mut wire = Wire::new()?;
    let mut tabs = Vec::new();
    let mut ready = 0;
    let mut heard = Instant::now();
    while ready < people.len() {
        while let Ok(connection) = opened.try_recv() {
            let (tab, stream, begun) = connection?;
            tabs.push(tab);
            wire.add(stream, begun)?;
        }
        let any = wire.read(Duration::from_millis(5), |link, frame| {
            let payload = String::from_utf8(wire::payload(frame)?)?;
            let one = &people[*tabs.get(link).context("a tab")?];
            if payload.starts_with(r##"{"selector":"#logged-user""##) {
                let name = between(&payload, r#"data-user=\""#, '\\').unwrap_or_default();
                ensure!(name == one.name, "{} came back as {name}", one.name);
            }
            ready += usize::from(payload.starts_with(r##"{"selector":"#group-name""##));
            Ok(())
        })?;
        if any {
            heard = Instant::now();
        }
        ensure!(heard.elapsed() < PATIENCE, "{ready} tabs have their room");
    }
    Ok((Instant::now(), wire))
}

/// Lets all tabs go on for a while.
fn rest(mut wire: Wire, talk: &mut Crowd, lasts: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < lasts {
        wire.read(Duration::from_millis(100), |_, _| Ok(()))?;
        talk.settle(Duration::from_millis(10))?;
    }
    Ok(())
}

/// Nobody has become two people.
fn audit_people(database: &Path, tabs: usize) -> anyhow::Result<()> {
    let sql = "select count(*), count(distinct user_id) from clients where left_at is null";
    let (clients, users): (usize, usize) =
        posts::look(database)?.query_one(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let all = tabs + TALKING;
    ensure!(
        clients == all && users == all,
        "{users} people in {clients} tabs instead of {all}"
    );
    Ok(())
}
