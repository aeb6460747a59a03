//! PURE: what is known of one proposed lease ID.

use std::time::Duration;

use crate::time::tick::Tick;

/// The acquires of one lease ID, from the first send until the service grants the lease or the
/// client gives up.
///
/// While a request of this ID is unanswered, the service may have granted it. The same ID is then
/// sent again: granted twice is granted once. An ID is never used again after giving up, since a
/// late copy of a request may still arrive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Proposal {
    /// The first send since the service last said that it had not granted the lease.
    pub(super) first_unanswered: Option<Tick>,
    /// Whether the service may have granted the lease without the client making use of it: some
    /// request was never answered, so that a copy of it may still be under way, or too late.
    pub(super) ambiguous: bool,
}

impl Proposal {
    /// An acquire goes out at `now`.
    pub(crate) fn sending(&mut self, now: Tick) {
        self.first_unanswered.get_or_insert(now);
    }

    /// The service said that it did not grant the lease.
    pub(crate) fn refused(&mut self) {
        self.first_unanswered = None;
    }

    /// No answer, or none that says whether the lease was granted.
    pub(crate) fn unanswered(&mut self) {
        self.ambiguous = true;
    }

    /// The service granted the lease, and the client heard of it at `now`. Returns the instant that
    /// its deadline counts from; `None` if that is so long ago that it is of no use any more, and
    /// all of it has to be asked for again.
    pub(crate) fn granted(&mut self, sent: Tick, now: Tick, usable: Duration) -> Option<Tick> {
        let since = self.first_unanswered.take().unwrap_or(sent).min(sent);
        let in_time = now.since(since) < usable;
        self.ambiguous |= !in_time;
        in_time.then_some(since)
    }

    /// Whether giving up now has to try to release the ID.
    pub(crate) fn may_be_granted(&self) -> bool {
        self.ambiguous
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    fn at(secs: u32) -> Tick {
        Tick::default() + SEC * 1000 + SEC * secs
    }

    #[test]
    fn proposal_counts_from_the_first_send_that_was_not_answered() {
        let mut proposal = Proposal::default();
        proposal.sending(at(0));
        proposal.unanswered();
        proposal.sending(at(5));
        assert_eq!(proposal.granted(at(5), at(6), 55 * SEC), Some(at(0)));
        assert!(proposal.may_be_granted());
    }

    #[test]
    fn proposal_counts_anew_after_a_refusal() {
        let mut proposal = Proposal::default();
        proposal.sending(at(0));
        proposal.refused();
        proposal.sending(at(5));
        assert_eq!(proposal.granted(at(5), at(6), 55 * SEC), Some(at(5)));
        assert!(!proposal.may_be_granted());
    }

    #[test]
    fn grant_heard_of_too_late_is_asked_for_again_and_may_be_left_behind() {
        let mut proposal = Proposal::default();
        proposal.sending(at(0));
        assert_eq!(proposal.granted(at(0), at(55), 55 * SEC), None);
        proposal.sending(at(55));
        proposal.refused();
        assert!(proposal.may_be_granted());
    }

    #[test]
    fn proposal_with_a_lost_reply_may_be_granted_even_after_a_refusal() {
        let mut proposal = Proposal::default();
        proposal.sending(at(0));
        proposal.unanswered();
        proposal.sending(at(1));
        proposal.refused();
        assert!(proposal.may_be_granted());
    }
}
