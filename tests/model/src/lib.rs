//! The pure core of azmutex, as it ships, under a model checker.
//!
//! `error`, `lease`, `time` and `lock::line` are the library's own files: a lease from the first request
//! for it to the last, and who gets it next in a process. `service` is a small model of the lease machine of the Blob service, `client` lends the
//! shipped lease threads that send, wait, pause and die, `world` puts both together with a network
//! and says what must hold, and `mistakes` are clients that use the core wrongly, for the checker to
//! show that it notices.

#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/error.rs"]
mod error;

#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/lease"]
mod lease {
    mod acquisition;
    mod change;
    pub(crate) mod hold;
    pub(crate) mod lifecycle;
    mod proposal;
    mod release;
    pub(crate) mod step;
    pub(crate) mod terms;
    mod token;
    mod writing;

    #[path = "../../tests/model/src/fingerprint.rs"]
    pub(crate) mod fingerprint;
}

#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/time"]
mod time {
    pub(crate) mod backoff;
    pub(crate) mod retry;
    pub(crate) mod tick;
}

#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/lock"]
mod lock {
    pub(crate) mod line;
}

mod answers;
mod client;
pub mod election;
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
        ANNOUNCED_IS_SO, BOUNDED, CLAIMANT_IS_HOLDER, HANDED_OVER, HOLDER_CAN_KEEP, LATE_GRANT,
        LATE_WRITE_REFUSED, LOSS_IS_REPORTED, NOTHING_LEFT, NOTHING_OUTLIVES, ONE_HOLDER,
        PROVEN_AGAIN, RELEASE_ENDS, RELEASED_WAS_HELD, REPORTED_IS_LOST, SOMEBODY_CAN_HOLD,
        TAKEN_OVER, TOKENS_INCREASE, TWO_HOLDERS, UNINTERRUPTED,
    };
}
