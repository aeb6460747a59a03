//! One test for each row of the table of exit codes, and for what is passed to the command.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::support::{Done, Running, Scratch, Service, events, finish, is_ignored, names, unique};

#[track_caller]
fn assert_error(done: &Done, code: i32, text: &str) {
    assert_eq!(done.code(), code, "{done:?}");
    let errors: Vec<_> = done
        .err
        .lines()
        .filter(|line| line.contains("error: "))
        .collect();
    assert_eq!(errors.len(), 1, "one line names the error: {done:?}");
    assert!(errors[0].starts_with("azmutex: error: "), "{done:?}");
    assert!(errors[0].contains(text), "{text:?} in {done:?}");
    assert_eq!(done.out, "", "stdout is the command's");
}

#[test]
fn exit_code_of_the_command_is_passed_through() {
    for service in Service::all() {
        let lock = unique("status");
        for code in [0, 1, 2, 3, 75, 121, 125, 126, 127, 128, 143, 255] {
            let done =
                finish(&mut service.run([&*lock, "--", "sh", "-c", &format!("exit {code}")]));
            assert_eq!(done.code(), code, "{done:?}");
            assert_eq!(
                (&*done.out, &*done.err),
                ("", ""),
                "silent on the happy path"
            );
        }
    }
}

#[test]
fn signal_that_killed_the_command_ends_azmutex_as_well() {
    let service = Service::emulator();
    let lock = unique("signal");
    for signal in [1, 2, 3, 6, 9, 10, 11, 14, 15, 40] {
        if is_ignored(signal) {
            continue; // As under nohup: the command inherits that, as it should.
        }
        let done =
            finish(&mut service.run([&*lock, "-c", &format!("ulimit -c 0; kill -{signal} $$")]));
        assert_eq!(done.signal(), signal, "{done:?}");
        assert!(service.state(&lock).is_free(), "released before the end");
    }
}

#[test]
fn held_lock_is_75_or_the_code_that_was_asked_for() {
    for service in Service::all() {
        let lock = unique("held");
        let _held = service.locker(&lock).lock().unwrap();
        let done = finish(&mut service.run(["-n", &lock, "echo", "ran"]));
        assert_error(&done, 75, "somebody holds it");
        // As for cron, which mails whatever is written.
        let done = finish(&mut service.run(["-n", "-E", "0", &lock, "echo", "ran"]));
        assert_eq!((done.code(), &*done.out, &*done.err), (0, "", ""));
        let done = finish(&mut service.run(["-nv", "-E", "0", &lock, "echo", "ran"]));
        assert_eq!((done.code(), &*done.out), (0, ""));
        assert!(done.err.contains("somebody holds it"), "{done:?}");
        assert!(!done.err.contains("error"), "{done:?}");
        let done = finish(&mut service.run(["-w", "2s", "-E", "9", &lock, "echo", "ran"]));
        assert_error(&done, 9, "not acquired within 2s");
        assert!(done.err.contains("hint: azmutex status"), "{done:?}");
    }
}

#[test]
fn service_that_is_not_there_is_125() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let service = Service::at(crate::support::azurite::connection_string(&format!(
        "http://127.0.0.1:{port}/devstoreaccount1"
    )));
    let done = finish(&mut service.run(["--fault-wait", "200ms", "-q", "x", "echo", "ran"]));
    assert_error(&done, 125, "cannot acquire x");
}

#[test]
fn refused_credential_is_125() {
    let service = Service::emulator();
    let mut run = service.run(["x", "echo", "ran"]);
    let wrong = service
        .connection_string
        .replace("AccountKey=E", "AccountKey=F");
    run.env("AZURE_STORAGE_CONNECTION_STRING", wrong);
    assert_error(&finish(&mut run), 125, "AuthenticationFailed");
}

