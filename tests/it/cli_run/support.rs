//! The command under test, and what goes on in it.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use azmutex::emulator::Emulator;
use azmutex::{AzureMutex, LeaseState, Locker, MutexOptions};
use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process};

use crate::cli::assert_valid;
use crate::support::azurite::Azurite;

/// Generous, for a loaded machine: nothing waits this long that works.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A service to run against, and how the command finds it.
pub(super) struct Service {
    pub(super) connection_string: String,
    /// Ends with the test.
    _emulator: Option<Emulator>,
}

impl Service {
    /// An emulator in this process.
    pub(super) fn emulator() -> Self {
        let emulator = Emulator::start().expect("an emulator");
        Self {
            connection_string: emulator.connection_string(),
            _emulator: Some(emulator),
        }
    }

    /// The emulator, and Azurite if it is there.
    pub(super) fn all() -> Vec<Self> {
        let azurite = Azurite::shared().map(|azurite| Self::at(azurite.connection_string()));
        [Some(Self::emulator()), azurite]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Whatever the connection string names.
    pub(super) fn at(connection_string: String) -> Self {
        Self {
            connection_string,
            _emulator: None,
        }
    }

    /// Where it listens.
    pub(super) fn addr(&self) -> SocketAddr {
        let (_, url) = self
            .connection_string
            .split_once("http://")
            .expect("a local endpoint");
        let (addr, _) = url.split_once('/').expect("a path");
        addr.parse().expect("an address")
    }

    /// A client of its own.
    pub(super) fn mutex(&self) -> AzureMutex {
        let options = MutexOptions::from_connection_string(&self.connection_string, "locks");
        AzureMutex::new(options.expect("valid options")).expect("valid options")
    }

    /// Another holder of `lock`.
    pub(super) fn locker(&self, lock: &str) -> Locker {
        Locker::new(self.mutex(), lock).expect("a valid lock")
    }

    /// The state of `lock`'s lease.
    pub(super) fn state(&self, lock: &str) -> LeaseState {
        self.mutex()
            .status(lock)
            .expect("the lock's status")
            .state()
    }

    /// `azmutex run`, to be given arguments. Nothing of this process's own environment that
    /// concerns it is passed on.
    pub(super) fn run<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Command {
        self.azmutex("run", args)
    }

    /// Another command of azmutex, likewise.
    pub(super) fn azmutex<I: AsRef<OsStr>>(
        &self,
        verb: &str,
        args: impl IntoIterator<Item = I>,
    ) -> Command {
        let mut command = Command::new(azmutex());
        self.prepare(&mut command);
        command.arg(verb).args(args);
        command
    }

    /// Has `command` find this service.
    pub(super) fn prepare(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("AZMUTEX_") || name.starts_with("AZURE_STORAGE_") {
                command.env_remove(&*name);
            }
        }
        command
            .env("AZURE_STORAGE_CONNECTION_STRING", &self.connection_string)
            .stdin(Stdio::null());
    }
}

/// The command under test.
pub(super) fn azmutex() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_azmutex"))
}

/// A lock that no other test uses.
pub(super) fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("cli-run/{name}-{}-{n}", std::process::id())
}

/// An empty directory that goes with the value.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        let path = std::env::temp_dir().join(unique("scratch").replace('/', "-"));
        std::fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file with this content and mode.
    pub(super) fn write(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.file(name);
        std::fs::write(&path, content).expect("a file");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("its mode");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a process wrote so far.
#[derive(Clone, Default)]
pub(super) struct Written(Arc<(Mutex<(String, bool)>, Condvar)>);

impl Written {
    /// Collects what `from` yields, on a thread.
    pub(super) fn collect(mut from: impl Read + Send + 'static) -> (Self, JoinHandle<()>) {
        let this = Self::default();
        let into = this.clone();
        let thread = thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut chunk) {
                into.0
                    .0
                    .lock()
                    .0
                    .push_str(&String::from_utf8_lossy(&chunk[..n]));
                into.0.1.notify_all();
            }
            into.0.0.lock().1 = true;
            into.0.1.notify_all();
        });
        (this, thread)
    }

    pub(super) fn text(&self) -> String {
        self.0.0.lock().0.clone()
    }

    /// Waits until `text` was written, and returns everything up to its end.
    #[track_caller]
    pub(super) fn wait_for(&self, text: &str) -> String {
        self.wait_from(0, text).1
    }

    /// Waits until `text` was written after the first `start` bytes. Returns where it ends, and
    /// what was written from `start` to there.
    #[track_caller]
    pub(super) fn wait_from(&self, start: usize, text: &str) -> (usize, String) {
        let end = Instant::now() + PATIENCE;
        let mut state = self.0.0.lock();
        loop {
            let (written, over) = &*state;
            if let Some(at) = written[start..].find(text) {
                let to = start + at + text.len();
                return (to, written[start..to].to_owned());
            }
            assert!(!over, "it ended without {text:?}: {written}");
            let timed_out = self.0.1.wait_until(&mut state, end).timed_out();
            assert!(!timed_out, "no {text:?} in time: {}", state.0);
        }
    }
}

