//! Clients, the service, the network between them and those who interfere; and what must hold.

use std::hash::{BuildHasher, Hash, Hasher};

use ahash::{AHasher, RandomState};
use stateright::{Model, Property};

use crate::client::{Client, Manner, Outcome, RELEASER, Rate, Request, THREAD, User, View};
use crate::error::Error;
use crate::mistakes::Mistake;
use crate::service::{DURATION, Id, Op, Reply, Service};

/// What is explored: everything that can happen with so much of each.
///
/// Time has no bound: states that differ by nothing but the time are one, and every step of a client
/// and of the network may come at once or at any later tick, which is what pauses and delays are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How many clients want the lock.
    pub clients: u8,
    /// Whether one of them may have a clock that runs fast. Otherwise all run slow.
    pub fast: bool,
    /// How many locks each of them asks for, each with an ID of its own.
    pub acquisitions: u8,
    /// Whether time may pass between a thread's taking in an answer and its next step, too.
    pub pauses: bool,
    /// How many requests get no answer.
    pub losses: u8,
    /// How many of them stay in the network, to arrive at any time or never.
    pub late: u8,
    /// How many requests arrive twice, the second time at any later time.
    pub duplicates: u8,
    /// How many ticks after it was given up, or arrived first, a copy arrives at the latest, if there
    /// is a limit.
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
    /// How often a lease goes to the next user in a process.
    pub hand_overs: u8,
    /// Whether others may know the ID that it has.
    pub exposed: bool,
    /// Whether every lock gets a fencing token.
    pub fencing: bool,
    /// Whether every holder is written, so many ticks after the user has the guard.
    pub holder_delay: Option<u8>,
    /// After so many ticks a lease is no longer renewed.
    pub max_hold: Option<u8>,
    /// So many ticks after the user has the guard, who gives no sign of life, the lease is no longer
    /// renewed.
    pub health: Option<u8>,
    /// For how many ticks a client waits for a lock that another holds, if there is a limit.
    pub limit: Option<u8>,
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
        pauses: false,
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
        hand_overs: 0,
        exposed: false,
        fencing: false,
        holder_delay: None,
        max_hold: None,
        health: None,
        limit: None,
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

#[derive(Debug, Clone)]
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
    hand_overs: u8,
}

/// GHOST: what has happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    /// The greatest token that was handed out.
    token: i64,
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
    /// A release was reported as a success, and somebody else had held in between.
    unheld_release: bool,
    /// Somebody else had held before the release, or the client knew of a loss, and the report does
    /// not say so.
    untold_loss: bool,
    /// A loss was reported although the client's own release ended the lease in time.
    false_loss: bool,
    /// A client was through with a lease that it had not released.
    left_behind: bool,
    /// Something was announced that is not so.
    misreported: bool,
    /// A lease went to the next user in a process.
    handed_over: bool,
    /// One did after the process had had it for its time.
    unbounded: bool,
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
        let (mut tokens, mut etags, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        service.known(&mut tokens, &mut etags, &mut ids);
        for client in clients {
            client.known(&mut tokens, &mut etags);
        }
        for request in network {
            request.known(&mut tokens, &mut etags);
            ids.push(request.id);
        }
        tokens.push(seen.token);
        let used: Vec<Id> = clients.iter().map(|client| client.id).collect();
        ids.extend(&used);
        tokens.sort_unstable();
        tokens.dedup();
        etags.sort_unstable();
        etags.dedup();
        ids.sort_unstable();
        ids.dedup();
        let failures = left.losses > 0 || left.busy > 0 || clients.iter().any(Client::has_failed);
        let seen_by = |by: u8| View {
            now: *now,
            tenure: service.tenure(),
            tokens: &tokens,
            etags: &etags,
            ids: &ids,
            used: &used,
            by,
            hand_overs: left.hand_overs > 0,
            failures,
        };
        let hash_of_client = |client: &Client| {
            let view = seen_by(client.id.client());
            hash_of(|hasher| client.hash(&view, hasher))
        };
        let hashes: Vec<u64> = clients.iter().map(hash_of_client).collect();
        // Clients are all alike: which of two is which does not matter.
        let as_seen_by = |by: u8| {
            let view = seen_by(by);
            let hash_of_request = |request: &Request| {
                let age = lateness.map(|_| now - request.since);
                hash_of(|hasher| {
                    age.hash(hasher);
                    request.hash(&view, hasher);
                })
            };
            let mut requests: Vec<u64> = network.iter().map(hash_of_request).collect();
            requests.sort_unstable();
            hash_of(|hasher| {
                service.hash(&view, hasher);
                (0..hashes.len()).for_each(|i| hashes[i ^ usize::from(by)].hash(hasher));
                requests.hash(hasher);
                view.token(seen.token).hash(hasher);
            })
        };
        let alike = if clients.len() == 2 { 0..=1 } else { 0..=0 };
        alike.map(as_seen_by).min().hash(hasher);
        (now % Rate::PERIOD).hash(hasher);
        left.hash(hasher);
        let Seen {
            token: _, // See above.
            token_regressed,
            late_write,
            outlived,
            proven_again,
            late_grant,
            unheld_release,
            untold_loss,
            false_loss,
            left_behind,
            misreported,
            handed_over,
            unbounded,
        } = seen;
        (handed_over, unbounded).hash(hasher);
        (token_regressed, late_write, outlived, misreported).hash(hasher);
        (proven_again, late_grant, left_behind).hash(hasher);
        (unheld_release, untold_loss, false_loss).hash(hasher);
    }
}

