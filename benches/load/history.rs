//! A small chat with a page of messages, and one that `make_fake_users` fills: a million messages, a
//! hundred thousand users, ten thousand groups. The cost of a message, a newcomer or a key press must not grow with the
//! messages written before or with the size of the rest of the chat.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use overwire::model::{Emoji, MessageId, NodeId, RoomId, Target, UserId, Version};
use overwire::store::{self, Access, Actor, Posted, Store, Synchronous};
use rusqlite::{Connection, named_params};
use uuid::Uuid;

use crate::machine::Machine;
use crate::pages::Reader;
use crate::server::Process;
use crate::table::{self, Figure, milliseconds, quantile};
use crate::{Options, posts};

const OPERATIONS: [&str; 11] = [
    "newest page, from the store",
    "page before a message in the middle, from the store",
    "catch-up of 10 messages, from the store",
    "post, `synchronous` normal, on the store",
    "post, `synchronous` full, on the store",
    "the whole page, over HTTP",
    "connecting and entering a group, on the store",
    "a reaction, on the store",
    "permission check for `Typing`, from the store",
    "name completion, from the store",
    "somebody's groups and conversations, from the store",
];

/// Measures and prints.
pub(crate) fn measure(options: &Options, machine: &Machine) -> anyhow::Result<()> {
    machine.step_back();
    let lengths = [50, options.messages()];
    let mut figures =
        vec![[Figure::default(), Figure::default()]; OPERATIONS.len() * lengths.len()];
    for run in 1..=options.runs() {
        for (i, &length) in lengths.iter().enumerate() {
            eprintln!("run {run}: a room with {length} messages");
            let folder = tempfile::tempdir_in(&options.folder)?;
            let database = folder.path().join("history.db");
            let mut operations = vec![Vec::new(); OPERATIONS.len()];
            let runtime = tokio::runtime::Runtime::new()?;
            runtime.block_on(on_the_store(options, &database, length, &mut operations))?;
            over_http(options, &database, &mut operations[5])?;
            for (operation, times) in operations.iter_mut().enumerate() {
                let [half, most] = &mut figures[operation * lengths.len() + i];
                half.add(quantile(times, 0.5) * 1e3);
                most.add(quantile(times, 0.99) * 1e3);
            }
        }
    }
    let rows: Vec<_> = OPERATIONS
        .iter()
        .zip(figures.chunks(lengths.len()))
        .map(|(operation, figures)| {
            let shown = figures
                .iter()
                .flat_map(|both| both.iter().map(Figure::show));
            std::iter::once((*operation).to_owned())
                .chain(shown)
                .collect()
        })
        .collect();
    let length = table::counted(options.messages() as usize);
    let (users, groups) = (
        table::counted(options.size().users as usize),
        table::counted(options.size().groups as usize),
    );
    table::print(
        "A small and a large chat, in microseconds",
        &[
            "",
            "50 messages, no users but those in it, 4 groups: p50",
            "p99",
            &format!("{length} messages, {users} users, {groups} groups: p50"),
            "p99",
        ],
        &rows,
    );
    Ok(())
}

