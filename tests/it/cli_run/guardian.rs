//! azmutex itself is killed, stopped, or loses its guardian: nothing works without the lock.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use azmutex::LeaseState;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::support::{
    PATIENCE, Running, Scratch, Service, assert_dies, azmutex, eventually, finish, is_dead, number,
    unique,
};

/// What of commands is at work when azmutex is killed: how each is started by a shell, which says
/// `pid=N.` for every process that lives on, and how many there are. `LIVE` is a process that does,
/// until it is ended, `DEAF` one that does not heed `SIGTERM`.
const KINDS: &[(&str, &str, usize)] = &[
    ("plain", "exec LIVE", 1),
    ("shell that waits", "LIVE; true", 1),
    ("next step", "trap : TERM; setsid DEAF; echo never", 1),
    ("deaf", "exec DEAF", 1),
    ("deaf under a shell", "DEAF; true", 1),
    ("session", "setsid DEAF & LIVE; true", 2),
    ("daemon", "(setsid sh -c 'DEAF & exit' &); sleep 1000", 1),
    ("orphan of the same group", "(DEAF & exit); sleep 1000", 1),
    (
        "chain of sessions",
        "setsid sh -c 'LIVE & setsid sh -c \"(DEAF & exit)\"; wait' & wait",
        2,
    ),
    ("timeout", "timeout 1000 DEAF; true", 1),
    ("nohup", "nohup LIVE 2>/dev/null & DEAF; true", 2),
    ("stopped", "LIVE & sleep 0.2; kill -STOP $!; wait", 1),
    (
        "nested run",
        "AZMUTEX run --lease 15s NESTED -- DEAF; true",
        1,
    ),
    (
        "forks all the time",
        "DEAF & while :; do (setsid sleep 0.1 &); sleep 0.02; done",
        1,
    ),
];

/// Starts the command of one of the [`KINDS`]. Returns its processes, as far as they live on.
fn start(service: &Service, script: &str, options: &[&str], lock: &str) -> (Running, Vec<i32>) {
    start_some(service, script, options, lock, 1)
}

fn start_some(
    service: &Service,
    script: &str,
    options: &[&str],
    lock: &str,
    count: usize,
) -> (Running, Vec<i32>) {
    let scratch = Scratch::new();
    let live = scratch.write("live", "#!/bin/sh\necho pid=$$.\nexec sleep 1000\n", 0o755);
    let deaf = "#!/bin/sh\ntrap '' TERM HUP INT\necho pid=$$.\nexec sleep 1000\n";
    let deaf = scratch.write("deaf", deaf, 0o755);
    let script = script
        .replace("LIVE", live.to_str().unwrap())
        .replace("DEAF", deaf.to_str().unwrap())
        .replace("AZMUTEX", azmutex().to_str().unwrap())
        .replace("NESTED", &unique("inner"));
    let mut run = service.run(options);
    let run = Running::start(run.args([lock, "-c", &script]).process_group(0));
    let out = run.out.clone();
    let pids = || -> Vec<i32> {
        let out = out.text();
        let said = out.split("pid=").skip(1);
        said.filter_map(|rest| rest.split_once('.')?.0.parse().ok())
            .collect()
    };
    let all = eventually(PATIENCE, || pids().len() >= count);
    assert!(all, "{script}: {} {}", run.out.text(), run.err.text());
    let pids = pids();
    (run, pids)
}

/// Has a rival wait for the lock, and says which of the processes are at work when it gets it.
fn at_work_after(service: &Service, lock: &str, pids: Vec<i32>) -> Vec<i32> {
    let _held = service.locker(lock).lock().unwrap();
    pids.into_iter().filter(|pid| is_at_work(*pid)).collect()
}

/// Whether a process does anything: it is neither dead nor stopped.
fn is_at_work(pid: i32) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.iter().rposition(|&byte| byte == b')');
    let state = after_name.and_then(|at| stat.get(at + 2));
    !matches!(state, None | Some(b'Z' | b'X' | b'T'))
}

