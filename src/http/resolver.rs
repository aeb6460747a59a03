//! Looks up host names, and caches the answers.
//!
//! ureq resolves the host for every request, even if a connection is open. A renewal should not
//! fail because a name server is slow for a moment, so an answer is reused for a while without
//! asking, and for longer if there is no newer one. The system's lookup takes no time limit, so it
//! runs on its own thread: at most one per host, however many requests wait for it.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How long an answer is used without asking again, unless a request failed meanwhile.
const FRESH: Duration = Duration::from_secs(30);

/// Whether `host` is this machine: a loopback address, or `localhost` or a name below it (RFC 6761).
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_address = |ip: IpAddr| ip.to_canonical().is_loopback();
    is_localhost(host) || bare.parse().is_ok_and(is_address)
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Looks up a host with its port, such as `account.blob.core.windows.net:443`. May block for long.
pub(super) type Lookup = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The addresses of one or two hosts: the service's, and a proxy's.
pub(super) struct Resolver(Arc<Shared>);

struct Shared {
    lookup: Arc<Lookup>,
    hosts: Mutex<Vec<Host>>,
    answered: Condvar,
}

#[derive(Debug)]
struct Host {
    name: String,
    /// The last addresses that were found; empty before the first.
    addresses: Vec<SocketAddr>,
    /// When they were found; `None` once they have expired.
    since: Option<Instant>,
    /// Whether a lookup is running.
    pending: bool,
    /// How many lookups have ended.
    ended: u64,
    /// Why the last one failed, if it did.
    failure: Option<(io::ErrorKind, String)>,
}

impl Host {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            addresses: Vec::new(),
            since: None,
            pending: false,
            ended: 0,
            failure: None,
        }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.since
            .is_some_and(|since| now.duration_since(since) < FRESH)
    }

    fn end(&mut self, result: io::Result<Vec<SocketAddr>>, now: Instant) {
        self.pending = false;
        self.ended += 1;
        self.failure = match result {
            Ok(addresses) if addresses.is_empty() => {
                Some((io::ErrorKind::NotFound, "it has no address".to_owned()))
            }
            Ok(addresses) => {
                self.addresses = addresses;
                self.since = Some(now);
                None
            }
            Err(error) => Some((error.kind(), error.to_string())),
        };
    }
}

impl Resolver {
    /// The system's own lookup.
    pub(super) fn system() -> Arc<Lookup> {
        Arc::new(|host| host.to_socket_addrs().map(Iterator::collect))
    }

    pub(super) fn new(lookup: Arc<Lookup>) -> Self {
        Self(Arc::new(Shared {
            lookup,
            hosts: Mutex::default(),
            answered: Condvar::new(),
        }))
    }

    /// Expires the cached answers: a request failed, perhaps because an address is out of date.
    pub(super) fn expire_cached(&self) {
        for host in self.0.hosts.lock().iter_mut() {
            host.since = None;
        }
    }

    /// The addresses of the host `name` (with its port). Blocks for `timeout` at most; an error of
    /// kind `TimedOut` means that there was no answer by then. Nobody is asked for `localhost`.
    pub(super) fn resolve(&self, name: &str, timeout: Duration) -> io::Result<Vec<SocketAddr>> {
        if let Some((host, port)) = name.rsplit_once(':')
            && is_localhost(host)
            && let Ok(port) = port.parse()
        {
            // Emulators listen on 127.0.0.1. Windows takes 2 seconds to tell of a port that is closed.
            let addresses = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return Ok(addresses.map(|ip: IpAddr| (ip, port).into()).to_vec());
        }
        self.resolve_at(name, timeout, Instant::now())
    }

