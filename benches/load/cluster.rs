//! One node and two nodes on PostgreSQL, with Redis between the two: durable posts, deliveries, the
//! delay from node to node, and what a message costs each part.
//!
//! Everything runs on this machine, so it measures what two nodes cost, not what two machines can do.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use overwire::model::NodeId;
use overwire::store::{self, Access, Posted, Synchronous};
use uuid::Uuid;

use crate::Options;
use crate::crowd::Crowd;
use crate::fan_out::new_message;
use crate::machine::Machine;
use crate::postgres::{self, Database};
use crate::posts::{arrives, post};
use crate::redis::Redis;
use crate::server::Process;
use crate::table::{self, Figure, milliseconds, quantile};
use crate::wire::Wire;

const WARM_UP: Duration = Duration::from_millis(500);

/// Measures and prints.
pub(crate) fn measure(options: &Options, machine: &Machine) -> anyhow::Result<()> {
    // Nodes, database, Redis and load share all processors.
    machine.step_back();
    postgres::is_durable();
    let runtime = tokio::runtime::Runtime::new()?;
    let (mut posts, mut parts, mut deliveries) =
        (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let crowd = options.size().crowd;
    for run in 1..=options.runs() {
        for nodes in [1, 2] {
            for &writers in options.writers() {
                for rooms in 1..=nodes {
                    eprintln!("run {run}: {writers} writers, {nodes} nodes, {rooms} rooms");
                    let figures: &mut [Figure; 3] =
                        posts.entry((nodes, rooms, writers)).or_default();
                    runtime.block_on(post_all(options, nodes, rooms, writers, figures))?;
                }
            }
            eprintln!("run {run}: two tabs on {nodes} nodes");
            let figures = parts.entry(nodes).or_default();
            runtime.block_on(two_tabs(options, nodes, figures))?;
            for &under_way in options.under_way() {
                eprintln!("run {run}: {crowd} tabs on {nodes} nodes, {under_way} under way");
                let figures = deliveries.entry((nodes, under_way)).or_default();
                runtime.block_on(deliver(options, nodes, crowd, under_way, figures))?;
            }
        }
    }
    print_posts(&posts);
    print_parts(&parts);
    let rows = deliveries.iter().map(|((nodes, under_way), figures)| {
        let figures: &[Figure; 4] = figures;
        let head = [nodes.to_string(), under_way.to_string()];
        head.into_iter()
            .chain(figures.iter().map(Figure::show))
            .collect()
    });
    table::print(
        &format!("{} tabs in one room, on PostgreSQL", table::counted(crowd)),
        &[
            "nodes",
            "under way",
            "deliveries per second",
            "processor time of the nodes per delivery, µs",
            "last tab p50, ms",
            "p99, ms",
        ],
        &rows.collect::<Vec<_>>(),
    );
    Ok(())
}

/// Posts per second and their delays, by nodes, rooms and writers.
fn print_posts(posts: &BTreeMap<(usize, usize, usize), [Figure; 3]>) {
    let rows = posts.iter().map(|((nodes, rooms, writers), figures)| {
        let head = [nodes.to_string(), rooms.to_string(), writers.to_string()];
        head.into_iter()
            .chain(figures.iter().map(Figure::show))
            .collect()
    });
    table::print(
        "Durable posts directly to the store, on PostgreSQL",
        &[
            "nodes",
            "rooms",
            "writers",
            "posts per second",
            "p50, ms",
            "p99, ms",
        ],
        &rows.collect::<Vec<_>>(),
    );
}

fn print_parts(parts: &BTreeMap<usize, Parts>) {
    let rows = parts.iter().map(|(nodes, parts)| {
        let head = [nodes.to_string()];
        head.into_iter()
            .chain(parts.all().map(Figure::show))
            .collect()
    });
    table::print(
        "One message at a time between two tabs, on PostgreSQL",
        &[
            "nodes",
            "from key to the author's screen p50, ms",
            "p99, ms",
            "to the other's screen p50, ms",
            "p99, ms",
            "processor time per message: the author's node, µs",
            "the other node, µs",
            "PostgreSQL, µs",
            "Redis, µs",
            "bytes to Redis",
            "bytes from Redis",
        ],
        &rows.collect::<Vec<_>>(),
    );
}

/// What a message costs and how long it takes.
#[derive(Default)]
struct Parts {
    delays: [Figure; 4],
    nodes: [Figure; 2],
    database: Figure,
    redis: Figure,
    bytes: [Figure; 2],
}

impl Parts {
    fn all(&self) -> impl Iterator<Item = &Figure> {
        let after = [&self.database, &self.redis];
        let before = self.delays.iter().chain(&self.nodes);
        before.chain(after).chain(&self.bytes)
    }
}

/// Running nodes with their own database.
struct Cluster {
    nodes: Vec<Process>,
    database: Database,
}

impl Cluster {
    async fn start(options: &Options, nodes: usize) -> anyhow::Result<Self> {
        let database = Database::fresh().await;
        let mut processes = Vec::new();
        for _ in 0..nodes {
            let mut command = Command::new(&options.server);
            if nodes > 1 {
                command.args(["--relay", &Redis::shared().address()]);
            }
            processes.push(Process::server(command, database.address(), "full")?);
        }
        Ok(Self {
            nodes: processes,
            database,
        })
    }

    /// Opens this many tabs in a room, the first half of them on the first node.
    fn crowd(&self, options: &Options, tabs: usize) -> anyhow::Result<Crowd> {
        let mut crowd = Crowd::new()?;
        for node in &self.nodes {
            crowd.arrive(node.address, tabs / self.nodes.len(), "/chat/hi/", "")?;
        }
        crowd.settle(options.size().silence)?;
        Ok(crowd)
    }

    fn processor_times(&mut self) -> anyhow::Result<Vec<Duration>> {
        self.nodes.iter_mut().map(Process::processor_time).collect()
    }

    /// Kills everything at once. Then checks that what the tabs showed is what is stored.
    async fn end(self, crowd: &Crowd) -> anyhow::Result<()> {
        for node in self.nodes {
            node.kill()?;
        }
        let stored = self.database.look_at_once(
            "select m.id::text from messages m join rooms r on r.id = m.room_id
             where r.name = 'hi' order by m.id"
                .to_owned(),
        );
        let shown: Vec<_> = crowd.ids().iter().map(i64::to_string).collect();
        ensure!(
            stored == shown,
            "the stored messages differ from the shown ones"
        );
        Ok(())
    }
}

async fn two_tabs(options: &Options, nodes: usize, figures: &mut Parts) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(options, nodes).await?;
    let mut crowd = cluster.crowd(options, 2)?;
    let post = |wire: &mut Wire, room: &str, numbers: &[usize]| {
        let numbers = numbers.iter();
        numbers
            .copied()
            .try_for_each(|number| wire.send(0, &new_message(room, number)))
    };
    crowd.load(1, WARM_UP.min(options.each()), false, post)?;
    let before = (
        cluster.processor_times()?,
        postgres_time()?,
        redis_figures()?,
    );
    let load = crowd.load(1, options.each(), false, post)?;
    let after = (
        cluster.processor_times()?,
        postgres_time()?,
        redis_figures()?,
    );
    let each = |spent: f64| spent / load.messages as f64;
    let mut delays = [load.first.clone(), load.last.clone()];
    for (n, figure) in figures.delays.iter_mut().enumerate() {
        figure.add(quantile(&mut delays[n / 2], [0.5, 0.99][n % 2]));
    }
    for (n, figure) in figures.nodes.iter_mut().enumerate().take(nodes) {
        figure.add(each((after.0[n] - before.0[n]).as_secs_f64() * 1e6));
    }
    figures.database.add(each((after.1 - before.1) * 1e6));
    if nodes > 1 {
        let [time, to, from] = [0, 1, 2].map(|n| after.2[n] - before.2[n]);
        figures.redis.add(each(time * 1e6));
        figures.bytes[0].add(each(to));
        figures.bytes[1].add(each(from));
    }
    cluster.end(&crowd).await
}

