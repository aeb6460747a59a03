//! `-w`, `-n`, `--fault-wait` and signals bound everything from the start to the moment in which the
//! lock is handed over, the fencing token included.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use azmutex::LeaseState;

use super::tool::{Done, Running, Tool};
use crate::support::addr_of;
use crate::support::proxy::{Fault, FaultProxy, RequestHead, Seen, server_busy};

const PATIENCE: Duration = Duration::from_secs(30);

/// A lock that exists, and a way to its service that can fail.
struct Path {
    proxy: FaultProxy,
    through: Tool,
    direct: Tool,
}

impl Path {
    fn new() -> Self {
        let direct = Tool::new();
        let mutex = direct.mutex();
        let lease = mutex.acquire("a", azmutex::LeaseDuration::MAX).unwrap();
        mutex.release(&lease).unwrap();
        let proxy = FaultProxy::start(addr_of(direct.emulator()));
        let through = Tool::of(proxy.connection_string());
        Self {
            proxy,
            through,
            direct,
        }
    }

    fn state(&self) -> LeaseState {
        self.direct.mutex().status("a").unwrap().state()
    }

    #[track_caller]
    fn is_free_soon(&self, verb: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        while !self.state().is_free() {
            assert!(Instant::now() < end, "{verb} leaves the lease");
            std::thread::yield_now();
        }
    }

    fn run(&self, verb: &str, options: &[&str]) -> (Done, Duration) {
        let mut command = self.through.command(&line(verb, options));
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Its end would be the end of what holds a lock.
        let stdin = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let done = Done {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        };
        (done, started.elapsed())
    }

    fn start(&self, verb: &str, options: &[&str]) -> Running {
        self.through.start(&line(verb, options))
    }
}

/// The three commands that acquire a lock. One that has it says so on stdout, and ends.
const VERBS: [&str; 3] = ["run", "hold", "acquire"];

