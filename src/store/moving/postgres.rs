//! A PostgreSQL database that a chat is moved from or to.

use std::pin::pin;

use async_trait::async_trait;
use bytes::BytesMut;
use deadpool_postgres::Object;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::tables::{Kind, TABLES, Table};
use super::{
    MoveError, Place, Result, Row, Trouble, Value, not_empty, occupied, part_statement, row_words,
};
use crate::store::postgres::opening::{self, Purpose};
use crate::store::{Address, StoreError};

type Tried<T> = std::result::Result<T, Trouble>;

pub(super) struct Postgres {
    place: String,
    identity: String,
    db: Object,
}

impl Postgres {
    /// In a snapshot; whoever wants to write waits, and in vain.
    pub(super) async fn to_read(address: &Address) -> Result<Self> {
        let opened = Self::connected(address).await?;
        let place = opened.place.clone();
        let db = &opened.db;
        let is_there: bool = opened
            .value("select to_regclass('schema_version') is not null")
            .await?;
        if !is_there {
            return Err(MoveError::NoChat(place));
        }
        opened.hold().await?;
        let found: i64 = opened
            .value("select coalesce(max(version), 0) from schema_version")
            .await?;
        let known = opening::NEWEST;
        if found < known {
            return Err(MoveError::TooOld {
                place,
                found,
                known,
            });
        }
        if found > known {
            return Err(MoveError::TooNew {
                place,
                found,
                known,
            });
        }
        opened.is_free().await?;
        let begin = format!(
            "begin isolation level repeatable read; lock table nodes, {} in share mode",
            names()
        );
        let begun = db.batch_execute(&begin).await;
        opened.at(if_free(begun))?;
        opened.is_free().await?;
        Ok(opened)
    }

    /// Its tables are made where needed.
    pub(super) async fn to_write(address: &Address, from: &str) -> Result<Self> {
        let mut opened = Self::connected(address).await?;
        if opened.identity == from {
            return Err(MoveError::Same(opened.place));
        }
        opened.hold().await?;
        let migrated = opening::migrate(&mut opened.db).await;
        migrated.map_err(|error| Trouble::from(error).at(&opened.place))?;
        opened.is_free().await?;
        Ok(opened)
    }

    async fn connected(address: &Address) -> Result<Self> {
        let place = address.to_string();
        let connecting = async {
            let config = opening::configuration(address.as_str())?;
            let db = opening::connections(&config, Purpose::Reading, 1)?
                .get()
                .await?;
            // However much there is to move; that the other side has gone is noticed soon.
            db.batch_execute(
                "set statement_timeout = 0; set idle_in_transaction_session_timeout = 0;
                 set lock_timeout = '5s'; set tcp_keepalives_idle = 30;
                 set tcp_keepalives_interval = 10; set tcp_keepalives_count = 3",
            )
            .await?;
            let row = db
                .query_one(
                    "select concat_ws(' ', 'postgres', extract(epoch from pg_postmaster_start_time()),
                        oid) from pg_database where datname = current_database()",
                    &[],
                )
                .await?;
            Ok((row.try_get(0)?, db))
        };
        let connected: Tried<(String, Object)> = connecting.await;
        let (identity, db) = connected.map_err(|trouble| trouble.at(&place))?;
        Ok(Self {
            place,
            identity,
            db,
        })
    }

    /// Until the connection ends no program of ours opens the database: it waits where it would look
    /// whether the tables are there.
    async fn hold(&self) -> Result<()> {
        let held = self
            .db
            .query_one("select pg_advisory_lock($1)", &[&opening::MIGRATING]);
        self.at(if_free(held.await))?;
        Ok(())
    }

    /// No server has a lease.
    async fn is_free(&self) -> Result<()> {
        let leased = "select exists (select 1 from nodes where lease_until >= millis())";
        match self.value(leased).await? {
            true => Err(MoveError::InUse(self.place.clone())),
            false => Ok(()),
        }
    }

    async fn value<T: for<'a> tokio_postgres::types::FromSql<'a>>(&self, sql: &str) -> Result<T> {
        let asked = async { Ok(self.db.query_one(sql, &[]).await?.try_get(0)?) };
        self.at(asked.await)
    }

    async fn run(&self, sql: &str) -> Result<()> {
        let done = self.db.batch_execute(sql).await;
        self.at(done.map_err(Trouble::from))
    }

    fn at<T>(&self, done: Tried<T>) -> Result<T> {
        done.map_err(|trouble| trouble.at(&self.place))
    }
}

/// The tables, for a statement.
fn names() -> String {
    TABLES.map(|table| table.name).join(", ")
}

/// Whoever holds a lock that long works on it.
fn if_free<T>(done: std::result::Result<T, tokio_postgres::Error>) -> Tried<T> {
    done.map_err(|error| match error.code() {
        Some(&SqlState::LOCK_NOT_AVAILABLE) => StoreError::InUse(String::new()).into(),
        _ => error.into(),
    })
}

