//! Load on the real server over real sockets: fan-out, memory, durable posts, long histories.
//!
//! `scripts/bench` builds what is measured and runs this. The server is a process of its own, on a
//! processor of its own where there are two; every delivery and every stored row is checked. Small
//! parts by themselves are measured in `benches/fragments.rs`.

mod bare;
mod cluster;
mod crowd;
mod fan_out;
mod history;
mod machine;
#[allow(dead_code, clippy::unwrap_used, reason = "it serves the tests too")]
#[path = "../../tests/support/postgres.rs"]
mod postgres;
mod posts;
#[allow(dead_code, clippy::unwrap_used, reason = "it serves the tests too")]
#[path = "../../tests/support/redis.rs"]
mod redis;
mod server;
mod table;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measures Overwire under load and prints tables in Markdown.
///
/// Each delivery is checked (every tab gets every message once, in order), and each acknowledged
/// message is looked up in the database after the server was killed. A failed check ends the run.
#[derive(Clone, Debug, Parser)]
#[command(name = "scripts/bench", max_term_width = 100)]
struct Options {
    /// A first impression within a minute or two; not for publishing
    #[arg(long)]
    quick: bool,

    /// What is measured
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "fan-out,posts,history,cluster"
    )]
    only: Vec<Part>,

    /// How often everything is measured; the tables show the median and the range
    #[arg(long, value_name = "N")]
    runs: Option<usize>,

    /// Tabs in the room
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    tabs: Option<Vec<usize>>,

    /// Messages under way at a time
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "N,…",
        default_value = "1,8,32"
    )]
    under_way: Vec<usize>,

    /// Writers that post at a time
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "N,…",
        default_value = "1,16,256"
    )]
    writers: Vec<usize>,

    /// How long each figure is measured, in seconds
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,

    /// Messages in the long history
    #[arg(long, value_name = "N")]
    messages: Option<u32>,

    /// The server to measure
    #[arg(long, value_name = "PROGRAM", default_value = env!("CARGO_BIN_EXE_overwire"))]
    server: PathBuf,

    /// Where the databases are made; the disk under it is measured with them
    #[arg(long, value_name = "FOLDER", default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,

    /// Be the bare loop that is compared with
    #[arg(long, hide = true)]
    bare_loop: bool,

    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One room, many tabs: deliveries, processor time, delay, bytes, memory
    FanOut,
    /// Durable posts by sockets and straight on the store
    Posts,
    /// A room with a short history and one with a long one
    History,
    /// One node and two on PostgreSQL with Redis, which it starts: posts, deliveries, delay across
    /// nodes, and what a message costs each part
    Cluster,
}

impl Options {
    fn runs(&self) -> usize {
        self.runs.unwrap_or(if self.quick { 1 } else { 5 })
    }

    fn tabs(&self) -> Vec<usize> {
        let all = [100, 1_000, 10_000];
        let usual = if self.quick { &all[..2] } else { &all };
        self.tabs.clone().unwrap_or_else(|| usual.to_vec())
    }

    fn each(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(if self.quick { 0.5 } else { 4.0 }))
    }

    fn messages(&self) -> u32 {
        self.messages
            .unwrap_or(if self.quick { 100_000 } else { 1_000_000 })
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.bare_loop {
        return bare::run();
    }
    rlimit::increase_nofile_limit(u64::MAX)?;
    let machine = machine::Machine::look();
    println!("{machine}");
    println!("Runs: {}. Median (least–most).\n", options.runs());
    for part in &options.only {
        let clock = machine::Clock::read();
        match part {
            Part::FanOut => fan_out::measure(&options, &machine)?,
            Part::Posts => posts::measure(&options, &machine)?,
            Part::History => history::measure(&options, &machine)?,
            Part::Cluster => cluster::measure(&options, &machine)?,
        }
        println!(
            "Meanwhile, others had {:.1} % of the processors' time.\n",
            clock.others() * 100.0
        );
    }
    println!("Load average at the end: {}.", machine::load_average());
    Ok(())
}
