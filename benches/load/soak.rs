//! A mixed load that goes on: what the server's memory and open files do in the long run.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rusqlite::Connection;

use crate::Options;
use crate::crowd::{Crowd, DEFLATE, between};
use crate::fan_out::new_message;
use crate::machine::Machine;
use crate::server::Process;
use crate::table;
use crate::wire::{self, Wire};

/// Messages under way at a time in the room of those who stay.
const UNDER_WAY: usize = 4;
/// How long those who stay write in each round.
const WRITING: Duration = Duration::from_millis(500);
/// How many people visit in each round, and leave again.
const VISITORS: usize = 10;
/// How long visitors wait for what they expect.
const PATIENCE: Duration = Duration::from_secs(60);

/// The server at one moment.
struct Sample {
    minutes: f64,
    resident_kib: f64,
    files: f64,
}

/// What has happened.
#[derive(Default)]
struct Done {
    /// Posts of those who stay, each delivered to all of them.
    posts: usize,
    deliveries: usize,
    visits: usize,
    /// Posts of visitors that were shown to their author.
    visitors_posts: usize,
    /// Further actions of visitors.
    actions: usize,
}

/// Measures and prints.
pub(crate) fn measure(options: &Options, machine: &Machine) -> anyhow::Result<()> {
    machine.step_back();
    let folder = tempfile::tempdir_in(&options.folder)?;
    let database = folder.path().join("soak.db");
    let command = std::process::Command::new(&options.server);
    let server = Process::server(command, &database, "normal")?;
    let tabs = options.size().crowd;
    let mut crowd = Crowd::new()?;
    crowd.arrive(server.address, tabs, "/chat/hi/", "")?;
    let (began, lasts) = (Instant::now(), options.lasts());
    let (mut done, mut samples) = (Done::default(), Vec::new());
    while began.elapsed() < lasts || samples.len() < 3 {
        let load = crowd.load(UNDER_WAY, WRITING, false, |wire, room, numbers| {
            for &number in numbers {
                wire.send(number % tabs, &new_message(room, number))?;
            }
            Ok(())
        })?;
        done.posts += load.messages;
        done.deliveries += load.messages * tabs;
        visit(&server, &mut done)?;
        samples.push(Sample {
            minutes: began.elapsed().as_secs_f64() / 60.0,
            resident_kib: server.resident_kib(),
            files: server.open_files()?,
        });
    }
    server.kill()?;
    let stored: usize =
        Connection::open(&database)?
            .query_one("select count(*) from messages", [], |row| row.get(0))?;
    ensure!(
        stored == done.posts + done.visitors_posts,
        "{stored} messages are stored, {} were shown",
        done.posts + done.visitors_posts
    );
    print(&samples, tabs, &done)
}

/// Some people come to a group, write, react, edit, look around and leave.
fn visit(server: &Process, done: &mut Done) -> anyhow::Result<()> {
    let mut wire = Wire::new()?;
    for visitor in 0..VISITORS {
        let headers = if visitor % 2 == 0 { DEFLATE } else { "" };
        wire.upgrade(server.address, "/ws/chat/?at=/chat/python/", headers)?;
    }
    // What each has seen: its room, and the id of its own message.
    let mut rooms = vec![None; VISITORS];
    let mut own = vec![None; VISITORS];
    let began = Instant::now();
    while own.iter().any(Option::is_none) {
        ensure!(
            began.elapsed() < PATIENCE,
            "a visitor's message is not shown"
        );
        let mut entered = Vec::new();
        wire.read(Duration::from_millis(100), |visitor, frame| {
            let payload = String::from_utf8(wire::payload(frame)?)?;
            if rooms[visitor].is_none()
                && let Some(room) = between(&payload, r#"data-room=\""#, '\\')
            {
                rooms[visitor] = Some(room.to_owned());
                entered.push(visitor);
            }
            if payload.contains(&format!("visitor {visitor} ")) && payload.contains("data-key") {
                own[visitor] = between(&payload, "id='message-", '\'').map(str::to_owned);
            }
            Ok(())
        })?;
        for visitor in entered {
            let room = rooms[visitor].as_deref().context("a room")?;
            let text = format!("visitor {visitor} is here");
            wire.send(
                visitor,
                &new_message(room, 0).replacen("0 Shall we", &text, 1),
            )?;
        }
    }
    for (visitor, (room, message)) in rooms.iter().zip(&own).enumerate() {
        let (room, message) = (
            room.as_deref().context("a room")?,
            message.as_deref().context("a message")?,
        );
        for action in [
            format!(r#"{{"action":"Typing","data":{{"room":"{room}"}}}}"#),
            format!(
                r#"{{"action":"React","data":{{"message":{message},"emoji":"🎉","on":true,"room":"{room}"}}}}"#
            ),
            format!(
                r#"{{"action":"Edit message","data":{{"message":{message},"text":"edited","room":"{room}"}}}}"#
            ),
            r#"{"action":"Find people","data":{"text":"a"}}"#.to_owned(),
            r#"{"action":"Change group","data":{"groupName":"events","isGroup":true}}"#.to_owned(),
        ] {
            wire.send(visitor, &action)?;
            done.actions += 1;
        }
    }
    // The last action's answer shows that all are done.
    let mut elsewhere = [false; VISITORS];
    while elsewhere.contains(&false) {
        ensure!(
            began.elapsed() < PATIENCE,
            "a visitor does not get to another group"
        );
        wire.read(Duration::from_millis(100), |visitor, frame| {
            let payload = String::from_utf8(wire::payload(frame)?)?;
            elsewhere[visitor] |= between(&payload, r#"data-room=\""#, '\\')
                .is_some_and(|room| Some(room) != rooms[visitor].as_deref());
            Ok(())
        })?;
    }
    done.visits += VISITORS;
    done.visitors_posts += VISITORS;
    Ok(())
}

fn print(samples: &[Sample], tabs: usize, done: &Done) -> anyhow::Result<()> {
    // Caches fill at first.
    let settled = &samples[samples.len() / 4..];
    let (first, last) = (
        settled.first().context("no sample")?,
        settled.last().context("no sample")?,
    );
    let row = |what: &str, of: fn(&Sample) -> f64| {
        let most = samples.iter().map(of).fold(0.0, f64::max);
        vec![
            what.to_owned(),
            table::shown(of(&samples[0])),
            table::shown(of(first)),
            table::shown(of(last)),
            table::shown(most),
            format!("{:+.2}", slope(settled, of)),
        ]
    };
    table::print(
        &format!("{tabs} tabs that stay, for {:.1} minutes", last.minutes),
        &[
            "",
            "after the first round",
            "after a quarter of the time",
            "at the end",
            "most",
            "change per minute in the last three quarters",
        ],
        &[
            row("resident memory, KiB", |sample| sample.resident_kib),
            row("open files", |sample| sample.files),
        ],
    );
    println!(
        "{} posts were delivered to all who stay ({} deliveries). {} people visited, posted {} messages and took {} further \
         actions. Each of these messages was in the database once when the server was killed, and nothing else was there.\n",
        table::counted(done.posts),
        table::counted(done.deliveries),
        table::counted(done.visits),
        table::counted(done.visitors_posts),
        table::counted(done.actions)
    );
    Ok(())
}

/// The slope of the straight line that fits best (least squares), per minute.
fn slope(samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (minutes, value) = (mean(&|sample| sample.minutes), mean(&of));
    let both: f64 = samples
        .iter()
        .map(|s| (s.minutes - minutes) * (of(s) - value))
        .sum();
    let spread: f64 = samples.iter().map(|s| (s.minutes - minutes).powi(2)).sum();
    both / spread
}
