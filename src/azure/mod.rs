//! The Blob service's protocol. PURE but for `client`: what to send, and what an answer means.

pub(crate) mod client;
pub(crate) mod credential;
pub(crate) mod date;
pub(crate) mod names;
pub(crate) mod refusal;
pub(crate) mod sign;
pub(crate) mod status;
pub(crate) mod wire;
mod xml;
