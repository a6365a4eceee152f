//! A node that dies or freezes, and people who are known on all nodes.

use std::path::Path;
use std::time::{Duration, Instant};

use overwire::model::RoomKind;
use serde_json::{Value, json};

use crate::node::program;
use crate::support::crowd::Record;
use crate::support::page::Element;
use crate::support::postgres::Database;
use crate::support::program::command;
use crate::support::redis::Redis;
use crate::support::tab::all;
use crate::support::wire::Wire;
use crate::support::{Device, Door, Program, Tab, until};
use crate::{Crowd, Node};

/// A lease, the time until the next check for missed leases, and a bit.
const CLEARED: Duration = Duration::from_secs(35);
/// How long a node is frozen: two leases.
const FROZEN: Duration = Duration::from_secs(30);
/// The time within which a renewed lease reveals what was missed, and a bit.
const RENEWED: Duration = Duration::from_secs(8);
/// The shortest time between two updates after missed announcements.
const MADE_UP: Duration = Duration::from_secs(15);

/// Two nodes as programs of their own.
pub(crate) async fn programs(database: &Database, redis: &Redis) -> [Program; 2] {
    let anywhere = "127.0.0.1:0";
    [
        program(command(), database, redis, anywhere).await,
        program(command(), database, redis, anywhere).await,
    ]
}

