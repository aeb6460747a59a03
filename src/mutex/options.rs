use std::env;
use std::fs;
use std::sync::Once;
use std::time::Duration;

use ureq::http::Uri;

use crate::azure::credential::Credential;
use crate::azure::validate::{check_account, check_container};
use crate::error::{Error, quoted};
use crate::http::certificates;
use crate::http::resolver::is_loopback;
use crate::time::clock::Clock;

/// The account that every emulator has. Public, not a secret.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Where the locks are, and the credential for them: an account, a container and its access.
///
/// Everything is parsed and checked here or in [`AzureMutex::new`](crate::AzureMutex::new), before
/// any request is sent. `Debug` never shows a secret.
///
/// # Examples
///
/// ```
/// use azmutex::MutexOptions;
///
/// let options = MutexOptions::from_connection_string("UseDevelopmentStorage=true", "locks")?;
/// # Ok::<_, azmutex::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MutexOptions {
    pub(crate) account: String,
    pub(crate) container: String,
    pub(crate) credential: Credential,
    pub(crate) endpoint: Endpoint,
    pub(crate) request_timeout: Duration,
    pub(crate) create_missing: bool,
    pub(crate) allow_insecure_http: bool,
    /// In DER.
    pub(crate) ca_certificates: Vec<Vec<u8>>,
    pub(crate) clock: Clock,
}

impl MutexOptions {
    /// An account of the public cloud and its key.
    ///
    /// `account`: 3 to 24 lower-case letters and digits. `key`: base64, as the portal shows it.
    /// `container`: 3 to 63 lower-case letters, digits and single hyphens; it is created on first
    /// use if it does not exist.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a value breaks its rule.
    pub fn new(account: &str, key: &str, container: &str) -> Result<Self, Error> {
        Self::with_credential(account, Credential::shared_key(key)?, container)
    }

    /// An account of the public cloud and any credential.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a name breaks its rule; see
    /// [`new`](Self::new).
    pub fn with_credential(
        account: &str,
        credential: Credential,
        container: &str,
    ) -> Result<Self, Error> {
        check_account(account)?;
        let endpoint = Endpoint::of_account("https", account, "core.windows.net")?;
        Self::assemble(account.to_owned(), credential, endpoint, container)
    }

    /// A connection string, as the portal shows it.
    ///
    /// Takes `DefaultEndpointsProtocol`, `AccountName`, `AccountKey`, `SharedAccessSignature`,
    /// `BlobEndpoint`, `EndpointSuffix` (`core.windows.net` by default), `UseDevelopmentStorage`
    /// and `DevelopmentStorageProxyUri`, in upper or lower case; ignores the endpoints of other
    /// services.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a part is missing, appears twice,
    /// contradicts another, or breaks its rule.
    ///
    /// Source: <https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string>
    pub fn from_connection_string(text: &str, container: &str) -> Result<Self, Error> {
        ConnectionString::parse(text)?.into_options(container)
    }

    /// Options from the environment: `AZURE_STORAGE_CONNECTION_STRING`, or else
    /// `AZURE_STORAGE_ACCOUNT` with `AZURE_STORAGE_KEY` or `AZURE_STORAGE_SAS_TOKEN`, or else that
    /// account with the identity of [`Credential::entra_from_env`].
    ///
    /// `AZURE_STORAGE_AUTH_MODE` is `login` to prefer an identity to the key, or `key` to use none.
    ///
    /// These are the variables that the `az` command line reads. An empty variable counts as not
    /// set.
    ///
    /// Also `AZMUTEX_CA_FILE`, a PEM file for [`ca_certificates`](Self::ca_certificates), and
    /// `AZMUTEX_ALLOW_INSECURE_HTTP`, which is `true` or `1` to
    /// [`allow_insecure_http`](Self::allow_insecure_http), or `false` or `0`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the variables are not set, or a value
    /// breaks its rule; the text names them.
    pub fn from_env(container: &str) -> Result<Self, Error> {
        let var = |name: &str| match env::var(name) {
            Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => {
                Err(Error::config(format!("invalid {name}: it is not UTF-8")))
            }
        };
        Self::from_variables(var, container)?.network_from(var)
    }

