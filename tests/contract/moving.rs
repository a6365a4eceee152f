//! Moving a chat from one database to another: everything arrives, or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use overwire::model::{
    DisplayName, GroupName, Message, MessageId, Millis, Notifications, NotificationsChange,
    PushSubscription, RoomId, Target, TokenHash, Version,
};
use overwire::moderation::Moderated;
use overwire::protocol::ModeratorAction;
use overwire::store::moving::{self, MoveError, Moved};
use overwire::store::{self, Access, Address, CatchUp, Posted, Store, StoreError, Synchronous};
use rusqlite::Connection;
use tempfile::TempDir;
use uuid::Uuid;

use crate::people::{
    self, NODE, Somebody, arrive, back_by_token, ban_of, enter_room, keep, make_group, new_session,
    new_user, password, picture, post, post_worded, promote, token, try_to_post, worded,
};
use crate::support::postgres::{Cut, Database, Proxy};

const KEY: Uuid = Uuid::from_u128(0x6f76_6572_7769_7265);
/// What belongs to the database and is not moved.
const LEFT: [&str; 8] = [
    "clients_active",
    "clients_in_view",
    "life",
    "message_words",
    "nodes",
    "schema_version",
    "searchable",
    "writers",
];

pub(crate) async fn move_chat(from: &str, to: &str) -> Result<Moved, MoveError> {
    moving::move_chat(&Address::from(from), &Address::from(to), &mut |_, _| {}).await
}

