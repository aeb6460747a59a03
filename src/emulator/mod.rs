//! An embedded lease-blob server, for tests and first steps.
//!
//! An [`Emulator`] runs in the process that starts it and listens on a loopback address only. It
//! answers as Azure Blob Storage does, for the part of it that locks need: containers, blobs with
//! metadata, and leases on both. Signatures and the age of each request are checked. Everything
//! is kept in memory, and is gone when the emulator is dropped. Each emulator is separate: two of
//! them do not exclude each other.
//!
//! Leases expire by the emulator's [`Clock`], which a test can advance instead of waiting.
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
//! # Differences from the service
//!
//! - One account, `devstoreaccount1`, whose key is published, and path-style URLs.
//! - Snapshots, versions, tags, blocks, page blobs, appending and lists with a delimiter are
//!   refused. Hashes of content are neither checked nor returned.
//! - A bearer token is accepted if the emulator was told to expect it, over `http` too: see
//!   [`BearerToken`].
//! - `Date` is exact. The service's own can be up to two seconds behind.

mod auth;
mod bearer;
mod failure;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod lease;
mod list;
mod reply;
mod request;
mod server;
mod service;
mod store;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use self::auth::{ACCOUNT, Authorizer, KEY, Sas};
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

    /// Sets the clock, shared access signatures or the address before the emulator is started.
    pub fn builder() -> EmulatorBuilder {
        EmulatorBuilder {
            address: server::ANY_PORT,
            clock: Clock::new(),
            sas: Vec::new(),
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
        self.server.bearers().expect(token.into(), now);
    }

    /// Accepts this bearer token no longer. Does nothing if it is not accepted.
    pub fn revoke_bearer(&self, token: &str) {
        self.server.bearers().revoke(token);
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
///     .sas("sv=2021-04-10&se=2099-01-01T00%3A00%3A00Z&sig=made%2Bup%3D")
///     .start()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "an emulator starts with `start`"]
pub struct EmulatorBuilder {
    address: SocketAddr,
    clock: Clock,
    sas: Vec<String>,
    bearers: Vec<BearerToken>,
    allows_key: bool,
}

impl EmulatorBuilder {
    /// The clock by which leases expire. Defaults to a new one that runs with real time.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// A shared access signature to accept, as a query string: `sv=…&se=…&sig=…`.
    ///
    /// A request without an `Authorization` header whose query has all of these parameters may do
    /// anything from the token's `st` to its `se`, by the emulator's clock. The token's permissions
    /// are not checked. Can be called more than once. Defaults to none.
    pub fn sas(mut self, token: impl Into<String>) -> Self {
        self.sas.push(token.into());
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
    /// [`io::ErrorKind::InvalidInput`] if the address is not a loopback address, or if a shared
    /// access signature has no `sig` or a malformed date; any other kind if the port cannot be
    /// bound or the thread cannot be started.
    pub fn start(self) -> io::Result<Emulator> {
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
        if !self.address.ip().is_loopback() {
            return Err(invalid("the emulator listens on loopback addresses only"));
        }
        let sas: Option<Vec<Sas>> = self.sas.iter().map(|token| Sas::parse(token)).collect();
        let sas = sas.ok_or_else(|| invalid("malformed shared access signature"))?;
        let authorizer = Authorizer::new(sas, self.allows_key);
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
            .field("sas", &self.sas.len())
            .field("bearers", &self.bearers)
            .field("allows_key", &self.allows_key)
            .finish()
    }
}

#[cfg(test)]
mod tests;
