//! What the processes do, step by step: as `semaphore.rs`, `once.rs` and `lock_all.rs` do it.

use super::{AT_ONCE, Action, Errand, Failure, Misuse, Phase, Several, State, Use, manner};
use crate::client::{Client, Outcome, RELEASER, Request, THREAD};
use crate::error::ErrorKind;
use crate::service::{Op, Reply};

impl Several {
    /// How far the clock of a process is ahead.
    pub(super) fn ahead(&self, p: usize) -> u8 {
        match self.of {
            Use::Once(Some(every)) if self.makes(Misuse::OwnClock) && p == 0 => every,
            _ => 0,
        }
    }

    /// Whether work that ended at `done` is not due.
    pub(super) fn is_done(&self, done: Option<u8>, now: u8) -> bool {
        match (done, self.of) {
            (Some(done), Use::Once(Some(every))) => now < done + every,
            (done, _) => done.is_some(),
        }
    }

    /// Asks for a lock. Returns why it is refused, if that is known at once.
    pub(super) fn ask(
        &self,
        state: &mut State,
        p: usize,
        blob: usize,
        limit: Option<u8>,
    ) -> Option<Failure> {
        let client = &mut state.processes[p].clients[blob];
        if client.lease().is_some() {
            // What it had before is being given back.
            return Some((blob, ErrorKind::WouldBlock));
        }
        client.left = 1;
        let outcome = client.start(manner(limit), None, state.now);
        outcome.failure.map(|kind| (blob, kind))
    }

    pub(super) fn send(&self, state: &mut State, p: usize, op: Op) {
        let process = &mut state.processes[p];
        let request = Request {
            id: process.clients[0].id,
            since: 0,
            posthumous: false,
            op,
        };
        process.errand = Some(Errand {
            request,
            reply: None,
        });
    }

    /// Gives back all that a process has, and asks for.
    pub(super) fn let_go(&self, state: &mut State, p: usize, next: Option<usize>) {
        let State {
            now,
            services,
            processes,
            seen,
            ..
        } = state;
        let process = &mut processes[p];
        for (client, service) in process.clients.iter_mut().zip(services) {
            client.let_go(manner(None), service.tenure(), *now);
            seen.heed(client);
        }
        process.phase = Phase::Releases { next };
        for blob in 0..self.blobs() {
            self.go_on(state, p, blob);
        }
    }

    /// Begins what needs all that the process has.
    pub(super) fn begin(&self, state: &mut State, p: usize, etag: u8) {
        let State {
            now,
            processes,
            seen,
            ..
        } = state;
        let process = &mut processes[p];
        let claims = process.claims(*now).count();
        let wanted = match self.of {
            Use::Semaphore(_) => 1,
            Use::Once(_) | Use::All(_) => self.blobs(),
        };
        // A permit is an ordinary guard, which its user checks.
        let unchecked = matches!(self.of, Use::Semaphore(_)) || self.makes(Misuse::BeginsUnchecked);
        if claims < wanted && !unchecked {
            let next = match self.of {
                Use::All(_) => Some(p % self.blobs()),
                _ => None,
            };
            return self.let_go(state, p, next);
        }
        process.phase = Phase::Works { etag };
        seen.unheld |= claims < wanted && !matches!(self.of, Use::Semaphore(_));
        seen.again |= claims == wanted && self.is_done(seen.done, *now);
    }

    /// Goes on with what comes next, if it is known. `failed`: the lock that a client did not get.
    pub(super) fn proceed(&self, state: &mut State, p: usize, mut failed: Option<Failure>) {
        loop {
            let process = &mut state.processes[p];
            let has = |blob: usize| process.clients[blob].holds_since().is_some();
            let failure = |blob: usize| failed.filter(|failed| failed.0 == blob).map(|f| f.1);
            let next = |blob: usize| (blob + 1) % process.blobs;
            match process.phase {
                Phase::Probes { blob, .. } if has(blob) => return self.begin(state, p, 0),
                Phase::Probes { blob, asked } => match failure(blob) {
                    Some(ErrorKind::WouldBlock) if asked + 1 < process.blobs => {
                        let (blob, asked) = (next(blob), asked + 1);
                        process.phase = Phase::Probes { blob, asked };
                        failed = self.ask(state, p, blob, AT_ONCE);
                        continue;
                    }
                    Some(_) => process.phase = Phase::Idle,
                    None => return,
                },
                Phase::Waits { .. } if matches!(self.of, Use::Once(_)) && has(0) => {
                    if self.makes(Misuse::LooksBeforeLockOnly) {
                        return self.begin(state, p, 0);
                    }
                    process.phase = Phase::LooksAgain;
                    return self.send(state, p, Op::Read);
                }
                Phase::Waits { first: last } | Phase::Tries { blob: last, .. } if has(last) => {
                    let first = match process.phase {
                        Phase::Tries { first, .. } => first,
                        _ => last,
                    };
                    let blob = next(last);
                    if blob == first {
                        return self.begin(state, p, 0);
                    }
                    process.phase = Phase::Tries { first, blob };
                    let limit = match self.misuse {
                        Some(Misuse::HoldsAndWaits) => None,
                        _ => AT_ONCE,
                    };
                    failed = self.ask(state, p, blob, limit);
                    continue;
                }
                Phase::Waits { first } => match failure(first) {
                    Some(_) => process.phase = Phase::Idle,
                    None => return,
                },
                Phase::Tries { blob, .. } => match failure(blob) {
                    Some(kind) => {
                        let busy = (kind == ErrorKind::WouldBlock).then_some(blob);
                        return self.let_go(state, p, busy);
                    }
                    None => return,
                },
                Phase::Releases { next } => {
                    if process.clients.iter().any(Client::waits_for_release) {
                        return;
                    }
                    process.phase = next.map_or(Phase::Idle, |first| Phase::Rests { first });
                }
                _ => return,
            }
        }
    }

