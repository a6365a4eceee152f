//! Statements on SQLite.

use rusqlite::types::{Null, ToSqlOutput};
use rusqlite::{Connection, ToSql};

use super::{Param, Row, Sql, Values};

pub(super) const DEFAULT_GROUPS: &str = include_str!("../migrations/sqlite/default_groups.sql");

/// All rows of a statement.
pub(super) fn rows<T>(
    db: &Connection,
    sql: &str,
    values: Values<'_>,
    read: impl Fn(&mut Row<'_>) -> Sql<T>,
) -> Sql<Vec<T>> {
    let mut statement = db.prepare_cached(sql)?;
    bind(&mut statement, values)?;
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(&mut Row::sqlite(row))?);
    }
    Ok(found)
}

/// Runs a statement. Returns how many rows it changed.
pub(super) fn run(db: &Connection, sql: &str, values: Values<'_>) -> Sql<u64> {
    let mut statement = db.prepare_cached(sql)?;
    bind(&mut statement, values)?;
    Ok(statement.raw_execute()? as u64)
}

fn bind(statement: &mut rusqlite::Statement<'_>, values: Values<'_>) -> rusqlite::Result<()> {
    debug_assert_eq!(statement.parameter_count(), values.len());
    for (n, value) in (1..).zip(values) {
        debug_assert_eq!(statement.parameter_name(n), Some(&*format!("${n}")));
        statement.raw_bind_parameter(n, value.param())?;
    }
    Ok(())
}

impl ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => ToSqlOutput::from(Null),
            Self::Int(number) => ToSqlOutput::from(*number),
            Self::Bool(flag) => ToSqlOutput::from(*flag),
            Self::Text(text) => ToSqlOutput::from(*text),
            Self::Bytes(bytes) => ToSqlOutput::from(*bytes),
            Self::Uuid(uuid) => ToSqlOutput::from(uuid.to_string()),
            Self::Ints(numbers) => ToSqlOutput::from(serde_json::json!(numbers).to_string()),
            Self::Texts(texts) => ToSqlOutput::from(serde_json::json!(texts).to_string()),
        })
    }
}
