//! What the benchmarks share: the server, in a process of its own so that its time and memory are
//! not the client's, and the raw requests that the library is held against.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::env;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use azmutex::emulator::Emulator;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use time::OffsetDateTime;
use uuid::Uuid;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What the library gives a request.
pub(crate) const TIMEOUT: Option<Duration> = Some(Duration::from_secs(5));
pub(crate) const CONTAINER: &str = "locks";
/// What a copy of the benchmark is for, where it is not the benchmark itself.
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

/// Prints where it can be reached, and answers each line of input with its counters.
fn serve() -> Result<()> {
    let emulator = Emulator::start()?;
    println!("{}", emulator.connection_string());
    for line in io::stdin().lock().lines() {
        line?;
        println!("{} {}", emulator.requests(), emulator.connections());
    }
    Ok(())
}

/// The server's process. It ends with this one.
pub(crate) struct Server {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(crate) connection_string: String,
}

/// What the server counted so far.
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

fn read_line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err("the server ended".into());
    }
    Ok(line.trim_end().to_owned())
}

/// Acquire and release as one would write them without the library.
pub(crate) struct Raw {
    agent: ureq::Agent,
    account: String,
    key: Vec<u8>,
    url: String,
    path: String,
}

impl Raw {
    /// `connection_string`: the emulator's. `timeout`: what a request may take. The library sets it,
    /// so the fair comparison does; ureq then starts a thread to look up the host.
    pub(crate) fn new(
        connection_string: &str,
        blob: &str,
        timeout: Option<Duration>,
    ) -> Result<Self> {
        let part = |name: &str| {
            let mut parts = connection_string.split(';');
            parts
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
                .ok_or_else(|| format!("no {name} in the connection string"))
        };
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
        // In the order in which they are signed.
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
