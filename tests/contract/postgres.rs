//! Several nodes on one PostgreSQL database, and connections that are lost at the worst moment.

use std::collections::HashSet;
use std::sync::Arc;

use overwire::model::{DisplayName, Millis, NodeId, RoomId, Target, UserId};
use overwire::store::{
    self, Access, Arrival, Arrived, CatchUp, Change, Post, Posted, Refused, Store, StoreError,
    Synchronous,
};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::people::{
    NODE, OTHER_NODE, Somebody, arrive, arrive_on, back, ban_of, come_back, enter_room, group, hi,
    keep, message_by, new_user, post, returning, settled, sign_in,
};
use crate::store::{another, ids, moderator, names, whole_room};
use crate::support::pooler::Pooler;
use crate::support::postgres::{Cut, Database, Proxy};

async fn open(address: &str) -> Arc<Store> {
    store::open(address, Synchronous::Full, Access::Server)
        .await
        .unwrap()
}

/// The stores of two nodes.
async fn two_nodes() -> (Database, [Arc<Store>; 2]) {
    let database = Database::fresh().await;
    let address = database.address();
    let stores = [open(&address).await, open(&address).await];
    (database, stores)
}

fn hello(node: NodeId, author: &Somebody, room: RoomId) -> Post {
    message_by(node, author, room, "hello", Some(Uuid::new_v4()))
}

#[tokio::test]
async fn a_node_of_a_build_with_another_form_of_index_adds_nothing_to_it() {
    let (database, [store, _]) = two_nodes().await;
    let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
    // Its first statement, whether the room is indexed already or not.
    let former = format!(
        "insert into searchable (room_id, since, version) values ({}, 0, 0) on conflict do nothing",
        room.0
    );
    for _ in 0..2 {
        assert!(database.look().await.execute(&former, &[]).await.is_err());
        post(&store, &anna, room, "red apples").await;
        while let Some(part) = store.unindexed(room).await.unwrap() {
            store.index(part).await.unwrap();
        }
    }
}

