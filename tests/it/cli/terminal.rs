//! What is asked and shown on a terminal.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::thread::{self, JoinHandle};

use azmutex::{Holder, LeaseDuration, LeaseState};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::tool::Tool;

/// The tool with all three streams on a terminal of its own.
struct Session {
    child: Child,
    terminal: File,
    /// What the screen has shown so far.
    screen: String,
}

impl Session {
    fn start(mut command: Command) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let theirs = || OwnedFd::from(theirs.try_clone().unwrap());
        let child = command
            .env("TERM", "xterm")
            .stdin(theirs())
            .stdout(theirs())
            .stderr(theirs())
            .spawn()
            .unwrap();
        Self {
            child,
            terminal: File::from(ours),
            screen: String::new(),
        }
    }

    /// Reads until the screen has shown `text`.
    #[track_caller]
    fn shows(&mut self, text: &str) {
        let mut bytes = [0; 1024];
        while !self.screen.contains(text) {
            // At its end a terminal fails.
            match self.terminal.read(&mut bytes) {
                Ok(n @ 1..) => self.screen += &String::from_utf8_lossy(&bytes[..n]),
                _ => panic!("no {text:?} on {:?}", self.screen),
            }
        }
    }

    fn types(&mut self, line: &str) {
        self.terminal.write_all(line.as_bytes()).unwrap();
        self.terminal.write_all(b"\n").unwrap();
    }

    /// Its exit code, and everything that the screen showed.
    fn wait(mut self) -> (Option<i32>, String) {
        let mut from = self.terminal.try_clone().unwrap();
        let rest: JoinHandle<String> = thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = from.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let code = self.child.wait().unwrap().code();
        (code, self.screen + &rest.join().unwrap())
    }
}

fn held() -> Tool {
    let tool = Tool::new();
    let lease = tool.mutex().acquire("prod/a", LeaseDuration::MAX).unwrap();
    let holder = Holder::current(LeaseDuration::MAX);
    let holder = holder.with_owner("ci@build-07").with_reason("release 812");
    tool.mutex().write_holder(&lease, holder).unwrap();
    tool
}

#[test]
fn break_shows_the_holder_and_wants_the_name() {
    let tool = held();
    let mut session = Session::start(tool.command(&["break", "prod/a"]));
    session.shows("Type the lock name to confirm: ");
    session.types("prod/a");
    let (code, screen) = session.wait();
    assert_eq!(code, Some(0), "{screen}");
    for text in [
        "prod/a is held by ci@build-07 (pid ",
        "the holder is alive, or was a moment ago.",
        "Breaking ends its lease within 30s",
        "Lease broken; acquirable in 30s.",
    ] {
        assert!(screen.contains(text), "no {text:?} on {screen:?}");
    }
}

#[test]
fn break_with_another_answer_than_the_name_changes_nothing() {
    let tool = held();
    for answer in ["", "y", "yes", "prod/b"] {
        let mut session = Session::start(tool.command(&["break", "prod/a", "--now"]));
        session.shows("ends its lease NOW");
        session.shows("Type the lock name to confirm: ");
        session.types(answer);
        let (code, screen) = session.wait();
        assert_eq!(code, Some(5), "{screen}");
        assert!(screen.contains("prod/a was not broken"), "{screen}");
    }
    let state = tool.mutex().status("prod/a").unwrap().state();
    assert_eq!(state, LeaseState::Leased);
}

#[test]
fn break_spares_a_newer_holder_than_the_one_shown() {
    let tool = held();
    let mut session = Session::start(tool.command(&["break", "prod/a"]));
    session.shows("Type the lock name to confirm: ");
    // While somebody thinks, the lock goes to another.
    let mutex = tool.mutex();
    mutex
        .break_lease("prod/a", Some(std::time::Duration::ZERO))
        .unwrap();
    let lease = mutex.acquire("prod/a", LeaseDuration::MAX).unwrap();
    mutex
        .write_holder(&lease, Holder::current(LeaseDuration::MAX))
        .unwrap();
    session.types("prod/a");
    let (code, screen) = session.wait();
    assert_eq!(code, Some(75), "{screen}");
    assert!(
        screen.contains("another holder has taken it since"),
        "{screen}"
    );
    mutex.verify(&lease).unwrap();
}

#[test]
fn waiting_is_one_line_that_is_replaced() {
    let tool = held();
    let mut session = Session::start(tool.command(&["acquire", "prod/a"]));
    session.shows("waiting for prod/a  held by ci@build-07 (pid ");
    let mutex = tool.mutex();
    mutex
        .break_lease("prod/a", Some(std::time::Duration::ZERO))
        .unwrap();
    session.shows("\r\u{1b}[Kazmutex: acquired prod/a after ");
    let (code, screen) = session.wait();
    assert_eq!(code, Some(0), "{screen}");
    // Until it is acquired, there is no end of a line.
    let (before, _) = screen.split_once("azmutex: acquired").unwrap();
    assert!(!before.contains('\n'), "{before:?}");
}
