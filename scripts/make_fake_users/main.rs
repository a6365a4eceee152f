//! Adds fake users to a database, and fills it with what they say. Uses only `model`, `fake`, `store` and
//! the settings parser of `config`.

mod chat;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use overwire::config;
use overwire::fake::FakeUsers;
use overwire::model::{
    DisplayName, Found, GroupName, MessageId, MessageText, Millis, RoomId, RoomKind, Topic, User,
};
use overwire::store::{self, Access, Member, NewRoom, OldMessage, Store, StoreError, Synchronous};
use overwire::text::Draft;

use chat::{FakeChat, FakeGroups, Said, written_at};

/// How many rows are stored at a time. A server on the same database waits for at most this many.
const AT_ONCE: usize = 5_000;
/// From this many rows on, a progress bar is shown.
const MANY: u64 = 5_000;
/// Since when the people have been there: longer ago than the oldest message.
const CAME: Duration = Duration::from_secs(200 * 24 * 60 * 60);
/// More than the longest text.
const CHARACTERS: usize = 4_000;

/// Add fake users to an Overwire database.
///
/// Each user has a unique name (such as brenda82) and a unique e-mail address. You can add users
/// while a server is running on the database. Newcomers get them at once.
///
/// With --rooms or --messages, nine of ten users become people who talk: in a few busy groups, many
/// quiet ones and private rooms, in several languages, over the past six months. They have read some
/// of it. No server may be running on the database. To fill a large chat, run a release build:
/// cargo run --release --bin make_fake_users -- --count 100000 --rooms 10000 --messages 1000000
///
/// The same seed always creates the same users in the same order, and on a new database the same
/// chat. Users that already exist are skipped, and further ones are created until the requested
/// number is reached.
#[derive(Parser)]
#[command(name = "make_fake_users", version, max_term_width = 100)]
struct Options {
    /// How many users to add
    #[arg(long, default_value_t = 30, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    count: u64,

    /// How many groups to add, and about as many private rooms, for people to talk in
    #[arg(long, default_value_t = 0, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    rooms: u64,

    /// How many messages to add, in these rooms and the default groups
    #[arg(long, default_value_t = 0, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    messages: u64,

    /// First delete all users, messages, private rooms and groups that people created; no server
    /// may be running on the database
    #[arg(long)]
    reset: bool,

    /// Do not ask for confirmation before deleting
    #[arg(long)]
    yes: bool,

    /// Create the users of this seed instead of random ones
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// The database: an SQLite file (overwire.db, sqlite:/var/lib/overwire.db) or a PostgreSQL
    /// database (postgres://user:password@host:5432/name)
    #[arg(
        long,
        env = "OVERWIRE_DATABASE",
        hide_env_values = true,
        default_value = "overwire.db",
        value_name = "FILE|URL"
    )]
    database: store::Address,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&config::read::<Options>()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("make_fake_users: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let fills = options.rooms + options.messages > 0;
    let access = if options.reset || fills {
        Access::Server
    } else {
        Access::Beside
    };
    // A power failure may lose the new users. They are quickly added again.
    let opened = store::open(options.database.as_str(), Synchronous::Normal, access).await;
    let store = match opened {
        Err(StoreError::InUse(_)) => bail!(in_use(options)),
        opened => {
            opened.with_context(|| format!("could not open the database {}", options.database))?
        }
    };
    if options.reset {
        reset(&store, options).await?;
    }
    let seed = options.seed.unwrap_or_else(rand::random);
    let made = make(&store, options, seed).await?;
    if fills {
        fill(&store, options, seed).await?;
    }
    store.close().await;
    config::print(format_args!(
        "Added {made} fake users to {}.",
        options.database
    ))?;
    Ok(())
}