#[test]
fn bad_input_is_125_with_one_line_that_names_it_and_a_hint() {
    let service = Service::emulator();
    let rows: [(&[&str], &str); 16] = [
        (&["--bogus", "x", "true"], "--bogus"),
        (&["x"], "COMMAND"),
        (&[], "LOCK"),
        (&["-w", "10min", "x", "true"], "--wait"),
        (&["-E", "600", "x", "true"], "--conflict-exit-code"),
        (&["--lease", "5s", "x", "true"], "--lease"),
        (&["--lease", "infinite", "x", "true"], "--lease"),
        (&["--signal", "FOO", "x", "true"], "--signal"),
        (
            &["--lease", "15s", "--renew-every", "7s", "x", "true"],
            "--renew-every",
        ),
        (&["--renew-every", "300ms", "x", "true"], "--renew-every"),
        (&["--margin", "0", "x", "true"], "--margin"),
        (&["--on-lost", "shrug", "x", "true"], "--on-lost"),
        (&["-c", "x", "echo", "ran"], "--shell"),
        (&["--event-fd", "99", "x", "true"], "--event-fd"),
        // Its stdin, which is open for reading.
        (
            &["--event-fd", "0", "x", "true"],
            "--event-fd 0: cannot write to it: ",
        ),
        (
            &["--event-file", "/nowhere/events", "x", "true"],
            "--event-file",
        ),
    ];
    for (args, text) in rows {
        let done = finish(&mut service.run(args));
        assert_error(&done, 125, text);
        assert!(done.err.contains("hint: "), "{done:?}");
        if text == "--event-file" {
            assert!(!done.err.contains("--event-fd"), "{done:?}");
        }
    }
}

#[test]
fn command_that_cannot_be_executed_is_126_or_127() {
    let service = Service::emulator();
    let scratch = Scratch::new();
    let plain = scratch.write("plain", "#!/bin/sh\n", 0o644);
    let odd = scratch.write("odd", "not a program\n", 0o755);
    let lost = scratch.write("lost", "#!/no/such/interpreter\n", 0o755);
    let rows = [
        ("no-such-command", 127, "no-such-command: command not found"),
        ("/no/such/file", 127, "/no/such/file: command not found"),
        (plain.to_str().unwrap(), 126, "permission denied"),
        ("/", 126, "it is a directory"),
        (odd.to_str().unwrap(), 126, "format"),
        (lost.to_str().unwrap(), 127, "interpreter"),
    ];
    for (command, code, text) in rows {
        let lock = unique("exec");
        assert_error(&finish(&mut service.run([&*lock, command])), code, text);
        // Found out before the lock is taken, or the lock is released again.
        let status = service.mutex().status(&lock);
        assert!(status.is_err() || status.unwrap().state().is_free());
    }
}

#[test]
fn lost_lock_is_121_or_the_code_that_was_asked_for() {
    for (args, code) in [(&[][..], 121), (&["--lost-exit-code", "7"], 7)] {
        let service = Service::emulator();
        let lock = unique("lost");
        let args = [args, &["--lease", "15s", "--renew-every", "1s", &lock]].concat();
        let run = Running::start(
            service
                .run(args)
                .args(["sh", "-c", "echo ready; sleep 100"]),
        );
        run.out.wait_for("ready");
        service
            .mutex()
            .break_lease(&lock, Some(Duration::ZERO))
            .unwrap();
        let done = run.finish();
        assert_eq!(done.code(), code, "{done:?}");
        assert!(
            done.err
                .contains("the lease was broken by another client; sent SIGTERM to process group"),
            "{done:?}"
        );
    }
}

#[test]
fn command_that_ends_well_without_the_lock_is_121_all_the_same() {
    let service = Service::emulator();
    let lock = unique("lost-late");
    // The lease is broken, and the command ends before a renewal finds out.
    let mut run = service.run([&*lock, "sh", "-c", "echo ready; head -c1 >/dev/null"]);
    run.stdin(std::process::Stdio::piped());
    let mut run = Running::start(&mut run);
    run.out.wait_for("ready");
    service
        .mutex()
        .break_lease(&lock, Some(Duration::ZERO))
        .unwrap();
    let _rival = service.locker(&lock).lock().unwrap();
    drop(run.child.stdin.take());
    let done = run.finish();
    assert_eq!(done.code(), 121, "{done:?}");
    assert!(
        done.err.contains("was lost before the command ended"),
        "{done:?}"
    );
}

