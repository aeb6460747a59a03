//! A distributed mutex on Azure Blob leases.

mod azure;
mod clock;
#[cfg(feature = "emulator")]
pub mod emulator;
