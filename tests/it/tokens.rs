//! Locks of a client that has access tokens, which expire under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use azmutex::emulator::{BearerToken, Clock, Emulator};
use azmutex::{AccessToken, AzureMutex, Credential, ErrorKind, Event, Locker, MutexOptions};
use parking_lot::Mutex;

use crate::support::proxy::FaultProxy;
use crate::support::{Events, LONG, addr_of, eventually};

const SEC: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// An emulator, and whoever issues the tokens that it accepts, by one clock.
struct Scene {
    /// What the clock's wall time starts from.
    started: SystemTime,
    clock: Clock,
    emulator: Arc<Emulator>,
    issuer: Arc<Issuer>,
}

/// What is done with the next requests for a token.
enum Mode {
    Answer,
    Fail,
    /// Nothing, until something is received.
    Hang(Receiver<()>),
}

struct Issuer {
    mode: Mutex<Mode>,
    life: Duration,
    asked: AtomicUsize,
}

impl Scene {
    /// With tokens that live for so long.
    fn new(life: Duration) -> Self {
        Self::by(Clock::frozen, life)
    }

    fn by(clock: fn() -> Clock, life: Duration) -> Self {
        // No later than the clock's own, so that the client takes no token for longer-lived than the
        // emulator does.
        let started = SystemTime::now();
        let clock = clock();
        let emulator = Emulator::builder().clock(clock.clone()).start();
        Self {
            started,
            clock,
            emulator: Arc::new(emulator.expect("it starts")),
            issuer: Arc::new(Issuer {
                mode: Mutex::new(Mode::Answer),
                life,
                asked: AtomicUsize::new(0),
            }),
        }
    }

    fn credential(&self) -> Credential {
        let (emulator, issuer) = (Arc::clone(&self.emulator), Arc::clone(&self.issuer));
        let (started, clock) = (self.started, self.clock.clone());
        Credential::token_provider(move |_| {
            let number = issuer.asked.fetch_add(1, Ordering::SeqCst);
            match &*issuer.mode.lock() {
                Mode::Answer => {}
                Mode::Fail => return Err("the issuer is out of order".into()),
                Mode::Hang(until) => drop(until.recv()),
            }
            let token = format!("s3cret-{number}");
            emulator.expect_bearer(BearerToken::new(&*token).expires_in(issuer.life));
            let expires = started + clock.elapsed() + issuer.life;
            Ok(AccessToken::new(token, expires)?)
        })
    }

    fn options(&self) -> MutexOptions {
        MutexOptions::with_credential(self.emulator.account(), self.credential(), "locks")
            .and_then(|options| options.endpoint(&self.emulator.endpoint()))
            .expect("well-formed")
            .clock(self.clock.clone())
    }

    fn mutex(&self) -> AzureMutex {
        AzureMutex::new(self.options()).expect("sound")
    }

    fn locker(&self) -> (Locker, Events) {
        let (observer, events) = Events::new();
        let builder = Locker::builder(self.mutex(), "key").holder_info(false);
        (builder.observer(observer).build().expect("sound"), events)
    }

    fn asked(&self) -> usize {
        self.issuer.asked.load(Ordering::SeqCst)
    }

    /// From now on the issuer hangs, until something is sent.
    fn hang(&self) -> Sender<()> {
        let (sender, receiver) = mpsc::channel();
        *self.issuer.mode.lock() = Mode::Hang(receiver);
        sender
    }
}

#[test]
fn lock_is_held_across_three_tokens() {
    let scene = Scene::new(10 * MINUTE);
    let (locker, events) = scene.locker();
    let guard = locker.lock().expect("free");
    while scene.asked() < 4 {
        scene.clock.advance(10 * SEC);
        assert!(guard.is_held());
        assert!(
            scene.clock.elapsed() < 30 * MINUTE,
            "a new token every five minutes"
        );
    }
    // The first has expired long since.
    assert!(scene.clock.elapsed() > 12 * MINUTE);
    assert_eq!(
        events.count(|event| matches!(event, Event::RenewalFailed { .. })),
        0
    );
    guard.release().expect("held");
}

