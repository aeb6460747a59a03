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
//! let guard = locker.lock()?; // waits until no other client holds it
//! for step in ["tables", "indexes"] {
//!     guard.check()?; // still held?
//!     println!("migrating {step}");
//! }
//! guard.release()?; // fails if the lock was lost; dropping the guard also releases it
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # The guarantee
//!
//! While [`guard.is_held()`](LeaseGuard::is_held) answers true, no other client holds the lease on
//! that blob, as long as
//!
//! - over one lease, the *rates* of this machine's clock and the service's differ by less than the
//!   margin (5 seconds in 60 by default; the times they show do not matter),
//! - nobody broke the lease with a period shorter than what it had left, or deleted the blob, and
//! - the Blob service keeps its lease contract.
//!
//! The deadline is measured from the moment the last confirmed request was *sent*, not from its
//! reply, on a clock that keeps running while the machine sleeps, and is compared with that clock
//! each time you ask. A hung renewal thread or a dead network cannot make the answer wrong.
//!
//! # What is not promised
//!
//! Work between a check and its effect can still be overtaken: a process can be stopped right after
//! the check for longer than its lease lasts, and no lock can prevent that. Only the resource
//! itself can refuse work that comes too late. The lock blob does so for a
//! [`guard.write`](LeaseGuard::write): the service refuses it from a holder that lost the lease.
//! Any other resource can check a [fencing token](LeaseGuard::fencing_token). Fairness between
//! machines is not promised either: a lease has no queue.
//!
//! # Two layers
//!
//! - [`Locker`] and [`LeaseGuard`]: one key; waiting, renewing in the background, releasing.
//! - [`AzureMutex`]: one REST action per call (acquire, renew, change, release, break, status,
//!   list), no threads; for work that fits into one lease, and for tools.
//!
//! The [`guide`] has a page for each subject, recipes included.
//!
//! # Where things are
//!
//! | To | see |
//! |---|---|
//! | name the account and the credential | [`MutexOptions`], [`Credential`] |
//! | sign in without a key | [`Credential`](Credential#signing-in-with-microsoft-entra-id) |
//! | wait for a while, or not at all | [`Locker::try_lock_for`], [`Locker::try_lock`] |
//! | let at most N go on at a time | [`Semaphore`] |
//! | do something once, whoever starts it | [`Locker::once`] |
//! | hold several locks, all of them or none | [`lock_all`] |
//! | stop waiting from another thread | [`StopToken`] |
//! | be told what happens | [`LockerBuilder::observer`], [`Event`] |
//! | check in worker threads that the lock is still held | [`LeaseGuard::watch`], [`LeaseWatch`] |
//! | wait until the lock is lost | [`LeaseWatch::wait_lost`] |
//! | reach the service through a proxy | [`AzureMutex::proxy`] |
//! | see who holds a lock | [`AzureMutex::status`], [`Holder`] |
//! | refuse the work of a holder that was paused | [`LockerBuilder::fencing`], [`LeaseGuard::write`] |
//! | have one leader at a time, and see who it is | [`Election`], [`Leader`] |
//! | lose the lock when the work hangs | [`LockerBuilder::health`], [`LeaseGuard::alive`] |
//! | find out that the previous holder died | [`LeaseGuard::previous`], [`Previous`] |
//! | tell failures apart | [`Error`], [`ErrorKind`], [`TryLockError`] |
//! | test without an account | feature `emulator` |
//!
//! # Features
//!
//! - `rustls` (default): `https` with rustls and Mozilla's root certificates; others can be added by
//!   [`MutexOptions::ca_certificates`].
//! - `platform-verifier`: rustls, trusting what the system's certificate store trusts.
//! - `native-tls`: `https` with the platform's TLS library.
//! - `client-certificate` (default): signing in to Entra ID with a certificate. Adds no crate where
//!   `rustls` is on.
//! - `emulator`: an embedded server that answers lease requests as the real service does, with a
//!   clock that tests can advance.
//! - `cli`: the command-line tool `azmutex`, which runs a command under a lock, with
//!   `platform-verifier`. Libraries do not need it.
//!
//! Without a TLS feature the crate still builds, but reaches only emulators on this machine.
//!
//! # Features of the account
//!
//! - Versioning: lease operations make no versions, and every write of metadata makes one. A lock
//!   with [`fencing`](LockerBuilder::fencing) writes when it is taken and when it is released; one
//!   without writes once if it is held for longer than
//!   [`holder_delay`](LockerBuilder::holder_delay), and otherwise not at all. A lifecycle rule that
//!   deletes old versions keeps them few.
//! - Soft delete: nothing is deleted, so nothing is kept.
//! - Immutability policies and legal holds refuse these writes: use a container without them.
//! - Hierarchical namespace: locks work, and directories are not listed as locks.
//! - Account keys turned off (`allowSharedKeyAccess` is false): neither a key nor a SAS made with it
//!   works.
//!
//! # Logging
//!
//! With the facade [`log`](https://docs.rs/log): `warn` for a lock that is lost or unproven, a renewal or a release that
//! failed, and the first failure of a wait; `info` while waiting, at first and then every 10
//! seconds, with the holder; `debug` for each step of a lease. Keys, signatures, tokens and SAS are
//! never logged. The HTTP client has logs of its own, and what it logs at `trace` is **not**
//! redacted, access tokens and client secrets included: keep the targets `ureq` and `ureq_proto` at
//! `debug`.
//!
//! # Panics
//!
//! No outside input causes a panic, whether from the caller, the environment, the network or the
//! service.
//!
//! # What it is not
//!
//! It is not async, not reentrant, and not fair between processes. It has no reader-writer lock
//! yet. It is not for locks that are taken hundreds of times a second: each costs two billed
//! requests.

#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod azure;
mod callback;
mod election;
#[cfg(feature = "emulator")]
pub mod emulator;
mod entra;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(any(doc, doctest))]
pub mod guide;
mod holder;
mod http;
mod lease;
mod lock;
mod lock_all;
mod mutex;
mod once;
mod semaphore;
#[cfg_attr(azmutex_interleavings, path = "../tests/interleavings/sync.rs")]
mod sync;
mod text;
mod time;

pub use azure::credential::Credential;
pub use azure::status::{LeaseState, LeaseStatus};
pub use election::{Election, Leader, LeaderInfo, Observer};
pub use entra::identity::TokenIdentity;
pub use entra::token::{AccessToken, TokenRequest};
pub use error::{Error, ErrorKind, LossReason, TryLockError};
pub use holder::record::{Done, Holder, Previous};
pub use lease::ids::{LeaseDuration, LeaseId};
pub use lock::builder::LockerBuilder;
pub use lock::event::Event;
pub use lock::guard::LeaseGuard;
pub use lock::locker::Locker;
pub use lock::stop::StopToken;
pub use lock::watch::LeaseWatch;
pub use lock_all::{GuardSet, lock_all, try_lock_all, try_lock_all_for};
pub use mutex::azure_mutex::AzureMutex;
pub use mutex::lease::Lease;
pub use mutex::locks::Locks;
pub use mutex::options::MutexOptions;
pub use once::{Once, OnceError};
pub use semaphore::Semaphore;

/// Tests the README's examples like any others.
#[cfg(all(doctest, feature = "emulator"))]
#[doc = include_str!("../README.md")]
struct Readme;
