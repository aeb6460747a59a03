//! PURE: credentials, and how they authorize requests.

mod entra;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::sas::Sas;
use super::secret::{self, Expected};
use super::sign;
use crate::entra::provider::TokenProvider;
use crate::entra::sign_in::SignIn;
use crate::entra::token::{AccessToken, Source};
use crate::error::{Error, ErrorKind};
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
///
/// [The guide](crate::guide::signing_in) says which to use where, and how to give it its role.
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

impl Credential {
    /// The account key, base64 as the portal shows it.
    ///
    /// Every request is signed with it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `key` is empty or not base64, or is plainly
    /// something else, such as a connection string. White space, a byte order mark and a pair of
    /// quotes around it are removed.
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>
    pub fn shared_key(key: &str) -> Result<Self, Error> {
        let wrong = |rule: &str| Error::config(format!("invalid account key: {rule}"));
        let key = secret::trim(key).map_err(wrong)?;
        if let Some(mistake) = secret::mistake(key, Expected::AccountKey) {
            return Err(wrong(mistake));
        }
        let key = STANDARD.decode(key).map(Zeroizing::new).map_err(|_| {
            wrong(if key.contains(char::is_whitespace) {
                "it is not base64: it has a line break or a blank inside"
            } else if key.contains('%') {
                "it is not base64 but percent-encoded; pass it as the portal shows it"
            } else if key.ends_with([';', ',', '\\', '\'', '"']) || key.ends_with("\\n") {
                "it is not base64: something follows the key that is no part of it"
            } else {
                "it is not base64; copy all of it, including the final `==`"
            })
        })?;
        if key.is_empty() {
            return Err(wrong("it is empty"));
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
    /// is not valid yet or no longer (by more than a minute), or is not for blobs. A signature that
    /// is not percent-encoded is repaired.
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/create-service-sas>
    pub fn sas(token: &str) -> Result<Self, Error> {
        let credential = Self(Scheme::Sas(Sas::parse(token)?));
        credential.check_valid(crate::time::clock::Clock::System.wall())?;
        Ok(credential)
    }

    /// The same, for whom the issuers of tokens may have certificates of these CAs, in DER.
    pub(crate) fn trusting(self, roots: &[Vec<u8>]) -> Self {
        match self.0 {
            Scheme::Entra(sign_in) => Self(Scheme::Entra(Box::new(sign_in.trusting(roots)))),
            _ => self,
        }
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

    /// Refuses a SAS that is not valid at `now`.
    pub(crate) fn check_valid(&self, now: OffsetDateTime) -> Result<(), Error> {
        match self.not_valid(now) {
            Some(why) => Err(Error::config(format!(
                "invalid SAS: it {why}; create a new one"
            ))),
            None => Ok(()),
        }
    }

    /// Why the credential is not valid at `now`, without the subject.
    fn not_valid(&self, now: OffsetDateTime) -> Option<String> {
        match &self.0 {
            Scheme::Sas(sas) => sas.not_valid(now),
            Scheme::SharedKey(_) | Scheme::Entra(_) | Scheme::Provider(_) => None,
        }
    }

    /// Refuses a request that the service would refuse with this credential, as far as it tells.
    pub(crate) fn check_allows(&self, request: &Request<'_>) -> Result<(), Error> {
        let Scheme::Sas(sas) = &self.0 else {
            return Ok(());
        };
        match sas.refuses(request) {
            Some(why) => Err(Error::new(ErrorKind::Auth, why)),
            None => Ok(()),
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
            Scheme::Sas(sas) => request.sas = Some(sas.token().clone()),
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
        match (&self.0, self.not_valid(now)) {
            (_, Some(why)) => format!("the SAS {why}; create a new one").into(),
            (Scheme::SharedKey(_), None) => "check the account name and key".into(),
            (Scheme::Sas(sas), None) => match sas.signer() {
                Some(signer) => format!(
                    "check that the SAS is complete and allows this, and the roles of who signed \
                     it: object ID {signer}"
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
            Scheme::Sas(sas) => write!(f, "Credential({sas:?})"),
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
        for (key, rule) in [
            ("bXkgc2Vj\ncmV0IGtleQ==", "line break"),
            ("bXkgc2VjcmV0IGtleQ%3D%3D", "percent-encoded"),
            ("bXkgc2VjcmV0IGtleQ==;", "something follows the key"),
            ("bXkgc2VjcmV0IGtleQ==\\n", "something follows the key"),
            ("\"bXkgc2VjcmV0IGtleQ==", "remove the quotes"),
            (
                "AccountName=a;AccountKey=bXkgc2VjcmV0IGtleQ==",
                "a connection string",
            ),
            ("sv=2021-08-06&sig=bXkgc2VjcmV0IGtleQ", "a SAS token"),
            ("https://a.blob.core.windows.net/?sig=bXkg", "a SAS URL"),
            ("@Microsoft.KeyVault(SecretUri=bXkg)", "Key Vault"),
        ] {
            rejects(Credential::shared_key(key), rule, "bXkg");
        }
        for key in [
            "bXkgc2VjcmV0IGtleQ==\n",
            "\u{feff}bXkgc2VjcmV0IGtleQ==\r\n",
            "'bXkgc2VjcmV0IGtleQ=='",
            "\"bXkgc2VjcmV0IGtleQ==\"\n",
        ] {
            let credential = Credential::shared_key(key).expect("what is around it is harmless");
            let mut request = Request::new(crate::http::message::Method::Get, "/c".to_owned());
            credential.authorize(&mut request, "a", OffsetDateTime::UNIX_EPOCH, None);
            let signature = request
                .headers
                .iter()
                .find(|(name, _)| name == "authorization");
            assert!(signature.unwrap().1.starts_with("SharedKey a:"), "{key}");
        }
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
            "sig=s3cret\"x",
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
        let text = hint("se=2999-01-01&skoid=11-22&sktid=33&ske=2999-01-31&sig=s3cret");
        assert!(text.ends_with("who signed it: object ID 11-22"), "{text}");
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
