//! `azmutex elect`: one leader's command at a time, and another one's after it.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use azmutex::LeaseState;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::support::{
    Done, PATIENCE, Running, Scratch, Service, assert_dies, events, eventually, finish, is_dead,
    names, number, unique,
};
use crate::cli::assert_valid;
use crate::support::proxy::{Fault, FaultProxy};

/// What the leader's command says: its process, which is its group, and its term.
const WORK: &str = "echo pid=$$ term=$AZMUTEX_FENCE.; while :; do sleep 0.1; done";

const LEASE: Duration = Duration::from_secs(15);

/// The longest delay between two attempts, and what a busy machine may add.
const POLL: Duration = Duration::from_millis(719 + 1500);

fn elect(service: &Service, args: &[&str]) -> Command {
    service.azmutex("elect", args)
}

/// The term that a command said it has.
#[track_caller]
fn term(text: &str) -> i64 {
    let (_, rest) = text.rsplit_once("term=").expect("a term");
    let (term, _) = rest.split_once('.').expect("all of it");
    term.parse().expect("a number")
}

fn break_lease(service: &Service, lock: &str) {
    let broken = service.mutex().break_lease(lock, Some(Duration::ZERO));
    broken.expect("it is leased");
}

#[test]
fn end_of_the_command_itself_resigns_and_is_the_end() {
    for service in Service::all() {
        let lock = unique("elect-ends");
        for code in ["0", "3"] {
            let script = format!("echo term=$AZMUTEX_FENCE.; exit {code}");
            let done = finish(&mut elect(&service, &[&*lock, "-c", &script]));
            assert_eq!(done.code().to_string(), code, "{done:?}");
            assert_eq!(service.state(&lock), LeaseState::Available);
            let status = service.mutex().status(&lock).expect("it is there");
            assert_eq!(status.fencing_token(), Some(term(&done.out)));
        }
    }
}

#[test]
fn lost_leadership_ends_the_command_and_the_candidate_stands_again_until_it_is_told_to_end() {
    for service in Service::all() {
        let scratch = Scratch::new();
        let file = scratch.file("events");
        let lock = unique("elect-again");
        let mut command = elect(&service, &["--lease", "15s", "--renew-every", "1s"]);
        command.arg("--event-file").arg(&file);
        let run = Running::start(command.args([&*lock, "-c", WORK]));
        let (end, first) = run.out.wait_from(0, ".");
        break_lease(&service, &lock);
        run.err.wait_for("standing for election again");
        assert_dies(number(&first, "pid"));
        let (_, second) = run.out.wait_from(end, ".");
        assert!(term(&second) > term(&first), "{first} {second}");
        run.signal(Signal::TERM);
        let done = run.finish();
        assert_eq!(done.signal(), Signal::TERM.as_raw(), "{done:?}");
        assert_eq!(done.out.matches("pid=").count(), 2, "{done:?}");
        assert_eq!(service.state(&lock), LeaseState::Available);
        let events = events(&file);
        let expected = [
            "acquired",
            "started",
            "lost",
            "terminating",
            "acquired",
            "started",
            "exit",
        ];
        assert_eq!(names(&events), expected);
    }
}

#[test]
fn candidate_that_was_told_to_end_does_not_stand_again_after_a_loss() {
    let service = Service::emulator();
    let lock = unique("elect-told");
    let args = ["--lease", "15s", "--renew-every", "1s", "-k", "1s"];
    let stubborn = format!("trap '' TERM; {WORK}");
    let run = Running::start(elect(&service, &args).args([&*lock, "-c", &*stubborn]));
    run.out.wait_for(".");
    run.signal(Signal::TERM);
    break_lease(&service, &lock);
    let done = run.finish();
    assert_eq!(done.code(), 121, "{done:?}");
    assert_eq!(done.out.matches("pid=").count(), 1, "{done:?}");
}

#[test]
fn candidate_that_stands_once_ends_with_the_code_of_a_lost_lock() {
    let service = Service::emulator();
    let lock = unique("elect-once");
    let args = ["--once", "--lease", "15s", "--renew-every", "1s"];
    let run = Running::start(elect(&service, &args).args([&*lock, "-c", WORK]));
    run.out.wait_for(".");
    break_lease(&service, &lock);
    let done = run.finish();
    assert_eq!(done.code(), 121, "{done:?}");
    assert!(!done.err.contains("again"), "{done:?}");
}

