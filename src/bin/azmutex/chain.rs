//! The locks that an `azmutex run` among this process's parents already holds for it. Waiting for
//! one of them would never end.
//!
//! They are passed on in a variable. A process may keep its environment for longer than the lock
//! was held, so the holder is checked to be alive.

use azmutex::AzureMutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::args::Waiting;
use crate::config::Lock;
use crate::exit::Code;
use crate::output::Failure;
use crate::{process, processes};

/// The variable: `PID:STARTED:LOCK` entries, separated by blanks.
pub(crate) const HELD_LOCKS: &str = "AZMUTEX_HELD_LOCKS";

/// Fails if `lock`, or this permit of it, is already held for this process.
pub(crate) fn refuse_held(
    lock: &Lock,
    slot: Option<u32>,
    waiting: &Waiting,
) -> Result<(), Failure> {
    let chain = std::env::var(HELD_LOCKS).unwrap_or_default();
    let identity = identity(lock, slot);
    let holder = entries(&chain).find(|entry| entry.lock == identity && entry.is_alive());
    let Some(holder) = holder else { return Ok(()) };
    let code = match waiting.limit() {
        Some(_) => Code::NotAcquired,
        None => Code::Usage,
    };
    let text = format!(
        "{} is already held by a parent azmutex (pid {}), which waits for this process; this would \
         deadlock",
        lock.name, holder.pid
    );
    Err(Failure::new(code, text)
        .hint("the command has the lock: leave the inner azmutex out, or name another lock"))
}

/// The variable for a command that this process holds `lock` for, or one of its permits, and `others`.
pub(crate) fn with(lock: &Lock, slot: Option<u32>, others: &[Lock]) -> String {
    let chain = std::env::var(HELD_LOCKS).unwrap_or_default();
    let pid = std::process::id();
    let started = processes::started(pid.cast_signed()).unwrap_or_default();
    let own = [(lock, slot)].into_iter();
    let own = own.chain(others.iter().map(|other| (other, None)));
    let own = own.map(|(lock, slot)| format!("{pid}:{started}:{}", identity(lock, slot)));
    let outer = entries(&chain).filter(Entry::is_alive);
    let outer = outer.map(|entry| entry.text.to_owned());
    outer.chain(own).collect::<Vec<_>>().join(" ")
}

struct Entry<'a> {
    text: &'a str,
    pid: i32,
    started: u64,
    lock: &'a str,
}

impl Entry<'_> {
    /// Whether the holder is still the same process, and not one that got its process ID later.
    fn is_alive(&self) -> bool {
        match processes::started(self.pid) {
            Some(started) => started == self.started,
            None => self.started == 0 && process::is_there(self.pid),
        }
    }
}

fn entries(chain: &str) -> impl Iterator<Item = Entry<'_>> {
    chain.split_ascii_whitespace().filter_map(|text| {
        let mut parts = text.splitn(3, ':');
        Some(Entry {
            text,
            pid: parts.next()?.parse().ok()?,
            started: parts.next()?.parse().ok()?,
            lock: parts.next()?,
        })
    })
}

/// A name of the lock that does not depend on how its account is written.
fn identity(lock: &Lock, slot: Option<u32>) -> String {
    match slot {
        Some(slot) => name(&lock.mutex, &lock.url, &format!("{}.slot{slot}", lock.key)),
        None => name(&lock.mutex, &lock.url, &lock.key),
    }
}

fn name(mutex: &AzureMutex, url: &str, key: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let authority = rest.split('/').next().unwrap_or_default();
    let place = place(scheme, authority);
    let key = utf8_percent_encode(key, NON_ALPHANUMERIC);
    let (account, container) = (mutex.account(), mutex.container());
    format!("{place}/{account}/{container}/{key}")
}

/// Host and port, in one spelling for this machine, and without parts that make no difference.
fn place(scheme: &str, authority: &str) -> String {
    let authority = authority.to_ascii_lowercase();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (&*authority, if scheme == "http" { "80" } else { "443" }),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address: Result<std::net::IpAddr, _> = bare.parse();
    let host = bare.trim_end_matches('.');
    let local = host == "localhost"
        || host.ends_with(".localhost")
        || address.is_ok_and(|address| {
            // A connection to no address in particular is one to this machine.
            address.to_canonical().is_loopback() || address.is_unspecified()
        });
    match port {
        _ if local => format!("localhost:{port}"),
        // The same account, and its private address.
        "80" | "443" => host.replacen(".privatelink.", ".", 1),
        port => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_is_the_same_however_it_is_written() {
        for (scheme, authority, wanted) in [
            ("http", "127.0.0.1:10000", "localhost:10000"),
            ("http", "LocalHost:10000", "localhost:10000"),
            ("http", "[::1]:10000", "localhost:10000"),
            ("http", "127.8.8.8:10000", "localhost:10000"),
            ("http", "[::ffff:127.0.0.1]:10000", "localhost:10000"),
            (
                "http",
                "devstoreaccount1.blob.localhost:10000",
                "localhost:10000",
            ),
            ("http", "0.0.0.0:10000", "localhost:10000"),
            ("http", "[::]:10000", "localhost:10000"),
            ("http", "localhost", "localhost:80"),
            ("https", "localhost", "localhost:443"),
            (
                "https",
                "Acct.Blob.core.windows.net",
                "acct.blob.core.windows.net",
            ),
            (
                "https",
                "acct.blob.core.windows.net:443",
                "acct.blob.core.windows.net",
            ),
            (
                "http",
                "acct.blob.core.windows.net.",
                "acct.blob.core.windows.net",
            ),
            (
                "https",
                "acct.privatelink.blob.core.windows.net",
                "acct.blob.core.windows.net",
            ),
            ("https", "10.0.0.5:10000", "10.0.0.5:10000"),
        ] {
            assert_eq!(place(scheme, authority), wanted, "{scheme}://{authority}");
        }
    }

    #[test]
    fn what_is_no_entry_is_passed_over() {
        let chain = "x 12 12:y:z 1:2 7:0:localhost:80/a/b/c%3A";
        let read: Vec<_> = entries(chain)
            .map(|entry| (entry.pid, entry.lock))
            .collect();
        assert_eq!(read, [(7, "localhost:80/a/b/c%3A")]);
    }
}
