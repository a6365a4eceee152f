//! What the process counts and measures, for Prometheus.
//!
//! There is one set per process, like the log. Counters are relaxed atomics, so they can be anywhere; on
//! the way of a message to many sockets they count a whole delivery or write, never a tab. This module
//! does not know what it counts, and not who asks for it.

use std::sync::LazyLock;
use std::time::Instant;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// The metrics of this process.
pub static METRICS: LazyLock<Metrics> =
    LazyLock::new(|| Metrics::new().expect("the names of the metrics are valid and differ"));

/// The content type of [`Metrics::text`].
pub const TEXT: &str = prometheus::TEXT_FORMAT;

/// How long commits and reads take, in seconds.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// How many writes share a commit.
const WRITES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Why something was refused.
const REFUSALS: &[&str] = &[
    "action",
    "attempts",
    "banned",
    "busy",
    "connections_per_address",
    "group_name",
    "not_moderator",
    "origin",
    "pace",
    "password",
    "session",
    "sign_in",
    "sockets_per_address",
    "unavailable",
];
/// Why a socket ended.
const ENDS: &[&str] = &[
    "banned",
    "closed",
    "group_changed",
    "lost",
    "protocol",
    "reconnect",
    "restart",
    "silent",
    "slow",
    "taken_over",
];
/// What became of a notification for a browser's push service.
const DELIVERIES: &[&str] = &["delivered", "dropped", "failed", "gone"];
/// What became of a file that somebody sent.
const UPLOADS: &[&str] = &["failed", "refused", "stored"];
const RESULTS: &[&str] = &["done", "failed"];
const OPERATIONS: &[&str] = &["read", "write"];

/// A kind of metric, and what it needs besides a name and a help text.
trait Metric: Collector + Clone + Sized + 'static {
    type Shape;
    fn new(name: &str, help: &str, shape: Self::Shape) -> prometheus::Result<Self>;
}

impl Metric for IntCounter {
    type Shape = ();
    fn new(name: &str, help: &str, (): ()) -> prometheus::Result<Self> {
        Self::new(name, help)
    }
}

impl Metric for IntGauge {
    type Shape = ();
    fn new(name: &str, help: &str, (): ()) -> prometheus::Result<Self> {
        Self::new(name, help)
    }
}

impl Metric for IntGaugeVec {
    /// The label.
    type Shape = &'static str;
    fn new(name: &str, help: &str, label: &'static str) -> prometheus::Result<Self> {
        Self::new(Opts::new(name, help), &[label])
    }
}