/// The files of a test.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn fresh() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn address(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A file with the whole chat in it.
    pub(crate) async fn with_a_chat(&self, name: &str) -> (String, Story) {
        let address = self.address(name);
        let store = open(&address).await;
        let story = Story::happens(&store).await;
        store.close().await;
        (address, story)
    }

    pub(crate) fn names(&self) -> BTreeSet<String> {
        let files = std::fs::read_dir(&self.0).unwrap();
        files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

pub(crate) async fn open(address: &str) -> Arc<Store> {
    store::open(address, Synchronous::Full, Access::Server)
        .await
        .unwrap()
}

async fn amend(store: &Store, who: &Somebody, message: &Message, text: Option<&str>) {
    let amended = people::amend(store, who, message.room, message.id, text).await;
    amended.unwrap();
}

async fn react(store: &Store, who: &Somebody, message: &Message, with: &str, on: bool) {
    let reacted = people::react(store, who, message, with, on).await;
    assert_eq!(reacted, Ok(true));
}

async fn moderate(store: &Store, by: &Somebody, action: ModeratorAction) {
    let done = people::moderate(store, by, action).await;
    assert!(matches!(done, Moderated::Done { .. }), "{done:?}");
}

/// A chat that contains some of everything.
pub(crate) struct Story {
    pub(crate) people: Vec<Somebody>,
    pub(crate) rooms: Vec<RoomId>,
    /// An earlier version of the first room.
    pub(crate) before: Version,
    /// The session of somebody who has signed in.
    pub(crate) session: TokenHash,
    /// A moderator link that nobody has used yet.
    pub(crate) link: TokenHash,
    /// The highest ids given so far: of a message, a session and a client.
    pub(crate) last: (i64, i64, i64),
}

impl Story {
    async fn happens(store: &Store) -> Self {
        let mut people = Vec::new();
        for name in ["anna", "bob", "carla", "dora", "eve", "mal"] {
            people.push(arrive(store, name).await);
        }
        let [anna, bob, carla, dora, eve, mal] = &people[..] else {
            unreachable!()
        };
        let seeds = (0..5).map(|n| new_user(&format!("seed{n}"))).collect();
        assert_eq!(store.add_users(seeds).await.unwrap(), 5);
        promote(store, carla).await;

        let name = DisplayName::new("Аня ☃").unwrap();
        let renamed = store.rename(anna.here(), Some(name), 1).await.unwrap();
        assert_eq!(renamed.user.id, anna.user.id);

        let hi = enter_room(store, anna, Target::Group("hi".to_owned())).await;
        enter_room(store, eve, Target::Group("hi".to_owned())).await;
        let first = post(store, anna, hi, "first\nline, “two” \t\\N\\ % 'q' 𝄞").await;
        let with_key = try_to_post(store, bob, hi, "by key", Some(KEY)).await;
        assert!(matches!(with_key, Ok(Posted::New(_))));
        let before = store.newest(hi).await.unwrap().version;
        let edited = post(store, anna, hi, "edietd").await;
        post_worded(store, anna, hi, worded("*@bob*", "<em>@bob</em>", &[bob])).await;
        amend(store, anna, &edited, Some("edited")).await;
        let deleted = post(store, bob, hi, "regretted").await;
        amend(store, bob, &deleted, None).await;
        let bad = post(store, mal, hi, "bad").await;
        amend(store, carla, &bad, None).await;
        for with in ["👍", "🎉", "❤️", "😂", "🏳️‍🌈"] {
            react(store, bob, &first, with, true).await;
        }
        react(store, carla, &first, "👍", true).await;
        // The last reaction is taken back.
        react(store, dora, &first, "👍", true).await;
        react(store, dora, &first, "👍", false).await;

        let mut rooms = vec![hi];
        for name in ["日本語", "Ελλάδα", "secret", "gone", "wrong"] {
            let room = make_group(store, anna, name).await;
            post(store, anna, room, name).await;
            rooms.push(room);
        }
        let (room, on) = (rooms[3], true);
        moderate(store, carla, ModeratorAction::RestrictGroup { room, on }).await;
        let room = rooms[4];
        moderate(store, carla, ModeratorAction::RemoveGroup { room }).await;
        let (room, name) = (rooms[5], GroupName::new("right").unwrap());
        moderate(store, carla, ModeratorAction::RenameGroup { room, name }).await;

        let private = enter_room(store, anna, Target::Private("bob".to_owned())).await;
        rooms.push(private);
        let read = post(store, anna, private, "read").await;
        post(store, anna, private, "unread").await;
        let reads = vec![(bob.client, bob.user.id, private, read.id)];
        store.mark_read(reads).await.unwrap();
        enter_room(store, dora, Target::Private("eve".to_owned())).await;

        let session = keep(store, dora).await;
        let other = new_session(None);
        let begun = store.sign_in(dora.user.id, password("hers"), other);
        let ended = begun.await.unwrap().unwrap().session;
        store.sign_out(other.token).await.unwrap();

        for change in [
            NotificationsChange::On(true),
            NotificationsChange::Sounds(true),
            NotificationsChange::Quiet(Some(Notifications::FOR_GOOD)),
        ] {
            let changed = store.change_notifications(anna.here(), change);
            changed.await.unwrap();
        }
        let looks = vec![(anna.client, anna.user.id, true)];
        store.note_in_view(looks).await.unwrap();

        store.push_key(b"the key".to_vec()).await.unwrap();
        let by = dora.here();
        let on = NotificationsChange::On(true);
        store.change_notifications(by, on).await.unwrap();
        let to = PushSubscription {
            endpoint: "https://push.example/to/dora".to_owned(),
            p256dh: vec![4; 65],
            auth: vec![0, 255],
        };
        store.subscribe(by, to).await.unwrap();
        // A file that waits for its message, and one whose object nobody needs any more.
        let (kept, gone) = (picture("kept"), picture("gone"));
        for file in [&kept, &gone] {
            let added = store.add_file(by.user, hi, file.clone());
            assert!(added.await.unwrap());
        }
        store.remove_file(gone.file.id).await.unwrap();

        let (name, on) = ("eve".to_owned(), true);
        moderate(store, carla, ModeratorAction::Mute { name, on }).await;
        moderate(store, carla, ban_of(mal, true)).await;
        let link = token();
        store.add_admin_link(link).await.unwrap();
        let reset = store.add_password_link(None, "dora", token()).await;
        assert!(matches!(reset, Ok(Moderated::Done { .. })));
        // One person has left, one is online.
        store.leave(vec![bob.client]).await.unwrap();
        let message = post(store, carla, hi, "last").await;
        let client = people.iter().map(|who| who.client.client.0).max();
        Self {
            last: (message.id.0, ended.id.0, client.unwrap()),
            people,
            rooms,
            before,
            session,
            link,
        }
    }

    /// Everything that the store says about it.
    async fn everything(&self, store: &Store) -> Vec<String> {
        let mut facts = Vec::new();
        let census = store.census().await.unwrap();
        facts.push(format!("{census:?}"));
        let versions: BTreeMap<_, _> = store
            .versions(self.rooms.clone())
            .await
            .unwrap()
            .into_iter()
            .map(|version| (version.room, version.to_string()))
            .collect();
        facts.push(format!("{versions:?}"));
        for room in &self.rooms {
            facts.push(format!("{:?}", store.newest(*room).await.unwrap()));
            facts.push(format!("{:?}", store.pair(*room).await.unwrap()));
            facts.push(format!("{:?}", store.group_record(*room).await.unwrap()));
        }
        let since = store.catch_up(self.rooms[0], Some(self.before)).await;
        let since = since.unwrap();
        assert!(matches!(since, CatchUp::Changes { .. }), "{since:?}");
        facts.push(format!("{since:?}"));
        for who in &self.people {
            let id = who.user.id;
            facts.push(format!("{:?}", store.people_of(id, 9).await.unwrap()));
            facts.push(format!("{:?}", store.groups(Some(id), 9).await.unwrap()));
            facts.push(format!("{:?}", store.standing(id).await.unwrap()));
            facts.push(format!(
                "{:?}",
                store.notifications(vec![id]).await.unwrap()
            ));
            facts.push(format!(
                "{:?}",
                store.subscriptions(vec![id]).await.unwrap()
            ));
            let (first, last) = (MessageId(0), MessageId(i64::MAX));
            let mine = store.reactions_of(id, self.rooms[0], first, last, 99);
            facts.push(format!("{:?}", mine.await.unwrap()));
            facts.push(format!(
                "{:?}",
                store.message_by_key(id, KEY).await.unwrap()
            ));
            let back = store.client_by_token(who.token, None).await.unwrap();
            facts.push(format!("{back:?}"));
            facts.push(format!(
                "{:?}",
                store.account(&who.user.name).await.unwrap()
            ));
        }
        facts.push(format!("{:?}", store.push_key(Vec::new()).await.unwrap()));
        facts.push(format!("{:?}", store.session(self.session).await.unwrap()));
        facts.push(format!(
            "{:?}",
            store.is_admin_link(self.link).await.unwrap()
        ));
        facts.push(format!(
            "{:?}",
            store.audit_log(i64::MAX, 99).await.unwrap()
        ));
        facts.push(format!(
            "{:?}",
            store.person_records("", "", 99).await.unwrap()
        ));
        facts.push(format!("{:?}", store.busiest_groups(99).await.unwrap()));
        facts.push(format!("{:?}", store.people_online(99).await.unwrap()));
        facts
    }

    /// It continues as if it had always been in this database.
    pub(crate) async fn goes_on(&self, store: &Store) {
        let (hi, anna) = (self.rooms[0], &self.people[0]);
        let was = store.newest(hi).await.unwrap().version;
        let (message, session, client) = self.last;

        let again = back_by_token(store, anna.token).await;
        assert_eq!(again.client.client, anna.client.client);
        assert_eq!(again.user.id, anna.user.id);
        assert_eq!(again.user.shown_name(), "Аня ☃");
        let bob = back_by_token(store, self.people[1].token).await;
        let known = try_to_post(store, &bob, hi, "again", Some(KEY)).await;
        assert!(matches!(known, Ok(Posted::Known(_))), "{known:?}");

        let next = post(store, &again, hi, "next").await;
        assert!(next.id.0 > message);
        react(store, &again, &next, "👍", true).await;
        let now = store.newest(hi).await.unwrap().version;
        assert_eq!(now.number, was.number + 2);
        assert_ne!(now.history, was.history);
        match store.catch_up(hi, Some(was)).await.unwrap() {
            CatchUp::Changes { messages, .. } => assert_eq!(messages[0].id, next.id),
            other => panic!("{other:?}"),
        }
        let new = new_session(None);
        let begun = store.sign_in(self.people[3].user.id, password("hers"), new);
        assert!(begun.await.unwrap().unwrap().session.id.0 > session);
        let newcomer = arrive(store, "newcomer").await;
        assert!(newcomer.user.name.starts_with("seed"), "one who was free");
        assert!(newcomer.client.client.0 > client);
        enter_room(store, &newcomer, Target::Group("hi".to_owned())).await;
        assert_eq!(store.people_in(hi, 9).await.unwrap().1, 1);
    }
}

/// All rows of a file as SQLite writes them, except for presence, which a move ends.
fn rows(path: &Path) -> BTreeMap<String, Vec<String>> {
    let db = Connection::open(path).unwrap();
    let mut all = BTreeMap::new();
    for table in tables(&db) {
        if LEFT.contains(&&*table) {
            continue;
        }
        let columns: Vec<String> = strings(
            &db,
            &format!("select name from pragma_table_info('{table}') order by name"),
        );
        let quoted: Vec<_> = columns
            .iter()
            .filter(|name| !["left_at", "gone_at", "people"].contains(&&***name))
            .map(|name| format!("quote({name})"))
            .collect();
        let sql = format!(
            "select {} as row from {table} order by row",
            quoted.join(" || ' ' || ")
        );
        all.insert(table, strings(&db, &sql));
    }
    all.insert(
        "counters".to_owned(),
        strings(&db, "select name || seq from sqlite_sequence order by name"),
    );
    let indexes = "select coalesce(sql, name) from sqlite_schema order by name";
    all.insert("schema".to_owned(), strings(&db, indexes));
    all
}

/// Names the first row that differs.
#[track_caller]
fn assert_same(left: &Path, right: &Path) {
    let (left, right) = (rows(left), rows(right));
    assert!(left.keys().eq(right.keys()));
    for (table, rows) in &left {
        let others = &right[table];
        assert_eq!(rows.len(), others.len(), "{table}");
        for (row, other) in rows.iter().zip(others) {
            assert_eq!(row, other, "{table}");
        }
    }
}

fn tables(db: &Connection) -> Vec<String> {
    strings(
        db,
        "select name from sqlite_schema where type = 'table' and name not like 'sqlite%'
            and name not like 'message_words_%'",
    )
}

fn strings(db: &Connection, sql: &str) -> Vec<String> {
    let mut asked = db.prepare(sql).unwrap();
    let found = asked.query_map([], |row| row.get(0)).unwrap();
    found.map(Result::unwrap).collect()
}

/// Whether a database has only the default groups.
async fn is_empty(address: &str) -> bool {
    let store = store::open(address, Synchronous::Full, Access::Beside)
        .await
        .unwrap();
    let census = store.census().await.unwrap();
    let groups = store.groups(None, 99).await.unwrap().len();
    let log = store.audit_log(i64::MAX, 9).await.unwrap().len();
    store.close().await;
    (census.users, census.messages, groups, log) == (0, 0, 4, 0)
}

/// Runs an asynchronous operation to completion from synchronous code.
fn aside<F: Future<Output = ()>>(act: impl FnOnce() -> F + Send) {
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(act());
        });
    });
}

