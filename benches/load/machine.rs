//! The machine of the measurements, and the pinning of processes to its processors.

use std::fmt;
use std::fs;
use std::process::{Command, Stdio};

/// A description of the machine for readers of the figures.
pub(crate) struct Machine {
    processor: String,
    processors: usize,
    kernel: String,
    rustc: String,
    load: String,
    /// Whether the server has its own processor, separate from the load.
    pub(crate) pinned: bool,
}

impl Machine {
    /// Reads the description of this machine, where server and load may have to share the processors.
    pub(crate) fn look(share: bool) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let can_pin = Command::new("taskset")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        Self {
            processor: field("/proc/cpuinfo", "model name"),
            processors,
            kernel: read("/proc/sys/kernel/osrelease"),
            rustc: said_by(Command::new("rustc").arg("--version")),
            load: load_average(),
            pinned: can_pin && processors > 1 && !share,
        }
    }

    /// A command that runs on the first processor only, if the machine has another for the load.
    pub(crate) fn on_its_own(&self, program: &std::path::Path) -> Command {
        if !self.pinned {
            return Command::new(program);
        }
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(program);
        command
    }

    /// Keeps the calling thread and its future threads off the server's processor.
    pub(crate) fn step_aside(&self) {
        self.move_to(&format!("1-{}", self.processors - 1));
    }

    /// Lets them run on all processors again.
    pub(crate) fn step_back(&self) {
        self.move_to(&format!("0-{}", self.processors - 1));
    }

    fn move_to(&self, processors: &str) {
        if self.pinned {
            // If it fails, the figures are only noisier.
            said_by(Command::new("taskset").args([
                "-p",
                "-c",
                processors,
                &std::process::id().to_string(),
            ]));
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            processor,
            processors,
            kernel,
            rustc,
            load,
            pinned,
        } = self;
        let placed = match pinned {
            true => "server on processor 0, load on the others",
            false => "server and load share the processors",
        };
        write!(
            f,
            "{processors} × {processor}, Linux {kernel}, {rustc}; {placed}. \
             Load average at the start: {load}."
        )
    }
}

/// The load average of the last 1, 5 and 15 minutes.
pub(crate) fn load_average() -> String {
    let all = read("/proc/loadavg");
    all.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Processor time since the machine started, in its ticks.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    /// All of it.
    all: f64,
    /// Used by any process, or withheld by the host of a virtual machine.
    spent: f64,
    /// Used by this program and by its child processes that have ended.
    own: f64,
}

impl Clock {
    /// Reads it now.
    pub(crate) fn read() -> Self {
        let ticks: Vec<f64> = read("/proc/stat")
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            // Time of guests is included in time of users.
            .take(8)
            .map(number)
            .collect();
        let all: f64 = ticks.iter().sum();
        let idle: f64 = ticks.iter().skip(3).take(2).sum();
        let stat = read("/proc/self/stat");
        // The name is in parentheses and may contain anything.
        let own = stat.rsplit(')').next().unwrap_or_default();
        Self {
            all,
            spent: all - idle,
            own: own.split_whitespace().skip(11).take(4).map(number).sum(),
        }
    }

    /// The share of all processor time since then that other processes used.
    pub(crate) fn others(self) -> f64 {
        let now = Self::read();
        let others = (now.spent - self.spent) - (now.own - self.own);
        others.max(0.0) / (now.all - self.all)
    }
}

/// Memory of the kernel in KiB: its structures, and data in TCP buffers.
pub(crate) fn kernel_kib() -> f64 {
    let slab: f64 = number(&field("/proc/meminfo", "Slab"));
    let tcp = read("/proc/net/sockstat");
    let pages = tcp
        .lines()
        .find(|line| line.starts_with("TCP:"))
        .and_then(|line| line.split(' ').next_back())
        .map_or(0.0, number);
    slab + pages * 4.0
}

/// The value of a line `name: value` in a file.
pub(crate) fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(field, _)| field.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

/// The number at the beginning of a text.
pub(crate) fn number(text: &str) -> f64 {
    text.split(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0.0)
}

fn read(file: &str) -> String {
    fs::read_to_string(file)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn said_by(command: &mut Command) -> String {
    let output = command.stderr(Stdio::null()).output();
    output.map_or_else(
        |_| String::new(),
        |said| String::from_utf8_lossy(&said.stdout).trim().to_owned(),
    )
}
