//! Where the locks are, and the credential: from flags, then from the environment. There is no
//! configuration file.

use std::cell::RefCell;
use std::env;
use std::path::Path;
#[cfg(feature = "emulator")]
use std::sync::Arc;
use std::time::Duration;

use azmutex::{AzureMutex, Credential, Error, ErrorKind, Lease, LeaseId, MutexOptions};
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::args::{Auth, Create, Global};
use crate::exit::Code;
use crate::files;
use crate::output::{Failure, clean};
use crate::sign_in;

/// The variables that hold the account's credential, or say where it is. Only azmutex needs them.
pub(crate) const CREDENTIALS: [&str; 8] = [
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZMUTEX_KEY_FILE",
    "AZMUTEX_SAS_FILE",
    "AZMUTEX_CONNECTION_STRING_FILE",
    "AZMUTEX_CLIENT_SECRET_FILE",
    "AZMUTEX_CLIENT_CERTIFICATE",
];

/// The most that a file with a secret may hold.
const MAX_SECRET: u64 = 64 * 1024;

/// The most that is read of a file with certificates; a whole system's have a quarter of it.
const MAX_CERTIFICATES: u64 = 1024 * 1024;

/// Account, endpoint and credential, before a container is chosen.
pub(crate) struct Config {
    container: String,
    account: Option<String>,
    endpoint: Option<String>,
    source: Source,
    ca_file: Option<(String, Zeroizing<Vec<u8>>)>,
    allow_insecure_http: bool,
    request_timeout: Duration,
    /// Clients made so far, with what they were made for.
    clients: RefCell<Vec<(Place, AzureMutex)>>,
}

#[derive(Clone, PartialEq, Eq)]
struct Place {
    container: String,
    create: Create,
}

/// The credential, and where it came from.
enum Source {
    ConnectionString(Zeroizing<String>, String),
    Credential(Credential, String),
    #[cfg(feature = "emulator")]
    Emulator(Arc<azmutex::emulator::Emulator>),
}

/// A lock that a command works on.
#[derive(Debug, Clone)]
pub(crate) struct Lock {
    pub(crate) mutex: AzureMutex,
    /// The blob's name.
    pub(crate) key: String,
    /// The name as a terminal can show it.
    pub(crate) name: String,
    /// The blob's URL, without a query.
    pub(crate) url: String,
    /// With `--emulator`, keeps it running for as long as the lock is in use.
    #[cfg(feature = "emulator")]
    _emulator: Option<Arc<azmutex::emulator::Emulator>>,
}

impl Config {
    /// Reads flags, files and variables. Sends nothing.
    pub(crate) fn load(global: &Global) -> Result<Self, Failure> {
        Self::load_within(global, global.request_timeout)
    }

    /// Like [`Config::load`], but waits for a file that is a named pipe for at most `limit`.
    pub(crate) fn load_within(global: &Global, limit: Duration) -> Result<Self, Failure> {
        let source = Source::find(global, limit)?;
        let ca_file = global.ca_file.as_ref().map(|path| {
            let name = format!("--ca-file {}", clean(&path.display().to_string()));
            files::open(path)
                .and_then(|file| files::read_bytes(&file, MAX_CERTIFICATES, limit))
                .map_err(|error| Failure::new(Code::Config, format!("{name}: {error}")))
                .map(|pem| (name, pem))
        });
        // A connection string names its own account.
        let account = match (&global.account, &source) {
            (Some(account), _) => Some(account.clone()),
            (None, Source::Credential(..)) => variable("AZURE_STORAGE_ACCOUNT")?,
            (None, _) => None,
        };
        Ok(Self {
            container: global.container.clone(),
            account: account.filter(|account| !account.is_empty()),
            endpoint: global.endpoint.clone().filter(|url| !url.is_empty()),
            source,
            ca_file: ca_file.transpose()?,
            allow_insecure_http: global.allow_insecure_http,
            request_timeout: global.request_timeout,
            clients: RefCell::default(),
        })
    }

    /// What kind of credential is used, and where it came from.
    pub(crate) fn credential(&self) -> (String, String) {
        match &self.source {
            Source::ConnectionString(_, from) => ("connection string".to_owned(), from.clone()),
            Source::Credential(credential, from) => {
                // Such as `Credential(account key)`; it never shows the secret.
                let shown = format!("{credential:?}");
                let kind = shown
                    .trim_start_matches("Credential(")
                    .trim_end_matches(')');
                (kind.to_owned(), from.clone())
            }
            #[cfg(feature = "emulator")]
            Source::Emulator(_) => ("account key".to_owned(), "--emulator".to_owned()),
        }
    }

