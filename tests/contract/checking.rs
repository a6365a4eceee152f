//! Backups, and the examination of a chat for damage.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use overwire::store::backup::{BackupError, backup};
use overwire::store::checking::{Checked, check};
use overwire::store::{Address, StoreError};
use rusqlite::Connection;

use crate::moving::{Files, move_chat, open};
use crate::people::{arrive, hi, post};
use crate::support::postgres::Database;

/// The statements that damage a chat, and what is then said.
const DAMAGES: [(&str, &str); 10] = [
    (
        "delete from messages where text = 'unread'",
        "has the version 2, but its last change has 1",
    ),
    (
        "update messages set made = made + 5, worded = worded + 5, changed = changed + 5
            where text = 'last';
         update rooms set version = version + 5 where name = 'hi'",
        "has no change with the version 1",
    ),
    (
        "update messages set changed = made + 1 where text = 'by key'",
        "has several changes with the version 3",
    ),
    (
        "update messages set worded = changed + 7 where text = 'by key'",
        "which are not in order",
    ),
    (
        "delete from room_histories where room_id in (select id from rooms where name = 'hi')",
        "does not know the history of its last change",
    ),
    (
        "delete from reactions where emoji = '🎉' or emoji <> '🎉'",
        "does not show the reactions that are stored",
    ),
    (
        "update rooms set people = 7 where name = 'hi'",
        "counts 7 people, but shows",
    ),
    (
        "update users set free = true where name = 'anna'",
        "may be given to a newcomer, but is somebody",
    ),
    (
        "update messages set deleted_by = 77 where text = 'by key'",
        "has the deleted_by 77, which is not in users",
    ),
    (
        "update rooms set made_by = 77 where name = 'hi'",
        "has the made_by 77, which is not in users",
    ),
];

async fn problems(address: &str) -> Vec<String> {
    check(&Address::from(address)).await.unwrap().problems
}

#[track_caller]
fn assert_found(problems: &[String], expected: &str) {
    assert!(
        problems.iter().any(|line| line.contains(expected)),
        "{expected:?} in {problems:#?}"
    );
}

#[tokio::test]
async fn a_chat_in_which_everything_has_happened_has_no_problems() {
    let files = Files::fresh();
    let (address, _) = files.with_a_chat("chat.db").await;
    let names = files.names();
    let sound = check(&Address::from(&*address)).await.unwrap();
    assert_eq!(sound.problems, [""; 0]);
    assert_eq!((sound.rooms, sound.messages), (11, 14));
    assert_eq!(files.names(), names, "nothing is left behind");

    let database = Database::fresh().await;
    move_chat(&address, &database.address()).await.unwrap();
    let there = check(&Address::from(&*database.address())).await.unwrap();
    assert_eq!(there, sound);
}

#[tokio::test]
async fn damage_is_found_in_a_file() {
    let files = Files::fresh();
    let (whole, _) = files.with_a_chat("whole.db").await;
    for (n, (damage, expected)) in DAMAGES.into_iter().enumerate() {
        let name = format!("{n}.db");
        std::fs::copy(&whole, files.path(&name)).unwrap();
        let db = Connection::open(files.path(&name)).unwrap();
        db.execute_batch(damage).unwrap();
        drop(db);
        assert_found(&problems(&files.address(&name)).await, expected);
    }
    // An orphan: SQLite checks no foreign keys unless it is asked to.
    std::fs::copy(&whole, files.path("orphan.db")).unwrap();
    let db = Connection::open(files.path("orphan.db")).unwrap();
    db.execute_batch("pragma foreign_keys = off; delete from users where name = 'bob'")
        .unwrap();
    drop(db);
    let found = problems(&files.address("orphan.db")).await;
    assert_found(&found, "has the user_id 2, which is not in users");
    assert_found(&found, "rooms id");
}

#[tokio::test]
async fn damage_is_found_in_a_postgres_database() {
    let files = Files::fresh();
    let (whole, _) = files.with_a_chat("whole.db").await;
    let database = Database::fresh().await;
    move_chat(&whole, &database.address()).await.unwrap();
    // Nobody is in a room after the move.
    let entered = "insert into clients_active (client_id, room_id, user_id, entered_at)
        select c.id, r.id, c.user_id, 0 from clients c, rooms r
        where c.id = (select min(id) from clients) and r.name = 'hi';
        update clients set left_at = null where id = (select min(id) from clients)";
    let db = database.look().await;
    db.batch_execute(entered).await.unwrap();
    assert_eq!(problems(&database.address()).await, [""; 0]);
    database.is_closed().await;
    for (damage, expected) in DAMAGES {
        let copy = database.copy().await;
        copy.look().await.batch_execute(damage).await.unwrap();
        assert_found(&problems(&copy.address()).await, expected);
    }
    // As a restore that disables triggers.
    let db = database.look().await;
    let orphan = "set session_replication_role = replica; delete from users where name = 'bob'";
    db.batch_execute(orphan).await.unwrap();
    let found = problems(&database.address()).await;
    assert_found(&found, "which is not in users");
}

