//! Requests and replies, and the agent that exchanges them. Knows nothing of leases.

pub(crate) mod agent;
pub(crate) mod message;
mod resolver;
