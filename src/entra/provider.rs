//! Tokens that the caller's own code gets.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use super::cloud;
use super::token::{AccessToken, Identity, Source, TokenRequest};
use crate::error::{Error, ErrorKind};

type Provide =
    dyn Fn(&TokenRequest) -> Result<AccessToken, Box<dyn StdError + Send + Sync>> + Send + Sync;

/// A function that gets tokens.
#[derive(Clone)]
pub(crate) struct TokenProvider {
    provide: Arc<Provide>,
    pub(crate) audience: String,
}

impl TokenProvider {
    pub(crate) fn new<F>(provide: F) -> Self
    where
        F: Fn(&TokenRequest) -> Result<AccessToken, Box<dyn StdError + Send + Sync>>
            + Send
            + Sync
            + 'static,
    {
        Self {
            provide: Arc::new(provide),
            audience: cloud::AUDIENCE.to_owned(),
        }
    }

    /// What the tokens are for, if it is something else than storage in general.
    pub(crate) fn for_audience(self, url: &str) -> Result<Self, Error> {
        let audience = cloud::audience(url)?;
        Ok(Self { audience, ..self })
    }
}

impl Source for TokenProvider {
    fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, Error> {
        // Whether it may pass is not known, so it is tried again.
        let failed = || Error::new(ErrorKind::Transport, "the token provider gave no token");
        (self.provide)(request).map_err(|error| match error.downcast::<Error>() {
            Ok(error) if is_about_tokens(error.kind()) => *error,
            Ok(error) => failed().with_source(*error),
            Err(error) => failed().with_cause(error.into()),
        })
    }

    fn identity(&self) -> Identity {
        Identity {
            kind: "token provider",
            client_id: None,
            tenant_id: None,
            takes_tenant: false,
        }
    }
}

/// Whether an error of this kind can be about a token. The others are about a lease or a blob of the
/// provider's own, and would be taken for what happened to the lock that the token is for.
fn is_about_tokens(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Auth
            | ErrorKind::Config
            | ErrorKind::Protocol
            | ErrorKind::Service
            | ErrorKind::System
            | ErrorKind::Throttled
            | ErrorKind::Transport
    )
}

impl fmt::Debug for TokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenProvider")
    }
}
