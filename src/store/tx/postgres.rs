//! Statements on PostgreSQL.

use deadpool_postgres::GenericClient;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::{Param, Row, Sql, Tx, Values, is_broad};
use crate::model::MessageId;
use crate::search::{Indexed, Sought, marks};

pub(super) const DEFAULT_GROUPS: &str = include_str!("../migrations/postgres/default_groups.sql");
/// The key of the advisory lock for names.
const NAMING: i64 = 0x6e61_6d65;

/// Until the commit no other node changes names.
pub(super) async fn lock_names(tx: &Tx<'_>) -> Sql<()> {
    let lock = "select pg_advisory_xact_lock($1)";
    tx.run(lock, &[&NAMING]).await
}

/// The sizes of the windows of messages in which a search looks first, as powers of two. PostgreSQL's index
/// finds all messages with a word, and not the newest first.
const WINDOWS: [u32; 3] = [12, 16, 20];
/// How many windows of each size a search looks in at once, one after the other.
const TOGETHER: [i64; 2] = [1, 4];
/// How much further a search looks if it has found nothing.
const FURTHER: i64 = 16;

/// Sets the words of a message.
pub(super) async fn index(tx: &Tx<'_>, id: MessageId, words: Option<&Indexed>) -> Sql<()> {
    let Some(words) = words else {
        let sql = "delete from message_words where message_id = $1";
        return tx.run(sql, &[&id]).await;
    };
    let windows = WINDOWS.map(|size| format!("'{}' ", marks::window(id, size)));
    let words = windows.concat() + &words.tsvector();
    let sql = "insert into message_words (message_id, words)
        values ($1, cast(cast($2 as text) as tsvector))
        on conflict (message_id) do update set words = excluded.words";
    tx.run(sql, &[&id, &words]).await
}

/// The newest messages with these words.
pub(super) async fn found(
    tx: &Tx<'_>,
    sought: &Sought,
    since: MessageId,
    before: MessageId,
    limit: usize,
) -> Sql<Vec<MessageId>> {
    // The sums keep the planner from reading all messages in the order of their ids.
    let sql = "select message_id from message_words
        where words @@ cast(cast($1 as text) as tsquery)
        and message_id + 0 >= $2 and message_id + 0 < $3 order by message_id + 0 desc limit $4";
    // The planner knows little of what this costs. It would read all rows, or compile the statement first.
    let plan = "select set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)";
    tx.run(plan, &[]).await?;
    if is_broad(sought) {
        return found_by_mark(tx, sought, since, before, limit).await;
    }
    let last = "select coalesce(max(message_id), 0) from message_words where message_id < $1";
    let mut last: MessageId = tx.the(last, &[&before]).await?;
    let newest = last;
    let mut found: Vec<MessageId> = Vec::new();
    let mut reach = 1 << WINDOWS[0];
    while found.len() < limit && last >= since {
        let windows = WINDOWS.into_iter();
        let mut windows = windows.flat_map(|size| TOGETHER.map(|together| (size, together)));
        let windows = windows.find(|(size, together)| together << size >= reach);
        let (from, query) = match windows.filter(|_| reach <= last.0 - since.0) {
            Some((size, together)) => {
                let windows = (0..together).map(|n| MessageId(last.0 - (n << size)));
                let windows = windows.filter(|within| within.0 >= 0);
                let marks = windows.clone().map(|within| marks::window(within, size));
                let first = windows.map(|within| within.0 >> size << size).min();
                let first = MessageId(first.unwrap_or(0)).max(since);
                (first, sought.clone().with(marks.collect()))
            }
            None => (since, sought.clone()),
        };
        let (before, left) = (MessageId(last.0 + 1), limit - found.len());
        let values = [&query.tsquery() as _, &from as _, &before as _, &left as _];
        found.extend(tx.all::<MessageId>(sql, &values).await?);
        last = MessageId(from.0 - 1);
        // Where the others probably are, if the words are as frequent there.
        let seen = newest.0 - last.0;
        let left = limit.saturating_sub(found.len());
        reach = match found.len() {
            0 => FURTHER * seen,
            found => seen.saturating_mul(3 * left as i64) / (2 * found as i64),
        };
    }
    Ok(found)
}

/// The same with each of many marks by itself. Asked for all at once, the index compares each message that has one of
/// the marks with every mark.
async fn found_by_mark(
    tx: &Tx<'_>,
    sought: &Sought,
    since: MessageId,
    before: MessageId,
    limit: usize,
) -> Sql<Vec<MessageId>> {
    let sql = "select found.id from unnest(cast($1 as text[])) as mark (sought)
        cross join lateral (select message_id as id from message_words
            where words @@ cast(mark.sought as tsquery)
            and message_id + 0 >= $2 and message_id + 0 < $3
            order by message_id + 0 desc limit $4) as found
        order by found.id desc limit $4";
    let each = sought.tsqueries();
    tx.all(sql, &[&each as _, &since as _, &before as _, &limit as _])
        .await
}

/// All rows of a statement, which is prepared once on each connection.
pub(super) async fn rows<T>(
    db: &impl GenericClient,
    sql: &str,
    values: Values<'_>,
    read: impl Fn(&mut Row<'_>) -> Sql<T>,
) -> Sql<Vec<T>> {
    let statement = db.prepare_cached(sql).await?;
    let params: Vec<Param<'_>> = values.iter().map(|value| value.param()).collect();
    let rows = db.query(&statement, &refer(&params)).await?;
    rows.iter()
        .map(|row| read(&mut Row::postgres(row)))
        .collect()
}

/// Runs a statement. Returns how many rows it changed.
pub(super) async fn run(db: &impl GenericClient, sql: &str, values: Values<'_>) -> Sql<u64> {
    let statement = db.prepare_cached(sql).await?;
    let params: Vec<Param<'_>> = values.iter().map(|value| value.param()).collect();
    Ok(db.execute(&statement, &refer(&params)).await?)
}

fn refer<'a>(params: &'a [Param<'_>]) -> Vec<&'a (dyn ToSql + Sync)> {
    params.iter().map(|param| param as _).collect()
}

impl ToSql for Param<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) => number.to_sql_checked(kind, out),
            Self::Bool(flag) => flag.to_sql_checked(kind, out),
            Self::Text(text) => text.to_sql_checked(kind, out),
            Self::Bytes(bytes) => bytes.to_sql_checked(kind, out),
            Self::Uuid(uuid) => uuid.to_sql_checked(kind, out),
            Self::Ints(numbers) => numbers.to_sql_checked(kind, out),
            Self::Texts(texts) => texts.to_sql_checked(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
