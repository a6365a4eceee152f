//! Databases made by an earlier build: they open, nothing in them is lost, and the chat continues.
//!
//! `earlier/*.sql` are dumps of a chat in which everything has happened at least once. They were made
//! by a build with an earlier schema, right after it was killed.

use std::time::{SystemTime, UNIX_EPOCH};

use overwire::model::{ClientId, ClientRef, Millis, RoomId, TokenHash};
use overwire::store::{self, Access, Store, Synchronous};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::moving::Story;
use crate::people::{OTHER_NODE, Somebody, password};
use crate::support::postgres::Database;

const SQLITE: &str = include_str!("earlier/sqlite.sql");
const POSTGRES: &str = include_str!("earlier/postgres.sql");
/// The value of every byte of the session token in them.
const SESSION: u8 = 8;
/// The highest ids in them: of a message, a session and a client.
const LAST: (i64, i64, i64) = (13, 2, 6);

const NOBODY: ClientRef = ClientRef {
    client: ClientId(0),
    visit: 0,
};

/// Tokens and sessions expire, and the dumps grow old.
fn as_if_created_now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = now.as_millis();
    format!(
        "update sessions set seen_at = {now};
         update clients set left_at = {now} where left_at is not null;"
    )
}

/// A file of an earlier build, after some more statements.
fn earlier_file(more: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("earlier.db");
    let file = Connection::open(&path).unwrap();
    for sql in [SQLITE, &as_if_created_now(), more] {
        file.execute_batch(sql).unwrap();
    }
    file.close().unwrap();
    (folder, path.to_str().unwrap().to_owned())
}

/// A database of an earlier build, after some more statements.
async fn earlier_database(more: &str) -> Database {
    let database = Database::empty().await;
    let client = database.look().await;
    // The dump leaves the connection with an empty search path.
    for sql in [POSTGRES, "reset search_path", &as_if_created_now(), more] {
        client.batch_execute(sql).await.unwrap();
    }
    database
}

#[tokio::test]
async fn a_file_of_an_earlier_build_opens_with_everything_in_it() {
    let (_folder, path) = earlier_file("");
    opens(&path).await;
    // It is recognized by its tables, and then marked as ours.
    let file = Connection::open(&path).unwrap();
    let mark: i64 = file
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .unwrap();
    assert_eq!(mark.to_be_bytes()[4..], *b"OvWr");
}

#[tokio::test]
async fn a_postgres_database_of_an_earlier_build_opens_with_everything_in_it() {
    let database = earlier_database("").await;
    opens(&database.address()).await;
}

/// Groups whose names earlier builds took for different ones, with the keys that those made.
const FORMS: &str = "insert into rooms (id, kind, name, name_key, created_at) values
    (901, 'group', 'Ｆｕｌｌ', 'ｆｕｌｌ', 1), (902, 'group', 'full', 'full', 2),
    (903, 'group', 'Ｎｅｗｓ', 'ｎｅｗｓ', 4), (904, 'group', 'ⓝⓔⓦⓢ', 'ⓝⓔⓦⓢ', 3),
    (905, 'group', 'ｓｏｌｏ', 'ｓｏｌｏ', 1), (906, 'group', 'ΟΔΌΣ', 'οδός', 1),
    (907, 'group', 'ſi', 'si', 1);
    insert into rooms (id, kind, name, name_key, created_at, restricted_at) values
    (908, 'group', 'Ｐｌａｎ', '!ｐｌａｎ', 1, 1);
    insert into rooms (id, kind, name, name_key, created_at, removed_at) values
    (909, 'group', 'ｓｏｌｏ', '~909', 1, 1);";

#[tokio::test]
async fn groups_in_a_file_of_an_earlier_build_are_found_by_all_forms_of_their_names() {
    let (_folder, path) = earlier_file(FORMS);
    finds_groups(&path).await;
}

#[tokio::test]
async fn groups_in_a_postgres_database_of_an_earlier_build_are_found_by_all_forms_of_their_names() {
    let database = earlier_database(FORMS).await;
    finds_groups(&database.address()).await;
}

async fn finds_groups(address: &str) {
    // The second time, nothing is left to migrate.
    for _ in 0..2 {
        let store = store::open(address, Synchronous::Full, Access::Server);
        let store = store.await.unwrap();
        let carla = store.find_person(vec!["carla".to_owned()]).await.unwrap();
        let (_, carla) = carla.unwrap();
        for (name, expected) in [
            // Two groups: one has the common key already.
            ("full", Some(902)),
            ("FULL", Some(902)),
            ("ⓕⓤⓛⓛ", Some(902)),
            ("Ｆｕｌｌ", Some(901)),
            ("ＦＵＬＬ", Some(901)),
            // Two groups: the older one gets the common key.
            ("news", Some(904)),
            ("ⓝⓔⓦⓢ", Some(904)),
            ("Ｎｅｗｓ", Some(903)),
            // One group.
            ("solo", Some(905)),
            ("Ｓolo", Some(905)),
            ("ｓｏｌｏ", Some(905)),
            ("οδός", Some(906)),
            ("οδόσ", Some(906)),
            ("SI", Some(907)),
            ("ſi", Some(907)),
            ("!plan", Some(908)),
            ("!Ｐｌａｎ", Some(908)),
            ("plan", None),
        ] {
            let found = store.group(name, Some(carla.id)).await.unwrap();
            assert_eq!(found.map(|room| room.id.0), expected, "{name}");
        }
        let names = async |beginning: &str| {
            let found = store.find_groups(beginning, 9).await.unwrap();
            let ids = found.iter().map(|busy| busy.group.id.0);
            ids.collect::<Vec<_>>()
        };
        assert_eq!(names("fu").await, [902]);
        assert_eq!(names("Ｆｕ").await, [902, 901]);
        assert_eq!(names("ΟΔΌ").await, [906]);
        assert_eq!(names("ΟΔΌΣ").await, [906]);
        let records = store.group_records("Ｆ", "", 9).await.unwrap();
        let records: Vec<_> = records.iter().map(|record| record.id.0).collect();
        assert_eq!(records, [902, 901]);
        store.close().await;
    }
}

