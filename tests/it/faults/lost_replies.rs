//! Requests that are lost before the service acts, and replies that are lost after it did.

use azmutex::{ErrorKind, Lease, LeaseDuration, LeaseState};

use super::*;
use crate::support::proxy::{gateway_unavailable, internal_error};
use crate::support::{LONG, on_local_services};

on_local_services! {
    acquire_whose_reply_was_lost_is_sent_again_with_the_same_id
    acquire_that_hangs_is_sent_again_with_the_same_id
    try_lock_whose_reply_was_lost_is_no_refusal
    creation_whose_reply_was_lost_is_made_good
    release_whose_reply_was_lost_is_reported_released
    renew_whose_reply_was_lost_leaves_the_lock_held
    change_whose_reply_was_lost_has_happened
    break_whose_reply_was_lost_is_not_sent_again
    reads_whose_replies_were_lost_are_asked_again
    connections_closed_between_requests_are_made_anew
    acquire_given_up_after_the_service_acted_is_taken_back
    acquire_without_any_reply_names_the_lease_that_it_may_have_left
    acquire_with_an_id_of_the_callers_own_takes_no_other
    late_copy_of_an_acquire_given_up_is_never_used
    late_copies_of_answered_requests_do_no_harm
}

/// Each way to lose a request or its reply at once.
fn losses() -> [Fault; 7] {
    [
        Fault::DropBefore,
        Fault::DropAfter,
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::Truncate(30),
        Fault::AnswerAfter(internal_error()),
        Fault::AnswerAfter(gateway_unavailable()),
    ]
}

/// The losses, and requests that hang, with the time that all attempts may take together. Those that
/// hang take half of it, and the rest is enough for a busy machine.
fn losses_and_hangs() -> impl Iterator<Item = (Fault, Duration)> {
    let hangs = [Fault::HangBefore, Fault::HangAfter];
    let losses = losses().map(|fault| (fault, LONG));
    losses
        .into_iter()
        .chain(hangs.map(|fault| (fault, 3 * SEC)))
}

fn acquire_whose_reply_was_lost_is_sent_again_with_the_same_id(backend: &Backend) {
    for fault in losses() {
        let setup = Setup::before(backend);
        setup.once_on("acquire", fault.clone());
        // A lock of 60 seconds that shuts its own client out would not be had by then.
        let (guard, _) = within(LONG, || {
            setup.lock_with(|_| Locker::builder(setup.patient_mutex(), KEY))
        });
        let ids: Vec<_> = setup
            .seen("acquire")
            .iter()
            .map(|s| proposed_id(s))
            .collect();
        let id = guard.lease_id().to_string();
        assert_eq!(ids, [id.clone(), id], "{fault:?}");
        assert_eq!(setup.state(), LeaseState::Leased, "{fault:?}");
        guard.release().expect("it is held");
        assert_eq!(setup.state(), LeaseState::Available, "{fault:?}");
    }
}

fn acquire_that_hangs_is_sent_again_with_the_same_id(backend: &Backend) {
    let options = format!("{:?}", backend.options());
    assert!(options.contains("request_timeout: 10s"), "{options}");
    for fault in [Fault::HangBefore, Fault::HangAfter] {
        let setup = Setup::before(backend);
        // Half of it goes by, and the rest is enough for a busy machine.
        let options = setup.options().request_timeout(3 * SEC);
        let mutex = AzureMutex::new(options).expect("sound");
        setup.once_on("acquire", fault.clone());
        let (guard, _) = within(3 * SEC, || {
            setup.lock_with(|_| Locker::builder(mutex.clone(), KEY))
        });
        let ids: Vec<_> = setup
            .seen("acquire")
            .iter()
            .map(|s| proposed_id(s))
            .collect();
        let id = guard.lease_id().to_string();
        assert_eq!(ids, [id.clone(), id], "{fault:?}");
        drop(guard);

        setup.once_on("acquire", fault);
        let lease = within(3 * SEC, || mutex.acquire(KEY, LeaseDuration::MAX));
        let lease = lease.expect("the second attempt is answered");
        mutex.release(&lease).expect("it is held");
    }
}

