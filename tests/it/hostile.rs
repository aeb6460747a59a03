//! Peers that mean harm: whatever they send, a client ends in bounded time and with bounded
//! memory, and gives nobody else its credentials.
//!
//! The client runs in a process of its own, so that the memory it takes can be told. Each test
//! prints its figures: `cargo test --test it hostile -- --nocapture`.

use std::env;
use std::fmt;
use std::io::{self, Read as _, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use azmutex::{AzureMutex, ErrorKind, Lease, LeaseId, Locker, MutexOptions};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use crate::support::tunnel::server_config;

const ENDPOINT: &str = "AZMUTEX_TEST_HOSTILE_ENDPOINT";
const OPERATION: &str = "AZMUTEX_TEST_HOSTILE_OPERATION";
const MARK: &str = "hostile> ";

/// How long the client waits for an operation to be answered.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How much longer it may take: for a busy machine.
const SLACK: Duration = Duration::from_secs(10);

fn timeout(operation: &str) -> Duration {
    match operation {
        // A busy machine takes a while to bring it over.
        "large list" => 10 * TIMEOUT,
        _ => TIMEOUT,
    }
}

/// What is sent on one connection, until the client closes it.
type Script = dyn Fn(&mut dyn Write) -> io::Result<()> + Send + Sync;

/// A server that reads a request and then follows its script.
struct Peer {
    addr: SocketAddr,
    counts: Arc<Counts>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    sent: AtomicU64,
    stopping: AtomicBool,
}

impl Peer {
    fn start(script: impl Fn(&mut dyn Write) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::serve(None, script)
    }

    /// A server that speaks TLS first, by this configuration.
    fn serve(
        tls: Option<Arc<rustls::ServerConfig>>,
        script: impl Fn(&mut dyn Write) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let counts = Arc::<Counts>::default();
        let script: Arc<Script> = Arc::new(script);
        let shared = Arc::clone(&counts);
        let accepting = thread::spawn(move || {
            let mut serving = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if shared.stopping.load(Ordering::SeqCst) {
                    break;
                }
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (counts, script) = (Arc::clone(&shared), Arc::clone(&script));
                let tls = tls.clone();
                serving.push(thread::spawn(move || {
                    // It fails when the client closes the connection, which it is to do.
                    let _ = converse(&stream, tls, &counts, &*script);
                    let _ = stream.shutdown(Shutdown::Both);
                }));
            }
            for thread in serving {
                let _ = thread.join();
            }
        });
        Self {
            addr,
            counts,
            accepting: Some(accepting),
        }
    }

    fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Lets a client of its own do `operation`, with `scheme` being `http` or `https`.
    fn meet(&self, scheme: &str, host: &str, operation: &str) -> Outcome {
        let endpoint = format!("{scheme}://{host}:{}/devstoreaccount1", self.addr.port());
        let output = Command::new(env::current_exe().unwrap())
            .args(["hostile::client", "--exact", "--ignored"])
            .args(["--nocapture", "--test-threads", "1"])
            .env(ENDPOINT, endpoint)
            .env(OPERATION, operation)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("panicked"), "{stderr}");
        let line = stdout.lines().find_map(|line| line.split_once(MARK));
        let (_, line) = line.unwrap_or_else(|| panic!("the client said nothing: {stdout}{stderr}"));
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().expect("a word").to_owned();
        let outcome = Outcome {
            timeout: timeout(operation),
            kind: word(),
            took: Duration::from_millis(word().parse().unwrap()),
            grown: word().parse().unwrap(),
            text: word(),
            connections: self.connections(),
            sent: self.counts.sent.load(Ordering::SeqCst),
        };
        println!("{operation}: {outcome}");
        outcome
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.counts.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn converse(
    stream: &TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    counts: &Counts,
    script: &Script,
) -> io::Result<()> {
    // A client that does not read any more must not keep this thread.
    stream.set_read_timeout(Some(2 * (TIMEOUT + SLACK)))?;
    stream.set_write_timeout(Some(2 * (TIMEOUT + SLACK)))?;
    let mut request = [0; 16 * 1024];
    let Some(tls) = tls else {
        let _ = (&*stream).read(&mut request)?;
        return script(&mut Counting(stream, counts));
    };
    let mut session = rustls::ServerConnection::new(tls).map_err(io::Error::other)?;
    let mut both = stream;
    let mut stream = rustls::Stream::new(&mut session, &mut both);
    let _ = stream.read(&mut request)?;
    script(&mut Counting(stream, counts))
}

/// Counts what is sent, and ends when the peer is dropped.
struct Counting<'a, W>(W, &'a Counts);

impl<W: Write> Write for Counting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1.stopping.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let written = self.0.write(bytes)?;
        self.1.sent.fetch_add(written as u64, Ordering::SeqCst);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// What a client met with.
struct Outcome {
    timeout: Duration,
    kind: String,
    text: String,
    took: Duration,
    /// By how much its memory grew at most, in KiB; zero if the system does not tell.
    grown: u64,
    connections: u64,
    sent: u64,
}

