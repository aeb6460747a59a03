//! One blob and its lease, at a service that serves so many requests a second and refuses the rest.

use std::time::Duration;

use crate::time::tick::Tick;

/// Who holds the lease, or asks for it.
pub(crate) type Client = usize;

/// What one blob serves in a second, and at once.
/// <https://learn.microsoft.com/azure/storage/blobs/scalability-targets>
const RATE: f64 = 500.0;
const BURST: f64 = RATE / 10.0;

#[derive(Debug)]
pub(crate) struct Service {
    tokens: f64,
    filled: Tick,
    holder: Option<Client>,
    expires: Tick,
    /// When the lease became free, until somebody acquires it.
    pub(crate) free_since: Option<Tick>,
    pub(crate) requests: u64,
    pub(crate) refused: u64,
    /// How often a lease ran out although its holder wanted to keep it.
    pub(crate) expired: u64,
}

impl Service {
    pub(crate) fn new(now: Tick) -> Self {
        Self {
            tokens: BURST,
            filled: now,
            holder: None,
            expires: now,
            free_since: None,
            requests: 0,
            refused: 0,
            expired: 0,
        }
    }

    /// Whether it serves a request that arrives now.
    pub(crate) fn serves(&mut self, now: Tick) -> bool {
        let earned = now.since(self.filled).as_secs_f64() * RATE;
        self.tokens = (self.tokens + earned).min(BURST);
        self.filled = now;
        self.requests += 1;
        let serves = self.tokens >= 1.0;
        if serves {
            self.tokens -= 1.0;
        } else {
            self.refused += 1;
        }
        serves
    }

    pub(crate) fn holder(&mut self, now: Tick) -> Option<Client> {
        if self.holder.is_some() && now >= self.expires {
            self.holder = None;
            self.free_since = Some(self.expires);
            self.expired += 1;
        }
        self.holder
    }

    /// Returns whether `client` has the lease now.
    pub(crate) fn acquire(&mut self, client: Client, now: Tick, lease: Duration) -> bool {
        let free = self.holder(now).is_none_or(|holder| holder == client);
        if free {
            self.holder = Some(client);
            self.expires = now + lease;
        }
        free
    }

    /// Returns whether it was `client`'s.
    pub(crate) fn renew(&mut self, client: Client, now: Tick, lease: Duration) -> bool {
        let held = self.holder(now) == Some(client);
        if held {
            self.expires = now + lease;
        }
        held
    }

    /// Returns whether it was `client`'s.
    pub(crate) fn release(&mut self, client: Client, now: Tick) -> bool {
        let held = self.holder(now) == Some(client);
        if held {
            self.holder = None;
            self.free_since = Some(now);
        }
        held
    }
}