    fn resolve_at(
        &self,
        name: &str,
        timeout: Duration,
        now: Instant,
    ) -> io::Result<Vec<SocketAddr>> {
        let mut hosts = self.0.hosts.lock();
        let index = index_of(&mut hosts, name);
        if hosts[index].is_fresh(now) {
            return Ok(hosts[index].addresses.clone());
        }
        let seen = hosts[index].ended;
        if !hosts[index].pending {
            hosts[index].pending = true;
            if let Err(error) = self.start(name, now) {
                hosts[index].end(Err(error), now);
            }
        }
        // With an earlier answer to fall back on, leave time to use it.
        let limit = match hosts[index].addresses.is_empty() {
            true => timeout,
            false => timeout / 4,
        };
        let unanswered = |hosts: &mut Vec<Host>| hosts[index].ended == seen;
        self.0
            .answered
            .wait_while_for(&mut hosts, unanswered, limit);
        let host = &hosts[index];
        match &host.failure {
            _ if !host.addresses.is_empty() => Ok(host.addresses.clone()),
            Some((kind, text)) if host.ended != seen => Err(io::Error::new(*kind, text.clone())),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Starts a lookup on its own thread.
    fn start(&self, name: &str, now: Instant) -> io::Result<()> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        thread::Builder::new()
            .name("azmutex:lookup".to_owned())
            .spawn(move || {
                let result = (shared.lookup)(&name);
                let mut hosts = shared.hosts.lock();
                let index = index_of(&mut hosts, &name);
                hosts[index].end(result, now);
                shared.answered.notify_all();
            })
            .map(drop)
    }
}

/// Hosts are only ever added, so an index stays valid while the lock is not held.
fn index_of(hosts: &mut Vec<Host>, name: &str) -> usize {
    hosts
        .iter()
        .position(|host| host.name == name)
        .unwrap_or_else(|| {
            hosts.push(Host::new(name));
            hosts.len() - 1
        })
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resolver")
            .field(&*self.0.hosts.lock())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const SEC: Duration = Duration::from_secs(1);
    /// How long a failing test may take.
    const LONG: Duration = Duration::from_secs(60);

    fn address(last: u8) -> Vec<SocketAddr> {
        vec![SocketAddr::from(([192, 0, 2, last], 443))]
    }

    /// A resolver whose lookups return these, one after the other: zero stands for a host without
    /// an address, `None` for a failure.
    fn answering(answers: &'static [Option<u8>]) -> Resolver {
        let asked = AtomicUsize::new(0);
        Resolver::new(Arc::new(move |_| {
            match answers[asked.fetch_add(1, Ordering::SeqCst)] {
                Some(0) => Ok(Vec::new()),
                Some(last) => Ok(address(last)),
                None => Err(io::Error::other("no name server")),
            }
        }))
    }

    #[test]
    fn this_machine_is_known_by_its_names_and_addresses() {
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST.", true),
            ("devstoreaccount1.blob.localhost", true),
            ("127.0.0.1", true),
            ("127.8.9.1", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("localhost.example", false),
            ("notlocalhost", false),
            ("10.0.0.7", false),
            ("[fd00::1]", false),
            ("", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }

    #[test]
    fn names_of_this_machine_are_not_looked_up() {
        let resolver = answering(&[]);
        for name in ["localhost:10000", "a.blob.LocalHost:10000"] {
            let addresses = resolver.resolve(name, LONG).unwrap();
            assert_eq!(
                addresses,
                ["127.0.0.1:10000", "[::1]:10000"].map(|a| a.parse().unwrap())
            );
        }
    }

    #[test]
    fn answer_is_used_for_a_while_without_asking() {
        let (resolver, start) = (answering(&[Some(1), Some(2)]), Instant::now());
        let at = |now| resolver.resolve_at("a:443", LONG, now).unwrap();
        assert_eq!(at(start), address(1));
        assert_eq!(at(start + FRESH - SEC), address(1));
        assert_eq!(at(start + FRESH), address(2));
    }

    #[test]
    fn expired_answer_is_looked_up_again() {
        let (resolver, start) = (answering(&[Some(1), Some(2)]), Instant::now());
        let at = |now| resolver.resolve_at("a:443", LONG, now).unwrap();
        assert_eq!(at(start), address(1));
        resolver.expire_cached();
        assert_eq!(at(start), address(2));
        assert_eq!(at(start), address(2));
    }

    #[test]
    fn old_answer_is_used_while_names_cannot_be_looked_up() {
        let resolver = answering(&[Some(1), None, Some(0), None]);
        let resolve = |name| resolver.resolve(name, LONG);
        assert_eq!(resolve("a:443").unwrap(), address(1));
        for failure in ["an error", "no address"] {
            resolver.expire_cached();
            assert_eq!(resolve("a:443").unwrap(), address(1), "{failure}");
        }
        let error = resolve("b:443").unwrap_err();
        assert_eq!(error.to_string(), "no name server");
    }

    #[test]
    fn name_without_an_address_is_an_error() {
        let error = answering(&[Some(0)]).resolve("a:443", LONG).unwrap_err();
        assert_eq!(error.to_string(), "it has no address");
    }

    /// A resolver whose lookups report that they have begun, and hang until they are given the
    /// answer.
    fn hanging() -> (Resolver, mpsc::Receiver<String>, mpsc::Sender<u8>) {
        let (begun, beginnings) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let (begun, answers) = (Mutex::new(begun), Mutex::new(answers));
        let resolver = Resolver::new(Arc::new(move |host: &str| {
            begun.lock().send(host.to_owned()).unwrap();
            let last = answers.lock().recv().map_err(io::Error::other)?;
            Ok(address(last))
        }));
        (resolver, beginnings, answer)
    }

    #[test]
    fn lookup_that_hangs_is_shared_and_not_started_again() {
        let (resolver, beginnings, answer) = hanging();
        // Each waits no longer than its own timeout.
        for _ in 0..3 {
            let error = resolver
                .resolve("a:443", Duration::from_millis(1))
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        thread::scope(|scope| {
            let waiting: Vec<_> = (0..20)
                .map(|_| scope.spawn(|| resolver.resolve("a:443", LONG)))
                .collect();
            answer.send(1).unwrap();
            for thread in waiting {
                assert_eq!(thread.join().unwrap().unwrap(), address(1));
            }
        });
        assert_eq!(beginnings.try_iter().collect::<Vec<_>>(), ["a:443"]);
    }

    #[test]
    fn lookup_that_hangs_leaves_time_to_use_the_old_answer() {
        let (resolver, beginnings, answer) = hanging();
        answer.send(1).unwrap();
        resolver.resolve("a:443", LONG).unwrap();
        for _ in 0..3 {
            resolver.expire_cached();
            let timeout = Duration::from_millis(4);
            assert_eq!(resolver.resolve("a:443", timeout).unwrap(), address(1));
        }
        answer.send(2).unwrap();
        // The lookup that hung has ended by now, or is waited for.
        assert_eq!(resolver.resolve("a:443", LONG).unwrap(), address(2));
        assert_eq!(beginnings.try_iter().count(), 2);
    }
}