    fn network_from(
        mut self,
        var: impl Fn(&str) -> Result<Option<String>, Error>,
    ) -> Result<Self, Error> {
        const CA_FILE: &str = "AZMUTEX_CA_FILE";
        if let Some(path) = var(CA_FILE)? {
            let wrong = |why: String| Error::config(format!("{CA_FILE} {}: {why}", quoted(&path)));
            let pem = fs::read(&path).map_err(|error| wrong(error.to_string()))?;
            self = self
                .ca_certificates(&pem)
                .map_err(|error| wrong(error.to_string()))?;
        }
        const INSECURE: &str = "AZMUTEX_ALLOW_INSECURE_HTTP";
        match var(INSECURE)?.map(|value| value.to_ascii_lowercase()) {
            None => Ok(self),
            Some(value) if value == "true" || value == "1" => Ok(self.allow_insecure_http(true)),
            Some(value) if value == "false" || value == "0" => Ok(self.allow_insecure_http(false)),
            Some(value) => Err(Error::config(format!(
                "invalid {INSECURE} {}: use true or false, 1 or 0",
                quoted(&value)
            ))),
        }
    }

    fn from_variables(
        var: impl Fn(&str) -> Result<Option<String>, Error>,
        container: &str,
    ) -> Result<Self, Error> {
        if let Some(text) = var("AZURE_STORAGE_CONNECTION_STRING")? {
            return Self::from_connection_string(&text, container);
        }
        let Some(account) = var("AZURE_STORAGE_ACCOUNT")? else {
            return Err(Error::config(
                "no storage account in the environment: set AZURE_STORAGE_CONNECTION_STRING, or \
                 AZURE_STORAGE_ACCOUNT, if need be with AZURE_STORAGE_KEY or \
                 AZURE_STORAGE_SAS_TOKEN",
            ));
        };
        let mode = var("AZURE_STORAGE_AUTH_MODE")?.map(|mode| mode.to_ascii_lowercase());
        if !matches!(mode.as_deref(), None | Some("key" | "login")) {
            return Err(Error::config(
                "invalid AZURE_STORAGE_AUTH_MODE: it is `login` or `key`",
            ));
        }
        let is = |wanted| mode.as_deref() == Some(wanted);
        let key = var("AZURE_STORAGE_KEY")?.filter(|_| !is("login"));
        let credential = match (key, var("AZURE_STORAGE_SAS_TOKEN")?) {
            (Some(key), _) => Credential::shared_key(&key)?,
            (None, Some(token)) => Credential::sas(&token)?,
            (None, None) if is("key") => {
                return Err(Error::config(
                    "AZURE_STORAGE_ACCOUNT is set, but neither AZURE_STORAGE_KEY nor \
                     AZURE_STORAGE_SAS_TOKEN is, and AZURE_STORAGE_AUTH_MODE is `key`",
                ));
            }
            (None, None) => Credential::entra_from_env()?,
        };
        Self::with_credential(&account, credential, container)
    }

    /// An emulator such as Azurite on its usual port of this machine
    /// (`http://127.0.0.1:10000/devstoreaccount1`); the same as `UseDevelopmentStorage=true`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the container's name breaks its rule.
    pub fn development(container: &str) -> Result<Self, Error> {
        Self::from_connection_string("UseDevelopmentStorage=true", container)
    }

    /// Another blob endpoint: a sovereign cloud, a private link, a DNS-zone account, an emulator.
    ///
    /// `url`: `https://HOST[:PORT][/PATH]`; the path is for emulators, whose URLs have the account
    /// there. Defaults to `https://ACCOUNT.blob.core.windows.net`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `url` is not such a URL.
    pub fn endpoint(mut self, url: &str) -> Result<Self, Error> {
        self.endpoint = Endpoint::parse(url)?;
        Ok(self)
    }

