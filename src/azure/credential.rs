//! PURE: credentials, and how they authorize requests.

mod entra;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::sign;
use crate::entra::provider::TokenProvider;
use crate::entra::sign_in::SignIn;
use crate::entra::token::{AccessToken, Source};
use crate::error::Error;
use crate::http::message::Request;
use crate::time::dates;

/// A credential for a storage account: its key, a shared access signature (SAS), or an identity in
/// Microsoft Entra ID.
///
/// `Debug` shows the kind and IDs, and never the secret; the secret's bytes are overwritten when the
/// last clone is dropped.
///
/// # Examples
///
/// ```
/// use azmutex::Credential;
///
/// let credential = Credential::shared_key("bXkgc2VjcmV0IGtleQ==")?;
/// assert!(!format!("{credential:?}").contains("bXkg"));
/// # Ok::<_, azmutex::Error>(())
/// ```
#[doc = ""]
#[doc = include_str!("signing_in.md")]
#[derive(Clone)]
pub struct Credential(Scheme);

#[derive(Clone)]
enum Scheme {
    SharedKey(Zeroizing<Vec<u8>>),
    Sas(Sas),
    Entra(Box<SignIn>),
    Provider(TokenProvider),
}

/// Where access tokens come from, and what they are for.
pub(crate) struct TokenSource {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) audience: String,
}

#[derive(Clone)]
struct Sas {
    /// The token as it was given, without a leading `?`: already percent-encoded.
    token: Zeroizing<String>,
    /// When it expires (`se`); a SAS with a stored access policy may not say.
    expires: Option<OffsetDateTime>,
}

impl Sas {
    /// Whose key signed it and until when that key is good, if it is a user delegation SAS.
    fn delegation(&self) -> Option<String> {
        let value = |wanted: &str| {
            self.token.split('&').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                (name == wanted).then(|| percent_decode_str(value).decode_utf8_lossy())
            })
        };
        let signer = value("skoid").filter(|id| {
            let is_id = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            (1..=64).contains(&id.len()) && id.bytes().all(is_id)
        })?;
        let until = value("ske").and_then(|text| dates::parse_utc(&text));
        Some(match until {
            Some(end) => format!(
                "object ID {signer}, whose key is good until {}",
                dates::utc(end)
            ),
            None => format!("object ID {signer}"),
        })
    }
}

impl Credential {
    /// The account key, base64 as the portal shows it.
    ///
    /// Every request is signed with it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `key` is empty or not base64.
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>
    pub fn shared_key(key: &str) -> Result<Self, Error> {
        let key = STANDARD
            .decode(key.trim())
            .map(Zeroizing::new)
            .map_err(|_| {
                Error::config(
                    "invalid account key: it is not base64; copy all of it, including \
                               the final `==`",
                )
            })?;
        if key.is_empty() {
            return Err(Error::config("invalid account key: it is empty"));
        }
        Ok(Self(Scheme::SharedKey(key)))
    }

