//! One lock: waiting for it, renewing it in the background, releasing it.

pub(crate) mod acquire;
pub(crate) mod context;
pub(crate) mod event;
pub(crate) mod guard;
pub(crate) mod keeper;
pub(crate) mod locker;
pub(crate) mod recorder;
pub(crate) mod seat;
pub(crate) mod stop;
