//! Several blobs, and what is made of them: processes that go about it step by step as
//! `semaphore.rs`, `once.rs` and `lock_all.rs` do, with a client for each blob, which has the shipped
//! lease machine. Here the steps are what is explored; what can happen to one lease is in `world`.

mod same;
mod steps;

use stateright::{Model, Property};

use crate::client::{Client, Manner, RELEASER, Rate, Request, THREAD, User};
use crate::error::ErrorKind;
use crate::service::{DURATION, Op, Reply, Service};

/// What the blobs are used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// One of so many permits at a time, asked for from any one on.
    Semaphore(u8),
    /// Work that is done once, or once in so many ticks.
    Once(Option<u8>),
    /// All of so many locks at a time. Each process begins with another one.
    All(u8),
}

/// One way to make something wrong of locks that are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misuse {
    /// One process goes by one permit less, and nobody looks at the number that is recorded.
    OtherNumber,
    /// Asks for the next permit when there was no answer for this one.
    WalksAway,
    /// Does not look again whether the work is done, once it has the lock.
    LooksBeforeLockOnly,
    /// Records without the ID of the lease.
    RecordsWithoutId,
    /// Goes by its machine's clock, and one is fast.
    OwnClock,
    /// Begins although the lock may have been lost since it was acquired.
    BeginsUnchecked,
    /// Waits for the next lock with the others in hand.
    HoldsAndWaits,
}

/// The model.
#[derive(Debug, Clone, Copy)]
pub struct Several {
    pub of: Use,
    pub processes: u8,
    /// How often each of them tries.
    pub attempts: u8,
    /// How many requests get no answer.
    pub losses: u8,
    /// How many of those that record stay in the network, to arrive at any time or never.
    pub late: u8,
    /// How many processes die.
    pub deaths: u8,
    pub misuse: Option<Misuse>,
}

#[derive(Debug, Clone)]
pub struct State {
    now: u8,
    services: Vec<Service>,
    processes: Vec<Process>,
    /// Records that nobody waits for.
    network: Vec<Request>,
    left: Left,
    seen: Seen,
    /// For how long work counts as done, if there is an end.
    period: u8,
    /// Which may be seen as the first process and the first blob: it makes no difference.
    alike: &'static [(u8, usize)],
}

/// What may still happen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Left {
    losses: u8,
    late: u8,
    deaths: u8,
}

/// GHOST: what has happened.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// When the work ended that was recorded last.
    done: Option<u8>,
    /// Work began that was not due.
    again: bool,
    /// Something began without all the locks that it is under.
    unheld: bool,
    /// A record was taken from one who had lost the lease.
    late_record: bool,
    /// A release was not confirmed, or the service had said that the lease was lost.
    unreleased: bool,
}

#[derive(Debug, Clone)]
struct Process {
    /// One for each blob.
    clients: Vec<Client>,
    phase: Phase,
    /// How many more attempts it makes.
    left: u8,
    /// How many blobs it goes by.
    blobs: usize,
    /// A request that is none of a lease's.
    errand: Option<Errand>,
}

#[derive(Debug, Clone)]
struct Errand {
    request: Request,
    /// With the service's time.
    reply: Option<(Reply, u8)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    /// Asks for a permit, after so many others.
    Probes {
        blob: usize,
        asked: usize,
    },
    /// Pauses after a round in vain.
    Rests {
        first: usize,
    },
    /// Waits for a lock with nothing in hand.
    Waits {
        first: usize,
    },
    /// Tries another one, with all between in hand.
    Tries {
        first: usize,
        blob: usize,
    },
    /// Looks whether the work is done, without a lock or under it.
    Looks,
    LooksAgain,
    /// Has what it asked for. `etag`: the blob's, as last seen.
    Works {
        etag: u8,
    },
    /// The record is on its way.
    Records,
    Releases {
        next: Option<usize>,
    },
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Tick,
    /// A process begins or goes on to ask, with this blob.
    Ask(usize, usize),
    /// A thread of a client does what its lease says comes next.
    Act(usize, usize, usize),
    Arrive(usize, usize, usize),
    Hear(usize, usize, usize),
    /// Request or reply is lost.
    Lose(usize, usize, usize),
    /// The same for the requests that are none of a lease's.
    ArriveErrand(usize),
    HearErrand(usize),
    LoseErrand(usize),
    /// It gets no answer, and is still under way.
    ForgetErrand(usize),
    ArriveLate(usize),
    /// The work ends well.
    Finish(usize),
    /// A process gives back what it has, or stops to wait.
    LetGo(usize),
    Die(usize),
}

