//! What the benchmarks share: a server in a process of its own, so that its time and memory are not
//! counted; a proxy that puts it some milliseconds away; and the raw requests that the library is
//! compared with.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::env;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use azmutex::emulator::Emulator;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use time::OffsetDateTime;
use uuid::Uuid;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How long the library lets a request take.
pub(crate) const TIMEOUT: Option<Duration> = Some(Duration::from_secs(5));
pub(crate) const CONTAINER: &str = "locks";
/// Tells a copy of the benchmark, which the benchmark starts, what to do.
pub(crate) const ROLE: &str = "AZMUTEX_BENCH_ROLE";

/// The role of this process, or `None` if it is the benchmark. Ends the process if it is the
/// server, or is run by `cargo test`.
pub(crate) fn role() -> Result<Option<String>> {
    match env::var(ROLE) {
        Ok(role) if role == "server" => {
            serve()?;
            std::process::exit(0);
        }
        Ok(role) => Ok(Some(role)),
        Err(_) if env::args().any(|argument| argument == "--bench") => Ok(None),
        Err(_) => {
            println!("not run: use `cargo bench`");
            std::process::exit(0);
        }
    }
}

/// Prints the connection string, and answers each line of input with the counters.
fn serve() -> Result<()> {
    let emulator = Emulator::start()?;
    println!("{}", emulator.connection_string());
    for line in io::stdin().lock().lines() {
        line?;
        println!("{} {}", emulator.requests(), emulator.connections());
    }
    Ok(())
}

/// The server's process. Dropping it ends the process.
pub(crate) struct Server {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(crate) connection_string: String,
}

/// What the server has counted so far.
#[derive(Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) connections: u64,
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .env(ROLE, "server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take().ok_or("no pipe to the server")?;
        let mut output = BufReader::new(process.stdout.take().ok_or("no pipe from the server")?);
        let connection_string = read_line(&mut output)?;
        Ok(Self {
            process,
            input,
            output,
            connection_string,
        })
    }

    pub(crate) fn counts(&mut self) -> Result<Counts> {
        writeln!(self.input)?;
        let line = read_line(&mut self.output)?;
        let (requests, connections) = line.split_once(' ').ok_or("no counters")?;
        Ok(Counts {
            requests: requests.parse()?,
            connections: connections.parse()?,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Passes bytes on to the server and back, each half a round trip later.
pub(crate) struct Proxy {
    pub(crate) connection_string: String,
    is_silent: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) fn start(server: &Server, round_trip: Duration) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let here = listener.local_addr()?.to_string();
        let endpoint = part(&server.connection_string, "BlobEndpoint")?;
        let there = endpoint
            .split('/')
            .nth(2)
            .ok_or("no host in the endpoint")?;
        let connection_string = server.connection_string.replace(there, &here);
        let there = there.to_owned();
        let is_silent = Arc::new(AtomicBool::new(false));
        let silence = Arc::clone(&is_silent);
        thread::spawn(move || {
            for client in listener.incoming() {
                let connected = client.and_then(|client| {
                    let server = TcpStream::connect(&there)?;
                    pass_on(&client, &server, round_trip / 2, &silence)?;
                    pass_on(&server, &client, round_trip / 2, &silence)
                });
                if let Err(error) = connected {
                    eprintln!("the proxy failed to connect: {error}");
                }
            }
        });
        Ok(Self {
            connection_string,
            is_silent,
        })
    }

    /// Stops passing anything on. Connections stay open.
    pub(crate) fn silence(&self) {
        self.is_silent.store(true, Ordering::SeqCst);
    }
}

fn pass_on(
    from: &TcpStream,
    to: &TcpStream,
    delay: Duration,
    is_silent: &Arc<AtomicBool>,
) -> io::Result<()> {
    to.set_nodelay(true)?;
    let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
    let is_silent = Arc::clone(is_silent);
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            let due = Instant::now() + delay;
            if !is_silent.load(Ordering::SeqCst)
                && sender.send((due, bytes[..length].to_vec())).is_err()
            {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both); // It may be closed already.
    });
    Ok(())
}

fn part<'a>(connection_string: &'a str, name: &str) -> Result<&'a str> {
    let mut parts = connection_string.split(';');
    let part = parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    Ok(part.ok_or_else(|| format!("no {name} in the connection string"))?)
}

fn read_line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err("the server ended".into());
    }
    Ok(line.trim_end().to_owned())
}

/// Acquire and release, written without the library.
pub(crate) struct Raw {
    agent: ureq::Agent,
    account: String,
    key: Vec<u8>,
    url: String,
    path: String,
}

impl Raw {
    /// `timeout`: how long a request may take. The library limits its requests; with a limit, plain
    /// ureq starts a thread to look up the host.
    pub(crate) fn new(
        connection_string: &str,
        blob: &str,
        timeout: Option<Duration>,
    ) -> Result<Self> {
        let part = |name| part(connection_string, name);
        let (account, endpoint) = (part("AccountName")?.to_owned(), part("BlobEndpoint")?);
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(timeout)
            .build()
            .new_agent();
        Ok(Self {
            agent,
            key: STANDARD.decode(part("AccountKey")?)?,
            url: format!("{endpoint}/{CONTAINER}/{blob}?comp=lease"),
            path: format!("/{account}/{CONTAINER}/{blob}"),
            account,
        })
    }

    /// Acquires and releases: two requests.
    pub(crate) fn pair(&self) -> Result<()> {
        let id = Uuid::new_v4().to_string();
        let proposed = [
            ("x-ms-lease-duration", "60"),
            ("x-ms-proposed-lease-id", &id),
        ];
        self.put("acquire", &proposed, 201)?;
        self.put("release", &[("x-ms-lease-id", &id)], 200)
    }

    fn put(&self, action: &str, headers: &[(&str, &str)], expected: u16) -> Result<()> {
        let (account, path) = (&self.account, &self.path);
        let date = http_date();
        // In the order of the signature.
        let mut signed = vec![("x-ms-date", date.as_str()), ("x-ms-lease-action", action)];
        signed.extend(headers);
        signed.push(("x-ms-version", "2021-08-06"));

        let mut to_sign = String::from("PUT\n\n\n\n\n\n\n\n\n\n\n\n");
        for (name, value) in &signed {
            to_sign += &format!("{name}:{value}\n");
        }
        to_sign += &format!("/{account}{path}\ncomp:lease");
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key)?;
        mac.update(to_sign.as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());

        let mut request = self.agent.put(&self.url);
        for (name, value) in signed {
            request = request.header(name, value);
        }
        let mut response = request
            .header("authorization", format!("SharedKey {account}:{signature}"))
            .send_empty()?;
        let body = response.body_mut().read_to_string()?;
        if response.status().as_u16() == expected {
            return Ok(());
        }
        Err(format!("{action}: {} {body}", response.status()).into())
    }
}

/// Now, as in `Mon, 23 Nov 2026 04:54:48 GMT`.
fn http_date() -> String {
    let now = OffsetDateTime::now_utc();
    format!(
        "{}, {:02} {} {} {:02}:{:02}:{:02} GMT",
        &now.weekday().to_string()[..3],
        now.day(),
        &now.month().to_string()[..3],
        now.year(),
        now.hour(),
        now.minute(),
        now.second()
    )
}

/// The smallest, the middle and the largest of `values`.
pub(crate) fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (
        values[0],
        values[values.len() / 2],
        values[values.len() - 1],
    )
}

/// Whether a figure is within its target.
pub(crate) fn verdict(within: bool) -> &'static str {
    if within { "PASS" } else { "MISS" }
}
