use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::azure::status::LeaseStatus;
use crate::callback::no_panic;
use crate::error::{Error, LossReason};
use crate::holder::record::Holder;
use crate::lease::step::Notice;

/// What happens to a lock, as an observer hears it.
///
/// `Display` is made for people: one line without the lock's name. See
/// [`LockerBuilder::observer`](crate::LockerBuilder::observer) for when and on which thread.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// Another client holds the lock. There are attempts to acquire it until it is free. Or others in
    /// this process are served before.
    ///
    /// Told at first, whenever the holder changes, and then every 10 seconds, if nothing else
    /// happens; while others in this process are served before, after a second and then every 10.
    #[non_exhaustive]
    Waiting {
        /// How many attempts were made so far.
        attempt: u32,
        /// The time since the wait began.
        elapsed: Duration,
        /// How many in this process are served before. Zero for the one that asks the service.
        ahead: usize,
        /// Who holds the lock, if that is known. The service is asked within the first second of
        /// waiting, and then every 10 seconds, or less often if it is overloaded.
        holder: Option<Holder>,
        /// All that the service said of the lock then; `None` before.
        status: Option<Box<LeaseStatus>>,
    },
    /// An attempt to acquire failed in a way that may pass. There is another attempt after a while.
    #[non_exhaustive]
    AcquireFailed {
        /// How many attempts were made, from 1.
        attempt: u32,
        /// Why.
        error: Error,
    },
    /// The lock is held.
    #[non_exhaustive]
    Acquired {
        /// The time since the wait began.
        elapsed: Duration,
    },
    /// The service confirmed a renewal.
    Renewed,
    /// A renewal failed, and is tried again. The lease may or may not be renewed.
    #[non_exhaustive]
    RenewalFailed {
        /// Why.
        error: Error,
        /// How much longer the lock is held without a renewal. Zero once it is unproven.
        remaining: Duration,
    },
    /// The holder could not be written to the blob, or that it is about to release the lock. The lock
    /// itself is not affected.
    #[non_exhaustive]
    RecordFailed {
        /// Why.
        error: Error,
    },
    /// The deadline passed without a confirmed renewal. The lock may be lost, or become held again.
    Unproven,
    /// A renewal was confirmed after the lock was unproven. Nobody else held it in between.
    HeldAgain,
    /// The lock is lost for good.
    #[non_exhaustive]
    Lost {
        /// Why.
        reason: LossReason,
    },
    /// The guard ended, and the next who waits in this process has the lock. The lease was not
    /// released.
    #[non_exhaustive]
    HandedOver {
        /// How often that has happened to the lease since the service granted it.
        hand_overs: u32,
        /// How long ago that was.
        held: Duration,
    },
    /// The lock was released.
    Released,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting {
                elapsed,
                holder,
                ahead,
                ..
            } => {
                match holder {
                    Some(holder) => write!(f, "waiting: held by {holder}")?,
                    None if *ahead > 0 => f.write_str("waiting")?,
                    None => f.write_str("waiting: another client holds it")?,
                }
                if *ahead > 0 {
                    write!(f, ", {ahead} ahead in this process")?;
                }
                write!(f, ", {} s so far", elapsed.as_secs())
            }
            Self::AcquireFailed { error, .. } => write!(f, "{error}; trying again"),
            Self::Acquired { elapsed } => {
                write!(f, "acquired after {:.1} s", elapsed.as_secs_f64())
            }
            Self::Renewed => f.write_str("renewed"),
            Self::RenewalFailed { error, remaining } if remaining.is_zero() => {
                write!(f, "{error}; trying again")
            }
            Self::RenewalFailed { error, remaining } => {
                write!(f, "{error}; held for another {} s", remaining.as_secs())
            }
            Self::RecordFailed { error } => write!(f, "{error}; the lock itself is not affected"),
            Self::Unproven => f.write_str(
                "no renewal was confirmed in time; it may be lost, and may be held again",
            ),
            Self::HeldAgain => f.write_str("held again; nobody else held it in between"),
            Self::Lost { reason } => write!(f, "lost: {reason}"),
            Self::HandedOver { hand_overs, held } => {
                f.write_str("handed over in this process (")?;
                match hand_overs {
                    1 => f.write_str("once")?,
                    more => write!(f, "{more} times")?,
                }
                write!(f, " in {:.1} s)", held.as_secs_f64())
            }
            Self::Released => f.write_str("released"),
        }
    }
}

/// Hears what happens to a lock.
pub(crate) type Observer = Arc<dyn Fn(&Event) + Send + Sync>;

/// Those who hear what happens to a lock: whoever reads logs, and an observer.
pub(crate) struct Events {
    /// Account, container and key.
    pub(crate) target: String,
    pub(crate) observer: Option<Observer>,
}

