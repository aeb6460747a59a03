//! What tells one lease from another, as far as anything can come of it.
//!
//! A part of the library's own module `lease`, as the model compiles it, so that it sees the fields.
//! Times count by how far away they are, in ticks, and ETags and tokens by their place among all
//! there are. Each struct is taken apart whole: a field that is new has to be put in one of the two
//! lists.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::acquisition::Acquisition;
use super::change::Change;
use super::hold::Hold;
use super::lifecycle::{Held, Lifecycle, Phase, Then};
use super::proposal::Proposal;
use super::release::Release;
use super::step::{Metadata, Notice};
use super::writing::Writing;
use crate::error::{Delivery, Error};
use crate::time::retry::Retry;
use crate::time::tick::{Moment, Tick};

/// What a lease is looked at by.
pub(crate) trait View {
    fn now(&self) -> Tick;
    /// How many ticks away `duration` is, and no more than what can make a difference.
    fn ticks(&self, duration: Duration) -> u8;
    fn etag(&self, etag: &str) -> impl Hash;
    fn token(&self, token: i64) -> impl Hash;
    /// Whether a request may still fail, other than by a refusal.
    fn failures(&self) -> bool;

    fn until(&self, then: Tick) -> u8 {
        self.ticks(then.since(self.now()))
    }
}

impl Lifecycle {
    pub(crate) fn fingerprint(&self, view: &impl View, state: &mut impl Hasher) {
        let Self {
            terms: _,
            acquisition,
            phase,
            acquire_in_flight,
            notices,
            failure,
            ended,
        } = self;
        (acquire_in_flight, failure.is_some(), ended).hash(state);
        notices.len().hash(state);
        for notice in notices {
            std::mem::discriminant(notice).hash(state);
            if let Notice::Lost(reason) = notice {
                reason.hash(state);
            }
        }
        std::mem::discriminant(phase).hash(state);
        match phase {
            Phase::InLine | Phase::Acquiring => acquisition.fingerprint(view, state),
            Phase::Restarting => acquisition.restarted(view, state),
            Phase::Held(held) => {
                held.fingerprint(view, state);
                if !held.handed_over {
                    acquisition.restarted(view, state);
                }
            }
            // The answer decides whether there is something to release at all.
            Phase::Releasing { then, .. } if *acquire_in_flight => {
                (then, acquisition.may_be_granted()).hash(state);
            }
            Phase::Releasing { release, then } => {
                then.hash(state);
                release.fingerprint(view, state);
                if *then == Then::Restart {
                    acquisition.restarted(view, state);
                }
            }
            Phase::Over(result) => {
                let lost = result.as_ref().map_err(Error::loss_reason);
                lost.hash(state);
            }
        }
    }

    /// The metadata and the token that it goes by.
    pub(crate) fn known(&self) -> (Option<&Metadata>, Option<i64>) {
        match &self.phase {
            Phase::Held(held) => (held.writing.metadata.as_ref(), held.writing.token),
            _ => (None, None),
        }
    }
}

impl Acquisition {
    /// What is left of it once it is asked to begin anew.
    fn restarted(&self, view: &impl View, state: &mut impl Hasher) {
        let mut restarted = self.clone();
        restarted.restart(Moment {
            lease: view.now(),
            real: view.now(),
        });
        restarted.fingerprint(view, state);
    }

    fn fingerprint(&self, view: &impl View, state: &mut impl Hasher) {
        let Self {
            terms,
            limit: _,     // see `end`
            started: _,   // see `end`
            begun: _,     // see `end`
            concluded: _, // see `end`
            proposal,
            next,
            due,
            creations,
            faults,
            // For what a caller or a log is told.
            attempts: _,
            look: _,
            look_before: _,
            told: _,
            held_by_another: _,
            failure: _,
            accepted,
            // Delays that are none in the model.
            pace: _,
        } = self;
        proposal.fingerprint(terms.usable(), view, state);
        // It decides which failures are retried.
        (next, *accepted && view.failures()).hash(state);
        (view.until(self.end()), view.until(*due), creations).hash(state);
        faults.fingerprint(view, state);
    }
}

