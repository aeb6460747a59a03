//! How requests get to the service and back: connections that die, proxies, and others that answer
//! in the service's place.

use std::env;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use azmutex::emulator::Emulator;
use azmutex::{AzureMutex, ErrorKind, LeaseDuration, LeaseState, Locker, MutexOptions};
use parking_lot::Mutex;

use crate::support::addr_of;
use crate::support::proxy::{Fault, FaultProxy, RequestHead, reply};

/// How long a client waits for an operation to be answered: two attempts of half of it.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A forwarder that can forget all its flows at once, as a NAT that restarts does: what is sent on
/// them from then on vanishes, and nobody is told.
struct Nat {
    addr: SocketAddr,
    shared: Arc<NatState>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct NatState {
    /// Flows that are older vanish.
    epoch: AtomicU64,
    flows: AtomicU64,
    /// Every socket, so that dropping the NAT ends its threads.
    sockets: Mutex<Vec<TcpStream>>,
    stopping: std::sync::atomic::AtomicBool,
}

impl Nat {
    fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::<NatState>::default();
        let state = Arc::clone(&shared);
        let accepting = thread::spawn(move || {
            let mut forwarding = Vec::new();
            while let Ok((client, _)) = listener.accept() {
                if state.stopping.load(Ordering::SeqCst) {
                    break;
                }
                let service = TcpStream::connect(upstream).unwrap();
                state.flows.fetch_add(1, Ordering::SeqCst);
                let epoch = state.epoch.load(Ordering::SeqCst);
                for (from, to) in [(&client, &service), (&service, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    state.sockets.lock().push(from.try_clone().unwrap());
                    let state = Arc::clone(&state);
                    forwarding.push(thread::spawn(move || state.forward(epoch, from, to)));
                }
            }
            for socket in &*state.sockets.lock() {
                let _ = socket.shutdown(Shutdown::Both);
            }
            for thread in forwarding {
                thread.join().unwrap();
            }
        });
        Self {
            addr,
            shared,
            accepting: Some(accepting),
        }
    }

    fn forget_flows(&self) {
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
    }

