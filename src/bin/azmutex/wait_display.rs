//! What is shown while waiting for a lock: who holds it, and the time waited so far.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use azmutex::LeaseStatus;

use crate::args::{Global, LogFormat, When};
use crate::config::Lock;
use crate::exit::Code;
use crate::output::{Failure, Object, clean, columns, draw, say, say_object, waiting_event};
use crate::text::{shorten, width};
use crate::times::{ago, rfc3339, short, span};

/// How to show waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// One line that is redrawn.
    Drawn,
    /// Lines, at growing intervals.
    Lines,
    /// JSON objects, at the same intervals.
    Objects,
    Silent,
}

impl Style {
    pub(crate) fn of(global: &Global) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        match (global.log_format, global.progress) {
            _ if global.quiet => Self::Silent,
            (LogFormat::Json, _) => Self::Objects,
            (_, When::Always) => Self::Drawn,
            (_, When::Auto) if io::stderr().is_terminal() && !dumb => Self::Drawn,
            _ => Self::Lines,
        }
    }
}

/// When the line after `lines` is due: at 10, 30 and 60 seconds, then every 5 minutes.
pub(crate) fn moment(lines: u32) -> Duration {
    Duration::from_secs(match lines {
        0 => 0,
        1 => 10,
        2 => 30,
        3 => 60,
        lines => 300 * u64::from(lines - 3),
    })
}

/// The line that is redrawn, in less than `columns`. What matters least is left out first; the time
/// waited is left out last.
pub(crate) fn drawn(
    name: &str,
    permits: Option<u32>,
    status: Option<&LeaseStatus>,
    waited: Duration,
    limit: Option<Duration>,
    columns: usize,
) -> String {
    let room = columns.saturating_sub(1);
    let HeldBy { who, detail, since } = HeldBy::of(status, Since::Span);
    let waited = clock(waited.as_secs());
    let time = format!("[{waited}]");
    let held = held_by(permits);
    let whole = |detail: &str, time: &str| {
        format!("azmutex: waiting for {name}  {held} {who}{detail}{since}  {time}")
    };
    let time_and_limit = limit.map_or(time.clone(), |limit| {
        format!("[{waited} of {}]", clock(limit.as_secs_f64().ceil() as u64))
    });
    let left = room.saturating_sub(width(&whole("", &time)));
    let detail_cut = if width(&detail) <= left {
        detail.clone()
    } else if left > LEGIBLE {
        let end = if detail.ends_with(')') { ")" } else { "" };
        shorten(&detail, left - 1) + end
    } else {
        String::new()
    };
    let lines = [
        whole(&detail, &format!("{time_and_limit}  Ctrl-C to give up")),
        whole(&detail, &time_and_limit),
        whole(&detail_cut, &time),
        format!("waiting for {name}  {held} {who}{since}  {time}"),
        format!("{name}: {held} {who}{since}  {time}"),
        format!("{name}: {who}{since} {time}"),
    ];
    if let Some(line) = lines.into_iter().find(|line| width(line) <= room) {
        return line;
    }
    // Name and holder share the space left, if it is enough to recognise them.
    let left = room.saturating_sub(width(&format!(": {since} {time}")));
    if left >= 2 * LEGIBLE {
        let who = shorten(&who, (left / 2).max(left.saturating_sub(width(name))));
        let name = shorten(name, left - width(&who));
        return format!("{name}: {who}{since} {time}");
    }
    for since in [&*since, ""] {
        let left = room.saturating_sub(width(&format!("{since} {time}")));
        if left >= LEGIBLE {
            return format!("{}{since} {time}", shorten(&who, left));
        }
    }
    shorten(&time, room)
}

/// Minutes and seconds, such as `61:01`.
fn clock(secs: u64) -> String {
    format!("{}:{:02}", secs / 60, secs % 60)
}

/// How many columns of a name are worth showing.
const LEGIBLE: usize = 6;

