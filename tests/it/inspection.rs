//! What the library does for those who look at locks and keep lease IDs themselves.

use std::time::{Duration, SystemTime};

use azmutex::emulator::Emulator;
use azmutex::{AzureMutex, ErrorKind, Holder, Lease, LeaseDuration, LeaseId, LeaseState, Locker};

use crate::support::azurite::Azurite;

fn emulated() -> (Emulator, AzureMutex) {
    let emulator = Emulator::start().unwrap();
    let mutex = AzureMutex::new(emulator.options("locks").unwrap()).unwrap();
    (emulator, mutex)
}

#[test]
fn break_by_etag_spares_a_newer_holder() {
    let (_emulator, mutex) = emulated();
    let lease = mutex.acquire("a", LeaseDuration::MAX).unwrap();
    let seen = mutex.status("a").unwrap();
    mutex.renew(&lease).unwrap();
    mutex
        .write_holder(&lease, Holder::current(LeaseDuration::MAX))
        .unwrap();
    let zero = Some(Duration::ZERO);
    let error = mutex
        .break_lease_if_match("a", zero, seen.etag())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_eq!(error.service_code(), Some("ConditionNotMet"));
    mutex.verify(&lease).unwrap();

    let seen = mutex.status("a").unwrap();
    mutex.renew(&lease).unwrap();
    assert_eq!(
        mutex.break_lease_if_match("a", zero, seen.etag()).unwrap(),
        Duration::ZERO
    );
    assert_eq!(
        mutex.verify(&lease).unwrap_err().kind(),
        ErrorKind::LeaseLost
    );
}

#[test]
fn verify_tells_the_holder_from_all_others() {
    let (emulator, mutex) = emulated();
    let lease = mutex.acquire("a", LeaseDuration::MAX).unwrap();
    mutex.verify(&lease).unwrap();
    let lost = |lease: &Lease| mutex.verify(lease).unwrap_err().kind() == ErrorKind::LeaseLost;
    assert!(lost(
        &Lease::new("a", LeaseId::random().expect("random numbers")).unwrap()
    ));
    assert!(lost(
        &Lease::new("missing", LeaseId::random().expect("random numbers")).unwrap()
    ));
    emulator.clock().advance(Duration::from_secs(61));
    assert!(lost(&lease));
    mutex.renew(&lease).unwrap();
    mutex.verify(&lease).unwrap();
    mutex.release(&lease).unwrap();
    assert!(lost(&lease));
}

#[test]
fn holder_that_was_written_is_shown_until_it_signs_off() {
    let (_emulator, mutex) = emulated();
    let locker = Locker::builder(mutex.clone(), "a")
        .fencing(true)
        .build()
        .unwrap();
    let first = locker.lock().unwrap();
    let token = first.fencing_token().unwrap();
    first.release().unwrap();

    let lease = mutex.acquire("a", LeaseDuration::INFINITE).unwrap();
    let holder = Holder::current(LeaseDuration::INFINITE)
        .with_owner("ci@x")
        .with_pid(7);
    assert!(mutex.write_holder(&lease, holder).unwrap() > token);
    let status = mutex.status("a").unwrap();
    let holder = status.holder().unwrap();
    assert_eq!(
        (holder.owner(), holder.pid(), holder.lease_duration()),
        (Some("ci@x"), Some(7), None)
    );
    mutex.write_released(&lease).unwrap();
    mutex.release(&lease).unwrap();
    let next = locker.lock().unwrap();
    assert!(!next.previous().is_abandoned());
    assert_eq!(next.previous().holder().unwrap().owner(), Some("ci@x"));

    let stranger = Lease::new("a", LeaseId::random().expect("random numbers")).unwrap();
    for error in [
        mutex
            .write_holder(&stranger, Holder::current(LeaseDuration::MAX))
            .unwrap_err(),
        mutex.write_released(&stranger).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::LeaseLost);
    }
}

#[test]
fn time_of_the_service_is_told_also_with_a_refusal() {
    let (emulator, mutex) = emulated();
    let near = |time: SystemTime, wanted: SystemTime| {
        let apart = time
            .duration_since(wanted)
            .unwrap_or_else(|error| error.duration());
        assert!(apart < Duration::from_secs(30), "{apart:?}");
    };
    near(mutex.service_time().unwrap(), SystemTime::now());
    let options = azmutex::MutexOptions::from_connection_string(
        &emulator
            .connection_string()
            .replace(emulator.key(), "bXkgc2VjcmV0IGtleQ=="),
        "locks",
    );
    emulator.clock().advance(Duration::from_secs(3600));
    let refused = AzureMutex::new(options.unwrap()).unwrap();
    let wanted = SystemTime::now() + Duration::from_secs(3600);
    near(refused.service_time().unwrap(), wanted);
}

#[test]
fn url_of_a_lock_has_no_query() {
    let (emulator, mutex) = emulated();
    assert_eq!(
        mutex.url("a/ü b"),
        format!("{}/locks/a/%C3%BC%20b", emulator.endpoint())
    );
    assert_eq!(
        (mutex.account(), mutex.container()),
        ("devstoreaccount1", "locks")
    );
}

#[test]
fn azurite_does_the_same() {
    let Some(azurite) = Azurite::shared() else {
        return;
    };
    let options =
        azmutex::MutexOptions::from_connection_string(&azurite.connection_string(), "inspection");
    let mutex = AzureMutex::new(options.unwrap()).unwrap();
    let key = LeaseId::random().expect("random numbers").to_string();
    let lease = mutex.acquire(&key, LeaseDuration::MAX).unwrap();
    mutex.verify(&lease).unwrap();
    let seen = mutex.status(&key).unwrap();
    mutex
        .write_holder(&lease, Holder::current(LeaseDuration::MAX))
        .unwrap();
    let error = mutex
        .break_lease_if_match(&key, None, seen.etag())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let seen = mutex.status(&key).unwrap();
    mutex
        .break_lease_if_match(&key, Some(Duration::ZERO), seen.etag())
        .unwrap();
    assert_eq!(mutex.status(&key).unwrap().state(), LeaseState::Broken);
    assert_eq!(
        mutex.verify(&lease).unwrap_err().kind(),
        ErrorKind::LeaseLost
    );
    mutex.service_time().unwrap();
}