    /// A client of the container that the options name.
    pub(crate) fn mutex(&self) -> Result<AzureMutex, Failure> {
        self.client(&self.container, Create::Auto)
    }

    /// The lock that an argument names: a blob name, or a URL.
    pub(crate) fn lock(&self, text: &str, create: Create) -> Result<Lock, Failure> {
        let (mutex, key) = if text.contains("://") {
            let (container, key) = self.parse_url(text)?;
            (self.client(&container, create)?, key)
        } else {
            (self.client(&self.container, create)?, text.to_owned())
        };
        if let Err(error) = LeaseId::random().and_then(|id| Lease::new(&key, id)) {
            let rule = error.to_string();
            let rule = rule.split_once(": ").map_or(&*rule, |(_, rule)| rule);
            return Err(Failure::usage(format!("LOCK {}: {rule}", shown(text)))
                .hint("a lock is named as a blob: e.g. deploy or prod/deploy"));
        }
        Ok(Lock {
            url: mutex.url(&key),
            name: clean(&key),
            mutex,
            key,
            #[cfg(feature = "emulator")]
            _emulator: match &self.source {
                Source::Emulator(emulator) => Some(Arc::clone(emulator)),
                _ => None,
            },
        })
    }

    fn client(&self, container: &str, create: Create) -> Result<AzureMutex, Failure> {
        let place = Place {
            container: container.to_owned(),
            create,
        };
        let mut clients = self.clients.borrow_mut();
        if let Some((_, mutex)) = clients.iter().find(|(known, _)| *known == place) {
            return Ok(mutex.clone());
        }
        let options = self.options(container)?;
        let options = options
            .create_missing(create == Create::Auto)
            .request_timeout(self.request_timeout);
        let mutex = AzureMutex::new(options).map_err(|error| self.refused(error))?;
        if let Source::ConnectionString(..) = &self.source
            && let Some(account) = &self.account
            && mutex.account() != account
        {
            return Err(Failure::new(
                Code::Config,
                format!(
                    "the {} is for account {}, not {}",
                    self.credential().0,
                    clean(mutex.account()),
                    clean(account)
                ),
            )
            .hint("leave --account out, or choose another credential with --auth"));
        }
        clients.push((place, mutex.clone()));
        Ok(mutex)
    }

    fn options(&self, container: &str) -> Result<MutexOptions, Failure> {
        // Only the container's name can be wrong here.
        if let Err(error) = MutexOptions::development(container) {
            return Err(Failure::usage(rule_of(&error))
                .hint("set it with --container or AZMUTEX_CONTAINER, or pass a full URL as LOCK"));
        }
        let options = match &self.source {
            #[cfg(feature = "emulator")]
            Source::Emulator(emulator) => {
                return emulator.options(container).map_err(Failure::from);
            }
            Source::ConnectionString(text, from) => {
                MutexOptions::from_connection_string(text, container).map_err(|error| {
                    Failure::new(Code::Config, format!("{from}: {}", rule_of(&error)))
                })?
            }
            Source::Credential(credential, _) => {
                let Some(account) = &self.account else {
                    return Err(Failure::new(Code::Config, "no storage account is given")
                        .hint("set AZURE_STORAGE_ACCOUNT, or pass --account NAME"));
                };
                MutexOptions::with_credential(account, credential.clone(), container).map_err(
                    |error| {
                        Failure::usage(rule_of(&error)).hint(
                            "set it with --account or AZURE_STORAGE_ACCOUNT; for another host, use \
                             --endpoint",
                        )
                    },
                )?
            }
        };
        let options = match &self.endpoint {
            Some(url) => options.endpoint(url).map_err(|error| {
                Failure::usage(rule_of(&error)).hint("set it with --endpoint or AZMUTEX_ENDPOINT")
            })?,
            None => options,
        };
        let options = options.allow_insecure_http(self.allow_insecure_http);
        match &self.ca_file {
            Some((name, pem)) => options.ca_certificates(pem).map_err(|error| {
                Failure::new(Code::Config, format!("{name}: {}", rule_of(&error)))
            }),
            None => Ok(options),
        }
    }

    /// The endpoint that is configured.
    fn endpoint(&self) -> Result<String, Failure> {
        let mutex = self.mutex()?;
        let url = mutex.url("x");
        let end = format!("/{}/x", mutex.container());
        Ok(url.strip_suffix(&end).unwrap_or(&url).to_owned())
    }