#[test]
fn signal_while_it_waits_ends_a_candidate_at_once() {
    let service = Service::emulator();
    let lock = unique("elect-waits");
    let leader = Running::start(&mut elect(&service, &[&*lock, "-c", WORK]));
    leader.out.wait_for(".");
    let run = Running::start(&mut elect(&service, &[&*lock, "-c", WORK]));
    run.err.wait_for("waiting for");
    // Not one that who starts the tests may ignore, and they with it.
    run.signal(Signal::TERM);
    let done = run.finish();
    assert_eq!(done.signal(), Signal::TERM.as_raw(), "{done:?}");
    let done = finish(&mut elect(&service, &["-n", &*lock, "true"]));
    assert_eq!(done.code(), 75, "{done:?}");
    leader.signal(Signal::TERM);
    leader.finish();
}

#[test]
fn leader_that_resigns_is_followed_within_a_poll() {
    let service = Service::emulator();
    let lock = unique("elect-resigns");
    let leader = Running::start(&mut elect(&service, &[&*lock, "-c", WORK]));
    let first = leader.out.wait_for(".");
    let next = Running::start(&mut elect(&service, &[&*lock, "-c", WORK]));
    next.err.wait_for("waiting for");
    leader.signal(Signal::TERM);
    leader.finish();
    let resigned = Instant::now();
    let second = next.out.wait_for(".");
    assert!(resigned.elapsed() < POLL, "{:?}", resigned.elapsed());
    assert!(term(&second) > term(&first));
    assert!(is_dead(number(&first, "pid")));
    next.signal(Signal::TERM);
    next.finish();
}

#[test]
fn leader_that_is_killed_is_followed_within_a_lease_and_a_poll_and_its_command_is_gone() {
    let service = Service::emulator();
    let lock = unique("elect-killed");
    let args = ["--lease", "15s", &*lock, "-c", WORK];
    let mut leader = Running::start(&mut elect(&service, &args));
    let first = leader.out.wait_for(".");
    let next = Running::start(&mut elect(&service, &args));
    next.err.wait_for("waiting for");
    leader.signal(Signal::KILL);
    leader.wait();
    let killed = Instant::now();
    let second = next.out.wait_for(".");
    let took = killed.elapsed();
    assert!(is_dead(number(&first, "pid")), "{}", leader.err.text());
    assert!(took < LEASE + POLL, "{took:?}");
    assert!(term(&second) > term(&first));
    next.signal(Signal::TERM);
    next.finish();
}

#[test]
fn leader_whose_work_is_stopped_is_followed_within_the_health_and_a_lease() {
    const WITHIN: Duration = Duration::from_secs(3);
    let service = Service::emulator();
    let scratch = Scratch::new();
    let lock = unique("elect-hangs");
    let start = |name: &str| {
        let beat = scratch.file(name);
        let beat = beat.display();
        // It goes on as long as the work has said something since.
        let health = format!("rm {beat}");
        let work =
            format!("echo pid=$$ term=$AZMUTEX_FENCE.; while :; do : > {beat}; sleep 0.1; done");
        let args = ["--lease", "15s", "--health-within", "3s", "--health-cmd"];
        Running::start(elect(&service, &args).args([&*health, &*lock, "-c", &*work]))
    };
    let leader = start("first");
    let first = leader.out.wait_for(".");
    let next = start("second");
    next.err.wait_for("waiting for");
    let pid = number(&first, "pid");
    kill_process_group(Pid::from_raw(pid).expect("a process"), Signal::STOP).expect("it runs");
    let stopped = Instant::now();
    let second = next.out.wait_for(".");
    let took = stopped.elapsed();
    assert!(is_dead(pid), "{}", leader.err.text());
    // The last success may have been a moment before.
    assert!(took < WITHIN + LEASE + POLL, "{took:?}");
    assert!(term(&second) > term(&first));
    assert!(
        leader
            .err
            .text()
            .contains("the health command failed: exit code 1")
    );
    let why = "the health command has not succeeded for";
    assert!(leader.err.text().contains(why), "{}", leader.err.text());
    // Both go on: the one at work, the other as a candidate.
    for run in [next, leader] {
        run.signal(Signal::TERM);
        let done = run.finish();
        assert_eq!(done.signal(), Signal::TERM.as_raw(), "{done:?}");
    }
}