/// By what can follow, as the checker tells states apart.
impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        hash_of(|hasher| self.hash(hasher)) == hash_of(|hasher| other.hash(hasher))
    }
}

fn hash_of(hash: impl FnOnce(&mut AHasher)) -> u64 {
    static KEYS: RandomState = RandomState::with_seeds(1, 2, 3, 4);
    let mut hasher = KEYS.build_hasher();
    hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Tick,
    /// A client asks for the lock.
    Start(usize),
    /// One of a client's threads does what its lease says comes next.
    Act(usize, usize),
    /// The request of a thread reaches the service.
    Arrive(usize, usize),
    /// It does, and a copy of it is still under way.
    ArriveAndStay(usize, usize),
    /// It does, and the service is busy.
    Refuse(usize, usize),
    /// The thread reads the reply.
    Hear(usize, usize),
    /// The thread stops to wait for the reply: request or reply is lost.
    Lose(usize, usize),
    /// The same, and the request is still under way.
    Forget(usize, usize),
    /// The user drops the guard, or stops to wait for the lock.
    LetGo(usize),
    /// The user drops the guard, and another one in the process waits for it.
    HandOver(usize),
    /// The user writes to the blob under the lease; the write is on its way.
    Write(usize),
    Die(usize),
    /// The same, and what the process sent is still under way.
    DieAndForget(usize),
    /// A copy that nobody waits for reaches the service.
    ArriveLate(usize),
    /// A write does, and its user hears what became of it.
    ArriveHeard(usize),
    Break(Option<u8>),
    Delete,
    Intrude,
}

