//! `azmutex run --also`: several locks, all of them or none.

use std::time::{Duration, Instant};

use azmutex::{LeaseState, Locker};
use rustix::process::Signal;

use super::support::{Running, Scratch, Service, events, finish, unique};
use crate::support::proxy::{Fault, FaultProxy, RequestHead, internal_error};

fn named(service: &Service, lock: &str) -> Locker {
    let builder = Locker::builder(service.mutex(), lock)
        .owner("ci@build-07")
        .holder_delay(Duration::ZERO);
    builder.build().expect("a lock")
}

#[test]
fn all_locks_are_held_while_the_command_runs() {
    for service in Service::all() {
        let [a, b, c] = ["c", "b", "a"].map(unique);
        // The same one twice is one.
        let args = ["--also", &b, "--also", &c, "--also", &b, "--also", &a, &a];
        let (reader, writer) = std::io::pipe().unwrap();
        let script = "echo ready name=$AZMUTEX_NAME. url=$AZMUTEX_URL.; read line; exit 0";
        let mut run = service.run(args);
        let run = Running::start(run.args(["-c", script]).stdin(reader));
        let text = run.out.wait_for("url=");
        assert!(text.contains(&format!("name={a}.")), "{text}");
        for lock in [&a, &b, &c] {
            assert_eq!(service.state(lock), LeaseState::Leased);
        }
        drop(writer);
        let done = run.finish();
        assert_eq!(done.code(), 0, "{done:?}");
        let url = format!("url={}.", service.mutex().url(&a));
        assert!(done.out.contains(&url), "{done:?}");
        for lock in [&a, &b, &c] {
            assert!(service.state(lock).is_free());
        }
    }
}

#[test]
fn run_that_is_refused_names_the_lock_that_is_held() {
    let service = Service::emulator();
    for first in ["a", "z"] {
        let (busy, other) = (unique("m"), unique(first));
        let held = named(&service, &busy).lock().unwrap();
        for args in [["--also", &*busy, &*other], ["--also", &*other, &*busy]] {
            let mut run = service.run(["-n"]);
            let done = finish(run.args(args).args(["echo", "ran"]));
            assert_eq!((done.code(), &*done.out), (75, ""), "{done:?}");
            let text = format!("somebody holds {busy} (held by ci@build-07 (pid ");
            assert!(done.err.contains(&text), "{done:?}");
            let hint =
                format!("hint: azmutex status {busy}; if the holder is gone: azmutex break ");
            assert!(done.err.contains(&hint), "{done:?}");
        }
        drop(held);
    }
}

#[test]
fn waiting_names_the_lock_that_is_held() {
    let service = Service::emulator();
    let [a, b] = ["a", "b"].map(unique);
    let held = named(&service, &b).lock().unwrap();
    let run = Running::start(&mut service.run(["--also", &b, &a, "echo", "ran"]));
    run.err
        .wait_for(&format!("waiting for {b}: held by ci@build-07"));
    drop(held);
    let done = run.finish();
    assert_eq!((done.code(), &*done.out), (0, "ran\n"), "{done:?}");
}

#[test]
fn more_locks_than_can_be_held_are_refused_before_anything_is_sent() {
    let service = Service::emulator();
    let lock = unique("many");
    let with = |count: usize| {
        let mut run = service.run([] as [&str; 0]);
        for n in 1..count {
            run.arg("--also").arg(format!("{lock}-{n}"));
        }
        finish(run.args([&*format!("{lock}-0"), "echo", "ran"]))
    };
    let done = with(16);
    assert_eq!((done.code(), &*done.out), (0, "ran\n"), "{done:?}");
    let done = with(17);
    assert_eq!((done.code(), &*done.out), (125, ""), "{done:?}");
    assert_eq!(
        done.err,
        "azmutex: error: --also: 17 locks are named, and a run holds 16 at most\n"
    );
}

