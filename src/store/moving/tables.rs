//! The list of tables to copy.

/// A table to copy.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// The columns, with their kinds except for numbers. Any column may be null.
    columns: &'static str,
    /// How many of the first columns are its key, by which rows are ordered, copied and compared.
    pub(super) key: usize,
    pub(super) ids: Ids,
}

/// Who creates the rows' ids.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ids {
    /// The chat: ids have a meaning or are random.
    Chat,
    /// The database: each id is higher than all existing ones.
    Database,
    /// The database, which never gives an id again, so its counter is copied as well.
    DatabaseOnce,
}

pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// What a column contains, in either database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `integer`, `bigint`.
    Number,
    /// `integer` that is 0 or 1, `boolean`.
    Flag,
    /// `text`.
    Text,
    /// `blob`, `bytea`.
    Bytes,
    /// `text` with hyphens, `uuid`.
    Key,
}

/// Expressions to read in place of some columns, valid in both databases; `{now}` is the moment of the
/// copy. Everybody who was connected has left, unused users are released as after a restart, and nobody
/// is in a room.
const INSTEAD: [(&str, &str, &str); 3] = [
    ("clients", "left_at", "coalesce(left_at, {now})"),
    (
        "users",
        "gone_at",
        "case when not free and traced_at is null then coalesce(gone_at, {now}) else gone_at end",
    ),
    ("rooms", "people", "cast(0 as bigint)"),
];

/// Each table comes after those that it refers to.
///
/// Not copied: `clients_active` and `clients_in_view`, since nobody is in a room; `message_words` and `searchable`, since a server
/// builds the index of the copy; and what a database stores about itself and
/// its servers: `nodes`, and for PostgreSQL `writers`, `life` and `schema_version`.
pub(super) const TABLES: [Table; 17] = [
    Table {
        name: "users",
        columns: "id, name text, email text, display_name text, display_key text,
            display_look text, display_look_capitals text, arrived_at, traced_at, free flag,
            gone_at, shuffle, password_hash text, kept_at, moderator_at, muted_at, banned_at",
        key: 1,
        ids: Ids::Database,
    },
    Table {
        name: "sessions",
        columns: "id, user_id, token_hash bytes, made_at, seen_at",
        key: 1,
        ids: Ids::DatabaseOnce,
    },
    Table {
        name: "clients",
        columns: "id, user_id, guest flag, session_id, node_id, visit, token_hash bytes,
            arrived_at, left_at, cut_off flag, browser bytes",
        key: 1,
        ids: Ids::DatabaseOnce,
    },
    Table {
        name: "rooms",
        columns: "id, kind text, name text, name_key text, position, user_low, user_high,
            version, history, people, created_at, restricted_at, removed_at, topic text, made_by",
        key: 1,
        ids: Ids::Chat,
    },
    Table {
        name: "room_histories",
        columns: "room_id, first_version, history",
        key: 2,
        ids: Ids::Chat,
    },
    Table {
        name: "messages",
        columns: "id, room_id, user_id, author_name text, text text, key key, made, changed,
            worded, created_at, edited_at, deleted_at, deleted_by, reactions text, html text, drawn,
            here flag, reply_to, files text",
        key: 1,
        ids: Ids::Database,
    },
    Table {
        name: "files",
        columns:
            "id, room_id, user_id, message_id, name text, media_type text, bytes, hash text, width,
            height, thumbnail text, made_at",
        key: 1,
        ids: Ids::Chat,
    },
    Table {
        name: "unused_objects",
        columns: "hash text, since, claimed_at",
        key: 1,
        ids: Ids::Chat,
    },
    Table {
        name: "reactions",
        columns: "id, message_id, room_id, user_id, emoji text, name text, created_at",
        key: 1,
        ids: Ids::Database,
    },
    Table {
        name: "mentions",
        columns: "user_id, message_id, room_id",
        key: 2,
        ids: Ids::Chat,
    },
    Table {
        name: "users_subscribed",
        columns: "user_id, room_id, since, with_id, last_message_id, read_message_id, unread,
            left_at, muted flag",
        key: 2,
        ids: Ids::Chat,
    },
    Table {
        name: "notifications",
        columns: "user_id, quiet_until, sounds flag",
        key: 1,
        ids: Ids::Chat,
    },
    Table {
        name: "push_key",
        columns: "id, pkcs8 bytes",
        key: 1,
        ids: Ids::Chat,
    },
    Table {
        name: "push_subscriptions",
        columns: "session_id, user_id, endpoint text, p256dh bytes, auth bytes, made_at",
        key: 1,
        ids: Ids::Chat,
    },
    Table {
        name: "admin_links",
        columns: "token_hash bytes, made_at",
        key: 1,
        ids: Ids::Chat,
    },
    Table {
        name: "password_links",
        columns: "user_id, token_hash bytes, made_at",
        key: 1,
        ids: Ids::Chat,
    },
    Table {
        name: "audit_log",
        columns: "id, at, moderator_id, moderator text, action text",
        key: 1,
        ids: Ids::DatabaseOnce,
    },
];

impl Table {
    pub(super) fn columns(&self) -> impl Iterator<Item = Column> + use<> {
        self.columns.split(',').map(|column| {
            let (name, kind) = match column.trim().split_once(' ') {
                None => (column.trim(), Kind::Number),
                Some((name, "flag")) => (name, Kind::Flag),
                Some((name, "bytes")) => (name, Kind::Bytes),
                Some((name, "key")) => (name, Kind::Key),
                Some((name, _)) => (name, Kind::Text),
            };
            Column { name, kind }
        })
    }

    /// The names of the columns, for a statement.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self.columns().map(|column| column.name).collect();
        names.join(", ")
    }

    /// The names of the key columns, for a statement.
    pub(super) fn key_names(&self) -> String {
        let key = self.columns().take(self.key);
        key.map(|key| key.name).collect::<Vec<_>>().join(", ")
    }

    /// What a statement reads of the columns as of a moment, in milliseconds since 1970-01-01 UTC.
    pub(super) fn expressions(&self, now: i64) -> String {
        let expressions = self.columns().map(|column| {
            let instead = INSTEAD
                .iter()
                .find(|(table, name, _)| (*table, *name) == (self.name, column.name));
            instead.map_or(column.name.to_owned(), |(.., expression)| {
                expression.replace("{now}", &now.to_string())
            })
        });
        expressions.collect::<Vec<_>>().join(", ")
    }

    /// The statement that inserts this many rows, with a clause before their values.
    pub(super) fn insert(&self, words: &str, rows: usize) -> String {
        let width = self.columns().count();
        let rows = (0..rows).map(|row| {
            let places = (1..=width).map(|column| format!("${}", row * width + column));
            format!("({})", places.collect::<Vec<_>>().join(", "))
        });
        let rows = rows.collect::<Vec<_>>().join(", ");
        format!(
            "insert into {} ({}) {words} values {rows}",
            self.name,
            self.names()
        )
    }

    /// Counts what must not exist in the target: anything except default groups without messages, and
    /// fake users that nobody has been.
    pub(super) fn occupied(&self) -> String {
        let condition = match self.name {
            "users" => "where not free or arrived_at is not null or traced_at is not null",
            "rooms" => "where position is null or version > 0",
            // A server that was started once has one, which is replaced.
            "push_key" => "where false",
            _ => "",
        };
        format!("select count(*) from {} {condition}", self.name)
    }
}
