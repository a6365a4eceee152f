//! PostgreSQL in trouble while two nodes write: a message that cannot be stored now is stored
//! later, once.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::interval;

use crate::support::postgres::{Cut, Database, Proxy};
use crate::support::redis::Redis;
use crate::support::until;
use crate::{Crowd, Node};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_restarts_while_people_write() {
    let database = Database::on_a_server_of_its_own().await;
    let nodes = Node::two(&database, Redis::shared()).await;
    let doors = [nodes[0].door, nodes[1].door];
    let mut crowd = Crowd::of(6, &doors, &[]);
    for mode in ["fast", "immediate", "fast"] {
        crowd.goes_on(100).await;
        database.restarts(mode).await;
    }
    crowd.goes_on(100).await;
    crowd.ends_as_stored_in(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_cut_between_a_commit_and_its_answer() {
    let database = Database::fresh().await;
    let proxies = [Proxy::start().await, Proxy::start().await];
    let [here, there] = [0, 1].map(|node: usize| database.address_at(proxies[node].port));
    let nodes = Node::two_at([&here, &there], &Redis::shared().address()).await;
    let doors = [nodes[0].door, nodes[1].door];
    let mut crowd = Crowd::of(6, &doors, &[]);
    for _ in 0..4 {
        for cut in [Cut::AfterCommit, Cut::BeforeCommit] {
            for proxy in &proxies {
                proxy.cut(cut);
            }
            until("the cuts", async || proxies.iter().all(Proxy::has_cut)).await;
            crowd.goes_on(20).await;
        }
    }
    crowd.ends_as_stored_in(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_readers_of_a_node_are_blocked_and_more_wait() {
    let database = Database::fresh().await;
    let nodes = Node::two(&database, Redis::shared()).await;
    let doors = [nodes[0].door, nodes[1].door];
    let mut crowd = Crowd::of(4, &doors, &[]);
    crowd.goes_on(50).await;
    let (mut holds, look) = (database.look().await, database.look().await);
    for _ in 0..3 {
        let held = holds.transaction().await.unwrap();
        let lock = "lock table messages in access exclusive mode";
        held.batch_execute(lock).await.unwrap();
        let mut pages = JoinSet::new();
        for number in 0..60 {
            pages.spawn(doors[number % 2].get("/chat/hi/"));
        }
        until("every reader to wait", async || {
            let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
                and datname = current_database() and query like '%messages%'";
            let waiting: i64 = look.query_one(waiting, &[]).await.unwrap().get(0);
            waiting >= 16
        })
        .await;
        assert!(pages.try_join_next().is_none());
        held.commit().await.unwrap();
        for page in pages.join_all().await {
            assert_eq!(page.status, 200);
        }
        crowd.goes_on(50).await;
    }
    crowd.ends_as_stored_in(&database).await;
}

/// Two nodes and people who write on each. The first node reaches the database through a proxy.
struct OneBehindAProxy {
    database: Database,
    proxy: Proxy,
    nodes: [Node; 2],
    crowd: Crowd,
    others: Crowd,
}

impl OneBehindAProxy {
    async fn start() -> Self {
        let (database, proxy) = (Database::fresh().await, Proxy::start().await);
        let addresses = [database.address_at(proxy.port), database.address()];
        let redis = Redis::shared().address();
        let nodes = Node::two_at([&addresses[0], &addresses[1]], &redis).await;
        let mut crowd = Crowd::of(2, &[nodes[0].door], &[]);
        let others = Crowd::of(2, &[nodes[1].door], &[]);
        crowd.goes_on(50).await;
        Self {
            database,
            proxy,
            nodes,
            crowd,
            others,
        }
    }
}

/// Both crowds stop before the stored messages are read.
async fn both_end_as_stored_in(database: &Database, crowd: Crowd, others: Crowd) {
    let (one, other) = tokio::join!(crowd.falls_silent(), others.falls_silent());
    one.ends_as_stored_in(database).await;
    other.ends_as_stored_in(database).await;
}

/// If its proxy passes nothing on, a node also misses its lease, and its people leave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_loses_contact_with_its_database_for_a_while() {
    let OneBehindAProxy {
        database,
        proxy,
        nodes,
        mut crowd,
        mut others,
    } = OneBehindAProxy::start().await;
    proxy.stall();
    others.goes_on(200).await;
    let mut page = tokio::spawn(nodes[0].door.get("/chat/hi/"));
    let waits = tokio::time::timeout(Duration::from_millis(100), &mut page).await;
    assert!(waits.is_err(), "nothing is read meanwhile");
    proxy.open();
    crowd.goes_on(50).await;
    assert_eq!(nodes[0].door.get("/chat/hi/").await.status, 200);
    both_end_as_stored_in(&database, crowd, others).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_transaction_blocks_others_only_briefly() {
    let OneBehindAProxy {
        database,
        proxy,
        nodes: _nodes,
        mut crowd,
        mut others,
    } = OneBehindAProxy::start().await;
    for _ in 0..2 {
        proxy.cut(Cut::InSilence);
        until("the cut", async || proxy.has_cut()).await;
        let began = Instant::now();
        others.goes_on(50).await;
        // Less than any of their deadlines, so that nobody sees a failure.
        assert!(began.elapsed() < Duration::from_secs(10));
        crowd.goes_on(50).await;
    }
    both_end_as_stored_in(&database, crowd, others).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_writing_crosswise_survive_deadlocks() {
    let database = Database::fresh().await;
    let name = database.name();
    let impatient = format!("alter database {name} set deadlock_timeout = '20ms'");
    database
        .look()
        .await
        .batch_execute(&impatient)
        .await
        .unwrap();
    let nodes = Node::two(&database, Redis::shared()).await;
    let doors = [nodes[0].door, nodes[1].door];
    let mut rooms = Vec::new();
    for group in ["hi", "python", "events"] {
        let group = nodes[0].store.group(group, None).await.unwrap().unwrap();
        rooms.push(group.id);
    }
    let names: Vec<String> = rooms.iter().map(ToString::to_string).collect();
    let mut crowd = Crowd::of(8, &doors, &names);
    crowd.goes_on(100).await;
    rooms.sort();
    // The nodes lock rooms in one order, so another connection locks them in the opposite order. It
    // never times out, so it is always a node that detects the deadlock.
    let other = database.look().await;
    other
        .batch_execute("set deadlock_timeout = '1h'")
        .await
        .unwrap();
    let look = database.look().await;
    let rings = async || -> i64 {
        let counted = "select deadlocks from pg_stat_database where datname = current_database()";
        look.query_one(counted, &[]).await.unwrap().get(0)
    };
    let mut turns = interval(Duration::from_millis(50));
    while rings().await < 10 {
        turns.tick().await;
        let lock = |room: i64| format!("select 1 from rooms where id = {room} for update");
        let (first, second) = (lock(rooms[2].0), lock(rooms[0].0));
        let begin = format!("begin; {first}");
        other.batch_execute(&begin).await.unwrap();
        until("a batch to want the room", async || {
            let waiting = "select count(*) from pg_stat_activity
                where wait_event_type = 'Lock' and datname = current_database()";
            look.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0
        })
        .await;
        other.batch_execute(&second).await.unwrap();
        other.batch_execute("commit").await.unwrap();
    }
    crowd.goes_on(100).await;
    crowd.ends_as_stored_in(&database).await;
}