async fn online(store: &Store) -> Vec<String> {
    let people = store.people_online(9).await.unwrap().0;
    names(&people).into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn two_nodes_never_give_one_user_to_two_people() {
    let (_database, stores) = two_nodes().await;
    let seeds = (0..30).map(|n| new_user(&format!("seed{n}"))).collect();
    assert_eq!(stores[0].add_users(seeds).await.unwrap(), 30);
    let mut arriving = JoinSet::new();
    for n in 0..100 {
        let store = Arc::clone(&stores[n % 2]);
        arriving.spawn(async move { arrive(&store, &format!("spare{n}")).await });
    }
    let all = arriving.join_all().await;
    let users: HashSet<UserId> = all.iter().map(|somebody| somebody.user.id).collect();
    assert_eq!(users.len(), 100);
    assert_eq!(stores[1].people_online(200).await.unwrap().0.len(), 100);
    let seeded = |somebody: &&Somebody| somebody.user.name.starts_with("seed");
    assert_eq!(all.iter().filter(seeded).count(), 30);
}

#[tokio::test]
async fn a_pooler_that_shares_connections_between_transactions_is_refused() {
    let database = Database::empty().await;
    for mode in ["transaction", "statement"] {
        let pooler = Pooler::start(&database, mode).await;
        let address = database.address_at(pooler.port);
        let refused = store::open(&address, Synchronous::Full, Access::Server).await;
        let words = refused.err().unwrap().to_string();
        assert!(words.contains("use pool_mode = session"), "{words}");
    }
    let tables = "select count(*)::text from pg_tables where schemaname = 'public'";
    assert_eq!(database.look_at_once(tables.to_owned()), ["0"]);
    let pooler = Pooler::start(&database, "session").await;
    let store = open(&database.address_at(pooler.port)).await;
    let anna = arrive(&store, "anna").await;
    let room = hi(&store).await;
    enter_room(&store, &anna, Target::Room(room)).await;
    store.check().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_pair_has_one_private_room_even_if_both_open_it_at_once() {
    let (database, [here, there]) = two_nodes().await;
    for n in 0..10 {
        let anna = arrive(&here, &format!("anna{n}")).await;
        let bob = arrive_on(&there, OTHER_NODE, &format!("bob{n}")).await;
        let (first, second) = tokio::join!(
            enter_room(&here, &anna, Target::Private(bob.user.name.clone())),
            enter_room(&there, &bob, Target::Private(anna.user.name.clone()))
        );
        assert_eq!(first, second);
    }
    assert_eq!(here.census().await.unwrap().private_rooms, 10);
    assert_eq!(deadlocks(&database).await, 0);
}

#[tokio::test]
async fn two_people_choosing_one_name_at_once_do_not_both_get_it() {
    let (_database, [here, there]) = two_nodes().await;
    for n in 0..10 {
        let anna = arrive(&here, &format!("anna{n}")).await;
        let bob = arrive_on(&there, OTHER_NODE, &format!("bob{n}")).await;
        let name = || Some(DisplayName::new(&format!("Lee {n}")).unwrap());
        let (first, second) = tokio::join!(
            here.rename(anna.here(), name(), 1),
            there.rename(bob.here(), name(), 1)
        );
        let is_taken = |renamed| settled(renamed) == Err(Refused::NameTaken);
        assert_ne!(is_taken(first), is_taken(second));

        // Nor is a user added at that moment whose name would be the same.
        let name = DisplayName::new(&format!("Kim{n}")).unwrap();
        let (renamed, made) = tokio::join!(
            here.rename(anna.here(), Some(name), 1),
            there.add_users(vec![new_user(&format!("kim{n}"))])
        );
        assert_eq!(is_taken(renamed), made.unwrap() == 1);
    }
}

#[tokio::test]
async fn versions_grow_by_one_and_ids_with_them_when_two_nodes_write() {
    let (_database, stores) = two_nodes().await;
    let nodes = [NODE, OTHER_NODE];
    let rooms = [hi(&stores[0]).await, group(&stores[0], "python").await];
    let mut streams = Vec::new();
    for (store, node) in stores.iter().zip(nodes) {
        streams.push(store.join(node).await.unwrap());
    }
    let mut writing = JoinSet::new();
    for n in 0..8 {
        let (store, node) = (Arc::clone(&stores[n % 2]), nodes[n % 2]);
        writing.spawn(async move {
            let author = arrive_on(&store, node, &format!("author{n}")).await;
            for m in 0..30 {
                let new = hello(node, &author, rooms[(n + m) % 2]);
                assert!(matches!(store.post(new).await, Ok(Posted::New(_))));
            }
        });
    }
    writing.join_all().await;
    for room in rooms {
        let (all, version) = whole_room(&stores[0], room).await;
        let made: Vec<u64> = all.iter().map(|message| message.made).collect();
        assert_eq!((made, version), ((1..=120).collect(), 120));
        assert!(ids(&all).is_sorted());
        assert!(all.is_sorted_by_key(|message| message.created_at.0));
    }
    // Each node gets the changes it wrote, in order.
    for stream in &mut streams {
        let mut changes: Vec<Change> = Vec::new();
        stream.recv_many(&mut changes, 1000).await;
        assert_eq!(changes.len(), 120);
        for room in rooms {
            let of_it = changes.iter().filter(|change| change.version.room == room);
            assert!(of_it.is_sorted_by_key(|change| change.version.number));
        }
    }
}

#[tokio::test]
async fn people_are_counted_correctly_across_nodes() {
    let (database, stores) = two_nodes().await;
    let rooms = [
        group(&stores[0], "hi").await,
        group(&stores[0], "python").await,
    ];
    let mut moving = JoinSet::new();
    for n in 0..10 {
        let (store, node) = (Arc::clone(&stores[n % 2]), [NODE, OTHER_NODE][n % 2]);
        moving.spawn(async move {
            let who = arrive_on(&store, node, &format!("user{n}")).await;
            for m in 0..10 {
                enter_room(&store, &who, Target::Room(rooms[(n + m) % 2])).await;
            }
            if n < 4 {
                store.leave(vec![who.client]).await.unwrap();
            }
        });
    }
    moving.join_all().await;
    let mut all = 0;
    for room in rooms {
        let (people, count) = stores[0].people_in(room, 99).await.unwrap();
        assert_eq!(people.len() as u64, count);
        all += count;
    }
    assert_eq!(all, 6);
    assert_eq!(deadlocks(&database).await, 0);
}

async fn deadlocks(database: &Database) -> i64 {
    let db = database.look().await;
    let counted = "select deadlocks from pg_stat_database where datname = current_database()";
    db.query_one(counted, &[]).await.unwrap().get(0)
}

/// How many connections wait for a lock.
async fn waiting(db: &tokio_postgres::Client) -> i64 {
    let waiting = "select count(*) from pg_stat_activity
        where wait_event_type = 'Lock' and datname = current_database()";
    db.query_one(waiting, &[]).await.unwrap().get(0)
}

/// Waits until a connection waits for a lock.
async fn somebody_waits(db: &tokio_postgres::Client) {
    while waiting(db).await == 0 {}
}

/// Two transactions wait for each other: a batch or a single write, and another connection.
#[tokio::test]
async fn a_deadlocked_write_is_retried() {
    let database = Database::fresh().await;
    let store = open(&database.address()).await;
    let mut changes = store.join(NODE).await.unwrap();
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let mut rooms = [hi(&store).await, group(&store, "python").await];
    rooms.sort();
    let lock = |table: &str, id: i64| format!("select 1 from {table} where id = {id} for update");
    let rings = [
        // The batch holds the first room and waits for the second.
        [lock("rooms", rooms[1].0), lock("rooms", rooms[0].0)],
        // The write holds the room and waits for its author.
        [lock("users", anna.user.id.0), lock("rooms", rooms[0].0)],
    ];
    for [first, second] in rings {
        let (other, look) = (database.look().await, database.look().await);
        // The other connection never checks for deadlocks, so the store finds it after a second,
        // the default of PostgreSQL.
        let begin = format!("set deadlock_timeout = '1h'; begin; {first}");
        other.batch_execute(&begin).await.unwrap();
        let (of_anna, of_bob, ()) = tokio::join!(
            store.post(hello(NODE, &anna, rooms[0])),
            store.post(hello(NODE, &bob, rooms[1])),
            async {
                somebody_waits(&look).await;
                other.batch_execute(&second).await.unwrap();
                other.batch_execute("commit").await.unwrap();
            }
        );
        assert!(matches!(of_anna.unwrap(), Posted::New(_)));
        assert!(matches!(of_bob.unwrap(), Posted::New(_)));
    }
    for room in rooms {
        let (all, version) = whole_room(&store, room).await;
        assert_eq!((all.len(), version), (2, 2));
    }
    for _ in 0..4 {
        changes.recv().await.unwrap();
    }
    assert!(changes.try_recv().is_err());
}

#[tokio::test]
async fn a_starting_node_does_not_disturb_another() {
    let database = Database::fresh().await;
    let here = open(&database.address()).await;
    here.join(NODE).await.unwrap();
    let anna = arrive(&here, "anna").await;
    let room = enter_room(&here, &anna, Target::Group("hi".to_owned())).await;
    post(&here, &anna, room, "hello").await;
    let before = here.newest(room).await.unwrap();
    let there = open(&database.address()).await;
    there.join(OTHER_NODE).await.unwrap();
    there.expire(OTHER_NODE, Millis::now()).await.unwrap();
    assert_eq!(online(&there).await, ["anna"]);
    assert_eq!(there.people_in(room, 9).await.unwrap().1, 1);
    // The history that versions refer to does not change either.
    let bob = arrive_on(&there, OTHER_NODE, "bob").await;
    there.post(hello(OTHER_NODE, &bob, room)).await.unwrap();
    let rest = here.catch_up(room, Some(before.version)).await.unwrap();
    let CatchUp::Changes { version, .. } = rest else {
        panic!("{rest:?}");
    };
    assert_eq!(version.history, before.version.history);
    there.close().await;
    assert_eq!(online(&here).await, ["anna"]);
    assert_eq!(post(&here, &anna, room, "still here").await.made, 3);
}

#[tokio::test]
async fn a_copied_database_has_a_new_identity_even_with_a_lease_in_it() {
    let database = Database::fresh().await;
    let store = open(&database.address()).await;
    let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
    post(&store, &anna, room, "hello").await;
    let history = store.newest(room).await.unwrap().version.history;
    let identity = store.identity().await.unwrap();
    store.close().await;
    let lease = format!(
        "insert into nodes (id, lease_until) values (7, {})",
        i64::MAX
    );
    database.look().await.batch_execute(&lease).await.unwrap();
    database.is_closed().await;
    let copy = database.copy().await;
    for (database, is_same) in [(database, true), (copy, false)] {
        let store = open(&database.address()).await;
        assert_eq!(store.identity().await.unwrap() == identity, is_same);
        let anna = back(&store, &anna).await;
        post(&store, &anna, room, "hello").await;
        let now = store.newest(room).await.unwrap().version.history;
        assert_eq!(now == history, is_same);
    }
}

#[tokio::test]
async fn leases_expire_by_the_clock_of_the_database() {
    let (database, [here, there]) = two_nodes().await;
    let clock_at = async |millis: i64| {
        let clock = format!(
            "create or replace function millis() returns bigint language sql volatile as $$
                select {millis}::bigint $$"
        );
        database.look().await.batch_execute(&clock).await.unwrap();
    };
    // A wrong clock that stands still is the same for all.
    let began = 1_000_000_000_000;
    clock_at(began).await;
    here.join(NODE).await.unwrap();
    there.join(OTHER_NODE).await.unwrap();
    let anna = arrive(&here, "anna").await;
    let room = enter_room(&here, &anna, Target::Group("hi".to_owned())).await;
    // So that there is always something to clear up.
    there.add_users(vec![new_user("carl")]).await.unwrap();
    let expire = async || {
        let due = "update users set free = false, gone_at = 0 where name = 'carl'";
        database.look().await.batch_execute(due).await.unwrap();
        there.expire(OTHER_NODE, Millis::now()).await.unwrap()
    };
    assert_eq!(expire().await, []);
    assert_eq!(online(&there).await, ["anna"]);
    clock_at(began + 15_000).await;
    assert_eq!(expire().await, []);
    assert_eq!(online(&there).await, ["anna"]);
    clock_at(began + 15_001).await;
    there.renew_lease(OTHER_NODE).await.unwrap();
    assert_eq!(expire().await.len(), 1);
    assert!(online(&there).await.is_empty());
    assert_eq!(there.people_in(room, 9).await.unwrap().1, 0);
    // An expired client is in no room, even before its node knows.
    let target = Target::Group("python".to_owned());
    let entered = here.enter(anna.here(), target).await;
    assert!(matches!(entered, Err(StoreError::Gone)));
    let python = group(&here, "python").await;
    assert_eq!(here.people_in(python, 9).await.unwrap(), (vec![], 0));
}

#[tokio::test]
async fn a_person_cut_off_with_their_node_keeps_their_display_name_for_a_while() {
    let (_database, [here, there]) = two_nodes().await;
    let anna = arrive(&here, "anna").await;
    let bob = arrive_on(&there, OTHER_NODE, "bob").await;
    let lee = || Some(DisplayName::new("Lee").unwrap());
    let renamed = here.rename(anna.here(), lee(), 1).await;
    renamed.unwrap();
    here.close().await;
    assert_eq!(online(&there).await, ["bob"]);
    let renamed = there.rename(bob.here(), lee(), 1).await;
    assert_eq!(settled(renamed), Err(Refused::NameTaken));
}

#[tokio::test]
async fn nothing_of_a_banned_author_is_stored_after_the_ban_is_confirmed() {
    let (database, [here, there]) = two_nodes().await;
    let anna = moderator(&there, "anna").await;
    let room = hi(&here).await;
    for n in 0..20 {
        let bob = arrive(&here, &format!("bob{n}")).await;
        if n % 2 == 0 {
            enter_room(&here, &bob, Target::Room(room)).await;
        }
        let (by, ban) = (anna.on(OTHER_NODE), ban_of(&bob, true));
        let (bans, before) = (Arc::clone(&there), whole_room(&here, room).await.1);
        let banned = tokio::spawn(async move {
            bans.moderate(by, ban).await.unwrap();
            whole_room(&bans, room).await.1
        });
        let mut stored = before;
        // Until the ban takes effect, however long that takes.
        loop {
            match here.post(hello(NODE, &bob, room)).await {
                Ok(Posted::New(_)) => stored += 1,
                Err(StoreError::Gone) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(banned.await.unwrap(), stored);
    }
    assert_eq!(deadlocks(&database).await, 0);
}

#[tokio::test]
async fn nobody_can_connect_while_they_are_being_banned() {
    let (database, [here, there]) = two_nodes().await;
    let anna = moderator(&there, "anna").await;
    for n in 0..20 {
        let bob = arrive(&here, &format!("bob{n}")).await;
        let session = match n % 2 {
            0 => None,
            _ => Some(keep(&here, &bob).await),
        };
        let bob = match session {
            None => bob,
            Some(session) => another(&here, session).await,
        };
        let (by, ban) = (anna.on(OTHER_NODE), ban_of(&bob, true));
        let arrival = Arrival {
            session,
            ..returning(NODE, bob.client, bob.token)
        };
        let (banned, arrived) = tokio::join!(there.moderate(by, ban), here.arrive(arrival));
        banned.unwrap();
        match arrived.unwrap() {
            Arrived::As { user, .. } => assert_eq!(user, bob.user),
            Arrived::Banned => {}
            // Their session ended on the way; they have to try again.
            Arrived::Overtaken if session.is_some() => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(online(&there).await, ["anna"]);
        let (client, node) = here
            .client_by_token(bob.token, None)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((client.client, node), (bob.client.client, None));
        assert_eq!(come_back(&here, client, bob.token).await, Arrived::Banned);
    }
    assert_eq!(deadlocks(&database).await, 0);
}

#[tokio::test]
async fn ending_a_client_waits_for_its_unfinished_write() {
    let (database, [here, there]) = two_nodes().await;
    let (room, anna) = (hi(&here).await, arrive(&here, "anna").await);
    let session = keep(&here, &anna).await;
    let tab = another(&here, session).await;
    let (other, look) = (database.look().await, database.look().await);
    let hold = "begin; select 1 from users where name = 'anna' for update";
    other.batch_execute(hold).await.unwrap();
    let (posts, new) = (Arc::clone(&here), hello(NODE, &tab, room));
    let posting = tokio::spawn(async move { posts.post(new).await.unwrap() });
    somebody_waits(&look).await;
    let ending = tokio::spawn(async move { there.sign_out(session).await.unwrap() });
    while waiting(&look).await < 2 {
        assert!(!ending.is_finished(), "the message is not stored yet");
    }
    other.batch_execute("commit").await.unwrap();
    assert!(matches!(posting.await.unwrap(), Posted::New(_)));
    assert!(ending.await.unwrap().is_some());
    let refused = here.post(hello(NODE, &tab, room)).await;
    assert!(matches!(refused, Err(StoreError::Gone)));
}

#[tokio::test]
async fn two_nodes_cleaning_up_after_a_dead_one_report_each_leave_once() {
    let (database, [here, there]) = two_nodes().await;
    let (dead, room) = (NodeId(7), hi(&here).await);
    for is_in_a_room in [false, true] {
        for n in 0..10 {
            let who = arrive_on(&here, dead, &format!("user{n}{is_in_a_room}")).await;
            if is_in_a_room {
                enter_room(&here, &who, Target::Room(room)).await;
            }
        }
        let (other, look) = (database.look().await, database.look().await);
        let ended = format!("update nodes set lease_until = 0 where id = {}", dead.0);
        other.batch_execute(&ended).await.unwrap();
        let hold = "begin; select 1 from clients for update";
        other.batch_execute(hold).await.unwrap();
        let (first, second, ()) = tokio::join!(
            here.expire(NODE, Millis::now()),
            there.expire(OTHER_NODE, Millis::now()),
            async {
                while waiting(&look).await < 2 {}
                other.batch_execute("commit").await.unwrap();
            }
        );
        let left = [first.unwrap(), second.unwrap()].concat();
        let people: HashSet<UserId> = left.iter().map(|left| left.user.id).collect();
        assert_eq!((left.len(), people.len()), (10, 10));
        let room = is_in_a_room.then_some(room);
        assert!(left.iter().all(|left| left.last && left.room == room));
    }
}

#[tokio::test]
async fn a_person_on_two_nodes_leaves_with_their_last_client() {
    let (database, [here, there]) = two_nodes().await;
    let (room, anna) = (hi(&here).await, arrive(&here, "anna").await);
    let at_home = keep(&here, &anna).await;
    let away = sign_in(&here, &anna.user).await;
    here.leave(vec![anna.client]).await.unwrap();
    for is_in_a_room in [false, true] {
        let tabs = [
            another(&here, at_home).await,
            another(&there, away).await,
            another(&there, away).await,
        ];
        if is_in_a_room {
            for (store, tab) in [&here, &there, &there].into_iter().zip(&tabs) {
                enter_room(store, tab, Target::Room(room)).await;
            }
        }
        let [left] = &there.leave(vec![tabs[2].client]).await.unwrap()[..] else {
            panic!("one has left");
        };
        assert_eq!((left.room, left.last), (None, false));
        // When both leave at once, one of them is the last.
        let (other, look) = (database.look().await, database.look().await);
        let hold = "begin; select 1 from sessions for update";
        other.batch_execute(hold).await.unwrap();
        let (first, second, ()) = tokio::join!(
            here.leave(vec![tabs[0].client]),
            there.leave(vec![tabs[1].client]),
            async {
                while waiting(&look).await < 2 {}
                other.batch_execute("commit").await.unwrap();
            }
        );
        let mut left = [first.unwrap(), second.unwrap()].concat();
        left.sort_by_key(|left| left.last);
        let left: Vec<_> = left.iter().map(|left| (left.room, left.last)).collect();
        let room = is_in_a_room.then_some(room);
        assert_eq!(left, [(None, false), (room, true)]);
    }
}

/// A node behind a proxy, with somebody in a room, and the stream of its changes.
struct Behind {
    database: Database,
    proxy: Proxy,
    store: Arc<Store>,
    changes: tokio::sync::mpsc::Receiver<Change>,
    anna: Somebody,
    room: RoomId,
}

async fn behind_a_proxy() -> Behind {
    let (database, proxy) = (Database::fresh().await, Proxy::start().await);
    let store = open(&database.address_at(proxy.port)).await;
    let changes = store.join(NODE).await.unwrap();
    let (anna, room) = (arrive(&store, "anna").await, hi(&store).await);
    Behind {
        database,
        proxy,
        store,
        changes,
        anna,
        room,
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_happens_exactly_once() {
    for cut in [Cut::BeforeCommit, Cut::AfterCommit] {
        let mut it = behind_a_proxy().await;
        it.proxy.cut(cut);
        let new = hello(NODE, &it.anna, it.room);
        let posted = it.store.post(new.clone()).await.unwrap();
        assert!(matches!(posted, Posted::New(ref message) if message.made == 1));
        assert_eq!(it.changes.recv().await.unwrap().version.number, 1);
        assert!(it.changes.try_recv().is_err());
        let known = it.store.post(new).await.unwrap();
        assert!(matches!(known, Posted::Known(message) if message.made == 1));
        assert_eq!(whole_room(&it.store, it.room).await.0.len(), 1);
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_reported_only_once_it_is_known() {
    for (cut, was_done) in [(Cut::BeforeCommit, false), (Cut::AfterCommit, true)] {
        let mut it = behind_a_proxy().await;
        it.proxy.close_with_the_cut(cut);
        let new = hello(NODE, &it.anna, it.room);
        let posted = it.store.post(new.clone()).await;
        assert!(
            matches!(posted, Err(StoreError::Unavailable(_))),
            "{posted:?}"
        );
        assert!(it.changes.try_recv().is_err());
        assert!(it.store.check().await.is_err());
        let stored = it.database.look().await;
        let stored = stored.query_one("select count(*) from messages", &[]).await;
        assert_eq!(stored.unwrap().get::<_, i64>(0), i64::from(was_done));

        it.proxy.open();
        let again = it.store.post(new).await.unwrap();
        match was_done {
            true => assert!(matches!(again, Posted::Known(message) if message.made == 1)),
            false => assert!(matches!(again, Posted::New(message) if message.made == 1)),
        }
        assert_eq!(it.changes.recv().await.unwrap().version.number, 1);
        assert!(it.changes.try_recv().is_err());
        it.store.check().await.unwrap();
        let (anna, room) = (&it.anna, it.room);
        assert_eq!(post(&it.store, anna, room, "fine again").await.made, 2);
    }
}

#[tokio::test]
async fn an_operation_fails_rather_than_hangs_on_a_dead_connection() {
    let it = behind_a_proxy().await;
    it.store.newest(it.room).await.unwrap();
    it.proxy.stall();
    let (posted, page) = tokio::join!(
        it.store.post(hello(NODE, &it.anna, it.room)),
        it.store.newest(it.room)
    );
    assert!(
        matches!(posted, Err(StoreError::Unavailable(_))),
        "{posted:?}"
    );
    assert!(matches!(page, Err(StoreError::Unavailable(_))), "{page:?}");
    it.proxy.open();
    it.store.check().await.unwrap();
    assert_eq!(post(&it.store, &it.anna, it.room, "hello").await.made, 1);
}

#[tokio::test]
async fn nothing_is_reset_while_another_node_is_running() {
    let (_database, [here, there]) = two_nodes().await;
    arrive(&here, "anna").await;
    let refused = there.reset().await;
    assert!(matches!(refused, Err(StoreError::InUse(_))), "{refused:?}");
    assert_eq!(online(&there).await, ["anna"]);
    here.close().await;
    there.reset().await.unwrap();
    assert_eq!(there.census().await.unwrap().users, 0);
}

#[tokio::test]
async fn two_nodes_may_migrate_the_same_database_at_once() {
    let database = Database::empty().await;
    let address = database.address();
    let (here, there) = tokio::join!(open(&address), open(&address));
    assert_eq!(here.groups(None, 50).await.unwrap().len(), 4);
    there.check().await.unwrap();
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let database = Database::fresh().await;
    let db = database.look().await;
    let newer = "update schema_version set version = version + 1";
    db.batch_execute(newer).await.unwrap();
    let opened = store::open(&database.address(), Synchronous::Full, Access::Server).await;
    let Err(StoreError::TooNew { found, known }) = opened else {
        panic!("it was opened");
    };
    assert_eq!(found, known + 1);
}

#[tokio::test]
async fn a_name_with_a_null_character_finds_nothing() {
    let database = Database::fresh().await;
    let store = open(&database.address()).await;
    let anna = arrive(&store, "anna").await;
    let nothing = "hi\0".to_owned();
    assert_eq!(store.group(&nothing, None).await.unwrap(), None);
    assert_eq!(store.account(&nothing).await.unwrap(), None);
    for target in [
        Target::Group(nothing.clone()),
        Target::Private(nothing.clone()),
    ] {
        let entered = store.enter(anna.here(), target).await;
        assert_eq!(settled(entered), Err(Refused::NoSuchRoom));
    }
    assert!(store.find_people(&nothing, 9).await.unwrap().is_empty());
    assert!(store.find_groups(&nothing, 9).await.unwrap().is_empty());
    assert_eq!(store.find_person(vec![nothing]).await.unwrap(), None);
}

#[tokio::test]
async fn a_hundred_thousand_users_are_made_in_seconds() {
    let database = Database::fresh().await;
    let store = open(&database.address()).await;
    let began = std::time::Instant::now();
    for some in 0..20 {
        let users = (0..5_000).map(|n| new_user(&format!("user{}", some * 5_000 + n)));
        assert_eq!(store.add_users(users.collect()).await.unwrap(), 5_000);
    }
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}
