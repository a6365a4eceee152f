//! What the metrics say while people chat, and where they are served.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::postgres::free_port;
use crate::support::wire::Handshake;
use crate::support::{Door, Program, until};

const GUIDE: &str = include_str!("../../docs/OPERATING.md");
const DASHBOARD: &str = include_str!("../../docs/grafana-dashboard.json");

/// A server whose metrics are served.
struct Measured {
    server: Program,
    metrics: Door,
    _folder: TempDir,
}

impl Measured {
    async fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let metrics = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let listen = metrics.to_string();
        let all = [&["--metrics", &*listen], arguments].concat();
        Self {
            server: Program::start(&folder.path().join("overwire.db"), &all).await,
            metrics: Door(metrics),
            _folder: folder,
        }
    }

    async fn scrape(&self) -> String {
        let answer = self.metrics.get("/metrics").await;
        assert_eq!(answer.status, 200);
        let format = answer.header("Content-Type").unwrap();
        assert!(format.starts_with("text/plain; version=0.0.4"), "{format}");
        answer.body
    }

    /// The value of a series.
    async fn value(&self, series: &str) -> f64 {
        let scraped = self.scrape().await;
        let mut lines = scraped.lines().filter_map(|line| line.rsplit_once(' '));
        let found = lines.find(|(name, _)| *name == series);
        let (_, value) = found.unwrap_or_else(|| panic!("there is no {series} in {scraped}"));
        value.parse().unwrap()
    }

    async fn is(&self, series: &str, expected: f64) {
        until(&format!("{series} to be {expected}"), async || {
            self.value(series).await == expected
        })
        .await;
    }

    async fn exceeds(&self, series: &str, least: f64) {
        until(&format!("{series} to exceed {least}"), async || {
            self.value(series).await > least
        })
        .await;
    }
}

