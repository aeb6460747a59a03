//! A distributed mutex on Azure Blob leases, for programs that do not use async.

mod acquire;
mod azure;
mod backoff;
mod clock;
#[cfg(feature = "emulator")]
pub mod emulator;
mod error;
mod event;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod keeper;
mod lease;
mod locker;
mod mutex;
mod options;
mod record;
mod recorder;
mod stop;
mod transport;

pub use azure::credential::Credential;
pub use azure::names::{LeaseDuration, LeaseId};
pub use azure::wire::{LeaseState, LeaseStatus};
pub use error::{Error, ErrorKind, TryLockError};
pub use event::Event;
pub use guard::{LeaseGuard, LeaseWatch};
pub use lease::LossReason;
pub use locker::{Locker, LockerBuilder};
pub use mutex::{AzureMutex, Lease, Locks, Released};
pub use options::MutexOptions;
pub use record::{Holder, Previous};
pub use stop::StopToken;