    fn flows(&self) -> u64 {
        self.shared.flows.load(Ordering::SeqCst)
    }
}

impl NatState {
    fn forward(&self, epoch: u64, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if self.epoch.load(Ordering::SeqCst) == epoch {
                let _ = to.write_all(&bytes[..count]);
            }
        }
        if self.epoch.load(Ordering::SeqCst) == epoch {
            let _ = to.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn options(emulator: &Emulator, addr: SocketAddr) -> MutexOptions {
    let options = emulator.options("locks").unwrap().request_timeout(TIMEOUT);
    let endpoint = format!("http://{addr}/devstoreaccount1");
    options.endpoint(&endpoint).unwrap()
}

#[test]
fn second_attempt_succeeds_when_all_connections_died_silently() {
    const CONNECTIONS: u64 = 8;
    let emulator = Emulator::start().unwrap();
    // The proxy holds requests back until all are in, so that each needs a connection of its own.
    let proxy = FaultProxy::start(addr_of(&emulator));
    let nat = Nat::start(proxy.addr());
    let mutex = AzureMutex::new(options(&emulator, nat.addr)).unwrap();
    let locker = Locker::builder(mutex.clone(), "lock")
        .release_timeout(TIMEOUT)
        .build()
        .unwrap();
    let lease = mutex.acquire("lease", LeaseDuration::MAX).unwrap();
    let fill_the_pool = || {
        proxy.always(Some(Fault::Hold));
        let before = proxy.seen().len();
        thread::scope(|scope| {
            for _ in 0..CONNECTIONS {
                scope.spawn(|| mutex.status("lease").unwrap());
            }
            proxy.wait_for(
                before + CONNECTIONS as usize,
                |_| true,
                crate::support::LONG,
            );
            proxy.always(None);
            proxy.release_held();
        });
        nat.forget_flows();
    };
    let in_time = |operation: &str, started: Instant| {
        let took = started.elapsed();
        assert!(
            took < TIMEOUT,
            "{operation} needed a third attempt: {took:?}"
        );
    };

    fill_the_pool();
    assert!(nat.flows() >= CONNECTIONS);
    let started = Instant::now();
    mutex.renew(&lease).unwrap();
    in_time("renew", started);

    fill_the_pool();
    let started = Instant::now();
    mutex.release(&lease).unwrap();
    in_time("release", started);

    fill_the_pool();
    let started = Instant::now();
    let lease = mutex.acquire("lease", LeaseDuration::MAX).unwrap();
    in_time("acquire", started);
    mutex.release(&lease).unwrap();

    fill_the_pool();
    let started = Instant::now();
    let guard = locker.lock().unwrap();
    in_time("lock", started);

    fill_the_pool();
    let started = Instant::now();
    guard.release().unwrap();
    in_time("release of a guard", started);
    assert_eq!(mutex.status("lock").unwrap().state(), LeaseState::Available);
}

#[test]
fn break_is_sent_on_a_new_connection_and_leaves_the_idle_ones_alone() {
    let emulator = Emulator::start().unwrap();
    let proxy = FaultProxy::start(addr_of(&emulator));
    let mutex = AzureMutex::new(options(&emulator, proxy.addr())).unwrap();
    mutex.acquire("lock", LeaseDuration::INFINITE).unwrap();
    assert_eq!(proxy.connections(), 1);
    mutex.break_lease("lock", None).unwrap();
    assert_eq!(proxy.connections(), 2);
    mutex.status("lock").unwrap();
    assert_eq!(proxy.connections(), 2);
}

/// What a web server says to everything.
fn welcome(status: u16) -> Fault {
    let headers = [
        ("Server", "nginx"),
        ("ETag", "\"5e-1\""),
        ("Content-Type", "text/html"),
    ];
    Fault::Answer(reply(status, "OK", &headers, b"<html>Welcome!</html>"))
}

#[test]
fn web_server_grants_no_lock_and_no_fencing_token() {
    let emulator = Emulator::start().unwrap();
    let proxy = FaultProxy::start(addr_of(&emulator));
    let mutex = AzureMutex::new(options(&emulator, proxy.addr())).unwrap();
    let locker = Locker::builder(mutex.clone(), "lock")
        .fencing(true)
        .build()
        .unwrap();
    let not_azure = "this is not Azure Blob Storage";

    proxy.always(Some(welcome(200)));
    let error = locker.lock().expect_err("nothing was acquired");
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    assert!(error.to_string().contains(not_azure), "{error}");

    // The lease is real, and something else answers for the token.
    proxy.always(None);
    let token = locker.lock().unwrap().fencing_token();
    let stores = |request: &RequestHead| request.operation() == "put metadata";
    proxy.always_when(stores, welcome(200));
    let error = locker.lock().expect_err("the token was not stored");
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    assert!(locker.settle(crate::support::LONG));
    assert_eq!(emulator_status(&emulator).state(), LeaseState::Available);
    proxy.clear();
    assert!(locker.lock().unwrap().fencing_token() > token);
}

fn emulator_status(emulator: &Emulator) -> azmutex::LeaseStatus {
    let mutex = AzureMutex::new(emulator.options("locks").unwrap()).unwrap();
    mutex.status("lock").unwrap()
}

#[test]
fn gateway_that_answers_for_a_while_is_survived_and_a_web_filter_is_named() {
    let emulator = Emulator::start().unwrap();
    let proxy = FaultProxy::start(addr_of(&emulator));
    let mutex = AzureMutex::new(options(&emulator, proxy.addr())).unwrap();
    for status in [502, 503, 504] {
        proxy.push(welcome(status));
        mutex
            .acquire(&format!("lock-{status}"), LeaseDuration::MAX)
            .unwrap();
    }
    proxy.always(Some(welcome(403)));
    let error = mutex.status("lock").unwrap_err();
    let text = "something between this machine and Azure answered instead (Server: nginx)";
    assert!(error.to_string().contains(text), "{error}");
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::Protocol, Some(403))
    );
}

const ENDPOINT: &str = "AZMUTEX_TEST_HTTP_ENDPOINT";

#[test]
fn proxy_of_the_environment_is_not_asked_to_reach_this_machine() {
    let emulator = Emulator::start().unwrap();
    let trap = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    trap.set_nonblocking(true).unwrap();
    let proxy = format!("http://{}", trap.local_addr().unwrap());
    for name in ["127.0.0.1", "localhost"] {
        let endpoint = emulator.endpoint().replace("127.0.0.1", name);
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["http::client", "--exact", "--ignored", "--nocapture"])
            .env(ENDPOINT, endpoint)
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .stdin(Stdio::null());
        for variable in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "http_proxy"] {
            command.env(variable, &proxy);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{name}: {said}"
        );
    }
    let asked = trap.accept().map(drop).map_err(|error| error.kind());
    assert_eq!(asked, Err(io::ErrorKind::WouldBlock));
}

/// What the test before starts in another process. No test.
#[test]
#[ignore = "a part that another test starts"]
fn client() {
    let Ok(endpoint) = env::var(ENDPOINT) else {
        return;
    };
    let options = MutexOptions::development("locks")
        .unwrap()
        .endpoint(&endpoint);
    let mutex = AzureMutex::new(options.unwrap().request_timeout(TIMEOUT)).unwrap();
    let lease = mutex.acquire("lock", LeaseDuration::MIN).unwrap();
    mutex.release(&lease).unwrap();
}

