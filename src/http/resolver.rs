//! Looks up host names, and remembers the answers.
//!
//! ureq asks for every request, also when a connection is open already. A renewal should not fail
//! because a name server is slow for a moment, so a known answer is used for a while without asking,
//! and for longer if there is no other.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ureq::config::Config;
use ureq::http::Uri;
// Not covered by ureq's promise of compatibility, hence the `~` in the manifest.
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver as _};
use ureq::unversioned::transport::NextTimeout;

/// How long an answer is used without asking again, unless a request failed meanwhile.
const FRESH: Duration = Duration::from_secs(30);

/// How many addresses of a host are of use; the client's list has room for 16.
const MOST: usize = 16;

/// What is known of one or two hosts: the service's, and a proxy's.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<Vec<Known>>);

#[derive(Debug)]
struct Known {
    host: String,
    addresses: Vec<SocketAddr>,
    since: Option<Instant>,
}

impl Names {
    /// Asks again next time: a request failed, maybe because an address is no longer right.
    pub(super) fn doubt(&self) {
        for known in self.0.lock().iter_mut() {
            known.since = None;
        }
    }

    /// The addresses of `host` (with its port). `ask` looks them up within the time that it gets.
    fn look_up(
        &self,
        host: &str,
        timeout: Duration,
        now: Instant,
        ask: impl FnOnce(Duration) -> io::Result<Vec<SocketAddr>>,
    ) -> io::Result<Vec<SocketAddr>> {
        let known = self
            .0
            .lock()
            .iter()
            .find(|known| known.host == host)
            .map(|known| {
                let fresh = known
                    .since
                    .is_some_and(|since| now.duration_since(since) < FRESH);
                (known.addresses.clone(), fresh)
            });
        let timeout = match &known {
            Some((addresses, true)) => return Ok(addresses.clone()),
            // With an answer to fall back on, leave time to use it.
            Some((_, false)) => timeout / 4,
            None => timeout,
        };
        match (ask(timeout), known) {
            (Ok(addresses), _) if !addresses.is_empty() => {
                let mut all = self.0.lock();
                all.retain(|known| known.host != host);
                let (host, since) = (host.to_owned(), Some(now));
                all.push(Known {
                    host,
                    addresses: addresses.clone(),
                    since,
                });
                Ok(addresses)
            }
            (_, Some((addresses, _))) => Ok(addresses),
            (result, None) => result,
        }
    }
}

impl Names {
    pub(super) fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = match (uri.scheme(), uri.authority()) {
            (Some(scheme), Some(authority)) => DefaultResolver::host_and_port(scheme, authority),
            _ => None,
        };
        let Some(host) = host else {
            return Err(ureq::Error::HostNotFound);
        };
        let addresses = match host.parse() {
            Ok(address) => vec![address],
            Err(_) => {
                let ask = |timeout| ask(host.clone(), timeout);
                let result = self.look_up(&host, *timeout.after, Instant::now(), ask);
                result.map_err(|error| match error.kind() {
                    io::ErrorKind::TimedOut => ureq::Error::Timeout(ureq::Timeout::Resolve),
                    _ => ureq::Error::HostNotFound,
                })?
            }
        };
        let mut out = DefaultResolver::default().empty();
        for address in addresses.into_iter().take(MOST) {
            out.push(address);
        }
        if out.is_empty() {
            Err(ureq::Error::HostNotFound)
        } else {
            Ok(out)
        }
    }
}

/// The system's answer. It knows no timeout, so a thread waits for it.
fn ask(host: String, timeout: Duration) -> io::Result<Vec<SocketAddr>> {
    let (send, receive) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("azmutex:lookup".to_owned())
        .spawn(move || {
            // Nobody listens if the time is up.
            let _ = send.send(host.to_socket_addrs().map(Iterator::collect));
        })?;
    receive
        .recv_timeout(timeout)
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    fn address(last: u8) -> Vec<SocketAddr> {
        vec![SocketAddr::from(([192, 0, 2, last], 443))]
    }

    fn fails(_: Duration) -> io::Result<Vec<SocketAddr>> {
        Err(io::Error::other("no name server"))
    }

    fn not_asked(_: Duration) -> io::Result<Vec<SocketAddr>> {
        panic!("asked although the answer is known")
    }

    #[test]
    fn answer_is_used_for_a_while_without_asking() {
        let (names, start) = (Names::default(), Instant::now());
        names
            .look_up("a:443", SEC, start, |_| Ok(address(1)))
            .unwrap();
        let later = start + FRESH - SEC;
        assert_eq!(
            names.look_up("a:443", SEC, later, not_asked).unwrap(),
            address(1)
        );
        let later = start + FRESH;
        assert_eq!(
            names
                .look_up("a:443", SEC, later, |_| Ok(address(2)))
                .unwrap(),
            address(2)
        );
    }

    #[test]
    fn answer_that_is_doubted_is_asked_for_again() {
        let (names, start) = (Names::default(), Instant::now());
        names
            .look_up("a:443", SEC, start, |_| Ok(address(1)))
            .unwrap();
        names.doubt();
        assert_eq!(
            names
                .look_up("a:443", SEC, start, |_| Ok(address(2)))
                .unwrap(),
            address(2)
        );
    }

    #[test]
    fn old_answer_serves_while_names_cannot_be_looked_up() {
        let (names, start) = (Names::default(), Instant::now());
        names
            .look_up("a:443", SEC, start, |_| Ok(address(1)))
            .unwrap();
        names.doubt();
        let asked = |timeout| {
            assert_eq!(timeout, SEC / 4, "the rest is for the request");
            fails(timeout)
        };
        assert_eq!(
            names.look_up("a:443", SEC, start, asked).unwrap(),
            address(1)
        );
        assert_eq!(
            names
                .look_up("a:443", SEC, start, |_| Ok(Vec::new()))
                .unwrap(),
            address(1)
        );
        names.look_up("b:443", SEC, start, fails).unwrap_err();
    }
}
