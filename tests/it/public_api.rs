//! What holds of the public types themselves.

use std::error::Error as _;
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use azmutex::emulator::{BearerToken, Clock, Emulator, EmulatorBuilder};
use azmutex::{
    AccessToken, AzureMutex, Credential, Election, Error, ErrorKind, Event, Holder, Leader,
    LeaderInfo, Lease, LeaseDuration, LeaseGuard, LeaseId, LeaseState, LeaseStatus, LeaseWatch,
    Locker, LockerBuilder, Locks, LossReason, MutexOptions, Observer, Previous, StopToken,
    TokenIdentity, TokenRequest, TryLockError,
};
use parking_lot::Mutex;

use crate::support::Events;
use crate::support::account::Account;
use crate::support::azurite;
use crate::support::proxy::{Fault, FaultProxy};

#[test]
fn all_types_may_be_sent_and_shared_between_threads() {
    fn both<T: Send + Sync + 'static>() {}
    both::<AccessToken>();
    both::<AzureMutex>();
    both::<BearerToken>();
    both::<Clock>();
    both::<Credential>();
    both::<Election>();
    both::<Emulator>();
    both::<EmulatorBuilder>();
    both::<Error>();
    both::<ErrorKind>();
    both::<Event>();
    both::<Holder>();
    both::<Leader>();
    both::<LeaderInfo>();
    both::<Lease>();
    both::<LeaseDuration>();
    both::<LeaseGuard>();
    both::<LeaseId>();
    both::<LeaseState>();
    both::<LeaseStatus>();
    both::<LeaseWatch>();
    both::<Locker>();
    both::<LockerBuilder>();
    both::<Locks>();
    both::<LossReason>();
    both::<MutexOptions>();
    both::<Observer>();
    both::<Previous>();
    both::<StopToken>();
    both::<TokenIdentity>();
    both::<TokenRequest>();
    both::<TryLockError>();
}

#[test]
fn errors_are_one_word_wide() {
    const WORD: usize = size_of::<usize>();
    assert_eq!(size_of::<Error>(), WORD);
    assert_eq!(size_of::<Result<(), Error>>(), WORD);
    assert_eq!(size_of::<Result<(), TryLockError>>(), 2 * WORD);
}

#[test]
fn handles_are_cheap_to_clone() {
    fn cheap<T: Clone>(words: usize) {
        assert!(size_of::<T>() <= words * size_of::<usize>());
    }
    cheap::<AzureMutex>(1);
    cheap::<Election>(1);
    cheap::<Locker>(1);
    cheap::<StopToken>(1);
    cheap::<LeaseWatch>(4);
}

/// What must not be shown: the key, the signatures of a SAS and of requests, and what stands
/// before them.
struct Secrets(Vec<String>);

impl Secrets {
    fn new() -> Self {
        // The key's bytes may not be shown either, in the forms of a derived `Debug`.
        let bytes = "27, 203, 201"; // the beginning of the emulators' key, decoded
        Self(vec![
            Emulator::start().expect("it starts").key().to_owned(),
            bytes.to_owned(),
            "SharedKey ".to_owned(),
            "Authorization:".to_owned(),
            "authorization:".to_owned(),
            "sig=".to_owned(),
        ])
    }

    /// A SAS, whose signature is one of the secrets from now on.
    fn sas(&mut self, account: &Account, lasts: Duration) -> String {
        let sas = account.sas(lasts);
        let (_, signature) = sas.rsplit_once("sig=").expect("it is signed");
        self.0.push(signature.to_owned());
        sas
    }

    fn signatures_of(&mut self, proxy: &FaultProxy) {
        for seen in proxy.seen() {
            if let Some((_, signature)) = seen
                .header("authorization")
                .and_then(|text| text.split_once(':'))
            {
                self.0.push(signature.to_owned());
            }
        }
    }

