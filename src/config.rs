//! Settings: command-line flags, or environment variables where a flag is missing.

// These comments are also the text of --help, where angle brackets around addresses would show.
#![allow(rustdoc::bare_urls)]

use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::builder::Resettable;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use tracing_subscriber::filter::Targets;

use crate::chat;
use crate::model::GroupName;
use crate::objects::Place;
use crate::push;
use crate::socket;
use crate::store::{self, Synchronous};
use crate::web;

/// An HTML-over-the-wire chat.
///
/// Without any flag it serves on http://127.0.0.1:8000 and stores everything in overwire.db in the
/// working folder. If that file does not exist, it is created with 30 fake users. Every flag has an
/// environment variable. A flag overrides its variable, and an empty variable is ignored.
#[derive(Clone, Debug, Parser)]
#[command(name = "overwire", version, max_term_width = 100)]
pub struct Config {
    /// A command to run instead of the server
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Where to listen: a host or address, and a port (0 for any free one)
    #[arg(
        long,
        env = "OVERWIRE_LISTEN",
        default_value = "127.0.0.1:8000",
        value_name = "HOST:PORT"
    )]
    #[arg(value_parser = host_and_port, global = true)]
    pub listen: String,

    /// Where to serve metrics for Prometheus, at /metrics: a host or address that only Prometheus can
    /// reach, and a port; without it, there are none
    #[arg(
        long,
        env = "OVERWIRE_METRICS",
        value_name = "HOST:PORT",
        value_parser = host_and_port
    )]
    pub metrics: Option<String>,

    /// The database: an SQLite file (overwire.db, sqlite:/var/lib/overwire.db), or PostgreSQL 14 or
    /// later, which several servers may share (postgres://user:password@host:5432/name). For TLS, add
    /// ?sslmode= and one of prefer (the default), require, verify-ca or verify-full, and
    /// &sslrootcert=FILE if the certificate is not by a public authority
    #[arg(
        long,
        env = "OVERWIRE_DATABASE",
        hide_env_values = true,
        default_value = "overwire.db",
        value_name = "FILE|URL",
        global = true
    )]
    pub database: store::Address,

    /// The Redis through which servers that share a PostgreSQL database notify each other
    /// (redis://:password@host:6379, or rediss:// for TLS); a single server does not need it
    #[arg(
        long,
        env = "OVERWIRE_RELAY",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub relay: Option<String>,

    /// The certificate authorities that a rediss:// --relay may be certified by, as a PEM file, if they
    /// are not public ones
    #[arg(long, env = "OVERWIRE_RELAY_CA", value_name = "FILE")]
    pub relay_ca: Option<PathBuf>,

    /// What stored messages survive: with “full” a power failure, with “normal”, which is faster, only
    /// a crash of the program
    #[arg(
        long,
        env = "OVERWIRE_SYNCHRONOUS",
        default_value = "full",
        value_name = "HOW"
    )]
    pub synchronous: Synchronous,

    /// Another origin whose pages may connect, such as https://chat.example.org; repeat the flag for
    /// more, or separate them with commas in the variable
    #[arg(
        long = "allow-origin",
        env = "OVERWIRE_ALLOW_ORIGIN",
        value_delimiter = ','
    )]
    #[arg(value_name = "ORIGIN", value_parser = origin)]
    pub allow_origins: Vec<String>,

    /// A trusted proxy, whose X-Forwarded-For, -Proto and -Host headers are used: an address or a
    /// network such as 10.0.0.0/8; repeat the flag for more, or separate them with commas in the
    /// variable
    #[arg(
        long = "trusted-proxy",
        env = "OVERWIRE_TRUSTED_PROXY",
        value_delimiter = ','
    )]
    #[arg(value_name = "ADDRESS", value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,

    /// The welcome message for people who enter a group for the first time; {group} is replaced with its name, and an
    /// empty text turns it off
    #[arg(
        long,
        env = "OVERWIRE_WELCOME",
        default_value = "Welcome to {group}. Everybody who enters can read the messages.",
        value_name = "TEXT"
    )]
    pub welcome: String,

    /// A different welcome message for one group, such as “python=Welcome to {group}, please paste code
    /// as text.”; repeat the flag for more, or use one line each in the variable
    #[arg(
        long = "welcome-to",
        env = "OVERWIRE_WELCOME_TO",
        value_delimiter = '\n'
    )]
    #[arg(value_name = "GROUP=TEXT", value_parser = welcome_to)]
    pub welcome_to: Vec<(GroupName, String)>,

    /// Whether registered people are notified through the push services of their browsers (Web Push)
    /// while they have no tab open; the server then sends encrypted requests to these services
    #[arg(
        long,
        env = "OVERWIRE_PUSH",
        default_value = "on",
        value_name = "ON|OFF"
    )]
    #[arg(action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub push: bool,

    /// Whom push services can contact about this server, such as mailto:admin@example.org; that of
    /// Safari refuses requests without it
    #[arg(long, env = "OVERWIRE_PUSH_CONTACT", value_name = "URL", value_parser = contact)]
    pub push_contact: Option<String>,

    /// A private network, such as 10.0.0.0/8, in which push services may be, also without TLS; all
    /// others must have public addresses. Repeat the flag for more, or separate them with commas in the
    /// variable
    #[arg(
        long = "push-network",
        env = "OVERWIRE_PUSH_NETWORK",
        value_delimiter = ','
    )]
    #[arg(value_name = "NETWORK", value_parser = network)]
    pub push_networks: Vec<IpNet>,

    /// Turn off the limits on actions per person and on connections per address (for benchmarks)
    #[arg(long, env = "OVERWIRE_UNLIMITED", action = ArgAction::SetTrue)]
    #[arg(value_parser = BoolishValueParser::new())]
    pub unlimited: bool,

    /// Where files and pictures are stored, the same for all servers: a folder that they share, or
    /// s3://BUCKET/PREFIX; by default, a folder beside an SQLite database, and overwire-files for a
    /// single server on PostgreSQL
    #[arg(long, env = "OVERWIRE_FILES", value_name = "PLACE", global = true)]
    pub files: Option<Place>,

    /// The certificate authorities that the server of an s3:// --files may be certified by, as a PEM
    /// file, if they are not public ones
    #[arg(long, env = "OVERWIRE_FILES_CA", value_name = "FILE", global = true)]
    pub files_ca: Option<PathBuf>,

    /// Which files people may send
    #[arg(
        long,
        env = "OVERWIRE_FILE_TYPES",
        default_value = "any",
        value_name = "WHICH"
    )]
    pub file_types: chat::Kinds,

    /// The largest file that people may send, in MiB
    #[arg(
        long,
        env = "OVERWIRE_MAX_FILE_SIZE",
        default_value_t = 25,
        value_name = "MIB"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_file_size: u32,

    /// The longest message, in characters
    #[arg(
        long,
        env = "OVERWIRE_MESSAGE_CHARACTERS",
        default_value_t = 4000,
        value_name = "N"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=15_000))]
    pub message_characters: u32,

    /// The largest frame a browser may send, in bytes
    #[arg(
        long,
        env = "OVERWIRE_FRAME_BYTES",
        default_value_t = 65_536,
        value_name = "N"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1024..=16_777_216))]
    pub frame_bytes: u32,

    /// How many actions one person may take at once
    #[arg(
        long,
        env = "OVERWIRE_PACE_BURST",
        default_value_t = 150,
        value_name = "N"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub pace_burst: u32,

    /// How many actions per second one person may take after that
    #[arg(
        long,
        env = "OVERWIRE_PACE_PER_SECOND",
        default_value_t = 10,
        value_name = "N"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub pace_per_second: u32,

    /// How many open tabs one address (for IPv6, one /64 network) may have; connections of any kind are
    /// limited to twice as many plus 16, except for trusted proxies
    #[arg(
        long,
        env = "OVERWIRE_CONNECTIONS_PER_ADDRESS",
        default_value_t = 500,
        value_name = "N"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_per_address: u32,

    /// How many seconds a tab may be silent before it is disconnected; it is pinged after half that
    /// time
    #[arg(
        long,
        env = "OVERWIRE_SILENCE",
        default_value_t = 40,
        value_name = "SECONDS"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(2..=3600))]
    pub silence: u32,

    /// The log format
    #[arg(
        long,
        env = "OVERWIRE_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,

    /// Which log messages to write, by module and level: info, warn, overwire=debug
    #[arg(
        long,
        env = "OVERWIRE_LOG",
        default_value = "info",
        value_name = "FILTER",
        value_parser = log_filter
    )]
    pub log: String,
}

