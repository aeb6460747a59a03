//! What the network and the service do to a client in a storm: seeded, and by episodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::proxy::{self, Fault, FaultProxy};

/// A generator of numbers that are the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The numbers of one seed and of one of its users.
    pub(crate) fn new(seed: u64, user: u64) -> Self {
        let mut random = Self(seed ^ user.wrapping_mul(0xd6e8_feb8_6659_fd93));
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From zero to `end`, without `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// Whether something happens that does so in `percent` of all cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(from * 1000 + self.below((to - from) * 1000 + 1))
    }

    /// The position of one of these weights, by their share of the sum.
    pub(crate) fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (at, &weight) in weights.iter().enumerate() {
            if left < weight {
                return at;
            }
            left -= weight;
        }
        unreachable!("less than the sum of the weights")
    }
}

/// How often each fault was chosen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Tally {
    pub(crate) fn add(&self, what: &'static str) {
        *self.0.lock().entry(what).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().clone()
    }
}

#[derive(Clone, Copy, Debug)]
enum Episode {
    Calm,
    Flaky,
    Slow,
    Blackhole { before: bool },
    Busy,
    Failing { before: bool },
    Forbidden,
}

/// Chooses the faults of one proxy. Times are real ones, divided by a scale.
pub(crate) struct Weather {
    started: Instant,
    scale: u32,
    episodes: Random,
    faults: Random,
    tally: Tally,
    episode: Episode,
    ends: Duration,
}

impl Weather {
    pub(crate) fn new(seed: u64, user: u64, scale: u32, tally: &Tally) -> Self {
        Self {
            started: Instant::now(),
            scale,
            episodes: Random::new(seed, user * 2 + 1000),
            faults: Random::new(seed, user * 2 + 1001),
            tally: tally.clone(),
            episode: Episode::Calm,
            ends: Duration::from_secs(1) / scale,
        }
    }

    /// Lets it choose the faults of `proxy`. Returns how to cut that off.
    pub(crate) fn over(mut self, proxy: &FaultProxy) -> Cut {
        let cut = Cut::default();
        let until = Arc::clone(&cut.0);
        proxy.choose(move |_| {
            let is_cut = until.lock().is_some_and(|until| Instant::now() < until);
            let (name, fault) = match self.choose() {
                _ if is_cut => ("cut off", Fault::HangBefore),
                chosen => chosen,
            };
            self.tally.add(name);
            fault
        });
        cut
    }

    fn choose(&mut self) -> (&'static str, Fault) {
        while self.started.elapsed() >= self.ends {
            let (episode, lasts) = self.next_episode();
            self.episode = episode;
            self.ends += lasts / self.scale;
        }
        match self.episode {
            Episode::Calm if self.faults.chance(1) => self.any(),
            Episode::Calm => ("pass", Fault::Pass),
            Episode::Flaky if self.faults.chance(30) => self.any(),
            Episode::Flaky => ("pass", Fault::Pass),
            Episode::Slow => {
                let time = self.faults.millis(20, 1500) / self.scale;
                ("delay", Fault::Delay(time))
            }
            Episode::Blackhole { before: true } => ("hang before", Fault::HangBefore),
            Episode::Blackhole { before: false } => ("hang after", Fault::HangAfter),
            Episode::Busy => {
                // In real seconds, so not at every scale.
                let wait = self.faults.chance(30) && self.scale == 1;
                ("503", Fault::Answer(proxy::server_busy(wait.then_some(1))))
            }
            Episode::Failing { before: true } => ("500", Fault::Answer(proxy::internal_error())),
            Episode::Failing { before: false } => {
                let fault = Fault::AnswerAfter(proxy::internal_error());
                ("500 after", fault)
            }
            Episode::Forbidden => (
                "403",
                Fault::Answer(proxy::forbidden("AuthenticationFailed")),
            ),
        }
    }

    fn next_episode(&mut self) -> (Episode, Duration) {
        let random = &mut self.episodes;
        let (before, longer) = (random.chance(50), random.chance(15));
        match random.weighted(&[42, 26, 9, 10, 5, 5, 3]) {
            0 => (Episode::Calm, random.millis(2000, 10_000)),
            1 => (Episode::Flaky, random.millis(2000, 8000)),
            2 => (Episode::Slow, random.millis(1000, 5000)),
            // Some of them last longer than a lease.
            3 if longer => {
                let blackhole = Episode::Blackhole { before: true };
                (blackhole, random.millis(16_000, 30_000))
            }
            3 => (Episode::Blackhole { before }, random.millis(500, 8000)),
            4 => (Episode::Busy, random.millis(500, 4000)),
            5 => (Episode::Failing { before }, random.millis(500, 4000)),
            _ => (Episode::Forbidden, random.millis(300, 2000)),
        }
    }

    fn any(&mut self) -> (&'static str, Fault) {
        let random = &mut self.faults;
        match random.below(17) {
            0 => ("drop before", Fault::DropBefore),
            1 => ("drop after", Fault::DropAfter),
            2 => ("reset before", Fault::ResetBefore),
            3 => ("reset after", Fault::ResetAfter),
            4 => ("hang before", Fault::HangBefore),
            5 => ("hang after", Fault::HangAfter),
            6 => ("503", Fault::Answer(proxy::server_busy(None))),
            7 => ("500", Fault::Answer(proxy::internal_error())),
            8 => ("500 after", Fault::AnswerAfter(proxy::internal_error())),
            9 => {
                let code = "AuthorizationPermissionMismatch";
                ("403", Fault::Answer(proxy::forbidden(code)))
            }
            10 => {
                let bytes = random.below(400).try_into().expect("a small number");
                ("truncated", Fault::Truncate(bytes))
            }
            11 => ("closed after reply", Fault::CloseAfterReply),
            12 => {
                let time = random.millis(20, 3000) / self.scale;
                ("delay", Fault::Delay(time))
            }
            13 => ("held", Fault::Hold),
            14 => ("reply held", Fault::HoldReply),
            15 => ("late", Fault::Defer),
            _ => ("duplicate", Fault::Duplicate),
        }
    }
}

/// Cuts one client off from the service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cut(Arc<Mutex<Option<Instant>>>);

impl Cut {
    /// From now on, for so long.
    pub(crate) fn off(&self, lasts: Duration) {
        *self.0.lock() = Some(Instant::now() + lasts);
    }
}

/// When one proxy next lets go what it keeps back.
pub(crate) struct Pump {
    random: Random,
    scale: u32,
    next: Instant,
}

impl Pump {
    /// Late requests arrive at most so much later than they were sent, divided by the scale. It is
    /// less than a lease: an acquire that arrives after the lease that it asks for is over would
    /// bring that back.
    const LATEST_MS: u64 = 8000;

    pub(crate) fn new(seed: u64, user: u64, scale: u32) -> Self {
        Self {
            random: Random::new(seed, user + 5_000_000),
            scale,
            next: Instant::now(),
        }
    }

    /// Lets go what `proxy` holds, hangs and has put aside, if it is time to.
    pub(crate) fn work(&mut self, proxy: &FaultProxy) {
        if Instant::now() >= self.next {
            Self::let_go(proxy);
            self.next = Instant::now() + self.random.millis(50, Self::LATEST_MS) / self.scale;
        }
    }

    pub(crate) fn let_go(proxy: &FaultProxy) {
        proxy.release_held();
        proxy.release_hung();
        // A service that is too busy for them makes them lost ones.
        drop(proxy.try_deliver_late());
    }
}
