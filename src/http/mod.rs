//! Requests and replies, and the agent that exchanges them. Knows nothing of leases.

pub(crate) mod agent;
pub(crate) mod message;
pub(crate) mod process;
mod progress;
mod resolver;
#[cfg(test)]
pub(crate) mod test_server;