#[test]
fn lock_is_held_while_the_issuer_hangs_for_longer_than_a_lease_lasts() {
    let scene = Scene::new(10 * MINUTE);
    let (locker, events) = scene.locker();
    let guard = locker.lock().expect("free");
    let go_on = scene.hang();
    while scene.asked() < 2 {
        scene.clock.advance(10 * SEC);
    }
    let before = events.count(|event| matches!(event, Event::Renewed));
    for _ in 0..7 {
        scene.clock.advance(10 * SEC);
        assert!(guard.is_held());
    }
    let after = events.count(|event| matches!(event, Event::Renewed));
    assert!(after - before >= 3, "{before} {after}");
    drop(go_on);
    assert_eq!(
        events.count(|event| matches!(event, Event::RenewalFailed { .. })),
        0
    );
    guard.release().expect("held");
}

#[test]
fn renewal_that_is_refused_with_401_brings_a_new_token_and_is_repeated_in_time() {
    let scene = Scene::new(60 * MINUTE);
    let (locker, events) = scene.locker();
    let guard = locker.lock().expect("free");
    scene.emulator.revoke_bearer("s3cret-0");
    scene.clock.advance(20 * SEC);
    let failed = events.wait(|event| matches!(event, Event::RenewalFailed { .. }));
    let Event::RenewalFailed { error, .. } = failed else {
        unreachable!()
    };
    assert_eq!((error.kind(), error.status()), (ErrorKind::Auth, Some(401)));
    eventually(|| (scene.asked() == 2).then_some(()));
    assert!(guard.is_held());
    events.wait_stepping(
        SEC / 10,
        || scene.clock.advance(SEC),
        |event| matches!(event, Event::Renewed),
    );
    assert!(guard.is_held() && scene.clock.elapsed() < 55 * SEC);
    guard.release().expect("held");
}

#[test]
fn lock_without_a_token_is_held_until_its_own_deadline_and_again_with_one() {
    let scene = Scene::new(10 * MINUTE);
    let (locker, events) = scene.locker();
    let guard = locker.lock().expect("free");
    *scene.issuer.mode.lock() = Mode::Fail;
    let is_failure = |event: &Event| matches!(event, Event::RenewalFailed { .. });
    while events.count(is_failure) == 0 {
        scene.clock.advance(SEC);
        assert!(guard.is_held());
    }
    // The token has expired. The lease was renewed at most 20 s ago, and lasts 55.
    assert!(scene.clock.elapsed() >= 10 * MINUTE);
    for _ in 0..30 {
        scene.clock.advance(SEC);
        assert!(guard.is_held());
    }
    for _ in 0..30 {
        scene.clock.advance(SEC);
    }
    events.wait(|event| matches!(event, Event::Unproven));
    *scene.issuer.mode.lock() = Mode::Answer;
    events.wait_stepping(
        SEC / 10,
        || scene.clock.advance(SEC),
        |event| matches!(event, Event::HeldAgain),
    );
    let error = events.heard().into_iter().find_map(|event| match event {
        Event::RenewalFailed { error, .. } => Some(error),
        _ => None,
    });
    let error = error.expect("a renewal failed");
    assert_eq!(
        error.to_string(),
        "failed to renew lease on `devstoreaccount1/locks/key`: the token provider gave no token"
    );
    assert!(format!("{error:?}").contains("the issuer is out of order"));
    guard.release().expect("held");
}

#[test]
fn token_that_is_refused_is_replaced_and_the_request_sent_again_once() {
    let scene = Scene::new(60 * MINUTE);
    let mutex = scene.mutex();
    mutex.list("").for_each(drop);
    scene.emulator.revoke_bearer("s3cret-0");
    mutex
        .acquire("key", azmutex::LeaseDuration::MAX)
        .expect("with the next token");
    assert_eq!(scene.asked(), 2);
    // Nor is the next one accepted: nothing is asked for again.
    scene.emulator.revoke_bearer("s3cret-1");
    for _ in 0..3 {
        let error = mutex.status("key").unwrap_err();
        assert_eq!((error.kind(), error.status()), (ErrorKind::Auth, Some(401)));
        assert!(
            error
                .to_string()
                .contains("the service does not accept the token of token provider"),
            "{error}"
        );
    }
    assert_eq!(scene.asked(), 2);
}