#[async_trait]
impl Place for Postgres {
    fn place(&self) -> &str {
        &self.place
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn known_columns(&self, table: &Table) -> Vec<String> {
        let columns = table.columns.iter();
        columns.map(|column| column.name.to_owned()).collect()
    }

    async fn columns(&mut self, table: &'static Table) -> Result<Vec<String>> {
        let asked = async {
            let sql = "select attname::text from pg_attribute
                where attrelid = to_regclass($1) and attnum > 0 and not attisdropped";
            let rows = self.db.query(sql, &[&table.name]).await?;
            let mut names = Vec::new();
            for row in rows {
                names.push(row.try_get(0)?);
            }
            Ok(names)
        };
        self.at(asked.await)
    }

    async fn count(&mut self, table: &'static Table) -> Result<u64> {
        let count: i64 = self
            .value(&format!("select count(*) from {}", table.name))
            .await?;
        Ok(count.unsigned_abs())
    }

    async fn part(
        &mut self,
        table: &'static Table,
        columns: &str,
        after: Option<Row>,
    ) -> Result<Vec<Row>> {
        let sql = part_statement(table, columns, after.as_ref(), |n| format!("${n}"));
        let after = after.unwrap_or_default();
        let values: Vec<_> = after
            .iter()
            .map(|value| value as &(dyn ToSql + Sync))
            .collect();
        let asked = async {
            let mut rows = Vec::new();
            for row in self.db.query(&sql, &values).await? {
                let mut values = Vec::new();
                for (n, column) in table.moved().enumerate() {
                    let value = match column.kind {
                        Kind::Number => row.try_get::<_, Option<_>>(n)?.map(Value::Number),
                        Kind::Flag => row.try_get::<_, Option<_>>(n)?.map(Value::Flag),
                        Kind::Text => row.try_get::<_, Option<_>>(n)?.map(Value::Text),
                        Kind::Bytes => row.try_get::<_, Option<_>>(n)?.map(Value::Bytes),
                        Kind::Key => row.try_get::<_, Option<_>>(n)?.map(Value::Key),
                    };
                    values.push(value.unwrap_or(Value::Null));
                }
                rows.push(values);
            }
            Ok(rows)
        };
        self.at(asked.await)
    }

    async fn last_id(&mut self, table: &'static Table) -> Result<i64> {
        let sequence = format!("select pg_get_serial_sequence('{}', 'id')", table.name);
        let sequence: String = self.value(&sequence).await?;
        self.value(&format!(
            "select case when is_called then last_value else last_value - 1 end from {sequence}"
        ))
        .await
    }

    async fn begin(&mut self) -> Result<()> {
        let begin = format!(
            "begin; lock table nodes, clients_active, {} in access exclusive mode",
            names()
        );
        let begun = self.db.batch_execute(&begin).await;
        self.at(if_free(begun))?;
        self.is_free().await?;
        for table in &TABLES {
            let count: i64 = self.value(&occupied(table)).await?;
            if count > 0 {
                return Err(not_empty(&self.place, table, count.unsigned_abs()));
            }
        }
        self.run("delete from rooms").await
    }

    async fn put(&mut self, table: &'static Table, rows: Vec<Row>) -> Result<()> {
        for row in &rows {
            let has_nul = |value: &Value| matches!(value, Value::Text(text) if text.contains('\0'));
            if row.iter().any(has_nul) {
                return self.at(Err(Trouble::Row(format!(
                    "{} has a text with U+0000 in it, which PostgreSQL cannot keep",
                    row_words(table, &row[..table.key])
                ))));
            }
        }
        let types: Vec<_> = table
            .moved()
            .map(|column| match column.kind {
                Kind::Number => Type::INT8,
                Kind::Flag => Type::BOOL,
                Kind::Text => Type::TEXT,
                Kind::Bytes => Type::BYTEA,
                Kind::Key => Type::UUID,
            })
            .collect();
        let sql = format!(
            "copy {} ({}) from stdin (format binary)",
            table.name,
            table.names()
        );
        let putting = async {
            let sink = self.db.copy_in(&sql).await?;
            let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
            for row in &rows {
                writer.as_mut().write_raw(row).await?;
            }
            writer.finish().await?;
            Ok(())
        };
        self.at(putting.await)
    }

    async fn continue_after(&mut self, table: &'static Table, last: i64) -> Result<()> {
        let highest = format!("select coalesce(max(id), 0) from {}", table.name);
        let highest: i64 = self.value(&highest).await?;
        let next = last.max(highest).saturating_add(1);
        // Unlike the sequence's own functions, this is undone with the rest.
        self.run(&format!(
            "alter table {} alter column id restart with {next}",
            table.name
        ))
        .await
    }

    async fn commit(&mut self) -> Result<()> {
        // What is said from now on is said by nobody who said what came.
        let begun = opening::continue_history(&self.db, "true").await;
        self.at(begun.map_err(Trouble::from))?;
        let committed = self.db.batch_execute("commit").await;
        committed.map_err(|error| match error.as_db_error() {
            Some(_) => Trouble::from(error).at(&self.place),
            None => MoveError::Unknown {
                place: self.place.clone(),
                source: error.into(),
            },
        })
    }

    async fn end(self: Box<Self>, _is_done: bool) {
        // A connection that has gone has let go of everything.
        let _ = self
            .db
            .batch_execute("rollback; select pg_advisory_unlock_all()")
            .await;
    }
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Number(number) => number.to_sql(kind, out),
            Self::Flag(flag) => flag.to_sql(kind, out),
            Self::Text(text) => text.to_sql(kind, out),
            Self::Bytes(bytes) => bytes.to_sql(kind, out),
            Self::Key(key) => key.to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
