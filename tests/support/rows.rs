//! Reading a database behind the server's back.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::postgres::Database;

/// A database of either kind.
pub(crate) trait Rows {
    /// The first column of each row of a query, as text. The query has to work in every kind of
    /// database.
    fn rows(&self, query: &str) -> Vec<String>;
}

impl Rows for Database {
    fn rows(&self, query: &str) -> Vec<String> {
        self.look_at_once(format!("select cast(it as text) from ({query}) found (it)"))
    }
}

impl Rows for PathBuf {
    fn rows(&self, query: &str) -> Vec<String> {
        self.as_path().rows(query)
    }
}

impl Rows for Path {
    fn rows(&self, query: &str) -> Vec<String> {
        // SQLite cannot name the columns of a subquery.
        let query = format!("with found (it) as ({query}) select cast(it as text) from found");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let database = Connection::open_with_flags(self, flags).unwrap();
        let mut query = database.prepare(&query).unwrap();
        let rows = query.query_map([], |row| row.get::<_, Option<String>>(0));
        rows.unwrap()
            .map(|it| it.unwrap().unwrap_or_default())
            .collect()
    }
}

/// The values of a row that are joined by tabs; the last one may have tabs in it.
pub(crate) fn columns<const N: usize>(row: &str) -> [&str; N] {
    let columns: Vec<&str> = row.splitn(N, '\t').collect();
    columns.try_into().expect("a value in each column")
}