    fn parse_url(&self, text: &str) -> Result<(String, String), Failure> {
        // Not shown if it may hold a SAS.
        if text.contains('?') {
            let signed = text.to_ascii_lowercase().contains("sig=");
            return Err(if signed {
                Failure::usage(
                    "LOCK: the URL holds a SAS, which others can see on the command line",
                )
                .hint("put the SAS in AZURE_STORAGE_SAS_TOKEN or --sas-file")
            } else {
                Failure::usage("LOCK: a lock's URL cannot have a query")
                    .hint("leave out `?` and the rest")
            });
        }
        let wrong = |rule: &str| {
            Failure::usage(format!("LOCK {}: {rule}", shown(text)))
                .hint("e.g. https://acct.blob.core.windows.net/locks/deploy, or a blob name")
        };
        if text.contains('@') || text.contains('#') {
            return Err(wrong("a lock's URL cannot have a user or a fragment"));
        }
        let Some((_, rest)) = text
            .split_once("://")
            .filter(|(_, rest)| rest.contains('/'))
        else {
            return Err(wrong("it has no container and no blob"));
        };
        // Never send a credential to a host other than its own, which the URL alone cannot name.
        if self.account.is_none() && matches!(self.source, Source::Credential(..)) {
            let host = rest.split('/').next().unwrap_or_default();
            return Err(Failure::new(
                Code::Config,
                format!(
                    "LOCK {}: no storage account is given, so the credential is not sent to {}",
                    shown(text),
                    shown(host)
                ),
            )
            .hint("if it is yours: set AZURE_STORAGE_ACCOUNT, or pass --account NAME"));
        }
        let endpoint = self.endpoint()?;
        let below = text
            .strip_prefix(&*endpoint)
            .and_then(|rest| rest.strip_prefix('/'));
        let Some(path) = below else {
            return Err(Failure::usage(format!(
                "LOCK {}: it is not at the endpoint in use, {}",
                shown(text),
                clean(&endpoint)
            ))
            .hint("pass its account and credential: --account, --endpoint, --key-file, ..."));
        };
        let Some((container, key)) = path.split_once('/').filter(|(_, key)| !key.is_empty()) else {
            return Err(wrong("it has a container but no blob"));
        };
        let key = percent_decode_str(key)
            .decode_utf8()
            .map_err(|_| wrong("its name is not UTF-8"))?;
        Ok((container.to_owned(), key.into_owned()))
    }

    /// What the library refuses once everything is known: an expired credential, plain http, no
    /// TLS.
    fn refused(&self, error: Error) -> Failure {
        match error.kind() {
            ErrorKind::Config => Failure::new(Code::Config, rule_of(&error)),
            _ => error.into(),
        }
    }
}

impl Source {
    fn find(global: &Global, limit: Duration) -> Result<Self, Failure> {
        #[cfg(feature = "emulator")]
        if global.emulator {
            return azmutex::emulator::Emulator::start()
                .map(|emulator| Self::Emulator(Arc::new(emulator)))
                .map_err(|error| {
                    Failure::new(Code::Bug, format!("cannot start the emulator: {error}"))
                });
        }
        let auth = global.auth;
        if !matches!(
            auth,
            Auth::Auto | Auth::Key | Auth::Sas | Auth::ConnectionString
        ) {
            let from = format!("--auth {}", sign_in::shown(auth));
            return Self::signed_in(auth, global, limit, from);
        }
        let wants = |kind| auth == Auth::Auto || auth == kind;
        let files = [
            (
                Auth::ConnectionString,
                "--connection-string-file",
                &global.connection_string_file,
            ),
            (Auth::Key, "--key-file", &global.key_file),
            (Auth::Sas, "--sas-file", &global.sas_file),
        ];
        let mut given = files
            .iter()
            .filter(|(kind, ..)| wants(*kind))
            .filter_map(|(kind, option, path)| Some((*kind, *option, path.as_ref()?)));
        if let Some((kind, option, path)) = given.next() {
            if let Some((_, other, _)) = given.next() {
                return Err(Failure::usage(format!("{option} and {other}: use one"))
                    .hint("or choose with --auth"));
            }
            let from = format!("{option} {}", clean(&path.display().to_string()));
            return Self::of(kind, read_secret(option, path, limit)?, from);
        }
        if let Some(kind) = sign_in::named_by_options(global).filter(|_| auth == Auth::Auto) {
            let from = format!("the options of {}", sign_in::shown(kind));
            return Self::signed_in(kind, global, limit, from);
        }
        let mode = variable("AZURE_STORAGE_AUTH_MODE")?.unwrap_or_default();
        let prefers_login = mode.eq_ignore_ascii_case("login") && auth == Auth::Auto;
        let variables = [
            (Auth::ConnectionString, "AZURE_STORAGE_CONNECTION_STRING"),
            (Auth::Key, "AZURE_STORAGE_KEY"),
            (Auth::Sas, "AZURE_STORAGE_SAS_TOKEN"),
        ];
        for (kind, name) in variables {
            if wants(kind)
                && !(kind == Auth::Key && prefers_login)
                && let Some(secret) = variable(name)?
            {
                return Self::of(kind, Zeroizing::new(secret), name.to_owned());
            }
        }
        let has_account = variable("AZURE_STORAGE_ACCOUNT")?.is_some() || global.account.is_some();
        if auth == Auth::Auto && has_account && !mode.eq_ignore_ascii_case("key") {
            let from = "the environment".to_owned();
            return Self::signed_in(Auth::Entra, global, limit, from);
        }
        let (what, hint) = match auth {
            Auth::Auto => (
                "no credential for Azure Storage",
                "set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT, if need be with \
                 AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or pass --key-file, --sas-file, \
                 --connection-string-file or --auth",
            ),
            Auth::Key => (
                "--auth key: there is no account key",
                "set AZURE_STORAGE_KEY, or pass --key-file",
            ),
            Auth::Sas => (
                "--auth sas: there is no SAS token",
                "set AZURE_STORAGE_SAS_TOKEN, or pass --sas-file",
            ),
            _ => (
                "--auth connection-string: there is no connection string",
                "set AZURE_STORAGE_CONNECTION_STRING, or pass --connection-string-file",
            ),
        };
        let failure = Failure::new(Code::Config, what).hint(hint);
        Err(if cfg!(feature = "emulator") {
            failure.hint("to try it without an account: --emulator")
        } else {
            failure
        })
    }