async fn opens(address: &str) {
    let store = store::open(address, Synchronous::Full, Access::Server);
    let store = store.await.unwrap();
    // The node that was killed has not renewed its lease.
    store.expire(OTHER_NODE, Millis::now()).await.unwrap();

    let hi = store.group("hi", None).await.unwrap().unwrap().id;
    let messages = store.newest(hi).await.unwrap().messages.clone();
    let texts: Vec<_> = messages
        .iter()
        .map(|message| (&*message.author.user_name, &*message.text))
        .collect();
    assert_eq!(
        texts,
        [
            ("anna", "first\nline, “two” \t\\N\\ % 'q' 𝄞"),
            ("bob", "by key"),
            ("anna", "edited"),
            ("bob", ""),
            ("mal", ""),
            ("carla", "last"),
        ]
    );
    assert!(messages[2].edited && messages[3].deleted && messages[4].by_moderator);
    let reactions: Vec<_> = messages[0]
        .reactions
        .iter()
        .map(|reaction| (reaction.emoji.as_str(), reaction.count))
        .collect();
    assert_eq!(
        reactions,
        [("👍", 2), ("🎉", 1), ("❤️", 1), ("😂", 1), ("🏳️‍🌈", 1)]
    );

    let story = story(&store, hi).await;
    let [anna, bob, carla, dora, eve, mal] = &story.people[..] else {
        unreachable!()
    };
    let groups = store.groups(Some(carla.user.id), 99).await.unwrap();
    assert_eq!(groups.len(), 5, "the default ones and !secret: {groups:?}");
    for (name, me, is_there) in [
        ("日本語", None, true),
        ("right", None, true),
        ("wrong", None, false),
        ("gone", None, false),
        ("!secret", None, false),
        ("!secret", Some(carla.user.id), true),
    ] {
        let found = store.group(name, me).await.unwrap();
        assert_eq!(found.is_some(), is_there, "{name}");
    }
    let entries = store.audit_log(i64::MAX, 99).await.unwrap();
    let words: Vec<_> = entries.iter().map(|entry| &*entry.words).collect();
    assert_eq!(
        words,
        [
            "banned mal",
            "muted eve",
            "renamed #wrong to #right",
            "removed #gone",
            "restricted #secret to moderators",
            &*format!("deleted message {} of mal in #hi", messages[4].id),
            "became a moderator",
        ]
    );
    assert!(entries.iter().all(|entry| entry.moderator == "carla"));
    for (who, standing) in [
        (carla, (true, false, false)),
        (eve, (false, true, false)),
        (mal, (false, false, true)),
        (anna, (false, false, false)),
    ] {
        let found = store.standing(who.user.id).await.unwrap();
        assert_eq!((found.moderator, found.muted, found.banned), standing);
    }
    let people = store.people_of(bob.user.id, 9).await.unwrap();
    assert_eq!((&people[0].user, people[0].unread), (&anna.user, 1));
    let account = store.account("dora").await.unwrap();
    assert_eq!(account, Some((dora.user.clone(), password("hers"))));
    let session = store.session(story.session).await.unwrap();
    assert_eq!(session.map(|session| session.user), Some(dora.user.clone()));

    story.goes_on(&store).await;
    store.close().await;
}

/// What happened in the dumps. Their tokens are consecutive numbers, not random ones.
async fn story(store: &Store, hi: RoomId) -> Story {
    let mut people = Vec::new();
    for (token, name) in (1..).zip(["anna", "bob", "carla", "dora", "eve", "mal"]) {
        let found = store.find_person(vec![name.to_owned()]).await.unwrap();
        let (_, user) = found.unwrap();
        let token = TokenHash([token; 32]);
        let client = store.client_by_token(token, None).await.unwrap();
        people.push(Somebody {
            // A banned person has no client that anybody can take over.
            client: client.map_or(NOBODY, |(client, _)| client),
            user,
            token,
        });
    }
    Story {
        last: LAST,
        before: store.newest(hi).await.unwrap().version,
        rooms: vec![hi],
        session: TokenHash([SESSION; 32]),
        link: TokenHash([0; 32]),
        people,
    }
}
