//! The Blob service's protocol. PURE but for `client`: what to send, and what an answer means.

pub(crate) mod sign;