#[tokio::test]
async fn a_damaged_page_is_found() {
    let files = Files::fresh();
    let (address, _) = files.with_a_chat("chat.db").await;
    let path = files.path("chat.db");
    let mut bytes = std::fs::read(&path).unwrap();
    // The page of an index, in the middle.
    let db = Connection::open(&path).unwrap();
    let root: usize = db
        .query_row(
            "select rootpage from sqlite_schema where name = 'messages_room'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    drop(db);
    let page = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    bytes[(root - 1) * page..root * page][page - 64..].fill(0x5a);
    std::fs::write(&path, &bytes).unwrap();
    assert!(!problems(&address).await.is_empty());
    let copy = files.path("copy.db");
    let refused = backup(&Address::from(&*address), &copy).await;
    assert!(
        matches!(refused, Err(BackupError::Damaged(_))),
        "{refused:?}"
    );
    assert!(!copy.exists());
}

#[tokio::test]
async fn a_database_of_another_build_is_not_checked() {
    let files = Files::fresh();
    let (address, _) = files.with_a_chat("chat.db").await;
    for (step, is_too_new) in [(1, true), (-2, false)] {
        let db = Connection::open(files.path("chat.db")).unwrap();
        let version: i64 = db
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap();
        db.pragma_update(None, "user_version", version + step)
            .unwrap();
        drop(db);
        let refused = check(&Address::from(&*address)).await;
        match refused {
            Err(StoreError::TooNew { .. }) => assert!(is_too_new),
            Err(StoreError::TooOld { .. }) => assert!(!is_too_new),
            other => panic!("{other:?}"),
        }
    }
    let nothing = check(&Address::from(&*files.address("mistyped.db"))).await;
    assert!(matches!(nothing, Err(StoreError::Address(_))));
    let empty = Database::empty().await;
    let nothing = check(&Address::from(&*empty.address())).await;
    assert!(matches!(nothing, Err(StoreError::Address(_))));
}

#[tokio::test]
async fn a_backup_made_under_load_is_a_whole_chat() {
    let files = Files::fresh();
    let address = files.address("chat.db");
    let store = open(&address).await;
    let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
    post(&store, &anna, room, "before").await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (store, anna, stop) = (Arc::clone(&store), anna.clone(), Arc::clone(&stop));
        async move {
            let mut written = 1;
            while !stop.load(Ordering::Relaxed) {
                post(&store, &anna, room, &"x".repeat(90)).await;
                written += 1;
            }
            written
        }
    });
    let mut copied = Vec::new();
    for n in 0..5 {
        let copy = files.path(&format!("copy{n}.db"));
        let bytes = backup(&Address::from(&*address), &copy).await.unwrap();
        assert_eq!(std::fs::metadata(&copy).unwrap().len(), bytes);
        let sound = check(&Address::from(copy.to_str().unwrap())).await.unwrap();
        assert_eq!(sound.problems, [""; 0]);
        // The database itself is in use, and is sound too.
        assert_eq!(problems(&address).await, [""; 0]);
        copied.push(sound);
    }
    stop.store(true, Ordering::Relaxed);
    let written = writing.await.unwrap();
    assert!(copied.is_sorted_by_key(|copy: &Checked| copy.messages));
    assert!(copied[0].messages >= 1 && copied[4].messages <= written);
    store.close().await;

    // It is restored by opening it.
    let restored = open(&files.address("copy4.db")).await;
    let census = restored.census().await.unwrap();
    assert_eq!(census.messages, copied[4].messages);
    let bob = arrive(&restored, "bob").await;
    post(&restored, &bob, room, "after").await;
    restored.close().await;
    assert_eq!(problems(&files.address("copy4.db")).await, [""; 0]);
}

#[tokio::test]
async fn a_backup_replaces_nothing_and_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let files = Files::fresh();
    let (address, _) = files.with_a_chat("chat.db").await;
    let (from, copy) = (Address::from(&*address), files.path("copy.db"));
    backup(&from, &copy).await.unwrap();
    let mode = std::fs::metadata(&copy).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let names = files.names();
    let before = std::fs::read(&copy).unwrap();
    assert_eq!(before[18..20], [1, 1], "it needs no write-ahead log");
    for there in [copy.clone(), files.path("chat.db")] {
        let refused = backup(&from, &there).await;
        assert!(matches!(refused, Err(BackupError::Exists(_))));
    }
    let refused = backup(&from, Path::new("/nowhere/at/all/copy.db")).await;
    assert!(matches!(refused, Err(BackupError::Unwritable(_))));
    assert!(std::fs::read(&copy).unwrap() == before);
    assert_eq!(files.names(), names, "nothing is left behind");
    let mistyped = Address::from(&*files.address("mistyped.db"));
    let refused = backup(&mistyped, &files.path("other.db")).await;
    assert!(matches!(refused, Err(BackupError::NoDatabase(_))));
    let database = Address::from("postgres://me:secret@host/chat");
    let refused = backup(&database, &files.path("other.db")).await;
    let words = refused.unwrap_err().to_string();
    assert!(
        words.ends_with("other.db postgres://me@host/chat") && words.contains("pg_dump"),
        "{words}"
    );
}
