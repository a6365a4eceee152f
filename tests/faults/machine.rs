//! A machine in trouble: the disk is full, the file cannot be written or is locked, the clock is wrong,
//! the process stands still or runs out of file descriptors. People write all the time.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::support::program::{command_after, ending};
use crate::support::rows::Rows;
use crate::support::server::names_in;
use crate::support::{Crowd, Door, Program, long, until};

/// How many messages are stored before, during and after.
const MESSAGES: usize = 100;

/// A server on a file, and people who write.
struct Scene {
    folder: TempDir,
    program: Program,
    crowd: Crowd,
}

impl Scene {
    /// The server is started by a shell after these words.
    async fn after(words: &str) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), words).await
    }

    async fn in_folder(folder: TempDir, words: &str) -> Self {
        let file = folder.path().join("overwire.db");
        let mut program = Program::start_after(words, &file, &["--unlimited"]).await;
        program.loses_its_log();
        let mut crowd = Crowd::of(6, &[program.door], &[]);
        crowd.goes_on(MESSAGES).await;
        Self {
            folder,
            program,
            crowd,
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("overwire.db")
    }

    /// All is well again.
    async fn ends(mut self) {
        let file = self.file();
        self.crowd.goes_on(MESSAGES).await;
        self.crowd.ends_as_stored_in(&file).await;
    }

    /// The disk takes nothing until it is freed.
    async fn suffers_from_a_full_disk(&self, fill: impl FnOnce(), free: impl FnOnce()) {
        fill();
        let door = self.program.door;
        answers(door, 503).await;
        // A write that is small enough may find room all the same.
        sleep(long(Duration::from_secs(1), Duration::from_secs(20))).await;
        assert_eq!(door.get("/health").await.status, 200);
        free();
        answers(door, 200).await;
    }
}

/// Waits until a server says whether people can chat there.
async fn answers(door: Door, status: u16) {
    until("what /ready says", async || {
        door.get("/ready").await.status == status
    })
    .await;
}