/// An error and its causes.
fn words(error: &MoveError) -> String {
    let mut words = error.to_string();
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        words += &format!(": {source}");
        error = source;
    }
    words
}

#[tokio::test]
async fn a_chat_moved_from_file_to_database_and_back_is_unchanged() {
    let files = Files::fresh();
    let (first, story) = files.with_a_chat("first.db").await;
    let original = std::fs::read(files.path("first.db")).unwrap();
    let (there, on) = (Database::empty().await, Database::fresh().await);
    let (back, copy) = (files.address("back.db"), files.address("copy.db"));
    let way = [first, there.address(), on.address(), back, copy];
    let mut moved = Vec::new();
    for step in way.windows(2) {
        moved.push(move_chat(&step[0], &step[1]).await.unwrap());
    }
    assert!(moved.windows(2).all(|two| two[0] == two[1]), "{moved:?}");
    assert!(moved[0].rows.iter().all(|(_, rows)| *rows > 0), "{moved:?}");
    assert_eq!(
        std::fs::read(files.path("first.db")).unwrap(),
        original,
        "the source was not changed"
    );
    let names = ["back.db", "back.db.lock", "copy.db", "copy.db.lock"];
    let names: BTreeSet<_> = ["first.db", "first.db.lock"]
        .into_iter()
        .chain(names)
        .map(str::to_owned)
        .collect();
    assert_eq!(files.names(), names);

    assert_same(&files.path("first.db"), &files.path("back.db"));
    assert_same(&files.path("first.db"), &files.path("copy.db"));
    let copied = Connection::open(files.path("copy.db")).unwrap();
    let here = "select 'c' from clients where left_at is null
        union all select 'u' from users where not free and traced_at is null and gone_at is null
        union all select 'r' from rooms where people <> 0";
    assert_eq!(strings(&copied, here), [""; 0], "nobody is here");
    drop(copied);

    let mut facts = Vec::new();
    for address in &way {
        let store = open(address).await;
        facts.push(story.everything(&store).await);
        store.close().await;
    }
    for other in &facts[1..] {
        for (was, is) in facts[0].iter().zip(other) {
            assert_eq!(was, is);
        }
    }
    for address in &way[1..] {
        let store = open(address).await;
        story.goes_on(&store).await;
        store.close().await;
    }
}

