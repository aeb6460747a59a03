use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Instant;

use super::*;
use crate::entra::token::Identity;
use crate::error::{Delivery, Phase};
use crate::time::test_clock;

const LONG: Duration = Duration::from_secs(20);
const MINUTE: Duration = Duration::from_secs(60);

type Answer = Result<AccessToken, Error>;

/// Tells of each request, and answers it as the test says.
struct Fake {
    asked: Mutex<Sender<TokenRequest>>,
    answers: Mutex<Receiver<Answer>>,
}

impl Source for Fake {
    fn fetch(&self, request: &TokenRequest) -> Answer {
        self.asked.lock().send(request.clone()).unwrap();
        self.answers.lock().recv().expect("an answer, or a panic")
    }

    fn identity(&self) -> Identity {
        Identity {
            kind: "fake",
            client_id: None,
            tenant_id: None,
            takes_tenant: false,
        }
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

struct Scene {
    clock: test_clock::Clock,
    cache: Arc<TokenCache>,
    asked: Receiver<TokenRequest>,
    answers: Sender<Answer>,
}

impl Scene {
    fn new() -> Self {
        let clock = test_clock::Clock::frozen();
        let ((tell, asked), (answers, told)) = (mpsc::channel(), mpsc::channel());
        let fake = Arc::new(Fake {
            asked: Mutex::new(tell),
            answers: Mutex::new(told),
        });
        Self {
            cache: TokenCache::new(fake, "audience".to_owned(), Clock::Test(clock.clone())),
            clock,
            asked,
            answers,
        }
    }

    /// Waits until the source is asked.
    #[track_caller]
    fn asked(&self) -> TokenRequest {
        self.asked.recv_timeout(LONG).expect("the source is asked")
    }

    fn is_asked(&self) -> bool {
        self.asked.try_recv().is_ok()
    }

    fn answer(&self, text: &str, life: Duration) {
        let expires = dates::to_system(Clock::Test(self.clock.clone()).wall()).unwrap() + life;
        let token = AccessToken::new(text, expires).unwrap();
        self.answers.send(Ok(token)).unwrap();
    }

    fn fail(&self) {
        let error = Error::transport("the endpoint is silent", Phase::Reply);
        self.answers.send(Err(error)).unwrap();
    }

    /// With a first token, and a lease that is held.
    fn holding(life: Duration) -> (Self, KeepFresh) {
        let scene = Self::new();
        let lease = scene.cache.keep_fresh();
        scene.asked();
        scene.answer("first", life);
        let token = scene.cache.wait(LONG).unwrap();
        assert_eq!(token.access.secret(), "first");
        (scene, lease)
    }

    fn in_hand(&self) -> Result<String, Error> {
        let token = self.cache.in_hand()?;
        Ok(token.access.secret().to_owned())
    }

    #[track_caller]
    fn eventually(&self, holds: impl Fn(&State) -> bool) {
        let end = Instant::now() + LONG;
        while !holds(&self.cache.shared().state.lock()) {
            assert!(Instant::now() < end, "it has not come about");
            thread::yield_now();
        }
    }
}

#[test]
fn one_request_serves_all_who_wait() {
    let scene = Scene::new();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| scene.cache.wait(LONG).unwrap());
        }
        let request = scene.asked();
        assert_eq!((request.audience(), request.claims()), ("audience", None));
        scene.eventually(|state| state.waiters == 8);
        scene.answer("first", MINUTE);
    });
    assert!(scene.cache.wait(Duration::ZERO).is_ok());
    assert!(!scene.is_asked());
}

#[test]
fn token_is_replaced_ahead_of_its_end_and_nobody_waits_for_that() {
    let (scene, _lease) = Scene::holding(60 * MINUTE);
    scene.clock.advance(45 * MINUTE);
    assert!(!scene.is_asked());
    scene.clock.advance(11 * MINUTE);
    scene.asked();
    // The source hangs, and the token in hand is good for four minutes.
    scene.clock.advance(3 * MINUTE);
    assert_eq!(scene.in_hand().unwrap(), "first");
    assert_eq!(scene.cache.wait(Duration::ZERO).unwrap().number, 0);
    scene.answer("second", 60 * MINUTE);
    scene.eventually(|state| state.token.as_ref().unwrap().number == 1);
    assert_eq!(scene.in_hand().unwrap(), "second");
}

#[test]
fn token_that_cannot_be_replaced_is_used_until_its_end() {
    let (scene, _lease) = Scene::holding(60 * MINUTE);
    scene.clock.advance(56 * MINUTE);
    scene.asked();
    scene.fail();
    scene.eventually(|state| state.failures == 1);
    scene.clock.advance(3 * MINUTE);
    assert_eq!(scene.in_hand().unwrap(), "first");
    scene.clock.advance(MINUTE);
    let error = scene.in_hand().unwrap_err();
    assert_eq!(error.to_string(), "the endpoint is silent");
    assert!(!error.is_ambiguous() && !error.is_answer() && !error.is_silence());
    assert_eq!(error.delivery(), Delivery::NotDone);
    // It goes on trying.
    scene.asked();
    scene.answer("second", 60 * MINUTE);
    assert_eq!(scene.cache.wait(LONG).unwrap().access.secret(), "second");
}

