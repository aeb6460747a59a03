//! `azmutex run --slots`: a permit of a semaphore.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use azmutex::{Lease, LeaseGuard, Locker, Semaphore, TryLockError};
use rustix::process::Signal;

use super::support::{
    PATIENCE, Running, Scratch, Service, azmutex, events, eventually, finish, is_dead, number,
    unique,
};
use crate::support::proxy::{Fault, FaultProxy, RequestHead, internal_error};

const PRINT: &str = "echo slot=$AZMUTEX_SLOT. id=$AZMUTEX_LEASE_ID. url=$AZMUTEX_URL. name=$AZMUTEX_NAME.; read line; exit 0";

fn semaphore(service: &Service, key: &str, permits: u32) -> Semaphore {
    let builder = Locker::builder(service.mutex(), key)
        .owner("ci@build-07")
        .holder_delay(Duration::ZERO)
        .hand_over_for(Duration::ZERO);
    builder.build_semaphore(permits).expect("a semaphore")
}

/// Holds all permits.
fn hold_all(service: &Service, key: &str, permits: u32) -> Vec<LeaseGuard> {
    let semaphore = semaphore(service, key, permits);
    let permits = 0..permits;
    permits
        .map(|_| semaphore.try_acquire().expect("one is free"))
        .collect()
}

/// What is written between `name=` and the next full stop that ends a word.
fn value<'a>(text: &'a str, name: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("{name}=")).expect(name);
    rest.split(['\n', ' '])
        .next()
        .expect(name)
        .trim_end_matches('.')
}

#[test]
fn command_finds_the_number_the_lease_and_the_url_of_its_permit() {
    for service in Service::all() {
        let scratch = Scratch::new();
        let key = unique("permit");
        let held = semaphore(&service, &key, 2).acquire().unwrap();
        let file = scratch.file("events");
        let mut run = service.run(["--slots", "2", "--event-file"]);
        let run = run.arg(&file).args([&*key, "-c", PRINT]);
        let (reader, writer) = std::io::pipe().unwrap();
        let running = Running::start(run.stdin(reader));
        let text = running.out.wait_for("name=");
        let slot = number(&text, "slot");
        let lock = format!("{key}.slot{slot}");
        assert_ne!(held.key(), lock);
        let id = value(&text, "id").parse().unwrap();
        // Of that blob, and no other.
        service
            .mutex()
            .verify(&Lease::new(&lock, id).unwrap())
            .unwrap();
        assert_eq!(value(&text, "url"), service.mutex().url(&lock));
        drop(writer);
        let done = running.finish();
        assert_eq!(done.code(), 0, "{done:?}");
        assert_eq!(value(&done.out, "name"), key);
        let acquired = &events(&file)[0];
        assert_eq!(acquired["event"], "acquired");
        assert_eq!(acquired["lock"], *key);
        assert_eq!(acquired["slot"], slot);
        assert_eq!(acquired["url"], service.mutex().url(&lock));
    }
}

#[test]
fn run_without_a_permit_says_how_many_are_held_and_where_to_look() {
    let service = Service::emulator();
    for (permits, held) in [
        (1, "the only permit is held by ci@build-07"),
        (2, "all 2 permits are held, one by ci@build-07"),
    ] {
        let key = unique("refused");
        let guards = hold_all(&service, &key, permits);
        let slots = permits.to_string();
        for (limit, within) in [("0", ""), ("300ms", "not acquired within 0.3s: ")] {
            let done = finish(&mut service.run(["-w", limit, "--slots", &slots, &key, "true"]));
            assert_eq!(done.code(), 75, "{done:?}");
            let text = format!("error: cannot acquire {key}: {within}{held} (pid ");
            assert!(done.err.contains(&text), "{text}: {done:?}");
            let hint = format!("hint: azmutex status --slots {key}; if a holder is gone: ");
            assert!(done.err.contains(&hint), "{done:?}");
            assert!(done.err.contains("azmutex break --slot "), "{done:?}");
        }
        // What the hint says works.
        let mut status = Command::new(azmutex());
        service.prepare(&mut status);
        let done = finish(status.args(["status", "--slots", &key]));
        assert_eq!(done.code(), 0, "{done:?}");
        assert_eq!(done.out.lines().count(), 1 + permits as usize, "{done:?}");
        drop(guards);
    }
}

#[test]
fn waiting_for_a_permit_says_that_all_of_them_are_held() {
    let service = Service::emulator();
    let key = unique("waiting");
    let guards = hold_all(&service, &key, 3);
    let run = Running::start(&mut service.run(["--slots", "3", &key, "echo", "ran"]));
    let line = run.err.wait_for("(waited 0s)\n");
    let text =
        format!("azmutex: waiting for {key}: all 3 permits are held, one by ci@build-07 (pid ");
    assert!(line.starts_with(&text), "{line}");
    drop(guards);
    let done = run.finish();
    assert_eq!((done.code(), &*done.out), (0, "ran\n"), "{done:?}");
    assert!(done.err.contains("azmutex: acquired permit "), "{done:?}");
    assert!(done.err.contains(&format!(" of {key} after ")), "{done:?}");
}

