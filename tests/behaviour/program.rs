//! The program itself: how it starts, what it says when it cannot, and how it ends.

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use overwire::objects;
use regex::Regex;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::device::PASSWORD;
use crate::support::program::{command, ending, make_fake_users, run};
use crate::support::tab::all;
use crate::support::{Device, Program, Tab};

const FLAGS: [&str; 18] = [
    "listen",
    "metrics",
    "database",
    "relay",
    "synchronous",
    "allow-origin",
    "trusted-proxy",
    "welcome",
    "welcome-to",
    "unlimited",
    "message-characters",
    "frame-bytes",
    "pace-burst",
    "pace-per-second",
    "connections-per-address",
    "silence",
    "log-format",
    "log",
];

fn variable(flag: &str) -> String {
    format!("OVERWIRE_{}", flag.to_uppercase().replace('-', "_"))
}

/// The names of the files in a folder, sorted.
fn files(folder: &TempDir) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_second_server_on_the_same_database_refuses_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overwire.db");
    let first = Program::start(&file, &[]).await;
    let mut anna = first.tab().await;
    let file = file.to_str().unwrap();
    let second = run(&["--listen", "127.0.0.1:0", "--database", file]).await;
    assert_eq!(second.status.code(), Some(1));
    let words = String::from_utf8(second.stderr).unwrap();
    assert!(words.contains("another server is running on"), "{words}");
    assert!(words.contains(file), "{words}");
    assert_eq!(second.stdout, b"");
    let listen = first.door.0.to_string();
    let second = run(&["--listen", &listen, "--database", file]).await;
    assert_eq!(second.status.code(), Some(1));
    let words = String::from_utf8(second.stderr).unwrap();
    assert!(
        words.contains("is Overwire running there already?"),
        "{words}"
    );
    assert!(words.contains(&listen), "{words}");
    anna.says("not disturbed").await;
}

#[tokio::test]
async fn a_database_in_use_is_recognized_through_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overwire.db");
    let link = folder.path().join("link.db");
    symlink(&file, &link).unwrap();
    let first = Program::start(&file, &[]).await;
    let mut anna = first.tab().await;
    anna.says("before").await;
    let link = link.to_str().unwrap();
    let second = run(&["--listen", "127.0.0.1:0", "--database", link]).await;
    assert_eq!(second.status.code(), Some(1));
    let words = String::from_utf8(second.stderr).unwrap();
    assert!(words.contains("another server is running on"), "{words}");
    let mut deleting = make_fake_users();
    deleting.args(["--reset", "--yes", "--database", link]);
    let refused = ending(deleting).await;
    assert_eq!(refused.status.code(), Some(1));
    let words = String::from_utf8(refused.stderr).unwrap();
    assert!(words.contains("a server is running on"), "{words}");
    let mut adding = make_fake_users();
    adding.args(["--count", "1", "--database", link]);
    assert!(ending(adding).await.status.success());
    anna.says("not disturbed").await;
    assert_eq!(
        files(&folder),
        [
            "link.db",
            "overwire.db",
            "overwire.db-shm",
            "overwire.db-wal",
            "overwire.db.files",
            "overwire.db.lock",
        ]
    );
}

#[tokio::test]
async fn a_hard_link_is_the_same_database() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overwire.db");
    let first = Program::start(&file, &[]).await;
    let mut anna = first.tab().await;
    let elsewhere = tempfile::tempdir_in(&folder).unwrap();
    let link = elsewhere.path().join("link.db");
    std::fs::hard_link(&file, &link).unwrap();
    let link = link.to_str().unwrap();
    let second = run(&["--listen", "127.0.0.1:0", "--database", link]).await;
    assert_eq!(second.status.code(), Some(1));
    let words = String::from_utf8(second.stderr).unwrap();
    assert!(words.contains("another server is running on"), "{words}");
    assert_eq!(files(&elsewhere), ["link.db"]);
    anna.says("not disturbed").await;
    first.signal("TERM");
    first.ends().await;
    let again = Program::start(link.as_ref(), &[]).await;
    let bob = again.tab().await;
    assert_eq!(bob.texts(), ["not disturbed"]);
}

