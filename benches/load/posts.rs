//! Durable posts over sockets and directly to the store. Each acknowledged post is looked up
//! afterwards.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use overwire::fake::FakeUsers;
use overwire::model::{ClientRef, Found, MessageText, NodeId, ResumeToken, RoomId, User, UserId};
use overwire::store::{self, Access, Actor, Arrival, Arrived, Post, Posted, Store, Synchronous};
use overwire::text::Draft;
use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;

use crate::Options;
use crate::crowd::between;
use crate::machine::Machine;
use crate::server::Process;
use crate::table::{self, Figure, milliseconds, quantile};
use crate::wire::{self, Wire};

const TEXT: &str = "Shall we meet at the station at eight, or is that too early?";

/// Acknowledged posts, and how long each took.
#[derive(Default)]
pub(crate) struct Acknowledged {
    pub(crate) keys: Vec<Uuid>,
    pub(crate) milliseconds: Vec<f64>,
    pub(crate) elapsed: Duration,
}

/// Measures and prints.
pub(crate) fn measure(options: &Options, machine: &Machine) -> anyhow::Result<()> {
    machine.step_back();
    let mut figures: BTreeMap<_, [Figure; 3]> = BTreeMap::new();
    let mut audited = 0;
    for run in 1..=options.runs() {
        for synchronous in ["full", "normal"] {
            for &writers in options.writers() {
                for by_sockets in [true, false] {
                    let way = if by_sockets {
                        "over sockets"
                    } else {
                        "on the store"
                    };
                    eprintln!("run {run}: {writers} writers {way}, synchronous {synchronous}");
                    let folder = tempfile::tempdir_in(&options.folder)?;
                    let database = folder.path().join("posts.db");
                    let mut done = if by_sockets {
                        by_socket(options, &database, synchronous, writers)?
                    } else {
                        on_the_store(options, &database, synchronous, writers)?
                    };
                    audit_keys(&database, &done.keys)?;
                    audited += done.keys.len();
                    let row = (by_sockets, synchronous, writers);
                    let [per_second, half, most] = figures.entry(row).or_default();
                    per_second.add(done.keys.len() as f64 / done.elapsed.as_secs_f64());
                    half.add(quantile(&mut done.milliseconds, 0.5));
                    most.add(quantile(&mut done.milliseconds, 0.99));
                }
            }
        }
    }
    for (title, by_sockets) in [
        ("Durable posts over sockets", true),
        ("Durable posts directly to the store", false),
    ] {
        let rows: Vec<_> = figures
            .iter()
            .filter(|((by, ..), _)| *by == by_sockets)
            .map(|((_, synchronous, writers), figures)| {
                let shown = figures.iter().map(Figure::show);
                let head = [(*synchronous).to_owned(), writers.to_string()];
                head.into_iter().chain(shown).collect()
            })
            .collect();
        table::print(
            title,
            &[
                "synchronous",
                "writers",
                "posts per second",
                "p50, ms",
                "p99, ms",
            ],
            &rows,
        );
    }
    println!(
        "{} acknowledged posts were looked up in the database. Each was there exactly once, and nothing else was there.\n",
        table::counted(audited)
    );
    Ok(())
}

/// Each writer posts from its own tab, and again when its message is acknowledged. Nobody shows the
/// room, so only posting is measured. At the end the server is killed, like in a crash.
fn by_socket(
    options: &Options,
    database: &Path,
    synchronous: &str,
    writers: usize,
) -> anyhow::Result<Acknowledged> {
    let command = std::process::Command::new(&options.server);
    let server = Process::server(command, database, synchronous)?;
    let room = room_id(database, "hi")?;
    let mut wire = Wire::new()?;
    let mut ready = 0;
    for _ in 0..writers {
        wire.upgrade(server.address, "/ws/chat/?at=/chat/off-topic/", "")?;
    }
    while ready < writers {
        wire.read(Duration::from_secs(1), |_, frame| {
            ready +=
                usize::from(wire::payload(frame)?.starts_with(br##"{"selector":"#messages-list"##));
            Ok(())
        })?;
    }

    let mut acknowledged = Acknowledged::default();
    let mut under_way: Vec<Option<(Uuid, Instant)>> = vec![None; writers];
    let mut due: Vec<usize> = (0..writers).collect();
    let began = Instant::now();
    loop {
        let more = began.elapsed() < options.each()
            || acknowledged.keys.len() < options.size().least_posts;
        for writer in std::mem::take(&mut due) {
            let key = Uuid::new_v4();
            under_way[writer] = more.then(|| (key, Instant::now()));
            if more {
                let action = format!(
                    r#"{{"action":"New message","data":{{"message":"{TEXT}","room":"{room}","key":"{key}"}}}}"#
                );
                wire.send(writer, &action)?;
            }
        }
        if under_way.iter().all(Option::is_none) {
            break;
        }
        let came = wire.read(Duration::from_secs(30), |writer, frame| {
            let payload = String::from_utf8(wire::payload(frame)?)?;
            ensure!(
                !payload.contains("#notice"),
                "a post was refused: {payload}"
            );
            if let Some(key) = between(&payload, "data-key='", '\'') {
                let (posted, at) = under_way[writer].context("an answer to no post")?;
                ensure!(posted == key.parse::<Uuid>()?, "an answer to another post");
                acknowledged.keys.push(posted);
                acknowledged.milliseconds.push(milliseconds(at.elapsed()));
                due.push(writer);
            }
            Ok(())
        })?;
        ensure!(came, "a post was not answered");
    }
    acknowledged.elapsed = began.elapsed();
    server.kill()?;
    Ok(acknowledged)
}

fn on_the_store(
    options: &Options,
    database: &Path,
    synchronous: &str,
    writers: usize,
) -> anyhow::Result<Acknowledged> {
    let synchronous = match synchronous {
        "full" => Synchronous::Full,
        _ => Synchronous::Normal,
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let address = database.to_string_lossy();
        let store = store::open(&address, synchronous, Access::Server).await?;
        let node = NodeId::random();
        let mut changes = store.join(node).await?;
        let listening = tokio::spawn(async move { while changes.recv().await.is_some() {} });
        let room = store.group("hi", None).await?.context("no room")?.id;
        let mut authors = Vec::new();
        for _ in 0..writers {
            authors.push(arrives(&store, node).await?);
        }
        let least = options.size().least_posts;
        let all = write(&store, node, authors, room, options.each(), least).await?;
        store.close().await;
        listening.await?;
        Ok(all)
    })
}

/// Each author posts, and again when the post is committed, until the time is over and there are so many posts.
pub(crate) async fn write(
    store: &Arc<Store>,
    node: NodeId,
    authors: Vec<(ClientRef, UserId)>,
    room: RoomId,
    each: Duration,
    least: usize,
) -> anyhow::Result<Acknowledged> {
    let (began, least) = (Instant::now(), least.div_ceil(authors.len()));
    let writing = authors.into_iter().map(|author| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut done = Acknowledged::default();
            while began.elapsed() < each || done.keys.len() < least {
                let (key, at) = (Uuid::new_v4(), Instant::now());
                let posted = store.post(post(node, author, room, Some(key))?).await?;
                ensure!(matches!(posted, Posted::New(_)), "{posted:?}");
                done.milliseconds.push(milliseconds(at.elapsed()));
                done.keys.push(key);
            }
            anyhow::Ok(done)
        })
    });
    let writing: Vec<_> = writing.collect();
    let mut all = Acknowledged::default();
    for writer in writing {
        let done = writer.await??;
        all.keys.extend(done.keys);
        all.milliseconds.extend(done.milliseconds);
    }
    all.elapsed = began.elapsed();
    Ok(all)
}