    /// A shared access signature: the query string that holds `sig`, with or without a leading
    /// `?`, percent-encoded as the portal shows it.
    ///
    /// It needs the permissions read, write and create on the container's blobs, and list for
    /// [`AzureMutex::list`](crate::AzureMutex::list).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it has no `sig`, cannot be part of a URL,
    /// or has expired.
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/create-service-sas>
    pub fn sas(token: &str) -> Result<Self, Error> {
        let token = token.trim();
        let token = token.strip_prefix('?').unwrap_or(token);
        if token
            .bytes()
            .any(|b| !b.is_ascii_graphic() || matches!(b, b'#' | b'?' | b'"' | b'<' | b'>'))
        {
            return Err(Error::config(
                "invalid SAS: it is not a query string; pass the part after `?`, percent-encoded",
            ));
        }
        let value = |wanted: &str| {
            token.split('&').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                (name == wanted).then(|| percent_decode_str(value).decode_utf8_lossy())
            })
        };
        if value("sig").is_none_or(|sig| sig.is_empty()) {
            return Err(Error::config(
                "invalid SAS: it has no `sig`; copy the whole token",
            ));
        }
        let expires = match value("se") {
            None => None,
            Some(text) => Some(dates::parse_utc(&text).ok_or_else(|| {
                let text = text.escape_debug();
                Error::config(format!(
                    "invalid SAS: its expiry `se={text}` is not a time such as 2026-01-31T12:00:00Z"
                ))
            })?),
        };
        let credential = Self(Scheme::Sas(Sas {
            token: Zeroizing::new(token.to_owned()),
            expires,
        }));
        credential.check_not_expired(crate::time::clock::Clock::System.wall())?;
        Ok(credential)
    }

    /// Where the tokens come from and what they are for, if requests carry tokens. `host`: the
    /// endpoint's.
    ///
    /// # Errors
    ///
    /// `Config` if an ID is missing, or a variable is wrong.
    pub(crate) fn token_source(&self, host: &str) -> Result<Option<TokenSource>, Error> {
        Ok(match &self.0 {
            Scheme::SharedKey(_) | Scheme::Sas(_) => None,
            Scheme::Entra(sign_in) => Some(TokenSource {
                source: sign_in.source(host)?,
                audience: sign_in.token_audience().to_owned(),
            }),
            Scheme::Provider(provider) => Some(TokenSource {
                source: Arc::new(provider.clone()),
                audience: provider.audience.clone(),
            }),
        })
    }

    /// Whether requests carry an access token.
    pub(crate) fn is_token(&self) -> bool {
        !matches!(self.0, Scheme::SharedKey(_) | Scheme::Sas(_))
    }

    /// Refuses a SAS that expired before `now`.
    pub(crate) fn check_not_expired(&self, now: OffsetDateTime) -> Result<(), Error> {
        match self.expired(now) {
            Some(end) => {
                let end = dates::utc(end);
                Err(Error::config(format!(
                    "invalid SAS: it expired at {end}; create a new one"
                )))
            }
            None => Ok(()),
        }
    }

    /// When the credential expired, if it has.
    pub(crate) fn expired(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        match &self.0 {
            Scheme::Sas(Sas {
                expires: Some(end), ..
            }) if *end <= now => Some(*end),
            _ => None,
        }
    }

    /// Adds the authorization to `request`. `now` goes into `x-ms-date`, so every retry must be
    /// authorized again. `token`: an access token, if requests carry one.
    pub(crate) fn authorize(
        &self,
        request: &mut Request<'_>,
        account: &str,
        now: OffsetDateTime,
        token: Option<&AccessToken>,
    ) {
        request.headers.push(("x-ms-date".into(), dates::http(now)));
        match &self.0 {
            Scheme::SharedKey(key) => {
                let length = request.body.len().to_string();
                let headers = request
                    .headers
                    .iter()
                    .map(|(name, value)| (&**name, value.as_str()));
                let to_sign = sign::string_to_sign(
                    account,
                    request.method.as_str(),
                    &request.path,
                    request
                        .query
                        .iter()
                        .map(|(name, value)| (*name, value.as_str())),
                    headers.chain([("content-length", length.as_str())]),
                );
                let signature = sign::signature(key, &to_sign);
                request.headers.push((
                    "authorization".into(),
                    format!("SharedKey {account}:{signature}"),
                ));
            }
            Scheme::Sas(sas) => request.sas = Some(sas.token.clone()),
            Scheme::Entra(_) | Scheme::Provider(_) => {
                if let Some(token) = token {
                    let value = format!("Bearer {}", token.secret());
                    request.headers.push(("authorization".into(), value));
                }
            }
        }
    }

    /// What to check when the service did not accept the credential at `now`.
    pub(crate) fn hint(&self, now: OffsetDateTime) -> Cow<'static, str> {
        match (&self.0, self.expired(now)) {
            (_, Some(end)) => {
                format!("the SAS expired at {}; create a new one", dates::utc(end)).into()
            }
            (Scheme::SharedKey(_), None) => "check the account name and key".into(),
            (Scheme::Sas(sas), None) => match sas.delegation() {
                Some(signer) => format!(
                    "check that the SAS is complete and allows this, and the roles of who signed \
                     it: {signer}"
                )
                .into(),
                None => "check that the SAS is complete and allows this".into(),
            },
            (Scheme::Entra(_) | Scheme::Provider(_), None) => {
                "check where the token is from".into()
            }
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Scheme::SharedKey(_) => f.write_str("Credential(account key)"),
            Scheme::Sas(sas) => match sas.expires {
                Some(end) => write!(f, "Credential(SAS until {})", dates::utc(end)),
                None => f.write_str("Credential(SAS)"),
            },
            Scheme::Entra(sign_in) => write!(f, "Credential({sign_in:?})"),
            Scheme::Provider(_) => f.write_str("Credential(token provider)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn rejects(result: Result<Credential, Error>, rule: &str, secret: &str) {
        let error = result.expect_err("the credential breaks a rule");
        assert_eq!(error.kind(), crate::ErrorKind::Config);
        assert!(error.to_string().contains(rule), "{error}");
        assert!(
            !format!("{error} {error:?}").contains(secret),
            "shows the secret: {error}"
        );
    }

    #[test]
    fn account_keys_are_base64() {
        rejects(
            Credential::shared_key("no base64!"),
            "not base64",
            "no base64!",
        );
        rejects(
            Credential::shared_key("bXkgc2VjcmV0IGtleQ"),
            "the final `==`",
            "bXkg",
        );
        rejects(Credential::shared_key(" "), "empty", "-");
        Credential::shared_key("bXkgc2VjcmV0IGtleQ==\n").expect("white space around is harmless");
    }

    #[test]
    fn a_sas_has_a_signature_and_has_not_expired() {
        rejects(
            Credential::sas("sv=2021-08-06&se=2999-01-01"),
            "no `sig`",
            "-",
        );
        rejects(Credential::sas("se=2999-01-01&sig="), "no `sig`", "-");
        rejects(
            Credential::sas("sig=s3cret&se=2001-01-01"),
            "expired at 2001-01-01T00",
            "s3cret",
        );
        rejects(Credential::sas("sig=s3cret&se=soon"), "`se=soon`", "s3cret");
        rejects(
            Credential::sas("https://a.example/c?sig=s3cret"),
            "after `?`",
            "s3cret",
        );
        for token in [
            "sig=s3cret x",
            "sig=s3cret\"",
            "sig=s3cret&<a",
            "sig=s3cret&a>",
        ] {
            rejects(Credential::sas(token), "percent-encoded", "s3cret");
        }
        rejects(Credential::sas("sig=a&se=%0a"), r"`se=\n`", "\n");
        Credential::sas("?sv=2021-08-06&se=2999-01-01T00%3A00%3A00Z&sig=a%2Bb%3D").expect("fits");
        Credential::sas("si=policy&sr=c&sig=x").expect("a stored policy holds the end");
    }

    #[test]
    fn user_delegation_sas_names_who_signed_it() {
        let now = dates::parse_utc("2026-01-01").unwrap();
        let hint = |sas: &str| Credential::sas(sas).unwrap().hint(now).into_owned();
        let key = "skoid=11-22&sktid=33&ske=2026-01-31T12%3A00%3A00Z";
        let text = hint(&format!("se=2999-01-01&{key}&sig=s3cret"));
        assert!(
            text.ends_with(
                "signed it: object ID 11-22, whose key is good until 2026-01-31T12:00:00Z"
            ),
            "{text}"
        );
        assert!(!hint("skoid=%0a&sig=s3cret").contains("object ID"));
    }

    #[test]
    fn debug_never_shows_the_secret() {
        let key = Credential::shared_key("bXkgc2VjcmV0IGtleQ==").unwrap();
        assert_eq!(format!("{key:?}"), "Credential(account key)");
        let sas = Credential::sas("sig=s3cret&se=2999-01-01").unwrap();
        assert_eq!(
            format!("{sas:?}"),
            "Credential(SAS until 2999-01-01T00:00:00Z)"
        );
        assert_eq!(
            format!("{:?}", Credential::sas("sig=s3cret").unwrap()),
            "Credential(SAS)"
        );
    }
}