/// A command to run instead of the server.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Check the health of the server at --listen; exits with 0 if it is healthy
    Healthcheck,
    /// Add, list and remove moderators, and reset passwords; the server may be running
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Copy the whole chat of an SQLite --database into a new file; the server may be running
    ///
    /// The copy is one snapshot, and is read back before it gets its name. To restore it, stop the server
    /// and put the file in the place of the database. A PostgreSQL database is backed up with pg_dump.
    Backup {
        /// The file to create
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Examine the whole --database for damage; the server may be running
    ///
    /// Changes nothing. Prints a line for each problem, and exits with 1 if there is one.
    Check,
    /// Copy the whole chat from one database to another, of either kind; no server may be running on
    /// them
    ///
    /// The source is not changed. The target is created if it does not exist (a PostgreSQL database
    /// must exist) and must contain no people and no messages. Afterwards everything is read back and
    /// compared: the target then holds the whole chat, or nothing.
    MigrateStore {
        /// The database to copy from, in the form that --database takes
        #[arg(value_name = "FROM", env = "OVERWIRE_FROM", hide_env_values = true)]
        from: store::Address,
        /// The database to copy to
        #[arg(value_name = "TO", env = "OVERWIRE_TO", hide_env_values = true)]
        to: store::Address,
    },
}

