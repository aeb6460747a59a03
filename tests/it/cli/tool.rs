//! Runs the binary that cargo built for these tests.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use azmutex::emulator::Emulator;
use azmutex::{AzureMutex, MutexOptions};
use serde_json::Value;

/// Bounds what does not happen in a test that fails.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The tool, set up for one service.
pub(crate) struct Tool {
    connection: String,
    emulator: Option<Emulator>,
}

/// What a run of the tool left.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Tool {
    /// With an emulator of its own.
    pub(crate) fn new() -> Self {
        let emulator = Emulator::start().unwrap();
        Self {
            connection: emulator.connection_string(),
            emulator: Some(emulator),
        }
    }

    /// With the service that a connection string names.
    pub(crate) fn of(connection: String) -> Self {
        Self {
            connection,
            emulator: None,
        }
    }

    pub(crate) fn emulator(&self) -> &Emulator {
        self.emulator.as_ref().unwrap()
    }

    /// The library's client of the same container.
    pub(crate) fn mutex(&self) -> AzureMutex {
        let options = match &self.emulator {
            Some(emulator) => emulator.options("locks"),
            None => MutexOptions::from_connection_string(&self.connection, "locks"),
        };
        AzureMutex::new(options.unwrap()).unwrap()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = bare(args);
        command.env("AZURE_STORAGE_CONNECTION_STRING", &self.connection);
        command
    }

    /// Runs it to its end, with nothing on stdin.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        finish(self.command(args))
    }

    /// Starts it, with stdin open.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }
}

/// The tool without any configuration.
pub(crate) fn bare(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_azmutex"));
    command.args(args);
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_ascii_uppercase();
        let foreign = ["AZMUTEX_", "AZURE_", "CLICOLOR"];
        if foreign.iter().any(|prefix| upper.starts_with(prefix))
            || upper.ends_with("_PROXY")
            || upper == "NO_COLOR"
        {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end, with nothing on stdin.
pub(crate) fn finish(mut command: Command) -> Done {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Done {
        code: output.status.code(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

impl Done {
    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Asserts that stderr says so.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "no {text:?} in {self:?}");
        self
    }

    /// Asserts that stdout says so.
    #[track_caller]
    pub(crate) fn prints(self, text: &str) -> Self {
        assert!(self.out.contains(text), "no {text:?} in {self:?}");
        self
    }

    /// The only object on stdout.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let all = self.jsons();
        assert_eq!(all.len(), 1, "{self:?}");
        all[0].clone()
    }

    /// The objects on stdout, one a line.
    #[track_caller]
    pub(crate) fn jsons(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{self:?}"));
        self.out.lines().map(parse).collect()
    }

    #[track_caller]
    pub(crate) fn line(&self) -> &str {
        assert_eq!(self.out.lines().count(), 1, "{self:?}");
        self.out.trim_end()
    }
}

/// The tool while it runs; killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take(),
            out: lines(child.stdout.take().unwrap()),
            err: lines(child.stderr.take().unwrap()),
            child,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line of stdout.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        self.out.recv_timeout(LONG).expect("a line on stdout")
    }

    /// Waits for a line of stderr that says so.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> String {
        let mut seen = Vec::new();
        while let Ok(line) = self.err.recv_timeout(LONG) {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("no {text:?} in {seen:?}");
    }

    pub(crate) fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    #[cfg(unix)]
    pub(crate) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for its end, with stdin as it is.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        // The end of stderr is the end of the process, and can be waited for with a bound.
        while self.err.recv_timeout(LONG).is_ok() {}
        self.child.try_wait().unwrap().unwrap_or_else(|| {
            let (sender, _ended) = mpsc::channel::<()>();
            drop(sender);
            self.child.wait().unwrap()
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                // A full pipe would stop the process.
                let _ = from.read_to_end(&mut line);
                return;
            }
        }
    });
    receiver
}
