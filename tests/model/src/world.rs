//! Clients, the service, the network between them and those who interfere; and what must hold.

use std::hash::{Hash, Hasher};

use stateright::{Model, Property};

use crate::client::{Client, Manner, Outcome, Phase, Rate, Request, View};
use crate::lease::{Acquisition, Claim, Hold};
use crate::mistakes::Mistake;
use crate::service::{DURATION, Id, Op, Reply, Service};

/// What is explored: everything that can happen with so much of each.
///
/// Time has no bound: states that differ by nothing but the time are one, and every step of a client and of the network may come at
/// once or at any later tick, which is what pauses and delays are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How many clients want the lock.
    pub clients: u8,
    /// Whether one of them may have a clock that runs fast. Otherwise all run slow.
    pub fast: bool,
    /// How many locks each of them asks for, each with an ID of its own.
    pub acquisitions: u8,
    /// How many requests get no answer.
    pub losses: u8,
    /// How many of them stay in the network, to arrive at any time or never.
    pub late: u8,
    /// How many requests arrive twice, the second time at any later time.
    pub duplicates: u8,
    /// How many ticks after its send a request arrives at the latest, if there is a limit.
    pub lateness: Option<u8>,
    /// How many requests are refused by a service that is busy.
    pub busy: u8,
    /// How many processes die.
    pub deaths: u8,
    /// How many breaks there are that end a lease when it would have ended.
    pub breaks: u8,
    /// How many breaks there are with a period of 0 or 2 ticks.
    pub short_breaks: u8,
    /// How often the blob is deleted, whether leased or not.
    pub deletions: u8,
    /// How often somebody without a lease writes to the blob, and replaces its metadata.
    pub strangers: u8,
    /// How many writes under the lease the users make.
    pub writes: u8,
    /// Whether every lock gets a fencing token.
    pub fencing: bool,
    /// After so many ticks a lease is no longer renewed.
    pub max_hold: Option<u8>,
    /// Whether renewing an expired lease with a wrong ID revives the right one, as in Azurite.
    pub revives: bool,
    /// Whether acquiring an active lease again leaves its end where it was.
    pub keeps_end: bool,
}

impl Bounds {
    /// A request arrives while the lease that it could have begun would still run, or never.
    pub const IN_TIME: Option<u8> = Some(DURATION - 1);

    /// Two clients that lock once each, and nothing goes wrong.
    pub const PLAIN: Self = Self {
        clients: 2,
        fast: false,
        acquisitions: 1,
        losses: 0,
        late: 0,
        duplicates: 0,
        lateness: None,
        busy: 0,
        deaths: 0,
        breaks: 0,
        short_breaks: 0,
        deletions: 0,
        strangers: 0,
        writes: 0,
        fencing: false,
        max_hold: None,
        revives: false,
        keeps_end: false,
    };
}

/// The model: bounds, and a mistake if the clients make one.
#[derive(Debug, Clone, Copy)]
pub struct World {
    pub bounds: Bounds,
    pub mistake: Option<Mistake>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    now: u8,
    /// From the bounds.
    lateness: Option<u8>,
    service: Service,
    clients: Vec<Client>,
    /// Copies that nobody waits for, in order.
    network: Vec<Request>,
    left: Left,
    seen: Seen,
}

/// What may still happen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Left {
    losses: u8,
    late: u8,
    duplicates: u8,
    busy: u8,
    deaths: u8,
    breaks: u8,
    short_breaks: u8,
    deletions: u8,
    strangers: u8,
    writes: u8,
}

/// GHOST: what has happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    /// The greatest token that was handed out.
    token: u64,
    /// A token was handed out that is not greater than one before.
    token_regressed: bool,
    /// A write was taken from a client after another had leased the blob.
    late_write: bool,
    /// A request counted that was sent after its client had let go.
    outlived: bool,
    /// A client that was not proven any more was proven again.
    proven_again: bool,
    /// A late copy was granted.
    late_grant: bool,
}

