//! The point of it all: one at a time.

use std::process::Stdio;

use super::support::{Scratch, Service, finish, unique};
use crate::support::azurite::Azurite;

/// Reads, thinks, and writes: increments are lost unless nobody else is there meanwhile.
const INCREMENT: &str = "read n <counter; sleep 0.01; echo $((n + 1)) >counter";

#[test]
fn concurrent_runs_lose_no_increment() {
    // One of its own, which so many would slow down for the other tests.
    let Some(azurite) = Azurite::start_with(&[]) else {
        return;
    };
    let service = Service::at(azurite.connection_string());
    let runs = match std::env::var("AZMUTEX_TEST_RUNS") {
        Ok(runs) => runs.parse().expect("AZMUTEX_TEST_RUNS is a number"),
        Err(_) => 200,
    };
    let scratch = Scratch::new();
    let counter = scratch.write("counter", "0\n", 0o644);
    let lock = unique("counter");
    let started = std::time::Instant::now();
    let children: Vec<_> = (0..runs)
        .map(|_| {
            let mut run = service.run(["-q", &*lock, "-c", INCREMENT]);
            run.current_dir(counter.parent().unwrap())
                .stdout(Stdio::null());
            run.stderr(Stdio::piped()).spawn().expect("it starts")
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("a child");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{errors}");
    }
    eprintln!("{runs} runs in {:?}", started.elapsed());
    assert_eq!(
        std::fs::read_to_string(&counter).unwrap().trim(),
        runs.to_string()
    );
    let done = finish(&mut service.run(["-n", &*lock, "true"]));
    assert_eq!(done.code(), 0, "the lock is free");
}