#[test]
fn health_command_that_hangs_counts_as_a_failure_and_is_gone_with_the_rest() {
    let service = Service::emulator();
    let scratch = Scratch::new();
    let lock = unique("elect-health-hangs");
    let pids = scratch.file("pids");
    let health = format!("echo $$ >> {}; sleep 1000", pids.display());
    let args = ["--once", "--lease", "15s", "--health-within", "1s"];
    let args = [&args[..], &["--health-cmd", &*health, &*lock, "-c", WORK]].concat();
    let started = Instant::now();
    let done: Done = finish(&mut elect(&service, &args));
    assert_eq!(done.code(), 121, "{done:?}");
    assert!(started.elapsed() < Duration::from_secs(1) + LEASE + POLL);
    assert!(done.err.contains("it took longer than 0.3s"), "{done:?}");
    let pids = std::fs::read_to_string(&pids).expect("it was run");
    assert!(pids.lines().count() > 10, "{pids}");
    for pid in pids.lines() {
        assert_dies(pid.parse().expect("a process"));
    }
}

#[test]
fn health_command_is_no_part_of_the_command_and_sees_what_that_sees() {
    let service = Service::emulator();
    let scratch = Scratch::new();
    let (lock, seen) = (unique("elect-health"), scratch.file("seen"));
    for guardian in [None, Some("--no-guardian")] {
        let health = format!("echo term=$AZMUTEX_FENCE. > {}; sleep 5", seen.display());
        let work = "echo term=$AZMUTEX_FENCE.; until test -s \"$0\"; do sleep 0.02; done";
        let args = [
            "--stragglers",
            "wait",
            "--health-within",
            "20s",
            "--health-cmd",
        ];
        let mut command = elect(&service, &args);
        command
            .arg(&health)
            .args(guardian)
            .args([&*lock, "sh", "-c", work])
            .arg(&seen);
        let started = Instant::now();
        let done = finish(&mut command);
        assert_eq!(done.code(), 0, "{done:?}");
        assert!(started.elapsed() < Duration::from_secs(4), "{done:?}");
        assert_eq!(done.err, "", "nothing was left behind");
        let seen_by_health = std::fs::read_to_string(&seen).expect("it was run");
        assert_eq!(term(&seen_by_health), term(&done.out));
        std::fs::remove_file(&seen).expect("it is there");
    }
}

#[test]
fn health_command_is_gone_with_azmutex_that_was_killed() {
    let service = Service::emulator();
    let scratch = Scratch::new();
    let (lock, file) = (unique("elect-health-killed"), scratch.file("pid"));
    let health = format!("echo pid=$$. > {}; sleep 1000", file.display());
    let args = [
        "--health-within",
        "1h",
        "--health-cmd",
        &*health,
        &*lock,
        "-c",
        WORK,
    ];
    let mut run = Running::start(&mut elect(&service, &args));
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    assert!(eventually(PATIENCE, || read().contains('.')));
    run.signal(Signal::KILL);
    run.wait();
    assert_dies(number(&read(), "pid"));
}

#[test]
fn health_command_is_gone_with_the_process_that_runs_it_whether_that_was_killed_or_stopped() {
    let service = Service::emulator();
    let scratch = Scratch::new();
    for signal in [Signal::KILL, Signal::STOP] {
        let lock = unique("elect-health-helper");
        let file = scratch.file(&lock.replace('/', "-"));
        // It is known by then which group it is.
        let health = format!(
            "sleep 1; echo runner=$PPID pid=$$. > {}; sleep 1000",
            file.display()
        );
        let args = ["--health-within", "1h", "--health-cmd", &*health];
        let run = Running::start(elect(&service, &args).args([&*lock, "-c", WORK]));
        let read = || std::fs::read_to_string(&file).unwrap_or_default();
        assert!(eventually(PATIENCE, || read().contains('.')));
        let runner = Pid::from_raw(number(&read(), "runner")).expect("a process");
        kill_process(runner, signal).expect("it runs");
        if signal == Signal::KILL {
            run.err.wait_for("the process that runs it has ended");
            assert_dies(number(&read(), "pid"));
        }
        run.signal(Signal::TERM);
        let done = run.finish();
        assert_eq!(done.signal(), Signal::TERM.as_raw(), "{done:?}");
        assert_dies(number(&read(), "pid"));
    }
}

