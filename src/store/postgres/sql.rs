//! How a statement is asked: prepared once on each connection, its rows read one by one.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};

/// What a statement comes to.
pub(super) type Sql<T> = Result<T, tokio_postgres::Error>;
type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// All rows.
pub(super) async fn all<T>(
    db: &impl GenericClient,
    sql: &str,
    values: Values<'_>,
    read: fn(&Row) -> Sql<T>,
) -> Sql<Vec<T>> {
    let statement = db.prepare_cached(sql).await?;
    db.query(&statement, values)
        .await?
        .iter()
        .map(read)
        .collect()
}

/// The one row there is, if any.
pub(super) async fn one<T>(
    db: &impl GenericClient,
    sql: &str,
    values: Values<'_>,
    read: fn(&Row) -> Sql<T>,
) -> Sql<Option<T>> {
    let statement = db.prepare_cached(sql).await?;
    db.query_opt(&statement, values)
        .await?
        .as_ref()
        .map(read)
        .transpose()
}

/// The value of a statement that always has one.
pub(super) async fn value<T: for<'a> FromSql<'a>>(
    db: &impl GenericClient,
    sql: &str,
    values: Values<'_>,
) -> Sql<T> {
    let statement = db.prepare_cached(sql).await?;
    db.query_one(&statement, values).await?.try_get(0)
}

/// Does something; answers to how many rows.
pub(super) async fn run(db: &impl GenericClient, sql: &str, values: Values<'_>) -> Sql<u64> {
    let statement = db.prepare_cached(sql).await?;
    db.execute(&statement, values).await
}

/// A number that is never negative.
pub(super) fn count(row: &Row, column: usize) -> Sql<u64> {
    row.try_get::<_, i64>(column).map(i64::unsigned_abs)
}

/// What somebody looks for, as the database takes it: it knows no NUL, and no name has a control
/// character.
pub(super) fn sought(text: &str) -> String {
    text.replace('\0', "\u{1}")
}

/// Where those end that begin so.
pub(super) fn end_of(beginning: &str) -> String {
    format!("{beginning}\u{10ffff}")
}