impl Proposal {
    /// `usable`: a grant of an acquire that was sent so long ago is of no use.
    fn fingerprint(&self, usable: Duration, view: &impl View, state: &mut impl Hasher) {
        let Self {
            first_unanswered,
            ambiguous,
        } = self;
        let age = |sent| view.ticks(view.now().since(sent).min(usable));
        let waited = first_unanswered.map(age);
        (waited, ambiguous).hash(state);
    }
}

impl Held {
    fn fingerprint(&self, view: &impl View, state: &mut impl Hasher) {
        let Self {
            hold,
            writing,
            announced,
            handed_over,
            // For what is told of a hand-over.
            granted: _,
            hand_overs,
            change,
            short,
        } = self;
        hold.fingerprint(view, state);
        writing.fingerprint(view, state);
        (announced, handed_over, *hand_overs > 0, short).hash(state);
        change.is_some().hash(state);
        if let Some(Change { due, retry }) = change {
            view.until(*due).hash(state);
            retry.fingerprint(view, state);
        }
    }
}

impl Hold {
    pub(crate) fn fingerprint(&self, view: &impl View, state: &mut impl Hasher) {
        let Self {
            terms,
            acquired,
            alive,
            confirmed,
            due,
            announced,
            lost,
        } = self;
        let held_for = view.now().since(*acquired);
        let acquired = terms.max_hold.map(|max| view.ticks(held_for.min(max)));
        (acquired, announced, lost).hash(state);
        let health = terms.health.zip(*alive);
        let silent = health.map(|(within, alive)| view.now().since(alive).min(within));
        silent.map(|silent| view.ticks(silent)).hash(state);
        // Once it is not proven, it does not matter for how long.
        let age = view.now().since(*confirmed).min(terms.usable());
        (view.ticks(age), view.until(*due)).hash(state);
    }
}

impl Writing {
    fn fingerprint(&self, view: &impl View, state: &mut impl Hasher) {
        let Self {
            work,
            due,
            retry,
            metadata,
            token,
            recognizing,
            recorded,
            written,
        } = self;
        (work, recognizing.is_some(), recorded, written).hash(state);
        if work.is_some() {
            (view.until(due.lease), view.until(due.real)).hash(state);
            retry.fingerprint(view, state);
        }
        token.map(|token| view.token(token)).hash(state);
        metadata.is_some().hash(state);
        if let Some(Metadata {
            etag,
            token: last,
            wall: _, // A token is drawn as soon as metadata is there.
        }) = metadata
        {
            view.etag(etag).hash(state);
            last.map(|last| view.token(last)).hash(state);
        }
    }
}

impl Release {
    fn fingerprint(&self, view: &impl View, state: &mut impl Hasher) {
        let Self {
            started: _, // For how long an attempt may take, which the model decides.
            timeout: _,
            held_until,
            lost,
            write,
            former,
            due,
            retry,
            unanswered,
        } = self;
        (view.until(*due), lost, write, former, unanswered).hash(state);
        if *unanswered || view.failures() {
            view.until(*held_until).hash(state);
            retry.fingerprint(view, state);
        }
    }
}

trait Fingerprint {
    fn fingerprint(&self, view: &impl View, state: &mut impl Hasher);
}

impl Fingerprint for Retry {
    /// By what it would do. Its delays are shorter than a tick.
    fn fingerprint(&self, view: &impl View, state: &mut impl Hasher) {
        let now = view.now();
        let again = self.clone().failed(now, Delivery::NotDone, true, None, 0);
        let spent = self.elapsed(now).min(self.limit());
        (again.is_some(), view.ticks(spent), self.attempts().min(2)).hash(state);
    }
}