#[tokio::test]
async fn a_file_of_another_program_is_refused_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    for (n, (mode, made)) in [
        (
            "delete",
            "create table users (name); create table books (title)",
        ),
        (
            "wal",
            "create table notes (text); insert into notes values ('mine')",
        ),
        ("delete", "pragma application_id = 7"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.path().join(format!("{n}.db"));
        let db = rusqlite::Connection::open(&path).unwrap();
        db.pragma_update(None, "journal_mode", mode).unwrap();
        db.execute_batch(made).unwrap();
    }
    let letter = "Dear Sir or Madam, this is a letter. ".repeat(99);
    std::fs::write(folder.path().join("letter.txt"), letter).unwrap();
    let names = files(&folder);
    assert_eq!(names, ["0.db", "1.db", "2.db", "letter.txt"]);
    for name in &names {
        let path = folder.path().join(name);
        let before = std::fs::read(&path).unwrap();
        let database = path.to_str().unwrap();
        let copy = folder.path().join("copy.db");
        let copy = copy.to_str().unwrap();
        for arguments in [
            &["--listen", "127.0.0.1:0", "--database", database][..],
            &["admin", "link", "--database", database],
            &["backup", copy, "--database", database],
            &["check", "--database", database],
            &["migrate-store", database, copy],
        ] {
            let output = run(arguments).await;
            assert_eq!(output.status.code(), Some(1), "{arguments:?}");
            let words = String::from_utf8(output.stderr).unwrap();
            let expected = format!("{name} is not a database of Overwire");
            assert!(words.contains(&expected), "{words}");
            assert!(std::fs::read(&path).unwrap() == before, "{arguments:?}");
            assert_eq!(files(&folder), names, "{arguments:?}");
        }
    }
}

#[tokio::test]
async fn the_examination_finds_objects_that_are_missing_or_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let [file, files, elsewhere] =
        ["overwire.db", "files", "elsewhere"].map(|name| folder.path().join(name));
    let places = [&file, &files, &elsewhere].map(|path| path.to_str().unwrap());
    let [database, here, elsewhere] = places;
    let server = Program::start(&file, &["--files", here]).await;
    let mut tab = server.tab().await;
    let mut files_of_message = Vec::new();
    for text in ["a text", "another text"] {
        files_of_message.push(tab.attaches("a.txt", text.as_bytes()).await);
    }
    let data = json!({ "message": "two", "files": files_of_message, "room": tab.room() });
    tab.sends("New message", data);
    tab.sees("two").await;
    server.signal("TERM");
    assert!(server.ends().await.0.success());
    let check = async |place: &str| {
        let output = run(&["check", "--database", database, "--files", place]).await;
        let words = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), words)
    };
    let (code, words) = check(here).await;
    assert!(
        code == Some(0) && words.contains("has no problems"),
        "{words}"
    );
    let (code, words) = check(elsewhere).await;
    assert!(
        code == Some(0) && words.starts_with("The files were not checked"),
        "{words}"
    );

    let name = objects::name_of(b"a text");
    let object = files.join(&name[..2]).join(&name);
    let other = objects::name_of(b"nobody's");
    std::fs::rename(object, files.join(&name[..2]).join(&other)).unwrap();
    let (code, words) = check(here).await;
    assert_eq!(code, Some(1));
    let missing = format!("the object {name} of a file is missing");
    let unknown = format!("the object {other} belongs to no file");
    assert_eq!(words.lines().collect::<Vec<_>>(), [missing, unknown]);
}

#[tokio::test]
async fn a_closed_standard_output_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overwire.db");
    let server = Program::start(&file, &[]).await;
    for arguments in [
        &["--help"][..],
        &["admin", "link"],
        &["admin", "list"],
        &["check"],
        &["backup", "copy.db"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command();
        command.current_dir(&folder).args(arguments);
        let output = tokio::task::spawn_blocking(|| {
            let mut command = command;
            let child = command.stdout(writer).stderr(Stdio::piped()).spawn();
            child.unwrap().wait_with_output().unwrap()
        });
        let output = output.await.unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert_eq!(words, "", "{arguments:?}");
        assert!(output.status.success(), "{arguments:?}");
    }
    server.tab().await.says("still there").await;
}

