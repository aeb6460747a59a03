//! What the tests stand on: the services they run against and the faults put between.

pub(crate) mod azurite;
#[allow(dead_code, reason = "for the storms")]
pub(crate) mod history;
pub(crate) mod proxy;
#[allow(dead_code, reason = "for the storms")]
pub(crate) mod weather;

/// The connection string of a real account to run against, if the environment names one.
#[allow(dead_code, reason = "for the suite that runs against each service")]
pub(crate) fn real_account() -> Option<String> {
    std::env::var("AZMUTEX_TEST_CONNECTION_STRING")
        .ok()
        .filter(|value| !value.is_empty())
}