impl World {
    fn manner(&self) -> Manner {
        Manner {
            mistake: self.mistake,
            fencing: self.bounds.fencing,
            holder_delay: self.bounds.holder_delay,
            max_hold: self.bounds.max_hold,
            health: self.bounds.health,
            limit: self.bounds.limit,
            exposed: self.bounds.exposed,
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
        let Request { id, op, .. } = request;
        let reply = state.service.handle(state.now, id, op);
        let counts = matches!(reply, Reply::Leased { .. });
        state.seen.outlived |= counts && request.posthumous;
        if let (Op::Write { tenure, .. }, Reply::Stored { .. }) = (op, reply) {
            state.seen.late_write |= tenure != state.service.tenure();
        }
        reply
    }

    /// Leaves a request in the network that nobody waits for any more.
    fn stray(&self, state: &mut State, request: Request) {
        let since = state.now;
        state.network.push(Request { since, ..request });
        state.network.sort_unstable();
    }

    /// Forgets copies that can do nothing any more: of an ID that nobody uses and that is not leased.
    fn sweep(&self, state: &mut State) {
        if state.network.is_empty() || self.bounds.revives {
            return;
        }
        let State {
            service,
            clients,
            network,
            ..
        } = state;
        let acquires = |request: &Request, id| request.op == Op::Acquire && request.id == id;
        let dead: Vec<Id> = network
            .iter()
            .map(|request| request.id)
            .filter(|&id| {
                clients.iter().all(|client| client.id != id)
                    && !service.knows(id)
                    && !network.iter().any(|request| acquires(request, id))
            })
            .collect();
        network.retain(|request| !request.needs_lease() || !dead.contains(&request.id));
    }

    /// Whether a waiter gets the lock within two leases if everybody else falls silent.
    fn waiter_can_hold(&self, state: &State, waiter: &Client) -> bool {
        let mut alone = Alone::new(self, state, waiter);
        alone.any_tick(2 * DURATION + 2, |client, service, now| {
            // A lease that somebody ended before its time is handed over all the same, if the
            // client has not heard of it.
            let is_holder = service.holder(now) == Some(client.id) || service.was_cut(client.id);
            let served = client.claims(self.manner(), now) && is_holder;
            served || client.lease().is_none_or(|lease| lease.user == User::Gone)
        })
    }

    /// Whether a holder still holds after two leases if everybody else falls silent.
    fn holder_can_keep(&self, state: &State, holder: &Client) -> bool {
        let mut alone = Alone::new(self, state, holder);
        alone.any_tick(2 * DURATION, |_, _, _| false);
        alone.client.claims(self.manner(), alone.now)
    }

    /// Whether a client that has let go is through within a lease if everybody else falls silent.
    fn release_ends(&self, state: &State, client: &Client) -> bool {
        let mut alone = Alone::new(self, state, client);
        alone.any_tick(DURATION, |client, _, _| client.lease().is_none())
    }
}

/// One client and the service, and nothing between them: all that is sent arrives and is answered.
struct Alone<'a> {
    world: &'a World,
    now: u8,
    service: Service,
    client: Client,
}

impl<'a> Alone<'a> {
    fn new(world: &'a World, state: &State, client: &Client) -> Self {
        Self {
            world,
            now: state.now,
            service: state.service.clone(),
            client: client.clone(),
        }
    }

    /// Lets so many ticks pass. Returns whether `wanted` came to be.
    fn any_tick(&mut self, ticks: u8, wanted: impl Fn(&Client, &Service, u8) -> bool) -> bool {
        let end = self.now + ticks;
        loop {
            self.settle();
            if wanted(&self.client, &self.service, self.now) {
                return true;
            }
            if self.now == end {
                return false;
            }
            self.now += 1;
        }
    }

