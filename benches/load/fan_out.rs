//! One room, many tabs: the cost and delay of a delivery, and the cost of an idle tab.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use overwire::websocket;
use uuid::Uuid;

use crate::crowd::{Crowd, DEFLATE, Load};
use crate::machine::{self, Machine};
use crate::server::Process;
use crate::table::{self, Figure, quantile};
use crate::wire::Wire;
use crate::{Options, posts};

const WARM_UP: Duration = Duration::from_millis(300);

/// The servers to compare.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Plain,
    Deflate,
    /// As plain, but all messages come from one tab, which does not wait for answers.
    Alone,
    Bare,
}

/// A row of the tables: tabs, and messages under way.
type Place = (usize, usize);

#[derive(Default)]
struct Figures {
    microseconds: BTreeMap<(Place, Subject), Figure>,
    per_second: BTreeMap<(Place, Subject), Figure>,
    delays: BTreeMap<(Place, Subject), [Figure; 4]>,
    ratios: BTreeMap<(Place, Subject), Figure>,
    of_single: BTreeMap<(Place, Subject), Figure>,
    bytes: BTreeMap<(Place, Subject), Figure>,
    messages: BTreeMap<(Place, Subject), Figure>,
    joined: BTreeMap<(Place, Subject), Figure>,
    memory: BTreeMap<usize, [Figure; 3]>,
    caught_up: u64,
    deliveries: u64,
}

/// Measures and prints.
pub(crate) fn measure(options: &Options, machine: &Machine) -> anyhow::Result<()> {
    machine.step_aside();
    let mut figures = Figures::default();
    for run in 1..=options.runs() {
        for &tabs in options.tabs() {
            let mut frame_bytes = 0;
            for subject in [Subject::Plain, Subject::Deflate] {
                eprintln!(
                    "run {run}: {tabs} tabs{}",
                    if subject == Subject::Plain {
                        ""
                    } else {
                        ", compressed"
                    }
                );
                let bytes = figures.server(options, machine, tabs, subject)?;
                frame_bytes = frame_bytes.max(bytes);
            }
            eprintln!("run {run}: {tabs} bare sockets");
            figures.bare(options, machine, tabs, frame_bytes)?;
            figures.compare(options, tabs);
        }
    }
    machine.step_back();
    figures.print(options);
    Ok(())
}

impl Figures {
    fn server(
        &mut self,
        options: &Options,
        machine: &Machine,
        tabs: usize,
        subject: Subject,
    ) -> anyhow::Result<usize> {
        let folder = tempfile::tempdir_in(&options.folder)?;
        let database = folder.path().join("fan-out.db");
        let mut server = Process::server(machine.on_its_own(&options.server), &database, "full")?;
        let headers = if subject == Subject::Deflate {
            DEFLATE
        } else {
            ""
        };
        let mut crowd = Crowd::new()?;
        if subject == Subject::Plain {
            // A few tabs connect and leave first, so that one-time costs of the first tabs are not
            // counted.
            let mut first = Crowd::new()?;
            first.arrive(server.address, 20, "/chat/python/", headers)?;
            drop(first);
            std::thread::sleep(options.size().silence);
            let before = (server.resident_kib(), machine::kernel_kib());
            crowd.arrive(server.address, tabs, "/chat/hi/", headers)?;
            crowd.settle(options.size().silence)?;
            let each = |kib: f64, before: f64| (kib - before) / tabs as f64;
            let memory = self.memory.entry(tabs).or_default();
            memory[0].add(each(server.resident_kib(), before.0));
            memory[1].add(each(machine::kernel_kib(), before.1));
        } else {
            crowd.arrive(server.address, tabs, "/chat/hi/", headers)?;
            crowd.settle(options.size().silence)?;
        }
        for &under_way in options.under_way() {
            ensure!(under_way <= tabs, "more authors than tabs");
            let mut under_load = |subject, authors: usize| {
                // They are spread over the tabs.
                let post = |wire: &mut Wire, room: &str, numbers: &[usize]| {
                    numbers.iter().try_for_each(|number| {
                        let author = number % authors * (tabs / authors);
                        wire.send(author, &new_message(room, *number))
                    })
                };
                crowd.load(under_way, WARM_UP.min(options.each()), false, post)?;
                let before = server.processor_time()?;
                let load = crowd.load(under_way, options.each(), false, post)?;
                let spent = server.processor_time()? - before;
                self.add((tabs, under_way), subject, &load, spent);
                anyhow::Ok(())
            };
            under_load(subject, under_way)?;
            if subject == Subject::Plain {
                under_load(Subject::Alone, 1)?;
            }
        }
        if subject == Subject::Plain {
            crowd.settle(options.size().silence)?;
            let memory = self.memory.entry(tabs).or_default();
            memory[2].add(server.resident_kib() / tabs as f64);
        }
        server.kill()?;
        posts::audit_room(&database, "hi", &crowd.ids())?;
        Ok(crowd.frame_bytes())
    }

