use std::fs;
use std::sync::Once;
use std::time::Duration;

use ureq::http::Uri;

use super::account_host;
use super::connection_string::{self, ConnectionString};
use super::environment::{self, Named};
use crate::azure::credential::Credential;
use crate::azure::secret::{self, Expected};
use crate::azure::validate::{check_account, check_container};
use crate::entra::env::Env;
use crate::error::Error;
use crate::http::certificates;
use crate::http::resolver::is_loopback;
use crate::text::{escaped, quoted};
use crate::time::clock::Clock;

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
        let account = secret::unquoted(account);
        check_account(account)?;
        let endpoint = Endpoint::parse(&format!("https://{account}.blob.core.windows.net"))?;
        Self::assemble(Some(account.to_owned()), credential, endpoint, container)
    }

    /// A connection string, as the portal shows it.
    ///
    /// Takes `DefaultEndpointsProtocol`, `AccountName`, `AccountKey`, `SharedAccessSignature`,
    /// `BlobEndpoint`, `EndpointSuffix` (`core.windows.net` by default), `UseDevelopmentStorage`
    /// and `DevelopmentStorageProxyUri`, in upper or lower case; ignores the endpoints of other
    /// services and secondary endpoints. White space, a byte order mark and a pair of quotes around
    /// the whole or a value are removed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a part is missing, unknown, appears twice,
    /// contradicts another, or breaks its rule, as a `BlobEndpoint` with the container in it does;
    /// or if it is plainly no connection string.
    ///
    /// Source: <https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string>
    pub fn from_connection_string(text: &str, container: &str) -> Result<Self, Error> {
        let ConnectionString {
            account,
            endpoint,
            credential,
        } = connection_string::read(text)?;
        let endpoint = Endpoint::parse(&endpoint)?;
        if let Some(account) = &account {
            check_account(account)?;
        }
        Self::assemble(account, credential, endpoint, container)
    }

    /// Options from the environment: `AZURE_STORAGE_CONNECTION_STRING`, or else
    /// `AZURE_STORAGE_ACCOUNT` with `AZURE_STORAGE_KEY` or `AZURE_STORAGE_SAS_TOKEN`, or else that
    /// account with the identity of [`Credential::entra_from_env`].
    ///
    /// `AZURE_STORAGE_AUTH_MODE` is `login` to prefer an identity to the key, or `key` to use none.
    ///
    /// These are the variables that the `az` command line reads. Other names in use are read too:
    /// `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCESS_KEY`, `AZURE_STORAGE_ACCOUNT_KEY` and
    /// `AZURE_STORAGE_SAS`. An empty variable counts as not set. If a connection string is used and
    /// another variable names another account, that is logged as a warning.
    ///
    /// Also `AZMUTEX_CA_FILE`, a PEM file for [`ca_certificates`](Self::ca_certificates), and
    /// `AZMUTEX_ALLOW_INSECURE_HTTP`, which is `true` or `1` to
    /// [`allow_insecure_http`](Self::allow_insecure_http), or `false` or `0`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the variables are not set, two names of
    /// one value have different values, or a value breaks its rule; the text names them.
    pub fn from_env(container: &str) -> Result<Self, Error> {
        let env = Env::system();
        let var = |name: &str| env.get(name);
        Self::from_variables(var, container)?.network_from(var)
    }

    fn network_from(
        mut self,
        var: impl Fn(&str) -> Result<Option<String>, Error>,
    ) -> Result<Self, Error> {
        const CA_FILE: &str = "AZMUTEX_CA_FILE";
        if let Some(path) = var(CA_FILE)? {
            let wrong = |why: String| Error::config(format!("{CA_FILE} {}: {why}", quoted(&path)));
            let pem =
                fs::read(secret::unquoted(&path)).map_err(|error| wrong(error.to_string()))?;
            self = self
                .ca_certificates(&pem)
                .map_err(|error| wrong(error.to_string()))?;
        }
        const INSECURE: &str = "AZMUTEX_ALLOW_INSECURE_HTTP";
        let Some(value) = var(INSECURE)? else {
            return Ok(self);
        };
        match &*secret::unquoted(&value).to_ascii_lowercase() {
            "true" | "1" => Ok(self.allow_insecure_http(true)),
            "false" | "0" => Ok(self.allow_insecure_http(false)),
            _ => Err(Error::config(format!(
                "invalid {INSECURE} {}: use true or false, 1 or 0",
                quoted(&value)
            ))),
        }
    }

    fn from_variables(
        var: impl Fn(&str) -> Result<Option<String>, Error>,
        container: &str,
    ) -> Result<Self, Error> {
        check_container(container)?;
        match environment::read(var)? {
            Named::Account(account, credential) => {
                Self::with_credential(&account, credential, container)
            }
            Named::SignIn(account) => {
                Self::with_credential(&account, Credential::entra_from_env()?, container)
            }
            Named::ConnectionString(text, account) => {
                let options = Self::from_connection_string(&text, container).map_err(|error| {
                    Error::config(format!("AZURE_STORAGE_CONNECTION_STRING: {error}"))
                })?;
                if let Some(other) = account.filter(|other| *other != options.account) {
                    log::warn!(
                        "AZURE_STORAGE_CONNECTION_STRING is used, for the account {}; the account \
                         {} that is set in another variable is not",
                        options.account,
                        escaped(&other)
                    );
                }
                Ok(options)
            }
        }
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
    /// `url`: `https://HOST[:PORT][/ACCOUNT]`. Emulators have the account in the path; so must every
    /// host that is an IP address, `localhost` or a name without a dot. A host
    /// `ACCOUNT.blob.SUFFIX` is that of the account, and has no path. Defaults to
    /// `https://ACCOUNT.blob.core.windows.net`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `url` is not such a URL, holds a container,
    /// is that of another account or service, or of the secondary location.
    pub fn endpoint(mut self, url: &str) -> Result<Self, Error> {
        let endpoint = Endpoint::parse(url)?;
        endpoint.check(&self.account, true, &self.container)?;
        self.endpoint = endpoint;
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
    /// or a proxy with a certificate of a private CA, and for those who issue access tokens.
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

    /// `account`: the account's name, unless the endpoint alone names it. With a SAS, the service
    /// does not need it, and it is for messages.
    fn assemble(
        account: Option<String>,
        credential: Credential,
        endpoint: Endpoint,
        container: &str,
    ) -> Result<Self, Error> {
        check_container(container)?;
        let named = account.is_some();
        let account = account.unwrap_or_else(|| endpoint.account().to_owned());
        endpoint.check(&account, named, container)?;
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
        self.credential.check_valid(self.clock.wall())?;
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
                "refusing `{origin}`: an access token is sent over https only, since whoever reads it \
                 can use it; if this is an emulator, give it its account key"
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
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let url =
            secret::trim(url).map_err(|rule| Error::config(format!("invalid endpoint: {rule}")))?;
        // Not shown when it holds a query: that may be a SAS.
        if url.contains('?') {
            return Err(Error::config(
                "invalid endpoint: it has a query; pass a SAS as the credential instead",
            ));
        }
        let shown = escaped(url);
        let wrong = |rule: &str| Err(Error::config(format!("invalid endpoint `{shown}`: {rule}")));
        if url.contains('@') {
            return Err(Error::config(
                "invalid endpoint: it has a user name or password",
            ));
        }
        if url.contains(['#', '\\']) {
            return wrong("it has a character that a blob endpoint cannot have");
        }
        if let Some(mistake) = secret::mistake(url, Expected::Sas) {
            return Err(Error::config(format!("invalid endpoint: {mistake}")));
        }
        if !url.contains("://") && url.contains('.') {
            return wrong("`https://` in front of it is missing");
        }
        let Ok(uri) = url.parse::<Uri>() else {
            return wrong("use a URL such as https://account.blob.core.windows.net");
        };
        let scheme = uri.scheme_str().map(str::to_ascii_lowercase);
        let host = uri.host().map(str::to_ascii_lowercase);
        let (Some(scheme), Some(host)) = (scheme, host.filter(|host| !host.is_empty())) else {
            return wrong("use a URL such as https://account.blob.core.windows.net");
        };
        if !matches!(&*scheme, "http" | "https") {
            return wrong("use https, or http to this machine");
        }
        // What follows the host in an authority without a user is a port.
        let named = uri
            .authority()
            .is_some_and(|authority| authority.as_str().len() != host.len());
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
        let usual = if scheme == "https" { 443 } else { 80 };
        let port = uri.port_u16().filter(|port| *port != usual);
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        Ok(Self {
            origin: format!("{scheme}://{host}{port}"),
            base: base.to_owned(),
            secure: scheme == "https",
            loopback: is_loopback(&host),
        })
    }

    /// The account in the URL, for when none is named; at a domain of one's own, the first label of
    /// the host.
    pub(crate) fn account(&self) -> &str {
        let host = self.host();
        let label = host.split('.').next().unwrap_or_default();
        account_host::account(host, &self.base).unwrap_or(label)
    }

    /// Checks that it is the endpoint of `account`, and does not hold a container.
    fn check(&self, account: &str, named: bool, container: &str) -> Result<(), Error> {
        account_host::check(self.host(), &self.base, account, named, container).map_err(|rule| {
            let url = format!("{}{}", self.origin, self.base);
            Error::config(format!("invalid endpoint `{}`: {rule}", escaped(&url)))
        })
    }

    /// The host's name or address, without the port.
    fn host(&self) -> &str {
        let authority = self.origin.split("://").nth(1).unwrap_or_default();
        match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => host,
            _ => authority,
        }
    }
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
