//! Databases made by an earlier build: they open, nothing in them is lost, and the chat continues.
//!
//! `earlier/*.sql` are dumps of a chat in which everything has happened at least once. They were made
//! by the last build with another schema, right after it was killed.

use std::time::{SystemTime, UNIX_EPOCH};

use overwire::model::{ClientId, ClientRef, Millis, RoomId, TokenHash};
use overwire::store::{self, Access, Store, Synchronous};
use rusqlite::Connection;

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

#[tokio::test]
async fn a_file_of_an_earlier_build_opens_with_everything_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("earlier.db");
    let file = Connection::open(&path).unwrap();
    file.execute_batch(SQLITE).unwrap();
    file.execute_batch(&as_if_created_now()).unwrap();
    file.close().unwrap();
    opens(path.to_str().unwrap()).await;
}

#[tokio::test]
async fn a_postgres_database_of_an_earlier_build_opens_with_everything_in_it() {
    let database = Database::empty().await;
    let client = database.look().await;
    client.batch_execute(POSTGRES).await.unwrap();
    // The dump leaves the connection with an empty search path.
    client.batch_execute("reset search_path").await.unwrap();
    client.batch_execute(&as_if_created_now()).await.unwrap();
    opens(&database.address()).await;
}

async fn opens(address: &str) {
    let store = store::open(address, Synchronous::Full, Access::Server);
    let store = store.await.unwrap();
    // The node that was killed has not renewed its lease.
    store.expire(OTHER_NODE, Millis::now()).await.unwrap();

    let hi = store.group("hi", None).await.unwrap().unwrap().id;
    let messages = store.newest(hi).await.unwrap().messages;
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
