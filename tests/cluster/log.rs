//! What the log and the metrics of a node say while PostgreSQL or Redis is gone: however much fails,
//! one line when it goes and one when it is back.

use std::net::SocketAddr;
use std::path::Path;

use crate::Crowd;
use crate::support::postgres::{Database, free_port};
use crate::support::redis::Redis;
use crate::support::{Door, Program, until};

async fn value(metrics: Door, series: &str) -> f64 {
    let scraped = metrics.get("/metrics").await.body;
    let mut lines = scraped.lines().filter_map(|line| line.rsplit_once(' '));
    let (_, value) = lines.find(|(name, _)| *name == series).expect(series);
    value.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_two_lines_of_the_log() {
    let (database, redis) = (Database::on_a_server_of_its_own().await, Redis::start());
    let metrics = Door(SocketAddr::from(([127, 0, 0, 1], free_port())));
    let (address, relay) = (database.address(), redis.address());
    let (listen, address) = (metrics.0.to_string(), Path::new(&address));
    let files = tempfile::tempdir().unwrap();
    let files = files.path().to_str().unwrap();
    let arguments = [
        "--relay",
        &relay,
        "--metrics",
        &listen,
        "--files",
        files,
        "--unlimited",
    ];
    let node = Program::start(address, &arguments).await;
    let mut crowd = Crowd::of(6, &[node.door], &[]);
    crowd.goes_on(50).await;
    assert_eq!(value(metrics, "overwire_relay_connected").await, 1.0);

    // Every connection gets a warning.
    database.stops("immediate").await;
    // People go on writing, and others arrive.
    until("many failures", async || {
        let pages = [(); 20].map(|()| node.get("/chat/hi/"));
        for page in futures_util::future::join_all(pages).await {
            assert_eq!(page.status, 503);
        }
        let failed = value(metrics, "overwire_store_failures_total{operation=\"read\"}").await;
        let unsaved = value(
            metrics,
            "overwire_store_failures_total{operation=\"write\"}",
        )
        .await;
        failed > 100.0 && unsaved > 20.0
    })
    .await;
    database.restarts("fast").await;
    crowd.goes_on(50).await;
    until("the node to be ready", async || {
        node.get("/ready").await.status == 200
    })
    .await;

    redis.dies();
    crowd.goes_on(50).await;
    until("Redis to be missed", async || {
        value(metrics, "overwire_relay_connected").await == 0.0
    })
    .await;
    redis.starts_again();
    until("Redis to be back", async || {
        value(metrics, "overwire_relay_connected").await == 1.0
    })
    .await;
    assert!(value(metrics, "overwire_relay_missed_total").await > 0.0);
    crowd.goes_on(50).await;
    crowd.ends_as_stored_in(&database).await;

    node.signal("TERM");
    let (status, words) = node.ends().await;
    assert!(status.success(), "{status}: {words}");
    let lines: Vec<_> = words.lines().collect();
    let expected = [
        ("ERROR", "the database is not available: "),
        ("WARN", "the database is available again after "),
        ("ERROR", "Redis is not available: "),
        ("WARN", "Redis is available again after "),
    ];
    assert_eq!(lines.len(), expected.len(), "{words}");
    // The end of one outage may be noticed only after the other has begun.
    let [down, up, without_redis, with_redis] = expected.map(|(level, begins)| {
        let begins = format!(" {level} overwire::log: {begins}");
        let line = lines.iter().position(|line| line.contains(&begins));
        line.unwrap_or_else(|| panic!("{begins} is missing: {words}"))
    });
    assert!(down < up && without_redis < with_redis, "{words}");
    for line in lines {
        assert!(
            !line.contains('{') && !line.contains('"'),
            "no Debug: {line}"
        );
    }
}
