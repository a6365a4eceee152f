//! Makes fake users: `fake` and `store`, and nothing more but the way settings are read.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use overwire::config;
use overwire::fake::FakeUsers;
use overwire::store::{self, Access, Store, StoreError, Synchronous};

/// How many users are stored at one time. A server that runs on the same database waits no longer
/// than for these.
const AT_ONCE: u64 = 5_000;
/// From this many users on there is a progress bar.
const MANY: u64 = 5_000;

/// Make fake users for Overwire.
///
/// Each has a unique name (brenda82) and a unique e-mail address. Adding users is fine while a
/// server runs on the database; it hands them out to newcomers at once.
///
/// The same seed makes the same users in the same order. Those that are there already are passed
/// over and others made in their place, so that there are always as many new ones as asked for.
#[derive(Parser)]
#[command(name = "make_fake_users", version, max_term_width = 100)]
struct Options {
    /// How many users to make
    #[arg(long, default_value_t = 30, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    count: u64,

    /// First delete all users, and with them all messages, private rooms and groups that people
    /// made; no server may run
    #[arg(long)]
    reset: bool,

    /// Do not ask before deleting
    #[arg(long)]
    yes: bool,

    /// Make the users of this seed instead of random ones
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
    // A power cut may take users back that nobody has been yet; they are quickly made again.
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
    println!("Made {made} fake users in {}.", options.database);
    Ok(())
}

/// Says what goes, asks, and deletes.
async fn reset(store: &Store, options: &Options) -> anyhow::Result<()> {
    let census = store.census().await?;
    if census.users == 0 {
        return Ok(());
    }
    println!(
        "This deletes {} users, {} messages, {} private rooms and all groups that people made from {}.",
        census.users, census.messages, census.private_rooms, options.database
    );
    if !options.yes {
        print!("Delete them? [y/N] ");
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
            bail!("nothing was deleted; --yes deletes without asking");
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
