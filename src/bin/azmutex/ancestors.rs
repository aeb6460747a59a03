//! The locks that the programs hold under which this one runs: to wait for one of them would never
//! end.
//!
//! Each `azmutex run` passes the list on to its command, with itself at the end.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::config::Lock;
use crate::exit::Code;
use crate::output::Failure;

/// `PID=URL` of each lock held, the outermost first, with spaces between them.
#[cfg(unix)]
pub(crate) const HELD_LOCKS: &str = "AZMUTEX_HELD_LOCKS";
#[cfg(not(unix))]
const HELD_LOCKS: &str = "AZMUTEX_HELD_LOCKS";

/// Whether one of them is `lock`, which is then not to be waited for: with a `limit` to that it is
/// not acquired, without one it is a mistake.
pub(crate) fn check(lock: &Lock, limit: Option<Duration>) -> Result<(), Failure> {
    let held = std::env::var(HELD_LOCKS).unwrap_or_default();
    let mut pids = holders(&held, &lock.url);
    let Some(pid) = pids.find(|pid| is_alive(*pid)) else {
        return Ok(());
    };
    let name = &lock.name;
    Err(match limit {
        Some(_) => Failure::new(
            Code::NotAcquired,
            format!("cannot acquire {name}: a parent azmutex (pid {pid}) holds it"),
        ),
        None => Failure::usage(format!(
            "{name} is already held by a parent azmutex (pid {pid}); this would deadlock"
        )),
    })
}

/// The list for a command under `lock`.
#[cfg(unix)]
pub(crate) fn held_with(lock: &Lock) -> String {
    let own = format!("{}={}", std::process::id(), lock.url);
    match std::env::var(HELD_LOCKS) {
        Ok(held) if !held.is_empty() => format!("{held} {own}"),
        _ => own,
    }
}

/// Those who hold the lock at `url`, of a list.
fn holders<'a>(held: &'a str, url: &'a str) -> impl Iterator<Item = i32> + 'a {
    let wanted = Place::of(url);
    held.split(' ').filter_map(move |entry| {
        let (pid, url) = entry.split_once('=')?;
        let is_it = wanted.is_some() && Place::of(url) == wanted;
        pid.parse().ok().filter(|_| is_it)
    })
}

#[cfg(unix)]
fn is_alive(pid: i32) -> bool {
    // Not being allowed to signal it also means that it lives.
    rustix::process::Pid::from_raw(pid)
        .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(not(unix))]
fn is_alive(_: i32) -> bool {
    true
}

/// Where a blob is, however its URL is spelled.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
    path: Vec<u8>,
}

impl Place {
    fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (authority, path) = rest.split_once('/')?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ if scheme.eq_ignore_ascii_case("http") => (authority, 80),
            _ => (authority, 443),
        };
        let path = path.split('?').next().unwrap_or_default();
        Some(Self {
            host: host_name(host),
            port,
            path: percent_decode_str(path).collect(),
        })
    }
}

/// One name for each host: all that are this machine are one.
fn host_name(host: &str) -> String {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let is_here = match address.map(|address| address.to_canonical()) {
        Some(address) => address.is_loopback() || address.is_unspecified(),
        None => host == "localhost" || host.ends_with(".localhost"),
    };
    if is_here {
        Ipv4Addr::LOCALHOST.to_string()
    } else {
        host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_is_found_in_any_depth_and_spelling() {
        let held = "7=https://acct.blob.core.windows.net/locks/a%20b 8=http://127.0.0.1:10000/devstoreaccount1/locks/x 9=rubbish x=http://h/ 10=http://[::1]:10000/devstoreaccount1/locks/x";
        let of = |url: &str| holders(held, url).collect::<Vec<_>>();
        for url in [
            "https://acct.blob.core.windows.net/locks/a b",
            "https://ACCT.blob.core.windows.net.:443/locks/%61%20b",
        ] {
            assert_eq!(of(url), [7], "{url}");
        }
        for host in [
            "localhost",
            "127.0.0.1",
            "LOCALHOST.",
            "127.1.2.3",
            "[::1]",
            "a.localhost",
            "[::ffff:127.0.0.1]",
        ] {
            let url = format!("http://{host}:10000/devstoreaccount1/locks/x");
            assert_eq!(of(&url), [8, 10], "{url}");
        }
        for url in [
            "http://localhost:10001/devstoreaccount1/locks/x",
            "http://localhost:10000/devstoreaccount1/locks/X",
            "http://localhost/devstoreaccount1/locks/x",
            "https://acct.blob.core.windows.net/locks/a",
            "rubbish",
        ] {
            assert!(of(url).is_empty(), "{url}");
        }
    }
}
