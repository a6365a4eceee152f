//! Statements on PostgreSQL.

use deadpool_postgres::GenericClient;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::{Param, Row, Sql, Tx, Values};

pub(super) const DEFAULT_GROUPS: &str = include_str!("../migrations/postgres/default_groups.sql");
/// The key of the advisory lock for names.
const NAMING: i64 = 0x6e61_6d65;

/// Until the commit no other node changes names.
pub(super) async fn lock_names(tx: &Tx<'_>) -> Sql<()> {
    let lock = "select pg_advisory_xact_lock($1)";
    tx.run(lock, &[&NAMING]).await
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
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