/// The commands about moderators and accounts.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum AdminCommand {
    /// Print a link that makes the person who opens it a moderator; it works once and expires after an
    /// hour
    Link(ChatAddress),
    /// List the moderators
    List,
    /// Print a link with which a registered person chooses a new password; it works once and expires
    /// after an hour
    ///
    /// The old password works until then. Choosing a new one signs the person out everywhere else.
    ResetPassword {
        /// Their user name
        name: String,
        /// Where the link leads.
        #[command(flatten)]
        address: ChatAddress,
    },
    /// Revoke somebody's moderator rights
    Revoke {
        /// Their user name
        name: String,
    },
}

/// Where a link leads.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ChatAddress {
    /// The chat's address as browsers see it [default: http:// and --listen]
    #[arg(long, env = "OVERWIRE_ADDRESS", value_name = "URL", value_parser = chat_address)]
    pub address: Option<String>,
}

/// The log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Reads a program's flags, or environment variables where a flag is missing. An empty variable, such
/// as Docker Compose passes on, is ignored. Exits with an error message if a value is invalid.
#[must_use]
pub fn read<Flags: Parser>() -> Flags {
    let command = Flags::command().mut_args(|flag| {
        let is_empty = flag
            .get_env()
            .and_then(std::env::var_os)
            .is_some_and(|value| value.is_empty());
        if is_empty {
            flag.env(Resettable::Reset)
        } else {
            flag
        }
    });
    Flags::from_arg_matches(&command.get_matches())
        .unwrap_or_else(|error| error.format(&mut Flags::command()).exit())
}