/// A message for the store.
pub(crate) fn post(
    node: NodeId,
    (client, user): (ClientRef, UserId),
    room: RoomId,
    key: Option<Uuid>,
) -> anyhow::Result<Post> {
    let text = MessageText::new(TEXT, 4000).map_err(|bad| anyhow::anyhow!("{bad:?}"))?;
    Ok(Post {
        by: Actor { node, client, user },
        room,
        text: Draft::new(TEXT).wording(&text, "", &Found::default()),
        key,
        reply_to: None,
        files: Vec::new(),
    })
}

/// Connects somebody new.
pub(crate) async fn arrives(store: &Store, node: NodeId) -> anyhow::Result<(ClientRef, UserId)> {
    let (client, user) = newcomer(store, node).await?;
    Ok((client, user.id))
}

/// The same, with their name.
pub(crate) async fn newcomer(store: &Store, node: NodeId) -> anyhow::Result<(ClientRef, User)> {
    let mut spares = FakeUsers::random();
    loop {
        let arrival = Arrival {
            node,
            session: None,
            resume: None,
            token: ResumeToken::random().hash(),
            browser: None,
            spare: spares.next(),
            group: None,
        };
        if let Arrived::As { client, user, .. } = store.arrive(arrival).await? {
            return Ok((client, user));
        }
    }
}

pub(crate) fn look(database: &Path) -> anyhow::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    Ok(Connection::open_with_flags(database, flags)?)
}

fn room_id(database: &Path, name: &str) -> anyhow::Result<RoomId> {
    let id = look(database)?.query_one("select id from rooms where name = ?", [name], |row| {
        row.get(0)
    })?;
    Ok(RoomId(id))
}

/// Checks that each of these keys is in the database once, without other keys, and that the room's
/// versions have no gap.
fn audit_keys(database: &Path, keys: &[Uuid]) -> anyhow::Result<()> {
    let db = look(database)?;
    let stored = db
        .prepare("select key from messages")?
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    let expected: HashSet<_> = keys.iter().map(Uuid::to_string).collect();
    let found: HashSet<_> = stored.iter().cloned().collect();
    ensure!(
        stored.len() == keys.len() && found == expected,
        "{} posts were acknowledged, {} are stored, {} match",
        keys.len(),
        stored.len(),
        found.intersection(&expected).count()
    );
    let whole: bool = db.query_one(
        "select (select version from rooms where name = 'hi') = count(*)
            and min(made) = 1 and max(made) = count(*) and count(distinct made) = count(*)
         from messages",
        [],
        |row| row.get(0),
    )?;
    ensure!(whole, "the room's versions have a gap");
    Ok(())
}

/// Checks that the room contains these messages, in this order, and no others.
pub(crate) fn audit_room(database: &Path, name: &str, ids: &[i64]) -> anyhow::Result<()> {
    let stored = look(database)?
        .prepare("select m.id from messages m join rooms r on r.id = m.room_id where r.name = ? order by m.id")?
        .query_map([name], |row| row.get(0))?
        .collect::<Result<Vec<i64>, _>>()?;
    ensure!(
        stored == ids,
        "the stored messages differ from the shown ones"
    );
    Ok(())
}
