//! Adds fake users to a database. Uses only `fake`, `store` and the settings parser of `config`.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use overwire::config;
use overwire::fake::FakeUsers;
use overwire::store::{self, Access, Store, StoreError, Synchronous};

/// How many users are stored at a time. A server on the same database waits for at most this many.
const AT_ONCE: u64 = 5_000;
/// From this many users on, a progress bar is shown.
const MANY: u64 = 5_000;

/// Add fake users to an Overwire database.
///
/// Each user has a unique name (such as brenda82) and a unique e-mail address. You can add users
/// while a server is running on the database. Newcomers get them at once.
///
/// The same seed always creates the same users in the same order. Users that already exist are
/// skipped, and further ones are created until the requested number is reached.
#[derive(Parser)]
#[command(name = "make_fake_users", version, max_term_width = 100)]
struct Options {
    /// How many users to add
    #[arg(long, default_value_t = 30, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    count: u64,

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
    let access = if options.reset {
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
    let made = make(&store, options).await?;
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
        "a server is running on {}; stop it before --reset",
        options.database
    )
}

async fn make(store: &Store, options: &Options) -> anyhow::Result<u64> {
    let mut users = options
        .seed
        .map_or_else(FakeUsers::random, FakeUsers::from_seed);
    let bar = if options.count < MANY {
        ProgressBar::hidden()
    } else {
        progress(options.count)?
    };
    let mut made = 0;
    while made < options.count {
        let some = (options.count - made).min(AT_ONCE);
        let some = users.by_ref().take(usize::try_from(some)?).collect();
        made += store.add_users(some).await?;
        bar.set_position(made);
    }
    bar.finish_and_clear();
    Ok(made)
}

fn progress(count: u64) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} ({eta} left)")?;
    Ok(ProgressBar::new(count).with_style(style))
}