/// Writes lines to standard output. Whoever closes it, such as `head`, has read enough.
pub fn print(lines: impl Display) -> io::Result<()> {
    match writeln!(io::stdout(), "{lines}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

impl Config {
    /// The limits of one person.
    #[must_use]
    pub fn chat_limits(&self) -> chat::Limits {
        chat::Limits {
            message_characters: self.message_characters as usize,
            pace_burst: self.pace_burst,
            pace_per_second: (!self.unlimited).then_some(self.pace_per_second),
        }
    }

    /// Where files are; `None` if several servers would each use another folder.
    #[must_use]
    pub fn files_place(&self) -> Option<Place> {
        let folder = match store::file_of(self.database.as_str()) {
            _ if self.files.is_some() => return self.files.clone(),
            Some(database) => {
                let mut folder = database.into_os_string();
                folder.push(".files");
                folder.into()
            }
            None if self.relay.is_some() => return None,
            None => "overwire-files".into(),
        };
        Some(Place::Folder(folder))
    }

    /// How push services are used, if they are.
    #[must_use]
    pub fn push(&self) -> Option<push::Settings> {
        self.push.then(|| push::Settings {
            contact: self.push_contact.clone(),
            networks: self.push_networks.clone(),
        })
    }

    /// The welcome messages of groups.
    #[must_use]
    pub fn welcome(&self) -> chat::Welcome {
        chat::Welcome::new(self.welcome.clone(), self.welcome_to.clone())
    }

    /// The address of the chat in a link.
    #[must_use]
    pub fn address(&self, given: &ChatAddress) -> String {
        let given = given.address.clone();
        given.unwrap_or_else(|| format!("http://{}", self.listen))
    }

    /// The limits of one socket.
    #[must_use]
    pub fn socket_limits(&self) -> socket::Limits {
        let silence = Duration::from_secs(u64::from(self.silence));
        socket::Limits {
            frame_bytes: self.frame_bytes as usize,
            ping_after: silence / 2,
            drop_after: silence,
            ..socket::Limits::default()
        }
    }
}

fn host_and_port(text: &str) -> Result<String, String> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or("a port is missing: give a host and a port, such as 127.0.0.1:8000")?;
    if host.is_empty() {
        return Err("a host is missing; use 0.0.0.0 for all addresses".to_owned());
    }
    port.parse::<u16>()
        .map_err(|_| format!("“{port}” is not a port (0 to 65535)"))?;
    Ok(text.to_owned())
}

/// A filter of log messages. One that shows nothing of this program is a mistake, such as a word that is
/// not a level, unless it is “off”.
fn log_filter(text: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "“{text}” would show nothing of this program; use a level (error, warn, info, debug, trace or \
             off) or levels for its parts, such as warn,overwire::chat=debug"
        )
    };
    let filter: Targets = text.parse().map_err(|_| wrong())?;
    let shows = filter.default_level().is_some()
        || filter
            .iter()
            .any(|(target, _)| target == "overwire" || target.starts_with("overwire::"));
    shows.then(|| text.to_owned()).ok_or_else(wrong)
}

fn welcome_to(text: &str) -> Result<(GroupName, String), String> {
    let (group, welcome) = text
        .split_once('=')
        .ok_or("write the name of a group, “=” and the text")?;
    let group = GroupName::new(group).map_err(|bad| bad.to_string())?;
    Ok((group, welcome.to_owned()))
}

fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| "not an address or a network, such as 10.1.2.3 or 10.0.0.0/8".to_owned())
}

fn contact(text: &str) -> Result<String, String> {
    let is_contact = text.starts_with("mailto:") || text.starts_with("https://");
    is_contact
        .then(|| text.to_owned())
        .ok_or_else(|| "not an address such as mailto:admin@example.org".to_owned())
}

fn origin(text: &str) -> Result<String, String> {
    let uri: axum::http::Uri = text.parse().map_err(|_| "not an origin".to_owned())?;
    let scheme = uri
        .scheme_str()
        .filter(|scheme| matches!(*scheme, "http" | "https"));
    match (scheme, uri.authority(), uri.path()) {
        (Some(scheme), Some(authority), "/") if !text.ends_with('/') => {
            let authority = authority.as_str().to_lowercase();
            let host = web::without_default_port(scheme, &authority);
            Ok(format!("{scheme}://{host}"))
        }
        _ => Err(
            "an origin consists of a scheme and a host only, such as https://chat.example.org"
                .to_owned(),
        ),
    }
}

