//! Programs that are run for what they print.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use zeroize::Zeroizing;

/// The most that is kept of each stream, in bytes. A program that prints more is ended.
const MAX_OUTPUT: usize = 256 * 1024;

/// The longest that a program may take, whatever its limit.
const LONGEST: Duration = Duration::from_secs(3600);

/// How often it is looked whether the program has ended.
const POLL: Duration = Duration::from_millis(10);

/// How long its output is awaited after its end: another process may hold the pipe.
const GRACE: Duration = Duration::from_millis(100);

/// What a program left when it ended.
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Zeroizing<Vec<u8>>,
    pub(crate) stderr: Zeroizing<Vec<u8>>,
}

/// Why there is no output.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not be started.
    Start(io::Error),
    /// It did not end in time, and was ended.
    TimeLimit,
    /// It printed too much, and was ended.
    Flood,
}

/// Finds a program in the folders of `path`, but not in those that depend on the current one.
pub(crate) fn find(names: &[&str], path: &OsStr) -> Option<PathBuf> {
    let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    let mut candidates = folders.flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    candidates.find(|file| is_program(file))
}

#[cfg(unix)]
fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;

    file.metadata()
        .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(file: &Path) -> bool {
    file.is_file()
}

/// Runs a program and returns what it printed, after `limit` at the latest. It reads nothing, and
/// works in the root folder.
pub(crate) fn run(program: &Path, arguments: &[&str], limit: Duration) -> Result<Output, Failure> {
    let start = Instant::now();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("AZURE_CORE_NO_COLOR", "true")
        .env("NO_COLOR", "1")
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = Ended(command.spawn().map_err(Failure::Start)?);
    let (ended, at_end) = mpsc::channel();
    let stdout = Stream::of(child.0.stdout.take(), &ended).map_err(Failure::Start)?;
    let stderr = Stream::of(child.0.stderr.take(), &ended).map_err(Failure::Start)?;
    let mut status = None;
    let mut end = start + limit.min(LONGEST);
    let mut closed = 0;
    while status.is_none() || closed < 2 {
        let now = Instant::now();
        let left = end.saturating_duration_since(now);
        match at_end.recv_timeout(POLL.min(left)) {
            Ok(true) => closed += 1,
            Ok(false) => return Err(Failure::Flood),
            // Once both are closed, the program may go on without them.
            Err(_) => {}
        }
        if status.is_none() {
            status = child.0.try_wait().map_err(Failure::Start)?;
            if status.is_some() {
                // Whoever holds the pipes now is not waited for.
                end = end.min(now + GRACE);
            }
        }
        if Instant::now() >= end {
            break;
        }
    }
    Ok(Output {
        status: status.ok_or(Failure::TimeLimit)?,
        stdout: stdout.take(),
        stderr: stderr.take(),
    })
}

fn root() -> PathBuf {
    match cfg!(windows) {
        true => std::env::var_os("SYSTEMROOT")
            .unwrap_or_else(|| "C:\\".into())
            .into(),
        false => "/".into(),
    }
}

/// A child that does not outlive this value, with all that it started, unless it has ended.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        #[cfg(unix)]
        if let Some(group) = i32::try_from(self.0.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What came through a pipe so far.
struct Stream(Arc<Mutex<Zeroizing<Vec<u8>>>>);

impl Stream {
    /// Reads `pipe` on a thread of its own, which ends with the pipe. Then sends true to `ended`,
    /// or false if it was too much.
    fn of(
        pipe: Option<impl Read + Send + 'static>,
        ended: &mpsc::Sender<bool>,
    ) -> io::Result<Self> {
        // In one piece: a buffer that grows would leave parts of a token behind.
        let kept = Arc::new(Mutex::new(Zeroizing::new(Vec::with_capacity(MAX_OUTPUT))));
        let stream = Self(Arc::clone(&kept));
        let ended = ended.clone();
        let read = move || {
            let mut piece = Zeroizing::new([0; 4096]);
            let Some(mut pipe) = pipe else { return };
            let is_whole = loop {
                match pipe.read(&mut *piece) {
                    Ok(0) => break true,
                    Ok(length) => {
                        let mut kept = kept.lock();
                        if kept.len() + length > MAX_OUTPUT {
                            break false;
                        }
                        kept.extend_from_slice(&piece[..length]);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break true,
                }
            };
            let _ = ended.send(is_whole);
        };
        thread::Builder::new()
            .name("azmutex:output".to_owned())
            .spawn(read)?;
        Ok(stream)
    }

    fn take(&self) -> Zeroizing<Vec<u8>> {
        std::mem::take(&mut *self.0.lock())
    }
}

#[cfg(all(test, unix))]
#[path = "child_tests.rs"]
mod tests;
