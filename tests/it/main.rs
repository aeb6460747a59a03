//! The integration tests: one binary, so that they link once and share one Azurite.

mod late;
mod support;
mod support_tests;
