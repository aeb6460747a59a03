//! The pure core of azmutex, as it ships, under a model checker.
//!
//! The modules below are the library's own files. `service` is a small model of the lease machine
//! of the Blob service, `client` lends the core a body that sends, waits, pauses and dies, `world`
//! puts both together with a network and says what must hold, and `mistakes` are clients that use
//! the core wrongly, for the checker to show that it notices.

#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/lease.rs"]
mod lease;
#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/record.rs"]
mod record;
#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/tick.rs"]
mod tick;

/// What `record` imports.
#[path = "../../../src/azure"]
mod azure {
    #[allow(dead_code)]
    pub(crate) mod date;
}

mod client;
mod mistakes;
mod run;
mod service;
mod world;

pub use mistakes::Mistake;
pub use run::{Report, check, counterexample};
pub use world::{Bounds, World};

/// The names of the properties.
pub mod property {
    pub use crate::world::{
        CLAIMANT_IS_HOLDER, LATE_GRANT, LATE_WRITE_REFUSED, NOTHING_OUTLIVES, ONE_HOLDER,
        PROVEN_AGAIN, SOMEBODY_CAN_HOLD, TAKEN_OVER, TOKENS_INCREASE, TWO_HOLDERS, UNINTERRUPTED,
    };
}