/// Two states are the same if nothing that can follow differs: time counts by differences, and
/// beyond the length of a lease not at all.
impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self {
            now,
            lateness,
            service,
            clients,
            network,
            left,
            seen,
        } = self;
        let sent = |request: &Request| match request.op {
            Op::Store { token, .. } => Some(token),
            _ => None,
        };
        let mut tokens: Vec<u64> = clients.iter().flat_map(Client::tokens).collect();
        tokens.extend(network.iter().filter_map(sent));
        tokens.extend(service.stored().map(|stored| stored.token));
        tokens.push(seen.token);
        tokens.sort_unstable();
        tokens.dedup();
        let view = View {
            now: *now,
            tenure: service.tenure(),
            lateness: *lateness,
            tokens: &tokens,
        };
        (now % Rate::PERIOD).hash(hasher);
        service.hash(&view, hasher);
        clients.iter().for_each(|client| client.hash(&view, hasher));
        network.len().hash(hasher);
        network
            .iter()
            .for_each(|request| request.hash(&view, hasher));
        left.hash(hasher);
        view.token(seen.token).hash(hasher);
        (seen.token_regressed, seen.late_write, seen.outlived).hash(hasher);
        (seen.proven_again, seen.late_grant).hash(hasher);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Tick,
    /// A client asks for the lock.
    Start(usize),
    /// A client does what its core says comes next.
    Act(usize),
    /// The request of a client reaches the service.
    Arrive(usize),
    /// It does, and a copy of it is still under way.
    ArriveAndStay(usize),
    /// It does, and the service is busy.
    Refuse(usize),
    /// The client reads the reply.
    Hear(usize),
    /// The client stops to wait for the reply: request or reply is lost.
    Lose(usize),
    /// The same, and the request is still under way.
    Forget(usize),
    /// The user drops the guard, or stops to wait for the lock.
    LetGo(usize),
    /// The same, and the request of the renewal thread is still under way.
    LetGoAndForget(usize),
    /// The user stops to wait for the release.
    Leave(usize),
    LeaveAndForget(usize),
    /// The user writes to the blob under the lease; the write is on its way.
    Write(usize),
    Die(usize),
    DieAndForget(usize),
    /// A copy that nobody waits for reaches the service.
    ArriveLate(usize),
    Break(Option<u8>),
    Delete,
    Intrude,
}

impl World {
    fn manner(&self) -> Manner {
        Manner {
            mistake: self.mistake,
            fencing: self.bounds.fencing,
            max_hold: self.bounds.max_hold,
        }
    }

