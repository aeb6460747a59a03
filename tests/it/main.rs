//! The integration tests: one binary, so that they link once and share one Azurite.

mod cli;
#[cfg(unix)]
mod cli_run;
mod clock;
mod content;
mod contract;
mod election;
mod faults;
mod fencing;
mod fencing_replies;
mod history_tests;
mod holder;
mod hostile;
mod http;
mod inspection;
mod late;
mod layers;
mod lock_all;
mod once;
mod public_api;
mod queue;
mod quoted_figures;
mod semaphore;
mod situations;
mod support;
mod support_tests;
mod tokens;
mod tokens_over_tls;
