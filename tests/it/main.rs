//! The integration tests: one binary, so that they link once and share one Azurite.

mod content;
mod contract;
mod faults;
mod fencing;
mod fencing_replies;
mod holder;
mod late;
mod public_api;
mod situations;
mod support;
mod support_tests;
