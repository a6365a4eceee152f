//! Load on the real server over real sockets: fan-out, memory, storms, durable posts, pages, long histories, search, long times.
//!
//! `scripts/bench` builds the server and runs this. The server is a separate process, on its own
//! processor if there are two. Every delivery and every stored row is checked. Small parts on their own
//! are measured in `benches/fragments.rs`.

mod bare;
mod cluster;
mod crowd;
mod fan_out;
mod history;
mod machine;
mod pages;
#[allow(dead_code, clippy::unwrap_used, reason = "it serves the tests too")]
#[path = "../../tests/support/postgres.rs"]
mod postgres;
mod posts;
#[allow(dead_code, clippy::unwrap_used, reason = "it serves the tests too")]
#[path = "../../tests/support/redis.rs"]
mod redis;
mod search;
mod server;
mod soak;
mod storm;
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
    /// A first impression within a few minutes; not for publishing
    #[arg(long)]
    quick: bool,

    /// Only check that everything works: all parts and all checks, with tiny numbers
    #[arg(long, conflicts_with = "quick")]
    smoke: bool,

    /// What to measure
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "fan-out,storm,posts,pages,history,search,cluster"
    )]
    only: Vec<Part>,

    /// How often to measure everything; the tables show the median and the range
    #[arg(long, value_name = "N")]
    runs: Option<usize>,

    /// Tabs in the room [default: 100,1000,10000]
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    tabs: Option<Vec<usize>>,

    /// Messages under way at a time [default: 1,8,32]
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    under_way: Option<Vec<usize>>,

    /// Writers that post at a time [default: 1,16,256]
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    writers: Option<Vec<usize>>,

    /// How long to measure each figure, in seconds
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,

    /// How long the mixed load goes on, in minutes
    #[arg(long, value_name = "N", default_value_t = 60.0)]
    minutes: f64,

    /// Messages in the large chat, and in the one that is searched
    #[arg(long, value_name = "N")]
    messages: Option<u32>,

    /// Let the server and the load share all processors, instead of giving each its own
    #[arg(long)]
    share: bool,

    /// The server to measure
    #[arg(long, value_name = "PROGRAM", default_value = env!("CARGO_BIN_EXE_overwire"))]
    server: PathBuf,

    /// Where to create the databases, which also decides the disk that is measured
    #[arg(long, value_name = "FOLDER", default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,

    /// Run the bare loop for comparison
    #[arg(long, hide = true)]
    bare_loop: bool,

    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One room, many tabs: deliveries, processor time, delay, bytes, memory
    FanOut,
    /// All tabs come back at once after a restart: time, processor time, delay of posts, memory
    Storm,
    /// Durable posts over sockets and directly to the store
    Posts,
    /// Pages over HTTP while messages are written: processor time and delay
    Pages,
    /// A small chat and a large one, which make_fake_users fills
    History,
    /// Search in a large chat, in SQLite and PostgreSQL, which it starts
    Search,
    /// One node and two nodes on PostgreSQL with Redis, which it starts: posts, deliveries, delay
    /// across nodes, and what a message costs each part
    Cluster,
    /// A mixed load that goes on for minutes: whether memory or open files grow
    Soak,
}

/// The default size of a run.
struct Size {
    runs: usize,
    tabs: &'static [usize],
    under_way: &'static [usize],
    writers: &'static [usize],
    seconds: f64,
    /// The number of messages in the large chat.
    messages: u32,
    /// The number of users in its chat.
    users: u32,
    /// The number of groups in its chat.
    groups: u32,
    /// How often each operation runs on a history.
    rounds: usize,
    /// Tabs in the room on one node or two.
    crowd: usize,
    /// The least number of posts for a figure, even on a slow disk.
    least_posts: usize,
    /// Longer than any timer that the server starts after people join or leave.
    silence: Duration,
}

const FULL: Size = Size {
    runs: 5,
    tabs: &[100, 1_000, 10_000],
    under_way: &[1, 8, 32],
    writers: &[1, 16, 256],
    seconds: 4.0,
    messages: 1_000_000,
    users: 100_000,
    groups: 10_000,
    rounds: 2_000,
    crowd: 1_000,
    least_posts: 100,
    silence: Duration::from_secs(4),
};

const QUICK: Size = Size {
    runs: 1,
    tabs: &[100, 1_000],
    seconds: 0.5,
    messages: 100_000,
    rounds: 200,
    crowd: 100,
    ..FULL
};

/// Its figures mean nothing, so it does not wait for the server to be idle.
const SMOKE: Size = Size {
    runs: 1,
    tabs: &[8],
    under_way: &[1, 4],
    writers: &[1, 4],
    seconds: 0.1,
    messages: 1_000,
    users: 100,
    groups: 10,
    rounds: 20,
    crowd: 8,
    least_posts: 20,
    silence: Duration::ZERO,
};

impl Options {
    fn size(&self) -> &'static Size {
        match self {
            Self { smoke: true, .. } => &SMOKE,
            Self { quick: true, .. } => &QUICK,
            _ => &FULL,
        }
    }

    fn runs(&self) -> usize {
        self.runs.unwrap_or(self.size().runs)
    }

    fn tabs(&self) -> &[usize] {
        self.tabs.as_deref().unwrap_or(self.size().tabs)
    }

    fn under_way(&self) -> &[usize] {
        self.under_way.as_deref().unwrap_or(self.size().under_way)
    }

    fn writers(&self) -> &[usize] {
        self.writers.as_deref().unwrap_or(self.size().writers)
    }

    fn each(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(self.size().seconds))
    }

    fn lasts(&self) -> Duration {
        match self.smoke {
            true => Duration::ZERO,
            false => Duration::from_secs_f64(self.minutes * 60.0),
        }
    }

    fn messages(&self) -> u32 {
        self.messages.unwrap_or(self.size().messages)
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.bare_loop {
        return bare::run();
    }
    rlimit::increase_nofile_limit(u64::MAX)?;
    let machine = machine::Machine::look(options.share);
    println!("{machine}");
    println!("Runs: {}. Median (least–most).\n", options.runs());
    for part in &options.only {
        let clock = machine::Clock::read();
        match part {
            Part::FanOut => fan_out::measure(&options, &machine)?,
            Part::Storm => storm::measure(&options, &machine)?,
            Part::Posts => posts::measure(&options, &machine)?,
            Part::Pages => pages::measure(&options, &machine)?,
            Part::History => history::measure(&options, &machine)?,
            Part::Search => search::measure(&options, &machine)?,
            Part::Cluster => cluster::measure(&options, &machine)?,
            Part::Soak => soak::measure(&options, &machine)?,
        }
        println!(
            "Other processes used {:.1} % of the processors' time.\n",
            clock.others() * 100.0
        );
    }
    println!("Load average at the end: {}.", machine::load_average());
    Ok(())
}
