//! `azmutex once`: a command that is run once, whoever starts it.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::support::{
    Done, PATIENCE, Running, Scratch, Service, assert_dies, azmutex, events, eventually, finish,
    names, number, unique,
};
use crate::support::proxy::{Fault, FaultProxy, RequestHead, internal_error};

fn once(service: &Service, args: &[&str]) -> Command {
    let mut command = Command::new(azmutex());
    service.prepare(&mut command);
    command.arg("once").args(args);
    command
}

fn run(service: &Service, args: &[&str]) -> Done {
    finish(&mut once(service, args))
}

/// Whether it is recorded as done.
fn is_done(service: &Service, lock: &str) -> bool {
    service
        .mutex()
        .status(lock)
        .is_ok_and(|status| status.done().is_some())
}

fn is_record(request: &RequestHead) -> bool {
    request.header("x-ms-meta-azmutexdone").is_some()
}

#[test]
fn command_runs_once_and_then_never_again() {
    for service in Service::all() {
        let scratch = Scratch::new();
        let lock = unique("once");
        let file = scratch.file("events");
        let path = file.to_str().unwrap();
        let args = [
            "--event-file",
            path,
            "--owner",
            "ci@build-07",
            &lock,
            "echo",
            "ran",
        ];
        let done = run(&service, &args);
        assert_eq!((done.code(), &*done.out), (0, "ran\n"), "{done:?}");
        let all = events(&file);
        assert_eq!(names(&all), ["acquired", "started", "recorded", "exit"]);
        assert_eq!(all[2]["ok"], true);
        let done = run(&service, &args);
        assert_eq!((done.code(), &*done.out), (0, ""), "{done:?}");
        let text = format!("azmutex: {lock} was done by ci@build-07 at 20");
        assert!(done.err.starts_with(&text), "{done:?}");
        let all = events(&file);
        assert_eq!(names(&all[4..]), ["already_done", "exit"]);
        assert_eq!(all[4]["done_by"], "ci@build-07");
        assert_eq!(all[5]["outcome"], "already_done");
        let again = [&["--done-exit-code", "9"][..], &args].concat();
        assert_eq!(run(&service, &again).code(), 9);
        assert!(service.state(&lock).is_free());
    }
}

#[test]
fn command_that_fails_or_is_killed_runs_again() {
    let service = Service::emulator();
    let lock = unique("fails");
    assert_eq!(run(&service, &[&lock, "-c", "exit 3"]).code(), 3);
    assert_eq!(run(&service, &[&lock, "-c", "kill -9 $$"]).signal(), 9);
    assert!(!is_done(&service, &lock));
    let done = run(&service, &[&lock, "echo", "ran"]);
    assert_eq!((done.code(), &*done.out), (0, "ran\n"), "{done:?}");
    assert!(is_done(&service, &lock));
}

#[test]
fn command_whose_lock_was_lost_is_not_recorded_as_done() {
    let service = Service::emulator();
    for (on_lost, code) in [("terminate", 121), ("continue", 125)] {
        let lock = unique("lost");
        let (reader, writer) = std::io::pipe().unwrap();
        let args = [
            "--lease",
            "15s",
            "--renew-every",
            "1s",
            "--on-lost",
            on_lost,
        ];
        let script = "trap 'exit 0' TERM; echo ready; read line; exit 0";
        let args = [&args[..], &[&*lock, "-c", script]].concat();
        let running = Running::start(once(&service, &args).stdin(reader));
        running.out.wait_for("ready");
        service
            .mutex()
            .break_lease(&lock, Some(Duration::ZERO))
            .unwrap();
        running.err.wait_for(&format!("lock {lock} lost: "));
        drop(writer);
        let done = running.finish();
        assert_eq!(done.code(), code, "{done:?}");
        assert!(!is_done(&service, &lock));
        let text = format!("it is not recorded that {lock} is done");
        assert!(done.err.contains(&text), "{done:?}");
    }
}

#[test]
fn command_whose_success_cannot_be_recorded_is_no_success() {
    let service = Service::emulator();
    for (fault, recorded, text) in [
        (Fault::Answer(internal_error()), false, "it may run again"),
        (Fault::HangBefore, false, "it may run again"),
        (Fault::HangAfter, true, "it may run again"),
    ] {
        let scratch = Scratch::new();
        let file = scratch.file("events");
        let proxy = FaultProxy::start(service.addr());
        let through = Service::at(proxy.connection_string());
        let lock = unique("unrecorded");
        proxy.always_when(is_record, fault.clone());
        let path = file.to_str().unwrap();
        let args = [
            "--request-timeout",
            "1s",
            "--event-file",
            path,
            &lock,
            "echo",
            "ran",
        ];
        let done = run(&through, &args);
        assert_eq!(
            (done.code(), &*done.out),
            (125, "ran\n"),
            "{fault:?} {done:?}"
        );
        assert!(done.err.contains("the command succeeded, but "), "{done:?}");
        assert!(done.err.contains(text), "{done:?}");
        let all = events(&file);
        let event = all
            .iter()
            .find(|event| event["event"] == "recorded")
            .unwrap();
        assert_eq!(event["ok"], false);
        assert_eq!(is_done(&service, &lock), recorded, "{fault:?}");
        proxy.release_hung();
    }
}