    fn claimants<'a>(&self, state: &'a State) -> impl Iterator<Item = &'a Client> {
        let (manner, now) = (self.manner(), state.now);
        state
            .clients
            .iter()
            .filter(move |client| client.claims(manner, now))
    }

    /// Whoever claims to hold and whose lease nobody ended before its time.
    fn rightful<'a>(&self, state: &'a State) -> impl Iterator<Item = &'a Client> {
        self.claimants(state)
            .filter(|client| !state.service.was_cut(client.id))
    }

    fn arrive(&self, state: &mut State, request: Request) -> Reply {
        let Request { from, id, op, .. } = request;
        let reply = state.service.handle(state.now, from, id, op);
        let counts = matches!(reply, Reply::Leased { .. });
        state.seen.outlived |= counts && request.posthumous;
        if let (Op::Write { tenure, .. }, Reply::Done) = (op, reply) {
            state.seen.late_write |= tenure != state.service.tenure();
        }
        reply
    }

    /// Leaves a request in the network that nobody waits for any more.
    fn stray(&self, state: &mut State, request: Request) {
        state.network.push(request);
        state.network.sort_unstable();
    }

    fn in_time(&self, state: &State, request: &Request) -> bool {
        let age = state.now - request.sent;
        self.bounds.lateness.is_none_or(|limit| age <= limit)
    }

    /// Whether a waiter gets the lock within one lease if everybody else falls silent.
    fn waiter_can_hold(&self, state: &State, waiter: Option<&Client>) -> bool {
        const FRESH: Id = 15;
        let mut service = state.service.clone();
        let rate = waiter.map_or(Rate::Slow, |client| client.rate);
        let id = waiter.map_or(FRESH, |client| client.id);
        let mut acquisition = match waiter.map(|client| &client.phase) {
            Some(Phase::Acquiring(acquisition)) => acquisition.clone(),
            _ => Acquisition::default(),
        };
        let usable = self.manner().terms().usable();
        // Twice as long, since what was asked for long ago has to be asked for again.
        for now in state.now..=state.now + 2 * DURATION {
            let local = rate.local(now);
            acquisition.sending(local);
            let reply = service.handle(now, FRESH, id, Op::Acquire);
            match reply {
                Reply::Leased { .. } => {
                    if let Some(since) = acquisition.granted(local, local, usable) {
                        let hold = Hold::new(self.manner().terms(), since);
                        return hold.claim(local) == Claim::Held && service.holder(now) == Some(id);
                    }
                }
                Reply::NotFound => {
                    acquisition.refused();
                    service.handle(now, FRESH, id, Op::Create);
                }
                _ => acquisition.refused(),
            }
        }
        false
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let bounds = &self.bounds;
        let rates = [Rate::Slow, Rate::Fast];
        // All clocks at the slow end of the margin, or one of them at the fast end: it is those who
        // count too little that claim for too long.
        let slow = bounds.clients - u8::from(bounds.fast)..=bounds.clients;
        slow.map(|slow| State {
            now: 0,
            lateness: bounds.lateness,
            service: Service::new(bounds.revives, bounds.keeps_end),
            clients: (0..bounds.clients)
                .map(|n| Client::new(n, rates[usize::from(n >= slow)], bounds.acquisitions))
                .collect(),
            network: Vec::new(),
            left: Left {
                losses: bounds.losses,
                late: bounds.late,
                duplicates: bounds.duplicates,
                busy: bounds.busy,
                deaths: bounds.deaths,
                breaks: bounds.breaks,
                short_breaks: bounds.short_breaks,
                deletions: bounds.deletions,
                strangers: bounds.strangers,
                writes: bounds.writes,
            },
            seen: Seen::default(),
        })
        .collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let State { left, .. } = state;
        actions.push(Action::Tick);
        for (i, client) in state.clients.iter().enumerate() {
            if client.phase == Phase::Dead {
                continue;
            }
            if client.may_start() {
                actions.push(Action::Start(i));
            }
            let lost_into = |silent, forgotten, out: &mut Vec<Action>| {
                out.push(silent);
                if left.late > 0 && client.is_under_way() {
                    out.push(forgotten);
                }
            };
            match &client.waiting {
                Some(waiting) if waiting.reply.is_some() => actions.push(Action::Hear(i)),
                Some(waiting) if self.in_time(state, &waiting.request) => {
                    actions.push(Action::Arrive(i));
                    if left.duplicates > 0 {
                        actions.push(Action::ArriveAndStay(i));
                    }
                    if left.busy > 0 {
                        actions.push(Action::Refuse(i));
                    }
                }
                Some(_) => {}
                None => actions.push(Action::Act(i)),
            }
            if client.waiting.is_some() && left.losses > 0 {
                lost_into(Action::Lose(i), Action::Forget(i), actions);
            }
            match client.phase {
                Phase::Holding(_) => {
                    lost_into(Action::LetGo(i), Action::LetGoAndForget(i), actions);
                    if left.writes > 0 {
                        actions.push(Action::Write(i));
                    }
                }
                Phase::Acquiring(_) if client.waiting.is_none() => actions.push(Action::LetGo(i)),
                Phase::Preparing(_) if client.waiting.is_none() => actions.push(Action::LetGo(i)),
                Phase::Releasing(_) if client.waiting.is_some() && left.losses > 0 => {
                    lost_into(Action::Leave(i), Action::LeaveAndForget(i), actions);
                }
                _ => {}
            }
            if left.deaths > 0 && client.phase != Phase::Idle {
                lost_into(Action::Die(i), Action::DieAndForget(i), actions);
            }
        }
        let copies = (0..state.network.len()).filter(|&i| self.in_time(state, &state.network[i]));
        actions.extend(copies.map(Action::ArriveLate));
        if left.breaks > 0 {
            actions.push(Action::Break(None));
        }
        if left.short_breaks > 0 {
            actions.extend([Action::Break(Some(0)), Action::Break(Some(2))]);
        }
        if left.deletions > 0 && state.service.exists() {
            actions.push(Action::Delete);
        }
        if left.strangers > 0 {
            actions.push(Action::Intrude);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let (manner, now) = (self.manner(), state.now);
        let mut forgotten = None;
        match action {
            Action::Tick => self.tick(&mut state),
            Action::Start(i) => state.clients[i].start(manner, state.service.stored(), now),
            Action::Act(i) => {
                if !state.clients[i].act(manner, now) {
                    return None;
                }
            }
            Action::Arrive(i) | Action::ArriveAndStay(i) => {
                let request = state.clients[i].waiting.as_ref()?.request;
                let reply = self.arrive(&mut state, request);
                state.clients[i].waiting.as_mut()?.reply = Some(reply);
                if action == Action::ArriveAndStay(i) {
                    state.left.duplicates -= 1;
                    self.stray(&mut state, request);
                }
            }
            Action::Refuse(i) => {
                state.left.busy -= 1;
                state.clients[i].waiting.as_mut()?.reply = Some(Reply::Busy);
            }
            Action::Hear(i) => self.hear(&mut state, i),
            Action::Lose(i) | Action::Forget(i) => {
                state.left.losses -= 1;
                let waiting = state.clients[i].waiting.as_mut()?;
                forgotten = waiting.reply.take().is_none().then_some(waiting.request);
                self.hear(&mut state, i);
            }
            Action::LetGo(i) | Action::LetGoAndForget(i) => {
                forgotten = state.clients[i].let_go(manner, now);
            }
            Action::Leave(i) | Action::LeaveAndForget(i) => {
                state.left.losses -= 1;
                forgotten = state.clients[i].leave(manner);
            }
            Action::Write(i) => {
                state.left.writes -= 1;
                let request = state.clients[i].write(manner, now)?;
                self.stray(&mut state, request);
            }
            Action::Die(i) | Action::DieAndForget(i) => {
                state.left.deaths -= 1;
                forgotten = state.clients[i].die();
            }
            Action::ArriveLate(i) => {
                let request = state.network.remove(i);
                let reply = self.arrive(&mut state, request);
                state.seen.late_grant |= matches!(reply, Reply::Leased { .. });
            }
            Action::Break(period) => {
                match period {
                    None => state.left.breaks -= 1,
                    Some(_) => state.left.short_breaks -= 1,
                }
                state.service.interfere(now, period);
            }
            Action::Delete => {
                state.left.deletions -= 1;
                state.service.delete(now);
                self.tick(&mut state);
            }
            Action::Intrude => {
                state.left.strangers -= 1;
                if state.service.write_without_id(now) != Reply::Done {
                    return None;
                }
                self.tick(&mut state);
            }
        }
        if let Some(request) = forgotten
            && matches!(
                action,
                Action::Forget(_)
                    | Action::LetGoAndForget(_)
                    | Action::LeaveAndForget(_)
                    | Action::DieAndForget(_)
            )
        {
            state.left.late -= 1;
            self.stray(&mut state, request);
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(ONE_HOLDER, |world: &Self, state: &State| {
                let claimants = world.claimants(state).count();
                claimants <= 1 || world.rightful(state).count() < claimants
            }),
            Property::always(CLAIMANT_IS_HOLDER, |world: &Self, state: &State| {
                let holder = state.service.holder(state.now);
                world
                    .rightful(state)
                    .all(|client| holder == Some(client.id))
            }),
            Property::always(UNINTERRUPTED, |world: &Self, state: &State| {
                let tenure = state.service.tenure();
                let since = |client: &Client| client.held().map(|held| held.tenure);
                world
                    .rightful(state)
                    .all(|client| since(client).is_none_or(|since| since == tenure))
            }),
            Property::always(NOTHING_OUTLIVES, |_, state: &State| !state.seen.outlived),
            Property::always(TOKENS_INCREASE, |_, state: &State| {
                !state.seen.token_regressed
            }),
            Property::always(LATE_WRITE_REFUSED, |_, state: &State| {
                !state.seen.late_write
            }),
            Property::always(SOMEBODY_CAN_HOLD, |world: &Self, state: &State| {
                let waits = |client: &&Client| matches!(client.phase, Phase::Acquiring(_));
                let mut waiting = state.clients.iter().filter(waits);
                world.waiter_can_hold(state, None)
                    && waiting.all(|client| world.waiter_can_hold(state, Some(client)))
            }),
            Property::sometimes(TAKEN_OVER, |_, state: &State| {
                state.service.tenure() >= 2 && state.clients.iter().any(|c| c.held().is_some())
            }),
        ];
        let bounds = &self.bounds;
        if bounds.losses > 0 {
            properties.push(Property::sometimes(PROVEN_AGAIN, |_, state: &State| {
                state.seen.proven_again
            }));
        }
        if bounds.late + bounds.duplicates > 0 {
            properties.push(Property::sometimes(LATE_GRANT, |_, state: &State| {
                state.seen.late_grant
            }));
        }
        if bounds.short_breaks + bounds.deletions > 0 {
            properties.push(Property::sometimes(
                TWO_HOLDERS,
                |world: &Self, state: &State| world.claimants(state).count() > 1,
            ));
        }
        properties
    }
}

