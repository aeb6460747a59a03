//! Time: instants, clocks, dates as text, and how long to wait.

pub(crate) mod backoff;
pub(crate) mod clock;
pub(crate) mod dates;
pub(crate) mod jitter;
pub(crate) mod retry;
#[cfg(feature = "emulator")]
pub(crate) mod test_clock;
pub(crate) mod tick;