#[tokio::test]
async fn an_unusable_address_is_named_and_leaves_nothing_behind() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let could_not = format!("could not listen on {taken}");
    for (listen, expected) in [
        (&*taken, &*could_not),
        (
            "nowhere.invalid:80",
            "cannot resolve the host in nowhere.invalid:80",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("overwire.db");
        let output = run(&["--listen", listen, "--database", file.to_str().unwrap()]).await;
        assert_eq!(output.status.code(), Some(1));
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(words.contains(expected), "{words}");
        assert!(words.contains("--listen"), "{words}");
        assert_eq!(files(&folder), [""; 0]);
    }
}

#[tokio::test]
async fn an_unusable_database_is_named() {
    for (database, expected) in [
        ("/nowhere/at/all/overwire.db", "/nowhere/at/all/overwire.db"),
        (
            "mysql://localhost/chat",
            "is not a supported kind of database",
        ),
        (":memory:", "the database cannot be in memory"),
        ("sqlite::memory:", "the database cannot be in memory"),
    ] {
        let output = run(&["--listen", "127.0.0.1:0", "--database", database]).await;
        assert_eq!(output.status.code(), Some(1));
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(words.contains(expected), "{words}");
    }
}

#[tokio::test]
async fn the_help_names_every_setting_with_its_variable() {
    let output = run(&["--help"]).await;
    assert!(output.status.success());
    let words = String::from_utf8(output.stdout).unwrap();
    let longest = words.lines().max_by_key(|line| line.chars().count());
    let longest = longest.unwrap();
    assert!(longest.chars().count() <= 100, "{longest}");
    for flag in FLAGS {
        assert!(words.contains(&format!("--{flag}")), "{flag}");
        let variable = variable(flag);
        assert!(words.contains(&variable), "{variable}");
    }
}

#[tokio::test]
async fn an_empty_variable_counts_as_none() {
    let empty = |mut command: Command| {
        command.envs(FLAGS.map(|flag| (variable(flag), "")));
        command
    };
    let folder = tempfile::tempdir().unwrap();
    let mut command_here = empty(command());
    command_here.current_dir(&folder);
    command_here.args(["--listen", "127.0.0.1:0"]);
    let server = Program::serves(command_here).await;
    server.tab().await.says("as usual").await;
    assert!(folder.path().join("overwire.db").exists());
    // There may or may not be a server at the usual address, but the address is valid.
    let mut asking = empty(command());
    asking.arg("healthcheck");
    let output = ending(asking).await;
    assert_ne!(output.status.code(), Some(2), "{output:?}");

    let folder = tempfile::tempdir().unwrap();
    let mut making = empty(make_fake_users());
    making.current_dir(&folder);
    let output = ending(making).await;
    assert!(output.status.success(), "{output:?}");
    assert!(folder.path().join("overwire.db").exists());
}

