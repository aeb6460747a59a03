//! The integration tests: one binary, so that they link once and share one Azurite.

#[cfg(unix)]
mod cli_run;
mod support;
mod support_tests;