/// The guardian of a run.
#[track_caller]
fn guardian(run: &Running) -> Pid {
    let id = run.child.id();
    let mut guardian = None;
    // It takes its name when the command has started.
    let found = eventually(PATIENCE, || {
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        guardian = children.split_whitespace().find_map(|child| {
            let name = std::fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
            (name == "lease-guardian\n").then(|| child.parse().unwrap())
        });
        guardian.is_some()
    });
    assert!(found, "no guardian");
    Pid::from_raw(guardian.unwrap()).unwrap()
}

#[test]
fn command_is_gone_before_another_can_hold_the_lock_when_azmutex_is_killed() {
    let kinds = KINDS.iter().map(|&(kind, script, count)| {
        thread::spawn(move || {
            let service = Service::emulator();
            let lock = unique("killed");
            let (mut run, pids) = start_some(&service, script, &["--lease", "15s"], &lock, count);
            run.child.kill().unwrap();
            run.wait();
            let left = at_work_after(&service, &lock, pids.clone());
            assert!(left.is_empty(), "{kind}: {left:?} of {pids:?}");
            for pid in pids {
                assert!(is_dead(pid), "{kind}: {pid}");
            }
            // Its output ends, so there are no others that had it.
            let done = run.finish();
            assert!(!done.out.contains("never"), "{kind}: {done:?}");
            let said = "was killed; its command was ended before the lease of";
            assert!(done.err.contains(said), "{kind}: {done:?}");
        })
    });
    for kind in kinds.collect::<Vec<_>>() {
        kind.join().unwrap();
    }
}

#[test]
fn command_is_asked_to_end_at_once_when_azmutex_is_killed() {
    let service = Service::emulator();
    for script in [
        "trap 'echo heard; exit' TERM; echo pid=$$.; while :; do sleep 0.05; done",
        "setsid sh -c \"trap 'echo heard; exit' TERM; echo pid=\\$\\$.; while :; do sleep 0.05; done\" & wait",
    ] {
        let (mut run, pids) = start(&service, script, &[], &unique("asked"));
        let killed = Instant::now();
        run.child.kill().unwrap();
        run.wait();
        for pid in pids {
            assert_dies(pid);
        }
        let done = run.finish();
        assert!(done.out.contains("heard\n"), "{script}: {done:?}");
        // A fraction of the lease.
        assert!(killed.elapsed().as_secs() < 10, "{:?}", killed.elapsed());
    }
}

#[test]
fn guardian_is_not_reached_by_what_kills_the_group_of_azmutex() {
    let service = Service::emulator();
    let lock = unique("group");
    let (mut run, pids) = start(&service, "LIVE; true", &["--process-group=shared"], &lock);
    kill_process_group(Pid::from_child(&run.child), Signal::KILL).unwrap();
    run.wait();
    for pid in pids {
        assert_dies(pid);
    }
    let lock = unique("group");
    let (mut run, pids) = start(&service, "setsid LIVE; true", &[], &lock);
    kill_process_group(Pid::from_child(&run.child), Signal::KILL).unwrap();
    run.wait();
    for pid in pids {
        assert_dies(pid);
    }
}

#[test]
fn command_stands_still_without_the_lock_while_azmutex_is_stopped() {
    let kinds = KINDS.iter().map(|&(kind, script, count)| {
        thread::spawn(move || {
            let service = Service::emulator();
            let lock = unique("still");
            let (mut run, pids) = start_some(&service, script, &["--lease", "15s"], &lock, count);
            run.signal(Signal::STOP);
            let left = at_work_after(&service, &lock, pids.clone());
            assert!(left.is_empty(), "{kind}: {left:?} of {pids:?}");
            let _held = service.locker(&lock).lock().unwrap();
            run.signal(Signal::CONT);
            let status = run.wait();
            let said = run.err.text();
            assert_eq!(status.code(), Some(121), "{kind}: {said}");
            assert!(pids.into_iter().all(is_dead), "{kind}: {said}");
            assert!(!run.out.text().contains("never"), "{kind}: {said}");
        })
    });
    for kind in kinds.collect::<Vec<_>>() {
        kind.join().unwrap();
    }
}