#[tokio::test]
async fn the_log_begins_with_what_the_server_is_and_uses() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overwire.db");
    let file = file.to_str().unwrap();
    for format in ["text", "json"] {
        let mut command = command();
        command.args(["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
        command.args(["--database", file, "--log-format", format]);
        let server = Program::serves(command).await;
        let listen = server.door.0.to_string();
        server.signal("TERM");
        let (_, words) = server.ends().await;
        let first = words.lines().next().unwrap();
        let version = env!("CARGO_PKG_VERSION");
        match format {
            "text" => {
                let expected = format!(
                    " INFO overwire: started version={version} database={file} relay=none listen={listen} \
                     metrics=127.0.0.1:"
                );
                assert!(first.contains(&expected), "{first}");
            }
            _ => {
                let line: Value = serde_json::from_str(first).unwrap();
                assert_eq!(line["level"], "INFO");
                let fields = &line["fields"];
                assert_eq!(fields["message"], "started");
                assert_eq!(fields["version"], version);
                assert_eq!(fields["database"], file);
                assert_eq!(fields["relay"], "none");
                assert_eq!(fields["listen"], listen);
                let metrics = fields["metrics"].as_str().unwrap();
                assert!(metrics.starts_with("127.0.0.1:"), "{metrics}");
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_setting_is_explained() {
    let output = run(&["--listen", "somewhere"]).await;
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("a port is missing"), "{words}");
    let output = run(&["--log", "verbose"]).await;
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("“verbose” would show nothing"), "{words}");
}

#[tokio::test]
async fn it_serves_and_stops_after_its_log_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overwire.db");
    let mut server = Program::start(&file, &["--log", "debug"]).await;
    server.loses_its_log();
    let mut anna = server.tab().await;
    anna.says("hello").await;
    server.signal("TERM");
    assert_eq!(anna.is_closed().await, Some(1012));
    let (status, _) = server.ends().await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn on_sigterm_it_stores_what_was_sent_and_closes_every_socket() {
    for signal in ["TERM", "INT"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("overwire.db");
        let server = Program::start(&file, &["--unlimited"]).await;
        let door = server.door;
        let mut tabs = all((0..20).map(|_| door.tab())).await;
        let mut anna = tabs.pop().unwrap();
        let keys: Vec<_> = (0..100)
            .map(|number| anna.writes(&number.to_string()))
            .collect();
        anna.is_settled(&keys[0]).await;
        // A tab that reads nothing delays nobody.
        tabs[0].goes_deaf(true);
        server.signal(signal);
        assert_eq!(anna.is_closed().await, Some(1012));
        for tab in &mut tabs[1..] {
            assert_eq!(tab.is_closed().await, Some(1012));
        }
        let (status, words) = server.ends().await;
        assert!(status.success(), "{status}: {words}");
        assert_eq!(words, "", "nothing was wrong");

        // The lock file stays, since a waiting server may have it open.
        let kept = ["overwire.db", "overwire.db.files", "overwire.db.lock"];
        assert_eq!(files(&folder), kept);

        let seen = anna.texts();
        assert!(!seen.is_empty());
        let database = rusqlite::Connection::open(&file).unwrap();
        let mut query = database
            .prepare("select text from messages order by id")
            .unwrap();
        let stored: Vec<String> = query
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert!(stored.starts_with(&seen), "{seen:?} of {stored:?}");
        let here: i64 = database
            .query_row(
                "select count(*) from clients where left_at is null",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(here, 0, "nobody lingers");
    }
}

#[tokio::test]
async fn on_sigterm_it_stops_even_if_the_database_is_locked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overwire.db");
    let server = Program::start(&file, &[]).await;
    let mut anna = server.tab().await;
    anna.says("hello").await;
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("begin immediate").unwrap();
    // Her leaving has to be stored, but cannot be.
    server.signal("TERM");
    let asked = Instant::now();
    assert_eq!(anna.is_closed().await, Some(1012));
    let (status, words) = server.ends().await;
    // Waiting for the other transaction would take ten seconds.
    assert!(asked.elapsed() < Duration::from_secs(8));
    assert!(status.success(), "{status}: {words}");
    assert!(
        words.contains("timed out waiting for the database at shutdown"),
        "{words}"
    );
}

#[tokio::test]
async fn after_kill_every_message_that_was_seen_is_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overwire.db");
    let server = Program::start(&file, &["--unlimited"]).await;
    let door = server.door;
    let mut tabs = all((0..4).map(|_| door.tab())).await;
    let mut gone = server.tab().await;
    let ghost = gone.name();
    gone.says("I was here").await;
    let mut written = Vec::new();
    for (who, tab) in tabs.iter_mut().enumerate() {
        for number in 0..50 {
            let text = format!("{who}.{number}");
            written.push((who, tab.writes(&text), text));
        }
    }
    tabs[0]
        .until("a part of it", |tab| tab.messages().len() > 20)
        .await;
    server.dies().await;
    for tab in &mut tabs {
        tab.is_closed().await;
    }
    let seen: Vec<_> = tabs.iter().map(Tab::messages).collect();
    let names: Vec<_> = tabs.iter().map(Tab::name).collect();

    let listen = door.0.to_string();
    let server = Program::start(&file, &["--unlimited", "--listen", &listen]).await;
    assert_eq!(server.door.0, door.0);
    for tab in &mut tabs {
        tab.connects().await;
    }
    let back: Vec<_> = tabs.iter().map(Tab::name).collect();
    assert_eq!(back, names);
    for tab in &mut tabs {
        tab.says("I am back").await;
    }
    // What is not settled is sent again with the same key.
    for (who, key, text) in &written {
        let tab = &mut tabs[*who];
        let data = json!({ "message": text, "room": tab.room(), "key": key });
        tab.sends("New message", data);
    }
    for tab in &mut tabs {
        tab.until("the last message", |tab| {
            tab.version()
                .is_some_and(|version| version.ends_with(".205"))
        })
        .await;
        tab.hears_all().await;
        // Whoever was far behind got the newest page, and scrolls up for what is older.
        while tab.messages().len() < 205 && tab.asks_for_older().await > 0 {}
    }
    let all = tabs[0].messages();
    for (tab, seen) in tabs.iter().zip(seen) {
        assert_eq!(tab.messages(), all);
        let still = all.iter().filter(|message| seen.contains(message));
        assert!(still.eq(&seen), "what was seen stays as it was");
    }
    let mut texts: Vec<_> = all.into_iter().map(|message| message.text).collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), 202);
    tabs[0]
        .until("no ghost", |tab| {
            let here = tab.people("users-online");
            here.len() == 4 && !here.contains(&ghost)
        })
        .await;
}