/// A line that stays.
pub(crate) fn line(name: &str, holder: &str, waited: Duration, limit: Option<Duration>) -> String {
    let limit = limit.map_or(String::new(), |limit| format!(", limit {}", short(limit)));
    let waited = span(waited);
    format!("waiting for {name}: {holder} (waited {waited}{limit})")
}

/// The failure to acquire the lock in time. `status`: `None` if the service could not be asked.
pub(crate) fn not_acquired(
    lock: &Lock,
    status: Option<&LeaseStatus>,
    limit: Option<Duration>,
) -> Failure {
    let Lock { name, word, .. } = lock;
    let text = why_not_acquired(name, &holder(status, Since::Span), limit);
    Failure::new(Code::NotAcquired, text).hint(if_gone(word))
}

fn if_gone(word: &str) -> String {
    format!("azmutex status {word}; if the holder is gone: azmutex break {word}")
}

/// The failure to acquire several locks in time. `busy`: one that is held, if that is known.
pub(crate) fn not_all_acquired(
    names: &str,
    busy: Option<(&Lock, &LeaseStatus)>,
    limit: Option<Duration>,
) -> Failure {
    let within = within(limit);
    let Some((Lock { name, word, .. }, status)) = busy else {
        let text = format!("cannot acquire {names}: {within}somebody held one of them");
        return Failure::new(Code::NotAcquired, text);
    };
    let who = holder(Some(status), Since::Span);
    let text = format!("cannot acquire {names}: {within}somebody holds {name} ({who})");
    Failure::new(Code::NotAcquired, text).hint(if_gone(word))
}

/// The failure to acquire one of the permits in time. `status`: of one that is held, if that is known.
pub(crate) fn no_permit(
    lock: &Lock,
    permits: u32,
    status: Option<&LeaseStatus>,
    limit: Option<Duration>,
) -> Failure {
    let Lock { name, word, .. } = lock;
    let held = status.filter(|status| !status.state().is_free());
    let who = match held {
        Some(status) => who_holds(Some(permits), Some(status), Since::Span),
        None if permits == 1 => "somebody held the only permit".to_owned(),
        None => format!("others held all {permits} permits"),
    };
    let text = format!("cannot acquire {name}: {}{who}", within(limit));
    let slot = held.and_then(|status| Some(status.key().rsplit_once(".slot")?.1));
    let slot = slot.unwrap_or("N");
    Failure::new(Code::NotAcquired, text).hint(format!(
        "azmutex status --slots {word}; if a holder is gone: azmutex break --slot {slot} {word}"
    ))
}

fn within(limit: Option<Duration>) -> String {
    match limit {
        Some(limit) if !limit.is_zero() => format!("not acquired within {}: ", short(limit)),
        _ => String::new(),
    }
}

fn why_not_acquired(name: &str, holder: &str, limit: Option<Duration>) -> String {
    let within = match limit {
        Some(limit) if !limit.is_zero() => format!("not acquired within {}", short(limit)),
        _ => "somebody holds it".to_owned(),
    };
    format!("cannot acquire {name}: {within} ({holder})")
}

/// How to write how long a lock has been held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// For how long, if it is read at once.
    Span,
    /// Since when, if it stays on the screen.
    Time,
}

/// Who holds the lock, as `held by ...`.
fn holder(status: Option<&LeaseStatus>, style: Since) -> String {
    who_holds(None, status, style)
}

/// Who holds the lock, or one of so many permits.
pub(crate) fn who_holds(
    permits: Option<u32>,
    status: Option<&LeaseStatus>,
    style: Since,
) -> String {
    format!("{} {}", held_by(permits), HeldBy::of(status, style))
}

fn held_by(permits: Option<u32>) -> String {
    match permits {
        None => "held by".to_owned(),
        Some(1) => "the only permit is held by".to_owned(),
        Some(permits) => format!("all {permits} permits are held, one by"),
    }
}

/// Who holds a lock, in parts, the first of which matters most.
#[derive(Debug)]
pub(crate) struct HeldBy {
    who: String,
    detail: String,
    /// Since when or for how long, with a leading space.
    since: String,
}

