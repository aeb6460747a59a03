//! `azmutex doctor`: what would be used, whether it works, and what is permitted.

use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant, SystemTime};

use azmutex::{AzureMutex, Error, ErrorKind, Holder, LeaseDuration};

use super::Outcome;
use super::doctor_identity::{self, SignedIn};
use crate::args::{Auth, DoctorArgs, Global};
use crate::config::Config;
use crate::exit::Code;
use crate::output::{Failure, Object, clean, print_line};
use crate::sign_in;
use crate::times::span;

/// The lock on which writing is tried.
const SCRATCH: &str = "azmutex-doctor";

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// A difference between the clocks that is worth a warning; at 15 minutes, requests are refused.
const SKEW: Duration = Duration::from_secs(60);
const MAX_SKEW: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
    Skip,
}

struct Check {
    name: &'static str,
    level: Level,
    detail: String,
    code: Code,
    request_id: Option<String>,
}

/// Shows each check as it is made.
struct Report {
    json: bool,
    verbose: bool,
    checks: Vec<Check>,
    /// Whose token was had, if the credential is no secret of the account.
    signed_in: Option<SignedIn>,
}

pub(crate) fn doctor(args: &DoctorArgs, global: &Global) -> Outcome {
    let mut report = Report {
        json: global.json,
        verbose: global.verbose > 0,
        checks: Vec::new(),
        signed_in: None,
    };
    let refused = match Config::load(global) {
        Err(failure) => {
            let auth = match global.auth {
                Auth::Auto => String::new(),
                kind => format!(" --auth {}", sign_in::shown(kind)),
            };
            let hint =
                format!("azmutex doctor --setup{auth} prints the commands that make a credential");
            Some(("credential", failure.hint(hint)))
        }
        Ok(config) => match config.mutex() {
            Err(failure) => Some(("configuration", failure)),
            Ok(mutex) => {
                examine(&mut report, &config, &mutex, args)?;
                None
            }
        },
    };
    if let Some((name, failure)) = refused {
        report.fail(name, failure.code, failure.text.clone());
        failure.say(global);
    }
    let worst = report
        .checks
        .iter()
        .find(|check| check.level == Level::Fail);
    let code = worst.map_or(Code::Done, |check| check.code);
    if global.json {
        let checks: Vec<_> = report.checks.iter().map(Check::object).collect();
        let object = Object::event("doctor")
            .bool("ok", code == Code::Done)
            .objects("checks", &checks);
        let object = match &report.signed_in {
            Some(signed_in) => signed_in.add_to(object),
            None => object,
        };
        print_line(&object.to_string());
    }
    Ok(code)
}

/// Makes one check after the other, up to the first that leaves nothing to try.
fn examine(
    report: &mut Report,
    config: &Config,
    mutex: &AzureMutex,
    args: &DoctorArgs,
) -> Result<(), Failure> {
    let endpoint = config.endpoint()?;
    report.ok(
        "account",
        format!("{}, from {}", clean(mutex.account()), config.account_from()),
    );
    report.ok(
        "endpoint",
        format!("{}, from {}", clean(&endpoint), config.endpoint_from()),
    );
    let (kind, from) = config.credential();
    let credential = format!("{kind}, from {from}");
    let proxy = mutex.proxy();
    report.ok("proxy", proxy.as_deref().unwrap_or("none").to_owned());
    let mut trusted = trust_store(&endpoint).to_owned();
    if let Some(file) = config.ca_file() {
        trusted = format!("{trusted}, and {file}");
    }
    report.ok("trust store", trusted);
    if !signs_in(report, mutex)
        || !connect(report, config, mutex, &endpoint, proxy.as_deref())
        || !service(report, mutex)
    {
        report.add(
            "credential",
            Level::Skip,
            format!("{credential}: not tried"),
        );
        return Ok(());
    }
    if !authenticate(report, mutex, &credential, &config.unused()) {
        return Ok(());
    }
    if args.read_only {
        report.add("lease", Level::Skip, "not tried (--read-only)".to_owned());
    } else {
        lease(report, mutex);
    }
    list(report, mutex);
    Ok(())
}

/// A token, if the credential is no secret of the account.
fn signs_in(report: &mut Report, mutex: &AzureMutex) -> bool {
    match doctor_identity::sign_in(mutex) {
        Ok(signed_in) => {
            for (name, detail) in signed_in.iter().flat_map(SignedIn::lines) {
                report.ok(name, detail);
            }
            report.signed_in = signed_in;
            true
        }
        Err(error) => {
            report.error("token", &error);
            false
        }
    }
}

/// Whether the endpoint is on this machine.
pub(super) fn is_loopback(endpoint: &str) -> bool {
    let target = target(endpoint);
    target
        .parse()
        .is_ok_and(|address: SocketAddr| address.ip().is_loopback())
}

