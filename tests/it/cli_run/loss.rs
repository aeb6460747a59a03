//! The lock is lost: the command is gone before anybody else can have it.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use azmutex::LeaseState;
use rustix::process::{Pid, Signal, kill_process};

use super::support::{
    PATIENCE, Running, Scratch, Service, Written, assert_dies, azmutex, events, eventually, finish,
    is_dead, names, number, unique,
};
use crate::support::fill;
use crate::support::proxy::{Fault, FaultProxy, RequestHead, internal_error};

/// Two processes that end by nothing but `SIGKILL`.
const STUBBORN: &str = "
    trap '' TERM
    sh -c 'trap \"\" TERM; while :; do sleep 1; done' &
    echo outer=$$ inner=$!.
    while :; do sleep 1; done";

/// How many runs lose the service at a random moment.
fn runs() -> u32 {
    match std::env::var("AZMUTEX_TEST_LOSSES") {
        Ok(runs) => runs.parse().expect("AZMUTEX_TEST_LOSSES is a number"),
        Err(_) => 6,
    }
}

/// A number from 0 to 1 that differs from run to run.
fn random() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}

#[test]
fn command_is_gone_before_another_can_hold_the_lock_when_the_service_does_not_answer() {
    let runs: Vec<_> = (0..runs())
        .map(|_| thread::spawn(lose_the_service))
        .collect();
    let mut spare: Vec<_> = runs.into_iter().map(|run| run.join().unwrap()).collect();
    spare.sort();
    eprintln!("from the end of the command to the end of its lease: {spare:?}");
}

/// One run. Returns how long before the next holder the last process was gone.
fn lose_the_service() -> Duration {
    let service = Service::emulator();
    let proxy = FaultProxy::start(service.addr());
    let through = Service::at(proxy.connection_string());
    let lock = unique("unreachable");
    let run = Running::start(&mut through.run(["--lease", "15s", &*lock, "-c", STUBBORN]));
    let text = run.out.wait_for(".");
    let pids = [number(&text, "inner"), number(&text, "outer")];

    // A moment within a renewal interval or two: that is the input of this test, and not a
    // condition that it waits for.
    thread::sleep(Duration::from_secs_f64(6.0 * random()));
    proxy.always(Some(Fault::HangBefore));
    let rival = thread::spawn({
        let locker = service.locker(&lock);
        move || {
            let guard = locker.lock().unwrap();
            let granted = Instant::now();
            let alive: Vec<_> = pids.into_iter().filter(|pid| !is_dead(*pid)).collect();
            drop(guard);
            (granted, alive)
        }
    });
    for pid in pids {
        assert_dies(pid);
    }
    let gone = Instant::now();
    let (granted, alive) = rival.join().unwrap();
    assert!(alive.is_empty(), "{alive:?} {}", run.err.text());
    let done = run.finish();
    assert_eq!(done.code(), 121, "{done:?}");
    assert!(
        done.err.contains("no renewal was confirmed for"),
        "{done:?}"
    );
    assert!(
        done.err.contains("sent SIGTERM to process group"),
        "{done:?}"
    );
    assert!(
        done.err.contains("sent SIGKILL to process group"),
        "{done:?}"
    );
    proxy.release_hung();
    granted.duration_since(gone)
}

