//! PURE: how a lease's time is divided between renewals, the child's grace and the margin.

use std::time::Duration;

/// The times of one lease. `renew_every * 2 + grace + margin` fit into it, so that a renewal that
/// fails can be tried again before the child has to be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// How long the lease lasts.
    pub(crate) lease: Duration,
    /// From one renewal to the next.
    pub(crate) renew_every: Duration,
    /// What the child gets between the first signal and `SIGKILL`.
    pub(crate) grace: Duration,
    /// How long before the end of the lease the child is dead.
    pub(crate) margin: Duration,
}

const SECOND: Duration = Duration::from_secs(1);

impl Budget {
    /// Fills in what was not given, in proportion to the lease, and checks the rule.
    pub(crate) fn new(
        lease: Duration,
        renew_every: Option<Duration>,
        grace: Option<Duration>,
        margin: Option<Duration>,
    ) -> Result<Self, String> {
        let margin = margin.unwrap_or((lease / 12).max(SECOND * 2));
        let twice = renew_every.map_or(Duration::ZERO, |every| every.saturating_mul(2));
        let left = lease.saturating_sub(margin).saturating_sub(twice);
        let grace = grace.unwrap_or((lease / 5).min(SECOND * 10).min(left.max(SECOND)));
        let renew_every = renew_every.unwrap_or_else(|| {
            let left = lease.saturating_sub(grace).saturating_sub(margin * 2);
            (left / 2).min(lease / 3).max(SECOND)
        });
        let this = Self {
            lease,
            renew_every,
            grace,
            margin,
        };
        for (flag, value) in [("--renew-every", renew_every), ("--margin", margin)] {
            if value.is_zero() {
                return Err(format!("{flag}: it must be more than 0"));
            }
        }
        let needed = renew_every
            .saturating_mul(2)
            .saturating_add(grace)
            .saturating_add(margin);
        if needed > lease {
            return Err(format!(
                "--renew-every {} twice, --kill-after {} and --margin {} take {}: more than \
                 --lease {}",
                secs(renew_every),
                secs(grace),
                secs(margin),
                secs(needed),
                secs(lease)
            ));
        }
        // The locker's own rule.
        if renew_every + margin > lease / 4 * 3 {
            return Err(format!(
                "--renew-every {} and --margin {} take more than three quarters of --lease {}",
                secs(renew_every),
                secs(margin),
                secs(lease)
            ));
        }
        Ok(this)
    }
}

/// As on the command line: `4s`, `2.5s`.
fn secs(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lease: u64) -> Budget {
        Budget::new(SECOND * lease as u32, None, None, None).unwrap()
    }

    #[test]
    fn defaults_shrink_with_the_lease() {
        let (long, short) = (of(60), of(15));
        assert_eq!(
            (long.renew_every, long.grace, long.margin),
            (20 * SECOND, 10 * SECOND, 5 * SECOND)
        );
        assert_eq!(
            (short.renew_every, short.grace, short.margin),
            (4 * SECOND, 3 * SECOND, 2 * SECOND)
        );
        for lease in 15..=60 {
            of(lease);
        }
    }

    #[test]
    fn given_times_leave_the_rest_to_the_others() {
        let grace = Budget::new(15 * SECOND, None, Some(10 * SECOND), None).unwrap();
        assert_eq!(grace.renew_every, SECOND);
        let renew = Budget::new(60 * SECOND, Some(25 * SECOND), None, None).unwrap();
        assert_eq!(renew.grace, 5 * SECOND);
    }

    #[test]
    fn times_that_do_not_fit_are_refused_with_their_flags() {
        let wrong = Budget::new(60 * SECOND, Some(25 * SECOND), Some(10 * SECOND), None);
        assert_eq!(
            wrong.unwrap_err(),
            "--renew-every 25s twice, --kill-after 10s and --margin 5s take 65s: more than \
             --lease 60s"
        );
        let long = Budget::new(60 * SECOND, Some(Duration::MAX), None, None);
        assert!(long.unwrap_err().contains("--renew-every"));
        let zero = Budget::new(60 * SECOND, None, None, Some(Duration::ZERO));
        assert_eq!(zero.unwrap_err(), "--margin: it must be more than 0");
        let slow = Budget::new(
            60 * SECOND,
            Some(10 * SECOND),
            Some(SECOND),
            Some(36 * SECOND),
        );
        assert!(slow.unwrap_err().contains("three quarters"));
    }
}
