//! The health command of an election: its success is a sign of life of the work.
//!
//! A process of its own starts it again and again: so nothing that it does or leaves behind is taken for
//! a part of the command under the lock, and its start cannot delay the supervisor. That process is
//! azmutex again, in [`serve`]. It ends when azmutex does.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use azmutex::LeaseWatch;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, waitpid};

use super::channel::{Message, Sender};
use crate::processes;
use crate::times::short;

/// What azmutex is told as its first argument to be that process.
const SERVE: &str = "--serve-health-checks";

/// What it writes for a success. Anything else is why there was none.
const SUCCESS: &str = "success";

/// What it writes first, with the process group of the run.
const RUNS: &str = "runs ";

/// How often the processes of a run are listed to kill them.
const ROUNDS: u32 = 8;

/// How long to wait for it to end by itself.
const LEAVE: Duration = Duration::from_millis(500);

/// A health command that is run again and again.
pub(super) struct Health {
    runner: Child,
    under_way: Arc<UnderWay>,
}

/// The process group of the run that is under way. Zero without one.
#[derive(Default)]
struct UnderWay(AtomicI32);

impl UnderWay {
    fn set(&self, group: i32) {
        self.0.store(group, Ordering::SeqCst);
    }

    /// Kills it, once.
    fn kill(&self) {
        kill(self.0.swap(0, Ordering::SeqCst));
    }
}

impl Health {
    /// Has `command` run three times in `within`, and each success reported to `watch`. What became of
    /// each run is told to the supervisor, too.
    pub(super) fn start(
        command: &str,
        within: Duration,
        environment: &[CString],
        watch: LeaseWatch,
        sender: Sender,
    ) -> io::Result<Self> {
        let variables = environment.iter().filter_map(|pair| {
            let pair = pair.as_bytes();
            let at = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (&pair[..at], &pair[at + 1..]);
            Some((OsStr::from_bytes(name), OsStr::from_bytes(value)))
        });
        let every = within / 3;
        let mut child = Command::new(itself()?)
            .arg0("azmutex")
            .args([SERVE, &every.as_millis().to_string(), command])
            .env_clear()
            .envs(variables)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let reports = child.stdout.take();
        let this = Self {
            runner: child,
            under_way: Arc::default(),
        };
        let under_way = Arc::clone(&this.under_way);
        let read = move || {
            for line in reports
                .into_iter()
                .flat_map(|reports| BufReader::new(reports).lines())
            {
                let Ok(line) = line else { break };
                let group = line.strip_prefix(RUNS);
                under_way.set(group.and_then(|group| group.parse().ok()).unwrap_or(0));
                if group.is_some() {
                    continue;
                }
                let result = if line == SUCCESS { Ok(()) } else { Err(line) };
                if result.is_ok() {
                    watch.alive();
                }
                sender.send(Message::Health(result));
            }
            under_way.kill();
            let why = "the process that runs it has ended".to_owned();
            sender.send(Message::Health(Err(why)));
        };
        thread::Builder::new()
            .name("azmutex:health".to_owned())
            .spawn(read)?;
        Ok(this)
    }

    pub(super) fn pid(&self) -> i32 {
        i32::try_from(self.runner.id()).unwrap_or_default()
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        // The end of its input ends it, with what it has started.
        drop(self.runner.stdin.take());
        let end = Instant::now() + LEAVE;
        while Instant::now() < end {
            // Somebody may have reaped it already.
            if !matches!(self.runner.try_wait(), Ok(None)) {
                self.under_way.kill();
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        let _ = self.runner.kill();
        let _ = self.runner.wait();
        self.under_way.kill();
    }
}

/// This program's file, also if another one has taken its name since.
fn itself() -> io::Result<PathBuf> {
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() {
        Ok(link)
    } else {
        std::env::current_exe()
    }
}

/// The process group of the run that is under way. Locked while one is started.
static RUN: Mutex<i32> = Mutex::new(0);

/// Runs health checks if this process was started for that. Returns its exit code.
pub(crate) fn serve() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != SERVE {
        return None;
    }
    let every: Duration = Duration::from_millis(args.next()?.to_str()?.parse().ok()?);
    let command = args.next()?;
    adopt_orphans();
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        // No other is started from here on.
        let group = run_under_way();
        end_all(*group);
        std::process::exit(0);
    });
    loop {
        let started = Instant::now();
        let report = match check(&command, every) {
            Ok(()) => SUCCESS.to_owned(),
            Err(why) => why,
        };
        if writeln!(io::stdout(), "{report}").is_err() {
            return Some(ExitCode::FAILURE);
        }
        thread::sleep(every.saturating_sub(started.elapsed()));
    }
}

/// Runs the command once.
fn check(command: &OsString, timeout: Duration) -> Result<(), String> {
    let mut run = run_under_way();
    let child = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.map_err(|error| format!("cannot start it: {error}"))?;
    let group = i32::try_from(child.id()).unwrap_or_default();
    *run = group;
    drop(run);
    // If nobody reads it, that shows when the result is written.
    let _ = writeln!(io::stdout(), "{RUNS}{group}");
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait()));
    let result = match ended.recv_timeout(timeout) {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(in_words(status)),
        Ok(Err(error)) => Err(format!("cannot wait for it: {error}")),
        Err(RecvTimeoutError::Timeout) => Err(format!("it took longer than {}", short(timeout))),
        Err(RecvTimeoutError::Disconnected) => Err("nobody waits for it".to_owned()),
    };
    let mut run = run_under_way();
    end_all(group);
    *run = 0;
    result
}

fn in_words(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    }
}

fn run_under_way() -> MutexGuard<'static, i32> {
    RUN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes this process adopt what a run leaves behind, which is then no part of the command.
fn adopt_orphans() {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Kills a run with all that it has started. What left its group can be found on Linux alone.
fn end_all(group: i32) {
    kill(group);
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    for _ in 0..ROUNDS {
        // Those that have ended are collected on the way.
        while let Ok(Some(_)) = waitpid(None, WaitOptions::NOHANG) {}
        let mut left = processes::below(own, &[]);
        left.retain(|process| !process.is_zombie);
        if left.is_empty() {
            break;
        }
        for process in left {
            if let Some(pid) = Pid::from_raw(process.pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

fn kill(group: i32) {
    if let Some(group) = Pid::from_raw(group) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}