#[test]
fn cached_token_costs_no_request_more_than_a_key() {
    let scene = Scene::new(60 * MINUTE);
    let proxy = FaultProxy::start(addr_of(&scene.emulator));
    let requests = |options: MutexOptions| {
        let options = options.endpoint(&proxy.endpoint()).expect("well-formed");
        let mutex = AzureMutex::new(options).expect("sound");
        let locker = Locker::new(mutex, "key").expect("sound");
        // The container and the blob, and a token.
        locker.lock().expect("free").release().expect("held");
        let before = proxy.seen().len();
        locker.lock().expect("free").release().expect("held");
        proxy.seen().len() - before
    };
    let by_key = requests(scene.emulator.options("locks").expect("well-formed"));
    let by_token = requests(scene.options());
    assert_eq!((by_key, by_token, scene.asked()), (2, 2, 1));
}

#[test]
fn identity_without_the_role_is_told_which_one_it_needs() {
    let scene = Scene::new(60 * MINUTE);
    let issue = |token: BearerToken, text: &'static str| {
        scene.emulator.expect_bearer(token);
        let credential = Credential::token_provider(move |_| {
            Ok(AccessToken::new(text, SystemTime::now() + 60 * MINUTE)?)
        });
        MutexOptions::with_credential(scene.emulator.account(), credential, "locks")
            .and_then(|options| options.endpoint(&scene.emulator.endpoint()))
            .and_then(AzureMutex::new)
            .expect("sound")
    };
    // An application of a tenant; what it says is read for messages.
    let jwt = "e30.eyJhcHBpZCI6IjY3MzEtZGUiLCJ0aWQiOiI3MmY5LThiIiwib2lkIjoiMTEtMjIifQ.c2ln";
    let mutex = issue(BearerToken::new(jwt).without_role(), jwt);
    let error = mutex.status("key").unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Auth, Some(403)));
    scene
        .mutex()
        .acquire("key", azmutex::LeaseDuration::MAX)
        .expect("creates it");
    let error = mutex
        .acquire("key", azmutex::LeaseDuration::MAX)
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(
            "AuthorizationPermissionMismatch (403): token provider, client 6731-de, tenant 72f9-8b \
             may not do this: it needs the role Storage Blob Data Contributor on the container"
        ),
        "{text}"
    );
    let identity = mutex
        .token_identity()
        .expect("it has one")
        .expect("a token");
    assert_eq!(identity.object_id(), Some("11-22"));
    assert_eq!(identity.audience(), "https://storage.azure.com");
    // A role on the container cannot create the container.
    let elsewhere = MutexOptions::with_credential(
        scene.emulator.account(),
        Credential::token_provider(move |_| {
            Ok(AccessToken::new(jwt, SystemTime::now() + 60 * MINUTE)?)
        }),
        "elsewhere",
    )
    .and_then(|options| options.endpoint(&scene.emulator.endpoint()))
    .and_then(AzureMutex::new)
    .expect("sound");
    scene
        .emulator
        .expect_bearer(BearerToken::new(jwt).read_only());
    let error = elsewhere
        .acquire("key", azmutex::LeaseDuration::MAX)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
}

#[test]
fn account_without_key_access_says_what_to_use_instead() {
    let emulator = Emulator::builder().allow_shared_key_access(false).start();
    let emulator = emulator.expect("it starts");
    let mutex = AzureMutex::new(emulator.options("locks").expect("sound")).expect("sound");
    let error = mutex
        .acquire("key", azmutex::LeaseDuration::MAX)
        .unwrap_err();
    assert_eq!(
        error.service_code(),
        Some("KeyBasedAuthenticationNotPermitted")
    );
    assert!(
        error
            .to_string()
            .contains("sign in with Microsoft Entra ID instead"),
        "{error}"
    );
}

#[test]
fn access_token_never_goes_over_plain_http_to_another_machine() {
    let credential = Credential::token_provider(|_| Err("not to be called".into()));
    let options = MutexOptions::with_credential("acct", credential, "locks")
        .and_then(|options| options.endpoint("http://acct.example.com"))
        .expect("well-formed")
        .allow_insecure_http(true);
    let error = AzureMutex::new(options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("over https only"), "{error}");
}

#[test]
fn wait_for_a_first_token_ends_with_the_wait_for_the_lock() {
    let scene = Scene::by(Clock::new, MINUTE);
    let go_on = scene.hang();
    let (locker, _) = scene.locker();
    let error = locker.try_lock_for(SEC / 10).unwrap_err();
    let error = azmutex::Error::from(error);
    assert_eq!(error.kind(), ErrorKind::Transport, "{error}");
    let mutex = AzureMutex::new(scene.options().request_timeout(SEC)).expect("sound");
    let error = mutex.status("key").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport);
    assert!(
        error
            .to_string()
            .contains("no token by token provider yet: it has not answered"),
        "{error}"
    );
    assert_eq!(error.status(), None);
    drop(go_on);
    assert!(locker.settle(LONG));
}

