//! How other programs wait for a lease, as their sources say.
//!
//! Only their waiting: in the simulation their holders renew and release as ours do. What else they
//! send, such as Terraform's reading of who holds the lock, does not count against them.

use std::time::Duration;

use crate::time::backoff::{Backoff, share};

const MS: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rival {
    /// azmutex 0.1.0: from 50 ms growing by half to 1 s; after a refusal to 10 s, which the next
    /// answer makes it forget.
    Before,
    /// madelson/DistributedLock: 250 ms to 1 s at random.
    DistributedLock,
    /// Terraform's `azurerm` back end with `-lock-timeout`: 1 s, doubling to 16 s.
    Terraform,
    /// youscan/go-azuremutex: 10 s.
    Go,
}

/// One that waits.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    rival: Rival,
    held: u32,
    refused: u32,
    polls: Backoff,
    faults: Backoff,
}

/// What the Azure SDKs do about a 503: three retries, the first after 0.8 s, each after twice the
/// time, with 20 % at random.
const SDK_RETRIES: u32 = 3;

impl Waiting {
    pub(crate) fn new(rival: Rival) -> Self {
        Self {
            rival,
            held: 0,
            refused: 0,
            polls: Backoff::new(50 * MS, 1000 * MS),
            faults: Backoff::new(50 * MS, 10_000 * MS),
        }
    }

    /// How long it waits after somebody else was found to hold the lease.
    pub(crate) fn held(&mut self, random: u64) -> Duration {
        self.refused = 0;
        self.faults = Backoff::new(50 * MS, 10_000 * MS);
        let delay = match self.rival {
            Rival::Before => self.polls.delay(random),
            Rival::DistributedLock => 250 * MS + share(750 * MS, random),
            Rival::Terraform => 1000 * MS * (1 << self.held.min(4)),
            Rival::Go => 10_000 * MS,
        };
        self.held += 1;
        delay
    }

    /// How long it waits after a 503.
    pub(crate) fn refused(&mut self, random: u64) -> Duration {
        match self.rival {
            Rival::Before => self.faults.delay(random),
            // The program would fail here. Let it be one that asks again.
            _ if self.refused == SDK_RETRIES => self.held(random),
            _ => {
                let delay = 800 * MS * (1 << self.refused);
                self.refused += 1;
                delay / 5 * 4 + share(delay / 5 * 2, random)
            }
        }
    }
}
