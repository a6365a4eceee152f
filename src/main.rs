//! Chooses the parts, starts and stops them. Contains no rules of the chat.

use std::collections::HashSet;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use overwire::chat::{Chat, Files};
use overwire::config::{self, AdminCommand, Command, Config, LogFormat};
use overwire::fake::FakeUsers;
use overwire::model::ResumeToken;
use overwire::moderation::Moderated;
use overwire::objects::{Objects, Place};
use overwire::protocol::{MODERATION_LINK_PATH, PASSWORD_LINK_PATH};
use overwire::relay::redis::{self, RedisRelay};
use overwire::relay::{InProcess, Relay};
use overwire::scrape;
use overwire::store::{self, Store, moving};
use overwire::views::Views;
use overwire::web::{self, Access, Web};
use tikv_jemallocator::Jemalloc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// When thousands of tabs come at once, the system's allocator keeps the memory that their arrival took.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// How many fake users a new database gets.
const FIRST_USERS: usize = 30;
/// How long sockets and requests may take to finish at shutdown.
const STOP_SOCKETS: Duration = Duration::from_millis(3_500);
const STOP_REQUESTS: Duration = Duration::from_secs(3);
/// The server exits after this long even if something is unfinished, within the promised five seconds.
const STOP: Duration = Duration::from_millis(4_500);
/// The number of steps from which a progress bar is shown.
const MANY: u64 = 10_000;
/// How often a server without a relay looks for others on its database.
const LOOK_FOR_OTHERS: Duration = Duration::from_secs(2);
/// How long the server may take to report its health.
const HEALTH_DEADLINE: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let config = config::read::<Config>();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("overwire: could not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match &config.command {
            Some(Command::Healthcheck) => healthcheck(&config.listen).await,
            Some(Command::Admin(command)) => admin(&config, command).await,
            Some(Command::Backup { file }) => backup(&config.database, file).await,
            Some(Command::Check) => check(&config).await,
            Some(Command::MigrateStore { from, to }) => migrate_store(from, to).await,
            None => serve(&config).await,
        }
    });
    // Tasks that are still running have had enough time.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overwire: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    start_log(config)?;
    // Each tab is a file to the system, which often allows 1,024 unless asked for more.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    // Everything that may fail runs before the store is opened, so that a failed start leaves nothing
    // behind. Connections that arrive while the store opens wait in the backlog.
    let listener = listen("--listen", &config.listen).await?;
    let for_metrics = match &config.metrics {
        Some(address) => Some(listen("--metrics", address).await?),
        None => None,
    };
    let views = Arc::new(Views::new()?);
    let stop = CancellationToken::new();
    tokio::spawn(stop_signal(stop.clone())?);
    let (store, chat) = tokio::select! {
        started = start(config, views) => started?,
        () = stop.cancelled() => return Ok(()),
    };
    let access = Access {
        allow_origins: config.allow_origins.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
        connections_per_address: (!config.unlimited)
            .then_some(config.connections_per_address as usize),
        ..Access::default()
    };
    let web = Web::new(Arc::clone(&chat), access, config.socket_limits());
    log_start(config, &listener, for_metrics.as_ref())?;
    config::print(format_args!(
        "Overwire is at http://{}",
        listener.local_addr()?
    ))?;

    let serving = web::serve(listener, &web, stop.cancelled(), STOP_REQUESTS);
    let measuring = async {
        if let Some(listener) = for_metrics {
            scrape::serve(listener, Arc::clone(&chat), stop.cancelled()).await;
        }
    };
    let ending = async {
        stop.cancelled().await;
        chat.stop(STOP_SOCKETS).await;
    };
    let all = async {
        tokio::join!(serving, measuring, ending);
        store.close().await;
    };
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP).await;
    };
    tokio::select! {
        () = all => {}
        // Acknowledged messages are stored. The next start cleans up the rest.
        () = overdue => tracing::warn!("timed out waiting for the database at shutdown"),
    }
    Ok(())
}

async fn start(config: &Config, views: Arc<Views>) -> anyhow::Result<(Arc<Store>, Arc<Chat>)> {
    let address = config.database.as_str();
    // Before anything is created.
    if let Some(relay) = &config.relay {
        anyhow::ensure!(
            store::may_be_shared(address),
            "--relay needs a PostgreSQL database, but {} is used by one server only",
            config.database
        );
        RedisRelay::new(relay, config.relay_ca.as_deref(), "").context("--relay")?;
    }
    let store = store::open(address, config.synchronous, store::Access::Server)
        .await
        .with_context(|| format!("could not open the database {}", config.database))?;
    seed(&store).await?;
    let relay = relay(config, &store).await?;
    let chat = Chat::start(
        Arc::clone(&store),
        relay,
        views,
        config.chat_limits(),
        config.welcome(),
    )
    .await?;
    start_files(config, &chat)?;
    if let Some(settings) = config.push() {
        chat.start_push(settings).await?;
    }
    Ok((store, chat))
}