#[tokio::test]
async fn every_table_is_moved_or_skipped_on_purpose() {
    let files = Files::fresh();
    let (from, _) = files.with_a_chat("from.db").await;
    let to = Database::empty().await;
    let moved = move_chat(&from, &to.address()).await.unwrap();
    let known: BTreeSet<_> = moved.rows.iter().map(|(table, _)| *table).collect();
    let known: BTreeSet<_> = known.into_iter().chain(LEFT).map(str::to_owned).collect();
    let sqlite = tables(&Connection::open(files.path("from.db")).unwrap());
    assert!(known.is_superset(&sqlite.into_iter().collect()));
    let look = to.look().await;
    let asked = look.query(
        "select tablename::text from pg_tables where schemaname = 'public'",
        &[],
    );
    let postgres: BTreeSet<String> = asked.await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(postgres, known);
}

#[tokio::test]
async fn an_unknown_column_stops_the_move() {
    let files = Files::fresh();
    let (from, _) = files.with_a_chat("from.db").await;
    let to = Database::fresh().await;
    let change = "alter table rooms add column weather text";
    to.look().await.batch_execute(change).await.unwrap();
    let refused = move_chat(&from, &to.address()).await.unwrap_err();
    assert!(words(&refused).contains("weather"), "{refused}");
    assert!(is_empty(&to.address()).await);
    let db = Connection::open(files.path("from.db")).unwrap();
    db.execute_batch(change).unwrap();
    drop(db);
    let to = files.address("to.db");
    let refused = move_chat(&from, &to).await.unwrap_err();
    assert!(
        matches!(&refused, MoveError::Columns(_, "rooms", columns) if columns == "weather"),
        "{refused}"
    );
    assert!(!files.path("to.db").exists());
}