impl HeldBy {
    /// What is known of the holder; `None` if the service could not be asked.
    pub(crate) fn of(status: Option<&LeaseStatus>, style: Since) -> Self {
        let with = |who: &str, detail: String| Self {
            who: who.to_owned(),
            detail,
            since: String::new(),
        };
        let Some(status) = status else {
            return with("another client", String::new());
        };
        if status.state().is_free() {
            return with("nobody any more", String::new());
        }
        let Some(holder) = status.holder() else {
            return with("an unknown holder", what_is_known(status));
        };
        let whole = clean(&holder.to_string());
        let who = holder.owner().map(clean);
        // The rest is its process and its reason.
        let (who, detail) = match who.and_then(|who| Some((whole.strip_prefix(&who)?, who.clone())))
        {
            Some((detail, who)) => (who, detail.to_owned()),
            None => (whole, String::new()),
        };
        let since = match (holder.since(), style) {
            (None, _) => String::new(),
            (Some(since), Since::Span) => format!(" for {}", span(ago(since))),
            (Some(since), Since::Time) => format!(" since {}", rfc3339(since)),
        };
        Self { who, detail, since }
    }
}

impl fmt::Display for HeldBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.who, self.detail, self.since)
    }
}

/// What is known about a holder that has not written who it is.
fn what_is_known(status: &LeaseStatus) -> String {
    let infinite = status.is_infinite();
    match (status.last_holder(), infinite) {
        (None, true) => ", with an infinite lease".to_owned(),
        (None, false) => format!(" ({}, no azmutex metadata)", status.state()),
        (Some(last), _) => {
            let end = if infinite {
                "; this lease is infinite"
            } else {
                ""
            };
            format!("; last recorded: {}{end}", clean(&last.to_string()))
        }
    }
}

/// How long the first line waits for the holder's name.
pub(crate) const NAME: Duration = Duration::from_secs(1);

/// Shows the wait for one lock, on a thread of its own.
#[derive(Debug)]
pub(crate) struct WaitDisplay {
    lock: Lock,
    limit: Option<Duration>,
    style: Style,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// When the wait began, if it had to wait at all.
    began: Option<Instant>,
    status: Option<LeaseStatus>,
    over: bool,
}