    fn bare(
        &mut self,
        options: &Options,
        machine: &Machine,
        tabs: usize,
        frame_bytes: usize,
    ) -> anyhow::Result<()> {
        let mut command: Command = machine.on_its_own(&std::env::current_exe()?);
        command.arg("--bare-loop");
        let mut process = Process::start(command)?;
        let mut orders = std::net::TcpStream::connect(process.address)?;
        order(&mut orders, tabs)?;
        let mut crowd = Crowd::new()?;
        crowd.connect(process.address, tabs)?;
        for &under_way in options.under_way() {
            let mut post = |_: &mut Wire, _: &str, numbers: &[usize]| {
                let frames: Vec<_> = numbers
                    .iter()
                    .flat_map(|number| like_a_message(*number, frame_bytes))
                    .collect();
                order(&mut orders, frames.len())?;
                Ok(std::io::Write::write_all(&mut orders, &frames)?)
            };
            crowd.load(under_way, WARM_UP.min(options.each()), true, &mut post)?;
            let before = process.processor_time()?;
            let load = crowd.load(under_way, options.each(), true, &mut post)?;
            let spent = process.processor_time()? - before;
            self.add((tabs, under_way), Subject::Bare, &load, spent);
        }
        Ok(())
    }

    fn add(&mut self, place: Place, subject: Subject, load: &Load, spent: Duration) {
        let deliveries = (load.messages * place.0) as f64;
        self.deliveries += deliveries as u64;
        self.caught_up += load.caught_up;
        let at = (place, subject);
        let of = |figures: &mut BTreeMap<_, Figure>, value| {
            figures.entry(at).or_default().add(value);
        };
        of(
            &mut self.microseconds,
            spent.as_secs_f64() * 1e6 / deliveries,
        );
        of(
            &mut self.per_second,
            deliveries / load.elapsed.as_secs_f64(),
        );
        of(&mut self.bytes, load.bytes as f64 / deliveries);
        of(&mut self.messages, load.messages as f64);
        of(&mut self.joined, deliveries / load.reads as f64);
        let delays = self.delays.entry(at).or_default();
        let mut values = [load.first.clone(), load.last.clone()];
        for (i, figure) in delays.iter_mut().enumerate() {
            figure.add(quantile(&mut values[i / 2], [0.5, 0.99][i % 2]));
        }
    }

    /// Divides the figures of the last run.
    fn compare(&mut self, options: &Options, tabs: usize) {
        for under_way in options.under_way() {
            let place = (tabs, *under_way);
            let last = |subject| {
                self.microseconds
                    .get(&(place, subject))
                    .map_or(f64::NAN, Figure::last)
            };
            let bare = last(Subject::Bare);
            let single = self.microseconds.get(&((tabs, 1), Subject::Bare));
            let single = single.map_or(f64::NAN, Figure::last);
            for subject in [Subject::Plain, Subject::Deflate, Subject::Alone] {
                let (at, spent) = ((place, subject), last(subject));
                self.ratios.entry(at).or_default().add(spent / bare);
                self.of_single.entry(at).or_default().add(spent / single);
            }
        }
    }

