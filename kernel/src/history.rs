//! What was run before, in this kernel and in earlier ones: an SQLite database on a thread of its own.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#history>. Sessions are numbered from 1 in
//! the order in which kernels started; 0 is the current one and negative numbers count back from it.

use protocol::message::history::{HistoryAccess, HistoryEntry, HistoryRequest};
use rusqlite::{Connection, OptionalExtension, params};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::oneshot;

const SCHEMA: &str = "
    create table if not exists sessions (
        session integer primary key autoincrement,
        start text not null default current_timestamp
    );
    create table if not exists history (
        session integer not null,
        line integer not null,
        source text not null,
        output text,
        primary key (session, line)
    ) without rowid;
";

/// How many entries a search or tail gives when the request doesn't say.
const TAIL: i64 = 1000;

type Job = Box<dyn FnOnce(&Database) + Send>;

/// A handle to the database's thread. A kernel whose database can't be opened keeps its history in memory, and says so once.
#[derive(Clone, Debug)]
pub(crate) struct History {
    jobs: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Database {
    connection: Connection,
    session: i64,
}

impl History {
    /// Where the history of this user is kept: `chorus/history.sqlite` in the user's data folder.
    pub(crate) fn path() -> Option<PathBuf> {
        Some(dirs::data_dir()?.join("chorus").join("history.sqlite"))
    }

    /// Opens the database at `path`, or one in memory.
    pub(crate) fn open(path: Option<PathBuf>) -> std::io::Result<History> {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("history".into())
            .spawn(move || {
                let opened = match path.as_deref().map(Database::open) {
                    Some(Ok(database)) => Ok(database),
                    Some(Err(error)) => {
                        tracing::warn!(%error, "the history is not kept beyond this kernel's life");
                        Database::in_memory()
                    }
                    None => Database::in_memory(),
                };
                match opened {
                    Ok(database) => queue.iter().for_each(|job| job(&database)),
                    Err(error) => tracing::error!(%error, "there is no history"),
                }
            })?;
        Ok(History { jobs })
    }

    /// Keeps a cell.
    pub(crate) fn input(&self, line: u32, source: &str) {
        let source = source.to_owned();
        self.submit(move |database| database.input(line, &source));
    }

    /// Keeps a cell's result.
    pub(crate) fn output(&self, line: u32, text: &str) {
        let text = text.to_owned();
        self.submit(move |database| database.output(line, &text));
    }

    /// Looks things up.
    pub(crate) async fn find(&self, request: HistoryRequest) -> Vec<HistoryEntry> {
        let (answer, answered) = oneshot::channel();
        let _ = self.jobs.send(Box::new(move |database| {
            let found = database.find(&request).unwrap_or_else(|error| {
                tracing::warn!(%error, "the history can't be read");
                Vec::new()
            });
            let _ = answer.send(found);
        }));
        answered.await.unwrap_or_default()
    }

    fn submit(&self, job: impl FnOnce(&Database) -> rusqlite::Result<()> + Send + 'static) {
        // The thread is gone only if no database could be opened, which it has said.
        let _ = self.jobs.send(Box::new(move |database| {
            if let Err(error) = job(database) {
                tracing::warn!(%error, "a cell is missing in the history");
            }
        }));
    }
}

impl Database {
    fn open(path: &Path) -> Result<Database, Box<dyn std::error::Error>> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let connection = Connection::open(path)?;
        // Several kernels write to it.
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        Ok(Database::of(connection)?)
    }

    fn in_memory() -> rusqlite::Result<Database> {
        Database::of(Connection::open_in_memory()?)
    }

    fn of(connection: Connection) -> rusqlite::Result<Database> {
        connection.execute_batch(SCHEMA)?;
        connection.execute("insert into sessions default values", [])?;
        Ok(Database {
            session: connection.last_insert_rowid(),
            connection,
        })
    }

