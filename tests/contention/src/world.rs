//! Clients, a network and the service, event by event.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::error::{Error, ErrorKind, LossReason};
use crate::lease::lifecycle::Lifecycle;
use crate::lease::step::{Answer, Notice, Request, Step};
use crate::lease::terms::{Terms, WaitLimit};
use crate::rivals::{Rival, Waiting};
use crate::service::{Client, Service};
use crate::time::backoff::share;
use crate::time::jitter::Jitter;
use crate::time::tick::{Moment, Tick};

/// How clients wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Policy {
    /// As azmutex ships, with this poll interval.
    Shipped(Duration),
    Rival(Rival),
}

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    pub policy: Policy,
    /// How many wait at any time: for each that is served there is a new one.
    pub waiters: usize,
    /// How long the lock is held, in the median; the logarithms are spread normally by 0.2.
    pub hold: Duration,
    /// The time of a request and its answer, 20 % more or less.
    pub round_trip: Duration,
    /// They come one after the other within this time; with zero, all at once.
    pub arrivals: Duration,
    /// It ends after so many hand-overs,
    pub hand_overs: usize,
    /// or so much time,
    pub time: Duration,
    /// or so many requests, whatever comes first.
    pub requests: u64,
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Default, Clone)]
pub struct Figures {
    /// From when the lock became free until the next client knew that it had it, sorted.
    pub latencies: Vec<Duration>,
    /// How long the served clients waited, sorted.
    pub waits: Vec<Duration>,
    /// How many requests the waiters sent, and how long all of them waited together.
    pub waiters_requests: u64,
    pub waited: Duration,
    /// How many requests the service got from all clients, and how many it refused.
    pub requests: u64,
    pub refused: u64,
    /// How often a holder could no longer claim its lock.
    pub lost: u64,
    /// How often a lease ran out, because its holder had lost it or could not release it.
    pub expired: u64,
    /// How many waits ended with an error.
    pub failed: u64,
}

impl Figures {
    pub fn latency(&self, percentile: usize) -> Duration {
        at(&self.latencies, percentile)
    }

    /// Requests that one waiter sends in a minute.
    pub fn rate(&self) -> f64 {
        self.waiters_requests as f64 / self.waited.as_secs_f64() * 60.0
    }

    /// The longest wait over the median one.
    pub fn unfairness(&self) -> f64 {
        at(&self.waits, 100).as_secs_f64() / at(&self.waits, 50).as_secs_f64()
    }

    /// The share of requests that were refused.
    pub fn refusals(&self) -> f64 {
        self.refused as f64 / self.requests as f64
    }
}

fn at(sorted: &[Duration], percentile: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    let index = (sorted.len() * percentile / 100).min(last);
    sorted.get(index).copied().unwrap_or_default()
}

/// Something that happens to a client.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// It is time for its next step, if this is still what it waits for.
    Wake(u32),
    Arrives(Asked),
    IsAnswered(Asked, Said),
    /// A new client begins to wait.
    Begins,
    /// The holder's work is done.
    HoldEnds,
}

/// A request, and when it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Asked(Ask, Tick);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ask {
    Acquire,
    Look,
    Renew,
    Release,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Yes,
    No,
    Overloaded,
}

#[derive(Debug)]
struct Actor {
    mind: Mind,
    began: Tick,
    holds: bool,
    /// Which of its `Wake`s counts.
    wake: u32,
}

#[derive(Debug)]
enum Mind {
    Lease(Box<Lifecycle>),
    Waiting(Waiting),
    Gone,
}

struct World {
    scene: Scene,
    now: Tick,
    events: BinaryHeap<Reverse<(Tick, u64, Client, Event)>>,
    count: u64,
    actors: Vec<Actor>,
    free: Vec<Client>,
    service: Service,
    jitter: Jitter,
    figures: Figures,
    held: Error,
    overloaded: Error,
}

/// The client of an event that no client has yet.
const NOBODY: Client = Client::MAX;

const LEASE: Duration = Duration::from_secs(60);

fn terms(poll_interval: Duration) -> Terms {
    Terms {
        duration: LEASE,
        margin: LEASE / 12,
        renew_every: LEASE / 3,
        max_hold: None,
        health: None,
        attempt_timeout: Duration::from_secs(5),
        fault_wait: Duration::from_secs(60),
        release_timeout: Duration::from_secs(5),
        poll_interval,
        create_missing: true,
        fencing: false,
        // What a holder writes about itself is two requests at the beginning of a hold.
        holder_delay: None,
    }
}