/// Host and port of an endpoint. Names below `localhost` are this machine, whatever DNS says.
fn target(endpoint: &str) -> String {
    let (host, port) = host_and_port(endpoint);
    let name = format!(".{}", host.to_ascii_lowercase());
    let host = if name.ends_with(".localhost") {
        "127.0.0.1"
    } else {
        host
    };
    format!("{host}:{port}")
}

fn host_and_port(endpoint: &str) -> (&str, &str) {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", endpoint));
    let authority = rest.split('/').next().unwrap_or_default();
    let default = if scheme == "http" { "80" } else { "443" };
    match authority.rsplit_once(':') {
        // The last colon of an address in brackets is none of a port.
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (authority, default),
    }
}

/// What decides which certificates of servers are trusted.
fn trust_store(endpoint: &str) -> &'static str {
    if endpoint.starts_with("http://") {
        "none: plain http"
    } else if cfg!(any(feature = "platform-verifier", not(feature = "rustls"))) {
        "the system's"
    } else {
        "Mozilla's, which is built in"
    }
}

/// Name resolution and a connection, unless a proxy makes them.
fn connect(
    report: &mut Report,
    config: &Config,
    mutex: &AzureMutex,
    endpoint: &str,
    proxy: Option<&str>,
) -> bool {
    let target = target(endpoint);
    if let Some(proxy) = proxy {
        let detail = format!("not tried: the proxy {proxy} does this");
        report.add("name", Level::Skip, detail.clone());
        report.add("connection", Level::Skip, detail);
        return true;
    }
    let started = Instant::now();
    let addresses: Vec<SocketAddr> = match target.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            let account = clean(mutex.account());
            let named = if target.split('.').next() == Some(&*account) {
                format!("account's name ({account})")
            } else {
                format!("endpoint's host, from {}", config.endpoint_from())
            };
            report.fail(
                "name",
                Code::Unavailable,
                format!(
                    "{target}: {error}; check the {named}, and whether this network looks up names \
                     of the Internet itself or leaves that to a proxy"
                ),
            );
            return false;
        }
    };
    let shown: Vec<_> = addresses.iter().map(|a| a.ip()).collect::<Vec<IpAddr>>();
    let shown: Vec<_> = shown.iter().map(ToString::to_string).collect();
    report.ok(
        "name",
        format!(
            "{target} is {} ({})",
            shown.join(", "),
            millis(started.elapsed())
        ),
    );
    let mut why = "the name has no address".to_owned();
    for address in addresses {
        let started = Instant::now();
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(_) => {
                report.ok(
                    "connection",
                    format!("{address} ({})", millis(started.elapsed())),
                );
                return true;
            }
            Err(error) => why = format!("{address}: {error}"),
        }
    }
    let hint = if is_loopback(endpoint) {
        "is the emulator running, at this port?"
    } else {
        "does a firewall stand between, or is a proxy needed (HTTPS_PROXY)?"
    };
    report.fail("connection", Code::Unavailable, format!("{why}; {hint}"));
    false
}

/// A first answer, which includes TLS; the clock; and the time of later answers.
fn service(report: &mut Report, mutex: &AzureMutex) -> bool {
    let started = Instant::now();
    let before = SystemTime::now();
    let time = match mutex.service_time() {
        Ok(time) => time,
        Err(error) => {
            report.error("service", &error);
            return false;
        }
    };
    let took = started.elapsed();
    report.ok(
        "service",
        format!("answers ({} with connecting)", millis(took)),
    );
    // The date has no fraction. Assume that the request was answered half-way through.
    let service = time + Duration::from_millis(500);
    let local = before + took / 2;
    let (skew, direction) = match local.duration_since(service) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let detail = if skew < Duration::from_secs(2) {
        "this machine's is right, to within 2 s".to_owned()
    } else {
        format!("this machine's is {} {direction} the service's", span(skew))
    };
    if skew >= MAX_SKEW {
        report.fail(
            "clock",
            Code::Denied,
            format!("{detail}; 15 minutes are allowed"),
        );
    } else if skew >= SKEW {
        report.add("clock", Level::Warn, format!("{detail}; set it by NTP"));
    } else {
        report.ok("clock", detail);
    }
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let started = Instant::now();
        match mutex.service_time() {
            Ok(_) => best = best.min(started.elapsed()),
            Err(error) => {
                report.error("round trip", &error);
                return false;
            }
        }
    }
    report.ok("round trip", format!("{}, the best of 3", millis(best)));
    true
}