    /// How long one operation may take, including its retries.
    ///
    /// Lease operations can be repeated without harm, so one that is not answered within half of
    /// this time is sent again. Defaults to 10 seconds.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Whether a missing container or blob is created on first use. Defaults to true.
    ///
    /// Nothing is checked in advance: it is created once the service says that it is missing.
    #[must_use]
    pub fn create_missing(mut self, create: bool) -> Self {
        self.create_missing = create;
        self
    }

    /// Allows `http://` to a host that is not this machine. Defaults to false.
    ///
    /// Anyone on the network path can then read what is sent, and answer as if they were the
    /// service. Meant for an emulator in another container. This machine is a loopback address,
    /// `localhost` and every name below it, such as `account.blob.localhost`.
    #[must_use]
    pub fn allow_insecure_http(mut self, allow: bool) -> Self {
        self.allow_insecure_http = allow;
        self
    }

    /// Trusts these certificate authorities, besides those that are trusted anyway. For an endpoint
    /// or a proxy with a certificate of a private CA.
    ///
    /// `pem`: the content of a PEM file, with one certificate or more. Called again, it adds more.
    /// Defaults to none; then the public CAs are trusted that are built in, or those of the system
    /// with one of the features `platform-verifier` and `native-tls`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there is no certificate in it, or a damaged
    /// one, or it is not PEM; the text says which.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use azmutex::MutexOptions;
    ///
    /// let pem = std::fs::read("/etc/corp/ca.pem")?;
    /// let options = MutexOptions::from_env("locks")?.ca_certificates(&pem)?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn ca_certificates(mut self, pem: &[u8]) -> Result<Self, Error> {
        self.ca_certificates.extend(certificates::parse(pem)?);
        Ok(self)
    }

    /// Reads the time from a clock that tests can advance, instead of the system's.
    #[cfg(feature = "emulator")]
    #[must_use]
    pub fn clock(mut self, clock: crate::time::test_clock::Clock) -> Self {
        self.clock = Clock::Test(clock);
        self
    }

    fn assemble(
        account: String,
        credential: Credential,
        endpoint: Endpoint,
        container: &str,
    ) -> Result<Self, Error> {
        check_container(container)?;
        Ok(Self {
            account,
            container: container.to_owned(),
            credential,
            endpoint,
            request_timeout: Duration::from_secs(10),
            create_missing: true,
            allow_insecure_http: false,
            ca_certificates: Vec::new(),
            clock: Clock::System,
        })
    }

    /// Checks the rules between values, once all are set.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.request_timeout.is_zero() {
            return Err(Error::config(
                "invalid request timeout 0: use more, such as 10 seconds",
            ));
        }
        self.credential.check_not_expired(self.clock.wall())?;
        self.check_transport(cfg!(any(feature = "rustls", feature = "native-tls")))
    }

    fn check_transport(&self, tls: bool) -> Result<(), Error> {
        static WARN: Once = Once::new();

        let origin = &self.endpoint.origin;
        match self.endpoint.secure {
            true if !tls => Err(Error::config(format!(
                "cannot use `{origin}`: azmutex was built without TLS; turn on its feature `rustls` \
                 or `native-tls`"
            ))),
            false if self.endpoint.loopback => Ok(()),
            false if self.credential.is_token() => Err(Error::config(format!(
                "refusing `{origin}`: an access token is sent over https only; whoever reads it can \
                 use it"
            ))),
            false if self.allow_insecure_http => {
                WARN.call_once(|| {
                    log::warn!(
                        "`{origin}` is not encrypted: others on the network can read the locks, and \
                         answer for the service"
                    );
                });
                Ok(())
            }
            false => Err(Error::config(format!(
                "refusing `{origin}`: plain http is for this machine only; use https, or allow it \
                 with --allow-insecure-http, AZMUTEX_ALLOW_INSECURE_HTTP=true or \
                 MutexOptions::allow_insecure_http(true)"
            ))),
            true => Ok(()),
        }
    }
}

