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
    let last = "select coalesce(max(message_id), 0) from message_words where message_id < $1";
    let mut last: MessageId = tx.the(last, &[&before]).await?;
    // The planner does not know what comparing a row with the marks of many rooms costs, and would read all rows.
    tx.run("set local enable_seqscan = off", &[]).await?;
    let mut found: Vec<MessageId> = Vec::new();
    // With many marks, a window would spare nothing: the index compares the messages with the marks first.
    let sizes = WINDOWS.into_iter().filter(|_| !is_broad(sought));
    let windows = sizes.flat_map(|size| TOGETHER.map(|together| Some((size, together))));
    for windows in windows.chain([None]) {
        let (from, query) = match windows {
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
        if found.len() >= limit || last < since {
            break;
        }
    }
    Ok(found)
}

/// The newest messages with these words among the `each` newest of each of the rooms, and from which message on none
/// is missing.
pub(super) async fn found_newest(
    tx: &Tx<'_>,
    sought: &Sought,
    rooms: &Vec<i64>,
    each: usize,
    since: MessageId,
    before: MessageId,
    limit: usize,
) -> Sql<(Vec<MessageId>, MessageId)> {
    // `coalesce` keeps the planner from asking the index of words, which would find far more than these messages.
    let sql = "with newest as materialized (
            select r.id as room_id, m.id from unnest(cast($1 as bigint[])) r (id)
            cross join lateral (select id from messages where room_id = r.id and id >= $2 and id < $3
                order by id desc limit $4) m),
        reached as materialized (select coalesce(max(oldest), $2) as id from (
            select min(id) as oldest from newest group by room_id having count(*) = $4) as cut),
        found as (select n.id from newest n
            join message_words w on w.message_id = n.id
            where n.id >= (select id from reached)
            and coalesce(w.words @@ cast(cast($5 as text) as tsquery), false)
            order by n.id desc limit $6)
        select id, true from reached union all select id, false from found";
    // An empty query finds nothing, and what no message has is missing in each.
    let query = match sought.is_empty() {
        true => "!'='".to_owned(),
        false => sought.tsquery(),
    };
    let values = [
        rooms as _,
        &since as _,
        &before as _,
        &each as _,
        &query as _,
        &limit as _,
    ];
    tx.run("set local enable_seqscan = off", &[]).await?;
    let rows: Vec<(MessageId, bool)> = tx.all(sql, &values).await?;
    let (reached, found): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, reached)| *reached);
    let mut found: Vec<MessageId> = found.into_iter().map(|(id, _)| id).collect();
    found.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
    Ok((found, reached.first().map_or(since, |(id, _)| *id)))
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
