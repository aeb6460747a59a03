//! Panics, and processes that stop or end while they hold a lock.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::*;
use crate::support::LONG;
#[cfg(unix)]
use crate::support::{go_on, stop};

#[test]
fn panic_while_holding_releases_while_unwinding() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let mut watch = None;
    let result = catch_unwind(AssertUnwindSafe(|| {
        let (guard, _) = setup.lock();
        watch = Some(guard.watch());
        assert_eq!(setup.state(), LeaseState::Leased);
        panic!("the work failed");
    }));
    let panic = result.expect_err("it panicked");
    assert_eq!(panic.downcast_ref(), Some(&"the work failed"));
    assert_eq!(setup.state(), LeaseState::Available);
    let watch = watch.expect("it was locked");
    is_lost(watch.check(), LossReason::Released);
}

#[test]
fn panic_while_holding_is_no_abort_when_the_service_is_gone() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let (_guard, _) = setup.lock_with(|locker| locker.release_timeout(TIMEOUT));
        setup.proxy.always(Some(Fault::DropBefore));
        panic!("the work failed");
    }));
    let panic = result.expect_err("it panicked");
    assert_eq!(panic.downcast_ref(), Some(&"the work failed"));
}

#[test]
fn panic_in_the_observer_changes_nothing() {
    let backend = frozen();
    let setup = Setup::before(&backend);
    let (observer, events) = Events::new();
    let observer = move |event: &Event| {
        observer(event);
        panic!("the observer failed");
    };
    let holder = backend
        .mutex()
        .acquire(KEY, LeaseDuration::MAX)
        .expect("it is free");
    let locker = setup.builder().observer(observer).build().expect("sound");
    let guard = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| locker.lock());
        events.wait(|event| matches!(event, Event::Waiting { .. }));
        backend.mutex().release(&holder).expect("it is held");
        waiting.join().expect("the panic stays in the observer")
    });
    let guard = guard.expect("it is free now");
    for _ in 0..3 {
        backend.pass(20 * SEC);
        events.wait(is_renewed);
    }
    setup.once_on("renew", Fault::DropBefore);
    backend.pass(20 * SEC);
    events.wait(is_renewal_failed);
    guard.check().expect("it is held");
    guard.release().expect("it is held");
    events.wait(|event| matches!(event, Event::Released));
}

/// Another process that holds the lock, made of this test binary.
struct Holder {
    child: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

impl Holder {
    const ENDPOINT: &str = "AZMUTEX_IT_HOLDER_ENDPOINT";
    const RATE: &str = "AZMUTEX_IT_HOLDER_RATE";
    const CONTAINER: &str = "AZMUTEX_IT_HOLDER_CONTAINER";

    /// Starts it, and waits until it holds the lock. `rate`: how fast its clock runs.
    fn start(backend: &Backend, rate: u32) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("a path"))
            .args([
                "--exact",
                "faults::processes::other_process_holds_the_lock",
                "--nocapture",
            ])
            .env(Self::ENDPOINT, backend.account().endpoint())
            .env(Self::CONTAINER, backend.container())
            .env(Self::RATE, rate.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test binary can be run");
        let to = child.stdin.take().expect("it is piped");
        let from = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut holder = Self { child, to, from };
        holder.expect("held");
        holder
    }

    #[track_caller]
    fn expect(&mut self, answer: &str) {
        let said = self.from.by_ref().find_map(|line| {
            let line = line.expect("it writes text");
            Some(line.strip_prefix("holder: ")?.to_owned())
        });
        assert_eq!(said.as_deref(), Some(answer));
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill(); // It ends a stopped process too.
        let _ = self.child.wait();
    }
}

/// Not a test of its own: what a [`Holder`] runs. It works when it is told to, if it still holds
/// the lock.
#[test]
fn other_process_holds_the_lock() {
    let var = |name| std::env::var(name).ok();
    let (Some(endpoint), Some(container), Some(rate)) = (
        var(Holder::ENDPOINT),
        var(Holder::CONTAINER),
        var(Holder::RATE),
    ) else {
        return;
    };
    let rate = rate.parse().expect("a number");
    let options = MutexOptions::development(&container)
        .and_then(|options| options.endpoint(&endpoint))
        .expect("well-formed")
        .clock(Clock::with_rate(rate));
    let mutex = AzureMutex::new(options).expect("sound");
    let guard = Locker::new(mutex, KEY)
        .and_then(|locker| locker.lock())
        .expect("it is free");
    println!("\nholder: held");
    for line in std::io::stdin().lines() {
        assert_eq!(line.expect("it is told in text"), "work");
        match guard.check() {
            Ok(()) => println!("\nholder: worked"),
            Err(_) => println!("\nholder: refused"),
        }
    }
}

#[cfg(unix)]
#[test]
fn process_stopped_past_its_deadline_fails_its_first_check() {
    // A minute takes three seconds.
    const RATE: u32 = 20;
    let backend = Backend::emulator_by(Clock::with_rate(RATE));
    let setup = Setup::before(&backend);
    let mut holder = Holder::start(&backend, RATE);
    writeln!(holder.to, "work").expect("it reads");
    holder.expect("worked");
    stop(&holder.child);
    // Told already, so that it works as soon as it goes on, before its renewal thread could know.
    writeln!(holder.to, "work").expect("the pipe has room");
    let next = within(3 * SEC, || setup.locker().try_lock_for(LONG * RATE));
    let next = next.expect("a stopped process renews nothing");
    go_on(&holder.child);
    holder.expect("refused");
    next.check().expect("only one holds it");
}

#[test]
fn killed_holder_loses_the_lock_when_its_lease_runs_out() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let mut holder = Holder::start(&backend, 1);
    fails(setup.locker().try_lock(), ErrorKind::WouldBlock);
    holder.child.kill().expect("it runs");
    holder.child.wait().expect("it ends");
    fails(setup.locker().try_lock(), ErrorKind::WouldBlock);
    assert_eq!(setup.state(), LeaseState::Leased);
    backend.pass(60 * SEC);
    assert_eq!(setup.state(), LeaseState::Expired);
    let guard = setup.locker().try_lock().expect("its lease has run out");
    guard.release().expect("it is held");
}
