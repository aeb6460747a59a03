//! What a worker believes, written down so that it outlives a kill at any moment.
//!
//! One line for each thing that happened, and one fixed place, overwritten again and again, for
//! the last time that the lock was known to be held.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{PERIOD_AT_LEAST, WORK, now};
use crate::support::history::{History, Hold, Increment, Read, Run, Write};

pub(crate) struct Journal {
    lines: File,
    place: File,
    holds: u64,
    /// The first of those that are held now.
    first: u64,
}

impl Journal {
    pub(crate) fn create(dir: &Path, name: &str) -> io::Result<Self> {
        let options = OpenOptions::new().append(true).create_new(true).clone();
        Ok(Self {
            lines: options.open(dir.join(format!("{name}.journal")))?,
            place: File::create_new(dir.join(format!("{name}.held")))?,
            holds: 0,
            first: 0,
        })
    }

    pub(crate) fn hold(&mut self, lock: usize, token: i64, asked: u64, start: u64) {
        self.holds += 1;
        self.first = self.holds;
        self.line(format_args!("hold {lock} {token} {asked} {start}"));
    }

    /// Another lock, which is held together with the one before.
    pub(crate) fn hold_too(&mut self, lock: usize, token: i64, asked: u64, start: u64) {
        let first = self.first;
        self.hold(lock, token, asked, start);
        self.first = first;
    }

    pub(crate) fn held(&self, at: u64) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.first.to_le_bytes());
        bytes[8..].copy_from_slice(&at.to_le_bytes());
        self.place
            .write_all_at(&bytes, 0)
            .expect("a place to write");
    }

    pub(crate) fn end(&self, held: u64) {
        let locks = self.holds + 1 - self.first;
        self.line(format_args!("end {held} {locks}"));
    }

    /// The work that began with the last hold has just ended.
    pub(crate) fn worked(&self) {
        self.line(format_args!("worked {}", now()));
    }

    pub(crate) fn recorded(&self) {
        self.line(format_args!("recorded {}", now()));
    }

    /// A write of the counter file is about to follow.
    pub(crate) fn count(&self, start: u64, found: u64) {
        self.line(format_args!("count {start} {found}"));
    }

    pub(crate) fn counted(&self) {
        self.line(format_args!("counted {}", now()));
    }

    /// A write of the guarded value is about to follow.
    pub(crate) fn write(&self, value: u64) {
        self.line(format_args!("write {} {value}", now()));
    }

    pub(crate) fn written(&self) {
        self.line(format_args!("written {}", now()));
    }

    pub(crate) fn read(&self, start: u64, value: u64) {
        self.line(format_args!("read {start} {} {value}", now()));
    }

    /// In one piece, so that a kill leaves all of it or nothing.
    fn line(&self, line: std::fmt::Arguments<'_>) {
        (&self.lines)
            .write_all(format!("{line}\n").as_bytes())
            .expect("a journal to write");
    }
}

/// Reads all journals of a directory. `locks`: the first lock of the worker that a journal's name
/// begins with. `deaths`: when processes ended, by the beginning of their journals' names.
pub(crate) fn read_all(
    dir: &Path,
    first_lock: impl Fn(&str) -> usize,
    deaths: &HashMap<String, u64>,
) -> io::Result<History> {
    let mut history = History::default();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path
            .extension()
            .is_none_or(|extension| extension != "journal")
        {
            continue;
        }
        let name = path.file_stem().expect("a name").to_string_lossy();
        let process = name.split_once('-').map_or(&*name, |(process, _)| process);
        let death = deaths.get(process).copied();
        let place = fs::read(path.with_extension("held"))?;
        let last = (place.len() == 16).then(|| {
            let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            (number(&place[..8]), number(&place[8..]))
        });
        read_one(
            &mut history,
            &name,
            &fs::read_to_string(&path)?,
            first_lock(process),
            last,
            death,
        );
    }
    Ok(history)
}

fn read_one(
    history: &mut History,
    name: &str,
    lines: &str,
    first_lock: usize,
    last: Option<(u64, u64)>,
    death: Option<u64>,
) {
    let mut holds = 0;
    let mut lock = 0;
    let (mut count, mut write) = (None, None);
    for line in lines.lines() {
        let mut words = line.split(' ');
        let what = words.next().unwrap_or_default();
        let mut number = || -> u64 {
            let word = words.next().unwrap_or_default();
            word.parse().unwrap_or_else(|_| panic!("{name}: {line}"))
        };
        match what {
            "hold" => {
                holds += 1;
                lock = first_lock + number() as usize;
                let (token, asked, start) = (number(), number(), number());
                if lock == first_lock + WORK {
                    history.runs.push(Run {
                        lock,
                        start,
                        due: 0,
                        recorded: None,
                    });
                }
                history.holds.push(Hold {
                    name: format!("{name}.{holds}"),
                    lock,
                    token: i64::try_from(token).expect("a token"),
                    asked,
                    start,
                    end: match last {
                        Some((first, held)) if holds >= first => held.max(start),
                        _ => start,
                    },
                });
            }
            "end" => {
                let (held, locks) = (number(), number() as usize);
                let ended = history.holds.iter_mut().rev().take(locks);
                ended.for_each(|hold| hold.end = held);
            }
            "worked" => {
                let due = number() + PERIOD_AT_LEAST.as_nanos() as u64;
                history.runs.last_mut().expect("a run").due = due;
            }
            "recorded" => history.runs.last_mut().expect("a run").recorded = Some(number()),
            "count" => {
                count = Some(history.increments.len());
                history.increments.push(Increment {
                    hold: history.holds.len() - 1,
                    start: number(),
                    found: number(),
                    end: None,
                    died: death,
                });
            }
            "counted" => {
                let at = count.take().expect("a count");
                history.increments[at].end = Some(number());
            }
            "write" => {
                write = Some(history.writes.len());
                history.writes.push(Write {
                    lock,
                    start: number(),
                    value: number(),
                    confirmed: None,
                });
            }
            "written" => {
                let at = write.take().expect("a write");
                history.writes[at].confirmed = Some(number());
            }
            "read" => history.reads.push(Read {
                lock,
                start: number(),
                end: number(),
                value: number(),
            }),
            _ => panic!("{name}: {line}"),
        }
    }
}