#[test]
fn command_goes_on_after_azmutex_was_stopped_if_nobody_took_the_lock() {
    let service = Service::emulator();
    let lock = unique("goes-on");
    let script = "(setsid sh -c 'trap \"echo outer done\" EXIT; read line <&4' 4<&0 &)
                  echo pid=$$.; read line; sleep 0.5";
    let mut run = service.run(["--lease", "15s", "--stragglers=wait", &*lock, "-c", script]);
    let mut run = Running::start(run.stdin(Stdio::piped()));
    let pid = number(&run.out.wait_for("."), "pid");
    run.signal(Signal::STOP);
    assert!(eventually(PATIENCE, || !is_at_work(pid)));
    assert!(eventually(PATIENCE, || service.state(&lock) == LeaseState::Expired));
    run.signal(Signal::CONT);
    assert!(
        eventually(PATIENCE, || is_at_work(pid)),
        "{}",
        run.err.text()
    );
    drop(run.child.stdin.take());
    let done = run.finish();
    assert_eq!(done.code(), 0, "{done:?}");
    assert!(done.out.contains("outer done"), "{done:?}");
    assert!(service.state(&lock).is_free());
}

#[test]
fn command_is_ended_under_the_lock_when_its_guardian_is_killed() {
    for &(kind, script, count) in KINDS {
        let service = Service::emulator();
        let lock = unique("unguarded");
        let options = ["--lease", "15s", "-k", "1s"];
        let (run, pids) = start_some(&service, script, &options, &lock, count);
        kill_process(guardian(&run), Signal::KILL).unwrap();
        run.err.wait_for("the guardian of the command was killed");
        for &pid in &pids {
            assert_dies(pid);
        }
        let done = run.finish();
        assert!(!done.status.success(), "{kind}: {done:?}");
        assert!(
            !done.err.contains("--kill-after-signal"),
            "{kind}: {done:?}"
        );
        assert!(service.state(&lock).is_free(), "{kind}: {done:?}");
    }
}

#[test]
fn guardian_that_is_stopped_goes_on() {
    let service = Service::emulator();
    let lock = unique("stopped-guardian");
    let (run, pids) = start(&service, "LIVE; exit 3", &[], &lock);
    let guardian = guardian(&run);
    kill_process(guardian, Signal::STOP).unwrap();
    let number = guardian.as_raw_nonzero().get();
    assert!(eventually(PATIENCE, || is_at_work(number)));
    for pid in pids {
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    }
    assert_eq!(run.finish().code(), 3);
}

