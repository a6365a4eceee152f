//! The measured processes, seen from outside: their start, processor time, memory and sudden end.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::machine;

/// A process with an address, killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    /// The address where it listens.
    pub(crate) address: SocketAddr,
    /// Nanoseconds per thread. A thread that has ended keeps its last value.
    threads: HashMap<String, u64>,
    _output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts a command whose first output line ends with the address where it listens.
    pub(crate) fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start {}", command.get_program().display()))?;
        let mut output = BufReader::new(child.stdout.take().context("no output to read")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address = line.trim().rsplit('/').next().unwrap_or_default().parse();
        Ok(Self {
            child,
            address: address.with_context(|| format!("no address in “{line}”"))?,
            threads: HashMap::new(),
            _output: output,
        })
    }

    /// Starts the server on a database.
    pub(crate) fn server(
        mut command: Command,
        database: impl AsRef<OsStr>,
        synchronous: &str,
    ) -> anyhow::Result<Self> {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OVERWIRE_") {
                command.env_remove(name);
            }
        }
        command.args(["--unlimited", "--listen", "127.0.0.1:0", "--log", "warn"]);
        command.args(["--synchronous", synchronous, "--database"]);
        command.arg(database.as_ref());
        Self::start(command)
    }

    /// Processor time of all its threads so far. This includes the system's work for it: sending, and
    /// on the loopback also the receiving of the other side.
    pub(crate) fn processor_time(&mut self) -> anyhow::Result<Duration> {
        let tasks = format!("/proc/{}/task", self.child.id());
        for task in fs::read_dir(tasks).context("the process is gone")? {
            let task = task?;
            // A thread may end meanwhile.
            let Ok(stat) = fs::read_to_string(task.path().join("schedstat")) else {
                continue;
            };
            let spent = stat.split(' ').next().and_then(|spent| spent.parse().ok());
            let Some(spent) = spent else {
                bail!("this system does not report the processor time of threads");
            };
            let name = task.file_name().to_string_lossy().into_owned();
            self.threads.insert(name, spent);
        }
        Ok(Duration::from_nanos(self.threads.values().sum()))
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> f64 {
        let status = format!("/proc/{}/status", self.child.id());
        machine::number(&machine::field(&status, "VmRSS"))
    }

    /// The most resident memory it has had, in KiB.
    pub(crate) fn peak_kib(&self) -> f64 {
        let status = format!("/proc/{}/status", self.child.id());
        machine::number(&machine::field(&status, "VmHWM"))
    }

    /// How many files and sockets it has open.
    pub(crate) fn open_files(&self) -> anyhow::Result<f64> {
        let files = format!("/proc/{}/fd", self.child.id());
        Ok(fs::read_dir(files).context("the process is gone")?.count() as f64)
    }

    /// Kills it, like a crash.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