#[tokio::test]
async fn the_health_command_answers_by_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let server = Program::start(&folder.path().join("overwire.db"), &[]).await;
    let listen = server.door.0.to_string();
    let output = run(&["--listen", &listen, "healthcheck"]).await;
    assert!(output.status.success(), "{output:?}");
    let port = server.door.0.port();
    let output = run(&["healthcheck", "--listen", &format!("0.0.0.0:{port}")]).await;
    assert!(output.status.success(), "{output:?}");
    server.signal("TERM");
    server.ends().await;
    let output = run(&["--listen", &listen, "healthcheck"]).await;
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8(output.stderr).unwrap();
    let expected = format!("no answer from http://{listen}/ready: ");
    assert!(words.contains(&expected), "{words}");
}

#[tokio::test]
async fn the_health_command_says_what_the_server_answered() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overwire.db");
    let server = Program::start(&file, &[]).await;
    std::fs::remove_file(&file).unwrap();
    let listen = server.door.0.to_string();
    let output = run(&["--listen", &listen, "healthcheck"]).await;
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8(output.stderr).unwrap();
    let expected = format!(
        "http://{listen}/ready answered 503: not ready: the database file was deleted or replaced\n"
    );
    assert!(words.contains(&expected), "{words}");
}

#[tokio::test]
async fn it_is_not_ready_once_its_database_is_deleted_or_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overwire.db");
    let server = Program::start(&file, &["--log", "info"]).await;
    let is_lost = async || {
        let answer = server.get("/ready").await;
        assert_eq!(answer.status, 503);
        assert_eq!(
            answer.body,
            "not ready: the database file was deleted or replaced\n"
        );
    };
    assert_eq!(server.get("/ready").await.status, 200);
    let away = folder.path().join("away.db");
    std::fs::rename(&file, &away).unwrap();
    is_lost().await;
    std::fs::copy(&away, &file).unwrap();
    is_lost().await;
    std::fs::rename(&away, &file).unwrap();
    assert_eq!(server.get("/ready").await.status, 200);
    // The newest messages are in the log only.
    let log = folder.path().join("overwire.db-wal");
    std::fs::rename(&log, &away).unwrap();
    is_lost().await;
    std::fs::rename(&away, &log).unwrap();
    assert_eq!(server.get("/ready").await.status, 200);
    std::fs::remove_file(&file).unwrap();
    is_lost().await;

    server.signal("TERM");
    let (_, words) = server.ends().await;
    let times = |phrase| words.matches(phrase).count();
    assert_eq!(
        times("the database is not available: "),
        3,
        "once for each loss: {words}"
    );
    assert_eq!(times("the database is available again"), 2, "{words}");
    let why = format!("{} was deleted or replaced", file.display());
    assert_eq!(times(&why), 3, "{words}");
}