#[test]
fn health_command_leaves_nothing_behind_and_the_lock_is_not_kept_for_it() {
    let service = Service::emulator();
    let scratch = Scratch::new();
    for guardian in [None, Some("--no-guardian")] {
        let lock = unique("elect-health-daemons");
        let pids = scratch.file(&lock.replace('/', "-"));
        let health = format!(
            "sleep 1000 & echo $! >> {pids}; setsid sleep 1000 & echo $! >> {pids}",
            pids = pids.display()
        );
        let args = ["--health-within", "3s", "--health-cmd", &*health];
        let mut command = elect(&service, &args);
        command.args(["--stragglers", "wait"]).args(guardian);
        let read = || std::fs::read_to_string(&pids).unwrap_or_default();
        let work = "until test $(wc -l < \"$0\") -ge 4; do sleep 0.1; done 2>/dev/null";
        let done = finish(command.args([&*lock, "sh", "-c", work]).arg(&pids));
        assert_eq!((done.code(), &*done.err), (0, ""), "{done:?}");
        for pid in read().lines() {
            assert_dies(pid.parse().expect("a process"));
        }
    }
}

#[test]
fn candidate_that_lost_the_service_too_stands_again_when_it_is_back() {
    let service = Service::emulator();
    let proxy = FaultProxy::start(service.addr());
    let through = Service::at(proxy.connection_string());
    let lock = unique("elect-outage");
    let args = [
        "--lease",
        "15s",
        "--renew-every",
        "1s",
        "--fault-wait",
        "500ms",
    ];
    let run = Running::start(elect(&through, &args).args([&*lock, "-c", WORK]));
    let (end, _) = run.out.wait_from(0, ".");
    break_lease(&service, &lock);
    let (said, _) = run.err.wait_from(0, "standing for election again");
    proxy.always(Some(Fault::DropBefore));
    run.err.wait_from(said, "standing for election again");
    proxy.clear();
    run.out.wait_from(end, ".");
    run.signal(Signal::TERM);
    run.finish();
}

#[test]
fn who_and_observe_tell_the_leader_and_its_term() {
    for service in Service::all() {
        let lock = unique("elect-who");
        let who = |args: &[&str]| {
            finish(&mut elect(
                &service,
                &[&["--who"], args, &[&*lock]].concat(),
            ))
        };
        let none = who(&[]);
        assert_eq!(
            (none.code(), &*none.out),
            (1, &*format!("{lock}: no leader\n"))
        );
        let args = ["--observe", "--poll", "20ms", "--json", &*lock];
        let mut observer = Running::start(&mut elect(&service, &args));
        observer.out.wait_for("\"led\":false");
        let leader = ["--owner", "ci@build-07", &*lock, "-c", WORK];
        let leader = Running::start(&mut elect(&service, &leader));
        let term = term(&leader.out.wait_for("."));
        let (end, _) = observer.out.wait_from(0, &format!("\"term\":{term}}}\n"));
        let led = who(&[]);
        assert_eq!(led.code(), 0, "{led:?}");
        assert!(
            led.out.starts_with(&format!("{lock}: ci@build-07 (pid ")),
            "{led:?}"
        );
        assert!(led.out.ends_with(&format!(", term {term}\n")), "{led:?}");
        leader.signal(Signal::TERM);
        leader.finish();
        observer.out.wait_from(end, "\"term\":null}\n");
        observer.child.kill().expect("it runs");
        let seen = observer.finish();
        assert_eq!(seen.out.lines().count(), 3, "{seen:?}");
        for line in seen.out.lines() {
            let event = serde_json::from_str(line).expect("an object");
            assert_eq!(assert_valid(&event), "leader");
        }
    }
}

#[test]
fn term_is_not_optional() {
    let service = Service::emulator();
    let lock = unique("elect-term");
    let done = finish(&mut elect(&service, &["--no-fencing", &*lock, "true"]));
    assert_eq!(done.code(), 125, "{done:?}");
    assert!(
        done.err.contains("--no-fencing: there is no such option"),
        "{done:?}"
    );
    for option in ["--on-lost=continue", "--on-suspend=release"] {
        let done = finish(&mut elect(&service, &[option, &*lock, "true"]));
        assert_eq!(done.code(), 125, "{done:?}");
        let said = option.replace('=', " ");
        assert!(done.err.contains(&format!("error: {said}: ")), "{done:?}");
    }
    let mut command = elect(
        &service,
        &[&*lock, "sh", "-c", "test -n \"$AZMUTEX_FENCE\""],
    );
    let done = finish(command.env("AZMUTEX_NO_FENCING", "true"));
    assert_eq!(done.code(), 0, "{done:?}");
}