    fn print(&self, options: &Options) {
        use Subject::{Alone, Bare, Deflate, Plain};
        let places = || {
            options.tabs().iter().flat_map(|tabs| {
                let under_way = options.under_way().iter();
                under_way.map(|under_way| (*tabs, *under_way))
            })
        };
        let row = |place: Place, rest: Vec<String>| {
            [vec![table::counted(place.0), place.1.to_string()], rest].concat()
        };
        let show = |figures: &BTreeMap<_, Figure>, place, subject| {
            figures
                .get(&(place, subject))
                .map_or(String::new(), Figure::show)
        };
        let rows: Vec<_> = places()
            .map(|place| {
                let cost = |subject| show(&self.microseconds, place, subject);
                let ratio = |subject| show(&self.ratios, place, subject);
                row(
                    place,
                    vec![
                        cost(Bare),
                        cost(Plain),
                        ratio(Plain),
                        cost(Deflate),
                        ratio(Deflate),
                        cost(Alone),
                        ratio(Alone),
                    ],
                )
            })
            .collect();
        table::print(
            "Processor time per delivery, in microseconds",
            &[
                "tabs",
                "under way",
                "bare loop",
                "Overwire",
                "of bare",
                "compressed",
                "of bare",
                "one author",
                "of bare",
            ],
            &rows,
        );
        let rows: Vec<_> = places()
            .map(|place| {
                let ratio = |subject| show(&self.of_single, place, subject);
                row(place, vec![ratio(Plain), ratio(Deflate), ratio(Alone)])
            })
            .collect();
        table::print(
            "The same, of the bare loop that sends one message at a time",
            &["tabs", "under way", "Overwire", "compressed", "one author"],
            &rows,
        );
        let rows: Vec<_> = places()
            .map(|place| {
                let delay = |which: usize| {
                    self.delays
                        .get(&(place, Plain))
                        .map_or(String::new(), |delays| delays[which].show())
                };
                row(
                    place,
                    vec![
                        show(&self.per_second, place, Bare),
                        show(&self.per_second, place, Plain),
                        delay(0),
                        delay(1),
                        delay(2),
                        delay(3),
                        show(&self.messages, place, Plain),
                    ],
                )
            })
            .collect();
        table::print(
            "Deliveries per second, and milliseconds from key to screen",
            &[
                "tabs",
                "under way",
                "bare loop",
                "Overwire",
                "first tab p50",
                "p99",
                "last tab p50",
                "p99",
                "messages",
            ],
            &rows,
        );
        let rows: Vec<_> = places()
            .map(|place| {
                row(
                    place,
                    vec![
                        show(&self.joined, place, Bare),
                        show(&self.joined, place, Plain),
                        show(&self.joined, place, Deflate),
                        show(&self.bytes, place, Plain),
                        show(&self.bytes, place, Deflate),
                    ],
                )
            })
            .collect();
        table::print(
            "Frames that arrived together, and bytes per frame",
            &[
                "tabs",
                "under way",
                "bare loop",
                "Overwire",
                "compressed",
                "bytes",
                "bytes, compressed",
            ],
            &rows,
        );
        let rows: Vec<_> = self
            .memory
            .iter()
            .map(|(tabs, memory)| {
                [
                    vec![table::counted(*tabs)],
                    memory.iter().map(Figure::show).collect(),
                ]
                .concat()
            })
            .collect();
        table::print(
            "Memory per idle tab, in KiB",
            &[
                "tabs",
                "server, resident, increase",
                "system, both ends together",
                "server, resident, total after the load",
            ],
            &rows,
        );
        println!(
            "{} deliveries were counted and checked. {} of them were catch-ups.\n",
            table::counted(self.deliveries as usize),
            table::counted(self.caught_up as usize)
        );
    }
}

/// The action of a tab when somebody presses Enter.
pub(crate) fn new_message(room: &str, number: usize) -> String {
    let key = Uuid::new_v4();
    format!(
        r#"{{"action":"New message","data":{{"message":"{number} Shall we meet at the station at eight, or is that too early?","room":"{room}","key":"{key}"}}}}"#
    )
}

/// A frame of the same size as a message's.
fn like_a_message(number: usize, frame_bytes: usize) -> Vec<u8> {
    let begun = format!(
        r##"{{"selector":"#messages-list","html":"<article id='message-{number}'><p>{number} "##
    );
    let mut payload = format!("{begun:.<0$}", frame_bytes.saturating_sub(4));
    payload.truncate(frame_bytes.saturating_sub(4).max(begun.len()));
    websocket::text(payload.as_bytes()).to_vec()
}

fn order(orders: &mut std::net::TcpStream, number: usize) -> anyhow::Result<()> {
    let number = u32::try_from(number)?.to_be_bytes();
    Ok(std::io::Write::write_all(orders, &number)?)
}