    #[track_caller]
    fn are_not_in(&self, what: &str, text: &str) {
        for secret in &self.0 {
            assert!(
                !text.contains(secret.as_str()),
                "{what} shows {secret:?}: {text}"
            );
        }
    }

    #[track_caller]
    fn are_not_shown_by(&self, value: &dyn Debug) {
        let text = format!("{value:?} {value:#?}");
        self.are_not_in("Debug", &text);
    }

    /// Of a client that has access tokens.
    fn are_not_shown_by_tokens(&self, emulator: &Emulator) {
        let mut secrets = Self(self.0.clone());
        secrets
            .0
            .extend(["s3cret".to_owned(), "Bearer ".to_owned()]);
        let bearer = BearerToken::new("s3cret").expires_in(HOUR);
        secrets.are_not_shown_by(&bearer);
        emulator.expect_bearer(bearer);
        let token = AccessToken::new("s3cret", SystemTime::now() + HOUR).expect("well-formed");
        secrets.are_not_shown_by(&token);
        let (sender, requests) = std::sync::mpsc::channel::<TokenRequest>();
        let provided = Credential::token_provider(move |request| {
            let _ = sender.send(request.clone());
            Ok(token.clone())
        });
        let credentials = [
            Credential::client_secret("tenant", "client", "s3cret").expect("well-formed"),
            Credential::managed_identity(),
            provided,
        ];
        for credential in credentials {
            secrets.are_not_shown_by(&credential);
            let options = MutexOptions::with_credential(emulator.account(), credential, "locks")
                .and_then(|options| options.endpoint(&emulator.endpoint()))
                .expect("well-formed");
            secrets.are_not_shown_by(&options);
            let mutex = AzureMutex::new(options).expect("sound");
            secrets.are_not_shown_by(&mutex);
            if !format!("{mutex:?}").contains("TokenProvider") {
                continue;
            }
            secrets.are_not_shown_by(&mutex.token_identity());
            let locker = Locker::new(mutex.clone(), "by-token").expect("sound");
            secrets.are_not_shown_by(&locker.lock().expect("it is free"));
            emulator.revoke_bearer("s3cret");
            secrets.are_not_told_by(&mutex.status("by-token").unwrap_err());
        }
        secrets.are_not_shown_by(&requests.recv().expect("it was asked"));
    }

    #[track_caller]
    fn are_not_told_by(&self, error: &Error) {
        self.are_not_shown_by(error);
        self.are_not_in("Display", &error.to_string());
        let mut source = error.source();
        while let Some(error) = source {
            self.are_not_in("the source's Display", &error.to_string());
            source = error.source();
        }
    }
}