#[test]
fn command_is_gone_within_a_renewal_and_the_grace_when_the_lease_is_broken() {
    for service in Service::all() {
        let scratch = Scratch::new();
        let file = scratch.file("events");
        let lock = unique("broken");
        let mut run = service.run([
            "--lease",
            "15s",
            "--renew-every",
            "1s",
            "-k",
            "1s",
            "--event-file",
        ]);
        let run = Running::start(run.arg(&file).args([&*lock, "-c", STUBBORN]));
        run.out.wait_for(".");
        service
            .mutex()
            .break_lease(&lock, Some(Duration::ZERO))
            .unwrap();
        let broken = Instant::now();
        let done = run.finish();
        // And what a loaded machine adds.
        assert!(
            broken.elapsed() < Duration::from_secs(2 + 2),
            "{:?}",
            broken.elapsed()
        );
        assert_eq!(done.code(), 121, "{done:?}");
        for name in ["inner", "outer"] {
            assert!(is_dead(number(&done.out, name)));
        }
        assert!(
            done.err.contains("the lease was broken by another client"),
            "{done:?}"
        );
        let events = events(&file);
        assert_eq!(
            names(&events),
            [
                "acquired",
                "started",
                "lost",
                "terminating",
                "terminating",
                "exit"
            ]
        );
        assert_eq!(events[3]["signal"], "SIGTERM");
        assert_eq!(events[5]["outcome"], "lost");
        assert_eq!(events[5]["released"], false);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn processes_that_left_the_group_are_gone_too() {
    let service = Service::emulator();
    // The first of each is in a group or a session of its own.
    let inner = "sh -c 'trap \"\" TERM; echo pid=$$.; while :; do sleep 1; done'";
    for leave in ["timeout 1000", "setsid"] {
        for group in ["own", "shared", "session"] {
            let lock = unique("left-group");
            let mut run = service.run(["--lease", "15s", "--renew-every", "1s", "-k", "300ms"]);
            run.args(["--process-group", group, &*lock, "-c"]);
            let mut run = Running::start(run.arg(format!("{leave} {inner}; echo not reached")));
            let pid = number(&run.out.wait_for("."), "pid");
            service
                .mutex()
                .break_lease(&lock, Some(Duration::ZERO))
                .unwrap();
            let status = run.wait();
            assert!(is_dead(pid), "{leave}, {group}: {}", run.err.text());
            assert_eq!(status.code(), Some(121));
        }
    }
}

/// Runs `args` under a lock that is broken once there is a line of output. Returns what was put out.
#[cfg(target_os = "linux")]
fn broken_once_ready(service: &Service, args: &[&str]) -> String {
    let lock = unique("asked-to-end");
    let mut run = service.run(["--lease", "15s", "--renew-every", "1s", "-k", "5s"]);
    let run = Running::start(run.arg(&lock).args(args));
    run.out.wait_for("ready\n");
    service
        .mutex()
        .break_lease(&lock, Some(Duration::ZERO))
        .unwrap();
    let done = run.finish();
    assert_eq!(done.code(), 121, "{done:?}");
    done.out
}

#[cfg(target_os = "linux")]
#[test]
fn what_cleans_up_in_another_group_is_asked_once_and_left_alone() {
    let service = Service::emulator();
    // Its trap starts processes, and at once.
    let inner = "trap \"echo heard; sleep 0.2 && sleep 0.2 && echo cleaned; exit\" TERM; \
                 echo ready; sleep 1000 & wait";
    for outer in [
        format!("trap : TERM; setsid sh -c '{inner}' & wait; wait"),
        format!("setsid sh -c '{inner}' & wait"),
    ] {
        let out = broken_once_ready(&service, &["-c", &outer]);
        assert_eq!(out, "ready\nheard\ncleaned\n", "{outer}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn command_of_a_nested_run_is_asked_once() {
    let service = Service::emulator();
    // Each wait ends early if there is a signal.
    let inner = "trap 'echo heard' TERM; echo ready; sleep 1000 & wait $!; \
                 sleep 0.5 & wait $!; sleep 0.5 & wait $!";
    let azmutex = azmutex().to_str().unwrap();
    let nested = ["--", azmutex, "run", &*unique("nested"), "sh", "-c", inner];
    let out = broken_once_ready(&service, &nested);
    assert_eq!(out, "ready\nheard\n");
}

#[test]
fn command_is_not_started_when_azmutex_wakes_up_without_the_lock() {
    let probe = ["-c", "strace -D -o /dev/null true"];
    if !finish(Command::new("sh").args(probe)).status.success() {
        eprintln!("skipped: there is no strace that can stop it at the right place");
        return;
    }
    let service = Service::emulator();
    let lock = unique("not-started");
    let mut command = Command::new("strace");
    service.prepare(&mut command);
    // It looks for a terminal when it has the lock, and is stopped there.
    command.args(["-D", "-f", "-o", "/dev/null", "-P", "/dev/tty", "-e"]);
    command
        .args(["inject=openat:signal=SIGSTOP:when=1"])
        .arg(azmutex());
    command.args(["run", "--lease", "15s", &*lock, "echo", "ran"]);
    let run = Running::start(&mut command);
    let is_leased = || {
        let status = service.mutex().status(&lock);
        status.is_ok_and(|status| status.state() == LeaseState::Leased)
    };
    assert!(eventually(PATIENCE, is_leased));
    let rival = service.locker(&lock).lock().unwrap();
    run.signal(Signal::CONT);
    let done = run.finish();
    assert_eq!((done.code(), &*done.out), (121, ""), "{done:?}");
    assert!(done.err.contains("the command was not started"), "{done:?}");
    assert!(rival.is_held());
}

#[test]
fn command_that_cannot_be_killed_is_not_waited_for_and_the_lock_not_released() {
    let scratch = Scratch::new();
    // It becomes another user's, whom this one may not signal.
    let become_root = scratch.file("become-root");
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let make = "
        cp \"$(command -v setpriv)\" \"$0\" && chmod 4755 \"$0\" &&
        setpriv \"$@\" \"$AZ\" --version && setpriv \"$@\" \"$0\" --reuid=0 true";
    let mut probe = Command::new("sh");
    probe
        .args(["-c", make])
        .arg(&become_root)
        .args(nobody)
        .env("AZ", azmutex());
    if !finish(&mut probe).status.success() {
        eprintln!("skipped: there is no changing of users here");
        return;
    }
    let service = Service::emulator();
    let ends = ["kill", "terminate"].map(|on_lost| {
        let lock = unique("unkillable");
        let mut command = Command::new("setpriv");
        service.prepare(&mut command);
        command.args(nobody).arg(azmutex());
        command.args([
            "run",
            "--on-lost",
            on_lost,
            "--lease",
            "15s",
            "--renew-every",
        ]);
        command.args(["1s", "-k", "1s", &*lock]).arg(&become_root);
        // Its output is its own, or the end of this test would wait for it.
        let script = "echo pid=$$.; exec cat >/dev/null 2>&1";
        command.args(["--reuid=0", "sh", "-c", script]);
        let run = Running::start(command.stdin(Stdio::piped()));
        let pid = number(&run.out.wait_for("."), "pid");
        service
            .mutex()
            .break_lease(&lock, Some(Duration::ZERO))
            .unwrap();
        (run, pid)
    });
    for (mut run, pid) in ends {
        let stdin = run.child.stdin.take();
        let status = run.wait();
        assert!(!is_dead(pid));
        drop(stdin);
        assert_dies(pid);
        let done = run.finish();
        assert_eq!(status.code(), Some(121), "{done:?}");
        assert!(done.err.contains("is not released, since"), "{done:?}");
        assert!(done.err.contains("; cannot send SIG"), "{done:?}");
        assert!(!done.err.contains("sent SIG"), "{done:?}");
    }
}

#[test]
fn command_is_killed_at_once_if_that_is_asked_for() {
    let service = Service::emulator();
    let lock = unique("kill");
    let script = "trap 'echo heard TERM' TERM; echo ready; while :; do sleep 1; done";
    let mut run = service.run(["--on-lost=kill", "--lease", "15s", "--renew-every", "1s"]);
    let run = Running::start(run.args([&*lock, "-c", script]));
    run.out.wait_for("ready");
    service
        .mutex()
        .break_lease(&lock, Some(Duration::ZERO))
        .unwrap();
    let done = run.finish();
    assert_eq!((done.code(), &*done.out), (121, "ready\n"), "{done:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn command_does_not_go_on_because_its_child_is_killed_first() {
    let service = Service::emulator();
    for group in ["own", "shared", "session"] {
        let lock = unique("next");
        let script = "setsid sh -c 'echo ready; exec sleep 1000'; echo never";
        let mut run = service.run(["--on-lost=kill", "--lease", "15s", "--renew-every", "1s"]);
        run.args(["--process-group", group, &*lock, "-c", script]);
        let run = Running::start(&mut run);
        run.out.wait_for("ready");
        service
            .mutex()
            .break_lease(&lock, Some(Duration::ZERO))
            .unwrap();
        let done = run.finish();
        assert_eq!((done.code(), &*done.out), (121, "ready\n"), "{group}");
    }
}

#[test]
fn signal_on_loss_can_be_chosen() {
    let service = Service::emulator();
    let lock = unique("usr1");
    let script = "trap 'echo heard USR1; exit 0' USR1; echo ready; while :; do sleep 0.1; done";
    let mut run = service.run(["-s", "USR1", "--lease", "15s", "--renew-every", "1s"]);
    let run = Running::start(run.args([&*lock, "-c", script]));
    run.out.wait_for("ready");
    service
        .mutex()
        .break_lease(&lock, Some(Duration::ZERO))
        .unwrap();
    let done = run.finish();
    assert_eq!(done.code(), 121, "{done:?}");
    assert!(done.out.contains("heard USR1"), "{done:?}");
}

#[test]
fn failing_renewals_are_told_with_the_time_that_is_left() {
    let service = Service::emulator();
    let proxy = FaultProxy::start(service.addr());
    let through = Service::at(proxy.connection_string());
    let lock = unique("told");
    let mut run = through.run(["--lease", "15s", "--renew-every", "1s"]);
    let run = Running::start(run.args([&*lock, "-c", "echo ready; exec sleep 1000"]));
    run.out.wait_for("ready");
    proxy.always(Some(Fault::Answer(internal_error())));
    run.err.wait_for("azmutex: warning: cannot renew ");
    run.err
        .wait_for("(attempt 1); the command will be stopped in ");
    // It comes back, and nothing happens.
    let seen = proxy.seen().len();
    proxy.clear();
    proxy.wait_for(seen + 2, |_| true, PATIENCE);
    run.signal(Signal::TERM);
    assert_eq!(run.finish().signal(), 15);
}

#[test]
fn command_does_no_more_when_azmutex_wakes_up_without_the_lock() {
    let service = Service::emulator();
    let scratch = Scratch::new();
    let file = scratch.file("ticks");
    let lock = unique("asleep");
    // It writes down every step that it takes.
    let script = "echo pid=$$.; while :; do echo tick >>\"$0\"; sleep 0.05; done";
    let mut run = service.run(["--lease", "15s", &*lock, "sh", "-c", script]);
    let run = Running::start(run.arg(&file));
    let pid = number(&run.out.wait_for("."), "pid");
    let own = Pid::from_child(&run.child);
    kill_process(own, Signal::STOP).unwrap();
    // Only the service's clock can end the wait for this lease.
    let rival = service.locker(&lock).lock().unwrap();
    kill_process(own, Signal::CONT).unwrap();
    let done = run.finish();
    assert_eq!(done.code(), 121, "{done:?}");
    assert!(is_dead(pid));
    assert!(
        !done.err.contains("SIGTERM"),
        "no grace for one that came too late: {done:?}"
    );
    drop(rival);
}

#[test]
fn command_is_gone_in_time_when_nobody_reads_what_is_said() {
    let service = Service::emulator();
    let lock = unique("unread");
    // It fills the pipe of stderr, which is ours too, and that of the events is full already.
    let (events, event_end) = std::io::pipe().unwrap();
    let event_end = fill(event_end);
    let script = "trap '' TERM; echo pid=$$.; exec yes >&2";
    let mut run = service.run(["--lease", "15s", "--renew-every", "1s", "-k", "500ms"]);
    run.args(["--event-fd", "0", &*lock, "-c", script]);
    let mut child = run
        .stdin(event_end)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (out, _) = Written::collect(child.stdout.take().unwrap());
    let pid = number(&out.wait_for("."), "pid");
    service
        .mutex()
        .break_lease(&lock, Some(Duration::ZERO))
        .unwrap();
    let broken = Instant::now();
    assert_dies(pid);
    assert!(
        broken.elapsed() < Duration::from_secs(3),
        "{:?}",
        broken.elapsed()
    );
    assert!(eventually(PATIENCE, || child.try_wait().unwrap().is_some()));
    assert_eq!(child.wait().unwrap().code(), Some(121));
    drop(events);
}

#[test]
fn lock_is_kept_when_nobody_reads_the_log() {
    let service = Service::emulator();
    let proxy = FaultProxy::start(service.addr());
    let through = Service::at(proxy.connection_string());
    let scratch = Scratch::new();
    let lock = unique("unread");
    let (unread, err) = std::io::pipe().unwrap();
    let mut run = through.run(["-vv", "--lease", "15s", "--renew-every", "1s"]);
    run.arg("--event-file").arg(scratch.file("events"));
    run.args([&*lock, "-c", "echo ready; read line; exit 3"]);
    let mut child = run
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(err.try_clone().unwrap())
        .spawn()
        .unwrap();
    drop(run);
    let (out, _) = Written::collect(child.stdout.take().unwrap());
    out.wait_for("ready");
    let err = fill(err);
    let is_renewal = |request: &RequestHead| request.lease_action() == Some("renew");
    let renewed = |times: usize| {
        let before = proxy.seen().iter().filter(|seen| is_renewal(seen)).count();
        proxy.wait_for(before + times, |seen| is_renewal(seen), PATIENCE);
    };
    renewed(3);
    // Nor is it held up by a failure, which even a log without -v would tell of.
    proxy.when(is_renewal, Fault::Answer(internal_error()));
    renewed(3);
    drop(child.stdin.take());
    assert!(eventually(PATIENCE, || child.try_wait().unwrap().is_some()));
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert_eq!(service.state(&lock), LeaseState::Available);
    let events = events(&scratch.file("events"));
    assert_eq!(
        names(&events),
        ["acquired", "started", "renewal_failed", "exit"]
    );
    drop((unread, err));
}