/// A command that runs.
pub(super) struct Running {
    pub(super) child: Child,
    pub(super) out: Written,
    pub(super) err: Written,
    readers: Vec<JoinHandle<()>>,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) status: ExitStatus,
    pub(super) out: String,
    pub(super) err: String,
}

impl Done {
    #[track_caller]
    pub(super) fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("no exit code: {self:?}"))
    }

    #[track_caller]
    pub(super) fn signal(&self) -> i32 {
        self.status
            .signal()
            .unwrap_or_else(|| panic!("no signal: {self:?}"))
    }
}

impl Running {
    pub(super) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let (out, first) = Written::collect(child.stdout.take().expect("a pipe"));
        let (err, second) = Written::collect(child.stderr.take().expect("a pipe"));
        Self {
            child,
            out,
            err,
            readers: vec![first, second],
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it can be signalled");
    }

    /// Waits until it ended, and everything that it started has closed its output.
    #[track_caller]
    pub(super) fn finish(mut self) -> Done {
        let status = self.wait();
        for reader in self.readers {
            reader.join().expect("a reader");
        }
        Done {
            status,
            out: self.out.text(),
            err: self.err.text(),
        }
    }

    /// Waits until it ended.
    #[track_caller]
    pub(super) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        let ended = eventually(PATIENCE * 2, || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        if !ended {
            let _ = self.child.kill();
            panic!("it does not end: {}{}", self.out.text(), self.err.text());
        }
        status.expect("it ended")
    }
}

/// Runs it to its end.
#[track_caller]
pub(super) fn finish(command: &mut Command) -> Done {
    Running::start(command).finish()
}

/// Looks for a state that no process tells of until it is there, for at most `patience`.
pub(super) fn eventually(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process is gone, or has ended and only waits to be asked for its status.
#[cfg(target_os = "linux")]
pub(super) fn is_dead(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => {
            let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            state.starts_with('Z') || state.starts_with('X')
        }
        Err(_) => true,
    }
}

/// Whether a process is gone.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_dead(pid: i32) -> bool {
    Pid::from_raw(pid).is_none_or(|pid| rustix::process::test_kill_process(pid).is_err())
}

#[track_caller]
pub(super) fn assert_dies(pid: i32) {
    assert!(
        eventually(PATIENCE, || is_dead(pid)),
        "process {pid} lives on"
    );
}

/// The number after `name=` in `text`.
#[track_caller]
pub(super) fn number(text: &str, name: &str) -> i32 {
    let (_, rest) = text
        .split_once(&format!("{name}="))
        .unwrap_or_else(|| panic!("no {name}= in {text}"));
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end]
        .parse()
        .unwrap_or_else(|_| panic!("no number after {name}= in {text}"))
}

/// The events that a run wrote to `file`, all of which hold to the schema.
#[track_caller]
pub(super) fn events(file: &Path) -> Vec<serde_json::Value> {
    let file = std::fs::File::open(file).expect("an event file");
    BufReader::new(file)
        .lines()
        .map(|line| serde_json::from_str(&line.expect("a line")).expect("a JSON object"))
        .inspect(|event| drop(assert_valid(event)))
        .collect()
}

/// The names of `events`.
pub(super) fn names(events: &[serde_json::Value]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .collect()
}

/// Whether this process ignores the signal, and so do those that it starts.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
