//! Rows of any table, as values: for carrying a whole database into another. Everything else asks for the columns that it knows.
//!
//! A [`Session`] is one transaction. Tables, their columns and what they refer to are read from the database itself, so that a table that a
//! later migration adds is carried without a word here.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use sqlx::{AssertSqlSafe, Row as _};

use crate::{Db, DbError, Kind};

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Null,
    /// 64 bits.
    Integer(i64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Value {
    /// About how much memory it takes.
    fn size(&self) -> usize {
        match self {
            Self::Null | Self::Integer(_) => 8,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// 64 bits.
    Integer,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
}

/// A table, the same on both databases where it holds the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Sorted by name.
    pub columns: Vec<Column>,
    /// Columns of the primary key, in its order.
    pub key: Vec<String>,
    /// Columns that refer to other tables, and to which; sorted.
    pub parents: Vec<(String, String)>,
}

impl Table {
    /// By its primary key; rows that refer to others of the same table behind those that do not.
    fn order(&self) -> String {
        let own = self.parents.iter().filter(|(_, parent)| *parent == self.name).map(|(column, _)| format!("\"{column}\" IS NOT NULL"));
        own.chain(self.key.iter().map(|column| format!("\"{column}\""))).collect::<Vec<_>>().join(", ")
    }

    fn fields(&self) -> String {
        self.columns.iter().map(|column| format!("\"{}\"", column.name)).collect::<Vec<_>>().join(", ")
    }
}

/// Most bound values of one statement; SQLite knows 32,766 and PostgreSQL 65,535.
const MOST_BOUND: usize = 30_000;
/// Rows and bytes of one statement.
const BATCH_ROWS: usize = 500;
const BATCH_BYTES: usize = 4 << 20;

/// One transaction, in which tables are read and filled. Dropped without [`Session::commit`], it changed nothing.
#[derive(Debug)]
pub enum Session {
    /// On a file.
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    /// On a server.
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

/// Runs `$body` with `$tx` to be used as `&mut **$tx`.
macro_rules! each {
    ($session:expr, |$tx:ident| $body:expr) => {
        match $session {
            Session::Sqlite($tx) => $body,
            Session::Postgres($tx) => $body,
        }
    };
}

impl Db {
    /// Sees everything as it is at one moment, while others write.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn reading(&self) -> Result<Session, DbError> {
        let mut session = match self {
            Self::Sqlite { read, .. } => Session::Sqlite(read.begin().await?),
            Self::Postgres(pool) => Session::Postgres(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?),
        };
        session.patient().await?;
        Ok(session)
    }

    /// For filling tables. On SQLite nobody else writes meanwhile.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn writing(&self) -> Result<Session, DbError> {
        let mut session = match self {
            Self::Sqlite { write, .. } => Session::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres(pool) => Session::Postgres(pool.begin().await?),
        };
        session.patient().await?;
        Ok(session)
    }
}

impl Session {
    /// Whole tables take longer than any statement of a server may.
    async fn patient(&mut self) -> Result<(), DbError> {
        if let Self::Postgres(tx) = self {
            sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut **tx).await?;
        }
        Ok(())
    }

    /// Makes it last.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn commit(self) -> Result<(), DbError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }

    /// Undoes it, and waits until it is undone.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn roll_back(self) -> Result<(), DbError> {
        match self {
            Self::Sqlite(tx) => tx.rollback().await?,
            Self::Postgres(tx) => tx.rollback().await?,
        }
        Ok(())
    }

    /// The names of all tables, sorted.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn table_names(&mut self) -> Result<Vec<String>, DbError> {
        let text = match self {
            Self::Sqlite(_) => "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
            Self::Postgres(_) => {
                "SELECT table_name::TEXT FROM information_schema.tables WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'"
            }
        };
        let names: Vec<(String,)> = each!(self, |tx| sqlx::query_as(text).fetch_all(&mut **tx).await)?;
        let mut names: Vec<String> = names.into_iter().map(|(name,)| name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// All tables, those that others refer to first.
    ///
    /// # Errors
    /// [`DbError`], also when a table is made in a way that nobody knows how to carry.
    pub async fn tables(&mut self) -> Result<Vec<Table>, DbError> {
        let mut left = Vec::new();
        for name in self.table_names().await? {
            left.push(self.table(&name).await?);
        }
        let mut sorted: Vec<Table> = Vec::new();
        while !left.is_empty() {
            let is_done = |name: &String| sorted.iter().any(|table| table.name == *name);
            let Some(next) = left.iter().position(|table| table.parents.iter().all(|(_, to)| *to == table.name || is_done(to))) else {
                let names: Vec<&str> = left.iter().map(|table| table.name.as_str()).collect();
                return Err(DbError::new(Kind::Other, format!("tables refer to each other in a circle: {}", names.join(", "))));
            };
            sorted.push(left.remove(next));
        }
        Ok(sorted)
    }

    async fn table(&mut self, name: &str) -> Result<Table, DbError> {
        /// Name and type, name, column and table.
        type Found = (Vec<(String, String)>, Vec<(String,)>, Vec<(String, String)>);
        let (columns, key, parents): Found = match self {
            Self::Sqlite(tx) => (
                sqlx::query_as("SELECT name, type FROM pragma_table_info($1)").bind(name).fetch_all(&mut **tx).await?,
                sqlx::query_as("SELECT name FROM pragma_table_info($1) WHERE pk > 0 ORDER BY pk").bind(name).fetch_all(&mut **tx).await?,
                sqlx::query_as("SELECT \"from\", \"table\" FROM pragma_foreign_key_list($1)").bind(name).fetch_all(&mut **tx).await?,
            ),
            Self::Postgres(tx) => {
                let columns = "SELECT column_name::TEXT, data_type::TEXT FROM information_schema.columns \
                               WHERE table_schema = current_schema() AND table_name = $1";
                let key = "SELECT a.attname::TEXT FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid \
                           JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) \
                           WHERE i.indisprimary AND c.relname = $1 AND c.relnamespace = current_schema()::regnamespace \
                           ORDER BY array_position(i.indkey::int2[], a.attnum)";
                let parents = "SELECT a.attname::TEXT, f.relname::TEXT FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid \
                               JOIN pg_class f ON f.oid = k.confrelid JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) \
                               WHERE k.contype = 'f' AND c.relname = $1 AND c.relnamespace = current_schema()::regnamespace";
                (
                    sqlx::query_as(columns).bind(name).fetch_all(&mut **tx).await?,
                    sqlx::query_as(key).bind(name).fetch_all(&mut **tx).await?,
                    sqlx::query_as(parents).bind(name).fetch_all(&mut **tx).await?,
                )
            }
        };
        let key: Vec<String> = key.into_iter().map(|(column,)| column).collect();
        // These names become part of statements, and a file may come from anywhere.
        let is_plain = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let names = columns.iter().map(|(column, _)| column).chain(&key).chain(parents.iter().flat_map(|(column, table)| [column, table]));
        if key.is_empty() || !is_plain(name) || names.into_iter().any(|name| !is_plain(name)) {
            return Err(DbError::new(
                Kind::Other,
                format!("table {name:?} has no primary key, or a name that is not plain: it is not ours"),
            ));
        }
        let column = |(column, kind): (String, String)| {
            let kind = match kind.as_str() {
                "INTEGER" | "bigint" => ColumnKind::Integer,
                "TEXT" | "text" => ColumnKind::Text,
                "BLOB" | "bytea" => ColumnKind::Bytes,
                _ => return Err(DbError::new(Kind::Other, format!("column {name}.{column} is of type {kind}, which cannot be carried"))),
            };
            Ok(Column { name: column, kind })
        };
        let mut table = Table { name: name.to_owned(), columns: columns.into_iter().map(column).collect::<Result<_, _>>()?, key, parents };
        table.columns.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        table.parents.sort_unstable();
        Ok(table)
    }

    /// The rows of a table, one after another, in an order that is the same on both databases.
    pub fn rows<'s>(&'s mut self, table: &'s Table) -> BoxStream<'s, Result<Vec<Value>, DbError>> {
        let text = format!("SELECT {} FROM \"{}\" ORDER BY {}", table.fields(), table.name, table.order());
        macro_rules! values {
            ($tx:expr) => {{
                let rows = sqlx::query(AssertSqlSafe(text)).fetch(&mut **$tx);
                rows.map(|row| {
                    let row = row?;
                    let field = |(at, column): (usize, &Column)| {
                        Ok::<_, DbError>(match column.kind {
                            ColumnKind::Integer => row.try_get::<Option<i64>, _>(at)?.map_or(Value::Null, Value::Integer),
                            ColumnKind::Text => row.try_get::<Option<String>, _>(at)?.map_or(Value::Null, Value::Text),
                            ColumnKind::Bytes => row.try_get::<Option<Vec<u8>>, _>(at)?.map_or(Value::Null, Value::Bytes),
                        })
                    };
                    table.columns.iter().enumerate().map(field).collect()
                })
                .boxed()
            }};
        }
        match self {
            Self::Sqlite(tx) => values!(tx),
            Self::Postgres(tx) => values!(tx),
        }
    }

    /// Whether a table has no rows.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn is_empty(&mut self, table: &Table) -> Result<bool, DbError> {
        let text = format!("SELECT 1 FROM \"{}\" LIMIT 1", table.name);
        Ok(each!(self, |tx| sqlx::query(AssertSqlSafe(text)).fetch_optional(&mut **tx).await.map(|row| row.is_none()))?)
    }

    /// Takes all rows out of a table.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn empty(&mut self, table: &Table) -> Result<(), DbError> {
        let text = format!("DELETE FROM \"{}\"", table.name);
        each!(self, |tx| sqlx::query(AssertSqlSafe(text)).execute(&mut **tx).await.map(drop))?;
        Ok(())
    }

    /// Puts rows in. Empties `rows`.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn insert(&mut self, table: &Table, rows: &mut Vec<Vec<Value>>) -> Result<(), DbError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut text = format!("INSERT INTO \"{}\" ({}) VALUES ", table.name, table.fields());
        let width = table.columns.len();
        for row in 0..rows.len() {
            let places: Vec<String> = (1..=width).map(|column| format!("${}", row * width + column)).collect();
            text.push_str(if row == 0 { "(" } else { ", (" });
            text.push_str(&places.join(", "));
            text.push(')');
        }
        each!(self, |tx| {
            let mut query = sqlx::query(AssertSqlSafe(text));
            for row in rows.drain(..) {
                for (value, column) in row.into_iter().zip(&table.columns) {
                    query = match (value, column.kind) {
                        (Value::Integer(value), _) => query.bind(value),
                        (Value::Text(value), _) => query.bind(value),
                        (Value::Bytes(value), _) => query.bind(value),
                        (Value::Null, ColumnKind::Integer) => query.bind(None::<i64>),
                        (Value::Null, ColumnKind::Text) => query.bind(None::<String>),
                        (Value::Null, ColumnKind::Bytes) => query.bind(None::<Vec<u8>>),
                    };
                }
            }
            query.execute(&mut **tx).await.map(drop)
        })?;
        Ok(())
    }

    /// Numbers that the database gives by itself go on behind those that are there. SQLite does that without being told.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn follow_numbers(&mut self, table: &Table) -> Result<(), DbError> {
        let Self::Postgres(tx) = self else { return Ok(()) };
        let own: Option<(String,)> = sqlx::query_as(
            "SELECT column_name::TEXT FROM information_schema.columns \
             WHERE table_schema = current_schema() AND table_name = $1 AND is_identity = 'YES'",
        )
        .bind(&table.name)
        .fetch_optional(&mut **tx)
        .await?;
        let Some((column,)) = own else { return Ok(()) };
        let text = format!(
            "SELECT setval(pg_get_serial_sequence('{0}', '{column}'), MAX(\"{column}\")) FROM \"{0}\" HAVING MAX(\"{column}\") IS NOT NULL",
            table.name
        );
        sqlx::query(AssertSqlSafe(text)).execute(&mut **tx).await?;
        Ok(())
    }

    /// The steps of the schema that were made, sorted; none on a database without tables of ours.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn steps(&mut self) -> Result<Vec<String>, DbError> {
        if !self.table_names().await?.iter().any(|name| name == "migrations") {
            return Ok(Vec::new());
        }
        let names: Vec<(String,)> =
            each!(self, |tx| sqlx::query_as("SELECT name FROM migrations ORDER BY name").fetch_all(&mut **tx).await)?;
        Ok(names.into_iter().map(|(name,)| name).collect())
    }
}

/// Rows that wait to be put in together.
#[derive(Debug, Default)]
pub struct Batch {
    rows: Vec<Vec<Value>>,
    bytes: usize,
}

impl Batch {
    /// One more; puts them in when it is enough for one statement.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn add(&mut self, to: &mut Session, table: &Table, row: Vec<Value>) -> Result<(), DbError> {
        self.bytes += row.iter().map(Value::size).sum::<usize>();
        self.rows.push(row);
        if self.rows.len() >= BATCH_ROWS.min(MOST_BOUND / table.columns.len().max(1)) || self.bytes >= BATCH_BYTES {
            self.done(to, table).await?;
        }
        Ok(())
    }

    /// Puts in what is left.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn done(&mut self, to: &mut Session, table: &Table) -> Result<(), DbError> {
        self.bytes = 0;
        to.insert(table, &mut self.rows).await
    }
}
