//! An embedded lease-blob server, for tests and first steps.
//!
//! An [`Emulator`] runs in the process that starts it and listens on a loopback address only. It
//! answers as Azure Blob Storage does, for the part of it that locks and their tests need, to this
//! library and to any other client of the service. **What it does not implement it refuses**, and
//! never ignores: a test that passes here did not pass because something was dropped. Everything is
//! kept in memory, and is gone when the emulator is dropped. Each emulator is separate: two of them
//! do not exclude each other.
//!
//! Leases expire by the emulator's [`Clock`], which a test can advance instead of waiting.
//! `azmutex emulator` serves one to several processes.
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//!
//! use azmutex::emulator::Emulator;
//!
//! let emulator = Emulator::start()?;
//! assert!(emulator.endpoint().ends_with("/devstoreaccount1"));
//!
//! // Every lease that was held has now expired, unless it was infinite.
//! emulator.clock().advance(Duration::from_secs(60));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What is implemented
//!
//! | of | operations |
//! |---|---|
//! | the account | List Containers: prefix, pages, metadata |
//! | a container | Create, Get Properties and Metadata, Set Metadata, Lease, Delete; List Blobs: flat or by a delimiter, prefix, pages, metadata |
//! | a block blob | Put Blob, Put Block, Put Block List, Get Block List, Get Blob (whole or one range), Get Properties and Metadata, Set Metadata, Lease, Delete |
//!
//! - The conditions `If-Match`, `If-None-Match`, `If-Modified-Since` and `If-Unmodified-Since`, and
//!   lease IDs, for the operations that take them.
//! - The properties of content (type, encoding, language, cache control, disposition) are stored.
//!   `Content-MD5` is checked, stored and returned.
//! - Three kinds of credentials: the account key by Shared Key; account and service SAS made with
//!   it, whose signature, permissions, resource, times, protocol and addresses are checked; and the
//!   bearer tokens that it was told to expect ([`BearerToken`]), over `http` too.
//! - The versions of the service from 2015-02-21 to 2026-12-06. Another `x-ms-version` is refused
//!   with 400 `InvalidHeaderValue`, as the service refuses one that it does not know.
//!
//! # What is refused
//!
//! - Other operations: 501 `NotImplemented`. Among them are snapshots, versions, tags, tiers, legal
//!   hold, immutability, undelete, append and page blobs, stored access policies, Set Blob
//!   Properties, batches, and the properties of the account.
//! - Any other query parameter, such as `snapshot` or `versionid`: 400 `UnsupportedQueryParameter`.
//! - Any other header that begins with `x-ms-` or `If-`, such as `x-ms-copy-source`,
//!   `x-ms-if-tags`, `x-ms-access-tier`, those of encryption, and `x-ms-content-crc64`: 400
//!   `UnsupportedHeader`, with the header's name in the body. So are the headers of one operation in
//!   another.
//! - Values that cannot be honoured, such as several ETags or several ranges: 400
//!   `InvalidHeaderValue`.
//! - User delegation SAS, and SAS with an encryption scope, a stored access policy, or headers for
//!   replies: 403 `AuthenticationFailed`, with the reason in the body.
//! - Anonymous requests, chunked uploads, and bodies of more than 8 MiB, for which clients use
//!   blocks.
//!
//! # Other differences from the service
//!
//! - One account, `devstoreaccount1`, whose key is published, and path-style URLs.
//! - `Date` is exact. The service's own can be up to two seconds behind.
//! - Ranges of a form that the service ignores are refused.

mod auth;
mod bearer;
mod block_list;
mod failure;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod lease;
mod list;
mod operation;
mod reply;
mod request;
mod sas;
mod server;
mod service;
mod store;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use self::auth::{ACCOUNT, Authorizer, KEY};
use self::server::Server;
use crate::error::Error;
use crate::mutex::options::MutexOptions;

pub use self::bearer::BearerToken;
pub use crate::time::test_clock::Clock;

/// A Blob service in this process. See the [module](self) for what it can do.
///
/// Dropping it stops it and closes its connections.
#[must_use = "if unused the emulator stops immediately"]
pub struct Emulator {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

impl Emulator {
    /// Starts an emulator on a free port of this machine, with a clock that runs with real time.
    ///
    /// # Errors
    ///
    /// If the port cannot be bound or the thread cannot be started.
    ///
    /// # Examples
    ///
    /// ```
    /// use azmutex::emulator::Emulator;
    ///
    /// let emulator = Emulator::start()?;
    /// assert!(emulator.connection_string().contains("AccountName=devstoreaccount1;"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn start() -> io::Result<Self> {
        Self::builder().start()
    }

    /// Sets the clock, bearer tokens or the address before the emulator is started.
    pub fn builder() -> EmulatorBuilder {
        EmulatorBuilder {
            address: server::ANY_PORT,
            clock: Clock::new(),
            bearers: Vec::new(),
            allows_key: true,
        }
    }

