//! Many clients that wait for one lock, simulated.
//!
//! The clients are the library's own `error`, `lease` and `time`, by path: what they send and when is
//! what ships. `service` is one blob that serves 500 requests a second and refuses the rest, `rivals`
//! is how other programs wait, `world` puts them together, `report` writes the table and `chart` draws.

#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/error.rs"]
mod error;

#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/lease"]
mod lease {
    mod acquisition;
    mod change;
    mod hold;
    pub(crate) mod lifecycle;
    mod proposal;
    mod release;
    pub(crate) mod step;
    pub(crate) mod terms;
    mod token;
    mod writing;
}

#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/time"]
mod time {
    pub(crate) mod backoff;
    pub(crate) mod jitter;
    pub(crate) mod retry;
    pub(crate) mod tick;
}

mod chart;
mod report;
mod rivals;
mod service;
mod world;

pub use chart::chart;
pub use report::{HOLDS, WAITERS, cell, peers, table};
pub use rivals::Rival;
pub use world::{Figures, Policy, Scene};