    fn input(&self, line: u32, source: &str) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "insert or replace into history (session, line, source) values (?, ?, ?)",
            )?
            .execute(params![self.session, line, source])?;
        Ok(())
    }

    fn output(&self, line: u32, text: &str) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("update history set output = ? where session = ? and line = ?")?
            .execute(params![text, self.session, line])?;
        Ok(())
    }

    fn find(&self, request: &HistoryRequest) -> rusqlite::Result<Vec<HistoryEntry>> {
        let count = request.n.unwrap_or(TAIL);
        match request.hist_access_type {
            HistoryAccess::Range => self.range(request),
            HistoryAccess::Tail => self.newest(
                "select session, line, source, output from history
                 order by session desc, line desc limit ?1",
                params![count],
                request.output,
            ),
            HistoryAccess::Search => {
                let pattern = request.pattern.as_deref().unwrap_or("*");
                let query = if request.unique {
                    // The newest of those that are the same.
                    "select session, max(line), source, output from
                        (select max(session) over (partition by source) as newest, * from history where source glob ?2)
                     where session = newest group by source
                     order by session desc, 2 desc limit ?1"
                } else {
                    "select session, line, source, output from history where source glob ?2
                     order by session desc, line desc limit ?1"
                };
                self.newest(query, params![count, pattern], request.output)
            }
            HistoryAccess::Unknown => Ok(Vec::new()),
        }
    }

    fn range(&self, request: &HistoryRequest) -> rusqlite::Result<Vec<HistoryEntry>> {
        let session = match request.session {
            positive @ 1.. => positive,
            relative => {
                let steps = -relative;
                let found: Option<i64> = self
                    .connection
                    .query_row(
                        "select session from sessions where session <= ? order by session desc limit 1 offset ?",
                        params![self.session, steps],
                        |row| row.get(0),
                    )
                    .optional()?;
                match found {
                    Some(session) => session,
                    None => return Ok(Vec::new()),
                }
            }
        };
        let mut statement = self.connection.prepare_cached(
            "select session, line, source, output from history
             where session = ? and line >= ? and line < ? order by line",
        )?;
        let rows = statement.query_map(
            params![
                session,
                request.start.unwrap_or(1),
                request.stop.unwrap_or(i64::MAX)
            ],
            |row| entry(row, request.output),
        )?;
        rows.collect()
    }

    /// The entries of a query that gives the newest first, the oldest first.
    fn newest(
        &self,
        query: &str,
        parameters: impl rusqlite::Params,
        output: bool,
    ) -> rusqlite::Result<Vec<HistoryEntry>> {
        let mut statement = self.connection.prepare_cached(query)?;
        let rows = statement.query_map(parameters, |row| entry(row, output))?;
        let mut entries = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        entries.reverse();
        Ok(entries)
    }
}

fn entry(row: &rusqlite::Row<'_>, output: bool) -> rusqlite::Result<HistoryEntry> {
    let (session, line, source) = (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(if output {
        HistoryEntry::WithOutput(session, line, (source, row.get(3)?))
    } else {
        HistoryEntry::Input(session, line, source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(hist_access_type: HistoryAccess) -> HistoryRequest {
        HistoryRequest {
            hist_access_type,
            ..HistoryRequest::default()
        }
    }

    fn sources(entries: Vec<HistoryEntry>) -> Vec<(i64, i64, String)> {
        entries
            .into_iter()
            .map(|entry| match entry {
                HistoryEntry::Input(session, line, source) => (session, line, source),
                HistoryEntry::WithOutput(session, line, (source, output)) => {
                    (session, line, format!("{source} -> {output:?}"))
                }
            })
            .collect()
    }

    #[test]
    fn kept_across_sessions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper").join("history.sqlite");
        let first = Database::open(&path).unwrap();
        first.input(1, "let a = 1;").unwrap();
        first.input(2, "a").unwrap();
        first.output(2, "1").unwrap();
        let second = Database::open(&path).unwrap();
        second.input(1, "a").unwrap();
        second.input(2, "let b = [1];").unwrap();

        let all = [
            (1, 1, "let a = 1;".to_owned()),
            (1, 2, "a".to_owned()),
            (2, 1, "a".to_owned()),
            (2, 2, "let b = [1];".to_owned()),
        ];
        let find = |request: &HistoryRequest| sources(second.find(request).unwrap());
        assert_eq!(find(&request(HistoryAccess::Tail)), all);
        let tail = HistoryRequest {
            n: Some(2),
            ..request(HistoryAccess::Tail)
        };
        assert_eq!(find(&tail), all[2..]);
        assert_eq!(find(&request(HistoryAccess::Range)), all[2..]);
        let before = HistoryRequest {
            session: -1,
            start: Some(2),
            stop: Some(3),
            output: true,
            ..request(HistoryAccess::Range)
        };
        assert_eq!(find(&before), [(1, 2, "a -> Some(\"1\")".to_owned())]);
        let before_all = HistoryRequest {
            session: -5,
            ..request(HistoryAccess::Range)
        };
        assert_eq!(find(&before_all), []);
        let search = |pattern: &str, unique| {
            find(&HistoryRequest {
                pattern: Some(pattern.to_owned()),
                unique,
                ..request(HistoryAccess::Search)
            })
        };
        assert_eq!(search("let*", false), [all[0].clone(), all[3].clone()]);
        assert_eq!(search("a", false), [all[1].clone(), all[2].clone()]);
        assert_eq!(search("a", true), [all[2].clone()]);
        assert_eq!(search("*'; drop table history; --", false), []);
    }
}
