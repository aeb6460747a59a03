//! PURE: the figures that a lease is acquired, kept and released by.

use std::time::Duration;

use crate::time::tick::Tick;

/// The figures that a lease goes by, from the first request for it to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Terms {
    /// How long the service keeps the lease after an acquire or a renew. `Duration::MAX` if it has no
    /// end.
    pub(crate) duration: Duration,
    /// How long before the service's own end the client stops claiming the lease.
    pub(crate) margin: Duration,
    /// From one confirmed renewal's send to the next, at most.
    pub(crate) renew_every: Duration,
    /// Renewals end this long after the lease was acquired.
    pub(crate) max_hold: Option<Duration>,
    /// Renewals end this long after the user's last sign of life.
    pub(crate) health: Option<Duration>,
    /// The longest that one attempt may take.
    pub(crate) attempt_timeout: Duration,
    /// How long failures in a row are retried while the lease is acquired.
    pub(crate) fault_wait: Duration,
    /// How long the release may take.
    pub(crate) release_timeout: Duration,
    /// While another client holds the lease: the mean delay between attempts.
    pub(crate) poll_interval: Duration,
    /// Whether a missing container or blob is created.
    pub(crate) create_missing: bool,
    /// Whether the lease gets a fencing token.
    pub(crate) fencing: bool,
    /// How long the lease is held before its holder is written. `None` if it is not.
    pub(crate) holder_delay: Option<Duration>,
}

impl Terms {
    /// How long the lease may be claimed from the send of the request that the service confirmed.
    pub(crate) fn usable(&self) -> Duration {
        self.duration.saturating_sub(self.margin)
    }
}

/// How long to wait for a lease that another client holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum WaitLimit {
    /// Not at all. Failures are not retried after this.
    Once(Tick),
    /// Not at all, and failures are for the caller to retry, who knows of more than this attempt. It is
    /// over by then.
    Probe(Tick),
    Until(Tick),
    Forever,
}

impl WaitLimit {
    /// Whether a holder is not waited for.
    pub(crate) fn does_not_wait(self) -> bool {
        matches!(self, Self::Once(_) | Self::Probe(_))
    }

    pub(crate) fn end(self) -> Tick {
        match self {
            Self::Once(end) | Self::Probe(end) | Self::Until(end) => end,
            Self::Forever => Tick::NEVER,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    /// 60 s, renewed every 20, with a margin of 5: the deadline is 55 s after the send.
    pub(in crate::lease) fn terms() -> Terms {
        Terms {
            duration: 60 * SEC,
            margin: 5 * SEC,
            renew_every: 20 * SEC,
            max_hold: None,
            health: None,
            attempt_timeout: 5 * SEC,
            fault_wait: 60 * SEC,
            release_timeout: 5 * SEC,
            poll_interval: Duration::from_millis(625),
            create_missing: true,
            fencing: false,
            holder_delay: None,
        }
    }
}
