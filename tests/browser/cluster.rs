//! Two nodes that share PostgreSQL and Redis, behind a real Caddy that sends people to either.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::timeout;

use crate::browser::{Tab, story_with};
use crate::caddy::Caddy;
use crate::proxy::{ask, knock};
use crate::server::Server;
use crate::support::postgres::Database;
use crate::support::redis::Redis;

/// Far more than anything takes.
const DEADLINE: Duration = Duration::from_secs(30);
/// The longest time that a tab may be offline when its node restarts, in milliseconds: it waits for
/// up to four seconds if it lost a socket shortly before, and checks its clock once a second.
const RECONNECT: u64 = 8_000;
/// Lets the browser resolve the name of the site.
const RESOLVE: &str = "--host-resolver-rules=MAP chat.localhost 127.0.0.1";

struct Cluster {
    nodes: Vec<Node>,
    caddy: Caddy,
    database: Database,
}

struct Node {
    server: Server,
    /// Its id in the database since its last start.
    id: i64,
}

impl Cluster {
    async fn start() -> Self {
        let database = Database::fresh().await;
        let relay = Redis::shared().address();
        let arguments = ["--trusted-proxy", "127.0.0.1", "--relay", &relay];
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let server = Server::on(&database.address(), &arguments);
            let id = newest_node(&database, &nodes).await;
            nodes.push(Node { server, id });
        }
        let caddy = Caddy::in_front_of(&[nodes[0].server.address, nodes[1].server.address]).await;
        Self {
            nodes,
            caddy,
            database,
        }
    }

    /// The node that somebody is connected to; `None` while they are offline.
    async fn node_of(&self, name: &str) -> Option<usize> {
        let at = "select c.node_id from clients c join users u on u.id = c.user_id
            where u.name = $1 and c.left_at is null";
        let found = self
            .database
            .look()
            .await
            .query(at, &[&name])
            .await
            .unwrap();
        let id: i64 = found.first()?.get(0);
        self.nodes.iter().position(|node| node.id == id)
    }

    /// Reloads until two people are on different nodes.
    async fn parts(&self, one: &Tab<'_>, other: &Tab<'_>) -> usize {
        let began = Instant::now();
        loop {
            let (a, b) = (one.name().await, other.name().await);
            let at = (self.node_of(&a).await, self.node_of(&b).await);
            if let (Some(one), Some(other)) = at
                && one != other
            {
                return one;
            }
            assert!(
                began.elapsed() < DEADLINE,
                "always on the same node: {at:?}"
            );
            other.reload().await;
        }
    }

    async fn starts_again(&mut self, number: usize) {
        self.nodes[number].server.starts_again();
        self.nodes[number].id = newest_node(&self.database, &self.nodes).await;
    }

    /// How often a text is stored.
    async fn stored(&self, text: &str) -> i64 {
        let count = "select count(*) from messages where text = $1";
        let db = self.database.look().await;
        db.query_one(count, &[&text]).await.unwrap().get(0)
    }
}

/// The id of the node that started last.
async fn newest_node(database: &Database, known: &[Node]) -> i64 {
    let known: Vec<_> = known.iter().map(|node| node.id).collect();
    let others = "select id from nodes where id <> all($1)";
    let found = database.look().await.query(others, &[&known]).await;
    let found = found.unwrap();
    assert_eq!(found.len(), 1, "one node more");
    found[0].get(0)
}

/// Records each time a tab loses its socket, fails to open one, or gets one again.
async fn watch(tab: &Tab<'_>) {
    tab.run(
        "window.noted = []; const { dataset } = document.documentElement; \
         new MutationObserver(() => noted.push([dataset.connected === 'true', Date.now()])) \
         .observe(document.documentElement, { attributeFilter: ['data-connected'] })",
    )
    .await;
}

/// How often it lost its socket since then. Each time the first attempt succeeded, and quickly.
async fn losses(tab: &Tab<'_>) -> usize {
    let noted: Vec<(bool, u64)> = tab.get("noted").await;
    for pair in noted.chunks(2) {
        let [(false, lost), (true, found)] = pair else {
            panic!("the first attempt failed: {noted:?}");
        };
        assert!(found - lost < RECONNECT, "offline for too long: {noted:?}");
    }
    noted.len() / 2
}