impl Events {
    /// What a notice is to those who listen, and whether it is worth a line to whoever reads logs.
    ///
    /// `status`: what the service last said of the lock. `before`: how many are served before in this
    /// process, and who has the lock as far as is known here.
    pub(crate) fn event(
        &self,
        notice: Notice,
        status: Option<LeaseStatus>,
        before: impl FnOnce() -> (usize, Option<Holder>),
    ) -> (Event, bool) {
        let mut worth_a_line = true;
        let event = match notice {
            Notice::HeldByAnother { attempt, elapsed } => Event::Waiting {
                attempt,
                elapsed,
                ahead: 0,
                holder: status.as_ref().and_then(LeaseStatus::holder).cloned(),
                status: status.map(Box::new),
            },
            Notice::InLine { elapsed } => {
                let (ahead, holder) = before();
                Event::Waiting {
                    attempt: 0,
                    elapsed,
                    ahead,
                    holder,
                    status: None,
                }
            }
            Notice::AcquireFailed {
                attempt,
                error,
                report,
            } => {
                worth_a_line = report;
                let error = error.during("acquire lease on", &self.target);
                Event::AcquireFailed { attempt, error }
            }
            Notice::Acquired { elapsed } => Event::Acquired { elapsed },
            Notice::Renewed => Event::Renewed,
            Notice::RenewalFailed { error, remaining } => Event::RenewalFailed { error, remaining },
            Notice::RecordFailed { error } => Event::RecordFailed { error },
            Notice::Unproven => Event::Unproven,
            Notice::HeldAgain => Event::HeldAgain,
            Notice::Lost(reason) => Event::Lost { reason },
            Notice::HandedOver { hand_overs, held } => Event::HandedOver { hand_overs, held },
            Notice::Released => Event::Released,
        };
        (event, worth_a_line)
    }

    /// Never with a lock held, and never panics. `report`: whether a failure is worth a line to
    /// whoever reads logs.
    pub(crate) fn tell(&self, event: &Event, report: bool) {
        use log::Level::{Debug, Info, Warn};

        let level = match event {
            Event::Waiting { .. } => Info,
            Event::AcquireFailed { .. } if report => Warn,
            Event::RenewalFailed { .. }
            | Event::RecordFailed { .. }
            | Event::Unproven
            | Event::Lost { .. } => Warn,
            _ => Debug,
        };
        let target = &self.target;
        no_panic(|| log::log!(level, "lock `{target}`: {event}"));
        if let Some(observer) = &self.observer
            && !no_panic(|| observer(event))
        {
            no_panic(|| log::error!("lock `{target}`: its observer panicked"));
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Phase;

    const SEC: Duration = Duration::from_secs(1);

    fn silence() -> Error {
        Error::transport("no reply in time", Phase::Reply).during("renew lease on", "a/c/key")
    }

    #[test]
    fn events_read_as_a_line_for_people() {
        let holder = Holder {
            owner: Some("ci@build-07".to_owned()),
            pid: Some(42),
            ..Holder::unknown()
        };
        let waiting = |holder, ahead| Event::Waiting {
            attempt: 3,
            elapsed: 12 * SEC,
            ahead,
            holder,
            status: None,
        };
        let failed = |remaining| Event::RenewalFailed {
            error: silence(),
            remaining,
        };
        let error = silence();
        let rows = [
            (
                waiting(Some(holder.clone()), 0),
                "waiting: held by ci@build-07 (pid 42), 12 s so far",
            ),
            (
                waiting(None, 0),
                "waiting: another client holds it, 12 s so far",
            ),
            (
                waiting(Some(holder), 2),
                "waiting: held by ci@build-07 (pid 42), 2 ahead in this process, 12 s so far",
            ),
            (
                waiting(None, 3),
                "waiting, 3 ahead in this process, 12 s so far",
            ),
            (
                Event::AcquireFailed { attempt: 1, error },
                "failed to renew lease on `a/c/key`: no reply in time; trying again",
            ),
            (
                failed(35 * SEC),
                "failed to renew lease on `a/c/key`: no reply in time; held for another 35 s",
            ),
            (
                failed(Duration::ZERO),
                "failed to renew lease on `a/c/key`: no reply in time; trying again",
            ),
            (
                Event::Unproven,
                "no renewal was confirmed in time; it may be lost, and may be held again",
            ),
            (
                Event::Lost {
                    reason: LossReason::Broken,
                },
                "lost: the lease was broken by another client",
            ),
            (
                Event::HandedOver {
                    hand_overs: 7,
                    held: 2 * SEC,
                },
                "handed over in this process (7 times in 2.0 s)",
            ),
            (
                Event::HandedOver {
                    hand_overs: 1,
                    held: 2 * SEC,
                },
                "handed over in this process (once in 2.0 s)",
            ),
            (Event::Released, "released"),
        ];
        for (event, text) in rows {
            assert_eq!(event.to_string(), text);
        }
    }
}
