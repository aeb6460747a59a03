//! PURE: one lease, from the first request for it to the last.

pub(crate) mod acquisition;
pub(crate) mod hold;
pub(crate) mod ids;
