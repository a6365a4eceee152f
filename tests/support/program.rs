//! The real program in a process of its own: for signals, locks, ports and sudden ends.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::Deref;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use super::{DEADLINE, Door, soon};

/// The running program.
pub(crate) struct Program {
    pub(crate) door: Door,
    child: Child,
}

/// The program's command, without the settings of this process.
pub(crate) fn command() -> Command {
    unset(Command::new(env!("CARGO_BIN_EXE_overwire")))
}

/// The same for the program of an earlier build.
pub(crate) fn command_of(program: &OsStr) -> Command {
    unset(Command::new(program))
}

/// The program's command, run by a shell after these words, which limit or change what the program
/// finds.
pub(crate) fn command_after(words: &str) -> Command {
    let mut command = unset(Command::new("sh"));
    let words = format!("{words}\nexec \"$0\" \"$@\"");
    command.args(["-c", &words, env!("CARGO_BIN_EXE_overwire")]);
    command
}

/// The same for the program that makes fake users.
pub(crate) fn make_fake_users() -> Command {
    unset(Command::new(env!("CARGO_BIN_EXE_make_fake_users")))
}

/// Sends a process a signal, such as `STOP`.
pub(crate) fn signal(process: u32, name: &str) {
    let process = process.to_string();
    let sent = Command::new("kill").args(["-s", name, &process]).status();
    assert!(sent.unwrap().success());
}

fn unset(mut command: Command) -> Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OVERWIRE_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub(crate) async fn run(arguments: &[&str]) -> Output {
    let mut command = command();
    command.args(arguments);
    ending(command).await
}

/// Runs a command to its end.
pub(crate) async fn ending(mut command: Command) -> Output {
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    soon("the program to end", run).await.unwrap()
}

impl Program {
    /// Serves a database, at any free port unless the arguments say otherwise.
    pub(crate) async fn start(database: &Path, arguments: &[&str]) -> Self {
        Self::start_with(command(), database, arguments).await
    }

    /// The same, started by a shell after these words.
    pub(crate) async fn start_after(words: &str, database: &Path, arguments: &[&str]) -> Self {
        Self::start_with(command_after(words), database, arguments).await
    }

    /// The same with another command of the program.
    pub(crate) async fn start_with(
        mut command: Command,
        database: &Path,
        arguments: &[&str],
    ) -> Self {
        command
            .env("OVERWIRE_LISTEN", "127.0.0.1:0")
            .env("OVERWIRE_LOG", "warn")
            .arg("--database")
            .arg(database)
            .args(arguments);
        Self::serves(command).await
    }

    /// Serves with that command.
    pub(crate) async fn serves(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let reading = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).unwrap();
            line
        });
        let line = soon("the program to listen", reading).await.unwrap();
        let address = line.trim().rsplit("http://").next().unwrap().parse();
        let Ok(address) = address else {
            let mut words = String::new();
            let mut stderr = child.stderr.take().unwrap();
            stderr.read_to_string(&mut words).unwrap();
            panic!("the program said {line:?} and {words:?}");
        };
        Self {
            door: Door(address),
            child,
        }
    }

    /// The id of its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits until its log contains these words.
    pub(crate) async fn logs(&mut self, words: &'static str) {
        let mut log = BufReader::new(self.child.stderr.take().unwrap());
        let reading = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            while !line.contains(words) {
                line.clear();
                assert!(log.read_line(&mut line).unwrap() > 0, "the log ends");
            }
            log.into_inner()
        });
        self.child.stderr = Some(soon(words, reading).await.unwrap());
    }

    /// Closes the reading end of its log.
    pub(crate) fn loses_its_log(&mut self) {
        self.child.stderr = None;
    }

    /// Waits until it has ended. Returns its status and its log.
    pub(crate) async fn ends(mut self) -> (ExitStatus, String) {
        let ending = tokio::task::spawn_blocking(move || {
            let mut words = String::new();
            if let Some(mut stderr) = self.child.stderr.take() {
                stderr.read_to_string(&mut words).unwrap();
            }
            (self.child.wait().unwrap(), words)
        });
        tokio::time::timeout(DEADLINE, ending)
            .await
            .expect("the program ends")
            .unwrap()
    }

    /// `kill -9`.
    pub(crate) async fn dies(mut self) {
        self.child.kill().unwrap();
        self.ends().await;
    }
}

impl Deref for Program {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