fn emulators_account() -> Account {
    Account::parse(&azurite::connection_string("http://127.0.0.1"))
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn debug_of_no_public_type_shows_a_secret() {
    let mut secrets = Secrets::new();
    let sas = secrets.sas(&emulators_account(), HOUR);
    let wrong_sas = secrets
        .sas(&emulators_account(), 2 * HOUR)
        .replace("ss=b", "ss=bf");
    let builder = Emulator::builder();
    secrets.are_not_shown_by(&builder);
    let emulator = builder.start().expect("it starts");
    secrets.are_not_shown_by(&emulator);
    secrets.are_not_shown_by(&emulator.clock());

    let by_key = emulator.options("locks").expect("well-formed");
    let by_sas = |sas: &str| {
        let credential = Credential::sas(sas).expect("well-formed");
        secrets.are_not_shown_by(&credential);
        MutexOptions::with_credential(emulator.account(), credential, "locks")
            .and_then(|options| options.endpoint(&emulator.endpoint()))
            .expect("well-formed")
    };
    secrets.are_not_shown_by(&Credential::shared_key(emulator.key()).expect("well-formed"));
    for options in [by_key, by_sas(&sas)] {
        secrets.are_not_shown_by(&options);
        let mutex = AzureMutex::new(options).expect("sound");
        secrets.are_not_shown_by(&mutex);
        let stop = StopToken::new();
        let (observer, events) = Events::new();
        let builder = Locker::builder(mutex.clone(), "key")
            .stop_token(&stop)
            .observer(observer);
        secrets.are_not_shown_by(&builder);
        let locker = builder.build().expect("sound");
        secrets.are_not_shown_by(&locker);
        let guard = locker.lock().expect("it is free");
        secrets.are_not_shown_by(&stop);
        secrets.are_not_shown_by(&guard);
        secrets.are_not_shown_by(&guard.watch());
        secrets.are_not_shown_by(&Lease::new("key", guard.lease_id()));
        let mut locks = mutex.list("");
        secrets.are_not_shown_by(&locks.next());
        secrets.are_not_shown_by(&locks);
        let busy = locker.try_lock().expect_err("it is held");
        secrets.are_not_shown_by(&busy);
        secrets.are_not_told_by(&busy.into());
        secrets.are_not_shown_by(&guard.release());
        secrets.are_not_shown_by(&events.heard());
    }

    secrets.are_not_shown_by_tokens(&emulator);

    // The service quotes what it was sent.
    let wrong_key = MutexOptions::new(emulator.account(), "AAAA", "locks")
        .and_then(|options| options.endpoint(&emulator.endpoint()))
        .expect("well-formed");
    let proxy = FaultProxy::start(crate::support::addr_of(&emulator));
    for options in [wrong_key, by_sas(&wrong_sas)] {
        let mutex = options
            .request_timeout(Duration::from_millis(200))
            .endpoint(&proxy.endpoint())
            .and_then(AzureMutex::new)
            .expect("sound");
        let error = mutex.status("key").expect_err("it is refused");
        assert_eq!(error.kind(), ErrorKind::Auth);
        let refused = [
            mutex
                .renew(
                    &Lease::new("key", LeaseId::random().expect("random numbers")).expect("sound"),
                )
                .unwrap_err(),
            mutex.list("").next().expect("a failure").unwrap_err(),
            mutex.acquire("key", LeaseDuration::MAX).unwrap_err(),
            error,
        ];
        // What fails on the way is told with the URL by many an HTTP client.
        proxy.always(Some(Fault::DropBefore));
        let lost = mutex.status("key").expect_err("there is no reply");
        proxy.clear();
        let mut secrets = Secrets(secrets.0.clone());
        secrets.signatures_of(&proxy);
        refused
            .iter()
            .chain([&lost])
            .for_each(|error| secrets.are_not_told_by(error));
    }
}

/// Keeps what the library logs, in all tests of this process.
struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    fn install() -> &'static Self {
        static RECORDER: Recorder = Recorder(Mutex::new(Vec::new()));
        static INSTALLED: OnceLock<()> = OnceLock::new();
        INSTALLED.get_or_init(|| {
            log::set_logger(&RECORDER).expect("the first logger");
            log::set_max_level(log::LevelFilter::Trace);
        });
        &RECORDER
    }
}

impl log::Log for Recorder {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("azmutex")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!("{} {}: {}", record.level(), record.target(), record.args());
            self.0.lock().push(line);
        }
    }

    fn flush(&self) {}
}

