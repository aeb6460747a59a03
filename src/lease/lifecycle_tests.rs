use super::*;
use crate::error::{ErrorKind, Phase};
use crate::lease::terms::tests::terms;

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

fn at(ms: u64) -> Moment {
    let tick = Tick::default() + SEC * 1000 + Duration::from_millis(ms);
    Moment {
        lease: tick,
        real: tick,
    }
}

/// The first whole millisecond at which `until` is reached.
fn ms_until(until: Tick) -> u64 {
    let nanos = until.since(at(0).real).as_nanos();
    u64::try_from(nanos.div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A lease whose steps a test carries out, the time in milliseconds.
struct Run(Lifecycle);

impl Run {
    fn new(terms: Terms, limit: WaitLimit) -> Self {
        Self(Lifecycle::new(terms, limit, at(0)))
    }

    fn locked(terms: Terms) -> Self {
        let mut run = Self::new(terms, WaitLimit::Forever);
        run.sends(0, Request::Acquire);
        run.answers(Request::Acquire, 0, 0, granted());
        assert_eq!(run.hands_over(0), None);
        run
    }

    /// The next step that is no announcement and no look at the holder, which brings nothing.
    fn step(&mut self, now: u64) -> Step {
        loop {
            match self.0.step(at(now)) {
                Step::Announce(_) => {}
                Step::Send {
                    request: request @ Request::ReadHolder,
                    ..
                } => self.answers(request, now, now, forbidden()),
                step => return step,
            }
        }
    }

    #[track_caller]
    fn sends(&mut self, now: u64, wanted: Request) -> Duration {
        match self.step(now) {
            Step::Send { request, timeout } if request == wanted => timeout,
            step => panic!("{step:?} instead of {wanted:?}"),
        }
    }

    #[track_caller]
    fn waits(&mut self, mut now: u64) -> u64 {
        loop {
            let until = match self.step(now) {
                Step::Wait(until) => ms_until(until.real.min(until.lease)),
                step => panic!("{step:?} instead of waiting"),
            };
            let looks =
                |step| matches!(step, Step::Send { request, .. } if request == Request::ReadHolder);
            if !looks(self.0.clone().step(at(until))) {
                return until;
            }
            now = until;
        }
    }

    #[track_caller]
    fn hands_over(&mut self, now: u64) -> Option<i64> {
        match self.step(now) {
            Step::HandOver { token } => token,
            step => panic!("{step:?} instead of handing over"),
        }
    }

    #[track_caller]
    fn fails(&mut self, now: u64) -> Error {
        match self.step(now) {
            Step::Fail(error) => error,
            step => panic!("{step:?} instead of failing"),
        }
    }

    #[track_caller]
    fn ends(&mut self, now: u64) {
        let step = self.step(now);
        assert!(matches!(step, Step::End), "{step:?} instead of ending");
    }

    fn answers(&mut self, request: Request, sent: u64, now: u64, result: Result<Answer, Error>) {
        self.0.answered(&request, at(sent), at(now), result, 0);
    }

    /// What is announced next.
    fn notices(&mut self, now: u64) -> Vec<Notice> {
        let mut notices = Vec::new();
        while let Step::Announce(notice) = self.0.step(at(now)) {
            notices.push(notice);
        }
        notices
    }

    fn result(&self) -> Result<(), Option<LossReason>> {
        let result = self.0.result().expect("it is over").clone();
        result.map_err(|error| error.loss_reason())
    }
}

fn granted() -> Result<Answer, Error> {
    Ok(Answer::Granted { metadata: None })
}

fn metadata(etag: &str, token: Option<i64>) -> Metadata {
    Metadata {
        etag: etag.to_owned(),
        token,
        wall: 1_000_000,
    }
}

fn done() -> Result<Answer, Error> {
    Ok(Answer::Done)
}

fn refused(kind: ErrorKind, status: u16, code: &str) -> Result<Answer, Error> {
    Err(Error::new(kind, "refused").with_reply(status, Some(code.to_owned()), None, None))
}

fn forbidden() -> Result<Answer, Error> {
    refused(ErrorKind::Auth, 403, "AuthorizationFailure")
}

fn busy() -> Result<Answer, Error> {
    refused(ErrorKind::WouldBlock, 409, "LeaseAlreadyPresent")
}

fn silent() -> Result<Answer, Error> {
    Err(Error::transport("no reply in time", Phase::Reply))
}

fn lost(reason: LossReason) -> Result<Answer, Error> {
    Err(Error::lost(reason))
}

fn fenced() -> Terms {
    Terms {
        fencing: true,
        ..terms()
    }
}

#[test]
fn lease_is_handed_over_once_it_is_granted() {
    let mut run = Run::new(terms(), WaitLimit::Forever);
    assert_eq!(run.sends(0, Request::Acquire), 5 * SEC);
    run.answers(Request::Acquire, 0, 40, granted());
    assert!(matches!(
        run.0.step(at(40)),
        Step::Announce(Notice::Acquired { elapsed }) if elapsed == 40 * MS
    ));
    assert_eq!(run.0.deadline(), Tick::default(), "nobody has it yet");
    assert_eq!(run.hands_over(40), None);
    assert_eq!(run.0.deadline(), at(55_000).lease);
    assert_eq!(run.waits(40), 20_000);
}

#[test]
fn lease_of_another_is_asked_for_again_after_a_while() {
    let mut run = Run::new(terms(), WaitLimit::Forever);
    run.sends(0, Request::Acquire);
    run.answers(Request::Acquire, 0, 1, busy());
    let next = run.waits(1);
    assert!((532..=720).contains(&next), "{next}");
    run.sends(next, Request::Acquire);
}

#[test]
fn attempt_without_waiting_fails_at_once_and_leaves_nothing_behind() {
    let mut run = Run::new(terms(), WaitLimit::Once(Tick::NEVER));
    run.sends(0, Request::Acquire);
    run.answers(Request::Acquire, 0, 1, busy());
    assert_eq!(run.fails(1).kind(), ErrorKind::WouldBlock);
    run.ends(1);
}

#[test]
fn failure_of_a_probe_is_for_the_caller_to_retry() {
    let mut run = Run::new(terms(), WaitLimit::Probe(Tick::NEVER));
    run.sends(0, Request::Acquire);
    let overloaded = refused(ErrorKind::Throttled, 503, "ServerBusy");
    run.answers(Request::Acquire, 0, 1, overloaded);
    assert_eq!(run.fails(1).kind(), ErrorKind::Throttled);
    run.ends(1);
}

#[test]
fn missing_container_and_blob_are_created() {
    let mut run = Run::new(terms(), WaitLimit::Once(Tick::NEVER));
    run.sends(0, Request::Acquire);
    let missing = refused(ErrorKind::NotFound, 404, "ContainerNotFound");
    run.answers(Request::Acquire, 0, 1, missing);
    run.sends(1, Request::CreateContainer);
    run.answers(Request::CreateContainer, 1, 2, done());
    run.sends(2, Request::CreateBlob);
    run.answers(Request::CreateBlob, 2, 3, done());
    run.sends(3, Request::Acquire);
    run.answers(Request::Acquire, 3, 4, granted());
    run.hands_over(4);
}

#[test]
fn blob_that_goes_missing_again_and_again_is_not_created_for_ever() {
    let mut run = Run::new(terms(), WaitLimit::Once(Tick::NEVER));
    for _ in 0..3 {
        run.sends(0, Request::Acquire);
        let missing = refused(ErrorKind::NotFound, 404, "BlobNotFound");
        run.answers(Request::Acquire, 0, 0, missing);
        run.sends(0, Request::CreateBlob);
        run.answers(Request::CreateBlob, 0, 0, done());
    }
    run.sends(0, Request::Acquire);
    let missing = refused(ErrorKind::NotFound, 404, "BlobNotFound");
    run.answers(Request::Acquire, 0, 0, missing);
    assert_eq!(run.fails(0).kind(), ErrorKind::NotFound);
}

#[test]
fn short_wait_asks_again_before_it_is_over() {
    let mut run = Run::new(terms(), WaitLimit::Until(at(100).lease));
    let mut attempts = Vec::new();
    let mut now = 0;
    let error = loop {
        match run.step(now) {
            Step::Send { request, .. } => {
                attempts.push(now);
                run.answers(request, now, now + 1, busy());
                now += 1;
            }
            Step::Wait(until) => {
                let until = until.real.min(until.lease);
                now = ms_until(until);
            }
            Step::Fail(error) => break error,
            step => panic!("{step:?}"),
        }
    };
    assert_eq!((error.kind(), now), (ErrorKind::WouldBlock, 100));
    assert_eq!(attempts.last(), Some(&75), "{attempts:?}");
    assert_eq!(attempts.len(), 5, "{attempts:?}");
}

#[test]
fn credential_that_was_accepted_before_is_not_given_up_for_one_refusal() {
    for (kind, status, code) in [
        (ErrorKind::Auth, 403, "AuthorizationFailure"),
        (ErrorKind::NotFound, 409, "ContainerBeingDeleted"),
    ] {
        let mut run = Run::new(terms(), WaitLimit::Forever);
        run.sends(0, Request::Acquire);
        run.answers(Request::Acquire, 0, 0, busy());
        let next = run.waits(0);
        run.sends(next, Request::Acquire);
        run.answers(Request::Acquire, next, next, refused(kind, status, code));
        let then = run.waits(next);
        run.sends(then, Request::Acquire);
        // For as long as any fault.
        run.answers(
            Request::Acquire,
            then,
            next + 61_000,
            refused(kind, status, code),
        );
        assert_eq!(run.fails(next + 61_000).kind(), kind);

        let mut run = Run::new(terms(), WaitLimit::Forever);
        run.sends(0, Request::Acquire);
        run.answers(Request::Acquire, 0, 0, refused(kind, status, code));
        assert_eq!(run.fails(0).kind(), kind, "it was never accepted");
    }
}

#[test]
fn busy_answer_ends_a_row_of_failures() {
    let mut run = Run::new(terms(), WaitLimit::Forever);
    let mut now = 0;
    // Each row of failures lasts 50 s, and 60 s of them would be too long.
    while now < 180_000 {
        match run.step(now) {
            Step::Send { request, .. } => {
                let result = match request {
                    Request::Acquire if now % 60_000 < 50_000 => silent(),
                    Request::Acquire => busy(),
                    _ => done(),
                };
                run.answers(request, now, now, result);
            }
            Step::Wait(until) => now = ms_until(until.real),
            step => panic!("{step:?} at {now}"),
        }
    }
}

#[test]
fn what_is_known_of_the_holder_counts_for_more_than_the_last_failure() {
    let mut run = Run::new(terms(), WaitLimit::Until(at(5000).lease));
    run.sends(0, Request::Acquire);
    run.answers(Request::Acquire, 0, 1, busy());
    let next = run.waits(1);
    run.sends(next, Request::Acquire);
    run.answers(Request::Acquire, next, 5000, silent());
    assert_eq!(run.fails(5000).kind(), ErrorKind::WouldBlock);
}

#[test]
fn wait_that_is_limited_shorter_than_a_request_still_asks_once() {
    let mut run = Run::new(terms(), WaitLimit::Until(at(1).lease));
    assert_eq!(run.sends(0, Request::Acquire), SEC);
    assert_eq!(run.0.wait_end(), at(1000).lease);
    run.answers(Request::Acquire, 0, 300, granted());
    assert_eq!(run.0.wait_end(), Tick::NEVER, "the lease is there");
    run.hands_over(300);
}

/// What an `Acquire` and a `ReadHolder` at some time are answered with.
type Service<'a> = &'a dyn Fn(&Request, u64) -> Result<Answer, Error>;

/// Waits until `end`, each request taking 10 ms. Returns what was sent and what was told, and when.
fn wait(run: &mut Run, end: u64, service: Service<'_>) -> (Vec<(u64, Request)>, Vec<u64>) {
    let (mut now, mut sent, mut told) = (0, Vec::new(), Vec::new());
    while now < end {
        match run.0.step(at(now)) {
            Step::Send { request, timeout } => {
                sent.push((now, request.clone()));
                let before = now;
                let result = service(&request, now);
                let silent = result.as_ref().is_err_and(Error::is_silence);
                let timeout = u64::try_from(timeout.as_millis()).unwrap();
                now += if silent { timeout } else { 10 };
                run.answers(request, before, now, result);
            }
            Step::Wait(until) => now = ms_until(until.real),
            Step::Announce(Notice::HeldByAnother { .. }) => told.push(now),
            Step::Announce(_) => {}
            step => panic!("{step:?}"),
        }
    }
    (sent, told)
}

fn times(sent: &[(u64, Request)], of: &Request) -> Vec<u64> {
    let of = sent.iter().filter(|(_, request)| request == of);
    of.map(|(time, _)| *time).collect()
}

fn looked(held: bool, changed: bool) -> Result<Answer, Error> {
    Ok(Answer::Looked { held, changed })
}

#[test]
fn waiter_hears_of_the_holder_at_first_when_it_changes_and_then_every_ten_seconds() {
    let mut run = Run::new(terms(), WaitLimit::Forever);
    // Who holds it is known at the first look, and another one has it at the third.
    let changes = |now| now < 5_000 || (15_000..25_000).contains(&now);
    let (sent, told) = wait(&mut run, 45_000, &|request, now| match request {
        Request::ReadHolder => looked(true, changes(now)),
        _ => busy(),
    });
    let looks = times(&sent, &Request::ReadHolder);
    let seconds = |times: &[u64]| times.iter().map(|time| time / 1000).collect::<Vec<_>>();
    assert_eq!(seconds(&looks), [0, 10, 20, 31, 41], "{looks:?}");
    assert_eq!(seconds(&told), [0, 0, 11, 20, 31, 42], "{told:?}");
}

#[test]
fn look_at_the_holder_takes_the_place_of_an_attempt_and_delays_none() {
    let attempts = |look: fn() -> Result<Answer, Error>| {
        let mut run = Run::new(terms(), WaitLimit::Forever);
        let (sent, _) = wait(&mut run, 60_000, &|request, _| match request {
            Request::ReadHolder => look(),
            _ => busy(),
        });
        (times(&sent, &Request::Acquire), sent.len())
    };
    let (without, _) = attempts(forbidden);
    // One that finds the lease held is as good as an attempt.
    let (_, requests) = attempts(|| looked(true, false));
    assert!(
        requests.abs_diff(without.len()) <= 2,
        "{requests} instead of {}",
        without.len()
    );
    // One that brings nothing changes nothing, however long it takes.
    let (slow, _) = attempts(silent);
    assert_eq!(slow, without);
    // One that finds it free is followed by an attempt at once.
    let mut run = Run::new(terms(), WaitLimit::Forever);
    let (sent, _) = wait(&mut run, 3_000, &|request, _| match request {
        Request::ReadHolder => looked(false, false),
        _ => busy(),
    });
    let look = sent.iter().position(|(_, of)| *of == Request::ReadHolder);
    let [(look, _), (next, Request::Acquire)] = &sent[look.expect("a look")..][..2] else {
        panic!("{sent:?}");
    };
    assert_eq!(*next, look + 10);
}

#[test]
fn waiter_of_an_overloaded_service_slows_down_and_stays_slow() {
    let overloaded = || refused(ErrorKind::Throttled, 503, "ServerBusy");
    for (kind, status, code) in [
        (ErrorKind::Throttled, 503, "ServerBusy"),
        (ErrorKind::Throttled, 429, "TooManyRequests"),
        (ErrorKind::Service, 500, "OperationTimedOut"),
    ] {
        let mut run = Run::new(terms(), WaitLimit::Forever);
        let (sent, _) = wait(&mut run, 60_000, &|request, now| match request {
            // It brings nothing, so that it changes nothing.
            Request::ReadHolder => forbidden(),
            _ if (1_000..5_000).contains(&now) => refused(kind, status, code),
            _ => busy(),
        });
        let attempts = times(&sent, &Request::Acquire);
        let delays: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // 0.53 s; two thirds of 0.625 s, doubled three times; and then a twentieth less each time.
        assert_eq!(delays[..6], [542, 542, 844, 1677, 3344, 3177], "{code}");
        assert!(
            delays[6..12].iter().all(|delay| *delay > 2_300),
            "{delays:?}"
        );
        let looks = times(&sent, &Request::ReadHolder);
        assert!(looks.len() <= 3, "fewer, too: {looks:?}");
    }
    // Not so when it fails in another way, or when it cannot be heard.
    let failures: [fn() -> Result<Answer, Error>; 2] =
        [|| refused(ErrorKind::Service, 500, "InternalError"), silent];
    for failure in failures {
        let mut run = Run::new(terms(), WaitLimit::Forever);
        let (sent, _) = wait(&mut run, 30_000, &|request, now| match request {
            Request::ReadHolder => looked(true, false),
            _ if (1_000..2_000).contains(&now) => failure(),
            _ => busy(),
        });
        let attempts = times(&sent, &Request::Acquire);
        let last = attempts[attempts.len() - 2..][1] - attempts[attempts.len() - 2];
        assert!(last < 1000, "{last}");
    }
    // Nor does a first attempt take longer than it may.
    let mut run = Run::new(terms(), WaitLimit::Until(at(3000).lease));
    let mut attempts = Vec::new();
    let mut now = 0;
    let error = loop {
        match run.step(now) {
            Step::Send { request, .. } => {
                attempts.push(now);
                run.answers(request, now, now, overloaded());
            }
            Step::Wait(until) => now = ms_until(until.real.min(until.lease)),
            Step::Fail(error) => break error,
            step => panic!("{step:?}"),
        }
    };
    assert_eq!(error.kind(), ErrorKind::Throttled);
    assert_eq!(
        attempts,
        [0, 834, 2501, 2900],
        "the last shortly before the end"
    );
}

#[test]
fn overload_ends_a_wait_only_if_nothing_else_was_ever_answered() {
    let overloaded = || refused(ErrorKind::Throttled, 503, "ServerBusy");
    let mut run = Run::new(terms(), WaitLimit::Forever);
    let (sent, _) = wait(&mut run, 600_000, &|_, now| {
        if now == 0 { busy() } else { overloaded() }
    });
    assert!((8..=12).contains(&sent.len()), "{sent:?}");

    let mut run = Run::new(terms(), WaitLimit::Forever);
    let (mut now, mut attempts) = (0, Vec::new());
    let error = loop {
        match run.step(now) {
            Step::Send { request, .. } => {
                attempts.push(now);
                run.answers(request, now, now, overloaded());
            }
            Step::Wait(until) => now = ms_until(until.real),
            Step::Fail(error) => break error,
            step => panic!("{step:?}"),
        }
    };
    assert_eq!((error.kind(), now), (ErrorKind::Throttled, 59_000));
    // It may be what waits for the service that is too much, so nobody waits for long.
    let longest = attempts.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(longest < Some(8_000), "{attempts:?}");
}

#[test]
fn acquire_that_was_not_answered_is_sent_again_and_released_when_given_up() {
    let mut run = Run::new(terms(), WaitLimit::Forever);
    run.sends(0, Request::Acquire);
    run.answers(Request::Acquire, 0, 5000, silent());
    let next = run.waits(5000);
    run.sends(next, Request::Acquire);
    // Refused now, and yet a copy of the first may still arrive.
    run.answers(Request::Acquire, next, next, busy());
    run.0.give_up(at(next + 10));
    run.sends(next + 10, Request::Release);
    run.answers(
        Request::Release,
        next + 10,
        next + 11,
        lost(LossReason::Taken),
    );
    run.ends(next + 11);
}

#[test]
fn given_up_acquire_is_released_once_its_answer_says_that_it_may_be_granted() {
    for (answer, release) in [
        (granted(), true),
        (silent(), true),
        (busy(), false),
        (refused(ErrorKind::Throttled, 503, "ServerBusy"), false),
    ] {
        let mut run = Run::new(terms(), WaitLimit::Forever);
        run.sends(0, Request::Acquire);
        run.0.give_up(at(100));
        assert_eq!(run.waits(100), u64::MAX, "for the answer");
        run.answers(Request::Acquire, 0, 4000, answer);
        if release {
            run.sends(4000, Request::Release);
            run.answers(Request::Release, 4000, 4001, done());
        }
        run.ends(4001);
    }
}

#[test]
fn grant_that_comes_after_its_lease_is_asked_for_again() {
    let mut run = Run::new(terms(), WaitLimit::Forever);
    run.sends(0, Request::Acquire);
    run.answers(Request::Acquire, 0, 55_000, granted());
    let next = run.waits(55_000);
    run.sends(next, Request::Acquire);
    run.answers(Request::Acquire, next, next + 1, granted());
    run.hands_over(next + 1);
    assert_eq!(run.0.deadline(), at(next + 55_000).lease);
}

#[test]
fn token_is_stored_before_anyone_has_the_lease() {
    let mut run = Run::new(fenced(), WaitLimit::Forever);
    run.sends(0, Request::Acquire);
    run.answers(Request::Acquire, 0, 1, granted());
    run.sends(1, Request::ReadMetadata);
    let found = metadata("e1", Some(2_000_000));
    run.answers(Request::ReadMetadata, 1, 2, Ok(Answer::Metadata(found)));
    let write = Request::WriteToken {
        token: 2_000_001,
        if_match: "e1".to_owned(),
    };
    run.sends(2, write.clone());
    let etag = "e2".to_owned();
    run.answers(write, 2, 3, Ok(Answer::Written { etag }));
    assert_eq!(run.hands_over(3), Some(2_000_001));
}

#[test]
fn known_metadata_is_not_read_again() {
    let mut run = Run::new(fenced(), WaitLimit::Forever);
    run.sends(0, Request::Acquire);
    let known = Some(metadata("e1", None));
    run.answers(
        Request::Acquire,
        0,
        1,
        Ok(Answer::Granted { metadata: known }),
    );
    run.sends(
        1,
        Request::WriteToken {
            token: 1_000_000,
            if_match: "e1".to_owned(),
        },
    );
}

/// A lease whose token is being stored.
fn storing(terms: Terms) -> (Run, Request) {
    let mut run = Run::new(terms, WaitLimit::Forever);
    run.sends(0, Request::Acquire);
    let known = Some(metadata("e1", Some(7)));
    run.answers(
        Request::Acquire,
        0,
        0,
        Ok(Answer::Granted { metadata: known }),
    );
    let write = Request::WriteToken {
        token: 1_000_000,
        if_match: "e1".to_owned(),
    };
    run.sends(0, write.clone());
    (run, write)
}

#[test]
fn token_whose_reply_was_lost_is_recognized() {
    let (mut run, write) = storing(fenced());
    run.answers(write.clone(), 0, 1000, silent());
    let next = run.waits(1000);
    run.sends(next, write.clone());
    let changed = || refused(ErrorKind::Protocol, 412, "ConditionNotMet");
    run.answers(write, next, next, changed());
    run.sends(next, Request::ReadMetadata);
    let found = metadata("e2", Some(1_000_000));
    run.answers(
        Request::ReadMetadata,
        next,
        next,
        Ok(Answer::Metadata(found)),
    );
    assert_eq!(run.hands_over(next), Some(1_000_000));

    let (mut run, write) = storing(fenced());
    run.answers(write, 0, 1, changed());
    run.sends(1, Request::ReadMetadata);
    let found = metadata("e2", Some(8));
    run.answers(Request::ReadMetadata, 1, 2, Ok(Answer::Metadata(found)));
    run.sends(2, Request::Release);
    run.answers(Request::Release, 2, 3, done());
    assert_eq!(run.fails(3).service_code(), Some("ConditionNotMet"));
    run.ends(3);
}

#[test]
fn token_that_took_longer_than_the_lease_is_handed_out_once_the_lease_is_renewed() {
    let (mut run, write) = storing(fenced());
    let etag = "e2".to_owned();
    run.answers(write, 0, 56_000, Ok(Answer::Written { etag }));
    run.sends(56_000, Request::Renew);
    run.answers(Request::Renew, 56_000, 56_001, silent());
    let next = run.waits(56_001);
    run.sends(next, Request::Renew);
    run.answers(Request::Renew, next, next, done());
    assert_eq!(run.hands_over(next), Some(1_000_000));
}

#[test]
fn token_that_cannot_be_stored_fails_once_the_lease_is_released() {
    let (mut run, write) = storing(fenced());
    let mut now = 0;
    loop {
        run.answers(write.clone(), now, now, silent());
        match run.step(now) {
            Step::Wait(until) => {
                let until = until.real.min(until.lease);
                now = ms_until(until);
            }
            Step::Send {
                request: Request::Release,
                ..
            } => break,
            step => panic!("{step:?}"),
        }
        loop {
            match run.step(now) {
                Step::Send {
                    request: Request::Renew,
                    ..
                } => {
                    run.answers(Request::Renew, now, now, done());
                }
                Step::Wait(until) => {
                    let until = until.real.min(until.lease);
                    now = ms_until(until);
                }
                _ => break,
            }
        }
    }
    assert!((55_000..65_000).contains(&now), "{now}");
    run.answers(Request::Release, now, now, done());
    assert_eq!(run.fails(now).kind(), ErrorKind::Transport);
}

#[test]
fn lease_that_is_lost_before_anyone_has_it_is_asked_for_again_with_another_id() {
    for (reason, release) in [(LossReason::Broken, true), (LossReason::Taken, false)] {
        let (mut run, write) = storing(fenced());
        run.answers(write, 0, 1, lost(reason));
        if release {
            run.sends(1, Request::Release);
            run.answers(Request::Release, 1, 2, done());
        }
        assert!(matches!(run.step(2), Step::Restart), "{reason:?}");
        run.0.restart(at(2));
        let next = run.waits(2);
        run.sends(next, Request::Acquire);
    }
}

#[test]
fn limit_of_a_wait_holds_for_the_token_too() {
    let mut run = Run::new(fenced(), WaitLimit::Until(at(2000).lease));
    run.sends(0, Request::Acquire);
    run.answers(Request::Acquire, 0, 1, granted());
    run.sends(1, Request::ReadMetadata);
    run.answers(Request::ReadMetadata, 1, 2000, silent());
    assert_eq!(run.fails(2000).kind(), ErrorKind::Transport);
    run.sends(2000, Request::Release);
}

#[test]
fn user_whose_first_attempt_is_granted_as_its_time_is_up_has_time_to_store_the_token() {
    let limit = WaitLimit::Until(at(500).lease);
    let mut run = Run(Lifecycle::in_line(fenced(), limit, at(0)));
    run.0.begin(at(500));
    run.sends(500, Request::Acquire);
    run.answers(Request::Acquire, 500, 510, granted());
    assert_eq!(run.0.wait_end(), at(1500).lease, "a second, as before");
    run.sends(510, Request::ReadMetadata);
}

#[test]
fn lock_that_another_held_until_time_was_short_for_the_token_is_reported_as_held() {
    for (granted_at, answer, kind) in [
        (1950, None, ErrorKind::WouldBlock),
        (1950, Some(silent()), ErrorKind::Transport),
        (1450, None, ErrorKind::Transport),
    ] {
        let mut run = Run::new(fenced(), WaitLimit::Until(at(2000).lease));
        run.sends(0, Request::Acquire);
        run.answers(Request::Acquire, 0, 1, busy());
        run.sends(granted_at - 50, Request::Acquire);
        run.answers(Request::Acquire, granted_at - 50, granted_at, granted());
        run.sends(granted_at, Request::ReadMetadata);
        if let Some(answer) = answer {
            run.answers(Request::ReadMetadata, granted_at, granted_at + 10, answer);
        }
        assert_eq!(run.0.unmet().kind(), kind);
    }
}

#[test]
fn release_is_confirmed_by_the_service() {
    let mut run = Run::locked(terms());
    run.0.release(at(1000));
    assert_eq!(
        run.0.claim(at(1000).lease),
        Claim::Lost(LossReason::Released)
    );
    assert_eq!(run.sends(1000, Request::Release), 2500 * MS);
    run.answers(Request::Release, 1000, 1001, done());
    assert!(matches!(run.notices(1001)[..], [Notice::Released]));
    run.ends(1001);
    assert_eq!(run.result(), Ok(()));
}

#[test]
fn release_whose_reply_was_lost_is_confirmed_by_the_next_while_the_lease_is_held() {
    for (answered, result) in [
        (54_999, Ok(())),
        // Another client may have had the lease before the first attempt arrived.
        (55_000, Err(Some(LossReason::Taken))),
    ] {
        let mut run = Run::locked(terms());
        run.0.release(at(50_000));
        run.sends(50_000, Request::Release);
        run.answers(Request::Release, 50_000, 52_500, silent());
        let next = run.waits(52_500);
        run.sends(next, Request::Release);
        run.answers(Request::Release, next, answered, lost(LossReason::Taken));
        assert_eq!(run.result(), result);
    }
}

#[test]
fn refused_release_without_an_earlier_attempt_is_a_loss() {
    let mut run = Run::locked(terms());
    run.0.release(at(1000));
    run.sends(1000, Request::Release);
    run.answers(Request::Release, 1000, 1001, lost(LossReason::Taken));
    assert_eq!(run.result(), Err(Some(LossReason::Taken)));
    assert!(run.notices(1001).is_empty(), "not released");
}

#[test]
fn lock_that_was_lost_is_never_released_with_success() {
    for (reason, request) in [
        (LossReason::Broken, true),
        (LossReason::Taken, false),
        (LossReason::Deleted, false),
    ] {
        let mut run = Run::locked(terms());
        run.sends(20_000, Request::Renew);
        run.answers(Request::Renew, 20_000, 20_001, lost(reason));
        assert!(matches!(run.notices(20_001)[..], [Notice::Lost(_)]));
        run.0.release(at(20_002));
        if request {
            run.sends(20_002, Request::Release);
            run.answers(Request::Release, 20_002, 20_003, done());
        }
        assert_eq!(run.result(), Err(Some(reason)));
        assert!(run.notices(20_003).is_empty());
        run.ends(20_003);
    }
}

#[test]
fn lock_that_max_hold_has_ended_unnoticed_is_never_released_with_success() {
    let mut run = Run::locked(Terms {
        max_hold: Some(30 * SEC),
        ..terms()
    });
    let lost = Claim::Lost(LossReason::MaxHold);
    assert_eq!(run.0.claim(at(55_000).lease), lost, "the clock says so");
    run.0.release(at(55_000));
    assert!(matches!(
        run.notices(55_000)[..],
        [Notice::Lost(LossReason::MaxHold)]
    ));
    run.answers(Request::Release, 55_000, 55_000, done());
    assert_eq!(run.result(), Err(Some(LossReason::MaxHold)));
}

#[test]
fn unproven_lock_that_another_client_has_is_lost_whatever_was_answered_before() {
    let mut run = Run::locked(terms());
    run.0.release(at(56_000));
    run.sends(56_000, Request::Release);
    run.answers(Request::Release, 56_000, 57_000, silent());
    let next = run.waits(57_000);
    run.sends(next, Request::Release);
    run.answers(Request::Release, next, next, lost(LossReason::Taken));
    assert_eq!(run.result(), Err(Some(LossReason::Taken)));
}

#[test]
fn renewal_that_is_answered_after_the_release_changes_and_says_nothing() {
    let mut run = Run::locked(terms());
    run.sends(20_000, Request::Renew);
    run.0.release(at(20_010));
    run.answers(Request::Renew, 20_000, 20_020, done());
    assert!(run.notices(20_020).is_empty());
    assert_eq!(run.0.deadline(), Tick::default());
    run.sends(20_020, Request::Release);
}

#[test]
fn renewed_is_not_announced_once_the_lock_is_released() {
    let mut run = Run::locked(terms());
    run.sends(20_000, Request::Renew);
    run.answers(Request::Renew, 20_000, 20_010, done());
    run.0.release(at(20_010));
    assert!(run.notices(20_010).is_empty());
}

#[test]
fn release_under_fencing_is_written_first() {
    let (mut run, write) = storing(fenced());
    let etag = "e2".to_owned();
    run.answers(write, 0, 1, Ok(Answer::Written { etag }));
    run.hands_over(1);
    run.0.release(at(1000));
    assert_eq!(run.sends(1000, Request::WriteReleased), 2500 * MS);
    run.answers(Request::WriteReleased, 1000, 3500, silent());
    let told = run.notices(3500);
    assert!(
        matches!(told[..], [Notice::RecordFailed { .. }]),
        "{told:?}"
    );
    run.sends(3500, Request::Release);
    run.answers(Request::Release, 3500, 3501, done());
    assert_eq!(run.result(), Ok(()));
}

#[test]
fn release_goes_on_for_its_time_and_tells_how_it_failed() {
    let mut run = Run::locked(terms());
    run.0.release(at(0));
    let mut now = 0;
    while run.0.result().is_none() {
        let timeout = run.sends(now, Request::Release);
        now += u64::try_from(timeout.as_millis()).unwrap();
        run.answers(Request::Release, now, now, silent());
        if run.0.result().is_none() {
            now = run.waits(now);
        }
    }
    assert!((4900..=5100).contains(&now), "{now}");
    let error = run.0.result().unwrap().clone().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport);
}

#[test]
fn holder_is_written_after_its_delay_over_what_is_known() {
    let named = Terms {
        holder_delay: Some(250 * MS),
        ..terms()
    };
    let mut run = Run::locked(named);
    assert_eq!(run.waits(0), 250);
    run.sends(250, Request::ReadMetadata);
    let found = metadata("e1", Some(7));
    run.answers(Request::ReadMetadata, 250, 260, Ok(Answer::Metadata(found)));
    let write = Request::WriteHolder {
        if_match: "e1".to_owned(),
    };
    run.sends(260, write.clone());
    run.answers(write, 260, 270, silent());
    assert_eq!(run.waits(270), 20_000, "the renewal comes first");
    run.sends(20_000, Request::Renew);
    run.answers(Request::Renew, 20_000, 20_001, done());
    assert_eq!(run.waits(20_001), 20_270);
    run.sends(20_270, Request::ReadMetadata);
}

#[test]
fn holder_that_is_written_first_does_not_hold_the_lock_up_when_it_fails() {
    let named = Terms {
        holder_delay: Some(Duration::ZERO),
        ..terms()
    };
    let mut run = Run::new(named, WaitLimit::Forever);
    run.sends(0, Request::Acquire);
    run.answers(Request::Acquire, 0, 1, granted());
    run.sends(1, Request::ReadMetadata);
    run.answers(Request::ReadMetadata, 1, 5001, silent());
    run.hands_over(5001);
    assert_eq!(run.waits(5001), 20_000);
}

#[test]
fn grants_that_always_come_too_late_end_an_attempt_without_waiting() {
    let mut run = Run::new(terms(), WaitLimit::Once(Tick::NEVER));
    let mut now = 0;
    let error = loop {
        match run.step(now) {
            Step::Send { request, .. } if request == Request::Acquire => {
                run.answers(request, now, now + 56_000, granted());
                now += 56_000;
            }
            Step::Wait(until) => now = ms_until(until.real),
            Step::Fail(error) => break error,
            step => panic!("{step:?}"),
        }
        assert!(now < 300_000, "it goes on for ever");
    };
    assert_eq!(error.kind(), ErrorKind::Transport);
    run.sends(now, Request::Release);
}

#[test]
fn token_under_a_lease_that_is_not_held_any_more_is_given_up() {
    for limit in [WaitLimit::Forever, WaitLimit::Once(Tick::NEVER)] {
        let mut run = Run::new(fenced(), limit);
        run.sends(0, Request::Acquire);
        run.answers(Request::Acquire, 0, 0, granted());
        let mut now = 0;
        loop {
            match run.step(now) {
                Step::Send {
                    request: Request::Release,
                    ..
                } => break,
                Step::Send { request, timeout } => {
                    let sent = now;
                    now += ms_until(at(0).real + timeout);
                    run.answers(request, sent, now, silent());
                }
                Step::Wait(until) => now = ms_until(until.real.min(until.lease)),
                step => panic!("{step:?}"),
            }
            assert!(now < 300_000, "{limit:?} goes on for ever");
        }
        run.answers(Request::Release, now, now, done());
        assert_eq!(run.fails(now).kind(), ErrorKind::Transport);
    }
}

#[test]
fn lease_lost_again_and_again_before_anyone_has_it_ends_an_attempt_without_waiting() {
    let mut run = Run::new(fenced(), WaitLimit::Once(Tick::NEVER));
    run.sends(0, Request::Acquire);
    run.answers(Request::Acquire, 0, 0, granted());
    run.sends(0, Request::ReadMetadata);
    run.answers(Request::ReadMetadata, 0, 1, lost(LossReason::Broken));
    run.sends(1, Request::Release);
    run.answers(Request::Release, 1, 2, done());
    assert_eq!(run.fails(2).kind(), ErrorKind::WouldBlock);
}

/// Another user in the process waits, and gets the lease of `run` at `now`.
#[track_caller]
fn passed_on(run: &mut Run, terms: Terms, exposed: bool, now: u64) -> Run {
    let mut next = Lifecycle::in_line(terms, WaitLimit::Forever, at(0));
    let lease = run.0.pass_on(&terms, at(now)).expect("it is held");
    next.take_over(lease, exposed, at(now));
    Run(next)
}

#[test]
fn lease_is_the_next_users_once_the_former_one_has_it_no_more_and_ends_when_it_would_have() {
    let mut run = Run::locked(terms());
    let mut next = passed_on(&mut run, terms(), false, 5_000);
    assert_eq!(run.0.deadline(), Tick::default());
    assert_eq!(
        run.0.claim(at(5_000).lease),
        Claim::Lost(LossReason::Released)
    );
    assert_eq!(run.result(), Ok(()));
    assert!(matches!(
        run.notices(5_000)[..],
        [Notice::HandedOver { hand_overs: 1, held }] if held == 5 * SEC
    ));

    assert_eq!(
        next.0.deadline(),
        Tick::default(),
        "it does not have it yet"
    );
    let (token, notice) = next.0.accept(at(5_000)).expect("nothing is left to do");
    assert_eq!(token, None);
    assert!(matches!(notice, Notice::Acquired { elapsed } if elapsed == 5 * SEC));
    assert_eq!(next.0.deadline(), at(55_000).lease);
    assert_eq!(
        next.waits(5_000),
        20_000,
        "it is renewed when it would have been"
    );
    assert!(next.0.accept(at(6_000)).is_none(), "once");
}

#[test]
fn change_of_the_id_comes_before_all_else_and_proves_nothing() {
    let mut run = Run::locked(terms());
    let named = Terms {
        holder_delay: Some(Duration::ZERO),
        ..terms()
    };
    let mut next = passed_on(&mut run, named, true, 10_000);
    assert_eq!(next.sends(10_000, Request::Change), 5 * SEC);
    assert!(next.0.accept(at(10_000)).is_none());
    next.answers(Request::Change, 10_000, 15_000, silent());
    assert!(
        next.0.accept(at(15_000)).is_none(),
        "the lease has one of two IDs"
    );
    let again = next.waits(15_000);
    next.sends(again, Request::Change);
    next.answers(Request::Change, again, again, done());
    next.sends(again, Request::ReadMetadata);
    next.answers(Request::ReadMetadata, again, again, forbidden());
    next.0
        .accept(at(again))
        .expect("nothing depends on the holder");
    assert_eq!(next.0.deadline(), at(55_000).lease, "as before");
}

#[test]
fn change_that_is_not_confirmed_before_the_deadline_gives_up_both_ids() {
    let mut run = Run::locked(terms());
    let mut next = passed_on(&mut run, terms(), true, 54_000);
    next.sends(54_000, Request::Change);
    next.answers(Request::Change, 54_000, 55_000, silent());
    next.sends(55_000, Request::ReleaseFormer);
    next.answers(
        Request::ReleaseFormer,
        55_000,
        55_000,
        lost(LossReason::Taken),
    );
    next.sends(55_000, Request::Release);
    next.answers(Request::Release, 55_000, 55_000, done());
    assert!(matches!(next.step(55_000), Step::Restart));
    next.0.restart(at(55_000));
    let due = next.waits(55_000);
    next.sends(due, Request::Acquire);
}

#[test]
fn lease_of_which_little_is_left_is_renewed_before_the_next_user_has_it() {
    let mut run = Run::locked(terms());
    let mut next = passed_on(&mut run, terms(), false, 41_000);
    assert!(next.0.accept(at(41_000)).is_none());
    next.sends(41_000, Request::Renew);
    next.answers(Request::Renew, 41_000, 41_000, done());
    next.0.accept(at(41_000)).expect("it was renewed");
    assert_eq!(next.0.deadline(), at(96_000).lease);
}

#[test]
fn lease_that_the_next_user_has_not_got_before_its_deadline_is_asked_for_anew() {
    let mut run = Run::locked(terms());
    let mut next = passed_on(&mut run, terms(), false, 54_000);
    assert!(next.0.accept(at(55_000)).is_none());
    next.sends(55_000, Request::Release);
    next.answers(Request::Release, 55_000, 55_000, done());
    assert!(matches!(next.step(55_000), Step::Restart));
}

#[test]
fn lease_is_not_handed_over_unless_it_is_held_and_fits() {
    let mut lost = Run::locked(terms());
    lost.0.lose(LossReason::Broken);
    let unproven = Run::locked(terms());
    let other = |terms| (Run::locked(self::terms()), terms, 1_000);
    let rows = [
        (lost, terms(), 1_000),
        (unproven, terms(), 55_000),
        (Run::new(terms(), WaitLimit::Forever), terms(), 0),
        other(Terms {
            duration: 30 * SEC,
            ..terms()
        }),
        other(fenced()),
    ];
    for (mut run, terms, now) in rows {
        assert!(run.0.pass_on(&terms, at(now)).is_none());
        assert!(run.0.result().is_none(), "it goes on");
    }
}

#[test]
fn token_of_the_next_user_follows_that_of_the_former_one() {
    let mut run = Run::new(fenced(), WaitLimit::Forever);
    run.sends(0, Request::Acquire);
    let metadata = Some(metadata("1", Some(2_000_000)));
    let granted = Ok(Answer::Granted { metadata });
    run.answers(Request::Acquire, 0, 0, granted);
    let write = |token, etag: &str| Request::WriteToken {
        token,
        if_match: etag.to_owned(),
    };
    let written = |etag: &str| {
        let etag = etag.to_owned();
        Ok(Answer::Written { etag })
    };
    run.sends(0, write(2_000_001, "1"));
    run.answers(write(2_000_001, "1"), 0, 0, written("2"));
    assert_eq!(run.hands_over(0), Some(2_000_001));

    let mut next = passed_on(&mut run, fenced(), false, 1_000);
    next.sends(1_000, Request::Change);
    next.answers(Request::Change, 1_000, 1_000, done());
    next.sends(1_000, write(2_000_002, "2"));
    assert!(next.0.accept(at(1_000)).is_none(), "it is not stored yet");
    next.answers(write(2_000_002, "2"), 1_000, 1_000, written("3"));
    let (token, _) = next.0.accept(at(1_000)).expect("it is stored");
    assert_eq!(token, Some(2_000_002));
}

#[test]
fn one_in_line_asks_nothing_and_reports_that_others_were_before_when_its_time_is_up() {
    let limit = WaitLimit::Until(at(500).lease);
    let mut run = Run(Lifecycle::in_line(terms(), limit, at(0)));
    assert_eq!(run.0.wait_end(), at(500).lease);
    assert_eq!(run.waits(0), 500);
    assert_eq!(run.0.unmet().kind(), ErrorKind::WouldBlock);
    run.0.give_up(at(500));
    assert_eq!(run.result(), Ok(()), "there is nothing to release");
}

#[test]
fn user_who_gets_the_lease_as_its_time_is_up_has_time_to_make_it_ready() {
    let mut run = Run::locked(terms());
    let limit = WaitLimit::Until(at(10_005).lease);
    let mut next = Lifecycle::in_line(terms(), limit, at(0));
    let lease = run.0.pass_on(&terms(), at(10_000)).expect("it is held");
    next.take_over(lease, true, at(10_000));
    assert!(
        next.wait_end() >= at(11_000).lease,
        "a second, as for a first attempt"
    );
}

#[test]
fn lease_that_is_broken_before_its_id_is_changed_is_released_under_the_id_that_it_has() {
    let mut run = Run::locked(terms());
    let mut next = passed_on(&mut run, terms(), true, 10_000);
    next.sends(10_000, Request::Change);
    next.answers(Request::Change, 10_000, 10_010, lost(LossReason::Broken));
    // Which ends the break period.
    next.sends(10_010, Request::ReleaseFormer);
    next.answers(Request::ReleaseFormer, 10_010, 10_020, done());
    assert!(matches!(next.step(10_020), Step::Restart));
}
