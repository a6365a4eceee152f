//! Search in a large chat, in both databases, for somebody in 5 busy groups, somebody in 200 groups, and
//! somebody in 200 groups in which next to nothing of all that is written there is.
//! Each tenth answer is compared with a scan of all messages.
//!
//! Afterwards, in the same chat: what it costs posts that they are indexed.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use overwire::chat::Indexer;
use overwire::model::{GroupName, MessageId, MessageText, Millis, NodeId, RoomId, UserId};
use overwire::search::Query;
use overwire::store::{self, Access, Member, NewRoom, OldMessage, Store, Synchronous};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::Options;
use crate::machine::Machine;
use crate::postgres::Database;
use crate::posts::{arrives, newcomer, write};
use crate::table::{self, Figure, milliseconds, quantile};

/// How many groups each of the people who search has.
const GROUPS: [usize; 3] = [5, 200, 200];
/// How many of a hundred messages are in the groups of each of them.
const SHARES: [usize; 3] = [50, 49, 1];
const AUTHORS: usize = 100;
/// How many words the language of the messages has. The n-th is n times as rare as the first.
const WORDS: usize = 50_000;
/// How many messages are added in one transaction.
const ADDED_AT_ONCE: usize = 5_000;
/// How often each kind of search runs at most.
const MOST_ROUNDS: usize = 200;
/// Each answer of so many is compared with a scan, which takes far longer than the search.
const COMPARED: usize = 10;
/// How many people post at a time.
const WRITERS: [usize; 2] = [1, 16];
/// How many results a search returns at most.
const RESULTS: usize = 50;

/// What is searched for. `{a}` is one of the twenty most frequent words, `{b}` a rarer one, `{c}` one that is
/// in a few dozen messages.
const KINDS: [(&str, &str); 10] = [
    ("a common word", "{a}"),
    ("a rare word", "{c}"),
    ("a word that nobody has written", "{c}zz"),
    ("two common words", "{a} {b}"),
    ("five words", "{a} {b} {a} {b} {c}"),
    ("a phrase of common words", "\"{a} {b}\""),
    ("the beginning of a word, two letters", "{2}*"),
    ("the beginning of a word, four letters", "{4}*"),
    ("a common word by one person", "{a} from:{u}"),
    ("a common word in one group", "{a} in:{g}"),
];

/// A message as the scan sees it.
struct Written {
    id: MessageId,
    /// In whose groups it is, and in which of them.
    searcher: usize,
    group: usize,
    author: usize,
    /// Its words, with a space before and behind each.
    text: String,
}

struct Chat {
    /// Those of each searcher.
    groups: [Vec<(String, RoomId)>; 3],
    searchers: [UserId; 3],
    authors: Vec<(String, UserId)>,
    messages: Vec<Written>,
}

