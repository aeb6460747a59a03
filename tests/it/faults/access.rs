//! Credentials that are refused, clocks that are off, and services that cannot be reached.

use azmutex::Credential;

use super::*;
use crate::support::account::Account;

/// 32 bytes of zero: the key of nobody.
const WRONG_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

#[test]
fn wrong_key_is_an_auth_error_that_names_what_to_check() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let options = MutexOptions::new(backend.account().name(), WRONG_KEY, backend.container())
        .and_then(|options| options.endpoint(&setup.proxy.endpoint()))
        .expect("well-formed");
    let mutex = AzureMutex::new(options).expect("sound");
    let locker = Locker::new(mutex.clone(), KEY).expect("sound");
    // At once, for lock too: time does not mend it.
    let error = fails(within(SEC, || locker.lock()), ErrorKind::Auth);
    assert_eq!(
        (error.status(), error.service_code()),
        (Some(403), Some("AuthenticationFailed"))
    );
    assert!(
        error
            .to_string()
            .contains("; check the account name and key (127.0.0.1:"),
        "{error}"
    );
    assert_eq!(setup.proxy.seen().len(), 1);
    fails(mutex.status(KEY), ErrorKind::Auth);
    fails(
        mutex.list("").collect::<Result<Vec<_>, _>>(),
        ErrorKind::Auth,
    );
    // The reply quotes the signature and what was signed.
    let shown = format!("{error} {error:?}");
    assert!(
        !shown.contains("PUT\n") && !shown.contains("MAC signature"),
        "{shown}"
    );
}