fn line<'a>(verb: &'a str, options: &[&'a str]) -> Vec<&'a str> {
    let tail: &[&str] = match verb {
        "run" => &["a", "echo", "READY"],
        "hold" => &["a", "--ready"],
        _ => &["a"],
    };
    [&[verb], options, tail].concat()
}

/// After the lease is granted, the fencing token is read and stored: what that takes.
fn concerns_the_token(request: &RequestHead) -> bool {
    matches!(request.operation(), "get properties" | "put metadata")
}

fn concerns_the_token_seen(seen: &Seen) -> bool {
    concerns_the_token(&seen.request)
}

fn busy() -> Fault {
    Fault::Answer(server_busy(None))
}

/// The codes of a service that does not answer, and of a lock that is not acquired in time.
fn is_failure(verb: &str, code: Option<i32>) -> bool {
    let unavailable = if verb == "run" { 125 } else { 69 };
    code == Some(unavailable) || code == Some(75)
}

#[test]
fn wait_limit_counts_while_the_fencing_token_is_not_answered() {
    for verb in VERBS {
        let path = Path::new();
        path.proxy
            .always_when(concerns_the_token, Fault::HangBefore);
        let (done, took) = path.run(verb, &["-w", "3s"]);
        assert!(is_failure(verb, done.code), "{verb}: {done:?}");
        assert_eq!(done.out, "", "{verb}");
        assert!(
            took >= Duration::from_millis(2900) && took < Duration::from_secs(6),
            "{verb}: {took:?}"
        );
        path.is_free_soon(verb);
    }
}

#[test]
fn nonblock_ends_soon_while_the_fencing_token_is_not_answered() {
    for verb in VERBS {
        let path = Path::new();
        path.proxy
            .always_when(concerns_the_token, Fault::HangBefore);
        let (done, took) = path.run(verb, &["-n", "--request-timeout", "2s"]);
        assert!(is_failure(verb, done.code), "{verb}: {done:?}");
        assert_eq!(done.out, "", "{verb}");
        assert!(took < Duration::from_secs(5), "{verb}: {took:?}");
        path.is_free_soon(verb);
    }
}

#[test]
fn failure_that_passes_within_the_fault_wait_is_put_up_with() {
    for verb in VERBS {
        let path = Path::new();
        for _ in 0..3 {
            path.proxy.when(concerns_the_token, busy());
        }
        let mut running = path.start(verb, &["--fault-wait", "30s"]);
        let line = running.line();
        assert!(
            line == "READY" || line.len() == 36,
            "{verb} got the lock: {line}"
        );
        if verb == "hold" {
            running.close_stdin();
        }
        assert_eq!(running.wait().code(), Some(0), "{verb}");
        assert!(path.proxy.seen().len() >= 4);
    }
}

#[test]
fn failure_that_lasts_ends_with_the_fault_wait() {
    for verb in VERBS {
        let path = Path::new();
        path.proxy.always_when(concerns_the_token, busy());
        let (done, took) = path.run(verb, &["--fault-wait", "2s"]);
        let unavailable = if verb == "run" { 125 } else { 69 };
        assert_eq!(done.code, Some(unavailable), "{verb}: {done:?}");
        assert!(
            took >= Duration::from_secs(1) && took < Duration::from_secs(6),
            "{verb}: {took:?}"
        );
        path.is_free_soon(verb);
    }
}

#[test]
fn lease_that_is_broken_before_the_token_is_stored_is_waited_for_again() {
    for verb in VERBS {
        let path = Path::new();
        path.proxy.when(concerns_the_token, Fault::Hold);
        let mut running = path.start(verb, &["-w", "1m"]);
        path.proxy.wait_for(1, concerns_the_token_seen, PATIENCE);
        let mutex = path.direct.mutex();
        mutex.break_lease("a", Some(Duration::ZERO)).unwrap();
        path.proxy.release_held();
        let line = running.line();
        assert!(line == "READY" || line.len() == 36, "{verb}: {line}");
        if verb == "hold" {
            running.close_stdin();
        }
        assert_eq!(running.wait().code(), Some(0), "{verb}");
    }
}

#[test]
fn signal_before_the_token_is_stored_leaves_nothing_leased() {
    for verb in VERBS {
        let path = Path::new();
        path.proxy
            .always_when(concerns_the_token, Fault::HangBefore);
        let mut running = path.start(verb, &[]);
        path.proxy.wait_for(1, concerns_the_token_seen, PATIENCE);
        assert_eq!(path.state(), LeaseState::Leased);
        let started = Instant::now();
        running.signal("TERM");
        assert_eq!(running.wait().signal(), Some(15), "{verb}");
        let took = started.elapsed();
        assert!(took < Duration::from_secs(4), "{verb}: {took:?}");
        path.is_free_soon(verb);
    }
}

#[test]
fn run_sends_five_requests_and_two_without_a_fencing_token() {
    let tool = Tool::new();
    tool.run(&["run", "a", "true"]).exits(0);
    for (args, sent) in [
        (&["run", "a", "true"][..], 5),
        (&["run", "--no-fencing", "a", "true"], 2),
    ] {
        let before = tool.emulator().requests();
        tool.run(args).exits(0);
        assert_eq!(tool.emulator().requests() - before, sent, "{args:?}");
    }
}

#[test]
fn limits_hold_when_the_service_says_nothing_at_all() {
    for verb in VERBS {
        let path = Path::new();
        path.proxy.always(Some(Fault::HangBefore));
        let (done, took) = path.run(verb, &["-w", "2s"]);
        assert!(is_failure(verb, done.code), "{verb}: {done:?}");
        assert!(took < Duration::from_secs(5), "{verb}: {took:?}");
        let mut running = path.start(verb, &[]);
        path.proxy.wait_for(2, |_| true, PATIENCE);
        let started = Instant::now();
        running.signal("TERM");
        assert_eq!(running.wait().signal(), Some(15), "{verb}");
        let took = started.elapsed();
        assert!(took < Duration::from_secs(4), "{verb}: {took:?}");
    }
}