/// Whether the service accepts the credential and finds the container. Reads the scratch lock,
/// which may be missing.
fn authenticate(
    report: &mut Report,
    mutex: &AzureMutex,
    credential: &str,
    unused: &[&str],
) -> bool {
    let url = mutex.url("");
    let container = format!(
        "{} (account {})",
        clean(url.trim_end_matches('/')),
        clean(mutex.account())
    );
    let accepted = |report: &mut Report| {
        let others = match unused {
            [] => String::new(),
            unused => format!(" (also set, but not used: {})", unused.join(", ")),
        };
        report.ok("credential", format!("{credential}: accepted{others}"));
    };
    let error = match mutex.status(SCRATCH) {
        Ok(_) => {
            accepted(report);
            report.ok("container", container);
            return true;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            accepted(report);
            let missing = match error.service_code() {
                Some("ContainerNotFound") => {
                    "; it does not exist yet; the first lock creates it, if the credential may"
                }
                _ => "",
            };
            report.ok("container", format!("{container}{missing}"));
            return true;
        }
        Err(error) => error,
    };
    if lacks_permission(&error) {
        accepted(report);
        report.error("read", &error);
        return true;
    }
    // That reply has no body, and the one to a list has: it may say more.
    let error = match mutex.list(SCRATCH).next() {
        Some(Err(longer)) if longer.service_code() == error.service_code() => longer,
        _ => error,
    };
    let failure = Failure::from(error);
    report.push(Check {
        name: "credential",
        level: Level::Fail,
        detail: format!("{credential}: {}", failure.text),
        code: failure.code,
        request_id: failure.request_id,
    });
    false
}

/// Whether the service knows the credential, and only does not let it do this.
fn lacks_permission(error: &Error) -> bool {
    error.kind() == ErrorKind::Auth
        && matches!(
            error.service_code(),
            // What a SAS says about itself is refused before it is sent.
            None | Some("AuthorizationPermissionMismatch" | "InsufficientAccountPermissions")
                | Some("AuthorizationResourceTypeMismatch")
        )
}

fn list(report: &mut Report, mutex: &AzureMutex) {
    match mutex.list(SCRATCH).next() {
        None | Some(Ok(_)) => report.ok("list", "permitted".to_owned()),
        Some(Err(error)) => match error.kind() {
            ErrorKind::NotFound => report.add(
                "list",
                Level::Skip,
                "the container does not exist yet".to_owned(),
            ),
            // Locks work without it.
            ErrorKind::Auth => report.add(
                "list",
                Level::Warn,
                format!(
                    "not permitted; only azmutex list needs it ({})",
                    clean(&error.to_string())
                ),
            ),
            _ => report.error("list", &error),
        },
    }
}

/// Acquires and releases the scratch lock, which needs every permission that locks need.
fn lease(report: &mut Report, mutex: &AzureMutex) {
    let lease = match mutex.acquire(SCRATCH, LeaseDuration::MIN) {
        Ok(lease) => lease,
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            return report.add(
                "lease",
                Level::Skip,
                format!("{SCRATCH} is held, perhaps by another doctor: not tried"),
            );
        }
        Err(error) => return report.error("create and acquire", &error),
    };
    report.ok(
        "create and acquire",
        format!("permitted, on the lock {SCRATCH}"),
    );
    let steps: [(&'static str, Result<(), Error>); 2] = [
        (
            "write metadata",
            mutex
                .write_holder(
                    &lease,
                    Holder::current(LeaseDuration::MIN).with_reason("doctor"),
                )
                .and_then(|_| mutex.write_released(&lease)),
        ),
        ("renew", mutex.renew(&lease)),
    ];
    for (name, result) in steps {
        match result {
            Ok(()) => report.ok(name, "permitted".to_owned()),
            Err(error) => report.error(name, &error),
        }
    }
    match mutex.release(&lease) {
        Ok(()) => report.ok("release", "permitted".to_owned()),
        Err(error) if error.kind() == ErrorKind::LeaseLost => report.add(
            "release",
            Level::Warn,
            "somebody broke the lease first".to_owned(),
        ),
        Err(error) => report.error("release", &error),
    }
}

impl Report {
    fn ok(&mut self, name: &'static str, detail: String) {
        self.add(name, Level::Ok, detail);
    }

    fn add(&mut self, name: &'static str, level: Level, detail: String) {
        self.push(Check {
            name,
            level,
            detail,
            code: Code::Done,
            request_id: None,
        });
    }

    fn fail(&mut self, name: &'static str, code: Code, detail: String) {
        self.push(Check {
            name,
            level: Level::Fail,
            detail,
            code,
            request_id: None,
        });
    }

    fn error(&mut self, name: &'static str, error: &Error) {
        let failure = Failure::from(error.clone());
        self.push(Check {
            name,
            level: Level::Fail,
            detail: failure.text,
            code: failure.code,
            request_id: failure.request_id,
        });
    }

    fn push(&mut self, check: Check) {
        if !self.json {
            let id = match &check.request_id {
                Some(id) if self.verbose => format!(" (request id {})", clean(id)),
                _ => String::new(),
            };
            print_line(&format!(
                "{:<5} {:<19} {}{id}",
                check.level.word(),
                check.name,
                check.detail
            ));
        }
        self.checks.push(check);
    }
}

impl Check {
    fn object(&self) -> Object {
        Object::new()
            .text("check", self.name)
            .text("result", self.level.word())
            .text("detail", &self.detail)
            .maybe("request_id", self.request_id.as_deref())
    }
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

fn millis(duration: Duration) -> String {
    format!(
        "{}.{} ms",
        duration.as_millis(),
        duration.as_micros() / 100 % 10
    )
}