/// Waits until a tab shows exactly these texts and nothing of its own is pending.
async fn shows_all(tab: &Tab<'_>, texts: &[String]) {
    tab.is_settled().await;
    let count = "document.querySelectorAll('.message > p').length";
    tab.until(&format!("{count} >= {}", texts.len())).await;
    let mut shown = tab.texts().await;
    shown.sort();
    let mut expected = texts.to_vec();
    expected.sort();
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn two_people_talk_across_nodes_and_one_node_dies() {
    let mut cluster = Cluster::start().await;
    story_with(&[RESOLVE], async |browser| {
        let page = cluster.caddy.origin();
        let [anna, bob] = browser.people(&format!("{page}/chat/python/")).await;
        let (a, b) = (anna.name().await, bob.name().await);
        cluster.parts(&anna, &bob).await;
        // Reloading kept him the same person.
        assert_eq!(bob.name().await, b);

        // Who is online, who types, and what they say.
        let both_are_here = "document.querySelector('#room-count').textContent.trim() === '2'";
        for (tab, other) in [(&anna, &b), (&bob, &a)] {
            tab.sees(&format!("#users-online [data-user='{other}']"))
                .await;
            tab.until(both_are_here).await;
        }
        for (tab, name, other) in [(&anna, &a, &bob), (&bob, &b, &anna)] {
            tab.writes("half a thought").await;
            let types = json!(format!("{name} is typing"));
            let typing = "document.querySelector('#room-typing').textContent";
            other.until(&format!("{typing}.includes({types})")).await;
        }
        anna.sends("").await;
        bob.hears("half a thought").await;
        bob.sends("").await;
        anna.until("document.querySelectorAll('.message > p').length === 2")
            .await;
        anna.is_settled().await;
        bob.is_settled().await;
        bob.sees_no("#room-typing p").await;

        // A private room between the two; a mark shows where something is unread.
        bob.meets(&a).await;
        bob.says("between us").await;
        anna.sees(&format!("#users-mine [data-user='{b}'][data-unread='1']"))
            .await;
        anna.meets(&b).await;
        anna.hears("between us").await;
        anna.says("and from me").await;
        bob.hears("and from me").await;

        // A reload may lead to the other node.
        anna.reload().await;
        assert_eq!(anna.name().await, a);
        anna.is_in(&b, &format!("/chat/@{b}/")).await;
        assert_eq!(anna.texts().await, ["between us", "and from me"]);
        let at = cluster.parts(&anna, &bob).await;

        // Her node dies. Both keep writing.
        cluster.nodes[at].server.dies();
        anna.sends("is anybody there").await;
        bob.hears("is anybody there").await;
        bob.says("I am").await;
        anna.hears("I am").await;
        anna.is_settled().await;
        assert_eq!(cluster.node_of(&a).await, Some(1 - at));
        for (tab, name, other) in [(&anna, &a, &b), (&bob, &b, &a)] {
            assert_eq!(&tab.name().await, name);
            assert_eq!(
                tab.texts().await,
                ["between us", "and from me", "is anybody there", "I am"]
            );
            tab.enters("python").await;
            assert_eq!(tab.texts().await, ["half a thought"; 2]);
            tab.sees(&format!("#users-mine [data-user='{other}'] .here"))
                .await;
        }
        for tab in [&anna, &bob] {
            tab.until(both_are_here).await;
        }
    })
    .await;
    for text in ["between us", "and from me", "is anybody there", "I am"] {
        assert_eq!(cluster.stored(text).await, 1, "{text}");
    }
    // Failed requests are logged too, without tokens.
    let log = cluster.caddy.log();
    assert!(
        log.contains("/ws/chat/…") && !log.contains("resume."),
        "{log}"
    );
}

#[tokio::test]
async fn a_rolling_restart_disturbs_nobody() {
    let mut cluster = Cluster::start().await;
    story_with(&[RESOLVE], async |browser| {
        let page = cluster.caddy.origin();
        let [anna, bob] = browser.people(&format!("{page}/chat/python/")).await;
        let names = [anna.name().await, bob.name().await];
        let first = cluster.parts(&anna, &bob).await;
        watch(&anna).await;
        watch(&bob).await;

        let mut said = Vec::new();
        let mut both_say = async |words: String| {
            for (tab, who) in [(&anna, "Anna"), (&bob, "Bob")] {
                let text = format!("{who}, {words}");
                tab.sends(&text).await;
                said.push(text);
            }
        };
        for node in [first, 1 - first] {
            both_say(format!("before {node} stops")).await;
            cluster.nodes[node].server.signal("TERM");
            both_say(format!("while {node} stops")).await;
            assert!(cluster.nodes[node].server.ends().success());
            both_say(format!("while {node} is away")).await;
            anna.is_settled().await;
            bob.is_settled().await;
            cluster.starts_again(node).await;
            both_say(format!("when {node} is back")).await;
        }

        for tab in [&anna, &bob] {
            shows_all(tab, &said).await;
        }
        assert_eq!(anna.texts().await, bob.texts().await);
        assert_eq!([anna.name().await, bob.name().await], names);
        // Her node restarted first, then the one she had moved to; his restarted only once.
        assert_eq!([losses(&anna).await, losses(&bob).await], [2, 1]);
        for text in &said {
            assert_eq!(cluster.stored(text).await, 1, "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_page_of_another_build_gets_its_files_from_any_node() {
    let cluster = Cluster::start().await;
    story_with(&[RESOLVE], async |browser| {
        // An address of the same origin without scripts; it becomes a page as another build would
        // render it.
        let anna = browser
            .open(&format!("{}/health", cluster.caddy.origin()))
            .await;
        anna.run(
            "history.replaceState(null, '', '/chat/hi/'); \
             fetch('/chat/hi/').then((page) => page.text()).then((page) => { \
               document.open(); \
               document.write(page.replaceAll(/\\/static\\/[0-9a-f]{16}\\//g, '/static/0123456789abcdef/')); \
               document.close(); \
             })",
        )
        .await;
        anna.is_somebody().await;
        let fetched = "performance.getEntriesByType('resource').map((one) => new URL(one.name).pathname) \
             .filter((path) => path.startsWith('/static/'))";
        let fetched: Vec<String> = anna.get(fetched).await;
        for file in ["css/overwire.css", "js/chat.js", "js/runtime.js"] {
            let address = format!("/static/0123456789abcdef/{file}");
            assert!(fetched.contains(&address), "{address}: {fetched:?}");
        }
        assert!(
            fetched
                .iter()
                .all(|path| path.starts_with("/static/0123456789abcdef/")),
            "{fetched:?}"
        );
        let styled = "getComputedStyle(document.querySelector('.aside')).overflow !== 'visible' \
             || document.styleSheets[0].cssRules.length > 100";
        anna.until(styled).await;
        anna.says("from a page of another build").await;
    })
    .await;
}

#[tokio::test]
async fn a_frozen_node_is_skipped_until_it_recovers() {
    let cluster = Cluster::start().await;
    let server = &cluster.nodes[0].server;
    let address = server.address.to_string();
    server.signal("STOP");
    let asking = ["health_checker", "failed", &address];
    cluster.caddy.logged(&asking).await;
    for _ in 0..10 {
        let page = ask(&cluster.caddy, "/chat/hi/", "");
        let page = timeout(DEADLINE, page).await.expect("an answer");
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    }
    server.signal("CONT");
    let asking = ["health_checker", "is up", &address];
    cluster.caddy.logged(&asking).await;
}

#[tokio::test]
async fn new_connections_go_to_the_node_with_the_fewest() {
    let cluster = Cluster::start().await;
    let count = "select count(*) from clients where left_at is null group by node_id";
    let db = cluster.database.look().await;
    let mut open = Vec::new();
    for pairs in 1..=8 {
        for _ in 0..2 {
            let protocol = "Sec-WebSocket-Protocol: overwire.v1\r\n";
            let (answer, socket) = knock(&cluster.caddy, "", protocol).await;
            assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
            open.push(socket);
        }
        let counts = db.query(count, &[]).await.unwrap();
        let counts: Vec<i64> = counts.iter().map(|row| row.get(0)).collect();
        assert_eq!(counts, [pairs, pairs]);
    }
}
