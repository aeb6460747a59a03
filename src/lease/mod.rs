//! PURE: one lease, from the first request for it to the last.

pub(crate) mod acquisition;
mod change;
pub(crate) mod hold;
pub(crate) mod ids;
pub(crate) mod lifecycle;
mod proposal;
mod release;
pub(crate) mod step;
pub(crate) mod terms;
mod token;
pub(crate) mod writing;
