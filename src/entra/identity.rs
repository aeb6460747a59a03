//! PURE: whose token it is, as the token itself says.

use std::fmt;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use zeroize::Zeroizing;

use super::token::{AccessToken, Identity};

/// Whose access token a client's requests carry, as
/// [`AzureMutex::token_identity`](crate::AzureMutex::token_identity) returns it.
///
/// For people and logs: the IDs are read from the token without checking its signature, so nothing
/// should be decided by them. They are no secrets. `Display` is one line, such as
/// `managed identity, client 6731de76-14a6-49ae-97bc-6eba6914391e, tenant
/// 72f988bf-86f1-41af-91ab-2d7cd011db47`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIdentity {
    identity: Identity,
    object_id: Option<String>,
    issuer: Option<String>,
    audience: String,
    expires: SystemTime,
}

impl TokenIdentity {
    /// What `token` says, or else what its source knows.
    pub(crate) fn of(mut identity: Identity, token: &AccessToken, audience: &str) -> Self {
        let claims = claims(token.secret());
        let claim = |name: &str| {
            let text = claims.as_ref()?.get(name)?.as_str()?;
            let is_id = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            let fits = (1..=64).contains(&text.len()) && text.bytes().all(is_id);
            fits.then(|| text.to_owned())
        };
        let issuer = || {
            let text = claims.as_ref()?.get("iss")?.as_str()?;
            let host = text.strip_prefix("https://")?.split('/').next()?;
            let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte);
            let fits = (1..=253).contains(&host.len()) && host.bytes().all(is_host);
            fits.then(|| host.to_owned())
        };
        let issuer = issuer();
        let client = claim("appid").or_else(|| claim("azp"));
        identity.client_id = client.or(identity.client_id);
        identity.tenant_id = claim("tid").or(identity.tenant_id);
        Self {
            object_id: claim("oid"),
            issuer,
            identity,
            audience: audience.to_owned(),
            expires: token.expires(),
        }
    }

    /// Whether the caller may name another tenant to sign in to.
    pub(crate) fn takes_tenant(&self) -> bool {
        self.identity.takes_tenant
    }

    /// How the token was obtained, such as `managed identity`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.identity.kind
    }

    /// The client ID (application ID) of the identity. For a person, that of the program that they
    /// signed in with.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.identity.client_id.as_deref()
    }

    /// The ID of the tenant that issued the token.
    #[must_use]
    pub fn tenant_id(&self) -> Option<&str> {
        self.identity.tenant_id.as_deref()
    }

    /// The object ID (principal ID), which roles are assigned to.
    #[must_use]
    pub fn object_id(&self) -> Option<&str> {
        self.object_id.as_deref()
    }

    /// The host of the authority that issued the token, such as `sts.windows.net`.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// What the token is for, usually `https://storage.azure.com`.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// When the token expires. It is replaced before that while a lock is held.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.expires
    }
}

impl fmt::Display for TokenIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.identity.fmt(f)
    }
}

/// The claims of a JWT. `None` if it is none.
fn claims(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?.trim_end_matches('=');
    let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload).ok()?);
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(token: &str) -> TokenIdentity {
        let identity = Identity {
            kind: "managed identity",
            client_id: Some("named".to_owned()),
            tenant_id: None,
            takes_tenant: false,
        };
        let token = AccessToken::new(token, SystemTime::UNIX_EPOCH).unwrap();
        TokenIdentity::of(identity, &token, "https://storage.azure.com")
    }

    fn jwt(claims: &str) -> String {
        let claims = URL_SAFE_NO_PAD.encode(claims);
        format!("eyJ0eXAiOiJKV1QifQ.{claims}.s3cret")
    }

    #[test]
    fn token_says_whose_it_is() {
        let found = of(&jwt(
            r#"{"tid":"72f9-8b","oid":"11-22","appid":"6731-de","iss":"https://sts.windows.net/7/"}"#,
        ));
        assert_eq!(
            found.to_string(),
            "managed identity, client 6731-de, tenant 72f9-8b"
        );
        assert_eq!(found.object_id(), Some("11-22"));
        assert_eq!(found.issuer(), Some("sts.windows.net"));
        assert!(!format!("{found:?}").contains("s3cret"));
        assert_eq!(of(&jwt(r#"{"azp":"v2"}"#)).client_id(), Some("v2"));
    }

    #[test]
    fn what_is_no_token_of_entra_is_known_by_its_source() {
        let odd = [
            "opaque".to_owned(),
            "a.b.c".to_owned(),
            "a.%%%.c".to_owned(),
            jwt("[1,2"),
            jwt("[]"),
            jwt(r#"{"appid":7,"tid":"","oid":null}"#),
            jwt(r#"{"iss":"http://a/","appid":"a\nb","tid":"<b>","oid":"é"}"#),
            jwt(&format!(r#"{{"appid":"{}"}}"#, "a".repeat(65))),
        ];
        for token in odd {
            let found = of(&token);
            assert_eq!(found.to_string(), "managed identity, client named");
            assert_eq!((found.object_id(), found.issuer()), (None, None));
        }
    }
}
