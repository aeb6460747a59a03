//! Requests and replies, and the agent that exchanges them. Knows nothing of leases.

pub(crate) mod agent;
pub(crate) mod certificates;
mod connector;
mod failures;
pub(crate) mod message;
pub(crate) mod process;
mod progress;
pub(crate) mod proxy;
pub(crate) mod resolver;
#[cfg(test)]
pub(crate) mod test_server;