impl Outcome {
    /// It failed in this way and in time, and took no more memory than this.
    #[track_caller]
    fn expect(&self, kind: ErrorKind, text: &str, grown_kib: u64) -> &Self {
        assert_eq!(self.kind, format!("{kind:?}"), "{self}");
        assert!(self.text.contains(text), "{self}");
        assert!(self.took < self.timeout + SLACK, "{self}");
        assert!(self.grown <= grown_kib, "{self}");
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} in {:?}, {} KiB more memory, {} connections, {} KiB sent: {}",
            self.kind,
            self.took,
            self.grown,
            self.connections,
            self.sent / 1024,
            self.text
        )
    }
}

/// What the tests start in another process. No test.
#[test]
#[ignore = "a part that other tests start"]
fn client() {
    let Ok(endpoint) = env::var(ENDPOINT) else {
        return;
    };
    let mutex = |endpoint: &str, timeout| {
        let options = MutexOptions::new("devstoreaccount1", "c2VjcmV0", "hostile").unwrap();
        let options = options.endpoint(endpoint).unwrap();
        AzureMutex::new(options.request_timeout(timeout)).unwrap()
    };
    // What is only made once is made before memory is looked at.
    for scheme in ["http", "https"] {
        let nobody = format!("{scheme}://127.0.0.1:9/devstoreaccount1");
        let _ = mutex(&nobody, Duration::from_millis(1)).status("lock");
    }
    let operation = env::var(OPERATION).unwrap();
    let mutex = mutex(&endpoint, timeout(&operation));
    let (before, started) = (peak_memory(), Instant::now());
    let result = match operation.as_str() {
        "renew" => {
            mutex.renew(&Lease::new("lock", LeaseId::random().expect("random numbers")).unwrap())
        }
        "status" => mutex.status("lock").map(drop),
        "list" | "large list" => mutex.list("").collect::<Result<Vec<_>, _>>().map(drop),
        "lock" => Locker::new(mutex, "lock").unwrap().lock().map(drop),
        operation => panic!("what is {operation}?"),
    };
    let (took, grown) = (started.elapsed(), peak_memory() - before);
    let (kind, text) = match &result {
        Ok(()) => ("Ok".to_owned(), "done".to_owned()),
        Err(error) => (format!("{:?}", error.kind()), error.to_string()),
    };
    println!("\n{MARK}{kind} {} {grown} {text}", took.as_millis());
}

/// In KiB; zero if the system does not tell.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";

#[test]
fn endless_headers_are_cut_off() {
    let scripts: [Box<Script>; 3] = [
        Box::new(|to| {
            to.write_all(OK)?;
            for number in 0.. {
                to.write_all(format!("x-header-{number}: {number}\r\n").as_bytes())?;
            }
            Ok(())
        }),
        // One that does not end.
        Box::new(|to| {
            to.write_all(OK)?;
            to.write_all(b"x-header: ")?;
            loop {
                to.write_all(&[b'x'; 8192])?;
            }
        }),
        // A status line that does not.
        Box::new(|to| {
            to.write_all(b"HTTP/1.1 200 ")?;
            loop {
                to.write_all(&[b'x'; 8192])?;
            }
        }),
    ];
    for script in scripts {
        let peer = Peer::start(script);
        let outcome = peer.meet("http", "127.0.0.1", "renew");
        outcome.expect(ErrorKind::Transport, "", 2048);
    }
}

#[test]
fn endless_informational_replies_do_not_hold_a_client_up() {
    let peer = Peer::start(|to| {
        loop {
            to.write_all(b"HTTP/1.1 102 Processing\r\n\r\n")?;
        }
    });
    let outcome = peer.meet("http", "127.0.0.1", "renew");
    outcome.expect(ErrorKind::Transport, "", 2048);
}