#[test]
fn command_goes_on_without_the_lock_if_it_is_told_to() {
    let service = Service::emulator();
    let scratch = Scratch::new();
    let lock = unique("continue");
    let file = scratch.file("events");
    let mut run = service.run([
        "--on-lost",
        "continue",
        "--lease",
        "15s",
        "--renew-every",
        "1s",
    ]);
    run.arg("--event-file")
        .arg(&file)
        .args([&*lock, "sh", "-c", "echo ready; head -c1; exit 3"]);
    run.stdin(std::process::Stdio::piped());
    let mut run = Running::start(&mut run);
    run.out.wait_for("ready");
    service
        .mutex()
        .break_lease(&lock, Some(Duration::ZERO))
        .unwrap();
    run.err.wait_for("the command goes on without it");
    drop(run.child.stdin.take());
    assert_eq!(run.finish().code(), 3);
    assert_eq!(
        names(&events(&file)),
        ["acquired", "started", "lost", "exit"]
    );
}

#[test]
fn lock_that_a_parent_holds_is_refused() {
    let service = Service::emulator();
    let lock = unique("nested");
    let azmutex = super::support::azmutex().to_str().unwrap();
    let done = finish(&mut service.run([&*lock, azmutex, "run", &lock, "echo", "ran"]));
    assert_error(&done, 125, "is already held by a parent azmutex (pid ");
    assert!(done.err.contains("; this would deadlock"), "{done:?}");

    let other = unique("nested");
    let done = finish(&mut service.run([&*lock, azmutex, "run", &other, "echo", "ran"]));
    assert_eq!(
        (done.code(), &*done.out),
        (0, "ran\n"),
        "another lock is none of its business"
    );
}

#[test]
fn options_end_where_the_command_begins() {
    let service = Service::emulator();
    let lock = unique("grammar");
    let rows: [(&[&str], &str); 5] = [
        (&[&lock, "echo", "-n", "a"], "a"),
        (&[&lock, "-w", "5s", "echo", "-w", "5s"], "-w 5s\n"),
        (&["-n", &lock, "echo", "--wait"], "--wait\n"),
        (&[&lock, "--", "echo", "--", "x"], "-- x\n"),
        (&[&lock, "-c", "echo $0 '$1'"], "/bin/sh $1\n"),
    ];
    for (args, output) in rows {
        let done = finish(&mut service.run(args));
        assert_eq!((done.code(), &*done.out), (0, output), "{done:?}");
    }
}

#[test]
fn command_is_told_of_its_lock() {
    for service in Service::all() {
        let lock = unique("env");
        let mut run = service.run(["--owner", "me", "--lease", "30s", &lock, "env"]);
        let done = finish(
            run.env("AZMUTEX_NAME", "an outer lock")
                .env("AZMUTEX_HELD", "1"),
        );
        let vars: Vec<_> = done
            .out
            .lines()
            .filter(|line| line.starts_with("AZMUTEX_"))
            .collect();
        let get = |name: &str| {
            let mut found = vars
                .iter()
                .filter_map(|var| var.strip_prefix(&format!("AZMUTEX_{name}=")));
            let value = found
                .next()
                .unwrap_or_else(|| panic!("no {name} in {vars:?}"));
            assert_eq!(found.next(), None, "{name} is there once");
            value.to_owned()
        };
        assert_eq!(get("HELD"), "1");
        assert_eq!(get("NAME"), lock);
        assert!(get("URL").ends_with(&format!("/locks/{lock}")), "{vars:?}");
        assert_eq!(get("OWNER"), "me");
        assert_eq!(get("LEASE_SECONDS"), "30");
        assert!(get("FENCE").parse::<u64>().unwrap() > 1_600_000_000_000);
        assert!(get("LEASE_ID").parse::<azmutex::LeaseId>().is_ok());
        assert!(get("ACQUIRED_AT").ends_with('Z'));
        assert!(get("PID").parse::<u32>().is_ok());

        let done =
            finish(&mut service.run(["--no-export-lease-id", "--no-fencing", &*lock, "env"]));
        assert!(!done.out.contains("AZMUTEX_LEASE_ID") && !done.out.contains("AZMUTEX_FENCE"));
    }
}