/// Measures and prints.
pub(crate) fn measure(options: &Options, machine: &Machine) -> anyhow::Result<()> {
    machine.step_back();
    let runtime = tokio::runtime::Runtime::new()?;
    let (mut rows, mut indexing, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    // Filling takes minutes, so it is done once, however often the other parts are measured.
    for database in ["SQLite", "PostgreSQL"] {
        let length = table::counted(options.messages() as usize);
        eprintln!("search in {length} messages, {database}");
        runtime.block_on(async {
            let folder = tempfile::tempdir_in(&options.folder)?;
            let (address, postgres) = match database {
                "SQLite" => (folder.path().join("search.db").display().to_string(), None),
                _ => {
                    let database = Database::fresh().await;
                    (database.address(), Some(database))
                }
            };
            let store = store::open(&address, Synchronous::Normal, Access::Server).await?;
            let chat = fill(&store, options.messages() as usize).await?;
            indexing.push(index(&store).await? / chat.messages.len() as f64);
            // PostgreSQL does this by itself, some time after so many rows were added, and would do it meanwhile.
            if let Some(postgres) = &postgres {
                for upkeep in ["vacuum analyze", "checkpoint"] {
                    postgres.look().await.batch_execute(upkeep).await?;
                }
            }
            for (searcher, groups) in GROUPS.iter().enumerate() {
                for (kind, (what, _)) in KINDS.iter().enumerate() {
                    let mut times = Vec::new();
                    let mut random = StdRng::seed_from_u64(kind as u64);
                    for round in 0..options.size().rounds.min(MOST_ROUNDS) {
                        let is_compared = round % COMPARED == 0;
                        let took = search(&store, &chat, searcher, kind, is_compared, &mut random);
                        times.push(took.await?);
                    }
                    let shares = [0.5, 0.99].map(|share| quantile(&mut times, share));
                    let [half, most] = shares.map(table::shown);
                    let head = [*what, database].map(str::to_owned);
                    let whose = [groups.to_string(), format!("{} %", SHARES[searcher])];
                    let cells = head.into_iter().chain(whose).chain([half, most]);
                    rows.push(cells.collect());
                }
            }
            for &writers in &WRITERS {
                for (is_indexed, figures) in posts(options, &store, &chat, writers).await? {
                    let indexed = if is_indexed { "yes" } else { "no" };
                    let head = [database, indexed, &writers.to_string()].map(str::to_owned);
                    let shown = figures.iter().map(Figure::show);
                    costs.push(head.into_iter().chain(shown).collect());
                }
            }
            store.close().await;
            anyhow::Ok(())
        })?;
    }
    table::print(
        &format!(
            "Searching {} messages",
            table::counted(options.messages() as usize)
        ),
        &[
            "",
            "database",
            "groups",
            "messages there",
            "p50, ms",
            "p99, ms",
        ],
        &rows,
    );
    let head = [
        "database",
        "indexed",
        "writers",
        "posts per second",
        "p50, ms",
        "p99, ms",
    ];
    table::print(
        "Posts directly to the store, indexed and not",
        &head,
        &costs,
    );
    let [sqlite, postgres] = &indexing[..] else {
        anyhow::bail!("two databases are measured");
    };
    println!(
        "To index a message in the background takes {} µs with SQLite and {} µs with PostgreSQL. Each \
         tenth answer was compared with a scan of all messages.\n",
        table::shown(*sqlite),
        table::shown(*postgres)
    );
    Ok(())
}

/// Posts, in turns with the index growing meanwhile and without. All are indexed before the next turn.
async fn posts(
    options: &Options,
    store: &Arc<Store>,
    chat: &Chat,
    writers: usize,
) -> anyhow::Result<[(bool, [Figure; 3]); 2]> {
    let node = NodeId::random();
    let room = chat.groups[0][0].1;
    let mut authors = Vec::new();
    for _ in 0..writers {
        authors.push(arrives(store, node).await?);
    }
    let (before, mut posted) = (store.census().await?.messages, 0);
    let mut costs = [false, true].map(|is_indexed| (is_indexed, <[Figure; 3]>::default()));
    for _ in 0..options.size().runs {
        for (is_indexed, [per_second, half, most]) in &mut costs {
            let mut changes = store.join(node).await?;
            let indexer = is_indexed.then(|| Indexer::start(store));
            let noting = tokio::spawn(async move {
                while let Some(change) = changes.recv().await {
                    if let Some(indexer) = &indexer {
                        indexer.note(&change);
                    }
                }
            });
            let (each, least) = (options.each(), options.size().least_posts);
            let mut done = write(store, node, authors.clone(), room, each, least).await?;
            noting.abort();
            posted += done.keys.len();
            per_second.add(done.keys.len() as f64 / done.elapsed.as_secs_f64());
            half.add(quantile(&mut done.milliseconds, 0.5));
            most.add(quantile(&mut done.milliseconds, 0.99));
            index(store).await?;
        }
    }
    let stored = store.census().await?.messages - before;
    ensure!(
        usize::try_from(stored)? == posted,
        "{posted} posts were acknowledged, {stored} are stored"
    );
    Ok(costs)
}

/// A word of the language, of four letters or more.
fn word(number: usize) -> String {
    let (mut word, mut rest) = (String::new(), number + 100);
    while rest > 0 {
        word.push(char::from(b"bdfgklmnprstvwz"[rest % 15]));
        word.push(char::from(b"aeiou"[rest / 15 % 5]));
        rest /= 75;
    }
    word
}

/// Adds people, groups and messages.
async fn fill(store: &Store, length: usize) -> anyhow::Result<Chat> {
    let node = NodeId::random();
    let mut searchers = [UserId(0); 3];
    for searcher in &mut searchers {
        *searcher = arrives(store, node).await?.1;
    }
    let (mut authors, mut groups) = (Vec::new(), [const { Vec::new() }; 3]);
    for _ in 0..AUTHORS {
        let user = newcomer(store, node).await?.1;
        authors.push((user.name, user.id));
    }
    for (searcher, number) in GROUPS.into_iter().enumerate() {
        let names = (0..number).map(|n| format!("group{searcher}x{n}"));
        let names: Vec<String> = names.collect();
        let rooms = names.iter().map(|name| {
            let name = GroupName::new(name).map_err(|bad| anyhow::anyhow!("{bad}"))?;
            let (topic, made_by) = (None, authors[0].1);
            anyhow::Ok(NewRoom::Group {
                name,
                topic,
                made_by,
            })
        });
        let rooms = rooms.collect::<anyhow::Result<Vec<_>>>()?;
        let ids = store.add_rooms(rooms, Millis::now()).await?;
        for (name, id) in names.into_iter().zip(ids) {
            let room = id.context("a new group")?;
            groups[searcher].push((name, room));
            let (last, read) = (MessageId(0), MessageId(0));
            let (user, since) = (searchers[searcher], Millis::now());
            store
                .add_members(vec![Member {
                    user,
                    room,
                    with: None,
                    since,
                    last,
                    read,
                }])
                .await?;
        }
    }
    let mut chat = Chat {
        groups,
        searchers,
        authors,
        messages: Vec::new(),
    };
    let mut random = StdRng::seed_from_u64(7);
    let mut sums = Vec::new();
    let mut sum = 0.0;
    for n in 0..WORDS {
        sum += 1.0 / (n as f64 + 2.0);
        sums.push(sum);
    }
    while chat.messages.len() < length {
        let mut old = Vec::new();
        for _ in 0..ADDED_AT_ONCE.min(length - chat.messages.len()) {
            let hundredth = random.random_range(0..100);
            let searcher = match hundredth < SHARES[0] {
                true => 0,
                false => 1 + usize::from(hundredth >= SHARES[0] + SHARES[1]),
            };
            let of = random.random_range(0..GROUPS[searcher]);
            let author = random.random_range(0..AUTHORS);
            let words = (0..random.random_range(3..22)).map(|_| {
                let at = random.random::<f64>() * sum;
                word(sums.partition_point(|sum| *sum < at))
            });
            let text = words.collect::<Vec<_>>().join(" ");
            let valid = MessageText::new(&text, 4_000);
            old.push(OldMessage {
                room: chat.groups[searcher][of].1,
                author: chat.authors[author].1,
                text: valid.map_err(|bad| anyhow::anyhow!("{bad:?}"))?.into(),
                at: Millis::now(),
            });
            let text = format!(" {text} ");
            chat.messages.push(Written {
                id: MessageId(0),
                searcher,
                group: of,
                author,
                text,
            });
        }
        let added = old.len();
        let ids = store.add_messages(old).await?;
        let first = chat.messages.len() - added;
        for (message, id) in chat.messages[first..].iter_mut().zip(ids) {
            message.id = id;
        }
    }
    Ok(chat)
}

/// Indexes everything. Returns how many microseconds that took.
async fn index(store: &Store) -> anyhow::Result<f64> {
    let began = Instant::now();
    for room in store.begin_indexing().await? {
        while let Some(part) = store.unindexed(room).await? {
            store.index(part).await?;
        }
    }
    while let Some(part) = store.unindexed_before().await? {
        store.index(part).await?;
    }
    Ok(milliseconds(began.elapsed()) * 1e3)
}

/// Searches once, and compares the answer if it is to be. Returns how many milliseconds the search took.
async fn search(
    store: &Store,
    chat: &Chat,
    searcher: usize,
    kind: usize,
    is_compared: bool,
    random: &mut StdRng,
) -> anyhow::Result<f64> {
    let author = random.random_range(0..AUTHORS);
    let group = random.random_range(0..GROUPS[searcher]);
    let mut typed = String::new();
    let mut rest = KINDS[kind].1;
    while let Some((before, after)) = rest.split_once('{') {
        let (hole, after) = after.split_once('}').context("a hole")?;
        typed += before;
        typed += &match hole {
            "a" => word(random.random_range(0..20)),
            "b" => word(random.random_range(0..200)),
            "c" => word(random.random_range(5_000..WORDS)),
            "2" => word(random.random_range(0..200))[..2].to_owned(),
            "4" => word(random.random_range(0..200))[..4].to_owned(),
            "u" => chat.authors[author].0.clone(),
            _ => chat.groups[searcher][group].0.clone(),
        };
        rest = after;
    }
    typed += rest;
    let (me, query) = (chat.searchers[searcher], Query::of(&typed));
    let began = Instant::now();
    let found = store.search(me, query, None, RESULTS).await?;
    let took = milliseconds(began.elapsed());
    if !is_compared {
        return Ok(took);
    }
    let found: Vec<_> = found
        .messages
        .iter()
        .map(|(message, _)| message.id)
        .collect();
    let expected = chat.messages.iter().rev().filter(|message| {
        let is_there = !typed.contains(" in:") || message.group == group;
        let is_by = !typed.contains(" from:") || message.author == author;
        message.searcher == searcher && is_there && is_by && has(message, &typed)
    });
    let expected: Vec<_> = expected.map(|message| message.id).take(RESULTS).collect();
    ensure!(
        found == expected,
        "{typed}: found {found:?} instead of {expected:?}"
    );
    Ok(took)
}

/// Whether a message has the words of a query.
fn has(message: &Written, typed: &str) -> bool {
    let text = &message.text;
    if let Some(phrase) = typed.strip_prefix('"') {
        return text.contains(&format!(" {} ", phrase.trim_end_matches('"')));
    }
    let mut words = typed.split(' ').filter(|word| !word.contains(':'));
    words.all(|word| match word.strip_suffix('*') {
        Some(beginning) => text.contains(&format!(" {beginning}")),
        None => text.contains(&format!(" {word} ")),
    })
}