#[tokio::test]
async fn a_database_in_use_by_a_server_is_not_moved_from_or_to() {
    let files = Files::fresh();
    let (file, _) = files.with_a_chat("from.db").await;
    let (full, empty) = (Database::empty().await, Database::fresh().await);
    move_chat(&file, &full.address()).await.unwrap();
    let new = files.address("to.db");
    open(&new).await.close().await;
    for running in [&file, &full.address(), &empty.address(), &new] {
        let server = open(running).await;
        let _stream = server.join(NODE).await.unwrap();
        let ways = [
            (&file, &new),
            (&full.address(), &new),
            (&file, &empty.address()),
        ];
        for (from, to) in ways {
            if running != from && running != to {
                continue;
            }
            let refused = move_chat(from, to).await.unwrap_err();
            assert!(matches!(refused, MoveError::InUse(_)), "{refused}");
            assert!(words(&refused).contains("stop it first"), "{refused}");
        }
        // The server keeps running.
        server.renew_lease(NODE).await.unwrap();
        server.close().await;
    }
    assert!(is_empty(&new).await && is_empty(&empty.address()).await);
}

#[tokio::test]
async fn no_server_opens_either_database_during_a_move() {
    let files = Files::fresh();
    let (from, _) = files.with_a_chat("from.db").await;
    let database = Database::fresh().await;
    let to = database.address();
    let mut waiting = None;
    let mut steps = Vec::new();
    let mut progress = |done, of| {
        steps.push((done, of));
        if waiting.is_none() {
            let db = Connection::open(files.path("from.db")).unwrap();
            assert!(db.execute_batch("delete from messages").is_err());
            let look = || async {
                let opened = store::open(&from, Synchronous::Full, Access::Server).await;
                let refused = opened.err();
                assert!(matches!(refused, Some(StoreError::InUse(_))), "{refused:?}");
                // A lock that everybody who opens the database waits for.
                let held = "select 1 from pg_locks l join pg_database d on d.oid = l.database
                    where l.locktype = 'advisory' and l.granted and datname = current_database()";
                let held = database.look().await.query(held, &[]).await.unwrap();
                assert_eq!(held.len(), 1);
            };
            aside(look);
            let to = to.clone();
            waiting = Some(tokio::spawn(async move {
                let store = open(&to).await;
                let census = store.census().await.unwrap();
                store.close().await;
                census
            }));
        }
    };
    moving::move_chat(&Address::from(&*from), &Address::from(&*to), &mut progress)
        .await
        .unwrap();
    let census = waiting.unwrap().await.unwrap();
    assert_eq!((census.users, census.private_rooms), (11, 2));
    assert!(steps.is_sorted() && steps.iter().all(|(done, of)| done <= of));
    assert!(matches!(steps.last(), Some((done, of)) if done == of));
}