impl World {
    /// Whoever takes away the last token takes a tick for it: the next one is made from the time.
    fn tick(&self, state: &mut State) {
        state.now += 1;
        if let Some(limit) = self.bounds.lateness {
            let oldest = state.now.saturating_sub(limit);
            state.network.retain(|request| request.sent >= oldest);
        }
    }

    fn hear(&self, state: &mut State, i: usize) {
        let (manner, now) = (self.manner(), state.now);
        let client = &mut state.clients[i];
        let was_held = client.held().map(|_| client.claims(manner, now));
        match client.hear(manner, now) {
            Outcome::HandedOut(token) => {
                let cut = state.service.was_cut(client.id);
                state.seen.token_regressed |= token <= state.seen.token && !cut;
                state.seen.token = state.seen.token.max(token);
            }
            Outcome::Nothing => {}
        }
        state.seen.proven_again |= was_held == Some(false) && client.claims(manner, now);
    }
}

pub const ONE_HOLDER: &str = "no two clients claim the lock at once";
pub const CLAIMANT_IS_HOLDER: &str = "who claims the lock is the service's holder";
pub const UNINTERRUPTED: &str = "nobody else held between a grant and a claim";
pub const NOTHING_OUTLIVES: &str = "nothing sent after letting go extends a lease";
pub const TOKENS_INCREASE: &str = "every token handed out is greater than those before";
pub const LATE_WRITE_REFUSED: &str = "a write from one who lost the lease is refused";
pub const SOMEBODY_CAN_HOLD: &str = "a waiter can come to hold the lock";
pub const TAKEN_OVER: &str = "the lock goes from one to the other";
pub const PROVEN_AGAIN: &str = "an unproven claim is proven again";
pub const LATE_GRANT: &str = "a copy that nobody waits for is granted";
pub const TWO_HOLDERS: &str = "two clients claim the lock at once";