#[test]
fn logs_at_trace_show_no_secret() {
    let mut secrets = Secrets::new();
    let recorder = Recorder::install();
    let clock = Clock::frozen();
    let sas = secrets.sas(&emulators_account(), HOUR);
    let wrong_sas = secrets
        .sas(&emulators_account(), 2 * HOUR)
        .replace("ss=b", "ss=bf");
    let emulator = Emulator::builder()
        .clock(clock.clone())
        .start()
        .expect("it starts");
    let proxy = FaultProxy::start(crate::support::addr_of(&emulator));
    let options = |credential| {
        MutexOptions::with_credential(emulator.account(), credential, "locks")
            .and_then(|options| options.endpoint(&proxy.endpoint()))
            .expect("well-formed")
            .clock(clock.clone())
    };
    let key = format!("logged-{}", LeaseId::random().expect("random numbers"));
    for credential in [
        Credential::shared_key(emulator.key()).expect("well-formed"),
        Credential::sas(&sas).expect("well-formed"),
    ] {
        let mutex = AzureMutex::new(options(credential.clone())).expect("sound");
        let (observer, events) = Events::new();
        let locker = Locker::builder(mutex.clone(), &key).observer(observer);
        let locker = locker.build().expect("sound");
        proxy.push(Fault::DropAfter);
        let guard = locker.lock().expect("it is free");
        locker.try_lock().expect_err("it is held");
        proxy.push(Fault::Answer(crate::support::proxy::forbidden(
            "AuthenticationFailed",
        )));
        clock.advance(Duration::from_secs(20));
        events.wait(|event| matches!(event, Event::RenewalFailed { .. }));
        clock.advance(Duration::from_secs(20));
        events.wait(|event| matches!(event, Event::Renewed));
        guard.release().expect("it is held");
        let guard = locker.lock().expect("it is free");
        mutex
            .break_lease(&key, Some(Duration::ZERO))
            .expect("it is held");
        clock.advance(Duration::from_secs(20));
        events.wait(|event| matches!(event, Event::Lost { .. }));
        drop(guard);
        proxy.always(Some(Fault::DropAfter));
        let short = Duration::from_millis(500);
        let mutex = AzureMutex::new(options(credential).request_timeout(short)).expect("sound");
        let locker = Locker::builder(mutex, &key).release_timeout(short);
        let locker = locker.build().expect("sound");
        locker.try_lock().expect_err("there is no reply");
        assert!(locker.settle(crate::support::LONG));
        proxy.clear();
        clock.advance(Duration::from_secs(60));
    }
    // Tokens that expire under the lock, and an issuer that fails.
    let issued = Arc::new(AtomicUsize::new(0));
    let issuer = (Arc::clone(&issued), clock.clone());
    secrets.0.push("t0ken".to_owned());
    let credential = Credential::token_provider(move |_| {
        let number = issuer.0.fetch_add(1, Ordering::SeqCst);
        if number == 1 {
            return Err("out of order".into());
        }
        let wall = SystemTime::now() + issuer.1.elapsed();
        Ok(AccessToken::new(format!("t0ken-{number}"), wall + HOUR)?)
    });
    (0..9).for_each(|number| emulator.expect_bearer(format!("t0ken-{number}")));
    let mutex = AzureMutex::new(options(credential)).expect("sound");
    let guard = Locker::new(mutex, &key)
        .expect("sound")
        .lock()
        .expect("it is free");
    for _ in 0..60 {
        clock.advance(Duration::from_secs(58));
    }
    crate::support::eventually(|| (issued.load(Ordering::SeqCst) > 2).then_some(()));
    emulator.revoke_bearer("t0ken-2");
    drop(guard);
    for credential in [
        Credential::shared_key("AAAA").expect("well-formed"),
        Credential::sas(&wrong_sas).expect("well-formed"),
    ] {
        let mutex = AzureMutex::new(options(credential)).expect("sound");
        let locker = Locker::new(mutex, &key).expect("sound");
        let error = Error::from(locker.try_lock().expect_err("it is refused"));
        assert_eq!(error.kind(), ErrorKind::Auth);
    }

    secrets.signatures_of(&proxy);
    let lines = recorder.0.lock().clone();
    let ours: Vec<_> = lines.iter().filter(|line| line.contains(&key)).collect();
    for wanted in [
        "DEBUG azmutex::",
        "WARN azmutex::",
        ": lost: ",
        ": acquired",
    ] {
        assert!(
            ours.iter().any(|line| line.contains(wanted)),
            "{wanted} is not in {ours:#?}"
        );
    }
    // Of other tests too, and of the emulator.
    for line in &lines {
        secrets.are_not_in("the log", line);
    }
}
