//! The Blob service's protocol. PURE except for `client`: what to send, and what a reply means.

pub(crate) mod client;
pub(crate) mod credential;
pub(crate) mod errors;
pub(crate) mod requests;
mod sas;
pub(crate) mod secret;
pub(crate) mod sign;
pub(crate) mod status;
pub(crate) mod validate;
mod xml;