#[test]
fn command_that_lost_the_lock_unnoticed_is_refused_the_record() {
    let service = Service::emulator();
    let lock = unique("unnoticed");
    let (reader, writer) = std::io::pipe().unwrap();
    let running = Running::start(
        once(&service, &[&lock, "-c", "echo ready; read line; exit 0"]).stdin(reader),
    );
    running.out.wait_for("ready");
    service
        .mutex()
        .break_lease(&lock, Some(Duration::ZERO))
        .unwrap();
    let rival = service.locker(&lock).lock().unwrap();
    drop(writer);
    let done = running.finish();
    assert_eq!(done.code(), 121, "{done:?}");
    assert!(done.err.contains("the command succeeded, but "), "{done:?}");
    assert!(!is_done(&service, &lock));
    drop(rival);
}

#[test]
fn command_is_due_again_after_its_period() {
    let service = Service::emulator();
    let lock = unique("every");
    let args = ["--every", "3s", &lock, "echo", "ran"];
    assert_eq!(run(&service, &args).out, "ran\n");
    assert_eq!(run(&service, &args).out, "");
    // By the service's clock, which is this machine's.
    assert!(eventually(PATIENCE, || run(&service, &args).out == "ran\n"));
}

#[test]
fn killed_at_any_step_it_runs_again_unless_it_was_recorded() {
    let service = Service::emulator();
    for (operation, fault, recorded) in [
        ("get properties", Fault::HangBefore, false),
        ("acquire", Fault::HangAfter, false),
        ("command", Fault::Pass, false),
        ("record", Fault::HangBefore, false),
        ("record", Fault::HangAfter, true),
        ("release", Fault::HangBefore, true),
    ] {
        let proxy = FaultProxy::start(service.addr());
        let through = Service::at(proxy.connection_string());
        let lock = unique("killed");
        // Its blob is there.
        drop(service.locker(&lock).lock().unwrap());
        let is_it = move |request: &RequestHead| match operation {
            "record" => is_record(request),
            "get properties" | "acquire" | "release" => request.operation() == operation,
            _ => false,
        };
        proxy.always_when(is_it, fault.clone());
        let (reader, writer) = std::io::pipe().unwrap();
        let script = "echo pid=$$.; read line; exit 0";
        let args = ["--lease", "15s", &*lock, "-c", script];
        let mut running = Running::start(once(&through, &args).stdin(reader));
        let mut writer = Some(writer);
        if matches!(operation, "record" | "release") {
            drop(writer.take());
        }
        let mut pid = None;
        if operation == "command" {
            pid = Some(number(&running.out.wait_for("."), "pid"));
        } else {
            let before = matches!(fault, Fault::HangBefore);
            proxy.wait_for(
                1,
                |seen| is_it(&seen.request) && (before || seen.upstream.is_some()),
                PATIENCE,
            );
        }
        running.signal(Signal::KILL);
        running.wait();
        if let Some(pid) = pid {
            assert_dies(pid);
        }
        assert_eq!(is_done(&service, &lock), recorded, "{operation} {fault:?}");
        // What is left of its lease is another matter.
        let _ = service.mutex().break_lease(&lock, Some(Duration::ZERO));
        let again = run(&service, &[&lock, "echo", "ran"]);
        let expected = if recorded { "" } else { "ran\n" };
        assert_eq!(
            (again.code(), &*again.out),
            (0, expected),
            "{operation} {again:?}"
        );
        proxy.release_hung();
    }
}

#[test]
fn many_at_once_run_it_once() {
    let processes = match std::env::var("AZMUTEX_TEST_MANY") {
        Ok(_) => 50,
        Err(_) => 12,
    };
    let service = Service::emulator();
    let lock = unique("many");
    let runs: Vec<_> = (0..processes)
        .map(|_| {
            Running::start(&mut once(
                &service,
                &["--poll", "100ms", &lock, "-c", "echo ran; sleep 1"],
            ))
        })
        .collect();
    let dones: Vec<_> = runs.into_iter().map(Running::finish).collect();
    assert!(dones.iter().all(|done| done.code() == 0), "{dones:?}");
    let ran = dones.iter().filter(|done| done.out == "ran\n").count();
    let knew = dones
        .iter()
        .filter(|done| done.err.contains(" was done "))
        .count();
    assert_eq!((ran, knew), (1, processes - 1));
}

