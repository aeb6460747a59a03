//! The integration tests: one binary, so that they link once and share one Azurite.

mod content;
mod contract;
mod fencing;
mod holder;
mod support;
mod support_tests;