impl Scene {
    /// Simulates it. The same seed gives the same figures.
    pub fn run(self) -> Figures {
        let answer = |kind, status, code: &str| {
            Error::new(kind, "").with_reply(status, Some(code.to_owned()), None, None)
        };
        let start = Tick::default() + Duration::from_secs(1000);
        let mut world = World {
            scene: self,
            now: start,
            events: BinaryHeap::new(),
            count: 0,
            actors: Vec::new(),
            free: Vec::new(),
            service: Service::new(start),
            jitter: Jitter::new(self.seed),
            figures: Figures::default(),
            held: answer(ErrorKind::WouldBlock, 409, "LeaseAlreadyPresent"),
            overloaded: answer(ErrorKind::Throttled, 503, "ServerBusy"),
        };
        world.begin();
        while !world.actors[0].holds && world.happens() {}
        for waiter in 0..self.waiters {
            let share = self.arrivals.mul_f64(waiter as f64 / self.waiters as f64);
            world.schedule(world.now + share, NOBODY, Event::Begins);
        }
        let end = world.now + self.time;
        while world.figures.latencies.len() < self.hand_overs
            && world.now < end
            && world.service.requests < self.requests
            && world.happens()
        {}
        world.figures()
    }
}

impl World {
    fn figures(mut self) -> Figures {
        for actor in &self.actors {
            if !actor.holds && !matches!(actor.mind, Mind::Gone) {
                self.figures.waited += self.now.since(actor.began);
            }
        }
        self.figures.latencies.sort_unstable();
        self.figures.waits.sort_unstable();
        self.figures.requests = self.service.requests;
        self.figures.refused = self.service.refused;
        self.figures.expired = self.service.expired;
        self.figures
    }

    /// A new client begins to wait.
    fn begin(&mut self) {
        let moment = self.moment();
        let mind = match self.scene.policy {
            Policy::Shipped(poll) => Mind::Lease(Box::new(Lifecycle::new(
                terms(poll),
                WaitLimit::Forever,
                moment,
            ))),
            Policy::Rival(rival) => Mind::Waiting(Waiting::new(rival)),
        };
        let actor = Actor {
            mind,
            began: self.now,
            holds: false,
            wake: 0,
        };
        let client = match self.free.pop() {
            Some(client) => {
                // What is left of the one before does not wake it.
                let wake = self.actors[client].wake + 1;
                self.actors[client] = Actor { wake, ..actor };
                client
            }
            None => {
                self.actors.push(actor);
                self.actors.len() - 1
            }
        };
        self.drive(client);
    }

    fn moment(&self) -> Moment {
        Moment {
            lease: self.now,
            real: self.now,
        }
    }

    fn schedule(&mut self, at: Tick, client: Client, event: Event) {
        self.count += 1;
        self.events.push(Reverse((at, self.count, client, event)));
    }

    /// One way through the network.
    fn leg(&mut self) -> Duration {
        let half = self.scene.round_trip / 2;
        half / 5 * 4 + share(half / 5 * 2, self.jitter.next())
    }

    fn send(&mut self, client: Client, ask: Ask) {
        self.figures.waiters_requests += u64::from(!self.actors[client].holds);
        let arrival = self.now + self.leg();
        let asked = Asked(ask, self.now);
        self.schedule(arrival, client, Event::Arrives(asked));
    }

    /// The next event. Returns whether there was one.
    fn happens(&mut self) -> bool {
        let Some(Reverse((at, _, client, event))) = self.events.pop() else {
            return false;
        };
        self.now = at;
        match event {
            Event::Wake(wake) if wake == self.actors[client].wake => self.drive(client),
            Event::Wake(_) => {}
            Event::Begins => self.begin(),
            Event::Arrives(asked) => {
                let said = self.serve(client, asked.0);
                let heard = self.now + self.leg();
                self.schedule(heard, client, Event::IsAnswered(asked, said));
            }
            Event::IsAnswered(asked, said) => self.answered(client, asked, said),
            Event::HoldEnds => {
                let moment = self.moment();
                if let Mind::Lease(lifecycle) = &mut self.actors[client].mind {
                    lifecycle.release(moment);
                }
                self.drive(client);
            }
        }
        true
    }

    fn serve(&mut self, client: Client, ask: Ask) -> Said {
        let (now, service) = (self.now, &mut self.service);
        if !service.serves(now) {
            return Said::Overloaded;
        }
        let yes = match ask {
            Ask::Acquire => service.acquire(client, now, LEASE),
            Ask::Look => service.holder(now).is_some(),
            Ask::Renew => service.renew(client, now, LEASE),
            Ask::Release => service.release(client, now),
        };
        if yes { Said::Yes } else { Said::No }
    }