fn start_files(config: &Config, chat: &Arc<Chat>) -> anyhow::Result<()> {
    // The place is needed for the files that are there, even if nobody may send more.
    let Some(place) = config.files_place() else {
        tracing::warn!(
            "files are off: give all servers the same --files, such as a folder on NFS or s3://BUCKET"
        );
        return Ok(());
    };
    let objects = open_files(config, &place)?;
    let most_bytes = u64::from(config.max_file_size) << 20;
    chat.start_files(Files::new(objects, config.file_types, most_bytes));
    // People can chat without files, so an unreachable bucket does not keep the server from starting.
    let chat = Arc::clone(chat);
    tokio::spawn(async move {
        if let Some(objects) = chat.objects()
            && let Err(error) = objects.reach().await
        {
            let error: &dyn std::error::Error = &error;
            tracing::error!(
                error,
                "files cannot be sent or opened: could not use {place}"
            );
        }
    });
    Ok(())
}

fn open_files(config: &Config, place: &Place) -> anyhow::Result<Objects> {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Objects::open(place, variables, config.files_ca.as_deref())
        .with_context(|| format!("--files: could not use {place}"))
}

async fn relay(config: &Config, store: &Arc<Store>) -> anyhow::Result<Arc<dyn Relay>> {
    let Some(address) = &config.relay else {
        if store::may_be_shared(config.database.as_str()) {
            tokio::spawn(warn_of_others(Arc::clone(store)));
        }
        return Ok(Arc::new(InProcess::default()));
    };
    let relay = RedisRelay::new(
        address,
        config.relay_ca.as_deref(),
        &store.identity().await?,
    )
    .context("--relay")?;
    Ok(Arc::new(relay))
}

/// Says so while another server uses the database, although nothing connects the two.
async fn warn_of_others(store: Arc<Store>) {
    let mut newest = None;
    let mut is_alone = true;
    loop {
        // A lease may be left from a server that was killed. One that grows is not.
        let lease = store.lease_of_others().await.unwrap_or(newest);
        if is_alone && newest.is_some() && lease > newest {
            is_alone = false;
            tracing::error!(
                "another server is running on this database, and there is no --relay: people on one \
                 server do not see what happens on the other; give all servers the same --relay, or \
                 stop one"
            );
        } else if lease.is_none() {
            is_alone = true;
        }
        newest = lease;
        tokio::time::sleep(LOOK_FOR_OTHERS).await;
    }
}

/// Listens at the address that a flag names.
async fn listen(flag: &str, listen: &str) -> anyhow::Result<TcpListener> {
    let address = tokio::net::lookup_host(listen)
        .await
        .ok()
        .and_then(|mut addresses| addresses.next())
        .with_context(|| format!("{flag}: cannot resolve the host in {listen}"))?;
    web::listen(address).with_context(|| {
        format!(
            "could not listen on {address}; is Overwire running there already? Use {flag} to choose \
             another address"
        )
    })
}

/// Waits for SIGTERM or Ctrl-C. The signals are caught from the call on, not only while waiting.
fn stop_signal(stop: CancellationToken) -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
    })
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    // Otherwise each connection of a pool that ends is a line. The store says once what is wrong.
    let quiet = "deadpool=off,tokio_postgres=warn";
    let filter = EnvFilter::try_new(format!("{quiet},{}", config.log)).context("--log")?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // If the log cannot be written, an error message about that cannot be written either, and would
        // panic.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// Logs which program this is and what it uses. Passwords are left out.
fn log_start(
    config: &Config,
    listener: &TcpListener,
    for_metrics: Option<&TcpListener>,
) -> anyhow::Result<()> {
    let none = || "none".to_owned();
    let relay = config.relay.as_deref().map_or_else(none, redis::place);
    let metrics = for_metrics.map(TcpListener::local_addr).transpose()?;
    let metrics = metrics.map_or_else(none, |address| address.to_string());
    tracing::info!(
        version = %env!("CARGO_PKG_VERSION"),
        database = %config.database,
        %relay,
        listen = %listener.local_addr()?,
        %metrics,
        "started"
    );
    Ok(())
}

/// Adds the first fake users to an empty store.
async fn seed(store: &Store) -> anyhow::Result<()> {
    if store.census().await?.users == 0 {
        store
            .add_users(FakeUsers::random().take(FIRST_USERS).collect())
            .await?;
    }
    Ok(())
}

