//! The integration tests: one binary, so that they link once and share one Azurite.

mod cli;
#[cfg(unix)]
mod cli_run;
mod inspection;
mod support;
mod support_tests;