/// What the child prints after.
const MARK: &str = "> ";

/// What `MutexOptions::from_env` and `AzureMutex::new` make of an environment: the proxy, or the
/// error.
fn proxy_in(variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["http::say_proxy", "--exact", "--ignored", "--nocapture"])
        .stdin(Stdio::null());
    for (name, _) in env::vars_os() {
        if name
            .to_string_lossy()
            .to_ascii_uppercase()
            .ends_with("_PROXY")
        {
            command.env_remove(name);
        }
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find_map(|line| line.split_once(MARK));
    line.unwrap_or_else(|| panic!("nothing said: {said}"))
        .1
        .to_owned()
}

#[test]
fn proxy_is_settled_and_told_when_the_mutex_is_made() {
    let connection = "AccountName=acct;AccountKey=bXkgc2VjcmV0";
    let account = ("AZURE_STORAGE_CONNECTION_STRING", connection);
    let in_network =
        "AccountName=acct;AccountKey=bXkgc2VjcmV0;BlobEndpoint=http://azurite:10000/acct";
    let in_network = ("AZURE_STORAGE_CONNECTION_STRING", in_network);
    let allowed = ("AZMUTEX_ALLOW_INSECURE_HTTP", "1");
    let proxy = ("HTTPS_PROXY", "http://user:s3cret@proxy.corp:3128/");
    let local = (
        "AZURE_STORAGE_CONNECTION_STRING",
        "UseDevelopmentStorage=true",
    );
    let all = ("ALL_PROXY", "socks5h://all");
    let http_proxy = ("HTTP_PROXY", "http://proxy.corp:3128");
    let rows: [(&[(&str, &str)], &str); 12] = [
        (&[account], "None"),
        (
            &[account, proxy],
            "Some(\"http://proxy.corp:3128 (from HTTPS_PROXY)\")",
        ),
        (
            &[account, all],
            "Some(\"socks5h://all:1080 (from ALL_PROXY)\")",
        ),
        (&[account, proxy, ("no_proxy", ".windows.net")], "None"),
        (&[local, proxy, all], "None"),
        (&[in_network, allowed, proxy], "None"),
        (
            &[in_network, allowed, http_proxy],
            "Some(\"http://proxy.corp:3128 (from HTTP_PROXY)\")",
        ),
        // A web server's client sets it.
        (
            &[in_network, allowed, http_proxy, ("REQUEST_METHOD", "GET")],
            "None",
        ),
        (
            &[in_network, allowed, all],
            "Some(\"socks5h://all:1080 (from ALL_PROXY)\")",
        ),
        (
            &[account, ("HTTPS_PROXY", "http://user:s3cret@proxy.corp:x")],
            "Config: invalid HTTPS_PROXY: its port is not a number",
        ),
        (
            &[account, ("AZMUTEX_ALLOW_INSECURE_HTTP", "maybe")],
            "Config: invalid AZMUTEX_ALLOW_INSECURE_HTTP `maybe`: use true or false, 1 or 0",
        ),
        (
            &[account, ("AZMUTEX_CA_FILE", "Cargo.toml")],
            "Config: AZMUTEX_CA_FILE `Cargo.toml`: invalid CA certificates: it has no certificate: \
             there is no line -----BEGIN CERTIFICATE-----",
        ),
    ];
    for (variables, expected) in rows {
        assert_eq!(proxy_in(variables), expected, "{variables:?}");
    }
}

/// What the test before starts in another process. No test.
#[test]
#[ignore = "a part that another test starts"]
fn say_proxy() {
    match MutexOptions::from_env("locks").and_then(AzureMutex::new) {
        Ok(mutex) => println!("{MARK}{:?}", mutex.proxy()),
        Err(error) => println!("{MARK}{:?}: {error}", error.kind()),
    }
}

#[test]
fn port_of_this_machine_where_nobody_listens_is_given_up_soon() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let endpoint = format!("http://{}/devstoreaccount1", closed.local_addr().unwrap());
    drop(closed);
    let text = format!("AccountName=devstoreaccount1;AccountKey=a2V5;BlobEndpoint={endpoint}");
    let options = MutexOptions::from_connection_string(&text, "locks").unwrap();
    // With 10 s for an operation and 60 s for failures, as by default.
    let mutex = AzureMutex::new(options).unwrap();
    let locker = Locker::new(mutex.clone(), "lock").unwrap();
    let started = Instant::now();
    for error in [
        mutex.status("lock").unwrap_err(),
        locker.try_lock().unwrap_err().into(),
    ] {
        let shown = error.to_string();
        for part in [
            "the connection was refused; is Azurite (or `azmutex emulator`) running?",
            " attempts in ",
        ] {
            assert!(shown.contains(part), "no {part:?} in {shown}");
        }
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
}