/// Adds, lists and removes moderators, and resets passwords.
async fn admin(config: &Config, command: &AdminCommand) -> anyhow::Result<()> {
    let database = &config.database;
    anyhow::ensure!(
        store::is_there(database.as_str())?,
        "there is no database {database}; use --database to name the server's database"
    );
    let store = store::open(database.as_str(), config.synchronous, store::Access::Beside)
        .await
        .with_context(|| format!("could not open the database {}", config.database))?;
    let done = async {
        match command {
            AdminCommand::Link(at) => {
                let token = ResumeToken::random();
                store.add_admin_link(token.hash()).await?;
                let address = config.address(at);
                config::print(format_args!("{address}{MODERATION_LINK_PATH}?{token}"))?;
            }
            AdminCommand::List => {
                for (moderator, since) in store.moderators().await? {
                    let shown = moderator.display_name.map(|name| format!(" ({name})"));
                    let (name, shown) = (moderator.name, shown.unwrap_or_default());
                    let since = since.to_rfc3339();
                    config::print(format_args!("{name}{shown} since {since}"))?;
                }
            }
            AdminCommand::ResetPassword { name, address } => {
                let token = ResumeToken::random();
                let added = store.add_password_link(None, name, token.hash()).await?;
                anyhow::ensure!(
                    matches!(added, Moderated::Done { .. }),
                    "there is no account with the user name {name}, or its owner is banned"
                );
                let address = config.address(address);
                config::print(format_args!("{address}{PASSWORD_LINK_PATH}?{token}"))?;
            }
            AdminCommand::Revoke { name } => {
                let ended = store.end_moderator(name).await?;
                anyhow::ensure!(ended, "{name} is not a moderator");
                config::print(format_args!("{name} is no longer a moderator."))?;
            }
        }
        Ok(())
    };
    let done = done.await;
    store.close().await;
    done
}

/// Copies the chat to a file.
async fn backup(database: &store::Address, file: &Path) -> anyhow::Result<()> {
    let bytes = store::backup::backup(database, file)
        .await
        .with_context(|| format!("could not back up {database}"))?;
    config::print(format_args!(
        "Backed up {database} to {} and verified the copy ({}).",
        file.display(),
        indicatif::HumanBytes(bytes)
    ))?;
    Ok(())
}

/// Examines the database and prints what is wrong.
async fn check(config: &Config) -> anyhow::Result<()> {
    let database = &config.database;
    // Listed first: whatever is stored after that is not missed.
    let place = config.files_place().filter(|place| match place {
        Place::Folder(folder) => folder.is_dir(),
        Place::Bucket { .. } => true,
    });
    let open = |place: &Place| open_files(config, place);
    let objects = place.as_ref().map(open).transpose()?;
    let listed: HashSet<String> = match &objects {
        Some(objects) => objects.names().await?.into_iter().collect(),
        None => HashSet::new(),
    };
    let mut checked = store::checking::check(database)
        .await
        .with_context(|| format!("could not check {database}"))?;
    let needed = checked.objects.iter().filter(|(_, needed)| **needed);
    if let Some(objects) = &objects {
        for (name, _) in needed {
            if !listed.contains(name) && objects.read(name, None).await.is_err() {
                checked
                    .problems
                    .push(format!("the object {name} of a file is missing"));
            }
        }
        let unknown = listed
            .iter()
            .filter(|name| !checked.objects.contains_key(*name));
        let unknown = unknown.map(|name| format!("the object {name} belongs to no file"));
        checked.problems.extend(unknown);
    } else if needed.count() > 0 {
        config::print("The files were not checked: use --files to say where they are.")?;
    }
    for problem in &checked.problems {
        config::print(problem)?;
    }
    let (wrong, rooms, messages) = (checked.problems.len(), checked.rooms, checked.messages);
    anyhow::ensure!(wrong == 0, "problems in {database}: {wrong}");
    config::print(format_args!(
        "{database} has no problems ({rooms} rooms, {messages} messages)."
    ))?;
    Ok(())
}

/// Copies the chat and prints what was copied.
async fn migrate_store(from: &store::Address, to: &store::Address) -> anyhow::Result<()> {
    let style = ProgressStyle::with_template("{bar:40} {percent}% ({eta} left)")?;
    let mut shown: Option<ProgressBar> = None;
    let mut progress = |done: u64, of: u64| {
        if of >= MANY {
            let begin = || ProgressBar::new(of).with_style(style.clone());
            shown.get_or_insert_with(begin).set_position(done);
        }
    };
    let moved = moving::move_chat(from, to, &mut progress).await;
    if let Some(bar) = shown {
        bar.finish_and_clear();
    }
    let moved = moved.with_context(|| format!("could not copy the chat from {from} to {to}"))?;
    let rows = moved.rows.into_iter();
    let rows = rows.map(|(table, rows)| format!("{rows:>12} {}\n", table.replace('_', " ")));
    config::print(format_args!(
        "Copied the chat from {from} to {to} and verified the copy:\n\
         {}{from} was not changed. To use the copy, run: overwire --database {to}",
        rows.collect::<String>()
    ))?;
    Ok(())
}

/// Checks the health of a server. If it listens on all addresses, asks it on the loopback address.
async fn healthcheck(listen: &str) -> anyhow::Result<()> {
    let resolved = tokio::net::lookup_host(listen).await;
    let mut address = resolved
        .ok()
        .and_then(|mut addresses| addresses.next())
        .with_context(|| format!("--listen: cannot resolve the host in {listen}"))?;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let asked = tokio::time::timeout(HEALTH_DEADLINE, ask_if_ready(address));
    let asked = asked
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)));
    let answer = asked.with_context(|| format!("no answer from http://{address}/ready"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or("nothing");
    anyhow::ensure!(
        status == "200",
        "http://{address}/ready answered {status}: {}",
        body.trim_end()
    );
    Ok(())
}

async fn ask_if_ready(address: std::net::SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