/// Says what will be deleted, asks for confirmation, and deletes it.
async fn reset(store: &Store, options: &Options) -> anyhow::Result<()> {
    let census = store.census().await?;
    if census.users == 0 {
        return Ok(());
    }
    config::print(format_args!(
        "This deletes {} users, {} messages, {} private rooms and all groups that people created from {}.",
        census.users, census.messages, census.private_rooms, options.database
    ))?;
    if !options.yes {
        config::print("Delete them? [y/N]")?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
            bail!("nothing was deleted; use --yes to delete without confirmation");
        }
    }
    match store.reset().await {
        Err(StoreError::InUse(_)) => bail!(in_use(options)),
        done => Ok(done?),
    }
}

fn in_use(options: &Options) -> String {
    format!(
        "a server is running on {}; stop it before --reset, --rooms or --messages",
        options.database
    )
}

async fn make(store: &Store, options: &Options, seed: u64) -> anyhow::Result<u64> {
    let mut users = FakeUsers::from_seed(seed);
    let bar = progress(options.count, "users")?;
    let mut made = 0;
    while made < options.count {
        let some = (options.count - made).min(AT_ONCE as u64);
        let some = users.by_ref().take(usize::try_from(some)?).collect();
        made += store.add_users(some).await?;
        bar.set_position(made);
    }
    bar.finish_and_clear();
    Ok(made)
}

/// Fills the chat with rooms, and with messages of most of the new users.
async fn fill(store: &Store, options: &Options, seed: u64) -> anyhow::Result<()> {
    if store.lease_of_others().await?.is_some() {
        bail!(in_use(options));
    }
    // Messages are ordered by time, and these begin months ago.
    if store.census().await?.messages > 0 {
        bail!(
            "{} already has messages; --reset deletes everything in it first",
            options.database
        );
    }
    let now = Millis::now();
    let people = people(store, options.count * 9 / 10, now).await?;
    if people.len() < 2 {
        bail!("nobody is there to talk; --count must be at least 3");
    }
    let groups = add_groups(store, options.rooms, seed, &people, now).await?;
    let (names, mut rooms): (_, Vec<_>) = groups.into_iter().unzip();
    let user_names = people.iter().map(|user| user.name.clone()).collect();
    let mut chat = FakeChat::from_seed(seed, user_names, names).context("an empty chat")?;
    let mut chosen = Vec::new();
    for (person, user) in people.iter().enumerate() {
        let name = chat.display_name(person);
        chosen.extend(name.and_then(|name| Some((user.id, DisplayName::new(&name).ok()?))));
    }
    for some in chosen.chunks(AT_ONCE) {
        store.name_people(some.to_vec()).await?;
    }
    let private = chat.rooms()[rooms.len()..].iter();
    let private: Vec<_> = private
        .map(|pair| NewRoom::Private([people[pair[0]].id, people[pair[1]].id]))
        .collect();
    for some in private.chunks(AT_ONCE) {
        let made = store.add_rooms(some.to_vec(), now.before(CAME)).await?;
        rooms.extend(made.into_iter().flatten());
    }
    let written = talk(store, options.messages, &mut chat, &rooms, &people, now).await?;
    read(store, &mut chat, &rooms, &people, &written, now).await?;
    config::print(format_args!(
        "Filled {} with {} groups and {} messages of {} people.",
        options.database,
        options.rooms,
        options.messages,
        people.len()
    ))?;
    Ok(())
}

/// So many new users, who become people.
async fn people(store: &Store, count: u64, now: Millis) -> anyhow::Result<Vec<User>> {
    let mut people = Vec::new();
    while people.len() < usize::try_from(count)? {
        let left = usize::try_from(count)? - people.len();
        let some = store
            .add_people(left.min(AT_ONCE), now.before(CAME))
            .await?;
        if some.is_empty() {
            break;
        }
        people.extend(some);
    }
    Ok(people)
}

