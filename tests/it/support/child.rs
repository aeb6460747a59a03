//! Clients in processes of their own, which can be stopped and killed: this binary, started again.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use azmutex::{AzureMutex, Event, Locker, LockerBuilder, MutexOptions};

use super::backend::Backend;
use super::proxy::FaultProxy;
use super::{Events, LONG};

const ROLE: &str = "AZMUTEX_TEST_ROLE";
const CONNECTION: &str = "AZMUTEX_TEST_ROLE_CONNECTION";
const CONTAINER: &str = "AZMUTEX_TEST_ROLE_CONTAINER";
const KEY: &str = "AZMUTEX_TEST_ROLE_KEY";
const LOG: &str = "AZMUTEX_TEST_ROLE_LOG";
const FAULT_WAIT: &str = "AZMUTEX_TEST_ROLE_FAULT_WAIT_MS";

/// Who the role `hold` says that it is.
pub(crate) const OWNER: &str = "the child";
/// What it writes.
pub(crate) const VALUE: &[u8] = b"by the child";
/// How often the role `contend` takes the lock.
pub(crate) const ROUNDS: usize = 2;

/// What the lines of a role begin with, among those of the test harness.
const MARK: &str = "> ";

/// A process that plays a role, killed when it is dropped.
pub(crate) struct Child {
    process: process::Child,
    lines: Receiver<String>,
}

impl Child {
    /// Holds `key` with fencing, as [`OWNER`], and says `holds TOKEN`. Told to `write`, it writes
    /// [`VALUE`] and says what came of it; told to `release`, it does.
    pub(crate) fn hold(backend: &Backend, key: &str) -> Self {
        Self::start("hold", backend, key, |_| ())
    }

    /// The same through a proxy, and failures to acquire are retried for `fault_wait`.
    pub(crate) fn hold_through(
        backend: &Backend,
        proxy: &FaultProxy,
        key: &str,
        fault_wait: Duration,
    ) -> Self {
        Self::start("hold", backend, key, |process| {
            process
                .env(CONNECTION, proxy.connection_string())
                .env(FAULT_WAIT, fault_wait.as_millis().to_string());
        })
    }

    /// Takes `key` with fencing for [`ROUNDS`] times, and appends `enter TOKEN` and `leave TOKEN`
    /// to the file `log` while it holds it.
    pub(crate) fn contend(backend: &Backend, key: &str, log: &Path) -> Self {
        Self::start("contend", backend, key, |process| {
            process.env(LOG, log);
        })
    }

    fn start(role: &str, backend: &Backend, key: &str, set: impl FnOnce(&mut Command)) -> Self {
        let mut process = Command::new(env::current_exe().expect("this binary is a file"));
        process
            .args(["support::child::play", "--exact", "--ignored"])
            .args(["--nocapture", "--test-threads", "1"])
            .env(ROLE, role)
            .env(CONNECTION, backend.connection_string())
            .env(CONTAINER, backend.container())
            .env(KEY, key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        set(&mut process);
        let mut process = process.spawn().expect("this binary runs");
        let stdout = process.stdout.take().expect("stdout is piped");
        let (said, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix(MARK) {
                    let _ = said.send(line.to_owned());
                }
            }
        });
        Self { process, lines }
    }

    /// The next line that it says.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        let line = self.lines.recv_timeout(LONG);
        line.expect("it says something in time")
    }

    /// The token that it says that it holds.
    #[track_caller]
    pub(crate) fn token(&self) -> i64 {
        let line = self.line();
        let token = line.strip_prefix("holds ").and_then(|t| t.parse().ok());
        token.unwrap_or_else(|| panic!("`{line}` instead of its token"))
    }

    pub(crate) fn tell(&mut self, what: &str) {
        let stdin = self.process.stdin.as_mut().expect("stdin is piped");
        writeln!(stdin, "{what}").expect("it has not ended");
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Stops it, until [`Child::go_on`].
    #[cfg(unix)]
    pub(crate) fn stop(&self) {
        super::stop(&self.process);
    }

    #[cfg(unix)]
    pub(crate) fn go_on(&self) {
        super::go_on(&self.process);
    }

    /// Ends it without giving it a chance to release anything.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("it has not ended");
        self.process.wait().expect("it is a child of this process");
    }

    /// Waits until it has ended by itself, and well.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        while match self.lines.recv_timeout(3 * LONG) {
            Ok(_) => true,
            Err(RecvTimeoutError::Disconnected) => false,
            Err(RecvTimeoutError::Timeout) => panic!("it has not ended"),
        } {}
        let status = self.process.wait().expect("it is a child of this process");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What this binary does when it is started again. No test.
#[test]
#[ignore = "a part that other tests start"]
fn play() {
    let Ok(role) = env::var(ROLE) else { return };
    let set = |name| env::var(name).expect("the parent sets it");
    let mutex = MutexOptions::from_connection_string(&set(CONNECTION), &set(CONTAINER))
        .and_then(AzureMutex::new)
        .expect("the parent's client is well-formed too");
    let builder = Locker::builder(mutex, &set(KEY))
        .lease_duration(Duration::from_secs(15))
        .poll_interval(Duration::from_millis(100))
        .owner(OWNER)
        .fencing(true);
    let builder = match env::var(FAULT_WAIT) {
        Ok(millis) => builder.fault_wait(Duration::from_millis(millis.parse().expect("a number"))),
        Err(_) => builder,
    };
    match role.as_str() {
        "hold" => hold(builder),
        "contend" => contend(builder, Path::new(&set(LOG))),
        role => panic!("{role} is no role"),
    }
}

fn say(what: &str) {
    // What the harness has on the line already ends here.
    println!("\n{MARK}{what}");
}

fn hold(builder: LockerBuilder) {
    let (observer, events) = Events::new();
    let locker = builder.observer(observer).build().expect("sound");
    let guard = locker.lock().expect("it becomes free");
    say(&format!(
        "holds {}",
        guard.fencing_token().expect("it is on")
    ));
    for line in io::stdin().lines().map_while(Result::ok) {
        match line.as_str() {
            "write" => match guard.write(VALUE) {
                Ok(()) => say("wrote"),
                Err(error) => {
                    let held = guard.is_held();
                    say(&format!("{:?}, held: {held}", error.kind()));
                    events.wait(|event| matches!(event, Event::Lost { .. }));
                    say("heard of it");
                }
            },
            "release" => break,
            line => panic!("what is `{line}`?"),
        }
    }
    let released = guard.release().map_err(|error| error.kind());
    say(&format!("{released:?}"));
}

fn contend(builder: LockerBuilder, log: &Path) {
    // Not to outlive the parent, whatever becomes of that.
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(1);
    });
    let locker = builder.build().expect("sound");
    for _ in 0..ROUNDS {
        let guard = locker.lock().expect("it becomes free");
        let token = guard.fencing_token().expect("it is on");
        let mut log = OpenOptions::new().append(true).open(log).expect("a file");
        log.write_all(format!("enter {token}\n").as_bytes())
            .expect("it is written");
        guard.check().expect("it is held");
        log.write_all(format!("leave {token}\n").as_bytes())
            .expect("it is written");
        drop(log);
        guard.release().expect("it is held");
    }
}