#[test]
fn lock_of_the_token_providers_own_that_fails_says_nothing_of_the_lock() {
    let scene = Scene::new(10 * MINUTE);
    let kinds = Emulator::start().expect("it starts");
    let kinds = AzureMutex::new(kinds.options("locks").expect("sound").create_missing(false));
    let not_found = kinds
        .and_then(|mutex| mutex.status("none"))
        .expect_err("no container");
    assert_eq!(not_found.kind(), ErrorKind::NotFound);
    let credential = Credential::token_provider(move |_| Err(not_found.clone().into()));
    let options = MutexOptions::with_credential(scene.emulator.account(), credential, "locks")
        .and_then(|new| new.endpoint(&scene.emulator.endpoint()))
        .map(|new| new.request_timeout(SEC));
    let mutex = AzureMutex::new(options.expect("sound")).expect("sound");
    let lease = scene.mutex().acquire("key", azmutex::LeaseDuration::MAX);
    let error = mutex.renew(&lease.expect("free")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport, "{error}");
    let cause = std::error::Error::source(&error).expect("the provider's");
    assert!(cause.to_string().contains("none"), "{cause}");
}

/// Threads of three programs share locks for so long, with tokens of ten seconds and an issuer that
/// fails every third time, and now and then hangs.
fn storm(lasts: Duration) {
    let emulator = Arc::new(Emulator::start().expect("it starts"));
    let end = Instant::now() + lasts;
    let (holds, renewals, lost) = (
        AtomicUsize::new(0),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(Mutex::new(Vec::new())),
    );
    thread::scope(|scope| {
        for program in 0..3 {
            let (issued, accepts) = (AtomicUsize::new(program), Arc::clone(&emulator));
            let credential = Credential::token_provider(move |_| {
                let number = issued.fetch_add(1, Ordering::SeqCst);
                match number % 9 {
                    0 | 4 | 8 => return Err("out of order".into()),
                    2 => thread::sleep(SEC * 2),
                    _ => {}
                }
                let token = format!("{program}-{number}");
                let life = 10 * SEC;
                accepts.expect_bearer(BearerToken::new(&*token).expires_in(life));
                Ok(AccessToken::new(token, SystemTime::now() + life)?)
            });
            let mutex = MutexOptions::with_credential(emulator.account(), credential, "locks")
                .and_then(|options| options.endpoint(&emulator.endpoint()))
                .and_then(AzureMutex::new)
                .expect("sound");
            for thread in 0..4 {
                let (renewals, lost) = (Arc::clone(&renewals), Arc::clone(&lost));
                let locker = Locker::builder(mutex.clone(), &format!("lock-{thread}"))
                    .lease_duration(15 * SEC)
                    .observer(move |event| match event {
                        Event::Renewed => drop(renewals.fetch_add(1, Ordering::SeqCst)),
                        Event::Unproven | Event::Lost { .. } => lost.lock().push(event.clone()),
                        _ => {}
                    })
                    .build()
                    .expect("sound");
                let holds = &holds;
                scope.spawn(move || {
                    let mut length = SEC;
                    while Instant::now() < end {
                        let guard = locker.lock().expect("in the end");
                        let until = end.min(Instant::now() + length);
                        // Not to wait for a condition: the lock is held for so long.
                        while Instant::now() < until {
                            guard.check().expect("held");
                            thread::sleep(SEC / 20);
                        }
                        guard.release().expect("held");
                        holds.fetch_add(1, Ordering::SeqCst);
                        length = if length > 10 * SEC { SEC } else { length * 2 };
                    }
                });
            }
        }
    });
    let lost = lost.lock().clone();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(holds.into_inner() >= 12);
    assert!(renewals.load(Ordering::SeqCst) > 0);
}

#[test]
fn no_lock_is_lost_in_a_short_storm_of_short_lived_tokens() {
    storm(13 * SEC);
}

#[test]
#[ignore = "it takes a minute"]
fn no_lock_is_lost_in_a_storm_of_short_lived_tokens() {
    storm(60 * SEC);
}
