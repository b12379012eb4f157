//! Reads one app's log from a point in time on, and goes on as it grows.
//!
//! A cursor is a file and an offset behind a whole line, so nothing is read twice and nothing is
//! skipped, through any number of rotations.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use jiff::Timestamp;
use tokio::sync::watch;

use super::{LogLine, LogQuery, record, segment};

const CHUNK: usize = 256 * 1024;
/// How long a follower waits at most before it looks by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What one read brought.
enum Step {
    Lines(Vec<LogLine>),
    /// Nothing more for now.
    End,
    /// The whole log was deleted.
    Gone,
}

struct Cursor {
    dir: PathBuf,
    file: Option<(u64, File, u64)>,
    buffer: Vec<u8>,
}

impl Cursor {
    /// Begins with the newest file that begins before `since`, or the oldest.
    fn new(dir: &Path, since: Option<Timestamp>) -> io::Result<Self> {
        let numbers = segment::numbers(dir)?;
        let begins_before = |number: &&u64| match (since, segment::first_time(dir, **number)) {
            (Some(since), Some(first)) => first <= since,
            _ => false,
        };
        let number = numbers.iter().rev().find(begins_before).or(numbers.first());
        let mut cursor = Self { dir: dir.to_owned(), file: None, buffer: vec![0; CHUNK] };
        if let Some(number) = number {
            cursor.open(*number)?;
        }
        Ok(cursor)
    }

    fn open(&mut self, number: u64) -> io::Result<bool> {
        match File::open(segment::path(&self.dir, number)) {
            Ok(file) => {
                self.file = Some((number, file, 0));
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn step(&mut self) -> io::Result<Step> {
        loop {
            let lines = self.read()?;
            if !lines.is_empty() {
                return Ok(Step::Lines(lines));
            }
            let current = self.file.as_ref().map(|(number, ..)| *number);
            let numbers = segment::numbers(&self.dir)?;
            let next = numbers.iter().find(|number| current.is_none_or(|current| **number > current));
            match next {
                None if current.is_some() && numbers.is_empty() => return Ok(Step::Gone),
                None => return Ok(Step::End),
                Some(next) => {
                    // The next file exists, so nobody writes to this one any more: what is in it
                    // now is all there will be.
                    let lines = self.read()?;
                    if !lines.is_empty() {
                        return Ok(Step::Lines(lines));
                    }
                    self.open(*next)?;
                }
            }
        }
    }

    /// The whole lines in the next chunk of the open file.
    fn read(&mut self) -> io::Result<Vec<LogLine>> {
        let Some((_, file, offset)) = &mut self.file else {
            return Ok(Vec::new());
        };
        loop {
            let count = file.read_at(&mut self.buffer, *offset)?;
            let chunk = self.buffer.get(..count).unwrap_or_default();
            let end = match chunk.iter().rposition(|byte| *byte == b'\n') {
                Some(last) => last + 1,
                // No writer makes a line that long: step over what is not ours.
                None if count == CHUNK => count,
                None => return Ok(Vec::new()),
            };
            *offset += end as u64;
            let lines: Vec<LogLine> =
                chunk.get(..end).unwrap_or_default().split(|byte| *byte == b'\n').filter_map(record::decode).collect();
            if !lines.is_empty() {
                return Ok(lines);
            }
        }
    }
}

/// What a query keeps of the lines read.
struct Wanted {
    since: Option<Timestamp>,
    filter: Option<String>,
    streams: Vec<String>,
}

impl Wanted {
    fn has(&self, line: &LogLine) -> bool {
        self.since.is_none_or(|since| line.time >= since)
            && self.filter.as_ref().is_none_or(|text| line.message.contains(text))
            && (self.streams.is_empty() || self.streams.iter().any(|wanted| is_under(&line.stream, wanted)))
    }
}

fn is_under(stream: &str, wanted: &str) -> bool {
    let mut parts = stream.split('/');
    let wanted = wanted.strip_suffix('/').unwrap_or(wanted);
    wanted.split('/').all(|wanted| parts.next().is_some_and(|part| part == wanted || wanted == "*"))
}

struct Follow {
    dir: PathBuf,
    cursor: Option<Cursor>,
    wanted: Arc<Wanted>,
    tail: Option<usize>,
    follow: bool,
    grown: Option<watch::Receiver<u64>>,
    done: bool,
}

/// The lines of the log in `dir` that a query asks for. `grown` tells when to look again.
pub(super) fn read(dir: PathBuf, query: LogQuery, grown: Option<watch::Receiver<u64>>) -> BoxStream<'static, LogLine> {
    let since = query.since.and_then(|age| Timestamp::now().checked_sub(age).ok());
    let wanted = Wanted { since, filter: query.filter.filter(|text| !text.is_empty()), streams: query.streams };
    let follow = Follow { dir, cursor: None, wanted: Arc::new(wanted), tail: query.tail, follow: query.follow, grown, done: false };
    stream::unfold(follow, |mut follow| async move {
        let lines = follow.next().await?;
        Some((stream::iter(lines), follow))
    })
    .flatten()
    .boxed()
}

impl Follow {
    async fn next(&mut self) -> Option<Vec<LogLine>> {
        while !self.done {
            // Before the read: what is written after it then counts as news.
            if let Some(grown) = &mut self.grown {
                grown.borrow_and_update();
            }
            match self.turn().await {
                Ok(Step::Lines(lines)) if !lines.is_empty() => return Some(lines),
                Ok(Step::Lines(_)) => {}
                Ok(Step::End) if self.follow => self.wait().await,
                Ok(Step::End | Step::Gone) => self.done = true,
                Err(error) => {
                    tracing::warn!(log = %self.dir.display(), %error, "a log could not be read");
                    self.done = true;
                }
            }
        }
        None
    }

    /// One step on a thread that may block: file reads do.
    async fn turn(&mut self) -> io::Result<Step> {
        let cursor = self.cursor.take();
        let (dir, wanted, tail) = (self.dir.clone(), Arc::clone(&self.wanted), self.tail.take());
        let work = tokio::task::spawn_blocking(move || {
            let mut cursor = match cursor {
                Some(cursor) => cursor,
                None => Cursor::new(&dir, wanted.since)?,
            };
            let step = match tail {
                Some(count) => last(&mut cursor, &wanted, count)?,
                None => match cursor.step()? {
                    Step::Lines(lines) => Step::Lines(lines.into_iter().filter(|line| wanted.has(line)).collect()),
                    other => other,
                },
            };
            Ok::<_, io::Error>((cursor, step))
        });
        let (cursor, step) = work.await.map_err(io::Error::other)??;
        self.cursor = Some(cursor);
        Ok(step)
    }

    async fn wait(&mut self) {
        let look_again = tokio::time::sleep(LOOK_AGAIN);
        match &mut self.grown {
            Some(grown) => tokio::select! {
                changed = grown.changed() => if changed.is_err() { self.grown = None },
                () = look_again => {}
            },
            None => look_again.await,
        }
    }
}

/// Reads everything stored and keeps the last `count` lines that are wanted.
fn last(cursor: &mut Cursor, wanted: &Wanted, count: usize) -> io::Result<Step> {
    let mut kept = VecDeque::new();
    while let Step::Lines(lines) = cursor.step()? {
        for line in lines.into_iter().filter(|line| wanted.has(line)) {
            kept.push_back(line);
            if kept.len() > count {
                kept.pop_front();
            }
        }
    }
    Ok(Step::Lines(kept.into()))
}
