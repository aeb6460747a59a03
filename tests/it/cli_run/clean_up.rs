//! What comes after the command: what it left behind, the release, the end.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use azmutex::LeaseState;
use rustix::process::Signal;

use super::support::{
    PATIENCE, Running, Scratch, Service, assert_dies, azmutex, events, finish, is_dead, number,
    unique,
};
use crate::support::proxy::{Fault, FaultProxy, internal_error};

/// Leaves a process behind that ends when the input does.
const LEAVE: &str = "exec 4<&0; cat <&4 >/dev/null 2>&1 & echo pid=$!.; exit 3";

/// The same in a session of its own, which the process has before the script goes on.
const LEAVE_SESSION: &str = "
    exec 4<&0
    pid=$(setsid sh -c 'echo $$; exec cat <&4 >/dev/null 2>&1' &)
    echo pid=$pid.
    exit 3";

/// Runs what leaves a process behind, in each kind of group, with the lock still held for it if that
/// `is_covered`. Returns what was said.
fn leave(service: &Service, options: &[&str], script: &str, is_covered: bool) {
    for group in ["own", "shared", "session"] {
        let lock = unique("leave");
        let mut run = service.run(options);
        run.args(["--process-group", group, &*lock, "-c", script]);
        let mut run = Running::start(run.stdin(Stdio::piped()));
        let pid = number(&run.out.wait_for("."), "pid");
        if is_covered {
            run.err.wait_for(&format!(
                "the command left 1 process ({pid}) behind; {lock} is held and renewed until it is gone"
            ));
            assert_eq!(service.state(&lock), LeaseState::Leased, "{group}");
            assert!(!is_dead(pid), "{group}");
            drop(run.child.stdin.take());
        }
        let status = run.wait();
        assert_eq!(status.code(), Some(3), "{group}");
        assert!(service.state(&lock).is_free(), "{group}");
        if !is_covered {
            assert!(!is_dead(pid), "{group}");
            let said = run.err.text();
            let expected = format!("left 1 process ({pid}) behind, which the lock does not cover");
            assert!(said.contains(&expected), "{group}: {said}");
            drop(run.child.stdin.take());
        }
        assert_dies(pid);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn process_that_left_the_group_is_warned_of_and_lives_on() {
    leave(&Service::emulator(), &[], LEAVE_SESSION, false);
}

#[test]
fn lock_is_held_until_the_group_of_the_command_is_gone() {
    leave(&Service::emulator(), &[], LEAVE, true);
}

#[cfg(target_os = "linux")]
#[test]
fn lock_is_held_until_all_processes_are_gone_if_that_is_asked_for() {
    let service = Service::emulator();
    for script in [LEAVE, LEAVE_SESSION] {
        leave(&service, &["--stragglers=wait"], script, true);
    }
}

#[test]
fn straggler_is_killed_if_that_is_asked_for() {
    let service = Service::emulator();
    let scripts = [
        "(trap '' TERM; sleep 1000; sleep 1000) & echo pid=$!.; exit 3",
        "pid=$(setsid sh -c 'trap \"\" TERM; echo $$; exec sleep 1000 >/dev/null 2>&1' &)
         echo pid=$pid.; exit 3",
    ];
    // The system has to say what has left the group.
    let known = if cfg!(target_os = "linux") { 2 } else { 1 };
    for script in &scripts[..known] {
        for group in ["own", "shared", "session"] {
            let mut run = service.run(["--stragglers=kill", "-k", "300ms"]);
            run.args(["--process-group", group, &*unique("kill"), "-c", script]);
            let done = finish(&mut run);
            assert_eq!(done.code(), 3, "{done:?}");
            assert!(is_dead(number(&done.out, "pid")), "{done:?}");
            assert!(done.err.contains("sent SIGTERM to "), "{done:?}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn orphans_are_reaped_while_the_command_runs() {
    let service = Service::emulator();
    for group in ["own", "shared", "session"] {
        let script = "
            orphan=$(sh -c 'sleep 0.1 >/dev/null & echo $!')
            while [ -e /proc/$orphan ]; do sleep 0.05; done
            echo gone";
        let mut run = service.run(["--process-group", group, &unique("orphan"), "-c", script]);
        let done = finish(&mut run);
        assert_eq!((&*done.out, &*done.err), ("gone\n", ""), "{group}");
    }
}

#[test]
fn children_from_before_azmutex_are_none_of_its_business() {
    let service = Service::emulator();
    for group in ["own", "shared", "session"] {
        let azmutex = azmutex().display();
        let lock = unique("before");
        let script = format!(
            "cat >/dev/null 2>&1 <&4 & echo pid=$!.
             exec {azmutex} run --stragglers=kill --process-group {group} {lock} true"
        );
        let mut command = Command::new("sh");
        service.prepare(&mut command);
        let script = format!("exec 4<&0; {script}");
        let mut run = Running::start(command.args(["-c", &script]).stdin(Stdio::piped()));
        let status = run.wait();
        let pid = number(&run.out.wait_for("."), "pid");
        assert_eq!((status.code(), &*run.err.text()), (Some(0), ""), "{group}");
        assert!(!is_dead(pid), "{group}");
        drop(run.child.stdin.take());
        assert_dies(pid);
    }
}

#[test]
fn lock_is_released_only_after_the_killed_command_is_gone() {
    let service = Service::emulator();
    let proxy = FaultProxy::start(service.addr());
    let through = Service::at(proxy.connection_string());
    let lock = unique("order");
    proxy.always_when(
        |request| request.lease_action() == Some("release"),
        Fault::Hold,
    );
    let script =
        "trap '' TERM; sh -c 'trap \"\" TERM; echo pid=$$.; sleep 1000; sleep 1000' & wait; wait";
    let mut run = through.run(["--kill-after-signal", "200ms"]);
    let run = Running::start(run.args([&*lock, "-c", script]));
    let pid = number(&run.out.wait_for("."), "pid");
    // The lease stays ours, and has to be released.
    run.signal(Signal::TERM);
    proxy.wait_for(
        1,
        |seen| seen.request.lease_action() == Some("release"),
        PATIENCE,
    );
    assert!(is_dead(pid), "released while the command was still there");
    proxy.clear();
    proxy.release_held();
    assert_eq!(run.finish().signal(), 9);
    assert!(service.state(&lock).is_free());
}

#[test]
fn release_that_fails_does_not_change_the_status() {
    let service = Service::emulator();
    let proxy = FaultProxy::start(service.addr());
    let through = Service::at(proxy.connection_string());
    let is_release =
        |request: &crate::support::proxy::RequestHead| request.lease_action() == Some("release");
    for fault in [Fault::Answer(internal_error()), Fault::HangBefore] {
        proxy.clear();
        proxy.always_when(is_release, fault);
        let started = Instant::now();
        let done = finish(&mut through.run([&*unique("release"), "sh", "-c", "exit 3"]));
        assert_eq!(done.code(), 3, "{done:?}");
        assert!(
            done.err.contains("azmutex: warning: cannot release "),
            "{done:?}"
        );
        assert!(
            done.err.contains("runs out by itself within 1m"),
            "{done:?}"
        );
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{:?}",
            started.elapsed()
        );
    }
    proxy.release_hung();
}

#[test]
fn lock_is_kept_as_long_as_asked_for() {
    let service = Service::emulator();
    let scratch = Scratch::new();
    let file = scratch.file("events");
    let mut run = service.run(["--min-hold", "700ms", "--event-file"]);
    assert_eq!(
        finish(run.arg(&file).args([&*unique("min"), "true"])).code(),
        0
    );
    let held = events(&file).last().unwrap()["held_s"].as_f64().unwrap();
    assert!((0.7..5.0).contains(&held), "{held}");

    // A signal ends that at once.
    let lock = unique("min");
    let script = "echo ready; exit 3";
    let run = Running::start(&mut service.run(["--min-hold", "1h", &*lock, "-c", script]));
    run.out.wait_for("ready");
    let gone = || service.state(&lock) == LeaseState::Leased;
    assert!(gone());
    assert!(super::support::eventually(PATIENCE, || {
        run.signal(Signal::TERM);
        service.state(&lock).is_free()
    }));
    let status = run.finish().status;
    assert!(matches!(status.code(), Some(3) | None), "{status:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn signal_after_the_end_reaches_nobody_who_has_the_number_now() {
    // Numbers can be chosen in a process namespace of one's own.
    const SCRIPT: &str = "
        $AZ run --min-hold 1h $LOCK -c 'exit 3' &
        az=$!
        until pid=$(sed -n 's/.*\"started\".*\"pid\":\\([0-9]*\\).*/\\1/p' $EVENTS) && [ $pid ]; do
            sleep 0.05
        done
        while [ -e /proc/$pid ]; do sleep 0.05; done
        until [ \"$other\" = $pid ]; do
            [ $other ] && kill -9 $other
            echo $((pid - 1)) >/proc/sys/kernel/ns_last_pid
            setsid sleep 1000 >/dev/null 2>&1 &
            other=$!
        done
        until [ \"$(cut -d' ' -f5 /proc/$pid/stat)\" = $pid ]; do sleep 0.05; done
        kill -TERM $az
        wait $az
        echo az=$?.
        kill -KILL $other
        wait $other
        echo other=$?.";
    let mut probe = Command::new("unshare");
    probe.args(["--pid", "--fork", "--mount-proc", "sh", "-c"]);
    probe.arg("echo 100 >/proc/sys/kernel/ns_last_pid");
    if !finish(&mut probe).status.success() {
        eprintln!("skipped: there is no choosing of process numbers here");
        return;
    }
    let service = Service::emulator();
    let scratch = Scratch::new();
    let file = scratch.write("events", "", 0o644);
    let mut command = Command::new("unshare");
    service.prepare(&mut command);
    command
        .env("AZ", azmutex())
        .env("LOCK", unique("number"))
        .env("EVENTS", &file)
        .env("AZMUTEX_EVENT_FILE", &file)
        .args(["--pid", "--fork", "--mount-proc", "bash", "-c", SCRIPT]);
    let done = finish(&mut command);
    assert_eq!(done.out, "az=3.\nother=137.\n", "{done:?}");
}