    /// Does all there is to do now.
    fn settle(&mut self) {
        let manner = self.world.manner();
        loop {
            let mut refused = false;
            for thread in [THREAD, RELEASER] {
                if let Some(waiting) = self.client.waiting_mut(thread) {
                    let Request { id, op, .. } = waiting.request;
                    let (service, now) = (&mut self.service, self.now);
                    let reply = waiting
                        .reply
                        .get_or_insert_with(|| service.handle(now, id, op));
                    refused |= (op, *reply) == (Op::Acquire, Reply::NotYours);
                    self.client.hear(manner, thread, self.now);
                }
            }
            // It may be asked again at any time: at the next tick is soon enough.
            if refused {
                return;
            }
            let mut act = |thread| {
                self.client.act(manner, thread, self.now);
                self.client.waiting_mut(thread).is_some()
            };
            if !(act(THREAD) | act(RELEASER)) {
                return;
            }
        }
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
                hand_overs: bounds.hand_overs,
            },
            seen: Seen::default(),
        })
        .collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let State { left, .. } = state;
        actions.push(Action::Tick);
        for (i, client) in state.clients.iter().enumerate() {
            if client.may_start() {
                actions.push(Action::Start(i));
            }
            let Some(lease) = client.lease() else {
                continue;
            };
            for thread in [THREAD, RELEASER] {
                let Some(waiting) = &lease.waiting[thread] else {
                    if lease.may_act(thread) {
                        actions.push(Action::Act(i, thread));
                    }
                    continue;
                };
                if waiting.reply.is_some() {
                    actions.push(Action::Hear(i, thread));
                } else {
                    actions.push(Action::Arrive(i, thread));
                    if left.duplicates > 0 {
                        actions.push(Action::ArriveAndStay(i, thread));
                    }
                    if left.busy > 0 {
                        actions.push(Action::Refuse(i, thread));
                    }
                }
                if left.losses > 0 {
                    actions.push(Action::Lose(i, thread));
                    if left.late > 0 && waiting.reply.is_none() {
                        actions.push(Action::Forget(i, thread));
                    }
                }
            }
            match lease.user {
                User::WaitsForGuard => actions.push(Action::LetGo(i)),
                User::HasGuard => {
                    actions.push(Action::LetGo(i));
                    if left.hand_overs > 0 {
                        actions.push(Action::HandOver(i));
                    }
                    if left.writes > 0 {
                        actions.push(Action::Write(i));
                    }
                }
                User::WaitsForRelease | User::Gone => {}
            }
            if left.deaths > 0 {
                actions.push(Action::Die(i));
                if left.late > 0 && lease.is_under_way() {
                    actions.push(Action::DieAndForget(i));
                }
            }
        }
        for i in 0..state.network.len() {
            actions.push(Action::ArriveLate(i));
            if matches!(state.network[i].op, Op::Write { .. }) {
                actions.push(Action::ArriveHeard(i));
            }
        }
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
        match action {
            Action::Tick => self.tick(&mut state),
            Action::Start(i) => {
                let stored = state.service.token();
                let outcome = state.clients[i].start(manner, stored, now);
                self.after(&mut state, i, outcome);
            }
            Action::Act(i, thread) => {
                let outcome = state.clients[i].act(manner, thread, now);
                if !outcome.acted {
                    return None;
                }
                self.after(&mut state, i, outcome);
            }
            Action::Arrive(i, thread) | Action::ArriveAndStay(i, thread) => {
                let request = state.clients[i].waiting_mut(thread)?.request;
                let reply = self.arrive(&mut state, request);
                state.clients[i].waiting_mut(thread)?.reply = Some(reply);
                if let Action::ArriveAndStay(..) = action {
                    state.left.duplicates -= 1;
                    self.stray(&mut state, request);
                }
            }
            Action::Refuse(i, thread) => {
                state.left.busy -= 1;
                state.clients[i].waiting_mut(thread)?.reply = Some(Reply::Busy);
            }
            Action::Hear(i, thread) => self.hear(&mut state, i, thread),
            Action::Lose(i, thread) | Action::Forget(i, thread) => {
                state.left.losses -= 1;
                let waiting = state.clients[i].waiting_mut(thread)?;
                waiting.reply = None;
                let request = waiting.request;
                if let Action::Forget(..) = action {
                    state.left.late -= 1;
                    self.stray(&mut state, request);
                }
                self.hear(&mut state, i, thread);
            }
            Action::LetGo(i) => {
                let tenure = state.service.tenure();
                let before = self.reported(&state, i);
                if !state.clients[i].let_go(manner, tenure, now) {
                    return None;
                }
                self.report(&mut state, i, before);
                self.go_on(&mut state, i);
            }
            Action::HandOver(i) => {
                state.left.hand_overs -= 1;
                let client = &mut state.clients[i];
                let (id, overdue) = (client.id, client.is_overdue(now));
                let changes = client.hand_over(manner, now)?;
                if !changes {
                    client.tenure_is(state.service.hand_over());
                }
                let is_holder = state.service.holder(now) == Some(id);
                state.seen.handed_over = true;
                state.seen.unbounded |= overdue;
                state.seen.unheld_release |= !is_holder && !state.service.was_cut(id);
                self.go_on(&mut state, i);
            }
            Action::Write(i) => {
                state.left.writes -= 1;
                let request = state.clients[i].write(manner)?;
                self.stray(&mut state, request);
            }
            Action::Die(i) | Action::DieAndForget(i) => {
                state.left.deaths -= 1;
                let under_way = state.clients[i].die();
                if let Action::DieAndForget(_) = action {
                    state.left.late -= 1;
                    under_way.for_each(|request| self.stray(&mut state, request));
                }
            }
            Action::ArriveLate(i) | Action::ArriveHeard(i) => {
                let request = state.network.remove(i);
                let reply = self.arrive(&mut state, request);
                state.seen.late_grant |= matches!(reply, Reply::Leased { .. });
                if let Action::ArriveHeard(_) = action {
                    let client = &mut state.clients[usize::from(request.id.client())];
                    if !client.written(request, reply) {
                        return None;
                    }
                }
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
                // Whoever takes away the last token takes a tick for it: the next one is made from
                // the time.
                state.service.delete(now);
                self.tick(&mut state);
            }
            Action::Intrude => {
                state.left.strangers -= 1;
                if state.service.write_without_id(now) == Reply::NotYours {
                    return None;
                }
                self.tick(&mut state);
            }
        }
        self.sweep(&mut state);
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
                world
                    .rightful(state)
                    .all(|client| client.holds_since().is_none_or(|since| since == tenure))
            }),
            Property::always(NOTHING_OUTLIVES, |_, state: &State| !state.seen.outlived),
            Property::always(TOKENS_INCREASE, |_, state: &State| {
                !state.seen.token_regressed
            }),
            Property::always(LATE_WRITE_REFUSED, |_, state: &State| {
                !state.seen.late_write
            }),
            Property::always(RELEASED_WAS_HELD, |_, state: &State| {
                !state.seen.unheld_release
            }),
            Property::always(LOSS_IS_REPORTED, |_, state: &State| !state.seen.untold_loss),
            Property::always(REPORTED_IS_LOST, |_, state: &State| !state.seen.false_loss),
            Property::always(NOTHING_LEFT, |_, state: &State| !state.seen.left_behind),
            Property::always(BOUNDED, |_, state: &State| !state.seen.unbounded),
            Property::always(ANNOUNCED_IS_SO, |_, state: &State| !state.seen.misreported),
            Property::always(SOMEBODY_CAN_HOLD, |world: &Self, state: &State| {
                let waits = |client: &&Client| {
                    let lease = client.lease();
                    lease.is_some_and(|lease| lease.user == User::WaitsForGuard)
                };
                let mut waiting = state.clients.iter().filter(waits);
                waiting.all(|client| world.waiter_can_hold(state, client))
                    && state.service.grants(state.now, 2 * DURATION)
            }),
            Property::always(HOLDER_CAN_KEEP, |world: &Self, state: &State| {
                let renewable = |client: &&Client| {
                    state.service.is_leased_to(client.id, state.now) && !state.seen.late_grant
                };
                world.bounds.max_hold.is_some()
                    || world.bounds.health.is_some()
                    || world
                        .claimants(state)
                        .filter(renewable)
                        .all(|client| world.holder_can_keep(state, client))
            }),
            Property::always(RELEASE_ENDS, |world: &Self, state: &State| {
                let lets_go = |client: &&Client| {
                    let lease = client.lease();
                    lease.is_some_and(|lease| {
                        matches!(lease.user, User::WaitsForRelease | User::Gone)
                    })
                };
                let mut clients = state.clients.iter().filter(lets_go);
                clients.all(|client| world.release_ends(state, client))
            }),
            Property::sometimes(TAKEN_OVER, |_, state: &State| {
                let holds = |client: &Client| client.holds_since().is_some();
                state.service.tenure() >= 2 && state.clients.iter().any(holds)
            }),
        ];
        let bounds = &self.bounds;
        if bounds.hand_overs > 0 {
            properties.push(Property::sometimes(HANDED_OVER, |_, state: &State| {
                let holds = |client: &Client| client.holds_since().is_some();
                state.seen.handed_over && state.clients.iter().any(holds)
            }));
        }
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
    fn tick(&self, state: &mut State) {
        state.now += 1;
        if let Some(limit) = self.bounds.lateness {
            let oldest = state.now.saturating_sub(limit);
            state.network.retain(|request| request.since >= oldest);
        }
    }

    fn hear(&self, state: &mut State, i: usize, thread: usize) {
        let (manner, now) = (self.manner(), state.now);
        let before = self.reported(state, i);
        let client = &mut state.clients[i];
        let was_held = client.holds_since().map(|_| client.claims(manner, now));
        let outcome = client.hear(manner, thread, now);
        state.seen.proven_again |= was_held == Some(false) && client.claims(manner, now);
        self.after(state, i, outcome);
        self.report(state, i, before);
        self.go_on(state, i);
    }

    /// Whoever has nothing to wait for goes on at once.
    fn go_on(&self, state: &mut State, i: usize) {
        let client = &mut state.clients[i];
        if self.bounds.pauses || client.waits_for_answer() {
            return;
        }
        for thread in [THREAD, RELEASER] {
            let outcome = state.clients[i].act(self.manner(), thread, state.now);
            self.after(state, i, outcome);
        }
    }

    fn after(&self, state: &mut State, i: usize, outcome: Outcome) {
        let client = &state.clients[i];
        if let Some(token) = outcome.token {
            let cut = state.service.was_cut(client.id);
            state.seen.token_regressed |= token <= state.seen.token && !cut;
            state.seen.token = state.seen.token.max(token);
        }
        state.seen.misreported |= outcome.misreported;
        if let Some(request) = outcome.extra {
            self.stray(state, request);
        }
    }

    fn reported(&self, state: &State, i: usize) -> bool {
        let lease = state.clients[i].lease();
        lease.is_some_and(|lease| lease.machine.result().is_some())
    }

    /// Looks at what becomes known of a release. `before`: whether it was known before.
    fn report(&self, state: &mut State, i: usize, before: bool) {
        let (client, service, seen) = (&state.clients[i], &state.service, &mut state.seen);
        let Some((lease, result)) = client
            .lease()
            .and_then(|lease| Some((lease, lease.machine.result()?)))
            .filter(|_| !before)
        else {
            return;
        };
        let holder = service.holder(state.now);
        let holds = [Some(client.id), lease.former].contains(&holder) && holder.is_some();
        seen.left_behind |= result.is_ok() && holds && !seen.late_grant;
        if lease.user != User::WaitsForRelease {
            return;
        }
        let (success, lost) = match result {
            Ok(()) => (true, false),
            Err(error) => (false, error.loss_reason().is_some()),
        };
        seen.untold_loss |= lease.known_lost && !lost;
        if service.was_cut(client.id) {
            return;
        }
        let freed = service.was_freed(client.id);
        seen.unheld_release |= success && !freed;
        let silent = result.as_ref().is_err_and(Error::is_transient);
        seen.untold_loss |= lease.overtaken && !lost && !silent;
        seen.false_loss |= lost && freed && lease.held_for_certain(client.rate, state.now);
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
pub const RELEASED_WAS_HELD: &str = "a release succeeds only if nobody else held since the grant";
pub const LOSS_IS_REPORTED: &str = "a release tells of a loss before it";
pub const REPORTED_IS_LOST: &str = "no loss is reported of a lease that was released in time";
pub const NOTHING_LEFT: &str = "who is through has left no lease behind";
pub const BOUNDED: &str = "a process hands the lock over for no longer than its time";
pub const HANDED_OVER: &str = "the next user in a process holds the lock";
pub const ANNOUNCED_IS_SO: &str = "what is announced is so";
pub const HOLDER_CAN_KEEP: &str = "a holder that is answered keeps the lock";
pub const RELEASE_ENDS: &str = "a release that is answered ends";