/// How `unshare` may be told to give a process mounts of its own, if this machine allows that.
fn own_mounts() -> Option<&'static str> {
    let allowed = |flags: &&str| {
        let trying = format!("unshare {flags} mount -t tmpfs none /mnt 2>&1");
        let tried = Command::new("sh").args(["-c", &trying]).output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    ["--mount", "--map-root-user --mount"]
        .into_iter()
        .find(allowed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_is_full_for_a_while() {
    let Some(flags) = own_mounts() else {
        println!("not checked: this machine allows no mounts");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let words = format!(
        "exec unshare {flags} sh -c 'mount -t tmpfs -o size=64m none \"$0\" && exec \"$@\"' \
         '{}' \"$0\" \"$@\"",
        folder.path().display()
    );
    let scene = Scene::in_folder(folder, &words).await;
    // The disk is mounted for the server alone, and gone with it.
    let root = format!("/proc/{}/root", scene.program.process());
    let disk = PathBuf::from(root + scene.folder.path().to_str().unwrap());
    let ballast = disk.join("ballast");
    let fill = || {
        let mut ballast = File::create(&ballast).unwrap();
        while ballast.write_all(&[1; 4096]).is_ok() {}
    };
    let free = || fs::remove_file(&ballast).unwrap();
    scene.suffers_from_a_full_disk(fill, free).await;
    let Scene {
        folder,
        program,
        mut crowd,
    } = scene;
    crowd.goes_on(MESSAGES).await;
    let file = OnItsDisk {
        disk: &disk,
        folder: folder.path(),
        program: &program,
    };
    crowd.ends_as_stored_in(&file).await;
}

/// The file of a server that has mounts of its own. SQLite finds it only in another folder.
struct OnItsDisk<'a> {
    disk: &'a Path,
    folder: &'a Path,
    program: &'a Program,
}

impl Rows for OnItsDisk<'_> {
    fn rows(&self, query: &str) -> Vec<String> {
        self.program.signal("STOP");
        for file in ["overwire.db", "overwire.db-wal"] {
            fs::copy(self.disk.join(file), self.folder.join(file)).unwrap();
        }
        self.program.signal("CONT");
        self.folder.join("overwire.db").rows(query)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_file_may_grow_for_a_while() {
    // The signal would end the process.
    let scene = Scene::after("trap '' XFSZ").await;
    let limit = |bytes| limit_files(&scene.program, bytes);
    scene
        .suffers_from_a_full_disk(|| limit("4096"), || limit("unlimited"))
        .await;
    scene.ends().await;
}

/// No file of the program may grow beyond this.
fn limit_files(program: &Program, bytes: &str) {
    let process = program.process().to_string();
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &process, &format!("--fsize={bytes}:")]);
    assert!(prlimit.status().unwrap().success());
}

#[tokio::test]
async fn an_upload_that_finds_no_space_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [file, files] = ["overwire.db", "files"].map(|name| folder.path().join(name));
    let arguments = ["--files", files.to_str().unwrap()];
    let program = Program::start_after("trap '' XFSZ", &file, &arguments).await;
    let mut tab = program.tab().await;
    // The database has space enough.
    limit_files(&program, "4000000");
    // Small files are written at once, large ones in parts.
    for bytes in [4_500_000, 12_000_000] {
        let refused = tab.uploads("large.bin", &vec![7; bytes]).await;
        assert_eq!(refused.status, 503, "{}", refused.body);
        let words = "The server could not store the file. Please try again.";
        assert!(refused.body.contains(words), "{}", refused.body);
        until("nothing to be left", async || names_in(&files).is_empty()).await;
    }
    assert_eq!(file.rows("select count(*) from files"), ["0"]);
    limit_files(&program, "unlimited");
    tab.attaches("large.bin", &[7; 4_500_000]).await;
    assert_eq!(names_in(&files).len(), 1);
    tab.says("and on").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_is_read_only_for_a_while() {
    // Root may write anything, unless it gives that up.
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let words = match is_root {
        true => "exec setpriv --bounding-set=-dac_override \"$0\" \"$@\"",
        false => "",
    };
    let mut scene = Scene::after(words).await;
    let file = scene.file();
    let listen = scene.program.door.0.to_string();
    let permit = |mode| {
        for file in fs::read_dir(scene.folder.path()).unwrap() {
            fs::set_permissions(file.unwrap().path(), Permissions::from_mode(mode)).unwrap();
        }
    };
    permit(0o444);
    // What is open stays open.
    scene.crowd.goes_on(MESSAGES).await;
    scene.program.dies().await;
    let arguments = ["--database", file.to_str().unwrap(), "--listen", &listen];
    let mut refused = command_after(words);
    refused.args(arguments);
    let refused = ending(refused).await;
    assert_eq!(refused.status.code(), Some(1));
    let words_of_it = String::from_utf8(refused.stderr).unwrap();
    assert!(
        words_of_it.contains(file.to_str().unwrap()),
        "{words_of_it}"
    );
    permit(0o644);
    let arguments = ["--unlimited", "--listen", &listen];
    scene.program = Program::start_after(words, &file, &arguments).await;
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_program_locks_the_file_for_a_while() {
    let scene = Scene::after("").await;
    let other = Connection::open(scene.file()).unwrap();
    other.execute_batch("begin immediate").unwrap();
    sleep(long(Duration::from_secs(2), Duration::from_secs(10))).await;
    // Reading goes on.
    let page = scene.program.get("/chat/hi/").await;
    assert_eq!(page.status, 200);
    other.execute_batch("rollback").unwrap();
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_stands_still_for_a_while() {
    let scene = Scene::after("").await;
    scene.program.signal("STOP");
    sleep(long(Duration::from_secs(2), Duration::from_secs(25))).await;
    scene.program.signal("CONT");
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_goes_back_an_hour_and_then_forward_a_day() {
    let parts = tempfile::tempdir().unwrap();
    let (library, hands) = (parts.path().join("clock.so"), parts.path().join("clock"));
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library);
    compiler.arg(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/support/clock.c"
    ));
    assert!(compiler.status().unwrap().success());
    let clock = File::create(&hands).unwrap();
    let is_wrong_by = |seconds: i64| clock.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    is_wrong_by(0);
    let words = format!(
        "export LD_PRELOAD='{}' OVERWIRE_TEST_CLOCK='{}'",
        library.display(),
        hands.display()
    );
    let mut scene = Scene::after(&words).await;
    // The time of the newest message.
    let newest = "select created_at from messages order by id desc limit 1";
    let newest = |scene: &Scene| scene.file().rows(newest)[0].parse::<i64>().unwrap() / 1000;
    let was = newest(&scene);
    for seconds in [-3_600, 86_400] {
        is_wrong_by(seconds);
        scene.crowd.goes_on(MESSAGES).await;
        // Long enough for leases to be renewed and for what is thought to have expired to be handled.
        sleep(long(Duration::ZERO, Duration::from_secs(20))).await;
        let jumped = newest(&scene) - was - seconds;
        assert!(
            (0..100).contains(&jumped),
            "the newest is off by {jumped} s"
        );
        let mut newcomer = scene.program.tab().await;
        newcomer.reconnects().await;
        newcomer.closes().await;
    }
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_descriptors_are_used_up_for_a_while() {
    let mut scene = Scene::after("ulimit -n 60").await;
    let door = scene.program.door;
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(TcpStream::connect(door.0).await.unwrap());
    }
    let files = format!("/proc/{}/fd", scene.program.process());
    until("every descriptor to be in use", async || {
        fs::read_dir(&files).unwrap().count() >= 60
    })
    .await;
    // Those who are connected notice nothing.
    scene.crowd.goes_on(MESSAGES).await;
    sleep(long(Duration::ZERO, Duration::from_secs(20))).await;
    drop(held);
    // In another group than the crowd, whose messages would keep a whole page busy.
    let mut tab = door.tab_at("/chat/off-topic/").await;
    tab.says("let in again").await;
    scene.ends().await;
}

#[tokio::test]
async fn an_earlier_copy_of_the_file_is_restored_under_open_tabs() {
    let folder = tempfile::tempdir().unwrap();
    let [file, copy] = ["overwire.db", "copy.db"].map(|name| folder.path().join(name));
    let program = Program::start(&file, &[]).await;
    let listen = program.door.0.to_string();
    let [mut anna, mut bob] = program.door.tabs().await;
    for text in ["one", "two"] {
        anna.says(text).await;
    }
    let copying = format!("vacuum into '{}'", copy.display());
    Connection::open(&file)
        .unwrap()
        .execute_batch(&copying)
        .unwrap();
    for text in ["three", "four"] {
        anna.says(text).await;
    }
    bob.sees("four").await;
    program.signal("TERM");
    assert!(program.ends().await.0.success());
    fs::rename(&copy, &file).unwrap();
    let _program = Program::start(&file, &["--listen", &listen]).await;
    for tab in [&mut anna, &mut bob] {
        tab.is_closed().await;
        tab.connects().await;
    }
    bob.says("and on").await;
    for tab in [&mut anna, &mut bob] {
        tab.sees_exactly(&["one", "two", "and on"]).await;
    }
    assert_eq!(anna.version(), bob.version());
}