async fn on_the_store(
    options: &Options,
    database: &Path,
    length: u32,
    operations: &mut [Vec<f64>],
) -> anyhow::Result<()> {
    let rounds = options.size().rounds;
    let address = database.to_string_lossy();
    let node = NodeId::random();
    let store = store::open(&address, Synchronous::Normal, Access::Server).await?;
    let (_, author) = posts::arrives(&store, node).await?;
    let room = store.group("hi", None).await?.context("no room")?.id;
    store.close().await;
    drop(store);
    match length {
        50 => fill(database, room, author.0, length)?,
        _ => crowd(options, database)?,
    }
    // The room is the busiest one, and whoever writes most there has the longest lists.
    let (written, middle, member) = Connection::open(database)?.query_one(
        "select count(*),
            (select id from messages where room_id = ?1
                order by id limit 1 offset (select count(*) / 2 from messages where room_id = ?1)),
            (select user_id from messages where room_id = ?1
                group by user_id order by count(*) desc limit 1)
         from messages where room_id = ?1",
        [room.0],
        |row| Ok((row.get::<_, usize>(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let (middle, member) = (MessageId(middle), UserId(member));

    let store = store::open(&address, Synchronous::Normal, Access::Server).await?;
    let newest = store.newest(room).await?;
    ensure!(newest.messages.len() == 50 && newest.version.number == written as u64);
    let after = Version {
        number: newest.version.number - 10,
        ..newest.version
    };
    for _ in 0..rounds {
        let began = Instant::now();
        store.newest(room).await?;
        operations[0].push(milliseconds(began.elapsed()));
        let began = Instant::now();
        store.older(room, middle).await?;
        operations[1].push(milliseconds(began.elapsed()));
        let began = Instant::now();
        store.catch_up(room, Some(after)).await?;
        operations[2].push(milliseconds(began.elapsed()));
        let began = Instant::now();
        store.groups(Some(member), 50).await?;
        store.unread_rooms(member).await?;
        store.people_of(member, 25).await?;
        operations[10].push(milliseconds(began.elapsed()));
    }
    post(&store, node, room, rounds, &mut operations[3]).await?;
    people(&store, node, room, middle, rounds, operations).await?;
    store.close().await;
    drop(store);
    let store = store::open(&address, Synchronous::Full, Access::Server).await?;
    post(&store, node, room, rounds, &mut operations[4]).await?;
    store.close().await;
    let stored: usize = Connection::open(database)?.query_one(
        "select count(*) from messages where room_id = ?",
        [room.0],
        |row| row.get(0),
    )?;
    ensure!(
        stored == written + 2 * rounds,
        "the stored messages differ from the posted ones"
    );
    Ok(())
}

async fn post(
    store: &Store,
    node: NodeId,
    room: RoomId,
    rounds: usize,
    times: &mut Vec<f64>,
) -> anyhow::Result<()> {
    // Starting a store ends all clients, so no earlier one can post.
    let author = posts::arrives(store, node).await?;
    for _ in 0..rounds {
        let post = posts::post(node, author, room, Some(Uuid::new_v4()))?;
        let began = Instant::now();
        let posted = store.post(post).await?;
        times.push(milliseconds(began.elapsed()));
        ensure!(matches!(posted, Posted::New(_)));
    }
    Ok(())
}

async fn people(
    store: &Store,
    node: NodeId,
    room: RoomId,
    message: MessageId,
    rounds: usize,
    operations: &mut [Vec<f64>],
) -> anyhow::Result<()> {
    let emoji = Emoji::new("👍").context("no emoji")?;
    for _ in 0..rounds.min(500) {
        let began = Instant::now();
        let (client, user) = posts::arrives(store, node).await?;
        let by = Actor { node, client, user };
        store.enter(by, Target::Room(room)).await?;
        operations[6].push(milliseconds(began.elapsed()));
        let began = Instant::now();
        let is_new = store.react(by, room, message, emoji, true).await?;
        operations[7].push(milliseconds(began.elapsed()));
        ensure!(is_new);
        let began = Instant::now();
        store.standing(user).await?;
        operations[8].push(milliseconds(began.elapsed()));
        let began = Instant::now();
        store.people_to_mention(user, room, "a", 10).await?;
        operations[9].push(milliseconds(began.elapsed()));
    }
    Ok(())
}

/// Fills the chat.
fn crowd(options: &Options, database: &Path) -> anyhow::Result<()> {
    let size = options.size();
    let filled = Command::new(env!("CARGO_BIN_EXE_make_fake_users"))
        .args(["--seed", "1", "--count", &size.users.to_string()])
        .args(["--rooms", &size.groups.to_string()])
        .args(["--messages", &options.messages().to_string()])
        .arg("--database")
        .arg(database)
        .stdout(Stdio::null())
        .status()?;
    ensure!(filled.success(), "the chat was not filled");
    Ok(())
}

/// Adds messages to the room as if they had been posted.
fn fill(database: &Path, room: RoomId, author: i64, length: u32) -> anyhow::Result<()> {
    let db = Connection::open(database)?;
    db.execute_batch("begin")?;
    db.execute(
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < :length)
         insert into messages
            (room_id, user_id, author_name, text, key, made, changed, worded, created_at)
         select :room, u.id, u.name, 'This is what was said for the ' || i || 'th time.',
            printf('%08x-0000-4000-8000-%012x', i, i), i, i, i, 1700000000000 + i
         from n, users u where u.id = :author order by i",
        named_params! { ":length": length, ":room": room.0, ":author": author },
    )?;
    db.execute(
        "update rooms set version = :length, history = 1 where id = :room",
        named_params! { ":length": length, ":room": room.0 },
    )?;
    db.execute(
        "insert into room_histories (room_id, first_version, history) values (?, 1, 1)",
        [room.0],
    )?;
    db.execute_batch("commit")?;
    Ok(())
}

fn over_http(options: &Options, database: &Path, times: &mut Vec<f64>) -> anyhow::Result<()> {
    let command = Command::new(&options.server);
    let server = Process::server(command, database, "full")?;
    let mut reader = Reader::new(server.address)?;
    for _ in 0..options.size().rounds.min(500) {
        let began = Instant::now();
        reader.page()?;
        times.push(milliseconds(began.elapsed()));
    }
    Ok(())
}