#[test]
fn command_gets_no_descriptor_of_ours() {
    let service = Service::emulator();
    let scratch = Scratch::new();
    let lock = unique("fds");
    let mut run = service.run(["--event-file"]);
    run.arg(scratch.file("events"))
        .args([&*lock, "ls", "/proc/self/fd"]);
    // As many as without it: what was inherited, and the directory that ls reads.
    let plain = finish(std::process::Command::new("ls").arg("/proc/self/fd"));
    assert_eq!(finish(&mut run).out, plain.out);
}

#[test]
fn dry_run_shows_the_plan_and_does_nothing() {
    let service = Service::emulator();
    let lock = unique("dry");
    let _held = service.locker(&lock).lock().unwrap();
    let done = finish(&mut service.run(["--dry-run", &*lock, "sh", "-c", "echo ran"]));
    assert_eq!(done.code(), 0, "{done:?}");
    for text in [
        "leased",
        "connection string",
        "SIGTERM 45s after",
        "/bin/sh",
    ] {
        assert!(done.out.contains(text), "{text} in {done:?}");
    }
    assert!(!done.out.contains("ran"));
}

#[test]
fn events_tell_the_outcomes_apart() {
    let service = Service::emulator();
    let scratch = Scratch::new();
    let lock = unique("events");
    let mut outcomes = Vec::new();
    for (n, args) in [&["sh", "-c", "exit 75"][..], &["-c", "kill -9 $$"]]
        .into_iter()
        .enumerate()
    {
        let file = scratch.file(&n.to_string());
        let mut run = service.run(["--event-file"]);
        finish(run.arg(&file).arg(&lock).args(args));
        let events = events(&file);
        assert_eq!(names(&events), ["acquired", "started", "exit"]);
        let exit = events.last().unwrap().clone();
        assert_eq!(
            (exit["schema"].as_u64(), exit["lock"].as_str()),
            (Some(1), Some(&*lock))
        );
        assert_eq!(exit["released"].as_bool(), Some(true));
        assert!(exit["fence"].is_i64(), "{exit}");
        outcomes.push(outcome(&exit));
    }
    let held = service.locker(&lock).lock().unwrap();
    let file = scratch.file("held");
    let mut run = service.run(["-n", "--event-file"]);
    finish(run.arg(&file).args(["-E", "9", &*lock, "true"]));
    outcomes.push(outcome(events(&file).last().unwrap()));

    let file = scratch.file("interrupted");
    let mut run = service.run(["--event-file"]);
    let run = Running::start(run.arg(&file).args([&*lock, "true"]));
    run.err.wait_for("waiting for ");
    run.signal(Signal::TERM);
    run.finish();
    outcomes.push(outcome(events(&file).last().unwrap()));

    drop(held);
    let file = scratch.file("failed");
    let mut run = service.run(["--event-file"]);
    let program = scratch.write("program", "#!/no/such/interpreter\n", 0o755);
    finish(run.arg(&file).arg(&lock).arg(program));
    outcomes.push(outcome(events(&file).last().unwrap()));

    // The exit code of azmutex, the command's, and the signal.
    let expected = [
        ("child_exited", Some(75), Some(75), None),
        ("child_killed", None, None, Some(9)),
        ("not_acquired", Some(9), None, None),
        ("interrupted", None, None, Some(15)),
        ("failed", Some(127), None, None),
    ];
    let expected =
        expected.map(|(outcome, exit, code, signal)| (outcome.to_owned(), exit, code, signal));
    assert_eq!(outcomes, expected);
}

fn outcome(exit: &Value) -> (String, Option<i64>, Option<i64>, Option<i64>) {
    let number = |name: &str| exit[name].as_i64();
    let outcome = exit["outcome"].as_str().unwrap().to_owned();
    (outcome, number("exit"), number("code"), number("signal"))
}
