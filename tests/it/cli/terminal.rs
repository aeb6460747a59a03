//! What is asked and shown on a terminal.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use azmutex::{Holder, LeaseDuration, LeaseState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use unicode_width::UnicodeWidthStr as _;

use super::tool::{LONG, Tool};

/// The tool with all three streams on a terminal of its own.
struct Session {
    child: Child,
    terminal: File,
    /// What the screen has shown so far.
    screen: Vec<u8>,
}

impl Session {
    fn start(command: Command) -> Self {
        Self::start_with_columns(command, 80)
    }

    fn start_with_columns(mut command: Command, columns: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let size = Winsize {
            ws_row: 24,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&ours, size).unwrap();
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
            screen: Vec::new(),
        }
    }

    /// Reads until the screen has shown `text`.
    #[track_caller]
    fn shows(&mut self, text: &str) {
        let end = Instant::now() + LONG;
        let mut bytes = [0; 1024];
        loop {
            let screen = String::from_utf8_lossy(&self.screen);
            if screen.contains(text) {
                return;
            }
            let left = Timespec::try_from(end.saturating_duration_since(Instant::now())).unwrap();
            let mut ready = [PollFd::new(&self.terminal, PollFlags::IN)];
            if poll(&mut ready, Some(&left)).unwrap() == 0 {
                panic!("no {text:?} on {screen:?}");
            }
            // At its end a terminal fails.
            match self.terminal.read(&mut bytes) {
                Ok(n @ 1..) => self.screen.extend(&bytes[..n]),
                _ => panic!("no {text:?} on {screen:?}"),
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
        let rest: JoinHandle<Vec<u8>> = thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = from.read_to_end(&mut bytes);
            bytes
        });
        let code = self.child.wait().unwrap().code();
        self.screen.extend(rest.join().unwrap());
        (code, String::from_utf8_lossy(&self.screen).into_owned())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn held() -> Tool {
    held_by("ci@build-07")
}

fn held_by(owner: &str) -> Tool {
    let tool = Tool::new();
    let lease = tool.mutex().acquire("prod/a", LeaseDuration::MAX).unwrap();
    let holder = Holder::current(LeaseDuration::MAX);
    let holder = holder.with_owner(owner).with_reason("release 812");
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
        "the holder is alive, or was a moment",
        "Breaking ends its lease within 30s",
        "Its holder may work on for up to 30s, judging by its lease of 1m: it notices at its next \
         renewal, within 20s, and azmutex run then ends the command within 10s.",
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
fn break_within_less_than_the_holder_needs_is_asked_for_twice() {
    let tool = held();
    let args = ["break", "prod/a", "--period", "5"];
    for (second, code) in [("no", 5), ("prod/a", 0)] {
        let mut session = Session::start(tool.command(&args));
        session.shows("The break period of 5s is shorter: two holders may be at work for 25s.");
        session.shows("Type the lock name to confirm: ");
        session.types("prod/a");
        session.shows("Type the lock name again to break it anyway: ");
        let state = tool.mutex().status("prod/a").unwrap().state();
        assert_eq!(state, LeaseState::Leased);
        session.types(second);
        let (found, screen) = session.wait();
        assert_eq!(found, Some(code), "{screen}");
    }
    let state = tool.mutex().status("prod/a").unwrap().state();
    assert_eq!(state, LeaseState::Breaking);
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

/// The lines that were drawn, one over the other.
fn drawn(screen: &str) -> Vec<&str> {
    let lines = screen.split("\r\u{1b}[K");
    lines.filter(|line| line.contains("[0:0")).collect()
}

#[test]
fn waiting_line_fits_and_tells_what_matters_most_on_narrow_terminals() {
    let wide = "鍵".repeat(25);
    let combining = "e\u{301}".repeat(90);
    for (owner, columns, texts) in [
        (
            "ci@build-07",
            80,
            &[
                "azmutex: waiting for prod/a",
                "ci@build-07 (pid ",
                "…) for ",
            ][..],
        ),
        ("ci@build-07", 40, &["prod/a: ", "ci@build-07 for "]),
        ("ci@build-07", 20, &["ci@build-07 [0:00]"]),
        ("ci@build-07", 8, &[]),
        (&wide, 60, &["鍵鍵鍵", " for "]),
        (&wide, 20, &["鍵鍵"]),
        (&combining, 60, &["e\u{301}", " for "]),
    ] {
        let tool = held_by(owner);
        let command = tool.command(&["acquire", "prod/a", "-w", "30s"]);
        let mut session = Session::start_with_columns(command, columns);
        session.shows("[0:00");
        tool.mutex()
            .break_lease("prod/a", Some(std::time::Duration::ZERO))
            .unwrap();
        let (code, screen) = session.wait();
        assert_eq!(code, Some(0), "{screen}");
        let lines = drawn(&screen);
        assert!(!lines.is_empty(), "{screen}");
        for line in &lines {
            let line = line.split("\r\n").next().unwrap();
            assert!(line.width() < columns.into(), "{columns}: {line}");
            assert!(line.contains("[0:0"), "{columns}: {line}");
        }
        for text in texts {
            assert!(
                lines[0].contains(text),
                "no {text:?} on {columns}: {:?}",
                lines[0]
            );
        }
    }
}

#[test]
fn list_on_a_terminal_cuts_long_names() {
    let tool = Tool::new();
    let name = "x".repeat(1024);
    tool.mutex().acquire(&name, LeaseDuration::MAX).unwrap();
    let session = Session::start(tool.command(&["list"]));
    let (code, screen) = session.wait();
    assert_eq!(code, Some(0), "{screen}");
    assert!(
        screen.contains(&format!("{}…  held", "x".repeat(59))),
        "{screen}"
    );
    assert!(!screen.contains(&"x".repeat(60)), "{screen}");
}