/// A blob endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Scheme, host and port.
    pub(crate) origin: String,
    /// The path, without a trailing slash: empty, or such as `/devstoreaccount1`.
    pub(crate) base: String,
    secure: bool,
    pub(crate) loopback: bool,
}

impl Endpoint {
    fn of_account(protocol: &str, account: &str, suffix: &str) -> Result<Self, Error> {
        Self::parse(&format!("{protocol}://{account}.blob.{suffix}"))
    }

    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        // Not shown when it holds a query: that may be a SAS.
        if url.contains('?') {
            return Err(Error::config(
                "invalid endpoint: it has a query; pass a SAS as the credential instead",
            ));
        }
        let shown = url.escape_debug();
        let wrong = |rule: &str| Err(Error::config(format!("invalid endpoint `{shown}`: {rule}")));
        if url.contains('@') {
            return Err(Error::config(
                "invalid endpoint: it has a user name or password",
            ));
        }
        if url.contains(['#', '\\']) {
            return wrong("it has a character that a blob endpoint cannot have");
        }
        let Ok(uri) = url.parse::<Uri>() else {
            return wrong("use a URL such as https://account.blob.core.windows.net");
        };
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host().filter(|h| !h.is_empty()))
        else {
            return wrong("use a URL such as https://account.blob.core.windows.net");
        };
        if !matches!(scheme, "http" | "https") {
            return wrong("use https, or http to this machine");
        }
        // What follows the host in an authority without a user is a port.
        let named = uri
            .authority()
            .is_some_and(|authority| authority.as_str() != host);
        if named && uri.port_u16().is_none_or(|port| port == 0) {
            return wrong("its port is not between 1 and 65535");
        }
        let base = uri.path().trim_end_matches('/');
        if base
            .split('/')
            .skip(1)
            .any(|s| s.is_empty() || s == "." || s == "..")
        {
            return wrong("its path has an empty segment, or `.` or `..` as a segment");
        }
        Ok(Self {
            origin: format!(
                "{scheme}://{}",
                uri.authority().map_or(host, |a| a.as_str())
            ),
            base: base.to_owned(),
            secure: scheme == "https",
            loopback: is_loopback(host),
        })
    }

    /// The account in the URL, for when none is named: the first label of the host, or the first
    /// segment of an emulator's path.
    pub(crate) fn account(&self) -> &str {
        match self.base.split('/').nth(1) {
            Some(first) => first,
            None => {
                let host = self.origin.split("://").nth(1).unwrap_or_default();
                host.split(['.', ':']).next().unwrap_or_default()
            }
        }
    }
}

/// The parts of a connection string that concern blobs.
#[derive(Default)]
struct ConnectionString<'a> {
    protocol: Option<&'a str>,
    account: Option<&'a str>,
    key: Option<&'a str>,
    sas: Option<&'a str>,
    endpoint: Option<&'a str>,
    suffix: Option<&'a str>,
    development: Option<&'a str>,
    proxy: Option<&'a str>,
}