/// The default groups, and so many new ones.
async fn add_groups(
    store: &Store,
    count: u64,
    seed: u64,
    people: &[User],
    now: Millis,
) -> anyhow::Result<Vec<(String, RoomId)>> {
    let mut groups = Vec::new();
    for listed in store.groups(None, 100).await? {
        if let RoomKind::Group(name) = listed.group.kind {
            groups.push((name, listed.group.id));
        }
    }
    let mut new = FakeGroups::from_seed(seed);
    let mut left = usize::try_from(count)?;
    while left > 0 {
        let some: Vec<_> = new.by_ref().take(left.min(AT_ONCE)).collect();
        let rooms = some.iter().enumerate().map(|(n, (name, topic))| {
            Ok(NewRoom::Group {
                name: GroupName::new(name)?,
                topic: topic.as_deref().and_then(|topic| Topic::new(topic).ok()?),
                made_by: people[n % people.len()].id,
            })
        });
        let rooms = rooms.collect::<anyhow::Result<_>>()?;
        let made = store.add_rooms(rooms, now.before(CAME)).await?;
        let made = some.into_iter().zip(made);
        let made: Vec<_> = made
            .filter_map(|((name, _), id)| Some((name, id?)))
            .collect();
        left -= made.len();
        groups.extend(made);
    }
    Ok(groups)
}

/// Adds so many messages. Returns those of each room.
async fn talk(
    store: &Store,
    count: u64,
    chat: &mut FakeChat,
    rooms: &[RoomId],
    people: &[User],
    now: Millis,
) -> anyhow::Result<Vec<Vec<MessageId>>> {
    let bar = progress(count, "messages")?;
    let mut written = vec![Vec::new(); rooms.len()];
    let mut done = 0;
    while done < count {
        let upto = count.min(done + AT_ONCE as u64);
        let (mut places, mut messages) = (Vec::new(), Vec::new());
        for n in done..upto {
            let Said { room, person, text } = chat.say();
            places.push(room);
            let checked = MessageText::new(&text, CHARACTERS).ok();
            let checked = checked.context("a bad text")?;
            messages.push(OldMessage {
                room: rooms[room],
                author: people[person].id,
                text: Draft::new(&text).wording(&checked, "", &Found::default()),
                at: written_at(now, n as f64 / count as f64),
            });
        }
        let ids = store.add_messages(messages).await?;
        for (room, id) in places.into_iter().zip(ids) {
            written[room].push(id);
        }
        done = upto;
        bar.set_position(done);
    }
    bar.finish_and_clear();
    Ok(written)
}

/// Adds the members of all rooms, who have read some of the messages.
async fn read(
    store: &Store,
    chat: &mut FakeChat,
    rooms: &[RoomId],
    people: &[User],
    written: &[Vec<MessageId>],
    now: Millis,
) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for (n, numbers) in chat.rooms().to_vec().into_iter().enumerate() {
        let is_private = n >= chat.groups();
        if is_private && written[n].is_empty() {
            continue;
        }
        for &person in &numbers {
            let other = numbers.iter().find(|&&other| other != person);
            let with = other.filter(|_| is_private);
            let has_read = chat.has_read(written[n].len());
            let upto = has_read.checked_sub(1).map(|last| written[n][last]);
            all.push(Member {
                user: people[person].id,
                room: rooms[n],
                with: with.map(|&other| people[other].id),
                since: now.before(CAME),
                last: written[n]
                    .last()
                    .copied()
                    .filter(|_| is_private)
                    .unwrap_or_default(),
                read: upto.unwrap_or_default(),
            });
        }
    }
    let bar = progress(all.len() as u64, "members")?;
    for some in all.chunks(AT_ONCE) {
        store.add_members(some.to_vec()).await?;
        bar.inc(some.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

fn progress(count: u64, of: &'static str) -> anyhow::Result<ProgressBar> {
    if count < MANY {
        return Ok(ProgressBar::hidden());
    }
    let style =
        ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} {msg} ({eta} left)")?;
    Ok(ProgressBar::new(count).with_style(style).with_message(of))
}
