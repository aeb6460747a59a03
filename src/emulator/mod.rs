//! An embedded lease-blob server.

pub use crate::clock::TestClock as Clock;
