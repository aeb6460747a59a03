//! `hold`: until its stdin ends, a process ends, or a signal arrives.

use std::process::Stdio;

use azmutex::{LeaseDuration, LeaseState};

use super::tool::Tool;
#[cfg(unix)]
use super::tool::{Running, bare};
#[cfg(unix)]
use crate::support::{eventually, fill};

fn is_held(tool: &Tool) -> bool {
    tool.mutex().status("a").unwrap().state() == LeaseState::Leased
}

#[test]
fn hold_releases_when_stdin_ends() {
    let tool = Tool::new();
    let mut hold = tool.start(&["hold", "a", "--ready", "--reason", "a script"]);
    assert_eq!(hold.line(), "READY");
    assert!(is_held(&tool));
    let status = tool.mutex().status("a").unwrap();
    assert_eq!(status.holder().unwrap().reason(), Some("a script"));
    hold.write("what is written is read and means nothing\n");
    assert!(is_held(&tool));
    hold.close_stdin();
    assert_eq!(hold.wait().code(), Some(0));
    let status = tool.mutex().status("a").unwrap();
    assert_eq!(status.state(), LeaseState::Available);
    assert!(status.last_holder().unwrap().released());
}

#[cfg(unix)]
#[test]
fn hold_releases_and_dies_of_a_signal() {
    use std::os::unix::process::ExitStatusExt as _;

    let tool = Tool::new();
    for (name, number) in [("TERM", 15), ("INT", 2), ("HUP", 1)] {
        if crate::cli_run::support::is_ignored(number) {
            continue; // It would be ignored here too.
        }
        let mut hold = tool.start(&["hold", "a", "--ready"]);
        assert_eq!(hold.line(), "READY");
        hold.signal(name);
        assert_eq!(hold.wait().signal(), Some(number));
        assert!(!is_held(&tool));
    }
}

#[cfg(unix)]
#[test]
fn hold_releases_when_the_process_ends() {
    let tool = Tool::new();
    let mut script = std::process::Command::new("cat");
    let mut script = script.stdin(Stdio::piped()).spawn().unwrap();
    let mut command = tool.command(&["hold", "a", "--for-pid", &script.id().to_string(), "--json"]);
    // As in the background of a script.
    let mut hold = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = hold.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    let object: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&object["event"], &object["lock"]),
        (&"acquired".into(), &"a".into())
    );
    assert!(object["lease_id"].is_string() && object["fence"].is_u64());
    assert!(is_held(&tool));
    drop(script.stdin.take());
    script.wait().unwrap();
    assert_eq!(hold.wait().unwrap().code(), Some(0));
    assert!(!is_held(&tool));
}

#[cfg(unix)]
#[test]
fn hold_that_loses_the_lock_stops_the_script() {
    use std::os::unix::process::ExitStatusExt as _;

    let tool = Tool::new();
    let mut script = std::process::Command::new("cat");
    let mut script = script.stdin(Stdio::piped()).spawn().unwrap();
    let pid = script.id().to_string();
    let mut hold = tool.start(&[
        "hold",
        "a",
        "--ready",
        "--for-pid",
        &pid,
        "--on-lost-signal",
        "TERM",
        "--renew-every",
        "1s",
    ]);
    assert_eq!(hold.line(), "READY");
    tool.run(&["break", "a", "--yes", "--now"]).exits(0);
    hold.says(&format!(
        "error: lock a lost: the lease was broken by another client; sent SIGTERM to process {pid}"
    ));
    assert_eq!(hold.wait().code(), Some(121));
    assert_eq!(script.wait().unwrap().signal(), Some(15));
}

#[cfg(unix)]
#[test]
fn hold_keeps_watch_when_nobody_reads_the_log() {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::ExitStatusExt as _;

    let tool = Tool::new();
    let mut script = std::process::Command::new("cat");
    let mut script = script.stdin(Stdio::piped()).spawn().unwrap();
    let pid = script.id().to_string();
    let mut command = tool.command(&["hold", "a", "--ready", "-vv", "--for-pid", &pid]);
    command.args(["--on-lost-signal", "TERM", "--renew-every", "1s"]);
    let (unread, err) = std::io::pipe().unwrap();
    let mut hold = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(err.try_clone().unwrap())
        .spawn()
        .unwrap();
    drop(command);
    let mut line = String::new();
    let out = hold.stdout.take().unwrap();
    BufReader::new(out).read_line(&mut line).unwrap();
    assert_eq!(line, "READY\n");
    let err = fill(err);
    // Some of them may be renewals before the pipe was full.
    let before = tool.emulator().requests();
    eventually(|| (tool.emulator().requests() >= before + 5).then_some(()));
    tool.run(&["break", "a", "--yes", "--now"]).exits(0);
    // Long before the lease would have run out.
    eventually(|| script.try_wait().unwrap());
    assert_eq!(script.wait().unwrap().signal(), Some(15));
    let code = eventually(|| hold.try_wait().unwrap()).code();
    assert_eq!(code, Some(121));
    drop((unread, err));
}

#[test]
fn hold_ends_when_the_service_is_gone_for_too_long() {
    let emulator = azmutex::emulator::Emulator::start().unwrap();
    let tool = Tool::of(emulator.connection_string());
    let mut hold = tool.start(&["hold", "a", "--ready", "--lease", "15s"]);
    assert_eq!(hold.line(), "READY");
    drop(emulator);
    hold.says("error: lock a lost: no renewal was confirmed in time");
    assert_eq!(hold.wait().code(), Some(121));
}

#[test]
fn hold_of_a_held_lock_is_not_acquired() {
    let tool = Tool::new();
    tool.mutex().acquire("a", LeaseDuration::MAX).unwrap();
    let mut hold = tool.start(&["hold", "a", "-n"]);
    hold.says("error: cannot acquire a: somebody holds it");
    assert_eq!(hold.wait().code(), Some(75));
    let mut hold = tool.start(&["hold", "a"]);
    hold.says("waiting for a");
    hold.close_stdin();
    hold.says("cannot acquire a: stdin ended");
    assert_eq!(hold.wait().code(), Some(75));
}

#[cfg(unix)]
#[test]
fn hold_without_an_end_to_wait_for_is_refused() {
    let tool = Tool::new();
    tool.run(&["hold", "a"])
        .exits(2)
        .says("stdin is /dev/null, which ends at once")
        .says("hint: give it a pipe");
    tool.run(&["hold", "a", "--for-pid", "999999999"])
        .exits(2)
        .says("--for-pid 999999999: ");
}

#[cfg(unix)]
#[test]
fn emulator_serves_several_processes_until_stdin_ends() {
    let mut emulator = Running::start(bare(&["emulator"]));
    let line = emulator.line();
    let connection = line
        .strip_prefix("export AZURE_STORAGE_CONNECTION_STRING='")
        .and_then(|rest| rest.strip_suffix('\''))
        .unwrap()
        .to_owned();
    let tool = Tool::of(connection);
    tool.run(&["acquire", "a"]).exits(0);
    tool.run(&["acquire", "-n", "a"]).exits(75);
    emulator.close_stdin();
    assert_eq!(emulator.wait().code(), Some(0));
}