    fn answered(&mut self, client: Client, Asked(ask, sent): Asked, said: Said) {
        let (moment, random) = (self.moment(), self.jitter.next());
        match &mut self.actors[client].mind {
            Mind::Gone => return,
            Mind::Waiting(waiting) => {
                let delay = match said {
                    Said::Yes => {
                        self.actors[client].mind =
                            Mind::Lease(Box::new(granted(sent, moment, random)));
                        return self.has_it(client);
                    }
                    Said::No => waiting.held(random),
                    Said::Overloaded => waiting.refused(random),
                };
                let wake = self.actors[client].wake;
                return self.schedule(self.now + delay, client, Event::Wake(wake));
            }
            Mind::Lease(lifecycle) => {
                let (request, result) = match (ask, said) {
                    (Ask::Acquire, Said::Yes) => {
                        (Request::Acquire, Ok(Answer::Granted { metadata: None }))
                    }
                    (Ask::Acquire, _) => (Request::Acquire, Err(self.held.clone())),
                    (Ask::Look, said) => {
                        let (held, changed) = (said == Said::Yes, false);
                        (Request::ReadHolder, Ok(Answer::Looked { held, changed }))
                    }
                    (Ask::Renew, Said::Yes) => (Request::Renew, Ok(Answer::Done)),
                    (Ask::Renew, _) => (Request::Renew, Err(Error::lost(LossReason::Taken))),
                    (Ask::Release, Said::Yes) => (Request::Release, Ok(Answer::Done)),
                    (Ask::Release, _) => (Request::Release, Err(Error::lost(LossReason::Taken))),
                };
                let result = match said {
                    Said::Overloaded => Err(self.overloaded.clone()),
                    _ => result,
                };
                let sent = Moment {
                    lease: sent,
                    real: sent,
                };
                lifecycle.answered(&request, sent, moment, result, random);
            }
        }
        self.drive(client);
    }

    /// Carries out a client's steps until it waits for something.
    fn drive(&mut self, client: Client) {
        let moment = self.moment();
        loop {
            self.actors[client].wake = self.actors[client].wake.wrapping_add(1);
            let lifecycle = match &mut self.actors[client].mind {
                Mind::Lease(lifecycle) => lifecycle,
                Mind::Waiting(_) => return self.send(client, Ask::Acquire),
                Mind::Gone => return,
            };
            match lifecycle.step(moment) {
                Step::Send { request, .. } => {
                    let ask = match request {
                        Request::Acquire => Ask::Acquire,
                        Request::ReadHolder => Ask::Look,
                        Request::Renew => Ask::Renew,
                        Request::Release => Ask::Release,
                        request => unreachable!("{request:?}: nothing is created or written"),
                    };
                    return self.send(client, ask);
                }
                Step::Wait(until) => {
                    let until = until.real.min(until.lease);
                    if until != Tick::NEVER {
                        let wake = self.actors[client].wake;
                        self.schedule(until, client, Event::Wake(wake));
                    }
                    return;
                }
                Step::Announce(Notice::Lost(_) | Notice::Unproven) => self.figures.lost += 1,
                Step::Announce(_) => {}
                Step::HandOver { .. } => return self.has_it(client),
                Step::Fail(_) => {
                    self.figures.failed += 1;
                    self.figures.waited += self.now.since(self.actors[client].began);
                    self.actors[client].mind = Mind::Gone;
                    // It leaves nothing behind: a refusal is no grant.
                    self.free.push(client);
                    return self.begin();
                }
                Step::Restart => unreachable!("no lease is lost before it is handed over"),
                Step::End => {
                    self.actors[client].mind = Mind::Gone;
                    self.free.push(client);
                    return;
                }
            }
        }
    }

    /// A client has the lock.
    fn has_it(&mut self, client: Client) {
        let actor = &mut self.actors[client];
        actor.holds = true;
        let waited = self.now.since(actor.began);
        if let Some(free) = self.service.free_since.take() {
            self.figures.latencies.push(self.now.since(free));
            self.figures.waits.push(waited);
            self.figures.waited += waited;
            self.begin();
        }
        let hold = self.scene.hold.mul_f64(self.log_normal());
        self.schedule(self.now + hold, client, Event::HoldEnds);
        self.drive(client);
    }

    /// A factor whose logarithm is spread normally by 0.2.
    fn log_normal(&mut self) -> f64 {
        let mut uniform = || (self.jitter.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let normal: f64 = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        (0.2 * normal).exp()
    }
}

/// The lease of one that waited in another way.
fn granted(sent: Tick, now: Moment, random: u64) -> Lifecycle {
    let sent = Moment {
        lease: sent,
        real: sent,
    };
    let mut lifecycle = Lifecycle::new(terms(Duration::ZERO), WaitLimit::Forever, sent);
    lifecycle.step(sent);
    let answer = Ok(Answer::Granted { metadata: None });
    lifecycle.answered(&Request::Acquire, sent, now, answer, random);
    while !matches!(lifecycle.step(now), Step::HandOver { .. }) {}
    lifecycle
}