#[test]
fn guardian_has_nothing_of_the_command_and_leaves_nothing() {
    let service = Service::emulator();
    // What the command has open, what the guardian has, and how that is called.
    let open = "for fd in /proc/self/fd/*; do echo ${fd##*/}; done";
    let script = format!(
        "{open}; echo --
        for fd in /proc/$PPID/fd/*; do readlink $fd; done; echo --
        tr '\\0' ' ' </proc/$PPID/cmdline; echo; cat /proc/$PPID/comm; echo pid=$PPID.; exit 3"
    );
    let mut plain = Command::new("bash");
    plain.args(["-c", open]).stdin(Stdio::null());
    let plain = finish(&mut plain).out;
    let scratch = Scratch::new();
    let file = scratch.write("events", "", 0o600);
    let mut run = service.run(["--event-file"]);
    run.arg(&file)
        .args([&*unique("quiet"), "bash", "-c", &*script]);
    let done = finish(&mut run);
    assert_eq!((done.code(), &*done.err), (3, ""), "{done:?}");
    let pid = number(&done.out, "pid");
    assert!(
        !std::fs::exists(format!("/proc/{pid}")).unwrap(),
        "a zombie"
    );
    let [own, guardians, names] = done.out.splitn(3, "--\n").collect::<Vec<_>>()[..] else {
        panic!("{done:?}");
    };
    assert_eq!(own, plain);
    assert!(
        !guardians.contains("socket:") && !guardians.contains("events"),
        "{guardians}"
    );
    assert!(names.starts_with("lease-guardian of "), "{names}");
    assert!(names.contains("\nlease-guardian\n"), "{names}");
}

#[test]
fn there_is_no_guardian_if_that_is_asked_for() {
    let service = Service::emulator();
    for option in ["--no-guardian", "--no-pdeathsig", "--on-lost=continue"] {
        let done = finish(&mut service.run([
            option,
            &*unique("none"),
            "-c",
            "echo pid=$PPID $AZMUTEX_PID.",
        ]));
        let pid = number(&done.out, "pid");
        assert_eq!(
            done.out,
            format!("pid={pid} {pid}.\n"),
            "{option}: {done:?}"
        );
    }
}

#[test]
fn process_with_a_name_that_is_no_text_is_gone_too() {
    let service = Service::emulator();
    let scratch = Scratch::new();
    let lock = unique("name");
    let odd = scratch.file("").join(OsStr::from_bytes(b"a) R \xff"));
    std::fs::copy("/bin/sleep", &odd).unwrap();
    let script = "setsid \"$0\" 1000 & echo pid=$!.; wait";
    let options = ["--lease", "15s", "--renew-every", "1s", "-k", "300ms"];
    let mut run = service.run(options);
    let run = Running::start(run.args([&*lock, "--", "sh", "-c", script]).arg(&odd));
    let pid = number(&run.out.wait_for("."), "pid");
    let name = || std::fs::read(format!("/proc/{pid}/comm")).unwrap();
    assert!(eventually(PATIENCE, || name().contains(&0xff)));
    service
        .mutex()
        .break_lease(&lock, Some(std::time::Duration::ZERO))
        .unwrap();
    let done = run.finish();
    assert_eq!(done.code(), 121, "{done:?}");
    assert!(is_dead(pid));
}

#[test]
fn command_on_a_terminal_ends_with_azmutex() {
    let probe = ["-q", "-c", "true", "/dev/null"];
    if !finish(Command::new("script").args(probe)).status.success() {
        eprintln!("skipped: there is no script(1) to make a terminal");
        return;
    }
    let service = Service::emulator();
    let lock = unique("terminal");
    let command = format!(
        "{} run {lock} -c 'setsid sleep 1000 & echo pid=$!.; echo az=$AZMUTEX_PID.; sleep 1000; true'",
        azmutex().display()
    );
    let mut script = Command::new("script");
    service.prepare(&mut script);
    let run = Running::start(script.args(["-q", "-c", &command, "/dev/null"]));
    let text = || run.out.text();
    assert!(eventually(PATIENCE, || text().matches(".\r\n").count() == 2));
    let pid = number(&text(), "pid");
    let azmutex = Pid::from_raw(number(&text(), "az")).unwrap();
    kill_process(azmutex, Signal::KILL).unwrap();
    assert_dies(pid);
}

/// When the last process of a group whose parent is outside of it ends, and anything in the group is
/// stopped, the system hangs up on all of the group: here on the script.
#[test]
fn script_is_not_hung_up_on_when_a_command_that_shares_its_group_ends() {
    let service = Service::emulator();
    let script = format!(
        "trap - HUP; sleep 1000 & kill -STOP $!
         {} run --process-group=shared {} -- true; echo \"exit=$?.\"
         kill -KILL $!",
        azmutex().display(),
        unique("hang-up")
    );
    let mut shell = Command::new("env");
    service.prepare(&mut shell);
    shell.args([
        "--default-signal=HUP",
        "setsid",
        "--wait",
        "bash",
        "-c",
        &script,
    ]);
    let done = finish(&mut shell);
    assert_eq!(done.out, "exit=0.\n", "{done:?}");
}