#[test]
fn run_that_does_not_wait_fails_while_another_is_at_work() {
    let service = Service::emulator();
    let lock = unique("busy");
    let (reader, writer) = std::io::pipe().unwrap();
    let running = Running::start(
        once(&service, &[&lock, "-c", "echo ready; read line; exit 0"]).stdin(reader),
    );
    running.out.wait_for("ready");
    let done = run(&service, &["-n", &lock, "echo", "ran"]);
    assert_eq!((done.code(), &*done.out), (75, ""), "{done:?}");
    let started = Instant::now();
    let done = run(&service, &["-w", "300ms", "-E", "4", &lock, "echo", "ran"]);
    assert_eq!((done.code(), &*done.out), (4, ""), "{done:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
    drop(writer);
    assert_eq!(running.finish().code(), 0);
}

#[test]
fn service_that_fails_is_asked_again_for_as_long_as_fault_wait_says() {
    let service = Service::emulator();
    let proxy = FaultProxy::start(service.addr());
    let through = Service::at(proxy.connection_string());
    let lock = unique("fails");
    proxy.always(Some(Fault::Answer(internal_error())));
    let args = [
        "--request-timeout",
        "1s",
        "--fault-wait",
        "1s",
        &lock,
        "echo",
        "ran",
    ];
    let done = run(&through, &args);
    assert_eq!((done.code(), &*done.out), (125, ""), "{done:?}");
    let args = ["--request-timeout", "1s", &lock, "echo", "ran"];
    let running = Running::start(&mut once(&through, &args));
    let failing = Instant::now();
    assert!(eventually(PATIENCE, || failing.elapsed() > Duration::from_secs(3)));
    proxy.always(None);
    let done = running.finish();
    assert_eq!((done.code(), &*done.out), (0, "ran\n"), "{done:?}");
}

#[test]
fn wait_is_limited_also_when_the_service_is_silent() {
    let service = Service::emulator();
    let proxy = FaultProxy::start(service.addr());
    let through = Service::at(proxy.connection_string());
    proxy.always(Some(Fault::HangBefore));
    for limit in ["0", "2s"] {
        let started = Instant::now();
        let args = ["-w", limit, "--request-timeout", "2s"];
        let lock = unique("silent");
        let args = [&args[..], &[&*lock, "echo", "ran"]].concat();
        let done = run(&through, &args);
        assert_eq!((done.code(), &*done.out), (125, ""), "{done:?}");
        // Two requests, and what a loaded machine adds.
        assert!(started.elapsed() < Duration::from_secs(4 + 2), "{limit}");
    }
    let running = Running::start(&mut once(&through, &[&unique("silent"), "true"]));
    proxy.wait_for(1, |_| true, PATIENCE);
    let started = Instant::now();
    running.signal(Signal::TERM);
    assert_eq!(running.finish().signal(), 15);
    assert!(started.elapsed() < Duration::from_secs(4));
    proxy.release_hung();
}

#[test]
fn dry_run_says_whether_it_would_run() {
    let service = Service::emulator();
    let lock = unique("plan");
    let plan = |every: &str| {
        let args = ["--dry-run", "--every", every, &*lock, "true"];
        let text = run(&service, &args);
        assert_eq!(text.code(), 0, "{text:?}");
        let json = run(&service, &[&["--json"][..], &args].concat());
        let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
        crate::cli::assert_valid(&json);
        (text.out, json)
    };
    let (text, json) = plan("1h");
    assert!(text.contains("done     no: it would run\n"), "{text}");
    assert!(json["done_at"].is_null());
    assert_eq!(run(&service, &["--owner", "me", &lock, "true"]).code(), 0);
    let (text, json) = plan("1h");
    assert!(text.contains("done     by me at 20"), "{text}");
    assert!(text.contains(": it would not run\n"), "{text}");
    assert_eq!(json["done_by"], "me");
    // By the service's clock, which tells seconds.
    assert!(eventually(PATIENCE, || plan("1s").1["done_at"].is_null()));
}

#[test]
fn forgetting_is_refused_while_somebody_is_at_work() {
    let service = Service::emulator();
    let lock = unique("forget");
    assert_eq!(run(&service, &[&lock, "true"]).code(), 0);
    let held = service.locker(&lock).lock().unwrap();
    let done = run(&service, &["--forget", &lock]);
    assert_eq!(done.code(), 75, "{done:?}");
    drop(held);
    assert_eq!(run(&service, &["--forget", &lock]).code(), 0);
    assert_eq!(run(&service, &[&lock, "echo", "ran"]).out, "ran\n");
}

#[test]
fn dry_run_forgets_nothing() {
    let service = Service::emulator();
    let lock = unique("forget");
    assert_eq!(run(&service, &[&lock, "true"]).code(), 0);
    let done = run(&service, &["--forget", "--dry-run", &lock]);
    assert_eq!(done.code(), 125, "{done:?}");
    assert!(is_done(&service, &lock));
}
