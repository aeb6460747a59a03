//! `azmutex list`: the locks of the container.

use azmutex::{ErrorKind, LeaseState, LeaseStatus};

use super::{Outcome, status};
use crate::args::{Global, ListArgs};
use crate::config::Config;
use crate::exit::Code;
use crate::output::{Failure, clean, print_line, say};
use crate::times::{ago, span};

/// The most characters in a cell of the table.
const MAX_CELL: usize = 60;

pub(crate) fn list(args: &ListArgs, global: &Global) -> Outcome {
    let config = Config::load(global)?;
    let mutex = config.mutex()?;
    let mut rows = Vec::new();
    for found in mutex.list(&args.prefix) {
        let found = found.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Failure::from(error).hint(
                "choose one with --container; azmutex creates it when a lock is first \
                       acquired",
            ),
            _ => error.into(),
        })?;
        let free = found.state().is_free();
        if (args.held && free) || (args.free && !free) {
            continue;
        }
        if global.json {
            let url = mutex.url(found.key());
            print_line(&status::object(&found, &url).to_string());
        } else {
            rows.push(row(&found));
        }
    }
    if global.json {
        return Ok(Code::Done);
    }
    if rows.is_empty() {
        if !global.quiet {
            say(&format!("no such locks in {}", clean(mutex.container())));
        }
        return Ok(Code::Done);
    }
    rows.insert(
        0,
        ["LOCK", "STATE", "HOLDER", "SINCE", "REASON"].map(str::to_owned),
    );
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            let fill = width + 2 - cell.chars().count();
            line.extend(std::iter::repeat_n(' ', fill));
        }
        print_line(line.trim_end());
    }
    Ok(Code::Done)
}

fn row(found: &LeaseStatus) -> [String; 5] {
    let state = match found.state() {
        LeaseState::Leased => "held",
        LeaseState::Breaking => "breaking",
        LeaseState::Available => "free",
        LeaseState::Expired => "free (ran out)",
        LeaseState::Broken => "free (broken)",
        _ => "unknown",
    };
    let dash = || "-".to_owned();
    let holder = found.holder();
    let unknown = if found.state().is_free() {
        "-"
    } else {
        "unknown"
    };
    [
        clean(found.key()),
        state.to_owned(),
        cell(holder.and_then(|h| h.owner()).unwrap_or(unknown)),
        holder
            .and_then(|h| h.since())
            .map_or_else(dash, |since| span(ago(since))),
        holder.and_then(|h| h.reason()).map_or_else(dash, cell),
    ]
}

fn cell(text: &str) -> String {
    let text = clean(text);
    if text.chars().count() <= MAX_CELL {
        return text;
    }
    text.chars().take(MAX_CELL - 1).chain(['…']).collect()
}
