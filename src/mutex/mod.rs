//! One REST action per call, by key.

pub(crate) mod azure_mutex;
pub(crate) mod lease;
pub(crate) mod locks;
mod operations;
pub(crate) mod options;