    /// The endpoint of the account, such as `http://127.0.0.1:4321/devstoreaccount1`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.server.endpoint().to_owned()
    }

    /// The name of the account: `devstoreaccount1`.
    #[must_use]
    pub fn account(&self) -> &'static str {
        ACCOUNT
    }

    /// The key of the account, base64-encoded. It is the same for all emulators and not a secret.
    #[must_use]
    pub fn key(&self) -> &'static str {
        KEY
    }

    /// The connection string, with endpoint, account and key, for this library and for Azure's SDKs
    /// and tools.
    #[must_use]
    pub fn connection_string(&self) -> String {
        let endpoint = self.server.endpoint();
        format!(
            "DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};\
             BlobEndpoint={endpoint};"
        )
    }

    /// A shared access signature of the account that allows everything that the emulator
    /// implements, until `lifetime` has passed on its clock: the query string, without `?`.
    ///
    /// The emulator accepts any shared access signature that the account key has signed, such as
    /// those that Azure's SDKs make. This one is for clients that cannot sign.
    #[must_use]
    pub fn sas(&self, lifetime: Duration) -> String {
        let expiry = self
            .server
            .clock()
            .wall()
            .saturating_add(lifetime.try_into().unwrap_or(time::Duration::MAX));
        self.server.authorizer().sas(expiry)
    }

    /// Options for a client of this emulator that uses the same clock.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `container` is not a
    /// valid container name.
    pub fn options(&self, container: &str) -> Result<MutexOptions, Error> {
        MutexOptions::from_connection_string(&self.connection_string(), container)
            .map(|options| options.clock(self.clock()))
    }

    /// The clock by which leases expire. Advance it to let time pass.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.server.clock().clone()
    }

    /// Accepts a bearer token from now on. If it is accepted already, what it allows and when it
    /// expires are replaced.
    ///
    /// Any other token, and one that has expired, is refused with 401 `InvalidAuthenticationInfo`
    /// and a challenge in `WWW-Authenticate`.
    pub fn expect_bearer(&self, token: impl Into<BearerToken>) {
        let now = self.server.clock().now();
        self.server.authorizer().bearers.expect(token.into(), now);
    }

    /// Accepts this bearer token no longer. Does nothing if it is not accepted.
    pub fn revoke_bearer(&self, token: &str) {
        self.server.authorizer().bearers.revoke(token);
    }

    /// How many requests have been answered, including those that were refused.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.server.requests()
    }

    /// How many connections have been accepted, including those that are closed by now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.server.connections()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if self.server.stop()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join(); // A panic there has been reported already.
        }
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("endpoint", &self.server.endpoint())
            .field("requests", &self.requests())
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

/// Settings of an [`Emulator`]. Made by [`Emulator::builder`].
///
/// # Examples
///
/// ```
/// use azmutex::emulator::{Clock, Emulator};
///
/// let clock = Clock::frozen();
/// let emulator = Emulator::builder()
///     .clock(clock.clone())
///     .bearer("token")
///     .start()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "an emulator starts with `start`"]
pub struct EmulatorBuilder {
    address: SocketAddr,
    clock: Clock,
    bearers: Vec<BearerToken>,
    allows_key: bool,
}

impl EmulatorBuilder {
    /// The clock by which leases expire. Defaults to a new one that runs with real time.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// A bearer token to accept. Can be called more than once. Defaults to none.
    ///
    /// [`Emulator::expect_bearer`] adds one later.
    pub fn bearer(mut self, token: impl Into<BearerToken>) -> Self {
        self.bearers.push(token.into());
        self
    }

    /// Whether the account allows access by its key, as the account's property
    /// `allowSharedKeyAccess` says. If not, requests that are signed by the key, and shared access
    /// signatures, are refused with 403 `KeyBasedAuthenticationNotPermitted`. Defaults to true.
    pub fn allow_shared_key_access(mut self, is_allowed: bool) -> Self {
        self.allows_key = is_allowed;
        self
    }

    /// The address to listen on, which must be a loopback address. Defaults to a free port of
    /// 127.0.0.1.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Starts the emulator.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] if the address is not a loopback address; any other kind if
    /// the port cannot be bound or the thread cannot be started.
    pub fn start(self) -> io::Result<Emulator> {
        if !self.address.ip().is_loopback() {
            let why = "the emulator listens on loopback addresses only";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let authorizer = Authorizer::new(self.allows_key);
        let (server, thread) = Server::start(self.address, self.clock, authorizer)?;
        let emulator = Emulator {
            server,
            thread: Some(thread),
        };
        for bearer in self.bearers {
            emulator.expect_bearer(bearer);
        }
        Ok(emulator)
    }
}

impl fmt::Debug for EmulatorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmulatorBuilder")
            .field("address", &self.address)
            .field("clock", &self.clock)
            .field("bearers", &self.bearers)
            .field("allows_key", &self.allows_key)
            .finish()
    }
}

#[cfg(test)]
mod tests;