impl Metric for IntCounterVec {
    /// The label and its values, all of which exist from the start.
    type Shape = (&'static str, &'static [&'static str]);
    fn new(name: &str, help: &str, (label, values): Self::Shape) -> prometheus::Result<Self> {
        let counters = Self::new(Opts::new(name, help), &[label])?;
        for value in values {
            counters.get_metric_with_label_values(&[value])?;
        }
        Ok(counters)
    }
}

impl Metric for Histogram {
    /// The buckets.
    type Shape = &'static [f64];
    fn new(name: &str, help: &str, buckets: Self::Shape) -> prometheus::Result<Self> {
        Self::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
    }
}

/// Declares each metric once: its field, kind, name, help text, and what its kind needs.
macro_rules! metrics {
    ($($field:ident: $kind:ty = $name:literal, $help:literal, $shape:expr;)*) => {
        /// All metrics.
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl Metrics {
            fn new() -> prometheus::Result<Self> {
                let registry = Registry::new();
                $(
                    let $field = <$kind as Metric>::new($name, $help, $shape)?;
                    registry.register(Box::new($field.clone()))?;
                )*
                #[cfg(target_os = "linux")]
                registry.register(Box::new(
                    prometheus::process_collector::ProcessCollector::for_self(),
                ))?;
                Ok(Self { registry, $($field,)* })
            }
        }
    };
}

metrics! {
    build: IntGaugeVec = "overwire_build_info", "Always 1; the label is the version of the program.", "version";

    sockets: IntGaugeVec = "overwire_sockets", "Open sockets, by dialect.", "dialect";
    people: IntGauge = "overwire_people", "People with an open socket.", ();
    rooms: IntGauge = "overwire_rooms", "Rooms that a socket shows.", ();
    refusals: IntCounterVec = "overwire_refusals_total", "Refused requests, connections and actions, by reason.", ("reason", REFUSALS);
    disconnects: IntCounterVec = "overwire_disconnects_total", "Ended sockets, by reason.", ("reason", ENDS);

    actions: IntCounter = "overwire_actions_total", "Actions received from sockets.", ();
    received: IntCounter = "overwire_received_bytes_total", "Bytes received from sockets.", ();
    messages: IntCounter = "overwire_messages_total", "New messages stored by this node.", ();
    changes: IntCounter = "overwire_changes_total", "Changes of rooms stored by this node: new messages, edits, deletions and reactions.", ();
    pushes: IntCounter = "overwire_pushes_total", "Pushes sent to sockets; one that ten tabs get counts ten times.", ();
    sent: IntCounter = "overwire_sent_bytes_total", "Bytes sent to sockets, after compression.", ();

    web_pushes: IntCounterVec = "overwire_web_pushes_total", "Notifications for the push services of browsers, by result.", ("result", DELIVERIES);

    uploads: IntCounterVec = "overwire_uploads_total", "Files that people sent, by result.", ("result", UPLOADS);
    file_bytes: IntCounter = "overwire_file_bytes_total", "Bytes of files received from people.", ();

    waiting: IntGauge = "overwire_outbox_pushes", "Pushes that wait in all outboxes.", ();
    waiting_bytes: IntGauge = "overwire_outbox_bytes", "Bytes that wait in all outboxes.", ();
    fullest: IntGauge = "overwire_outbox_fullest_bytes", "Bytes that wait in the fullest outbox.", ();
    behind: IntGauge = "overwire_sockets_behind", "Sockets that are behind their room now.", ();
    fell_behind: IntCounter = "overwire_fell_behind_total", "Times that a socket fell behind its room, because its outbox was full or changes were missing.", ();
    catch_ups: IntCounterVec = "overwire_catch_ups_total", "Catch-ups of sockets that were behind, by result.", ("result", RESULTS);

    commit_writes: Histogram = "overwire_commit_writes", "Writes that share a commit.", WRITES;
    commit_seconds: Histogram = "overwire_commit_seconds", "Time from the begin of a transaction to its commit.", SECONDS;
    read_seconds: Histogram = "overwire_read_seconds", "Time of a read, including the wait for a connection.", SECONDS;
    store_failures: IntCounterVec = "overwire_store_failures_total", "Operations of the database that failed.", ("operation", OPERATIONS);

    relay_connected: IntGauge = "overwire_relay_connected", "1 while news is sent to the other nodes and received from them, or if there is no relay; otherwise 0.", ();
    relay_sent: IntCounter = "overwire_relay_sent_total", "Pieces of news sent to other nodes.", ();
    relay_received: IntCounter = "overwire_relay_received_total", "Pieces of news received from other nodes.", ();
    relay_lost: IntCounter = "overwire_relay_lost_total", "Pieces of news that were not sent, or may not have been.", ();
    relay_missed: IntCounter = "overwire_relay_missed_total", "Times that news of other nodes may have been missed, so that the database was read.", ();
}

impl Metrics {
    /// Everything, in Prometheus's text format.
    pub fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Something was refused, for one of the reasons listed here.
    pub fn refused(&self, reason: &'static str) {
        debug_assert!(REFUSALS.contains(&reason), "{reason}");
        self.refusals.with_label_values(&[reason]).inc();
    }

    /// A file was sent, with one of the results listed here.
    pub fn uploaded(&self, result: &'static str) {
        debug_assert!(UPLOADS.contains(&result), "{result}");
        self.uploads.with_label_values(&[result]).inc();
    }

    /// A socket ended, for one of the reasons listed here.
    pub fn disconnected(&self, reason: &'static str) {
        debug_assert!(ENDS.contains(&reason), "{reason}");
        self.disconnects.with_label_values(&[reason]).inc();
    }

    /// A socket that was behind has caught up, or could not.
    pub fn caught_up(&self, done: bool) {
        let result = if done { "done" } else { "failed" };
        self.catch_ups.with_label_values(&[result]).inc();
    }

    /// A transaction with this many writes was committed.
    pub fn committed(&self, writes: usize, began: Instant) {
        self.commit_writes.observe(writes as f64);
        self.commit_seconds.observe(began.elapsed().as_secs_f64());
    }

    /// Sets a gauge that counts something.
    pub fn set(gauge: &IntGauge, count: usize) {
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