/// The chat is at the root of its host.
fn chat_address(text: &str) -> Result<String, String> {
    origin(text.strip_suffix('/').unwrap_or(text)).map_err(|_| {
        "an address consists of a scheme and a host only, such as https://chat.example.org"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_sound() {
        use clap::CommandFactory as _;
        Config::command().debug_assert();
    }

    /// A row of the document for each setting of a command and its subcommands.
    fn rows(command: &clap::Command, path: &str) -> String {
        let mut rows = String::new();
        for setting in command.get_arguments() {
            let Some(variable) = setting.get_env() else {
                continue;
            };
            let values = setting.get_value_names().unwrap_or_default().join(" ");
            let takes_value = setting.get_action().takes_values();
            let name = match setting.get_long() {
                Some(long) if takes_value => format!("--{long} {values}"),
                Some(long) => format!("--{long}"),
                None => values,
            };
            let defaults = setting.get_default_values().iter();
            let defaults: Vec<_> = defaults.map(|value| value.to_string_lossy()).collect();
            let default = match defaults.is_empty() {
                true => "–".to_owned(),
                false => format!("`{}`", defaults.join(",")),
            };
            let meaning = setting.get_help().unwrap().to_string();
            let cells = [
                format!("`{path}{name}`"),
                format!("`{}`", variable.display()),
                default,
                meaning,
            ];
            let cells = cells.map(|cell| cell.replace('|', "\\|"));
            rows += &format!("| {} |\n", cells.join(" | "));
        }
        for command in command.get_subcommands() {
            rows += &self::rows(command, &format!("{path}{} ", command.get_name()));
        }
        rows
    }

    #[test]
    fn the_document_lists_every_setting_as_the_help_does() {
        use clap::CommandFactory as _;
        let document = include_str!("../docs/OPERATING.md");
        let table = format!(
            "| setting | variable | default | meaning |\n|---|---|---|---|\n{}\n",
            rows(&Config::command(), "")
        );
        assert!(
            document.contains(&table),
            "docs/OPERATING.md must contain this table:\n{table}"
        );
    }

    #[test]
    fn a_wrong_setting_is_explained() {
        #[track_caller]
        fn check(flags: &[&str], expected: &str) {
            let error = Config::try_parse_from([&["overwire"], flags].concat()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        check(&["--listen", "127.0.0.1"], "a port is missing");
        check(&["--listen", ":80"], "a host is missing");
        check(&["--metrics", "9100"], "a port is missing");
        check(&["--listen", "a:99999"], "“99999” is not a port");
        check(&["--trusted-proxy", "caddy"], "not an address or a network");
        check(
            &["--allow-origin", "https://a/b"],
            "an origin consists of a scheme and a host only",
        );
        check(
            &["--allow-origin", "a.example"],
            "an origin consists of a scheme and a host only",
        );
        for log in ["verbose", "hyper=debug", "overwired=debug", "info=loud"] {
            check(&["--log", log], "would show nothing of this program");
        }
        check(&["--synchronous", "off"], "possible values: full, normal");
        check(&["--pace-burst", "0"], "0 is not in 1..");
        for address in ["chat.example", "ftp://a.example", "https://a.example/b/"] {
            check(
                &["admin", "link", "--address", address],
                "an address consists of a scheme and a host only",
            );
        }
    }

    #[test]
    fn an_origin_is_read_as_browsers_write_it() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            assert_eq!(origin(text).as_deref(), Ok(expected));
        }
        check("https://OK.example", "https://ok.example");
        check("https://ok.example:443", "https://ok.example");
        check("https://ok.example:80", "https://ok.example:80");
        check("http://ok.example:80", "http://ok.example");
        check("http://ok.example:443", "http://ok.example:443");
        check("http://[::1]:80", "http://[::1]");
        check("http://[::80]", "http://[::80]");
    }

    #[test]
    fn a_filter_of_the_log_shows_something_or_is_off() {
        for log in [
            "info",
            "WARN",
            "off",
            "overwire=debug",
            "overwire",
            "warn,overwire::chat=trace,hyper=debug",
        ] {
            assert_eq!(log_filter(log).as_deref(), Ok(log));
        }
    }

    #[test]
    fn lists_are_read() {
        let config = Config::parse_from([
            "overwire",
            "--trusted-proxy=10.0.0.0/8,::1",
            "--allow-origin=https://A.example,http://b.example:81",
        ]);
        assert_eq!(config.trusted_proxies.len(), 2);
        assert_eq!(
            config.allow_origins,
            ["https://a.example", "http://b.example:81"]
        );
    }
}
