//! What is shown while a lock is waited for: who holds it, and for how long it has been waited.

use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use azmutex::Holder;

use crate::args::{Global, LogFormat, When};
use crate::config::Lock;
use crate::output::{Object, clean, draw, holder_object, say, say_object};
use crate::times::{ago, rfc3339, span};

/// How often the holder is asked for on a terminal.
const REFRESH: Duration = Duration::from_secs(5);

/// Shows one lock's waiting. Shared by the thread that waits and whoever ends it.
#[derive(Debug)]
pub(crate) struct WaitDisplay {
    lock: Lock,
    limit: Option<Duration>,
    style: Style,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// One line, drawn again and again.
    Redrawn,
    /// A line now and then.
    Lines,
    /// An object now and then.
    Objects,
    Silent,
}

#[derive(Debug, Default)]
struct State {
    /// Whether there was anything to wait for.
    waited: bool,
    /// When the next line is due, since waiting began.
    due: Duration,
    lines: u32,
    holder: String,
}

impl WaitDisplay {
    /// `limit`: when waiting ends, if it does.
    pub(crate) fn new(global: &Global, lock: &Lock, limit: Option<Duration>) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let style = match (global.quiet, global.log_format, global.progress) {
            (true, ..) => Style::Silent,
            (_, LogFormat::Json, _) => Style::Objects,
            (_, _, When::Always) => Style::Redrawn,
            (_, _, When::Auto) if io::stderr().is_terminal() && !dumb => Style::Redrawn,
            _ => Style::Lines,
        };
        Self {
            lock: lock.clone(),
            limit,
            style,
            state: Mutex::default(),
        }
    }

    /// Says that the lock is still held by another after `waited`. Call it as often as it is known;
    /// asks the service who holds it when there is something to show.
    pub(crate) fn waiting(&self, waited: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waited = true;
        if self.style == Style::Silent {
            return;
        }
        let due = waited >= state.due;
        if due {
            state.due = waited
                + match (self.style, state.lines) {
                    (Style::Redrawn, _) => REFRESH,
                    (_, 0) => Duration::from_secs(10).saturating_sub(waited),
                    (_, 1) => Duration::from_secs(30).saturating_sub(waited),
                    (_, 2) => Duration::from_secs(60).saturating_sub(waited),
                    _ => Duration::from_secs(300),
                };
            state.lines += 1;
        }
        match self.style {
            Style::Silent => {}
            Style::Redrawn => {
                if due {
                    state.holder = self.holder(true);
                }
                let line = format!(
                    "azmutex: waiting for {}  held by {}  [{}:{:02}]  Ctrl-C to give up",
                    self.lock.name,
                    state.holder,
                    waited.as_secs() / 60,
                    waited.as_secs() % 60
                );
                draw(&line);
            }
            Style::Lines if due => {
                let limit = self
                    .limit
                    .map_or_else(String::new, |limit| format!(", limit {}", span(limit)));
                say(&format!(
                    "waiting for {}: held by {} (waited {}{limit})",
                    self.lock.name,
                    self.holder(false),
                    span(waited)
                ));
            }
            Style::Objects if due => {
                let status = self.lock.mutex.status(&self.lock.key).ok();
                let holder = status.as_ref().and_then(|status| status.holder());
                say_object(
                    &Object::schema()
                        .text("event", "waiting")
                        .exact("lock", &self.lock.key)
                        .maybe_object("holder", holder.map(holder_object))
                        .seconds("waited_s", waited),
                );
            }
            _ => {}
        }
    }

    /// Takes the line off the terminal, before something else is written.
    pub(crate) fn clear(&self) {
        if self.style == Style::Redrawn {
            draw("");
        }
    }

    /// Says that the lock is acquired, if it was waited for, or with `-v`.
    pub(crate) fn acquired(&self, waited: Duration, verbose: bool) {
        self.clear();
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.waited && !verbose {
            return;
        }
        match self.style {
            Style::Silent => {}
            Style::Objects => say_object(
                &Object::schema()
                    .text("event", "acquired")
                    .exact("lock", &self.lock.key)
                    .seconds("waited_s", waited),
            ),
            _ => say(&format!(
                "acquired {} after {}",
                self.lock.name,
                span(waited)
            )),
        }
    }

    /// Who holds the lock, as a part of a sentence; asks the service.
    pub(crate) fn holder(&self, relative: bool) -> String {
        match self.lock.mutex.status(&self.lock.key) {
            Ok(status) if status.state().is_free() => "nobody any more".to_owned(),
            Ok(status) => match status.holder() {
                Some(holder) => sentence(holder, relative),
                None => "an unknown holder (leased, no azmutex metadata)".to_owned(),
            },
            Err(_) => "an unknown holder".to_owned(),
        }
    }
}

fn sentence(holder: &Holder, relative: bool) -> String {
    let who = clean(&holder.to_string());
    match holder.since() {
        None => who,
        Some(since) if relative => format!("{who} for {}", span(ago(since))),
        Some(since) => format!("{who} since {}", rfc3339(since)),
    }
}
