//! The list of what is moved.

/// A table that is moved.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// How many of the first columns are its key, in the order of which rows are moved and compared.
    pub(super) key: usize,
    pub(super) columns: &'static [Column],
    pub(super) ids: Ids,
}

/// Who gives the rows their ids.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ids {
    /// The chat: they mean something or are drawn at random.
    Chat,
    /// The database, each time one that is higher than those that are there.
    Database,
    /// The database, and none a second time, so that its counter is moved as well.
    DatabaseOnce,
}

#[derive(Clone, Copy)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What is read of it instead, an expression that either database understands; `{now}` is the moment
    /// of the move.
    taken: Option<&'static str>,
}

/// What a column holds, in either database. Any may be null.
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

/// Everybody who was connected has left.
const LEFT: &str = "coalesce(left_at, {now})";
/// And untouched users are given back, as after a restart.
const GONE: &str =
    "case when not free and traced_at is null then coalesce(gone_at, {now}) else gone_at end";
/// Nobody looks at a room.
const NOBODY: &str = "cast(0 as bigint)";

const fn number(name: &'static str) -> Column {
    column(name, Kind::Number)
}

const fn text(name: &'static str) -> Column {
    column(name, Kind::Text)
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column {
        name,
        kind,
        taken: None,
    }
}

const fn taken(column: Column, expression: &'static str) -> Column {
    Column {
        taken: Some(expression),
        ..column
    }
}

/// Each after those that it refers to.
///
/// Not moved are `clients_active`, since nobody looks at anything, and what one database says of
/// itself and its servers: `nodes`; with PostgreSQL `writers`, `life` and `schema_version`.
pub(super) const TABLES: [Table; 10] = [
    Table {
        name: "users",
        key: 1,
        ids: Ids::Database,
        columns: &[
            number("id"),
            text("name"),
            text("email"),
            text("display_name"),
            text("display_key"),
            text("display_look"),
            text("display_look_capitals"),
            number("arrived_at"),
            number("traced_at"),
            column("free", Kind::Flag),
            taken(number("gone_at"), GONE),
            number("shuffle"),
            text("password_hash"),
            number("kept_at"),
            number("moderator_at"),
            number("muted_at"),
            number("banned_at"),
        ],
    },
    Table {
        name: "sessions",
        key: 1,
        ids: Ids::DatabaseOnce,
        columns: &[
            number("id"),
            number("user_id"),
            column("token_hash", Kind::Bytes),
            number("made_at"),
            number("seen_at"),
        ],
    },
    Table {
        name: "clients",
        key: 1,
        ids: Ids::DatabaseOnce,
        columns: &[
            number("id"),
            number("user_id"),
            column("guest", Kind::Flag),
            number("session_id"),
            number("node_id"),
            number("visit"),
            column("token_hash", Kind::Bytes),
            number("arrived_at"),
            taken(number("left_at"), LEFT),
            column("cut_off", Kind::Flag),
        ],
    },
    Table {
        name: "rooms",
        key: 1,
        ids: Ids::Chat,
        columns: &[
            number("id"),
            text("kind"),
            text("name"),
            text("name_key"),
            number("position"),
            number("user_low"),
            number("user_high"),
            number("version"),
            number("history"),
            taken(number("people"), NOBODY),
            number("created_at"),
            number("restricted_at"),
            number("removed_at"),
        ],
    },
    Table {
        name: "room_histories",
        key: 2,
        ids: Ids::Chat,
        columns: &[
            number("room_id"),
            number("first_version"),
            number("history"),
        ],
    },
    Table {
        name: "messages",
        key: 1,
        ids: Ids::Database,
        columns: &[
            number("id"),
            number("room_id"),
            number("user_id"),
            text("author_name"),
            text("text"),
            column("key", Kind::Key),
            number("made"),
            number("changed"),
            number("worded"),
            number("created_at"),
            number("edited_at"),
            number("deleted_at"),
            number("deleted_by"),
            text("reactions"),
        ],
    },
    Table {
        name: "reactions",
        key: 1,
        ids: Ids::Database,
        columns: &[
            number("id"),
            number("message_id"),
            number("room_id"),
            number("user_id"),
            text("emoji"),
            text("name"),
            number("created_at"),
        ],
    },
    Table {
        name: "users_subscribed",
        key: 2,
        ids: Ids::Chat,
        columns: &[
            number("user_id"),
            number("room_id"),
            number("since"),
            number("with_id"),
            number("last_message_id"),
            number("read_message_id"),
            number("unread"),
        ],
    },
    Table {
        name: "admin_links",
        key: 1,
        ids: Ids::Chat,
        columns: &[column("token_hash", Kind::Bytes), number("made_at")],
    },
    Table {
        name: "audit_log",
        key: 1,
        ids: Ids::DatabaseOnce,
        columns: &[
            number("id"),
            number("at"),
            number("moderator_id"),
            text("moderator"),
            text("action"),
        ],
    },
];

impl Table {
    /// The names of the columns, for a statement.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self.columns.iter().map(|column| column.name).collect();
        names.join(", ")
    }

    /// The names of the key, for a statement.
    pub(super) fn key_names(&self) -> String {
        let key = self.columns[..self.key].iter();
        key.map(|key| key.name).collect::<Vec<_>>().join(", ")
    }

    /// What a statement reads of the columns as of a moment, in milliseconds since 1970-01-01 UTC.
    pub(super) fn expressions(&self, now: i64) -> String {
        let expressions: Vec<_> = self
            .columns
            .iter()
            .map(|column| match column.taken {
                Some(expression) => expression.replace("{now}", &now.to_string()),
                None => column.name.to_owned(),
            })
            .collect();
        expressions.join(", ")
    }

    /// The statement that inserts so many rows, with words before their values.
    pub(super) fn insert(&self, words: &str, rows: usize) -> String {
        let width = self.columns.len();
        let rows: Vec<_> = (0..rows)
            .map(|row| {
                let places = (1..=width).map(|column| format!("${}", row * width + column));
                format!("({})", places.collect::<Vec<_>>().join(", "))
            })
            .collect();
        let (name, names) = (self.name, self.names());
        format!(
            "insert into {name} ({names}) {words} values {}",
            rows.join(", ")
        )
    }

    /// Counts what must not be there where a chat is to go: anything but default groups without
    /// messages.
    pub(super) fn occupied(&self) -> String {
        let condition = match self.name {
            "rooms" => "where position is null or version > 0",
            _ => "",
        };
        format!("select count(*) from {} {condition}", self.name)
    }
}