/// Who does not wait.
const AT_ONCE: Option<u8> = Some(0);

fn manner(limit: Option<u8>) -> Manner {
    Manner {
        health: None,
        mistake: None,
        fencing: false,
        holder_delay: None,
        max_hold: None,
        limit,
        exposed: false,
    }
}

impl Several {
    /// Two processes that try once each, and nothing goes wrong.
    pub const fn plain(of: Use) -> Self {
        Self {
            of,
            processes: 2,
            attempts: 1,
            losses: 0,
            late: 0,
            deaths: 0,
            misuse: None,
        }
    }

    fn blobs(&self) -> usize {
        match self.of {
            Use::Semaphore(number) | Use::All(number) => usize::from(number),
            Use::Once(_) => 1,
        }
    }

    fn makes(&self, misuse: Misuse) -> bool {
        self.misuse == Some(misuse)
    }

    fn alike(&self) -> &'static [(u8, usize)] {
        match (self.of, self.misuse) {
            (_, Some(Misuse::OtherNumber | Misuse::OwnClock)) => &[(0, 0)],
            (Use::All(2), _) => &[(0, 0), (1, 1)],
            (Use::Semaphore(2), _) if self.processes == 2 => &[(0, 0), (0, 1), (1, 0), (1, 1)],
            (Use::Semaphore(2), _) => &[(0, 0), (0, 1)],
            (Use::Semaphore(1) | Use::Once(_), _) if self.processes == 2 => &[(0, 0), (1, 0)],
            _ => &[(0, 0)],
        }
    }

    /// Whether all can come to an end if from now on nothing goes wrong: each does what it can as soon
    /// as it can, in this order or in the other.
    fn can_end(&self, state: &State) -> bool {
        [false, true].into_iter().any(|reversed| {
            let mut state = state.clone();
            (0..3 * DURATION).any(|_| {
                for place in 0..state.processes.len() {
                    let last = state.processes.len() - 1;
                    self.settle(&mut state, if reversed { last - place } else { place });
                }
                state.now += 1;
                state.processes.iter().all(Process::is_over)
            })
        })
    }

    /// Does all that a process can do now.
    fn settle(&self, state: &mut State, p: usize) {
        let mut refused = vec![false; self.blobs()];
        loop {
            let mut moved = false;
            for blob in 0..self.blobs() {
                for thread in [THREAD, RELEASER] {
                    let State {
                        now,
                        services,
                        processes,
                        ..
                    } = state;
                    let client = &mut processes[p].clients[blob];
                    if refused[blob] {
                        continue;
                    }
                    let Some(waiting) = client.waiting_mut(thread) else {
                        let outcome = client.act(manner(None), thread, *now);
                        moved |= outcome.acted;
                        self.after(state, p, blob, outcome);
                        continue;
                    };
                    let Request { id, op, .. } = waiting.request;
                    let service = &mut services[blob];
                    let reply = waiting
                        .reply
                        .get_or_insert_with(|| service.handle(*now, id, op));
                    // Whoever waits may ask again at any time: at the next tick is soon enough.
                    refused[blob] = (op, *reply) == (Op::Acquire, Reply::NotYours);
                    self.hear(state, p, blob, thread);
                    moved = true;
                }
            }
            if let Some(errand) = &state.processes[p].errand {
                if errand.reply.is_none() {
                    let reply = self.arrive(state, errand.request);
                    let reply = Some((reply, state.now));
                    state.processes[p].errand.as_mut().expect("it is").reply = reply;
                }
                self.hear_errand(state, p);
                moved = true;
            }
            let mut choices = Vec::new();
            self.choices(state, p, &mut choices);
            if let Some(&choice) = choices.first()
                && matches!(
                    state.processes[p].phase,
                    Phase::Idle | Phase::Rests { .. } | Phase::Works { .. }
                )
            {
                self.choose(state, choice);
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }
}

type Failure = (usize, ErrorKind);

impl Seen {
    fn heed(&mut self, client: &Client) {
        let result = client.lease().and_then(|lease| lease.machine.result());
        self.unreleased |= result.is_some_and(Result::is_err);
    }
}

impl Process {
    fn claims(&self, now: u8) -> impl Iterator<Item = &Client> {
        let claims = move |client: &&Client| client.claims(manner(None), now);
        self.clients.iter().filter(claims)
    }

    fn is_over(&self) -> bool {
        let free = self.clients.iter().all(|client| client.lease().is_none());
        self.phase == Phase::Dead || (self.phase == Phase::Idle && self.left == 0 && free)
    }
}

impl Client {
    fn waits_for_release(&self) -> bool {
        let lease = self.lease();
        lease.is_some_and(|lease| {
            lease.user == User::WaitsForRelease && lease.machine.result().is_none()
        })
    }
}

impl Model for Several {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let blobs = self.blobs();
        let process = |p: u8| Process {
            clients: vec![Client::new(p, Rate::Slow, 0); blobs],
            phase: Phase::Idle,
            left: self.attempts,
            blobs: blobs - usize::from(p == 0 && self.makes(Misuse::OtherNumber)),
            errand: None,
        };
        vec![State {
            now: 0,
            services: vec![Service::new(false, false); blobs],
            processes: (0..self.processes).map(process).collect(),
            network: Vec::new(),
            left: Left {
                losses: self.losses,
                late: self.late,
                deaths: self.deaths,
            },
            seen: Seen::default(),
            period: match self.of {
                Use::Once(Some(every)) => every,
                _ => 0,
            },
            alike: self.alike(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let left = &state.left;
        actions.push(Action::Tick);
        for (p, process) in state.processes.iter().enumerate() {
            self.choices(state, p, actions);
            for (blob, client) in process.clients.iter().enumerate() {
                let Some(lease) = client.lease() else {
                    continue;
                };
                for thread in [THREAD, RELEASER] {
                    match &lease.waiting[thread] {
                        None => {
                            let mut client = client.clone();
                            if client.act(manner(None), thread, state.now).acted {
                                actions.push(Action::Act(p, blob, thread));
                            }
                        }
                        Some(waiting) => {
                            actions.push(match waiting.reply {
                                Some(_) => Action::Hear(p, blob, thread),
                                None => Action::Arrive(p, blob, thread),
                            });
                            if left.losses > 0 {
                                actions.push(Action::Lose(p, blob, thread));
                            }
                        }
                    }
                }
            }
            if let Some(errand) = &process.errand {
                actions.push(match errand.reply {
                    Some(_) => Action::HearErrand(p),
                    None => Action::ArriveErrand(p),
                });
                if left.losses > 0 {
                    actions.push(Action::LoseErrand(p));
                    let stores = matches!(errand.request.op, Op::Store { .. });
                    if left.late > 0 && stores && errand.reply.is_none() {
                        actions.push(Action::ForgetErrand(p));
                    }
                }
            }
            if left.deaths > 0 && !process.is_over() {
                actions.push(Action::Die(p));
            }
        }
        actions.extend((0..state.network.len()).map(Action::ArriveLate));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let now = state.now;
        match action {
            Action::Tick => state.now += 1,
            Action::Ask(..) | Action::Finish(_) | Action::LetGo(_) => {
                self.choose(&mut state, action);
            }
            Action::Act(p, blob, thread) => {
                let client = &mut state.processes[p].clients[blob];
                let outcome = client.act(manner(None), thread, now);
                self.after(&mut state, p, blob, outcome);
            }
            Action::Arrive(p, blob, thread) => {
                let State {
                    services,
                    processes,
                    ..
                } = &mut state;
                let waiting = processes[p].clients[blob].waiting_mut(thread)?;
                let Request { id, op, .. } = waiting.request;
                waiting.reply = Some(services[blob].handle(now, id, op));
            }
            Action::Hear(p, blob, thread) => self.hear(&mut state, p, blob, thread),
            Action::Lose(p, blob, thread) => {
                state.left.losses -= 1;
                let process = &mut state.processes[p];
                let probes = matches!(process.phase, Phase::Probes { blob: b, .. } if b == blob);
                let client = &mut process.clients[blob];
                client.waiting_mut(thread)?.reply = None;
                if probes && self.makes(Misuse::WalksAway) {
                    let next = client.id.next();
                    *client = Client::new(p as u8, Rate::Slow, 0);
                    client.id = next;
                    self.proceed(&mut state, p, Some((blob, ErrorKind::WouldBlock)));
                } else {
                    self.hear(&mut state, p, blob, thread);
                }
            }
            Action::ArriveErrand(p) => {
                let request = state.processes[p].errand.as_ref()?.request;
                let reply = self.arrive(&mut state, request);
                state.processes[p].errand.as_mut()?.reply = Some((reply, now));
            }
            Action::HearErrand(p) => self.hear_errand(&mut state, p),
            Action::LoseErrand(p) | Action::ForgetErrand(p) => {
                state.left.losses -= 1;
                let errand = state.processes[p].errand.as_mut()?;
                errand.reply = None;
                if let Action::ForgetErrand(_) = action {
                    state.left.late -= 1;
                    state.network.push(errand.request);
                }
                self.hear_errand(&mut state, p);
            }
            Action::ArriveLate(i) => {
                let request = state.network.remove(i);
                self.arrive(&mut state, request);
            }
            Action::Die(p) => {
                state.left.deaths -= 1;
                let process = &mut state.processes[p];
                for client in &mut process.clients {
                    client.die().for_each(drop);
                }
                process.errand = None;
                process.phase = Phase::Dead;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(ONE_EACH, |_, state: &State| {
                (0..state.services.len()).all(|blob| {
                    let claims = |p: &&Process| p.clients[blob].claims(manner(None), state.now);
                    state.processes.iter().filter(claims).count() <= 1
                })
            }),
            Property::always(NO_LEASE_LEFT, |_, state: &State| {
                let left = |(blob, service): (usize, &Service)| {
                    service.holder(state.now).is_some_and(|id| {
                        let process = &state.processes[usize::from(id.client())];
                        let client = &process.clients[blob];
                        let known = client.id == id && client.lease().is_some();
                        !known && process.phase != Phase::Dead
                    })
                };
                state.seen.unreleased || !state.services.iter().enumerate().any(left)
            }),
            Property::always(CAN_END, |world: &Self, state: &State| world.can_end(state)),
            Property::sometimes(SERVED, |_, state: &State| {
                state.processes.iter().all(Process::is_over)
            }),
        ];
        match self.of {
            Use::Semaphore(_) => {
                properties.push(Property::always(WITHIN_PERMITS, |_, state: &State| {
                    let claims = state.processes.iter();
                    let claims = claims.flat_map(|p| p.claims(state.now)).count();
                    state.processes.iter().all(|p| claims <= p.blobs)
                }))
            }
            Use::All(_) => properties.push(Property::always(ALL_HELD, |_, state: &State| {
                !state.seen.unheld
            })),
            Use::Once(_) => properties.extend([
                Property::always(ALL_HELD, |_, state: &State| !state.seen.unheld),
                Property::always(NOT_AGAIN, |_, state: &State| !state.seen.again),
                Property::always(RECORD_REFUSED, |_, state: &State| !state.seen.late_record),
                Property::sometimes(RECORDED, |_, state: &State| state.seen.done.is_some()),
            ]),
        }
        properties
    }
}

pub const ONE_EACH: &str = "no two processes claim a lock at once";
pub const NO_LEASE_LEFT: &str = "no lease is left that nobody has or gives back";
pub const CAN_END: &str = "all can come to an end without anybody's dying";
pub const SERVED: &str = "all come to an end";
pub const WITHIN_PERMITS: &str = "no more claim a permit than there are";
pub const ALL_HELD: &str = "who begins holds all that it asked for";
pub const NOT_AGAIN: &str = "no work begins that is not due";
pub const RECORD_REFUSED: &str = "a record from one who lost the lease is refused";
pub const RECORDED: &str = "work is recorded";