fn try_lock_whose_reply_was_lost_is_no_refusal(backend: &Backend) {
    let setup = Setup::before(backend);
    for fault in losses() {
        setup.once_on("acquire", fault.clone());
        let guard = setup.patient_locker().try_lock();
        drop(guard.unwrap_or_else(|error| panic!("{fault:?}: {error}")));
    }
}

fn creation_whose_reply_was_lost_is_made_good(backend: &Backend) {
    let setup = Setup::before(backend);
    let creates =
        |request: &RequestHead| request.method == "PUT" && request.lease_action().is_none();
    for (round, fault) in losses().into_iter().enumerate() {
        // The container's creation and then the blob's, of a container of its own.
        let container = format!("{}-{round}", &backend.container()[..40]);
        let options = backend.options_for(&container).request_timeout(2 * TIMEOUT);
        let options = options
            .endpoint(&setup.proxy.endpoint())
            .expect("well-formed");
        let mutex = AzureMutex::new(options).expect("sound");
        setup.proxy.when(creates, fault.clone());
        setup.proxy.when(creates, fault.clone());
        let locker = Locker::new(mutex, KEY).expect("sound");
        let guard = within(2 * SEC, || locker.lock());
        drop(guard.unwrap_or_else(|error| panic!("{fault:?}: {error}")));
    }
}

fn release_whose_reply_was_lost_is_reported_released(backend: &Backend) {
    let setup = Setup::before(backend);
    for (fault, limit) in losses_and_hangs() {
        let options = setup.options().request_timeout(limit);
        let mutex = AzureMutex::new(options).expect("sound");
        let lease = mutex.acquire(KEY, LeaseDuration::MAX).expect("it is free");
        setup.once_on("release", fault.clone());
        let released = within(limit, || mutex.release(&lease));
        assert_eq!(released.map_err(|error| error.kind()), Ok(()), "{fault:?}");

        let locker = Locker::builder(mutex, KEY).release_timeout(limit).build();
        let guard = locker.expect("sound").lock().expect("it is free");
        let before = setup.seen("release").len();
        setup.once_on("release", fault.clone());
        let released = within(limit, || guard.release());
        assert_eq!(released.map_err(|error| error.kind()), Ok(()), "{fault:?}");
        assert_eq!(setup.seen("release").len(), before + 2, "{fault:?}");
        assert_eq!(setup.state(), LeaseState::Available, "{fault:?}");
    }
}

fn renew_whose_reply_was_lost_leaves_the_lock_held(backend: &Backend) {
    let setup = Setup::before(backend);
    for (fault, limit) in losses_and_hangs() {
        let options = setup.options().request_timeout(limit);
        let mutex = AzureMutex::new(options).expect("sound");
        let lease = mutex.acquire(KEY, LeaseDuration::MAX).expect("it is free");
        setup.once_on("renew", fault.clone());
        let renewed = within(limit, || mutex.renew(&lease));
        renewed.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        mutex.release(&lease).expect("it is held");
    }

    // By a clock that is fast, so that the retry does not take seconds.
    let options = setup
        .options()
        .request_timeout(LONG)
        .clock(Clock::with_rate(20));
    let (observer, events) = Events::new();
    let locker = Locker::builder(AzureMutex::new(options).expect("sound"), KEY)
        .renewal_interval(Duration::from_secs(1))
        .observer(observer)
        .build()
        .expect("sound");
    setup.once_on("renew", Fault::DropAfter);
    let guard = locker.lock().expect("it is free");
    events.wait(is_renewal_failed);
    guard.check().expect("it is held until the deadline");
    events.wait(is_renewed);
    assert_eq!(
        events.count(|event| is_unproven(event) || is_loss(event)),
        0
    );
    guard.release().expect("it is held");
}

fn change_whose_reply_was_lost_has_happened(backend: &Backend) {
    let setup = Setup::before(backend);
    let mutex = setup.patient_mutex();
    for fault in losses() {
        let old = mutex.acquire(KEY, LeaseDuration::MAX).expect("it is free");
        setup.once_on("change", fault.clone());
        let new = within(LONG, || {
            mutex.change(&old, LeaseId::random().expect("random numbers"))
        });
        let new = new.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        is_lost(mutex.renew(&old), LossReason::Taken);
        mutex.release(&new).expect("it is held");
    }
}

