//! An election: candidates with the shipped hold, the work that each does while it leads, and what ends
//! that work.
//!
//! The network and the service are those of `world` reduced to what concerns the work: a request arrives at
//! once, or it or its reply is lost. That a claim is right is shown there.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use stateright::{Model, Property};

use crate::lease::fingerprint::View;
use crate::lease::hold::{Claim, Hold, Renewal, Step};
use crate::lease::terms::Terms;
use crate::time::tick::Tick;

const TICK: Duration = Duration::from_secs(1000);
/// In ticks. The lease may be claimed for `DURATION - MARGIN`.
const DURATION: u32 = 3;
const MARGIN: u32 = 1;
const HEALTH: u32 = 2;

/// One way to make an election wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// The lease is renewed whether the work gets on or not.
    NoHealth,
    /// The leader resigns before its work has ended.
    ReleasesFirst,
    /// Nobody ends the work of a leader that is none any more.
    NoSupervisor,
}

/// An election among so many candidates.
#[derive(Debug, Clone, Copy)]
pub struct Election {
    pub candidates: u8,
    pub mistake: Option<Mistake>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Work {
    None,
    GoesOn,
    /// It gives no sign of life, since so many ticks.
    Hangs(u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    /// While it leads, or has not noticed that it does not.
    hold: Option<Hold>,
    work: Work,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    now: Tick,
    candidates: Vec<Candidate>,
    /// The service: whose lease runs, and until when.
    lease: Option<(usize, Tick)>,
    /// GHOST: somebody led after one whose work hung.
    hang_is_over: bool,
    hung: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Tick,
    /// A candidate asks for the lease, and its work begins.
    Elect(usize),
    /// A leader's lease is renewed.
    Renew(usize),
    /// The request to renew it is lost.
    LoseRequest(usize),
    /// The reply is lost.
    LoseReply(usize),
    /// The work gives a sign of life.
    Live(usize),
    Hang(usize),
    /// The work ends by itself.
    End(usize),
    Resign(usize),
    /// The process dies, and another one stands in its place.
    Die(usize),
}

struct Now(Tick);

impl View for Now {
    fn now(&self) -> Tick {
        self.0
    }

    fn ticks(&self, duration: Duration) -> u8 {
        let ticks = duration.as_nanos().div_ceil(TICK.as_nanos());
        u8::try_from(ticks).unwrap_or(u8::MAX)
    }

    fn etag(&self, _: &str) -> impl Hash {}

    fn token(&self, _: i64) -> impl Hash {}

    fn failures(&self) -> bool {
        true
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let view = Now(self.now);
        for Candidate { hold, work } in &self.candidates {
            work.hash(hasher);
            hold.is_some().hash(hasher);
            if let Some(hold) = hold {
                hold.fingerprint(&view, hasher);
            }
        }
        let lease = self.lease.map(|(holder, end)| (holder, view.until(end)));
        (lease, self.hung, self.hang_is_over).hash(hasher);
    }
}

impl Election {
    fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    fn terms(&self) -> Terms {
        Terms {
            duration: TICK * DURATION,
            margin: TICK * MARGIN,
            renew_every: TICK,
            max_hold: None,
            health: (!self.makes(Mistake::NoHealth)).then_some(TICK * HEALTH),
            attempt_timeout: TICK,
            fault_wait: TICK,
            release_timeout: TICK,
            poll_interval: Duration::ZERO,
            create_missing: true,
            fencing: true,
            holder_delay: None,
        }
    }

    fn tick(&self, state: &mut State) {
        state.now = state.now + TICK;
        let now = state.now;
        state.lease = state.lease.filter(|(_, end)| now < *end);
        for candidate in &mut state.candidates {
            if let Work::Hangs(ticks) = &mut candidate.work {
                *ticks = (*ticks + 1).min(HEALTH + DURATION + 1);
            }
            let Some(hold) = &mut candidate.hold else {
                continue;
            };
            while let Step::Announce(_) = hold.step(now) {}
            // The supervisor waits for nothing but the time.
            if hold.claim(now) != Claim::Held && !self.makes(Mistake::NoSupervisor) {
                candidate.work = Work::None;
            }
        }
    }

    /// Sends a renewal if it is due. Returns whether it was.
    fn renew(&self, state: &mut State, i: usize, arrives: bool, answered: bool) -> bool {
        let (now, lease) = (state.now, state.lease);
        let Some(hold) = &mut state.candidates[i].hold else {
            return false;
        };
        if !matches!(hold.step(now), Step::Renew { .. }) {
            return false;
        }
        // The service would renew one that ran out, too, if nobody had it since: that is left out.
        let is_holder = lease.is_some_and(|(holder, _)| holder == i);
        if arrives && is_holder {
            state.lease = Some((i, now + TICK * DURATION));
        }
        let renewal = match (arrives && answered, is_holder) {
            (true, true) => Renewal::Confirmed,
            (true, false) => Renewal::Lost(crate::error::LossReason::Taken),
            (false, _) => Renewal::Unknown {
                retry_after: None,
                overload: false,
            },
        };
        hold.renewed(now, now, renewal, 0);
        true
    }
}

impl Model for Election {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let candidate = Candidate {
            hold: None,
            work: Work::None,
        };
        vec![State {
            now: Tick::default() + TICK * 1000,
            candidates: vec![candidate; usize::from(self.candidates)],
            lease: None,
            hung: false,
            hang_is_over: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        for (i, candidate) in state.candidates.iter().enumerate() {
            match candidate.work {
                Work::None => {}
                Work::GoesOn => actions.extend([Action::Live(i), Action::Hang(i), Action::End(i)]),
                Work::Hangs(_) => {}
            }
            if candidate.hold.is_none() {
                if candidate.work == Work::None {
                    actions.push(Action::Elect(i));
                }
                continue;
            }
            actions.extend([
                Action::Renew(i),
                Action::LoseRequest(i),
                Action::LoseReply(i),
                Action::Die(i),
            ]);
            let may_resign = candidate.work == Work::None || self.makes(Mistake::ReleasesFirst);
            if may_resign {
                actions.push(Action::Resign(i));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let now = state.now;
        match action {
            Action::Tick => self.tick(&mut state),
            Action::Elect(i) => {
                if state.lease.is_some() {
                    return None;
                }
                state.lease = Some((i, now + TICK * DURATION));
                let mut hold = Hold::new(self.terms(), now, 0);
                hold.alive(now);
                state.candidates[i] = Candidate {
                    hold: Some(hold),
                    work: Work::GoesOn,
                };
                state.hang_is_over |= state.hung;
            }
            Action::Renew(i) if !self.renew(&mut state, i, true, true) => return None,
            Action::LoseRequest(i) if !self.renew(&mut state, i, false, false) => return None,
            Action::LoseReply(i) if !self.renew(&mut state, i, true, false) => return None,
            Action::Renew(_) | Action::LoseRequest(_) | Action::LoseReply(_) => {}
            Action::Live(i) => {
                state.candidates[i].hold.as_mut()?.alive(now);
            }
            Action::Hang(i) => {
                state.candidates[i].work = Work::Hangs(0);
                state.hung = true;
            }
            Action::End(i) => state.candidates[i].work = Work::None,
            Action::Resign(i) => {
                state.candidates[i].hold = None;
                state.lease = state.lease.filter(|(holder, _)| *holder != i);
            }
            Action::Die(i) => {
                // Its guardian ends the work with it.
                state.candidates[i] = Candidate {
                    hold: None,
                    work: Work::None,
                };
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_AT_WORK, |_, state: &State| {
                let at_work = |candidate: &&Candidate| candidate.work != Work::None;
                state.candidates.iter().filter(at_work).count() <= 1
            }),
            Property::always(HANG_ENDS, |_, state: &State| {
                let bound = HEALTH + DURATION - MARGIN;
                let over = |candidate: &Candidate| matches!(candidate.work, Work::Hangs(ticks) if ticks > bound);
                !state.candidates.iter().any(over)
            }),
            Property::sometimes(REPLACED, |_, state: &State| state.hang_is_over),
        ]
    }
}

pub const ONE_AT_WORK: &str = "no two candidates are at work at once";
pub const HANG_ENDS: &str = "work that hangs is over within its time and a lease";
pub const REPLACED: &str = "somebody leads after one whose work hung";
