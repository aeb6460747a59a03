//! One lock: waiting for it, renewing it in the background, releasing it.

mod abandoned;
pub(crate) mod builder;
pub(crate) mod event;
pub(crate) mod guard;
mod hand_over;
pub(crate) mod line;
pub(crate) mod locker;
mod queue;
mod renewal;
pub(crate) mod settings;
pub(crate) mod state;
pub(crate) mod stop;
mod turns;
pub(crate) mod watch;