impl WaitDisplay {
    /// `limit`: when waiting ends, if it does.
    pub(crate) fn new(global: &Global, lock: &Lock, limit: Option<Duration>) -> Self {
        Self {
            lock: lock.clone(),
            limit,
            style: Style::of(global),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Another client holds the lock after `waited`. `status`: what the service says of it, if that
    /// is known.
    pub(crate) fn waiting(self: &Arc<Self>, waited: Duration, status: Option<&LeaseStatus>) {
        let mut state = self.state();
        if let Some(status) = status {
            state.status = Some(status.clone());
            self.changed.notify_all();
        }
        if state.began.is_some() {
            return;
        }
        let now = Instant::now();
        let began = now.checked_sub(waited).unwrap_or(now);
        state.began = Some(began);
        if self.style != Style::Silent {
            let this = Arc::clone(self);
            // Without a thread to show it, the wait goes on unseen.
            let _ = thread::Builder::new()
                .name("azmutex-waiting".to_owned())
                .spawn(move || this.show(began));
        }
    }

    /// Shows the wait until it is over.
    fn show(&self, began: Instant) {
        let mut state = self.state();
        let mut lines = 0;
        let mut due = began.elapsed() + NAME;
        loop {
            let left = due.saturating_sub(began.elapsed());
            if state.over {
                return;
            }
            // The first line has only waited for the name.
            if !left.is_zero() && (lines > 0 || state.status.is_none()) {
                let waited = self.changed.wait_timeout(state, left);
                (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (name, status, waited) = (&self.lock.name, state.status.as_ref(), began.elapsed());
            match self.style {
                Style::Drawn => draw(&drawn(name, None, status, waited, self.limit, columns())),
                Style::Lines => {
                    let holder = holder(status, Since::Time);
                    say(&line(name, &holder, waited, self.limit));
                }
                Style::Objects => say_object(&waiting_event(&self.lock.key, status, waited)),
                Style::Silent => {}
            }
            lines += 1;
            due = match self.style {
                Style::Drawn => waited + Duration::from_secs(1),
                _ => moment(lines),
            };
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wait is over: erases its line from the terminal.
    pub(crate) fn clear(&self) {
        let mut state = self.state();
        state.over = true;
        self.changed.notify_all();
        if self.style == Style::Drawn {
            draw("");
        }
    }

    /// Reports that the lock is acquired, if there was a wait, or with `-v`.
    pub(crate) fn acquired(&self, waited: Duration, verbose: bool) {
        self.clear();
        if self.state().began.is_none() && !verbose {
            return;
        }
        match self.style {
            Style::Silent => {}
            Style::Objects => say_object(
                &Object::event("acquired")
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

    /// Who holds the lock; asks the service.
    pub(crate) fn status(&self) -> Option<LeaseStatus> {
        self.lock.mutex.status(&self.lock.key).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_at_growing_intervals() {
        let moments: Vec<_> = (0..7).map(|lines| moment(lines).as_secs()).collect();
        assert_eq!(moments, [0, 10, 30, 60, 300, 600, 900]);
    }

    #[test]
    fn line_says_who_is_waited_for_and_for_how_long() {
        let holder = holder(None, Since::Span);
        let limit = Some(Duration::from_secs(600));
        assert_eq!(
            line("prod/deploy", &holder, Duration::from_secs(10), limit),
            "waiting for prod/deploy: held by another client (waited 10s, limit 10m)"
        );
        assert_eq!(
            drawn(
                "prod/deploy",
                None,
                None,
                Duration::from_secs(45),
                None,
                200
            ),
            "azmutex: waiting for prod/deploy  held by another client  [0:45]  Ctrl-C to give up"
        );
        assert_eq!(
            why_not_acquired("prod/deploy", &holder, limit),
            "cannot acquire prod/deploy: not acquired within 10m (held by another client)"
        );
        assert_eq!(
            drawn("deploy", Some(3), None, Duration::from_secs(45), None, 200),
            "azmutex: waiting for deploy  all 3 permits are held, one by another client  [0:45]  \
             Ctrl-C to give up"
        );
    }

    #[test]
    fn drawn_line_fits_and_ends_with_the_time() {
        let waited = Duration::from_secs(3661);
        let wide = "鍵".repeat(40);
        for name in ["a", "prod/deploy", "e\u{301}e\u{301}", &wide] {
            for columns in 0..160 {
                let line = drawn(name, None, None, waited, None, columns);
                assert!(width(&line) < columns.max(1), "{columns}: {line}");
                assert!(columns < 9 || line.contains("[61:01]"), "{columns}: {line}");
            }
        }
        for (columns, line) in [
            (
                80,
                "azmutex: waiting for prod/deploy  held by another client  [61:01]",
            ),
            (50, "prod/deploy: held by another client  [61:01]"),
            (40, "prod/deploy: another client [61:01]"),
            (31, "prod/depl…: another c… [61:01]"),
            (20, "another cl… [61:01]"),
            (9, "[61:01]"),
        ] {
            assert_eq!(
                drawn("prod/deploy", None, None, waited, None, columns),
                line
            );
        }
    }

    #[test]
    fn drawn_line_shows_the_limit_if_there_is_room() {
        let (waited, limit) = (Duration::from_secs(45), Duration::from_millis(599_500));
        for (columns, line) in [
            (
                80,
                "azmutex: waiting for prod/deploy  held by another client  [0:45 of 10:00]",
            ),
            (
                70,
                "azmutex: waiting for prod/deploy  held by another client  [0:45]",
            ),
        ] {
            assert_eq!(
                drawn("prod/deploy", None, None, waited, Some(limit), columns),
                line
            );
        }
    }
}
