//! A distributed mutex on Azure Blob leases, for programs that do not use async.
//!
//! [`Locker::lock`] blocks until this process holds the lock and returns a [`LeaseGuard`], which
//! renews the lease from a thread of its own and releases it when dropped, as
//! [`std::sync::Mutex`] and its guard do within one process.
//!
//! ```
//! use azmutex::{AzureMutex, Locker, MutexOptions};
//!
//! # let emulator = azmutex::emulator::Emulator::start()?;
//! # let options = emulator.options("locks")?;
//! # #[cfg(any())]
//! let options = MutexOptions::from_env("locks")?; // an account, and a container in it
//! let locker = Locker::new(AzureMutex::new(options)?, "migration")?;
//! let guard = locker.lock()?; // nobody else is here
//! for step in ["tables", "indexes"] {
//!     guard.check()?; // still nobody else?
//!     println!("migrating {step}");
//! }
//! guard.release()?; // an error if the lock had been lost; dropping the guard releases it, too
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # The guarantee
//!
//! While [`guard.is_held()`](LeaseGuard::is_held) answers true, no other client holds the lease on
//! that blob, as long as
//!
//! - the *rates* of this machine's clock and the service's differ by less than the margin over one
//!   lease (5 seconds in 60 by default; what the clocks show does not matter),
//! - nobody broke the lease with a period shorter than what it had left, or deleted the blob, and
//! - the Blob service keeps its lease contract.
//!
//! The deadline is measured from the moment the last confirmed request was *sent*, not from its
//! reply, on a clock that keeps running while the machine sleeps, and is compared with that clock
//! each time you ask. A hung renewal thread or a dead network cannot make the answer wrong.
//!
//! # What is not promised
//!
//! That work between a check and its effect cannot be overtaken. A process can be stopped right
//! after the check for longer than its lease lasts, and no lock can prevent that; only the resource
//! can refuse what comes too late: a [`guard.write`](LeaseGuard::write) to the lock blob itself,
//! which the service refuses from a holder that lost the lease, or a
//! [fencing token](LeaseGuard::fencing_token) that the resource checks. Nor fairness between
//! machines: a lease has no queue.
//!
//! # Two layers
//!
//! - [`Locker`] and [`LeaseGuard`]: one key; waiting, renewing in the background, releasing.
//! - [`AzureMutex`]: one REST action per call (acquire, renew, change, release, break, status,
//!   list), no threads; for work that fits into one lease, and for tools.
//!
//! # Where things are
//!
//! | To | see |
//! |---|---|
//! | name the account and the credential | [`MutexOptions`], [`Credential`] |
//! | wait for a while, or not at all | [`Locker::try_lock_for`], [`Locker::try_lock`] |
//! | stop waiting from another thread | [`StopToken`] |
//! | hear what happens | [`LockerBuilder::observer`], [`Event`] |
//! | ask "still held?" in worker threads | [`LeaseGuard::watch`], [`LeaseWatch`] |
//! | wait for a loss | [`LeaseWatch::wait_lost`] |
//! | see who holds a lock | [`AzureMutex::status`], [`Holder`] |
//! | refuse a holder that was paused | [`LockerBuilder::fencing`], [`LeaseGuard::write`] |
//! | know that the holder before died | [`LeaseGuard::previous`], [`Previous`] |
//! | tell failures apart | [`Error`], [`ErrorKind`], [`TryLockError`] |
//! | test without an account | feature `emulator` |
//!
//! # Features
//!
//! - `rustls` (default): `https` with rustls and the web's root certificates.
//! - `platform-verifier`: rustls, trusting what the system's certificate store trusts.
//! - `native-tls`: `https` with the platform's TLS library.
//! - `emulator`: an embedded server that answers lease requests as the real service does, with a
//!   clock that tests can advance.
//! - `cli`: the command-line tool `azmutex`, which runs a command under a lock. Nothing for
//!   libraries.
//!
//! Without a TLS feature the crate builds and reaches emulators on this machine only.
//!
//! # Logging
//!
//! With the [`log`] facade: `warn` for a lock that is lost or unproven, a renewal or a release that
//! failed, and the first failure of a wait; `info` for a wait, at its start and then every 10 seconds,
//! with the holder; `debug` for each step of a lease. Never a key, a signature, a token or a SAS. The
//! HTTP client below has logs of its own, and what it logs at `trace` is **not** redacted: leave the
//! target `ureq` at `debug`.
//!
//! # Panics
//!
//! Nothing that comes from outside causes a panic: input, environment, network or service.
//!
//! # What it is not
//!
//! Not async, not reentrant, not fair; no reader-writer lock and no semaphore yet. Not for locks
//! taken hundreds of times a second: each costs two billed requests.

#![forbid(unsafe_code)]

mod azure;
mod callback;
#[cfg(feature = "emulator")]
pub mod emulator;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod holder;
mod http;
mod lease;
mod lock;
mod mutex;
#[cfg_attr(azmutex_interleavings, path = "../tests/interleavings/sync.rs")]
mod sync;
mod time;

pub use azure::credential::Credential;
pub use azure::status::{LeaseState, LeaseStatus};
pub use error::{Error, ErrorKind, LossReason, TryLockError};
pub use holder::record::{Holder, Previous};
pub use lease::ids::{LeaseDuration, LeaseId};
pub use lock::builder::LockerBuilder;
pub use lock::event::Event;
pub use lock::guard::LeaseGuard;
pub use lock::locker::Locker;
pub use lock::stop::StopToken;
pub use lock::watch::LeaseWatch;
pub use mutex::azure_mutex::AzureMutex;
pub use mutex::lease::Lease;
pub use mutex::locks::Locks;
pub use mutex::options::MutexOptions;

/// The README's examples are tested like any other.
#[cfg(all(doctest, feature = "emulator"))]
#[doc = include_str!("../README.md")]
struct Readme;
