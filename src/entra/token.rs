//! PURE: access tokens, and what a source of them is.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::error::Error;
use crate::sync::Mutex;
use crate::time::clock::Clock;
use crate::time::dates;
use crate::time::tick::Tick;

/// An access token for Azure Storage, and when it expires.
///
/// `Debug` shows when it expires and never the token, whose bytes are overwritten when the last
/// clone is dropped.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use azmutex::AccessToken;
///
/// let token = AccessToken::new("eyJ0.eyJh.c2ln", SystemTime::now() + Duration::from_secs(3600))?;
/// assert!(!format!("{token:?}").contains("eyJ0"));
/// # Ok::<_, azmutex::Error>(())
/// ```
#[derive(Clone)]
pub struct AccessToken {
    secret: Zeroizing<String>,
    expires: SystemTime,
    refresh_after: Option<SystemTime>,
}

impl AccessToken {
    /// A token as it goes into the header `Authorization`, without the word `Bearer`. `expires` is
    /// when the service no longer accepts it.
    ///
    /// White space around the token, such as the newline at the end of a file, is removed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the token is empty or has a blank, a
    /// control character or one that is not ASCII in it.
    pub fn new(token: impl Into<String>, expires: SystemTime) -> Result<Self, Error> {
        let whole = Zeroizing::new(token.into());
        let token = whole.trim();
        let wrong = |what| Err(Error::config(format!("invalid access token: it {what}")));
        if token.is_empty() {
            return wrong("is empty");
        }
        if token.starts_with("Bearer ") || token.starts_with("bearer ") {
            return wrong("starts with `Bearer`; leave the word out");
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return wrong("has a blank, a control character or one that is not ASCII in it");
        }
        Ok(Self {
            secret: Zeroizing::new(token.to_owned()),
            expires,
            refresh_after: None,
        })
    }

    /// When the service no longer accepts it.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// The same token, with the time from which on whoever issued it wants it to be replaced.
    #[must_use]
    pub(crate) fn with_refresh_after(mut self, at: SystemTime) -> Self {
        self.refresh_after = Some(at);
        self
    }

    /// From when on whoever issued it wants it to be replaced, if they said so.
    pub(crate) fn refresh_after(&self) -> Option<SystemTime> {
        self.refresh_after
    }

    /// The token itself. Never to be logged or shown.
    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match dates::from_system(self.expires) {
            Some(end) => write!(f, "AccessToken(until {})", dates::utc(end)),
            None => f.write_str("AccessToken"),
        }
    }
}

/// A token, or another secret for a header, without the white space around it. `None` if it is empty
/// or has characters that no token has.
pub(crate) fn checked(text: &str) -> Option<Zeroizing<String>> {
    let text = text.trim();
    let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_token.then(|| Zeroizing::new(text.to_owned()))
}

/// What a [token provider](crate::Credential::token_provider) is asked for.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// What the token is for, such as `https://storage.azure.com`: without a slash at the end.
    pub(crate) audience: String,
    /// The claims that the service demanded in a challenge: JSON.
    pub(crate) claims: Option<String>,
    /// When the caller needs the answer, on `clock`.
    pub(crate) deadline: Tick,
    /// For the deadline, for delays between attempts, and for when the token expires. Only waits for
    /// the network are limited by the system's clock.
    pub(crate) clock: Clock,
    /// Why the last attempt failed, for those who cannot wait until there is an answer.
    pub(crate) failure: Arc<Mutex<Option<Error>>>,
}

impl TokenRequest {
    /// What the token is for: `https://storage.azure.com`, unless the credential was told otherwise.
    /// Never with a slash at the end. The scope for an OAuth endpoint is this and `/.default`.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// The claims, in JSON, that the service demanded when it refused the last token. Usually none.
    #[must_use]
    pub fn claims(&self) -> Option<&str> {
        self.claims.as_deref()
    }
}

/// Where tokens come from: one kind of identity, or several to be tried in order.
///
/// A source asks anew at each call; it keeps no token.
pub(crate) trait Source: Send + Sync + fmt::Debug {
    /// Gets a token. Blocks until `request.deadline` at the latest.
    ///
    /// # Errors
    ///
    /// `Auth` if it was refused, `Transport` if there was no usable reply, `Throttled` or `Service`
    /// if the endpoint is overloaded or failed, `Config` if a variable, file or program is missing
    /// or wrong.
    fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, Error>;

    /// Whose tokens these are, as far as it is known now.
    fn identity(&self) -> Identity;
}

/// Whose tokens a [`Source`] gets, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Such as `managed identity`.
    pub(crate) kind: &'static str,
    pub(crate) client_id: Option<String>,
    pub(crate) tenant_id: Option<String>,
    /// Whether the caller may name another tenant.
    pub(crate) takes_tenant: bool,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        if let Some(client) = &self.client_id {
            write!(f, ", client {client}")?;
        }
        if let Some(tenant) = &self.tenant_id {
            write!(f, ", tenant {tenant}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::ErrorKind;

    const END: SystemTime = SystemTime::UNIX_EPOCH;

    /// A request for a token within `limit` of `clock`.
    pub(crate) fn request(clock: &Clock, limit: Duration) -> TokenRequest {
        TokenRequest {
            audience: "https://storage.azure.com".to_owned(),
            claims: None,
            deadline: clock.now() + limit,
            clock: clock.clone(),
            failure: Arc::default(),
        }
    }

    #[test]
    fn token_is_trimmed_and_checked() {
        for text in ["abc.def", "abc.def\n", "abc.def\r\n", " abc.def "] {
            assert_eq!(AccessToken::new(text, END).unwrap().secret(), "abc.def");
        }
        let rows = [
            ("", "empty"),
            (" \n", "empty"),
            ("abc def", "a blank"),
            ("abc\ndef", "a blank"),
            ("abc\u{7f}", "a blank"),
            ("abcü", "not ASCII"),
            ("Bearer abc", "leave the word out"),
        ];
        for (text, rule) in rows {
            let error = AccessToken::new(text, END).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(rule), "{error}");
            assert!(!format!("{error:?}").contains("abc"), "{error:?}");
        }
    }

    #[test]
    fn debug_never_shows_the_token() {
        let token = AccessToken::new("s3cret", END + Duration::from_secs(3600)).unwrap();
        let token = token.with_refresh_after(END);
        assert_eq!(
            format!("{token:?}"),
            "AccessToken(until 1970-01-01T01:00:00Z)"
        );
        assert_eq!(token.refresh_after(), Some(END));
    }

    #[test]
    fn identity_is_shown_as_far_as_it_is_known() {
        let mut identity = Identity {
            kind: "managed identity",
            client_id: None,
            tenant_id: None,
            takes_tenant: false,
        };
        assert_eq!(identity.to_string(), "managed identity");
        identity.client_id = Some("1f2e".to_owned());
        identity.tenant_id = Some("9a3c".to_owned());
        assert_eq!(
            identity.to_string(),
            "managed identity, client 1f2e, tenant 9a3c"
        );
    }
}