#[test]
fn loss_of_one_lock_ends_the_command_and_is_said_of_which() {
    let service = Service::emulator();
    for lost in [0, 1] {
        let scratch = Scratch::new();
        let file = scratch.file("events");
        let locks = ["a", "b"].map(unique);
        let [a, b] = &locks;
        let mut run = service.run(["--lease", "15s", "--renew-every", "1s", "-k", "1s"]);
        run.args(["--also", b, "--event-file"]).arg(&file);
        let run = Running::start(run.args([a, "-c", "echo ready; sleep 1000"]));
        run.out.wait_for("ready");
        service
            .mutex()
            .break_lease(&locks[lost], Some(Duration::ZERO))
            .unwrap();
        let done = run.finish();
        assert_eq!(done.code(), 121, "{done:?}");
        let text = format!(
            "lock {} lost: the lease was broken by another client",
            locks[lost]
        );
        assert!(done.err.contains(&text), "{done:?}");
        let events = events(&file);
        let event = events
            .iter()
            .find(|event| event["event"] == "lost")
            .unwrap();
        assert_eq!(event["lock"], **a);
        assert_eq!(event["url"], service.mutex().url(&locks[lost]));
        for lock in &locks {
            assert!(service.state(lock).is_free());
        }
    }
}

#[test]
fn renewals_that_fail_are_said_of_their_lock() {
    let service = Service::emulator();
    let proxy = FaultProxy::start(service.addr());
    let through = Service::at(proxy.connection_string());
    let [a, b] = ["a", "b"].map(unique);
    let of_b = format!("/{b}?");
    proxy.always_when(
        move |request: &RequestHead| {
            request.lease_action() == Some("renew") && request.target.contains(&of_b)
        },
        Fault::Answer(internal_error()),
    );
    let mut run = through.run(["--lease", "15s", "--renew-every", "1s", "-k", "1s"]);
    let run = Running::start(run.args(["--also", &b, &a, "-c", "echo ready; sleep 1000"]));
    run.err.wait_for(&format!("cannot renew {b}: "));
    let done = run.finish();
    assert_eq!(done.code(), 121, "{done:?}");
    let text = format!("lock {b} is not safe any more: no renewal was confirmed for ");
    assert!(done.err.contains(&text), "{done:?}");
    assert!(!done.err.contains(&format!("cannot renew {a}")), "{done:?}");
    // The renewals of the other one do not start the count again.
    assert_eq!(done.err.matches("(attempt 1)").count(), 1, "{done:?}");
}

#[test]
fn term_while_waiting_for_one_leaves_no_lease_on_the_others() {
    for service in Service::all() {
        let [a, b] = ["a", "b"].map(unique);
        let held = service.locker(&b).lock().unwrap();
        let run = Running::start(&mut service.run(["--also", &b, &a, "echo", "ran"]));
        run.err.wait_for("waiting for ");
        let started = Instant::now();
        run.signal(Signal::TERM);
        let done = run.finish();
        assert_eq!((done.signal(), &*done.out), (15, ""), "{done:?}");
        assert!(started.elapsed() < Duration::from_secs(3));
        drop(held);
        for lock in [&a, &b] {
            assert!(service.state(lock).is_free());
        }
    }
}

#[test]
fn dry_run_shows_each_lock() {
    let service = Service::emulator();
    let [a, b] = ["a", "b"].map(unique);
    let held = named(&service, &b).lock().unwrap();
    let args = ["--dry-run", "--also", &b, &a, "true"];
    let done = finish(&mut service.run(args));
    assert_eq!(done.code(), 0, "{done:?}");
    let (first, second) = done.out.split_once("\nalso ").expect("both");
    assert!(
        first.starts_with(&format!("lock     {a} (http://")),
        "{done:?}"
    );
    assert!(
        second.trim_start().starts_with(&format!("{b} (http://")),
        "{done:?}"
    );
    assert!(
        second.contains("state    leased, held by ci@build-07"),
        "{done:?}"
    );
    let done = finish(&mut service.run([&["--json"][..], &args].concat()));
    let json: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    crate::cli::assert_valid(&json);
    assert_eq!(
        (&json["lock"], &json["state"]),
        (&(*a).into(), &"missing".into())
    );
    let also = &json["also"][0];
    assert_eq!(
        (&also["lock"], &also["state"]),
        (&(*b).into(), &"leased".into())
    );
    assert_eq!(also["holder"]["owner"], "ci@build-07");
    drop(held);
}

#[test]
fn runs_that_name_the_same_locks_in_opposite_orders_do_not_stand_still() {
    let service = Service::emulator();
    let [a, b] = ["a", "b"].map(unique);
    let runs: Vec<_> = (0..6)
        .map(|n| {
            let (one, other) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
            let args = ["--poll", "50ms", "--also", one, other, "sleep", "0.05"];
            Running::start(&mut service.run(args))
        })
        .collect();
    for run in runs {
        let done = run.finish();
        assert_eq!(done.code(), 0, "{done:?}");
    }
}
