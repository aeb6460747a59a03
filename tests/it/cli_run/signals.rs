//! Signals to `azmutex run`, and what of them reaches the command.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use azmutex::LeaseState;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::support::{
    PATIENCE, Running, Scratch, Service, assert_dies, azmutex, eventually, finish, is_dead,
    is_ignored, number, unique,
};

/// Says when it is ready, and what it hears. Its input is to be a pipe that nobody writes to.
const LISTEN: &str = "
    trap 'echo heard USR1' USR1
    trap 'echo heard TERM; exit 7' TERM
    trap 'echo heard HUP' HUP
    trap 'echo heard INT' INT
    echo pid=$$.
    while :; do read line; done";

#[test]
fn signal_reaches_the_command_once_and_its_status_is_passed_through() {
    if is_ignored(1) {
        return; // As under nohup or in a background job: it would be ignored here too.
    }
    let service = Service::emulator();
    for group in ["own", "shared", "session"] {
        let lock = unique("forward");
        let run = Running::start(
            service
                .run(["--process-group", group, &lock, "-c", LISTEN])
                .stdin(Stdio::piped()),
        );
        run.out.wait_for("pid=");
        run.signal(Signal::USR1);
        run.out.wait_for("heard USR1\n");
        run.signal(Signal::HUP);
        run.out.wait_for("heard HUP\n");
        run.signal(Signal::TERM);
        let done = run.finish();
        assert_eq!(done.code(), 7, "{done:?}");
        for signal in ["USR1", "HUP", "TERM"] {
            assert_eq!(
                done.out.matches(&format!("heard {signal}\n")).count(),
                1,
                "{group}: {done:?}"
            );
        }
        assert!(service.state(&lock).is_free());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn real_time_signals_reach_the_command_each_time() {
    const LISTEN: &str = "
        trap 'echo heard 40' 40
        trap 'echo heard 64; exit 7' 64
        echo ready
        while :; do read line; done";
    let service = Service::emulator();
    for way in [
        "--process-group=own",
        "--process-group=shared",
        "--process-group=session",
        "--emulator", // then there are threads before anything else
    ] {
        let run = Running::start(
            service
                .run([way, &*unique("real-time"), "-c", LISTEN])
                .stdin(Stdio::piped()),
        );
        run.out.wait_for("ready\n");
        let send = |number| {
            finish(Command::new("sh").args(["-c", &format!("kill -{number} {}", run.child.id())]))
        };
        for heard in 1..=2 {
            send(40);
            run.out.wait_for(&"heard 40\n".repeat(heard));
        }
        send(64);
        let done = run.finish();
        let expected = "ready\nheard 40\nheard 40\nheard 64\n";
        assert_eq!((done.code(), &*done.out), (7, expected), "{way}: {done:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn alarm_from_before_azmutex_reaches_the_command() {
    let service = Service::emulator();
    // In seconds: enough to start in, and that is all that it is for.
    let start = "alarm 3; exec @ARGV";
    let script = "trap 'echo heard ALRM; exit 7' ALRM; echo ready; while :; do read line; done";
    for group in ["own", "shared"] {
        let mut command = Command::new("perl");
        service.prepare(&mut command);
        command.args(["-e", start]).arg(azmutex());
        command.args(["run", "--process-group", group, &*unique("alarm")]);
        let done = finish(command.args(["-c", script]).stdin(Stdio::piped()));
        let expected = (7, "ready\nheard ALRM\n");
        assert_eq!((done.code(), &*done.out), expected, "{group}: {done:?}");
    }
}

#[test]
fn command_that_dies_of_a_passed_signal_ends_azmutex_by_it() {
    let service = Service::emulator();
    let run =
        Running::start(&mut service.run([&*unique("die"), "-c", "echo ready; exec sleep 1000"]));
    run.out.wait_for("ready");
    run.signal(Signal::TERM);
    assert_eq!(run.finish().signal(), 15);
}

#[test]
fn grandchildren_are_ended_with_the_command() {
    let service = Service::emulator();
    for group in ["own", "shared", "session"] {
        // The shell waits, and would leave its child behind if it alone were signalled.
        let script = "sh -c 'echo pid=$$.; sleep 1000; echo not reached'; echo not reached";
        let mut run = service.run([
            "--process-group",
            group,
            &unique("grandchild"),
            "-c",
            script,
        ]);
        let run = Running::start(&mut run);
        let grandchild = number(&run.out.wait_for("."), "pid");
        run.signal(Signal::TERM);
        assert_eq!(run.finish().signal(), 15);
        assert_dies(grandchild);
    }
}

/// Takes a while to end, until the file `GO` is there, in a process that it starts for that, and
/// says so.
const ROLL_BACK: &str = "
    trap 'sh -c \"trap \\\"echo cut off\\\" TERM INT HUP
        until [ -e \\\"$GO\\\" ]; do sleep 0.02; done\"
        echo rolled back; exit 0' TERM INT HUP
    echo ready $$
    while :; do sleep 0.02; done";

/// The rest of the command goes on after its first process ended of `signal`, which azmutex was sent
/// alone or with its group. The lock is kept until it is over.
#[track_caller]
fn lock_is_kept_for_the_rest(shell: &str, command: &str, signal: Signal, to_all: bool) {
    let service = Service::emulator();
    for group in ["own", "shared", "session"] {
        let scratch = Scratch::new();
        let inner = scratch.write("inner.sh", ROLL_BACK, 0o644);
        let go = scratch.file("go");
        let lock = unique("roll-back");
        let mut run = service.run(["--process-group", group, &*lock, shell, "-c"]);
        run.arg(command.replace("INNER", &format!("bash {}", inner.display())));
        // Of a group of its own, for a signal to the whole of it.
        let run = Running::start(run.env("GO", &go).process_group(0));
        run.out.wait_for("ready ");
        if to_all {
            kill_process_group(Pid::from_child(&run.child), signal).unwrap();
        } else {
            run.signal(signal);
        }
        let said = run.err.wait_for("gone\n");
        assert!(said.contains(" behind; "), "{said}");
        assert!(
            said.contains(&format!("{lock} is held and renewed until ")),
            "{said}"
        );
        assert_eq!(service.state(&lock), LeaseState::Leased, "{group}");
        std::fs::write(&go, "").unwrap();
        let done = run.finish();
        assert!(done.out.ends_with("rolled back\n"), "{group}: {done:?}");
        assert!(!done.out.contains("never"), "{group}: {done:?}");
        // Nobody can tell who of a shared group has got a signal, so it is sent again.
        let once = !(to_all && group == "shared");
        assert!(!(once && done.out.contains("cut off")), "{group}: {done:?}");
        assert!(service.state(&lock).is_free(), "{group}");
    }
}

#[test]
fn lock_is_kept_until_the_last_process_has_ended_after_a_signal() {
    for shell in ["bash", "dash"] {
        if !finish(Command::new(shell).args(["-c", "true"]))
            .status
            .success()
        {
            continue;
        }
        for to_all in [false, true] {
            lock_is_kept_for_the_rest(shell, "INNER; echo never", Signal::TERM, to_all);
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn lock_is_kept_after_a_signal_for_what_left_the_group_too() {
    // What is waited for is a sibling, so that the shell dies of the signal.
    let command = "setsid INNER & wait; echo never";
    lock_is_kept_for_the_rest("bash", command, Signal::TERM, false);
    if !is_ignored(1) {
        lock_is_kept_for_the_rest("bash", command, Signal::HUP, false);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn process_that_a_signal_has_missed_is_sent_it_once_nobody_else_ends_it() {
    let service = Service::emulator();
    for group in ["own", "shared", "session"] {
        // The first process dies of the signal. What is left takes it, and leaves another process
        // behind, as if that had been forked while the signal went round.
        let inner = "trap 'sleep 0.3; sleep 1000 & exit' TERM
            echo ready
            while :; do sleep 0.02; done";
        let scratch = Scratch::new();
        let inner = scratch.write("inner.sh", inner, 0o644);
        let mut run = service.run(["--process-group", group, &*unique("late"), "-c"]);
        let script = format!("sh {}; echo never", inner.display());
        let run = Running::start(run.arg(script));
        run.out.wait_for("ready\n");
        run.signal(Signal::TERM);
        let done = run.finish();
        assert_eq!(done.signal(), 15, "{group}: {done:?}");
        assert_eq!(done.out, "ready\n", "{group}: {done:?}");
    }
}

#[test]
fn stopped_command_is_continued_to_take_a_term() {
    let service = Service::emulator();
    let run = Running::start(
        service
            .run([&*unique("stopped"), "-c", LISTEN])
            .stdin(Stdio::piped()),
    );
    let pid = number(&run.out.wait_for("."), "pid");
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    run.err.wait_for("the command is stopped");
    run.signal(Signal::TERM);
    let done = run.finish();
    assert_eq!(done.code(), 7, "{done:?}");
}

#[test]
fn signals_without_end_do_not_hold_up_the_end_of_the_command() {
    let service = Service::emulator();
    let script = "trap '' TERM; echo ready; read line; exit 3";
    let mut run = service.run([&*unique("flood"), "-c", script]);
    let mut run = Running::start(run.stdin(Stdio::piped()));
    run.out.wait_for("ready");
    let pid = Pid::from_child(&run.child);
    let flooding = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            while flooding.load(Ordering::Relaxed) {
                // It may have ended.
                let _ = kill_process(pid, Signal::TERM);
            }
        });
        drop(run.child.stdin.take());
        // Not waited for: the number stays its own until the flood is over.
        let ended = eventually(PATIENCE, || is_dead(pid.as_raw_nonzero().get()));
        flooding.store(false, Ordering::Relaxed);
        assert!(ended, "{}", run.err.text());
    });
    assert_eq!(run.finish().code(), 3);
}

#[test]
fn second_interrupt_within_two_seconds_kills() {
    if is_ignored(2) {
        return; // As under nohup or in a background job: it would be ignored here too.
    }
    let service = Service::emulator();
    let run = Running::start(
        service
            .run([&*unique("twice"), "-c", LISTEN])
            .stdin(Stdio::piped()),
    );
    run.out.wait_for("pid=");
    run.signal(Signal::INT);
    run.out.wait_for("heard INT\n");
    run.signal(Signal::INT);
    let done = run.finish();
    assert_eq!(done.signal(), 9, "{done:?}");
    assert!(
        done.err
            .contains("interrupted twice: sent SIGKILL to process group"),
        "{done:?}"
    );
}

#[test]
fn signal_kills_after_a_time_if_that_is_asked_for() {
    let service = Service::emulator();
    let script = "trap '' TERM; echo ready; sleep 1000; sleep 1000";
    let mut run = service.run([
        "--kill-after-signal",
        "100ms",
        &*unique("kill-after"),
        "-c",
        script,
    ]);
    let run = Running::start(&mut run);
    run.out.wait_for("ready");
    run.signal(Signal::TERM);
    assert_eq!(run.finish().signal(), 9);
}

#[test]
fn signals_that_were_ignored_or_blocked_stay_so_for_the_command() {
    let service = Service::emulator();
    // Not through a shell, which may clear its own mask.
    let show = "sed -nE 's/^Sig(Ign|Blk):.//p' /proc/self/status";
    let under = format!("exec {} run {} --", azmutex().display(), unique("ignored"));
    let masks = |line: String| -> Vec<u64> {
        let mut command = Command::new("sh");
        service.prepare(&mut command);
        let out = finish(command.args(["-c", &line])).out;
        // 32 and 33 belong to the C library.
        let mask = |line| u64::from_str_radix(line, 16).unwrap() & !(0b11 << 31);
        out.lines().map(mask).collect()
    };
    // As `nohup` leaves it, and as a shell without job control leaves `&`.
    for trap in ["", "trap '' HUP;", "trap '' INT QUIT;", "trap '' 40;"] {
        let plain = masks(format!("{trap} exec {show}"));
        assert_eq!(plain.len(), 2, "{trap:?}");
        assert_eq!(masks(format!("{trap} {under} {show}")), plain, "{trap:?}");
    }
}

#[test]
fn command_ends_when_azmutex_is_killed() {
    let service = Service::emulator();
    let script = "echo pid=$$.; exec sleep 1000";
    let mut run = Running::start(&mut service.run([&*unique("killed"), "-c", script]));
    let pid = number(&run.out.wait_for("."), "pid");
    run.child.kill().unwrap();
    run.wait();
    assert_dies(pid);
}

#[test]
fn command_lives_on_if_that_is_asked_for() {
    let service = Service::emulator();
    // It ends when this test does: its input is a pipe of ours.
    let script = "echo pid=$$.; read line; echo read";
    let mut run = service.run(["--no-pdeathsig", &*unique("survivor"), "-c", script]);
    let mut run = Running::start(run.stdin(Stdio::piped()));
    let pid = number(&run.out.wait_for("."), "pid");
    run.child.kill().unwrap();
    run.wait();
    assert!(!is_dead(pid));
    // It is there to read this, so nothing ended it.
    let stdin = run.child.stdin.take().unwrap();
    std::io::Write::write_all(&mut &stdin, b"\n").unwrap();
    run.out.wait_for("read\n");
}

#[test]
fn signal_from_the_command_itself_is_not_sent_back() {
    let service = Service::emulator();
    for group in ["own", "shared"] {
        let script = "
            trap 'echo back' USR1
            trap 'exit 0' USR2
            kill -USR1 $PPID
            echo ready
            while :; do read line; done";
        let mut run = service.run([
            "--stragglers=kill",
            "--process-group",
            group,
            &unique("back"),
            "-c",
            script,
        ]);
        let run = Running::start(&mut run);
        run.out.wait_for("ready");
        // Passed on after the other would have been.
        run.signal(Signal::USR2);
        let done = run.finish();
        assert_eq!(
            (done.code(), &*done.out),
            (0, "ready\n"),
            "{group}: {done:?}"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn first_process_of_a_container_passes_statuses_and_reaps() {
    let service = Service::emulator();
    let mut probe = Command::new("unshare");
    probe.args(["--pid", "--fork", "--mount-proc", "true"]);
    if !finish(&mut probe).status.success() {
        eprintln!("skipped: there is no making of process namespaces here");
        return;
    }
    let run = |script: &str| {
        let mut command = Command::new("unshare");
        service.prepare(&mut command);
        command
            .args(["--pid", "--fork", "--mount-proc"])
            .arg(azmutex());
        finish(command.args(["run", &unique("first"), "-c", script]))
    };
    // The system does not let a signal end the first process.
    assert_eq!(run("kill -9 $$").code(), 137);
    assert_eq!(run("exit 3").code(), 3);
    // An orphan that has ended becomes its child, and is not left as a zombie.
    let script = "
        orphan=$(sh -c 'sleep 0.1 >/dev/null & echo $!')
        while [ -e /proc/$orphan ]; do sleep 0.05; done
        echo gone";
    assert_eq!(run(script).out, "gone\n");
}
