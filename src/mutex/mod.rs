//! One REST action per call, by key.

mod account_host;
pub(crate) mod azure_mutex;
mod connection_string;
mod environment;
pub(crate) mod lease;
pub(crate) mod leased_blob;
pub(crate) mod locks;
pub(crate) mod operations;
pub(crate) mod options;
pub(crate) mod recorder;
mod silence;