#[test]
fn endless_body_is_cut_off() {
    let endless = |head: &'static [u8], part: &'static [u8]| {
        move |to: &mut dyn Write| {
            to.write_all(OK)?;
            to.write_all(head)?;
            loop {
                to.write_all(part)?;
            }
        }
    };
    // Error bodies and the like may have 64 KiB, a page of a list 8 MiB.
    for (operation, most) in [("renew", 2048), ("list", 32 * 1024)] {
        let x = &[b'x'; 8192];
        for script in [
            endless(
                b"Transfer-Encoding: chunked\r\n\r\n",
                b"400\r\n<a><a><a>\r\n",
            ),
            endless(b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
            endless(b"Content-Length: 9223372036854775807\r\n\r\n", x),
            endless(b"Connection: close\r\n\r\n", x),
        ] {
            let peer = Peer::start(script);
            let outcome = peer.meet("http", "127.0.0.1", operation);
            outcome.expect(ErrorKind::Transport, "", most);
        }
    }
}

#[test]
fn reply_at_one_byte_a_second_ends_in_time() {
    let slowly = |start: &'static [u8], rest: &'static [u8]| {
        move |to: &mut dyn Write| {
            to.write_all(start)?;
            for byte in rest.iter().cycle() {
                to.write_all(&[*byte])?;
                to.flush()?;
                // What the test is about.
                thread::sleep(Duration::from_secs(1));
            }
            Ok(())
        }
    };
    for script in [
        slowly(b"", b"HTTP/1.1 200 OK\r\n"),
        slowly(b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n"),
        slowly(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", b"x"),
        slowly(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1\r\nx\r\n",
        ),
    ] {
        let peer = Peer::start(script);
        let outcome = peer.meet("http", "127.0.0.1", "renew");
        outcome.expect(ErrorKind::Transport, "timed out", 2048);
        assert!(outcome.connections <= 2, "{outcome}");
    }
}

#[test]
fn page_that_is_made_to_grow_is_refused() {
    let page = |body: Vec<u8>| {
        move |to: &mut dyn Write| {
            to.write_all(OK)?;
            to.write_all(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes())?;
            to.write_all(&body)
        }
    };
    const SIZE: usize = 8 * 1024 * 1024 - 100;
    let deep = b"<a>".repeat(SIZE / 3);
    let mut blobs = b"<EnumerationResults><Blobs>".to_vec();
    blobs.extend(b"<Blob/>".repeat(SIZE / 7 - 10));
    blobs.extend(b"</Blobs></EnumerationResults>");
    let mut attributes = b"<EnumerationResults ".to_vec();
    for number in 0..400_000 {
        attributes.extend(format!("a{number}='' ").as_bytes());
    }
    attributes.extend(b"/>");
    let mut laughs = b"<!DOCTYPE l [<!ENTITY l0 \"lol\">".to_vec();
    for number in 1..30 {
        let before = format!("&l{};", number - 1).repeat(10);
        laughs.extend(format!("<!ENTITY l{number} \"{before}\">").as_bytes());
    }
    laughs.extend(b"]><EnumerationResults>&l29;</EnumerationResults>");
    for (name, body) in [
        ("deep", deep),
        ("blobs", blobs),
        ("attributes", attributes),
        ("laughs", laughs),
    ] {
        let peer = Peer::start(page(body));
        let outcome = peer.meet("http", "127.0.0.1", "large list");
        outcome.expect(ErrorKind::Protocol, "", 100 * 1024);
        assert_eq!(outcome.connections, 1, "{name}: asked for once");
    }
}

/// A server configuration with a certificate of its own making.
fn certificate(name: &str, years: (i32, i32)) -> Arc<rustls::ServerConfig> {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    let key = KeyPair::generate().unwrap();
    server_config(params.self_signed(&key).unwrap().der(), &key)
}

#[test]
fn certificate_that_is_not_in_order_is_refused_at_once() {
    for (what, name, years) in [
        ("untrusted", "localhost", (2020, 2100)),
        ("for another name", "locks.example", (2020, 2100)),
        ("expired", "localhost", (2001, 2002)),
        ("not valid yet", "localhost", (2100, 2101)),
    ] {
        for operation in ["renew", "lock"] {
            let reply = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";
            let peer = Peer::serve(Some(certificate(name, years)), |to| to.write_all(reply));
            let outcome = peer.meet("https", "localhost", operation);
            outcome.expect(
                ErrorKind::Transport,
                "the server's certificate was refused",
                4096,
            );
            // Nothing was sent, and nothing will change by asking again.
            assert_eq!(
                (outcome.connections, outcome.sent),
                (1, 0),
                "{what}: {outcome}"
            );
            assert!(outcome.took < TIMEOUT, "{what}: {outcome}");
        }
    }
}

#[test]
fn server_without_tls_is_no_server_for_https() {
    for script in [
        Box::new(|to: &mut dyn Write| to.write_all(b"HTTP/1.1 200 OK\r\n\r\n")) as Box<Script>,
        Box::new(|to: &mut dyn Write| {
            loop {
                to.write_all(&[0x16, 3, 3, 0, 0])?;
            }
        }),
        // As if it were about to answer.
        Box::new(|_: &mut dyn Write| {
            thread::sleep(2 * TIMEOUT);
            Ok(())
        }),
    ] {
        let peer = Peer::start(script);
        let outcome = peer.meet("https", "localhost", "renew");
        outcome.expect(ErrorKind::Transport, "", 4096);
    }
}

#[test]
fn redirect_takes_no_credentials_to_another_host() {
    let other = Peer::start(|to| to.write_all(OK));
    for status in [
        "301 Moved",
        "302 Found",
        "303 See Other",
        "307 Temporary",
        "308 Permanent",
    ] {
        let there = other.addr;
        let peer = Peer::start(move |to| {
            to.write_all(
                format!(
                    "HTTP/1.1 {status}\r\nLocation: http://{there}/devstoreaccount1/hostile/lock\
                     ?comp=lease\r\nContent-Length: 0\r\n\r\n"
                )
                .as_bytes(),
            )
        });
        for operation in ["renew", "status", "list"] {
            let outcome = peer.meet("http", "127.0.0.1", operation);
            outcome.expect(ErrorKind::Protocol, "redirect", 2048);
        }
        assert_eq!(peer.connections(), 3, "{status}: asked once each");
    }
    assert_eq!(other.connections(), 0);
}