fn break_whose_reply_was_lost_is_not_sent_again(backend: &Backend) {
    let setup = Setup::before(backend);
    let mutex = setup.patient_mutex();
    let acted = [
        Fault::DropAfter,
        Fault::ResetAfter,
        Fault::Truncate(30),
        Fault::AnswerAfter(internal_error()),
        Fault::AnswerAfter(gateway_unavailable()),
    ];
    for (round, fault) in acted.into_iter().enumerate() {
        mutex
            .acquire(KEY, LeaseDuration::INFINITE)
            .expect("it is free");
        setup.once_on("break", fault.clone());
        // A second one could hit whoever holds the lease by then.
        let error = within(LONG, || mutex.break_lease(KEY, None)).expect_err("no answer");
        let kinds = [
            ErrorKind::Transport,
            ErrorKind::Service,
            ErrorKind::Throttled,
        ];
        assert!(kinds.contains(&error.kind()), "{fault:?}: {error}");
        assert_eq!(setup.seen("break").len(), round + 1, "{fault:?}");
        assert_eq!(setup.state(), LeaseState::Broken);
    }
}

fn reads_whose_replies_were_lost_are_asked_again(backend: &Backend) {
    let setup = Setup::before(backend);
    let mutex = setup.patient_mutex();
    for fault in losses() {
        setup.proxy.push(fault.clone());
        let status = within(LONG, || mutex.status(KEY));
        let status = status.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        setup.proxy.push(fault.clone());
        let listed: Result<Vec<_>, _> = within(LONG, || mutex.list("").collect());
        assert_eq!(
            listed.expect("the second page is whole"),
            [status],
            "{fault:?}"
        );
    }
}

fn connections_closed_between_requests_are_made_anew(backend: &Backend) {
    let setup = Setup::before(backend);
    setup.proxy.always(Some(Fault::CloseAfterReply));
    let locker = setup.patient_locker();
    for _ in 0..10 {
        let guard = locker.lock().expect("it is free");
        guard.release().expect("it is held");
    }
    assert!(
        setup.proxy.connections() >= 20,
        "{}",
        setup.proxy.connections()
    );
}

fn acquire_given_up_after_the_service_acted_is_taken_back(backend: &Backend) {
    let setup = Setup::before(backend);
    for fault in [Fault::HangAfter, Fault::DropAfter] {
        setup.always_on("acquire", fault.clone());
        let mutex = setup.mutex();
        let acquired = within(TIMEOUT, || mutex.acquire(KEY, LeaseDuration::INFINITE));
        fails(acquired, ErrorKind::Transport);
        assert_eq!(setup.state(), LeaseState::Available, "{fault:?}");

        let locker = setup.locker();
        fails(within(TIMEOUT, || locker.try_lock()), ErrorKind::Transport);
        assert!(locker.settle(LONG));
        assert_eq!(setup.state(), LeaseState::Available, "{fault:?}");

        let locked = within(TIMEOUT, || locker.try_lock_for(100 * MILLI));
        fails(locked, ErrorKind::Transport);
        assert!(locker.settle(LONG));
        assert_eq!(setup.state(), LeaseState::Available, "{fault:?}");
        setup.proxy.clear();
    }
}

fn acquire_without_any_reply_names_the_lease_that_it_may_have_left(backend: &Backend) {
    let setup = Setup::before(backend);
    let mutex = setup.mutex();
    for fault in [Fault::DropAfter, Fault::HangAfter] {
        setup.always_on("acquire", fault.clone());
        setup.always_on("release", Fault::DropBefore);
        let acquired = within(TIMEOUT, || mutex.acquire(KEY, LeaseDuration::INFINITE));
        let error = fails(acquired, ErrorKind::Transport);
        let id = error.lease_id();
        let id = id.unwrap_or_else(|| panic!("{fault:?}: nobody else knows it: {error}"));
        assert_eq!(setup.state(), LeaseState::Leased, "{fault:?}");

        let locker = setup.builder().release_timeout(TIMEOUT).build();
        let locker = locker.expect("sound");
        setup.proxy.clear();
        fails(locker.try_lock(), ErrorKind::WouldBlock);
        let left = Lease::new(KEY, id).expect("the key is sound");
        mutex.release(&left).expect("it is that lease");

        // A locker's runs out by itself, and can be released all the same.
        setup.always_on("acquire", fault.clone());
        setup.always_on("release", Fault::DropBefore);
        let error = fails(locker.try_lock(), ErrorKind::Transport);
        assert!(locker.settle(LONG));
        setup.proxy.clear();
        let id = error.lease_id().expect("the service may have granted it");
        let left = Lease::new(KEY, id).expect("the key is sound");
        mutex.release(&left).expect("it is that lease");
    }
    // What was released for certain, or never granted, is nobody's business.
    setup.always_on("acquire", Fault::DropAfter);
    let error = fails(
        mutex.acquire(KEY, LeaseDuration::INFINITE),
        ErrorKind::Transport,
    );
    assert_eq!(error.lease_id(), None);
    setup.proxy.clear();
    let held = mutex.acquire(KEY, LeaseDuration::MIN).expect("it is free");
    let error = fails(
        mutex.acquire(KEY, LeaseDuration::MIN),
        ErrorKind::WouldBlock,
    );
    assert_eq!(error.lease_id(), None);
    mutex.release(&held).expect("it is held");
}