#[tokio::test]
async fn a_chat_is_not_moved_into_a_database_that_has_one() {
    let files = Files::fresh();
    let (from, _) = files.with_a_chat("from.db").await;
    let (database, file) = (Database::fresh().await, files.address("to.db"));
    for to in [&database.address(), &file] {
        let store = open(to).await;
        arrive(&store, "somebody").await;
        store.close().await;
        let refused = move_chat(&from, to).await.unwrap_err();
        let words = words(&refused);
        assert!(words.contains("already contains 1 users"), "{words}");
        assert!(words.contains("a new database"), "{words}");
        let store = open(to).await;
        assert_eq!(store.census().await.unwrap().users, 1);
        store.close().await;
        let again = move_chat(to, &from).await.unwrap_err();
        assert!(matches!(again, MoveError::NotEmpty(..)), "{again}");
    }
    let other = Database::fresh().await;
    let made =
        "insert into rooms (id, kind, name, name_key, created_at) values (1, 'group', 'a', 'a', 1)";
    other.look().await.batch_execute(made).await.unwrap();
    let refused = move_chat(&from, &other.address()).await.unwrap_err();
    assert!(words(&refused).contains("1 rooms"), "{refused}");
}

#[tokio::test]
async fn fake_users_that_nobody_has_been_make_way() {
    let files = Files::fresh();
    let (from, story) = files.with_a_chat("from.db").await;
    let (database, file) = (Database::fresh().await, files.address("to.db"));
    for to in [&database.address(), &file] {
        let store = open(to).await;
        let unused = (0..30).map(|n| new_user(&format!("unused{n}"))).collect();
        assert_eq!(store.add_users(unused).await.unwrap(), 30);
        store.close().await;
        let moved = move_chat(&from, to).await.unwrap();
        assert_eq!(moved.rows[0], ("users", 11));
        let store = open(to).await;
        assert_eq!(store.census().await.unwrap().users, 11);
        story.goes_on(&store).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_missing_or_empty_database_is_not_moved_from() {
    let files = Files::fresh();
    let to = files.address("to.db");
    std::fs::write(files.path("empty.db"), "").unwrap();
    std::fs::write(files.path("words.db"), "This is no database. ".repeat(99)).unwrap();
    let nothing = Database::empty().await;
    for from in [
        &files.address("mistyped.db"),
        &files.address("empty.db"),
        &nothing.address(),
    ] {
        let refused = move_chat(from, &to).await.unwrap_err();
        assert!(matches!(refused, MoveError::NoChat(_)), "{refused}");
    }
    let refused = move_chat(&files.address("words.db"), &to)
        .await
        .unwrap_err();
    assert!(words(&refused).contains("words.db"), "{refused}");
    let names: Vec<_> = files.names().into_iter().collect();
    assert_eq!(names, ["empty.db", "words.db"], "nothing is left behind");
}

#[tokio::test]
async fn a_database_is_not_moved_to_itself() {
    let files = Files::fresh();
    let (from, _) = files.with_a_chat("from.db").await;
    let link = files.path("link.db");
    std::os::unix::fs::symlink(files.path("from.db"), &link).unwrap();
    let hard = files.path("hard.db");
    std::fs::hard_link(files.path("from.db"), &hard).unwrap();
    let database = Database::fresh().await;
    move_chat(&from, &database.address()).await.unwrap();
    let proxy = Proxy::start().await;
    let (full, by_another_way) = (database.address(), database.address_at(proxy.port));
    for (from, to) in [
        (&*from, &*from),
        (&from, link.to_str().unwrap()),
        (&from, hard.to_str().unwrap()),
        (&full, &by_another_way),
    ] {
        let refused = move_chat(from, to).await.unwrap_err();
        assert!(matches!(refused, MoveError::Same(_)), "{refused}");
        assert!(!words(&refused).contains("secret"), "{refused}");
    }
}

#[tokio::test]
async fn a_chat_of_another_program_version_is_not_moved() {
    let files = Files::fresh();
    let (from, _) = files.with_a_chat("from.db").await;
    let database = Database::fresh().await;
    move_chat(&from, &database.address()).await.unwrap();
    let to = files.address("to.db");
    let db = Connection::open(files.path("from.db")).unwrap();
    let look = database.look().await;
    for (version, expected) in [(99, "use a newer build"), (-1, "start this build's server")] {
        db.pragma_update(None, "user_version", version).unwrap();
        let change = format!("update schema_version set version = {version}");
        look.batch_execute(&change).await.unwrap();
        for from in [&from, &database.address()] {
            let refused = move_chat(from, &to).await.unwrap_err();
            assert!(words(&refused).contains(expected), "{refused}");
        }
    }
    assert!(!files.path("to.db").exists());
}

#[tokio::test]
async fn a_row_that_cannot_be_moved_is_named_and_stops_the_move() {
    let files = Files::fresh();
    for (n, (harm, expected)) in [
        (
            "update messages set text = 'a' || char(0) || 'b' where id = 3",
            "messages 3 has a text with U+0000",
        ),
        (
            "update messages set key = 'no key' where id = 2",
            "messages 2: key has an invalid value",
        ),
        (
            "update users set email = cast(x'ff' as text) where id = 1",
            "users 1: email has an invalid value",
        ),
        (
            "pragma foreign_keys = off; update messages set user_id = 99 where id = 4",
            "violates foreign key constraint",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let (from, _) = files.with_a_chat(&format!("{n}.db")).await;
        let db = Connection::open(&from).unwrap();
        db.execute_batch(harm).unwrap();
        drop(db);
        let before = std::fs::read(&from).unwrap();
        let to = Database::fresh().await;
        let refused = move_chat(&from, &to.address()).await.unwrap_err();
        assert!(words(&refused).contains(expected), "{}", words(&refused));
        assert!(is_empty(&to.address()).await);
        assert_eq!(std::fs::read(&from).unwrap(), before);
        if expected.contains("has an invalid value") {
            move_chat(&from, &files.address("to.db")).await.unwrap_err();
            let names = files.names();
            assert!(
                !names.iter().any(|name| name.contains("to.db")),
                "{names:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_difference_after_copying_undoes_the_move() {
    let files = Files::fresh();
    let (from, _) = files.with_a_chat("from.db").await;
    let database = Database::fresh().await;
    let harm = "create function harm() returns trigger language plpgsql as
            $$ begin new.text := upper(new.text); return new; end $$;
        create trigger harm before insert on messages for each row execute function harm()";
    database.look().await.batch_execute(harm).await.unwrap();
    let file = files.address("to.db");
    open(&file).await.close().await;
    let harm = "create trigger harm after insert on messages begin
        delete from reactions; update messages set text = upper(text); end";
    Connection::open(&file)
        .unwrap()
        .execute_batch(harm)
        .unwrap();
    for to in [&database.address(), &file] {
        let refused = move_chat(&from, to).await.unwrap_err();
        let expected = matches!(refused, MoveError::Different(_, "messages"));
        assert!(expected, "{}", words(&refused));
        assert!(is_empty(to).await);
    }
}

#[tokio::test]
async fn a_move_cut_off_in_the_middle_is_undone() {
    let files = Files::fresh();
    let (from, _) = files.with_a_chat("from.db").await;
    let database = Database::fresh().await;
    let proxy = Proxy::start().await;
    let to = database.address_at(proxy.port);
    let mut is_cut = false;
    let mut progress = |_, _| {
        if !std::mem::replace(&mut is_cut, true) {
            aside(|| database.is_closed());
        }
    };
    let (from_place, to_place) = (Address::from(&*from), Address::from(&*to));
    let refused = moving::move_chat(&from_place, &to_place, &mut progress).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, MoveError::Failed(..)), "{refused}");
    assert!(is_empty(&database.address()).await);

    proxy.cut(Cut::BeforeCommit);
    let refused = move_chat(&from, &to).await.unwrap_err();
    assert!(matches!(refused, MoveError::Unknown(..)), "{refused}");
    assert!(!words(&refused).contains("secret"), "{refused}");
    database.is_closed().await;
    assert!(is_empty(&database.address()).await);

    proxy.cut(Cut::AfterCommit);
    let refused = move_chat(&from, &to).await.unwrap_err();
    assert!(matches!(refused, MoveError::Unknown(..)), "{refused}");
    let store = open(&database.address()).await;
    assert_eq!(store.census().await.unwrap().users, 11);
    store.close().await;
}

#[tokio::test]
async fn a_table_of_many_batches_is_moved_whole() {
    let files = Files::fresh();
    let (from, story) = files.with_a_chat("from.db").await;
    let db = Connection::open(files.path("from.db")).unwrap();
    db.execute_batch(
        "with recursive n (n) as (select 1 union all select n + 1 from n where n < 6000)
         insert into messages (room_id, user_id, author_name, text, made, changed, worded, created_at)
         select r.id, 1, 'anna', 'message ' || n, r.version + n, r.version + n, r.version + n, n
         from n, rooms r where r.name_key = 'hi';
         update rooms set version = version + 6000 where name_key = 'hi'",
    )
    .unwrap();
    let messages: u64 = db
        .query_one("select count(*) from messages", [], |row| row.get(0))
        .unwrap();
    drop(db);
    let (there, back) = (Database::fresh().await, files.address("back.db"));
    move_chat(&from, &there.address()).await.unwrap();
    let moved = move_chat(&there.address(), &back).await.unwrap();
    assert!(moved.rows.contains(&("messages", messages)), "{moved:?}");
    assert_same(&files.path("from.db"), &files.path("back.db"));
    let store = open(&back).await;
    let page = store.newest(story.rooms[0]).await.unwrap();
    assert_eq!(page.messages.last().unwrap().text, "message 6000");
    assert!(page.messages[0].created_at < Millis::now());
    store.close().await;
}