#[tokio::test]
async fn two_servers_on_one_database_without_a_relay_are_loud_about_it() {
    let database = Database::empty().await;
    let address = database.address();
    let mut first = Program::start(Path::new(&address), &[]).await;
    let mut second = Program::start(Path::new(&address), &[]).await;
    first
        .logs("another server is running on this database")
        .await;
    second
        .logs("another server is running on this database")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_killed_while_people_write() {
    let database = Database::empty().await;
    let [dead, alive] = programs(&database, Redis::shared()).await;
    let mut crowd = Crowd::of(6, &[dead.door, alive.door], &[]);
    let mut watcher = alive.tab_at("/chat/python/").await;
    let mut anna = dead.tab_at("/chat/python/").await;
    let away = dead.tab_at("/chat/python/").await.name();
    anna.says("from the one").await;
    watcher.sees("from the one").await;
    watcher
        .until("all of them", |tab| tab.people("room-people").len() == 3)
        .await;
    crowd.goes_on(200).await;
    let name = anna.name();
    dead.dies().await;
    watcher.says("while it is dead").await;
    anna.moves_to(alive.door).await;
    assert_eq!(
        (anna.name(), anna.title()),
        (name.clone(), "#python".to_owned())
    );
    anna.sees("while it is dead").await;
    crowd.goes_on(200).await;
    watcher
        .until_within(CLEARED, "word of who has gone", |tab| {
            let people = tab.people("room-people");
            has_left(tab, &away)
                && people.contains(&name)
                && !people.contains(&away)
                && !tab.people("users-online").contains(&away)
        })
        .await;
    anna.says("from the other").await;
    let record = crowd.ends_as_stored_in(&database).await;
    for tab in [&mut anna, &mut watcher] {
        record.is_shown_to(tab).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_freezes_for_longer_than_its_lease() {
    let database = Database::empty().await;
    let [frozen, alive] = programs(&database, Redis::shared()).await;
    let mut watcher = alive.tab_at("/chat/python/").await;
    let mut stays = frozen.tab_at("/chat/python/").await;
    let mut moves = frozen.tab_at("/chat/python/").await;
    let mut repeats = frozen.tab_at("/chat/python/").await;
    let mut silent = frozen.tab_at("/chat/python/").await;
    for tab in [&mut stays, &mut moves, &mut repeats] {
        let text = format!("{} is here", tab.name());
        tab.says(&text).await;
        watcher.sees(&text).await;
    }
    let names = [&stays, &moves, &repeats].map(Tab::name);
    all([&mut stays, &mut moves, &mut repeats].map(|tab| tab.hears_all())).await;

    freezes_between_transactions(&frozen, &database).await;
    let froze = Instant::now();
    let mut crowd = Crowd::of(2, &[alive.door], &[]);
    for tab in [&mut stays, &mut moves] {
        tab.sends("Typing", json!({}));
    }
    stays.writes("never sent again");
    moves.writes("left behind");
    let key = repeats.writes("sent twice");
    let room = repeats.room();
    // Their sockets stay open, and what they sent waits.
    let (mut old_of_moves, mut old_of_repeats) =
        (moves.leaves_its_socket(), repeats.leaves_its_socket());
    for tab in [&mut moves, &mut repeats] {
        tab.moves_to(alive.door).await;
    }
    let again = json!({ "message": "sent twice", "room": room, "key": key });
    repeats.sends("New message", again);
    repeats.is_settled(&key).await;
    watcher.sees("sent twice").await;
    crowd.goes_on(100).await;
    watcher
        .until_within(CLEARED, "word of who has gone", |tab| {
            let people = tab.people("room-people");
            !people.contains(&names[0]) && has_left(tab, &names[0])
        })
        .await;

    until("it to have been frozen for long", async || {
        froze.elapsed() >= FROZEN
    })
    .await;
    let (before, seen) = (stays.pushes.len(), watcher.pushes.len());
    frozen.signal("CONT");
    all([&mut stays, &mut silent].map(Tab::is_closed)).await;
    let said = |html: &str| html.contains("never sent again");
    assert!(!stays.pushes[before..].iter().any(|push| said(&push.html)));
    for wire in [&mut old_of_moves, &mut old_of_repeats] {
        wire.is_closed().await;
    }
    stays.connects().await;
    stays.says("thawed").await;
    all([&mut watcher, &mut moves, &mut repeats].map(|tab| tab.sees("thawed"))).await;
    assert_eq!([&stays, &moves, &repeats].map(Tab::name), names);
    // Nothing was read from the sockets that had to be closed.
    let typing = watcher.pushes_to("room-typing", seen);
    assert!(
        typing.iter().all(|push| !push.html.contains("typing")),
        "{typing:?}"
    );
    watcher
        .until("all of them", |tab| {
            let people = tab.people("room-people");
            names.iter().all(|name| people.contains(name))
        })
        .await;
    let record = crowd.ends_as_stored_in(&database).await;
    for text in ["never sent again", "left behind"] {
        assert_eq!(record.times(text), 0, "{text}");
    }
    assert_eq!(record.times("sent twice"), 1);
    for tab in [&mut stays, &mut moves, &mut repeats, &mut watcher] {
        record.is_shown_to(tab).await;
    }
}

/// Whether a tab shows that somebody left.
fn has_left(tab: &Tab, name: &str) -> bool {
    let lines = tab.page.the("room-moves").all();
    lines.map(Element::text).any(|line| {
        let names = line.strip_suffix(" left");
        names.is_some_and(|names| !names.contains("joined") && names.contains(name))
    })
}

/// A node frozen in a transaction would block everybody who needs the same rooms until the database
/// ends it, which is another test.
async fn freezes_between_transactions(node: &Program, database: &Database) {
    let look = database.look().await;
    let held = "select count(*) from pg_stat_activity
        where state = 'idle in transaction' and datname = current_database()
        and state_change < clock_timestamp() - interval '200 ms'";
    loop {
        node.signal("STOP");
        let began = Instant::now();
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        let mut is_held = false;
        while !is_held && began.elapsed() < Duration::from_millis(400) {
            looks.tick().await;
            is_held = look.query_one(held, &[]).await.unwrap().get::<_, i64>(0) > 0;
        }
        if !is_held {
            return;
        }
        node.signal("CONT");
    }
}

/// A moderator on a node: their tab, and the socket of the admin page.
async fn desk(node: &Node) -> (Tab, Wire) {
    let mut device = Device::at(node.door);
    let mut tab = node.door.tab().await;
    device.keeps(&mut tab).await;
    device.becomes_moderator(&node.store).await;
    tab.reloads().await;
    let socket = node.door.socket(&device.admin_handshake()).await;
    (tab, socket.unwrap())
}

fn orders(desk: &Wire, action: &str, data: &Value) {
    desk.text(json!({ "action": action, "data": data }).to_string());
}

/// A registered person, signed in on one node, with a tab on another.
async fn registered(device_at: Door, tab_at: Door) -> (Device, Tab) {
    let mut device = Device::at(device_at);
    let mut tab = device_at.tab().await;
    device.keeps(&mut tab).await;
    tab.moves_to(tab_at).await;
    (device, tab)
}

/// How long the other node takes to close the sockets affected by a ban, a sign-out and a group
/// that is restricted to moderators.
async fn sockets_close_elsewhere(redis: &Redis, breaks: bool) -> Vec<Duration> {
    let database = Database::fresh().await;
    let nodes = Node::two(&database, redis).await;
    let [here, there] = [nodes[0].door, nodes[1].door];
    let (_moderator, desk) = desk(&nodes[0]).await;
    let mut banned = there.tab().await;
    let mut in_group = there.tab_at("/chat/python/").await;
    let (mut device, mut signed_in) = registered(here, there).await;
    // The nodes know what they need from each other.
    for tab in [&mut banned, &mut in_group, &mut signed_in] {
        tab.hears_all().await;
    }
    if breaks {
        redis.dies();
    }
    let mut took = Vec::new();
    let began = Instant::now();
    orders(
        &desk,
        "Ban",
        &json!({ "userName": banned.name(), "on": true }),
    );
    banned
        .until_within(RENEWED, "the ban", |tab| tab.is_cut_off())
        .await;
    assert_eq!(banned.is_closed().await, Some(1008));
    took.push(began.elapsed());
    let began = Instant::now();
    assert_eq!(device.sends("/sign-out/", &[]).await.status, 303);
    signed_in
        .until_within(RENEWED, "the end of the session", |tab| tab.is_cut_off())
        .await;
    assert_eq!(signed_in.is_closed().await, Some(1000));
    took.push(began.elapsed());
    let began = Instant::now();
    let restrict = json!({ "room": in_group.room(), "on": true });
    orders(&desk, "Restrict group", &restrict);
    in_group
        .until_within(RENEWED, "the group to be closed", |tab| tab.is_cut_off())
        .await;
    assert_eq!(in_group.is_closed().await, Some(1000));
    took.push(began.elapsed());
    in_group.connects().await;
    assert_eq!(in_group.title(), "All groups");
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bans_sign_outs_and_closed_groups_reach_the_other_node_at_once() {
    let took = sockets_close_elsewhere(&Redis::start(), false).await;
    // Renewed leases would have brought at most one of them in time.
    assert!(
        took.iter().sum::<Duration>() < Duration::from_secs(5),
        "{took:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bans_sign_outs_and_closed_groups_reach_the_other_node_without_redis() {
    sockets_close_elsewhere(&Redis::start(), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_tab_on_another_node_is_a_new_person_unless_the_first_is_dead() {
    let database = Database::fresh().await;
    let nodes = Node::two(&database, Redis::shared()).await;
    let mut anna = nodes[0].door.tab().await;
    let name = anna.name();
    let mut copy = Tab::load(nodes[1].door, "/chat/hi/").await;
    copy.resume.clone_from(&anna.resume);
    copy.connects().await;
    assert_ne!(copy.name(), name);
    assert_ne!(copy.resume, anna.resume);
    anna.says("still here").await;
    copy.sees("still here").await;

    anna.goes_deaf(true);
    let mut again = Tab::load(nodes[1].door, "/chat/hi/").await;
    again.resume.clone_from(&anna.resume);
    again.connects().await;
    assert_eq!(again.name(), name);
    again.says("it is me").await;
    anna.goes_deaf(false);
    anna.is_closed().await;
    until("one of that name", async || {
        let people = nodes[0].store.people_online(9).await.unwrap().0;
        people
            .iter()
            .filter(|person| person.user.name == name)
            .count()
            == 1
    })
    .await;
    let record = Record::of(&database);
    for tab in [&mut again, &mut copy] {
        record.is_shown_to(tab).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missed_group_changes_are_shown_after_an_outage() {
    let redis = Redis::start();
    let database = Database::fresh().await;
    let nodes = Node::two(&database, &redis).await;
    // What these announce never reaches the others.
    let unheard = Node::two(&database, Redis::shared()).await;
    let there = nodes[1].door;
    let (_moderator, desk) = desk(&unheard[0]).await;
    let mut in_group = there.tab_at("/chat/events/").await;
    let mut in_other = there.tab_at("/chat/off-topic/").await;
    let mut elsewhere = there.tab_at("/chat/python/").await;
    let restrict = json!({ "room": elsewhere.room(), "on": true });
    elsewhere.enters_group("hi").await;
    for tab in [&mut in_group, &mut in_other, &mut elsewhere] {
        tab.hears_all().await;
    }

    orders(&desk, "Restrict group", &restrict);
    let rename = json!({ "room": in_group.room(), "groupName": "Feasts" });
    orders(&desk, "Rename group", &rename);
    let now = ["hi", "Feasts", "off-topic"];
    until("the groups as they are now", async || {
        let groups = nodes[0].store.groups(None, 9).await.unwrap();
        let names = groups.iter().map(|group| match &group.group.kind {
            RoomKind::Group(name) => name.as_str(),
            RoomKind::Private { .. } => "",
        });
        names.eq(now)
    })
    .await;
    redis.dies();
    redis.starts_again();
    for tab in [&mut elsewhere, &mut in_other] {
        tab.until_within(MADE_UP, "the groups as they are now", |tab| {
            tab.groups_in("groups-list") == now
        })
        .await;
    }
    in_group
        .until_within(MADE_UP, "the end of the socket", |tab| tab.is_cut_off())
        .await;
    assert_eq!(in_group.is_closed().await, Some(1000));
    in_group.connects().await;
    assert_eq!(in_group.title(), "#Feasts");
    // People in an unchanged group are not disturbed.
    in_other.says("all is well").await;
}