#[test]
fn time_for_a_health_command_that_is_not_given_is_refused() {
    let service = Service::emulator();
    let lock = unique("elect-health");
    let args = ["--health-within", "3s", &*lock, "true"];
    let done = finish(&mut elect(&service, &args));
    assert_eq!(done.code(), 125, "{done:?}");
    assert!(done.err.contains("missing: --health-cmd"), "{done:?}");
    let done = finish(&mut elect(
        &service,
        &["--who", "--health-within", "3s", &lock],
    ));
    assert_eq!(done.code(), 1, "{done:?}");
    // As a variable it may be there for another command.
    let mut command = elect(&service, &[&lock, "true"]);
    let done = finish(command.env("AZMUTEX_HEALTH_WITHIN", "3s"));
    assert_eq!(done.code(), 0, "{done:?}");
}

#[test]
fn dry_run_shows_the_health_command() {
    let service = Service::emulator();
    let lock = unique("elect-plan");
    let health = ["--health-cmd", "test -e up", "--health-within", "3s"];
    let args = [&health[..], &["--dry-run", &*lock, "true"]].concat();
    let done = finish(&mut elect(&service, &args));
    assert_eq!(done.code(), 0, "{done:?}");
    let line = "health   test -e up: must succeed within 3s\n";
    assert!(done.out.contains(line), "{done:?}");
}

/// Never two commands at once, whoever is killed, stopped or deposed.
#[test]
fn storm_of_candidates_never_has_two_at_work() {
    let service = Service::emulator();
    let scratch = Scratch::new();
    let lock = unique("elect-storm");
    let (at_work, overlap) = (scratch.file("at-work"), scratch.file("overlap"));
    // The directory is there while somebody is at work. A killed command leaves it, so the next one
    // looks whether its owner is gone.
    let work = format!(
        "own={at_work}; mkdir $own 2>/dev/null || {{ kill -0 $(cat $own/pid) 2>/dev/null && \
         echo $$ >> {overlap}; }}; echo $$ > $own/pid; echo term=$AZMUTEX_FENCE.; \
         while :; do sleep 0.05; done",
        at_work = at_work.display(),
        overlap = overlap.display()
    );
    let args = [
        "--lease",
        "15s",
        "--renew-every",
        "1s",
        "--poll",
        "100ms",
        &*lock,
        "-c",
        &*work,
    ];
    let mut runs: Vec<_> = (0..4)
        .map(|_| Running::start(&mut elect(&service, &args)))
        .collect();
    let mut last = 0;
    for round in 0..6 {
        let mut leads = None;
        let elected = eventually(PATIENCE, || {
            leads = runs.iter().position(|run| {
                let text = run.out.text();
                text.contains("term=") && text.ends_with(".\n") && term(&text) > last
            });
            leads.is_some()
        });
        assert!(elected, "nobody leads in round {round}");
        let leader = leads.expect("somebody leads");
        last = term(&runs[leader].out.text());
        match round % 3 {
            // With a period, since without one there may be two.
            0 => {
                let broken = service.mutex().break_lease(&lock, Some(LEASE));
                broken.expect("it is leased");
            }
            1 => {
                let killed = runs.remove(leader);
                killed.signal(Signal::KILL);
                // The rest of its lease, which is what others have to wait for anyway.
                thread::spawn(move || killed.finish());
                runs.push(Running::start(&mut elect(&service, &args)));
            }
            _ => runs[leader].signal(Signal::TERM),
        }
        if round % 3 == 2 {
            let ended = runs.remove(leader);
            assert_eq!(ended.finish().signal(), Signal::TERM.as_raw());
            runs.push(Running::start(&mut elect(&service, &args)));
        }
    }
    for run in runs {
        run.signal(Signal::TERM);
        run.finish();
    }
    let overlap = std::fs::read_to_string(&overlap).unwrap_or_default();
    assert_eq!(overlap, "", "two were at work");
}