impl<'a> ConnectionString<'a> {
    /// No message quotes a value: any of them may be a secret in the wrong place.
    fn parse(text: &'a str) -> Result<Self, Error> {
        let mut this = Self::default();
        for part in text
            .split(';')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            // Values may hold `=` themselves.
            let Some((name, value)) = part.split_once('=') else {
                return Err(wrong(
                    "a part has no `=`; parts are `Name=value`, separated by `;`",
                ));
            };
            let (name, value) = (name.trim(), value.trim());
            let (slot, name) = match name.to_ascii_lowercase().as_str() {
                "defaultendpointsprotocol" => (&mut this.protocol, "DefaultEndpointsProtocol"),
                "accountname" => (&mut this.account, "AccountName"),
                "accountkey" => (&mut this.key, "AccountKey"),
                "sharedaccesssignature" => (&mut this.sas, "SharedAccessSignature"),
                "blobendpoint" => (&mut this.endpoint, "BlobEndpoint"),
                "endpointsuffix" => (&mut this.suffix, "EndpointSuffix"),
                "usedevelopmentstorage" => (&mut this.development, "UseDevelopmentStorage"),
                "developmentstorageproxyuri" => (&mut this.proxy, "DevelopmentStorageProxyUri"),
                _ => continue,
            };
            if value.is_empty() {
                return Err(wrong(&format!("`{name}` is empty")));
            }
            if slot.replace(value).is_some() {
                return Err(wrong(&format!("`{name}` appears twice")));
            }
        }
        Ok(this)
    }

    fn into_options(self, container: &str) -> Result<MutexOptions, Error> {
        match self.development {
            None => {}
            Some(value) if value.eq_ignore_ascii_case("true") => {
                return self.into_development(container);
            }
            Some(value) if value.eq_ignore_ascii_case("false") => {}
            Some(_) => return Err(wrong("`UseDevelopmentStorage` is neither true nor false")),
        }
        if self.proxy.is_some() {
            return Err(wrong(
                "`DevelopmentStorageProxyUri` needs `UseDevelopmentStorage=true`",
            ));
        }
        let protocol = match self.protocol.map(str::to_ascii_lowercase).as_deref() {
            None | Some("https") => "https",
            Some("http") => "http",
            Some(_) => {
                return Err(wrong(
                    "`DefaultEndpointsProtocol` is neither http nor https",
                ));
            }
        };
        let credential = match (self.key, self.sas) {
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "both `AccountKey` and `SharedAccessSignature`: use one",
                ));
            }
            (Some(key), None) => Credential::shared_key(key)?,
            (None, Some(token)) => Credential::sas(token)?,
            (None, None) => {
                return Err(wrong(
                    "it has neither `AccountKey` nor `SharedAccessSignature`",
                ));
            }
        };
        let suffix = self.suffix.unwrap_or("core.windows.net");
        let (account, endpoint) = match (self.account, self.endpoint) {
            (Some(account), Some(endpoint)) => (account.to_owned(), Endpoint::parse(endpoint)?),
            (Some(account), None) => {
                check_account(account)?;
                (
                    account.to_owned(),
                    Endpoint::of_account(protocol, account, suffix)?,
                )
            }
            // With a SAS, the service does not need the account's name; it is for messages.
            (None, Some(endpoint)) if self.sas.is_some() => {
                let endpoint = Endpoint::parse(endpoint)?;
                let account = endpoint.account().to_owned();
                return MutexOptions::assemble(account, credential, endpoint, container);
            }
            (None, _) => return Err(wrong("`AccountName` is missing")),
        };
        check_account(&account)?;
        MutexOptions::assemble(account, credential, endpoint, container)
    }

    fn into_development(self, container: &str) -> Result<MutexOptions, Error> {
        let others = [
            self.protocol,
            self.account,
            self.key,
            self.sas,
            self.endpoint,
            self.suffix,
        ];
        if others.iter().any(Option::is_some) {
            return Err(wrong(
                "`UseDevelopmentStorage=true` names a whole account; leave out the other account \
                 parts",
            ));
        }
        let host = self
            .proxy
            .unwrap_or("http://127.0.0.1")
            .trim_end_matches('/');
        let endpoint = Endpoint::parse(&format!("{host}:10000/{EMULATOR_ACCOUNT}"))?;
        let credential = Credential::shared_key(EMULATOR_KEY)?;
        MutexOptions::assemble(EMULATOR_ACCOUNT.to_owned(), credential, endpoint, container)
    }
}

fn wrong(rule: &str) -> Error {
    Error::config(format!("invalid connection string: {rule}"))
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
