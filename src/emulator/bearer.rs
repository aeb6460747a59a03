//! Bearer tokens: the ones that the emulator was told to expect.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/authorize-with-azure-active-directory>

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;

use super::failure::{self, Failure};
use super::request::Request;
use crate::time::tick::Tick;

/// The first version that takes tokens, and the first that answers 401 to one that is not valid.
const FIRST_VERSION: &str = "2017-11-09";
const FIRST_VERSION_WITH_401: &str = "2019-12-12";

/// A bearer token for an [`Emulator`](super::Emulator) to accept, and what it allows.
///
/// The token is compared as text: it can be any string that fits into an HTTP header and has no
/// spaces. By default it never expires and allows everything, as the role *Storage Blob Data
/// Contributor* does.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use azmutex::emulator::{BearerToken, Emulator};
///
/// let emulator = Emulator::builder().bearer("first").start()?;
/// emulator.expect_bearer(BearerToken::new("second").expires_in(Duration::from_secs(3600)));
/// emulator.expect_bearer(BearerToken::new("reader").read_only());
/// emulator.revoke_bearer("first");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct BearerToken {
    token: String,
    lifetime: Option<Duration>,
    allowed: Allowed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    Everything,
    Reads,
    Nothing,
}

impl BearerToken {
    /// `token`: what follows `Bearer ` in the `Authorization` header.
    #[must_use]
    pub fn new(token: impl Into<String>) -> Self {
        Self {
            token: token.into(),
            lifetime: None,
            allowed: Allowed::Everything,
        }
    }

    /// Expires after `lifetime` on the emulator's clock, counted from the start of the emulator or
    /// from [`expect_bearer`](super::Emulator::expect_bearer). Defaults to never.
    #[must_use]
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// Allows reading alone, as the role *Storage Blob Data Reader* does: a write or a lease
    /// operation is refused with 403 `AuthorizationPermissionMismatch`.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.allowed = Allowed::Reads;
        self
    }

    /// Allows nothing, as for an identity that has no role: every request is refused with 403
    /// `AuthorizationPermissionMismatch`.
    #[must_use]
    pub fn without_role(mut self) -> Self {
        self.allowed = Allowed::Nothing;
        self
    }
}

impl From<&str> for BearerToken {
    fn from(token: &str) -> Self {
        Self::new(token)
    }
}

impl From<String> for BearerToken {
    fn from(token: String) -> Self {
        Self::new(token)
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerToken")
            .field("lifetime", &self.lifetime)
            .field("allowed", &self.allowed)
            .finish_non_exhaustive()
    }
}

/// The tokens that are expected now.
#[derive(Default)]
pub(super) struct BearerTokens(Mutex<Vec<Expected>>);

struct Expected {
    token: String,
    until: Tick,
    allowed: Allowed,
}

impl BearerTokens {
    /// A token that is expected already is replaced.
    pub(super) fn expect(&self, bearer: BearerToken, now: Tick) {
        self.revoke(&bearer.token);
        self.0.lock().push(Expected {
            token: bearer.token,
            until: bearer
                .lifetime
                .map_or(Tick::NEVER, |lifetime| now + lifetime),
            allowed: bearer.allowed,
        });
    }

    pub(super) fn revoke(&self, token: &str) {
        self.0.lock().retain(|expected| expected.token != token);
    }

    /// `token`: what follows `Bearer `.
    pub(super) fn check(
        &self,
        token: &str,
        request: &Request<'_>,
        now: Tick,
    ) -> Result<(), Failure> {
        if token.is_empty() || token.contains(' ') {
            return Err(Failure::invalid_authentication_info());
        }
        let version = request.header("x-ms-version").unwrap_or_default();
        if version < FIRST_VERSION {
            return Err(Failure::authentication(
                "Authentication scheme Bearer is not supported in this version.",
            ));
        }
        let refused = |reason| {
            if version < FIRST_VERSION_WITH_401 {
                Failure::authentication(reason)
            } else {
                Failure::invalid_token(reason)
            }
        };
        let tokens = self.0.lock();
        let expected = tokens
            .iter()
            .find(|expected| expected.token == token)
            .ok_or_else(|| refused("Issuer validation failed. Issuer did not match."))?;
        if expected.until <= now {
            return Err(refused("Lifetime validation failed. The token is expired."));
        }
        match expected.allowed {
            Allowed::Everything => Ok(()),
            Allowed::Reads if request.is_read() => Ok(()),
            Allowed::Reads | Allowed::Nothing => Err(failure::AUTHORIZATION_PERMISSION_MISMATCH),
        }
    }
}