    fn signed_in(
        auth: Auth,
        global: &Global,
        limit: Duration,
        from: String,
    ) -> Result<Self, Failure> {
        let secret = |option: &str, path: &Path| read_secret(option, path, limit);
        let credential = sign_in::credential(auth, global, secret, variable)?;
        Ok(Self::Credential(credential, from))
    }

    fn of(kind: Auth, secret: Zeroizing<String>, from: String) -> Result<Self, Failure> {
        let credential = match kind {
            Auth::Auto | Auth::ConnectionString => {
                let text = Zeroizing::new(secret.trim().to_owned());
                return Ok(Self::ConnectionString(text, from));
            }
            Auth::Key => Credential::shared_key(&secret),
            _ => Credential::sas(&secret),
        };
        credential
            .map_err(|error| Failure::new(Code::Config, format!("{from}: {}", rule_of(&error))))
            .map(|credential| Self::Credential(credential, from))
    }
}

/// Reads a secret from a file that nobody else can read.
fn read_secret(option: &str, path: &Path, limit: Duration) -> Result<Zeroizing<String>, Failure> {
    let name = clean(&path.display().to_string());
    let failed = |why: &str| Failure::new(Code::Config, format!("{option} {name}: {why}"));
    let file = files::open(path).map_err(|error| failed(&error.to_string()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;

        let metadata = file
            .metadata()
            .map_err(|error| failed(&error.to_string()))?;
        if metadata.is_dir() {
            return Err(failed("it is a directory"));
        }
        // Checks the file that was opened, not whatever has the name now.
        if metadata.mode() & 0o077 != 0 {
            let mode = metadata.mode() & 0o777;
            let why = format!("others can read this secret (mode {mode:03o})");
            return Err(failed(&why).hint(format!("chmod 600 {name}")));
        }
    }
    let text = Zeroizing::new(
        files::read(&file, MAX_SECRET + 1, limit).map_err(|error| failed(&error.to_string()))?,
    );
    if text.len() as u64 > MAX_SECRET {
        return Err(failed("it is larger than 64 KiB"));
    }
    if text.trim().is_empty() {
        return Err(failed("it is empty"));
    }
    Ok(text)
}

/// A variable that is set and not empty.
fn variable(name: &str) -> Result<Option<String>, Failure> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(Failure::new(
            Code::Config,
            format!("{name}: it is not UTF-8"),
        )),
    }
}

fn rule_of(error: &Error) -> String {
    clean(&error.to_string())
}

fn shown(text: &str) -> String {
    let text = clean(text);
    let mut out: String = text.chars().take(64).collect();
    if text.chars().nth(64).is_some() {
        out.push('…');
    }
    format!("\"{out}\"")
}