async fn deliver(
    options: &Options,
    nodes: usize,
    tabs: usize,
    under_way: usize,
    figures: &mut [Figure; 4],
) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(options, nodes).await?;
    let mut crowd = cluster.crowd(options, tabs)?;
    // Authors are spread over the tabs, and so over the nodes.
    let post = |wire: &mut Wire, room: &str, numbers: &[usize]| {
        numbers.iter().try_for_each(|number| {
            let author = number % under_way * (tabs / under_way);
            wire.send(author, &new_message(room, *number))
        })
    };
    crowd.load(under_way, WARM_UP.min(options.each()), false, post)?;
    let before: Duration = cluster.processor_times()?.iter().sum();
    let load = crowd.load(under_way, options.each(), false, post)?;
    let after: Duration = cluster.processor_times()?.iter().sum();
    let deliveries = (load.messages * tabs) as f64;
    figures[0].add(deliveries / load.elapsed.as_secs_f64());
    figures[1].add((after - before).as_secs_f64() * 1e6 / deliveries);
    let mut last = load.last;
    figures[2].add(quantile(&mut last, 0.5));
    figures[3].add(quantile(&mut last, 0.99));
    cluster.end(&crowd).await
}

/// Writers post directly to the stores of this many nodes, in one room or one for each node. All
/// acknowledged posts are looked up afterwards.
async fn post_all(
    options: &Options,
    nodes: usize,
    rooms: usize,
    writers: usize,
    figures: &mut [Figure; 3],
) -> anyhow::Result<()> {
    let database = Database::fresh().await;
    let mut working = Vec::new();
    for node in 0..nodes {
        let store = store::open(&database.address(), Synchronous::Full, Access::Server).await?;
        let id = NodeId::random();
        let mut changes = store.join(id).await?;
        tokio::spawn(async move { while changes.recv().await.is_some() {} });
        let room = store.group(["hi", "python"][node % rooms], None).await?;
        working.push((store, id, room.context("no room")?.id));
    }
    let mut authors = Vec::new();
    for writer in 0..writers {
        let (store, node, room) = &working[writer % nodes];
        let author = arrives(store, *node).await?;
        authors.push((Arc::clone(store), *node, *room, author));
    }
    let (began, each) = (Instant::now(), options.each());
    let least = options.size().least_posts.div_ceil(writers);
    let writing: Vec<_> = authors
        .into_iter()
        .map(|(store, node, room, author)| {
            tokio::spawn(async move {
                let (mut keys, mut delays) = (Vec::new(), Vec::new());
                while began.elapsed() < each || keys.len() < least {
                    let (key, at) = (Uuid::new_v4(), Instant::now());
                    let posted = store.post(post(node, author, room, Some(key))?).await?;
                    ensure!(matches!(posted, Posted::New(_)), "{posted:?}");
                    delays.push(milliseconds(at.elapsed()));
                    keys.push(key.to_string());
                }
                anyhow::Ok((keys, delays))
            })
        })
        .collect();
    let (mut keys, mut delays) = (Vec::new(), Vec::new());
    for writer in writing {
        let (some, took) = writer.await??;
        keys.extend(some);
        delays.extend(took);
    }
    let elapsed = began.elapsed().as_secs_f64();
    let mut stored = database.look_at_once("select key::text from messages".to_owned());
    stored.sort();
    keys.sort();
    ensure!(
        stored == keys,
        "{} posts were acknowledged, {} are stored",
        keys.len(),
        stored.len()
    );
    let gaps = database.look_at_once(
        "select 'gap' from rooms r where r.version <> (select count(distinct m.made)
            from messages m where m.room_id = r.id)"
            .to_owned(),
    );
    ensure!(gaps.is_empty(), "a room's versions have a gap");
    figures[0].add(keys.len() as f64 / elapsed);
    figures[1].add(quantile(&mut delays, 0.5));
    figures[2].add(quantile(&mut delays, 0.99));
    for (store, ..) in working {
        store.close().await;
    }
    Ok(())
}