#[tokio::test]
async fn the_metrics_change_as_people_act() {
    let chat = Measured::start(&[]).await;
    for series in [
        "overwire_people",
        "overwire_rooms",
        "overwire_messages_total",
        "overwire_sockets{dialect=\"v1\"}",
        "overwire_refusals_total{reason=\"sign_in\"}",
        "overwire_disconnects_total{reason=\"closed\"}",
    ] {
        assert_eq!(chat.value(series).await, 0.0, "{series}");
    }
    let mut anna = chat.server.tab().await;
    let mut bob = chat.server.tab_at("/chat/python/").await;
    let plain = chat.server.plain_tab().await;
    chat.is("overwire_people", 3.0).await;
    chat.is("overwire_rooms", 2.0).await;
    chat.is("overwire_sockets{dialect=\"v1\"}", 2.0).await;
    chat.is("overwire_sockets{dialect=\"plain\"}", 1.0).await;

    let sent = chat.value("overwire_sent_bytes_total").await;
    let pushes = chat.value("overwire_pushes_total").await;
    let commits = chat.value("overwire_commit_writes_count").await;
    anna.says("hello").await;
    chat.is("overwire_messages_total", 1.0).await;
    chat.is("overwire_changes_total", 1.0).await;
    chat.exceeds("overwire_sent_bytes_total", sent).await;
    chat.exceeds("overwire_pushes_total", pushes).await;
    chat.exceeds("overwire_received_bytes_total", 50.0).await;
    let commits_now = chat.value("overwire_commit_seconds_count").await;
    assert!(commits_now > commits);
    assert!(chat.value("overwire_read_seconds_count").await > 0.0);
    let message = anna.messages()[0].id;
    anna.sends(
        "React",
        json!({ "message": message, "emoji": "👍", "on": true }),
    );
    chat.is("overwire_changes_total", 2.0).await;
    chat.is("overwire_messages_total", 1.0).await;

    let refused = json!({ "message": 999, "text": "not mine" });
    bob.is_refused("Edit message", refused).await;
    chat.is("overwire_refusals_total{reason=\"action\"}", 1.0)
        .await;
    let wrong = [("name", "nobody1"), ("password", "a wrong one")];
    let answer = chat.server.post("/sign-in/", &wrong, &[]).await;
    assert_eq!(answer.status, 401);
    chat.is("overwire_refusals_total{reason=\"sign_in\"}", 1.0)
        .await;
    let elsewhere = Handshake {
        headers: vec![("Origin".to_owned(), "https://evil.example".to_owned())],
        ..Handshake::default()
    };
    assert_eq!(chat.server.socket(&elsewhere).await.err(), Some(403));
    chat.is("overwire_refusals_total{reason=\"origin\"}", 1.0)
        .await;

    anna.closes().await;
    bob.loses_the_network();
    chat.is("overwire_disconnects_total{reason=\"closed\"}", 1.0)
        .await;
    chat.is("overwire_disconnects_total{reason=\"lost\"}", 1.0)
        .await;
    chat.is("overwire_people", 1.0).await;
    chat.is("overwire_sockets{dialect=\"v1\"}", 0.0).await;
    drop(plain);
    chat.is("overwire_rooms", 0.0).await;
    // There is no relay that could be lost.
    assert_eq!(chat.value("overwire_relay_connected").await, 1.0);
    assert_eq!(
        chat.value("overwire_store_failures_total{operation=\"write\"}")
            .await,
        0.0
    );
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_seen_in_the_metrics() {
    let chat = Measured::start(&["--unlimited"]).await;
    let (mut anna, mut deaf) = (chat.server.tab().await, chat.server.tab().await);
    deaf.stops_reading().await;
    // More than the system and the outbox hold.
    let text = "x".repeat(3900);
    for number in 0..250 {
        anna.says(&format!("{number} {text}")).await;
    }
    chat.is("overwire_fell_behind_total", 1.0).await;
    chat.is("overwire_sockets_behind", 1.0).await;
    chat.exceeds("overwire_outbox_fullest_bytes", 100_000.0)
        .await;
    assert!(chat.value("overwire_outbox_pushes").await > 1.0);
    deaf.goes_deaf(false);
    chat.exceeds("overwire_catch_ups_total{result=\"done\"}", 0.0)
        .await;
    chat.is("overwire_sockets_behind", 0.0).await;
    chat.is("overwire_outbox_bytes", 0.0).await;
}

#[tokio::test]
async fn the_metrics_have_a_port_of_their_own() {
    let chat = Measured::start(&[]).await;
    assert_eq!(chat.server.get("/metrics").await.status, 404);
    for path in ["/", "/chat/hi/", "/ready", "/ws/", "/admin/"] {
        assert_eq!(chat.metrics.get(path).await.status, 404, "{path}");
    }
    assert!(chat.metrics.socket(&Handshake::default()).await.is_err());
    assert!(chat.scrape().await.contains("overwire_people 0"));
}

#[tokio::test]
async fn the_guide_explains_every_metric() {
    let chat = Measured::start(&[]).await;
    let scraped = chat.scrape().await;
    let about = |word: &str| -> BTreeMap<String, String> {
        let lines = scraped.lines().filter_map(|line| line.strip_prefix(word));
        let pairs = lines.map(|line| line.split_once(' ').unwrap());
        pairs
            .map(|(name, it)| (name.to_owned(), it.to_owned()))
            .collect()
    };
    let (types, helps) = (about("# TYPE "), about("# HELP "));
    let mut explained = BTreeSet::new();
    for line in GUIDE.lines() {
        let cells: Vec<_> = line
            .split(" | ")
            .map(|cell| cell.trim_matches(['|', ' ']))
            .collect();
        let [name, kind, unit, label, meaning] = cells[..] else {
            continue;
        };
        let Some(name) = name
            .strip_prefix('`')
            .and_then(|name| name.strip_suffix('`'))
        else {
            continue;
        };
        assert_eq!(types.get(name).map(String::as_str), Some(kind), "{name}");
        assert_eq!(helps.get(name).map(String::as_str), Some(meaning), "{name}");
        let expected = ["seconds", "bytes"]
            .into_iter()
            .find(|unit| name.contains(unit));
        assert_eq!(unit, expected.unwrap_or("–"), "{name}");
        let label = label.trim_matches('`');
        let has_label = scraped.contains(&format!("{name}{{{label}="));
        assert_eq!(has_label, label != "–", "{name}");
        explained.insert(name.to_owned());
    }
    let measured: BTreeSet<_> = types.into_keys().collect();
    assert_eq!(explained, measured);
    // The values of a label have tables of their own.
    for line in scraped.lines().filter(|line| line.contains("reason=\"")) {
        let (_, reason) = line.split_once("reason=\"").unwrap();
        let (reason, _) = reason.split_once('"').unwrap();
        assert!(GUIDE.contains(&format!("| `{reason}` |")), "{reason}");
    }
}

#[tokio::test]
async fn the_dashboard_asks_for_nothing_that_is_not_measured() {
    let chat = Measured::start(&[]).await;
    let scraped = chat.scrape().await;
    let series: BTreeSet<_> = scraped
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let mut asked = BTreeSet::new();
    for target in targets.flatten() {
        let query = target["expr"].as_str().unwrap();
        let words = query.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let names: Vec<_> = words
            .filter(|word| word.starts_with("overwire_") || word.starts_with("process_"))
            .collect();
        assert!(!names.is_empty(), "{query}");
        for name in names {
            assert!(series.contains(name), "{name} in {query}");
            asked.insert(name);
        }
    }
    // What is measured is shown, apart from parts of histograms.
    for name in series.iter().filter(|name| name.starts_with("overwire_")) {
        let is_part = ["_sum", "_count"].iter().any(|part| name.ends_with(part));
        assert!(
            is_part || asked.contains(name) || name.ends_with("writes_bucket"),
            "{name}"
        );
    }
}