    /// Has a client that waits for no answer do what comes next.
    pub(super) fn go_on(&self, state: &mut State, p: usize, blob: usize) {
        let client = &mut state.processes[p].clients[blob];
        if client.waits_for_answer() {
            return;
        }
        for thread in [THREAD, RELEASER] {
            let client = &mut state.processes[p].clients[blob];
            let outcome = client.act(manner(None), thread, state.now);
            self.after(state, p, blob, outcome);
        }
    }

    pub(super) fn after(&self, state: &mut State, p: usize, blob: usize, outcome: Outcome) {
        let failed = outcome.failure.map(|kind| (blob, kind));
        self.proceed(state, p, failed);
    }

    pub(super) fn hear(&self, state: &mut State, p: usize, blob: usize, thread: usize) {
        let client = &mut state.processes[p].clients[blob];
        let outcome = client.hear(manner(None), thread, state.now);
        state.seen.heed(client);
        self.after(state, p, blob, outcome);
        self.go_on(state, p, blob);
    }

    pub(super) fn arrive(&self, state: &mut State, request: Request) -> Reply {
        let Request { id, op, .. } = request;
        let (now, service) = (state.now, &mut state.services[0]);
        let holds = service.holder(now) == Some(id);
        let reply = match op {
            Op::Store { token, .. } if !holds && self.makes(Misuse::RecordsWithoutId) => {
                service.store_without_id(now, token)
            }
            op => service.handle(now, id, op),
        };
        if let (Op::Store { token, .. }, Reply::Stored { .. }) = (op, reply) {
            let ahead = self.ahead(usize::from(id.client()));
            state.seen.done = token.map(|done| done as u8 - ahead);
            state.seen.late_record |= !holds;
        }
        reply
    }

    pub(super) fn hear_errand(&self, state: &mut State, p: usize) {
        let process = &mut state.processes[p];
        let Some(Errand { request, reply }) = process.errand.take() else {
            return;
        };
        match (process.phase, reply) {
            (phase, Some((Reply::Found { etag, token }, date))) => {
                let date = match self.misuse {
                    Some(Misuse::OwnClock) => state.now + self.ahead(p),
                    _ => date,
                };
                let done = self.is_done(token.map(|done| done as u8), date);
                match (phase, done) {
                    (Phase::Looks, false) => {
                        process.phase = Phase::Waits { first: 0 };
                        let failed = self.ask(state, p, 0, None);
                        self.proceed(state, p, failed);
                    }
                    (Phase::Looks, true) => process.phase = Phase::Idle,
                    (_, false) => self.begin(state, p, etag),
                    (_, true) => self.let_go(state, p, None),
                }
            }
            (Phase::Looks, _) => process.phase = Phase::Idle,
            (_, reply) => {
                if let Some((reply, _)) = reply {
                    process.clients[0].written(request, reply);
                }
                self.let_go(state, p, None);
            }
        }
    }

    /// What a process may choose to do.
    pub(super) fn choices(&self, state: &State, p: usize, actions: &mut Vec<Action>) {
        let process = &state.processes[p];
        let is_free = |blob: &usize| process.clients[*blob].lease().is_none();
        match process.phase {
            Phase::Idle if process.left > 0 => match self.of {
                Use::Semaphore(_) => {
                    let blobs = (0..process.blobs).filter(is_free);
                    actions.extend(blobs.map(|blob| Action::Ask(p, blob)));
                }
                Use::All(_) | Use::Once(_) => {
                    let first = p % process.blobs;
                    actions.extend(is_free(&first).then_some(Action::Ask(p, first)));
                }
            },
            Phase::Rests { first } if is_free(&first) => actions.push(Action::Ask(p, first)),
            Phase::Works { .. } => {
                if let Use::Once(_) = self.of {
                    actions.push(Action::Finish(p));
                }
                actions.push(Action::LetGo(p));
            }
            Phase::Probes { .. } | Phase::Waits { .. } | Phase::Tries { .. } => {
                actions.push(Action::LetGo(p));
            }
            _ => {}
        }
    }

    pub(super) fn choose(&self, state: &mut State, action: Action) {
        match action {
            Action::Ask(p, blob) => {
                let process = &mut state.processes[p];
                let limit = if process.phase == Phase::Idle {
                    process.left -= 1;
                    match self.of {
                        Use::Once(_) => {
                            process.phase = Phase::Looks;
                            return self.send(state, p, Op::Look);
                        }
                        Use::Semaphore(_) => {
                            process.phase = Phase::Probes { blob, asked: 0 };
                            AT_ONCE
                        }
                        Use::All(_) => {
                            process.phase = Phase::Waits { first: blob };
                            None
                        }
                    }
                } else {
                    process.phase = Phase::Waits { first: blob };
                    None
                };
                let failed = self.ask(state, p, blob, limit);
                self.proceed(state, p, failed);
            }
            Action::Finish(p) => {
                let Phase::Works { etag } = state.processes[p].phase else {
                    return;
                };
                let token = Some(i64::from(state.now + self.ahead(p)));
                let if_match = Some(etag);
                state.processes[p].phase = Phase::Records;
                self.send(state, p, Op::Store { if_match, token });
            }
            Action::LetGo(p) => {
                self.let_go(state, p, None);
                self.proceed(state, p, None);
            }
            _ => {}
        }
    }
}
