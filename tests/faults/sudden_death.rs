//! `kill -9` while many write, again and again: what anybody saw is stored once, and everybody who
//! comes back ends with the same list.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use overwire::protocol::Dialect;
use rusqlite::Connection;

use crate::support::list::List;
use crate::support::wire::{Event, Wire};
use crate::support::{DEADLINE, Door, Program, soon, until};

const TABS: usize = 8;
const ROUNDS: usize = 4;
/// How many messages all tabs together see in the first round before the server dies; later rounds
/// last longer.
const SEEN: usize = 400;

struct Tab {
    list: List,
    number: usize,
    written: usize,
}

impl Tab {
    /// Comes back and sends unsettled messages again.
    async fn comes_back(&self, door: Door) -> Wire {
        let wire = door.socket(&self.list.socket_handshake()).await.unwrap();
        let again = self.list.again();
        again.into_iter().for_each(|action| wire.text(action));
        wire
    }

    /// Comes back and writes until the server is gone.
    async fn writes_until_the_end(&mut self, door: Door, seen: &AtomicUsize) {
        let mut wire = self.comes_back(door).await;
        loop {
            match wire.next().await {
                Event::Text(push) => {
                    let before = self.list.saw.len();
                    self.list.take(&push);
                    seen.fetch_add(self.list.saw.len() - before, Ordering::SeqCst);
                }
                Event::Closed(_) => return,
                Event::Other(other) => panic!("{other}"),
            }
            // A few at a time are pending, so that there is always something to lose.
            while self.list.room.is_some() && self.list.unsettled.len() < 3 {
                self.written += 1;
                let text = format!("{}-{}", self.number, self.written);
                wire.text(self.list.write(text));
            }
        }
    }

    /// Comes back to stay, until all its messages are settled and it shows what is stored.
    async fn converges(&mut self, door: Door) -> Wire {
        let mut wire = self.comes_back(door).await;
        while !self.list.unsettled.is_empty() || self.list.room.is_none() {
            match wire.next().await {
                Event::Text(push) => self.list.take(&push),
                other => panic!("{other:?}"),
            }
        }
        wire
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kills_every_message_seen_is_stored_once_and_all_lists_agree() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overwire.db");
    let mut tabs: Vec<Tab> = (0..TABS)
        .map(|number| Tab {
            list: List::new(Dialect::V1),
            number,
            written: 0,
        })
        .collect();
    let mut names = HashMap::new();
    for round in 0..ROUNDS {
        let program = Program::start(&file, &["--unlimited"]).await;
        let seen = Arc::new(AtomicUsize::new(0));
        let mut writing = tokio::task::JoinSet::new();
        for mut tab in tabs.drain(..) {
            let (door, seen) = (program.door, Arc::clone(&seen));
            writing.spawn(async move {
                tab.writes_until_the_end(door, &seen).await;
                tab
            });
        }
        let enough = SEEN * (round + 1);
        until("enough messages", async || {
            seen.load(Ordering::SeqCst) >= enough
        })
        .await;
        program.dies().await;
        tabs = tokio::time::timeout(DEADLINE, writing.join_all())
            .await
            .unwrap();
        for tab in &tabs {
            let name = names.entry(tab.number).or_insert(tab.list.name.clone());
            assert_eq!(*name, tab.list.name, "everybody stays who they are");
        }
    }

    let program = Program::start(&file, &["--unlimited"]).await;
    let mut lines = Vec::new();
    for tab in &mut tabs {
        lines.push(soon("the tab to settle", tab.converges(program.door)).await);
    }
    let stored: Vec<(i64, String, String)> = {
        let db = Connection::open(&file).unwrap();
        let mut query = db
            .prepare("select id, text, key from messages order by id")
            .unwrap();
        let rows = query
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap();
        rows.map(Result::unwrap).collect()
    };
    let ids: Vec<i64> = stored.iter().map(|(id, ..)| *id).collect();
    for (tab, wire) in tabs.iter_mut().zip(&mut lines) {
        soon("the same list", async {
            while !tab.list.is_end_of(&ids) {
                match wire.next().await {
                    Event::Text(push) => tab.list.take(&push),
                    other => panic!("{other:?}"),
                }
            }
        })
        .await;
    }

    let written: usize = tabs.iter().map(|tab| tab.written).sum();
    let texts: HashSet<&str> = stored.iter().map(|(_, text, _)| text.as_str()).collect();
    let keys: HashSet<&str> = stored.iter().map(|(.., key)| key.as_str()).collect();
    assert_eq!(
        (stored.len(), texts.len(), keys.len()),
        (written, written, written)
    );
    assert!(written > 100, "{written}");
    let by_id: HashMap<i64, &str> = stored
        .iter()
        .map(|(id, text, _)| (*id, text.as_str()))
        .collect();
    for (id, article) in tabs.iter().flat_map(|tab| &tab.list.saw) {
        let text = by_id
            .get(id)
            .unwrap_or_else(|| panic!("{article} was seen"));
        assert!(article.contains(&format!("<p class=\"message__text\">{text}</p>")));
    }
}