/// Seconds of processor time that PostgreSQL has used, including its processes that have ended.
fn postgres_time() -> anyhow::Result<f64> {
    let first = postgres::process();
    let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children"))?;
    let own = [first.to_string()];
    let all = children.split_whitespace().map(str::to_owned).chain(own);
    let mut ticks = 0;
    for process in all {
        // A process may end meanwhile. Then its time is part of its parent's.
        let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else {
            continue;
        };
        let after_name = stat.rsplit(')').next().context("no fields")?;
        let fields: Vec<i64> = after_name
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        // Of the numbers after the state: user and system time, and those of children that have ended.
        ticks += fields[10..14].iter().sum::<i64>();
    }
    // Linux reports them in hundredths of a second to every program.
    Ok(ticks as f64 / 100.0)
}

/// Seconds of processor time that Redis has used, and bytes it has received and sent.
fn redis_figures() -> anyhow::Result<[f64; 3]> {
    let (cpu, stats) = (
        Redis::shared().does(&["info", "cpu"]),
        Redis::shared().does(&["info", "stats"]),
    );
    let field = |text: &str, name: &str| -> anyhow::Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.with_context(|| format!("Redis does not report {name}"))?;
        Ok(value.trim().parse()?)
    };
    Ok([
        field(&cpu, "used_cpu_sys:")? + field(&cpu, "used_cpu_user:")?,
        field(&stats, "total_net_input_bytes:")?,
        field(&stats, "total_net_output_bytes:")?,
    ])
}