#[tokio::test]
async fn it_is_ready_only_after_a_write_has_reached_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overwire.db");
    let server = Program::start(&file, &[]).await;
    let log = || std::fs::read(folder.path().join("overwire.db-wal")).unwrap();
    let before = log();
    let answer = server.get("/ready").await;
    assert_eq!(answer.body, "ready\nrelay: none\n");
    assert!(log() != before, "nothing was written");
}

#[tokio::test]
async fn a_new_database_gets_thirty_users_and_an_old_one_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overwire.db");
    for _ in 0..2 {
        let server = Program::start(&file, &[]).await;
        server.signal("TERM");
        server.ends().await;
        let database = rusqlite::Connection::open(&file).unwrap();
        let users: i64 = database
            .query_row("select count(*) from users", [], |row| row.get(0))
            .unwrap();
        assert_eq!(users, 30);
    }
}

#[tokio::test]
async fn a_moderator_is_added_and_removed_on_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut serving = command();
    serving.current_dir(&folder);
    serving.args(["--listen", "127.0.0.1:0"]);
    let server = Program::serves(serving).await;
    let admin = async |arguments: &[&str]| {
        let mut admin = command();
        admin.current_dir(&folder).arg("admin").args(arguments);
        let output = ending(admin).await;
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    let listen = server.door.0.to_string();
    let (done, address) = admin(&["link", "--listen", &listen]).await;
    assert!(done, "{address}");
    let begins = format!("http://{listen}/admin/link/?");
    let query = address.trim().strip_prefix(&begins).expect(&address);
    let page = server.get(&format!("/admin/link/?{query}")).await;
    assert_eq!(page.status, 200);
    let fields = [("link", query), ("password", "my tongue is green")];
    let answer = server.post("/admin/link/", &fields, &[]).await;
    assert_eq!(answer.status, 303, "{}", answer.body);
    let again = server.post("/admin/link/", &fields, &[]).await;
    assert_eq!(again.status, 404);

    // Without an existing database there is nothing to moderate.
    let (done, said) = admin(&["link", "--database", "mistyped.db"]).await;
    assert!(
        !done && said.contains("there is no database mistyped.db"),
        "{said}"
    );
    assert!(!folder.path().join("mistyped.db").exists());

    let (done, address) = admin(&["link", "--address", "https://chat.example/"]).await;
    assert!(done && address.starts_with("https://chat.example/admin/link/?"));
    let database = rusqlite::Connection::open(folder.path().join("overwire.db")).unwrap();
    let name: String = database
        .query_one("select name from users where moderator_at > 0", [], |row| {
            row.get(0)
        })
        .unwrap();
    let (done, said) = admin(&["list"]).await;
    assert!(
        done && said.starts_with(&format!("{name} since 20")),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1);
    let (done, reset) =
        admin(&["reset-password", &name, "--address", "https://chat.example"]).await;
    assert!(done, "{reset}");
    let begins = "https://chat.example/reset-password/?";
    let token = reset.trim().strip_prefix(begins).expect(&reset);
    let fields = [("link", token), ("password", "an owl is not a fish")];
    let answer = server.post("/reset-password/", &fields, &[]).await;
    assert_eq!(answer.status, 303, "{}", answer.body);
    let (done, said) = admin(&["reset-password", "nobody"]).await;
    assert!(
        !done && said.contains("no account with the user name nobody"),
        "{said}"
    );
    let (done, said) = admin(&["revoke", &name]).await;
    assert!(done && said.contains("no longer a moderator"), "{said}");
    let (done, said) = admin(&["list"]).await;
    assert!(done && said.is_empty(), "{said}");
    let (done, said) = admin(&["revoke", &name]).await;
    assert!(!done && said.contains("is not a moderator"), "{said}");
    // The log contains none of the links.
    server.signal("TERM");
    let (_, log) = server.ends().await;
    assert!(!log.contains(query) && !log.contains(token), "{log}");
}