#[test]
fn missing_rights_are_an_auth_error_that_names_the_role() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    for (code, text) in [
        (
            "AuthorizationPermissionMismatch",
            "Storage Blob Data Contributor",
        ),
        (
            "InsufficientAccountPermissions",
            "Storage Blob Data Contributor",
        ),
        ("AuthorizationFailure", "network rules"),
        (
            "KeyBasedAuthenticationNotPermitted",
            "does not allow access with its key",
        ),
    ] {
        setup
            .proxy
            .always(Some(Fault::Answer(crate::support::proxy::forbidden(code))));
        let error = fails(within(SEC, || setup.locker().lock()), ErrorKind::Auth);
        assert_eq!(error.service_code(), Some(code));
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn clock_that_is_off_is_told_with_the_difference() {
    const MINUTE: Duration = Duration::from_secs(60);
    for (ours, theirs, text) in [
        (
            16 * MINUTE,
            Duration::ZERO,
            "clock is 16 minutes ahead of the service's",
        ),
        (
            Duration::ZERO,
            90 * MINUTE,
            "clock is 90 minutes behind the service's",
        ),
    ] {
        let service = Clock::frozen();
        let backend = Backend::emulator_by(service.clone());
        let mine = Clock::frozen();
        let mutex = AzureMutex::new(backend.options().clock(mine.clone())).expect("sound");
        mutex
            .acquire(KEY, LeaseDuration::MIN)
            .expect("the clocks agree");
        mine.advance(ours);
        service.advance(theirs);
        let error = fails(mutex.acquire(KEY, LeaseDuration::MIN), ErrorKind::Auth);
        // The two clocks were not made at the same instant.
        let other = text.replace("16", "15").replace("90", "89");
        let shown = error.to_string();
        assert!(shown.contains(text) || shown.contains(&other), "{shown}");
        assert!(
            shown.contains("at most 15 are allowed; set the clock"),
            "{shown}"
        );
    }
    // As far as is allowed, nobody minds.
    let backend = frozen();
    let mine = Clock::frozen();
    mine.advance(14 * MINUTE);
    let mutex = AzureMutex::new(backend.options().clock(mine)).expect("sound");
    mutex
        .acquire(KEY, LeaseDuration::MIN)
        .expect("14 minutes are allowed");
}

#[test]
fn retries_are_signed_afresh() {
    // The first attempt hangs for half an hour by the clock of both.
    let backend = frozen();
    let setup = Setup::before(&backend);
    setup.once_on("acquire", Fault::HangBefore);
    std::thread::scope(|scope| {
        let locking = scope.spawn(|| setup.locker().lock().map(drop));
        setup.proxy.wait_for(1, |_| true, crate::support::LONG);
        backend.pass(Duration::from_secs(1800));
        locking
            .join()
            .expect("no panic")
            .expect("the second is dated anew");
    });
}

#[test]
fn sas_that_ended_while_in_use_is_told_with_its_end() {
    let clock = Clock::frozen();
    // Five minutes from now, by an account whose key only makes the token.
    let account = Account::parse(&crate::support::azurite::connection_string(
        "http://127.0.0.1",
    ));
    let sas = account.sas(Duration::from_secs(300));
    let emulator = azmutex::emulator::Emulator::builder()
        .clock(clock.clone())
        .start()
        .expect("it starts");
    let options = |sas: &str| {
        let credential = Credential::sas(sas).expect("well-formed");
        MutexOptions::with_credential(emulator.account(), credential, "locks")
            .and_then(|options| options.endpoint(&emulator.endpoint()))
            .expect("well-formed")
            .clock(clock.clone())
    };
    let mutex = AzureMutex::new(options(&sas)).expect("sound");
    let (observer, events) = Events::new();
    let locker = Locker::builder(mutex, KEY)
        .observer(observer)
        .build()
        .expect("sound");
    let guard = locker.lock().expect("it is made");
    // It ends between two renewals, of which the first is good.
    for _ in 0..14 {
        clock.advance(20 * SEC);
        events.wait(is_renewed);
    }
    clock.advance(30 * SEC);
    let Event::RenewalFailed { error, .. } = events.wait(is_renewal_failed) else {
        unreachable!()
    };
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert!(
        error.to_string().contains("the SAS expired at 2"),
        "{error}"
    );
    guard.check().expect("it is held until the deadline");
    clock.advance(25 * SEC);
    fails(guard.check(), ErrorKind::LeaseUnproven);
    // A client made now is refused before it sends anything.
    let requests = emulator.requests();
    let error = fails(AzureMutex::new(options(&sas)), ErrorKind::Config);
    assert!(error.to_string().contains("it expired at 2"), "{error}");
    assert_eq!(emulator.requests(), requests);
    // A wrong SAS is another matter than an old one.
    let wrong = account
        .sas(2 * Duration::from_secs(3600))
        .replace("sig=", "sig=x");
    let mutex = AzureMutex::new(options(&wrong)).expect("sound");
    let error = fails(mutex.acquire(KEY, LeaseDuration::MIN), ErrorKind::Auth);
    assert!(
        error.to_string().contains("that the SAS is complete"),
        "{error}"
    );
}

#[test]
fn name_that_does_not_resolve_is_a_transport_error_in_time() {
    let key = WRONG_KEY;
    let options = MutexOptions::new("azmutex", key, "locks")
        .and_then(|options| options.endpoint("https://azmutex.invalid"))
        .expect("well-formed")
        .request_timeout(TIMEOUT);
    let mutex = AzureMutex::new(options).expect("sound");
    let locker = Locker::builder(mutex.clone(), KEY)
        .fault_wait(TIMEOUT)
        .build()
        .expect("sound");
    fails(
        within(TIMEOUT, || mutex.acquire(KEY, LeaseDuration::MIN)),
        ErrorKind::Transport,
    );
    fails(within(TIMEOUT, || locker.try_lock()), ErrorKind::Transport);
    let error = fails(within(TIMEOUT, || locker.lock()), ErrorKind::Transport);
    assert_eq!(error.status(), None);
}

#[test]
fn refused_connection_is_a_transport_error_in_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("a bound listener's address");
    drop(listener);
    let options = MutexOptions::development("locks")
        .and_then(|options| options.endpoint(&format!("http://{addr}/devstoreaccount1")))
        .expect("well-formed")
        .request_timeout(TIMEOUT);
    let mutex = AzureMutex::new(options).expect("sound");
    let acquired = within(TIMEOUT, || mutex.acquire(KEY, LeaseDuration::MIN));
    let error = fails(acquired, ErrorKind::Transport);
    assert!(
        error.to_string().contains("the connection was refused"),
        "{error}"
    );
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn plain_http_to_another_machine_is_refused_before_any_request() {
    for endpoint in [
        "http://azmutex.invalid",
        "http://192.0.2.1/devstoreaccount1",
    ] {
        let options = MutexOptions::development("locks")
            .and_then(|options| options.endpoint(endpoint))
            .expect("well-formed");
        let error = within(Duration::ZERO, || AzureMutex::new(options.clone()));
        let error = fails(error, ErrorKind::Config);
        assert!(
            error
                .to_string()
                .contains("plain http is for this machine only"),
            "{error}"
        );
        AzureMutex::new(options.allow_insecure_http(true)).expect("allowed on request");
    }
}
