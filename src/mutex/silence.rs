//! Waiting for a service that does not answer: once, instead of once for every lease.

use std::time::Duration;

use crate::sync::Mutex;
use crate::time::tick::Tick;

/// Whether a release has just waited in vain for the service.
#[derive(Debug, Default)]
pub(crate) struct Silence(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the last request that was answered was sent.
    answered: Tick,
    /// Until when releases do not wait.
    until: Tick,
}

impl Silence {
    /// Whether a release that begins at `now` should not wait, since another one has just waited in
    /// vain.
    pub(crate) fn is_known(&self, now: Tick) -> bool {
        now < self.0.lock().until
    }

    /// A release that began at `since` got no answer until `now`. For as long again, others do not
    /// wait, unless the service has answered somebody else meanwhile.
    pub(crate) fn waited_in_vain(&self, since: Tick, now: Tick) {
        let length: Duration = now.since(since);
        let mut state = self.0.lock();
        if state.answered < since {
            state.until = now + length;
        }
    }

    /// The service answered a request that was sent at `sent`.
    pub(crate) fn answered(&self, sent: Tick) {
        let mut state = self.0.lock();
        if sent > state.answered {
            state.answered = sent;
            state.until = Tick::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Tick {
        Tick::default() + Duration::from_secs(secs)
    }

    #[test]
    fn silence_is_waited_for_once_until_it_ends() {
        let silence = Silence::default();
        assert!(!silence.is_known(at(10)));
        silence.waited_in_vain(at(10), at(15));
        assert!(silence.is_known(at(16)));
        assert!(!silence.is_known(at(20)), "the next one tries again");

        silence.waited_in_vain(at(20), at(25));
        silence.answered(at(26));
        assert!(!silence.is_known(at(27)));
        silence.waited_in_vain(at(24), at(29));
        assert!(!silence.is_known(at(30)), "it answered somebody else");
    }
}