#[tokio::test]
async fn a_chat_moves_to_another_database_and_continues_there() {
    let folder = tempfile::tempdir().unwrap();
    let [old, new, back] = ["old.db", "new.db", "back.db"].map(|name| folder.path().join(name));
    let server = Program::start(&old, &[]).await;
    let listen = server.door.0.to_string();
    let mut anna = server.tab().await;
    anna.says("hello").await;
    let migrate = async |from: &std::path::Path, to: &std::path::Path| {
        let [from, to] = [from, to].map(|path| path.to_str().unwrap());
        let output = run(&["migrate-store", from, to]).await;
        let [said, complained] =
            [output.stdout, output.stderr].map(|words| String::from_utf8(words).unwrap());
        (output.status.code(), said, complained)
    };
    let (code, said, complained) = migrate(&old, &new).await;
    assert_eq!((code, &*said), (Some(1), ""), "a server runs on it");
    assert!(complained.contains("stop it first"), "{complained}");
    let name = anna.name();
    server.signal("TERM");
    assert_eq!(anna.is_closed().await, Some(1012));
    server.ends().await;

    let (code, said, complained) = migrate(&old, &new).await;
    assert_eq!((code, &*complained), (Some(0), ""));
    assert!(said.contains("30 users\n"), "{said}");
    assert!(said.contains("1 messages\n"), "{said}");
    assert!(
        said.contains("--database") && said.contains("new.db"),
        "{said}"
    );
    let (code, _, complained) = migrate(&old, &new).await;
    assert_eq!(code, Some(1));
    assert!(
        complained.contains("already contains 1 users"),
        "{complained}"
    );
    let (code, ..) = migrate(&new, &back).await;
    assert_eq!(code, Some(0));
    let (code, _, complained) = migrate(&folder.path().join("mistyped.db"), &back).await;
    assert_eq!(code, Some(1));
    assert!(complained.contains("there is no chat in"), "{complained}");
    let output = run(&["migrate-store", old.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(2));

    // The tab never notices the other database.
    let _server = Program::start(&back, &["--listen", &listen]).await;
    anna.connects().await;
    assert_eq!(anna.name(), name);
    anna.says("here again").await;
    assert_eq!(anna.texts(), ["hello", "here again"]);
}

/// The expression in a file of fail2ban that the guide shows, of which fail2ban knows `<ADDR>`.
fn fail2ban_filters() -> Vec<Regex> {
    const GUIDE: &str = include_str!("../../docs/OPERATING.md");
    let (_, filter) = GUIDE.split_once("failregex = ").expect("a filter");
    let (filter, _) = filter.split_once("\n\n").unwrap();
    let filters = filter.lines().map(str::trim);
    filters
        .map(|filter| Regex::new(&filter.replace("<ADDR>", "(?<address>[0-9a-f.:]+)")).unwrap())
        .collect()
}

/// The addresses that fail2ban finds in a log: in a file, whose lines it searches without their times,
/// and likewise in the journal.
fn found_by_fail2ban(log: &str) -> Vec<String> {
    let time = Regex::new(r"\d{4}-\d\d-\d\dT[0-9:.]+Z").unwrap();
    let filters = fail2ban_filters();
    let of_line = |line: &str| {
        let found = filters.iter().find_map(|filter| filter.captures(line))?;
        Some(found["address"].to_owned())
    };
    let in_file = log.lines().map(|line| time.replace(line, ""));
    let in_file: Vec<_> = in_file.filter_map(|line| of_line(&line)).collect();
    let in_journal = log.lines().map(|line| format!("chat overwire[7]: {line}"));
    let in_journal = in_journal.filter_map(|line| of_line(&line));
    assert!(in_journal.eq(in_file.iter().cloned()));
    in_file
}

#[tokio::test]
async fn a_refused_sign_in_can_be_matched_by_fail2ban() {
    for format in ["text", "json"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("overwire.db");
        let proxy = "--trusted-proxy=127.0.0.1";
        let server =
            Program::start(&file, &["--log-format", format, "--log", "debug", proxy]).await;
        let (mut anna, mut device) = (server.tab().await, Device::at(server.door));
        device.keeps(&mut anna).await;
        let mallory = "x WARN overwire::sign_in: refused a sign-in from 192.0.2.66";
        let signs_in = async |from: &str, name: &str, password: &str| {
            let fields = [("name", name), ("password", password)];
            let headers = [("X-Forwarded-For", from)];
            server.post("/sign-in/", &fields, &headers).await.status
        };
        for (from, name) in [
            ("203.0.113.7", &*anna.name()),
            ("2001:db8:1:2:3:4:5:6", "nobody1"),
            ("::ffff:203.0.113.9", mallory),
        ] {
            assert_eq!(signs_in(from, name, "a wrong one").await, 401);
        }
        assert_eq!(signs_in("203.0.113.8", &anna.name(), PASSWORD).await, 303);
        // Too many attempts are refused as well, even with the right password.
        let mut last = 0;
        while last != 429 {
            last = signs_in("203.0.113.10", "nobody2", "a wrong one").await;
        }
        // Neither is a group's name mistaken for such a line.
        anna.sends("New group", json!({ "name": mallory }));
        server.signal("TERM");
        let (_, log) = server.ends().await;
        let mut found = found_by_fail2ban(&log);
        assert_eq!(
            found[..3],
            ["203.0.113.7", "2001:db8:1:2:3:4:5:6", "203.0.113.9"]
        );
        found.dedup();
        assert_eq!(found[3..], ["203.0.113.10"], "{log}");
        assert!(
            !log.contains("203.0.113.8"),
            "a sign-in that succeeds: {log}"
        );
        // The addresses are nowhere else, neither in the log nor in the database.
        let lines = log.lines().filter(|line| line.contains("203.0.113."));
        assert_eq!(lines.count(), found_by_fail2ban(&log).len() - 1);
        let stored = std::fs::read(&file).unwrap();
        let stored = String::from_utf8_lossy(&stored);
        assert!(!stored.contains("203.0.113.") && !stored.contains("2001:db8:"));
    }
}

#[tokio::test]
async fn the_log_says_what_moderators_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overwire.db");
    let server = Program::start(&file, &["--log", "info"]).await;
    let (mut anna, mut bob) = (server.tab().await, server.tab_at("/chat/python/").await);
    let (a, b) = (anna.name(), bob.name());
    bob.says("a secret").await;
    let mut device = Device::at(server.door);
    device.keeps(&mut anna).await;
    let output = run(&["admin", "link", "--database", file.to_str().unwrap()]).await;
    let link = String::from_utf8(output.stdout).unwrap();
    let (_, token) = link.trim().split_once('?').unwrap();
    let answer = device.sends("/admin/link/", &[("link", token)]).await;
    assert_eq!(answer.status, 303);
    anna.enters_group("python").await;
    anna.sees("a secret").await;
    let (message, room) = (bob.messages()[0].id, bob.room());
    anna.sends(
        "Delete message",
        json!({ "message": message, "room": room }),
    );
    bob.until("the message to be deleted", |tab| {
        tab.texts() != ["a secret"]
    })
    .await;
    let admin = server.socket(&device.admin_handshake()).await.ok().unwrap();
    admin.text(json!({ "action": "Mute", "data": { "userName": b, "on": true } }).to_string());
    bob.until("the notice", |tab| tab.notice().contains("muted you"))
        .await;
    server.signal("TERM");
    let (_, log) = server.ends().await;
    for words in [
        &*format!("moderator {a} deleted message {message} of {b} in room "),
        &*format!("moderator {a} muted {b} user.id="),
    ] {
        let lines = log.lines().filter(|line| line.contains(words));
        assert_eq!(lines.count(), 1, "{words}: {log}");
    }
    assert!(!log.contains("a secret"), "{log}");
}