fn acquire_with_an_id_of_the_callers_own_takes_no_other(backend: &Backend) {
    let setup = Setup::before(backend);
    let mutex = setup.mutex();
    let id = LeaseId::random().expect("random numbers");
    setup.once_on("acquire", Fault::DropAfter);
    let lease = mutex.acquire_with_id(KEY, LeaseDuration::INFINITE, id);
    let lease = lease.expect("the second attempt is answered");
    assert_eq!((lease.key(), lease.id()), (KEY, id));
    assert_eq!(setup.state(), LeaseState::Leased);
    let ids: Vec<_> = setup
        .seen("acquire")
        .iter()
        .map(|seen| proposed_id(seen))
        .collect();
    assert_eq!(ids, [id.to_string(), id.to_string()]);
    // Whoever wrote it down first can release the lease, whatever came of the acquire.
    let noted = Lease::new(KEY, id).expect("the key is sound");
    mutex.release(&noted).expect("it is held");
    assert_eq!(setup.state(), LeaseState::Available);
}

fn late_copy_of_an_acquire_given_up_is_never_used(backend: &Backend) {
    let setup = Setup::before(backend);
    let locker = setup
        .builder()
        .lease_duration(Duration::from_secs(15))
        .build()
        .expect("sound");
    setup.always_on("acquire", Fault::Defer);
    fails(within(TIMEOUT, || locker.try_lock()), ErrorKind::Transport);
    assert!(locker.settle(LONG));
    setup.proxy.clear();
    let given_up = proposed_id(&setup.seen("acquire")[0]);
    let late = setup.proxy.deliver_late();
    assert!(late.iter().all(|reply| reply.status == 201), "{late:?}");
    // Nobody holds it, and nobody renews it. Where the clock cannot be stepped, the test goes on
    // with the lease broken instead of run out.
    fails(locker.try_lock(), ErrorKind::WouldBlock);
    backend.pass(15 * SEC);
    if !backend.can_pass() {
        backend
            .mutex()
            .break_lease(KEY, Some(Duration::ZERO))
            .expect("it is leased");
    }
    let guard = locker.try_lock().expect("the lease has run out");
    assert_ne!(guard.lease_id().to_string(), given_up);
    let requests = setup.seen("acquire");
    let (last, others) = requests.split_last().expect("there were some");
    assert_eq!(proposed_id(last), guard.lease_id().to_string());
    assert!(
        others
            .iter()
            .all(|other| proposed_id(other) != proposed_id(last))
    );
    guard.release().expect("it is held");
}

fn late_copies_of_answered_requests_do_no_harm(backend: &Backend) {
    let setup = Setup::before(backend);
    let mutex = setup.patient_mutex();
    setup.once_on("renew", Fault::Duplicate);
    setup.once_on("release", Fault::Duplicate);
    let first = mutex.acquire(KEY, LeaseDuration::MAX).expect("it is free");
    mutex.renew(&first).expect("it is held");
    mutex.release(&first).expect("it is held");
    let second = mutex.acquire(KEY, LeaseDuration::MAX).expect("it is free");
    for late in setup.proxy.deliver_late() {
        let code = late.header("x-ms-error-code");
        assert_eq!(code, Some("LeaseIdMismatchWithLeaseOperation"));
    }
    mutex.release(&second).expect("it is held");
}
