//! `azmutex list`: the locks of the container.

use std::io::{self, IsTerminal as _};
use std::iter;
use std::mem;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, SystemTime};

use azmutex::{AzureMutex, Error, ErrorKind, Holder, LeaseState, LeaseStatus};

use super::{Outcome, status};
use crate::args::{Global, ListArgs, Sort};
use crate::config::Config;
use crate::exit::Code;
use crate::output::{Failure, clean, print, print_line, say};
use crate::text::{shorten, width};
use crate::times::{ago, span};

/// The most columns that a cell of the table takes.
const MAX_CELL: usize = 60;

/// After how many rows to print the table so far.
const ROWS: usize = 200;

/// After how long without another row.
const IDLE: Duration = Duration::from_millis(100);

pub(crate) fn list(args: &ListArgs, global: &Global) -> Outcome {
    let config = Config::load(global)?;
    let mutex = config.mutex()?;
    let mut out = Out {
        mutex: &mutex,
        json: global.json,
        left: args.limit.unwrap_or(usize::MAX),
        table: Table::default(),
    };
    let mut all = Vec::new();
    let locks = mutex.list(&args.prefix);
    let (sender, receiver) = mpsc::sync_channel(ROWS);
    // The next page may take long: what there is, is shown meanwhile.
    let reading = thread::Builder::new()
        .name("azmutex-list".to_owned())
        .spawn(move || {
            for found in locks {
                if sender.send(found).is_err() {
                    return;
                }
            }
        })
        .map_err(|error| Failure::new(Code::Bug, format!("cannot start a thread: {error}")))?;
    while out.left > 0 {
        let found = match receiver.recv_timeout(IDLE) {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                out.table.print();
                return Err(failed(error));
            }
            Err(RecvTimeoutError::Timeout) => {
                out.table.print();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) if reading.join().is_ok() => break,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::new(Code::Bug, "the locks could not be read"));
            }
        };
        let free = found.state().is_free();
        let wanted = !(args.held && free || args.free && !free);
        match args.sort {
            Sort::Name if wanted => out.show(&found),
            Sort::State | Sort::Since if wanted => all.push(found),
            _ => {}
        }
    }
    // Both keep the order of names among equals.
    match args.sort {
        Sort::Name => {}
        Sort::State => all.sort_by_key(|found| rank(found.state())),
        Sort::Since => all.sort_by_key(|found| {
            let since = found.holder().and_then(Holder::since);
            (since.is_none(), since.unwrap_or(SystemTime::UNIX_EPOCH))
        }),
    }
    for found in &all {
        out.show(found);
    }
    out.table.print();
    if !out.table.has_header && !global.json && !global.quiet {
        say(&format!("no such locks in {}", clean(mutex.container())));
    }
    Ok(Code::Done)
}

fn failed(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound => Failure::from(error)
            .hint("choose one with --container; azmutex creates it when a lock is first acquired"),
        _ => error.into(),
    }
}

/// Held locks first, then those that may be held.
fn rank(state: LeaseState) -> u8 {
    match state {
        LeaseState::Leased => 0,
        LeaseState::Breaking => 1,
        state if state.is_free() => 3,
        _ => 2,
    }
}

/// Where locks are shown.
struct Out<'a> {
    mutex: &'a AzureMutex,
    json: bool,
    /// How many more may be shown.
    left: usize,
    table: Table,
}

impl Out<'_> {
    fn show(&mut self, found: &LeaseStatus) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        if self.json {
            let url = self.mutex.url(found.key());
            print_line(&status::object(found, &url).to_string());
        } else {
            self.table.push(row(found));
        }
    }
}

/// A table that is printed while it grows. Its columns get wider if necessary.
#[derive(Default)]
struct Table {
    rows: Vec<[String; COLUMNS]>,
    widths: [usize; COLUMNS],
    has_header: bool,
}

const COLUMNS: usize = 5;

impl Table {
    fn push(&mut self, row: [String; COLUMNS]) {
        self.rows.push(row);
        if self.rows.len() >= ROWS {
            self.print();
        }
    }

    /// Prints the rows so far.
    fn print(&mut self) {
        if self.rows.is_empty() {
            return;
        }
        let mut rows = mem::take(&mut self.rows);
        if !mem::replace(&mut self.has_header, true) {
            let header = ["LOCK", "STATE", "HOLDER", "SINCE", "REASON"];
            rows.insert(0, header.map(str::to_owned));
        }
        for row in &rows {
            for (widest, cell) in self.widths.iter_mut().zip(row) {
                // A longer cell runs over its column's edge, and moves no other row.
                let columns = width(cell);
                if columns <= MAX_CELL {
                    *widest = columns.max(*widest);
                }
            }
        }
        let mut text = String::new();
        for row in &rows {
            let mut line = String::new();
            for (widest, cell) in self.widths.iter().zip(row) {
                line.push_str(cell);
                let fill = (widest + 2).saturating_sub(width(cell)).max(2);
                line.extend(iter::repeat_n(' ', fill));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        print(&text);
    }
}

fn row(found: &LeaseStatus) -> [String; COLUMNS] {
    let state = match found.state() {
        LeaseState::Leased => "held",
        LeaseState::Breaking => "breaking",
        LeaseState::Available if found.done().is_some() => "free (done)",
        LeaseState::Available => "free",
        LeaseState::Expired => "free (ran out)",
        LeaseState::Broken => "free (broken)",
        _ => "unknown",
    };
    // Its own lease says nothing of its permits.
    let state = match found.permits() {
        Some(permits) if found.state().is_free() => status::permits(permits),
        _ => state.to_owned(),
    };
    let dash = || "-".to_owned();
    let holder = found.holder();
    let unknown = if found.state().is_free() {
        "-"
    } else {
        "unknown"
    };
    let name = clean(found.key());
    [
        // Not cut if another program reads it.
        if io::stdout().is_terminal() {
            shorten(&name, MAX_CELL)
        } else {
            name
        },
        state,
        cell(holder.and_then(|h| h.owner()).unwrap_or(unknown)),
        holder
            .and_then(|h| h.since())
            .map_or_else(dash, |since| span(ago(since))),
        holder.and_then(|h| h.reason()).map_or_else(dash, cell),
    ]
}

fn cell(text: &str) -> String {
    shorten(&clean(text), MAX_CELL)
}
