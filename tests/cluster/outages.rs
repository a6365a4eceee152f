//! Parts of a cluster that are gone for a while, replaced or restored while people write.

use std::time::Duration;

use tokio::time::sleep;

use crate::node::program;
use crate::nodes::programs;
use crate::support::crowd::Record;
use crate::support::long;
use crate::support::postgres::Database;
use crate::support::program::{command, command_of};
use crate::support::redis::Redis;
use crate::{Crowd, Node};

/// How many messages are stored between two faults.
const MESSAGES: usize = 100;

/// How long a part is gone.
fn a_while() -> Duration {
    long(Duration::from_secs(2), Duration::from_secs(20))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_are_killed_in_turn_while_people_write() {
    let (database, redis) = (Database::empty().await, Redis::shared());
    let mut nodes = programs(&database, redis).await;
    let doors = [nodes[0].door, nodes[1].door];
    let mut crowd = Crowd::of(6, &doors, &[]);
    for round in 0..long(4, 20) {
        crowd.goes_on(MESSAGES).await;
        let (turn, listen) = (round % 2, doors[round % 2].0.to_string());
        let (dead, alive) = match turn {
            0 => (&mut nodes[0], doors[1]),
            _ => (&mut nodes[1], doors[0]),
        };
        dead.signal("KILL");
        crowd.goes_on(MESSAGES).await;
        assert_eq!(alive.get("/ready").await.status, 200);
        *dead = program(command(), &database, redis, &listen).await;
    }
    crowd.goes_on(MESSAGES).await;
    crowd.ends_as_stored_in(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_gone_for_a_while() {
    let (database, redis) = (Database::fresh().await, Redis::start());
    let nodes = Node::two(&database, &redis).await;
    let mut crowd = Crowd::of(6, &[nodes[0].door, nodes[1].door], &[]);
    crowd.goes_on(MESSAGES).await;
    redis.dies();
    sleep(a_while()).await;
    crowd.goes_on(MESSAGES).await;
    redis.starts_again();
    crowd.goes_on(MESSAGES).await;
    crowd.ends_as_stored_in(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_is_gone_for_a_while() {
    let database = Database::on_a_server_of_its_own().await;
    let nodes = Node::two(&database, Redis::shared()).await;
    let doors = [nodes[0].door, nodes[1].door];
    let mut crowd = Crowd::of(6, &doors, &[]);
    crowd.goes_on(MESSAGES).await;
    database.stops("immediate").await;
    sleep(a_while()).await;
    for door in doors {
        assert_eq!(door.get("/ready").await.status, 503);
        assert_eq!(door.get("/health").await.status, 200);
    }
    database.restarts("fast").await;
    crowd.goes_on(MESSAGES).await;
    crowd.ends_as_stored_in(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_locked_for_a_while() {
    let database = Database::fresh().await;
    let nodes = Node::two(&database, Redis::shared()).await;
    let mut crowd = Crowd::of(6, &[nodes[0].door, nodes[1].door], &[]);
    crowd.goes_on(MESSAGES).await;
    let mut other = database.look().await;
    let lock = other.transaction().await.unwrap();
    let statement = "lock table messages in access exclusive mode";
    lock.batch_execute(statement).await.unwrap();
    sleep(a_while()).await;
    lock.rollback().await.unwrap();
    crowd.goes_on(MESSAGES).await;
    crowd.ends_as_stored_in(&database).await;
}

/// The earlier build is the program that OVERWIRE_TEST_PREVIOUS names. Without one, both builds are
/// this one, which tests the replacement but no difference between builds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_an_earlier_build_are_replaced_one_by_one() {
    let (database, redis) = (Database::empty().await, Redis::shared());
    let previous = std::env::var_os("OVERWIRE_TEST_PREVIOUS");
    let earlier = || match &previous {
        Some(program) => command_of(program),
        None => command(),
    };
    let nodes = [
        program(earlier(), &database, redis, "127.0.0.1:0").await,
        program(earlier(), &database, redis, "127.0.0.1:0").await,
    ];
    let doors = [nodes[0].door, nodes[1].door];
    let mut crowd = Crowd::of(6, &doors, &[]);
    crowd.goes_on(MESSAGES).await;
    let mut newer = Vec::new();
    for node in nodes {
        let listen = node.door.0.to_string();
        node.signal("TERM");
        let (status, log) = node.ends().await;
        assert!(status.success(), "{log}");
        newer.push(program(command(), &database, redis, &listen).await);
        // After the first, two builds share the chat.
        crowd.goes_on(long(MESSAGES, 2_000)).await;
    }
    crowd.ends_as_stored_in(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_is_restored_under_open_tabs() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.sql");
    let database = Database::fresh().await;
    let nodes = Node::two(&database, Redis::shared()).await;
    let (mut anna, mut bob) = (nodes[0].door.tab().await, nodes[1].door.tab().await);
    for text in ["one", "two"] {
        anna.says(text).await;
    }
    database.dumps(&dump).await;
    for text in ["three", "four"] {
        anna.says(text).await;
    }
    bob.sees("four").await;
    database.restores(&dump).await;
    bob.says("and on").await;
    for tab in [&mut anna, &mut bob] {
        tab.sees_exactly(&["one", "two", "and on"]).await;
    }
    anna.says("as ever").await;
    for tab in [&mut anna, &mut bob] {
        tab.sees_exactly(&["one", "two", "and on", "as ever"]).await;
    }
    assert_eq!(anna.version(), bob.version());
    let record = Record::of(&database);
    assert_eq!(record.times("as ever"), 1);
}