#[test]
fn thread_runs_while_a_lease_is_held_or_a_token_awaited() {
    let scene = Scene::new();
    scene.answer("first", MINUTE);
    scene.cache.wait(LONG).unwrap();
    scene.eventually(|state| !state.is_running);
    let leases = [(); 2].map(|()| scene.cache.keep_fresh());
    assert!(scene.cache.shared().state.lock().is_running);
    let [first, second] = leases;
    drop(first);
    scene.clock.advance(Duration::from_secs(1));
    assert!(scene.cache.shared().state.lock().is_running);
    drop(second);
    scene.eventually(|state| !state.is_running);
    // The token stays.
    assert_eq!(scene.in_hand().unwrap(), "first");
    assert_eq!(Arc::strong_count(&scene.cache), 1);
}

#[test]
fn whoever_waits_in_vain_is_told_and_the_next_finds_what_came() {
    let scene = Scene::new();
    let error = scene.cache.wait(Duration::from_millis(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no token by fake yet: it has not answered"
    );
    assert_eq!(error.delivery(), Delivery::NotDone);
    scene.answer("first", MINUTE);
    assert!(scene.cache.wait(LONG).is_ok());
    scene.asked();
    assert!(!scene.is_asked());
}

#[test]
fn failure_is_told_to_those_who_wait_and_source_is_spared() {
    let scene = Scene::new();
    scene.fail();
    let error = scene.cache.wait(LONG).unwrap_err();
    assert!(error.to_string().contains("is silent"), "{error}");
    let error = scene.cache.wait(Duration::from_millis(100)).unwrap_err();
    assert!(error.to_string().contains("is silent"), "{error}");
    scene.asked();
    assert!(!scene.is_asked(), "it was asked a moment ago");
    scene.answer("first", MINUTE);
    assert!(scene.cache.wait(LONG).is_ok());
}

#[test]
fn whoever_waits_in_vain_is_told_why_the_last_attempt_failed() {
    let (scene, _lease) = Scene::holding(MINUTE);
    scene.clock.advance(MINUTE / 2);
    let request = scene.asked();
    let failure = Error::new(ErrorKind::Throttled, "too many");
    *request.failure.lock() = Some(failure.with_reply(429, None, None, Some(MINUTE)));
    let error = scene
        .cache
        .wait(LONG)
        .map(|token| token.access.secret().to_owned());
    assert_eq!(error.unwrap(), "first");
    scene.clock.advance(MINUTE / 2);
    let error = scene.cache.wait(Duration::from_millis(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to get a token by `fake`: too many (status 429)"
    );
    assert_eq!(error.delivery(), Delivery::NotDone);
    scene.answer("second", MINUTE);
    assert!(scene.cache.wait(LONG).is_ok());
}

#[test]
fn failure_of_the_source_says_nothing_of_the_service() {
    let scene = Scene::new();
    let throttled = Error::new(ErrorKind::Throttled, "too many").with_lease(7);
    let asked = Some(Duration::from_secs(40));
    let code = Some("AADSTS90055".to_owned());
    let throttled = throttled.with_reply(429, code, None, asked);
    scene.answers.send(Err(throttled)).unwrap();
    let error = scene.cache.wait(LONG).unwrap_err();
    assert_eq!(error.delivery(), Delivery::NotDone);
    assert!(!error.is_overload() && !error.is_throttling() && !error.is_answer());
    // The source is not asked before that; a renewal need not wait for it.
    assert_eq!(error.retry_after(), None);
    assert_eq!(error.lease_id(), None);
    assert_eq!(error.service_code(), Some("AADSTS90055"));
}

#[test]
fn refused_token_is_replaced_and_used_until_then() {
    let (scene, _lease) = Scene::holding(60 * MINUTE);
    let first = scene.cache.in_hand().unwrap();
    scene.cache.refused(&first, Some("{}".to_owned()));
    assert_eq!(scene.asked().claims(), Some("{}"));
    assert_eq!(scene.in_hand().unwrap(), "first");
    scene.answer("second", 60 * MINUTE);
    let second = scene.cache.wait(LONG).unwrap();
    assert!(!second.is_same(&first));
    // A refusal of the first that comes late says nothing of the second.
    scene.cache.refused(&first, None);
    assert!(scene.cache.wait(LONG).unwrap().is_same(&second));
    // The second is refused, too: another one would fare no better.
    scene.cache.refused(&second, None);
    assert!(scene.cache.wait(LONG).unwrap().is_same(&second));
    assert!(!scene.is_asked());
}

#[test]
fn source_that_panics_has_failed() {
    let scene = Scene::new();
    drop(scene.answers);
    let error = scene.cache.wait(LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::System);
    assert_eq!(error.to_string(), "cannot get a token by fake: it panicked");
}

#[test]
fn times_are_shown_as_people_say_them() {
    let rows = [
        (9, "9s"),
        (59, "59s"),
        (41 * 60 + 59, "41m"),
        (86_000, "23h53m"),
    ];
    for (secs, text) in rows {
        assert_eq!(minutes(Duration::from_secs(secs)), text);
    }
}