#[test]
fn another_number_of_permits_is_refused_with_the_option_that_changes_it() {
    let service = Service::emulator();
    let key = unique("resize");
    let with = |args: &[&str]| {
        let args = [args, &[&*key, "echo", "ran"]].concat();
        finish(&mut service.run(args))
    };
    assert_eq!(with(&["--slots", "3"]).code(), 0);
    let done = with(&["--slots", "4"]);
    assert_eq!((done.code(), &*done.out), (125, ""), "{done:?}");
    for text in [
        "it has 3 permits, and 4 are asked for",
        "hint: ",
        "--slots 3",
        "--resize",
    ] {
        assert!(done.err.contains(text), "{text}: {done:?}");
    }
    assert_eq!(with(&["--slots", "4", "--resize"]).code(), 0);
    assert_eq!(with(&["--slots", "4"]).code(), 0);
    assert_eq!(with(&["--slots", "3"]).code(), 125);
}

#[test]
fn permits_of_what_was_killed_are_back_within_their_lease() {
    let service = Service::emulator();
    let key = unique("killed");
    let args = [
        "--lease",
        "15s",
        "--slots",
        "3",
        &*key,
        "-c",
        "echo pid=$$.; sleep 1000",
    ];
    let mut runs: Vec<_> = (0..3)
        .map(|_| Running::start(&mut service.run(args)))
        .collect();
    let pids: Vec<_> = runs
        .iter()
        .map(|run| number(&run.out.wait_for("."), "pid"))
        .collect();
    let killed = Instant::now();
    for run in &runs {
        run.signal(Signal::KILL);
    }
    let semaphore = semaphore(&service, &key, 3);
    let refused = semaphore.try_acquire().unwrap_err();
    assert!(matches!(refused, TryLockError::WouldBlock), "{refused:?}");
    let guards: Vec<_> = (0..3).map(|_| semaphore.acquire().unwrap()).collect();
    let spent = killed.elapsed();
    eprintln!("3 permits of killed holders were back after {spent:?}");
    // The lease, an interval of the wait, and what a loaded machine adds.
    assert!(spent < Duration::from_secs(15 + 1 + 1), "{spent:?}");
    for pid in pids {
        assert!(is_dead(pid));
    }
    for run in &mut runs {
        run.wait();
    }
    drop(guards);
}

#[test]
fn term_while_waiting_for_a_permit_ends_it_at_once_and_leaves_no_lease() {
    for service in Service::all() {
        let key = unique("term");
        let guards = hold_all(&service, &key, 2);
        let run = Running::start(&mut service.run(["--slots", "2", &key, "echo", "ran"]));
        run.err.wait_for("waiting for ");
        let started = Instant::now();
        run.signal(Signal::TERM);
        let done = run.finish();
        assert_eq!((done.signal(), &*done.out), (15, ""), "{done:?}");
        assert!(started.elapsed() < Duration::from_secs(3));
        drop(guards);
        let holders = semaphore(&service, &key, 2).holders().unwrap();
        assert!(holders.is_empty(), "{holders:?}");
    }
}

#[test]
fn permit_that_was_granted_to_a_run_that_is_gone_is_released() {
    let service = Service::emulator();
    let proxy = FaultProxy::start(service.addr());
    let through = Service::at(proxy.connection_string());
    let key = unique("late");
    drop(hold_all(&service, &key, 1));
    proxy.when(
        |request| request.lease_action() == Some("acquire"),
        Fault::HoldReply,
    );
    let run = Running::start(&mut through.run(["--slots", "1", &key, "echo", "ran"]));
    let is_acquire = |request: &RequestHead| request.lease_action() == Some("acquire");
    proxy.wait_for(
        1,
        |seen| is_acquire(&seen.request) && seen.upstream.is_some(),
        PATIENCE,
    );
    run.signal(Signal::TERM);
    proxy.release_held();
    let done = run.finish();
    assert_eq!((done.signal(), &*done.out), (15, ""), "{done:?}");
    let semaphore = semaphore(&service, &key, 1);
    assert!(eventually(PATIENCE, || semaphore
        .holders()
        .unwrap()
        .is_empty()));
}

#[test]
fn service_that_fails_is_asked_again_for_as_long_as_fault_wait_says() {
    let service = Service::emulator();
    for resize in [&[][..], &["--resize"]] {
        let proxy = FaultProxy::start(service.addr());
        let through = Service::at(proxy.connection_string());
        let key = unique("fails");
        proxy.always(Some(Fault::Answer(internal_error())));
        let args = [
            "--slots",
            "2",
            "--fault-wait",
            "1s",
            "--request-timeout",
            "1s",
        ];
        let args = [&args, resize, &[&*key, "echo", "ran"]].concat();
        let done = finish(&mut through.run(&args));
        assert_eq!((done.code(), &*done.out), (125, ""), "{done:?}");
        let args = [
            "--slots",
            "2",
            "--fault-wait",
            "1m",
            "--request-timeout",
            "1s",
        ];
        let args = [&args, resize, &[&*key, "echo", "ran"]].concat();
        let run = Running::start(&mut through.run(&args));
        // More than one request is retried for.
        let failing = Instant::now();
        assert!(eventually(PATIENCE, || failing.elapsed() > Duration::from_secs(3)));
        proxy.always(None);
        let done = run.finish();
        assert_eq!(
            (done.code(), &*done.out),
            (0, "ran\n"),
            "{resize:?} {done:?}"
        );
    }
}

#[test]
fn loss_of_a_permit_names_it() {
    let service = Service::emulator();
    let scratch = Scratch::new();
    let key = unique("lost");
    let file = scratch.file("events");
    let mut run = service.run(["--lease", "15s", "--renew-every", "1s", "-k", "1s"]);
    run.args(["--slots", "2", "--event-file"]).arg(&file);
    let run = Running::start(run.args([&*key, "-c", "echo slot=$AZMUTEX_SLOT.; sleep 1000"]));
    let slot = number(&run.out.wait_for("."), "slot");
    let lock = format!("{key}.slot{slot}");
    service
        .mutex()
        .break_lease(&lock, Some(Duration::ZERO))
        .unwrap();
    let done = run.finish();
    assert_eq!(done.code(), 121, "{done:?}");
    let text = format!("lock {lock} lost: the lease was broken by another client");
    assert!(done.err.contains(&text), "{done:?}");
    let events = events(&file);
    let lost = events
        .iter()
        .find(|event| event["event"] == "lost")
        .unwrap();
    assert_eq!(lost["lock"], *key);
    assert_eq!(lost["url"], service.mutex().url(&lock));
}

#[test]
fn dry_run_shows_how_many_permits_are_held() {
    let service = Service::emulator();
    let key = unique("plan");
    let plan = |slots: &str| {
        let args = ["--dry-run", "--slots", slots, &*key, "true"];
        let text = finish(&mut service.run(args));
        assert_eq!(text.code(), 0, "{text:?}");
        let json = finish(&mut service.run([&["--json"][..], &args].concat()));
        let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
        crate::cli::assert_valid(&json);
        (text.out, json)
    };
    let (text, json) = plan("3");
    assert!(text.contains("permits  0 of 3 held\n"), "{text}");
    assert_eq!(
        (&json["permits"], &json["permits_held"]),
        (&3.into(), &0.into())
    );
    let semaphore = semaphore(&service, &key, 3);
    let held = [semaphore.acquire().unwrap(), semaphore.acquire().unwrap()];
    let (text, json) = plan("3");
    assert!(text.contains("permits  2 of 3 held\n"), "{text}");
    assert_eq!(
        (&json["permits"], &json["permits_held"]),
        (&3.into(), &2.into())
    );
    let (text, json) = plan("5");
    assert!(
        text.contains("2 of 3 held; --slots 5 would be refused"),
        "{text}"
    );
    assert_eq!(json["permits"], 3);
    drop(held);
}

#[test]
fn no_more_commands_run_at_once_than_there_are_permits() {
    let (processes, permits) = match std::env::var("AZMUTEX_TEST_MANY") {
        Ok(_) => (64, 5),
        Err(_) => (12, 3),
    };
    let service = Service::emulator();
    let scratch = Scratch::new();
    let dir = scratch.file("at-work");
    fs::create_dir(&dir).unwrap();
    let key = unique("storm");
    let script = format!(
        "mkdir {0}/$AZMUTEX_SLOT || echo twice; ls {0} | wc -l; sleep 0.1; rmdir {0}/$AZMUTEX_SLOT",
        dir.display()
    );
    let slots = permits.to_string();
    let started = Instant::now();
    let runs: Vec<_> = (0..processes)
        .map(|_| Running::start(&mut service.run(["--slots", &slots, &key, "-c", &script])))
        .collect();
    let most = runs.into_iter().map(|run| {
        let done = run.finish();
        assert_eq!(done.code(), 0, "{done:?}");
        assert!(!done.out.contains("twice"), "{done:?}");
        done.out.trim().parse::<u32>().unwrap()
    });
    let most = most.max().unwrap();
    assert!(most <= permits, "{most}");
    eprintln!(
        "{processes} commands, {permits} permits: at most {most} at once, in {:?}",
        started.elapsed()
    );
}

#[test]
fn plain_lock_in_the_way_of_a_semaphore_is_shown_how_to_look_at() {
    let service = Service::emulator();
    let key = unique("plain");
    let held = service.locker(&key).lock().unwrap();
    let done = finish(&mut service.run(["--slots", "2", &*key, "true"]));
    assert_eq!(done.code(), 125, "{done:?}");
    assert!(done.err.contains("plain lock"), "{done:?}");
    let hint = format!("hint: azmutex status {key} shows who holds it");
    assert!(done.err.contains(&hint), "{done:?}");
    drop(held);
}
