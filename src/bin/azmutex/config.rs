//! Where the locks are: from flags, then from the environment. There is no configuration file.

use std::cell::RefCell;
#[cfg(feature = "emulator")]
use std::sync::Arc;
use std::time::Duration;

use azmutex::{AzureMutex, Error, ErrorKind, Lease, LeaseId, LeaseStatus, MutexOptions};
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::args::{Create, Global};
use crate::exit::Code;
use crate::files;
use crate::output::{Failure, clean, warn};
use crate::source::{Source, rule_of};
use crate::variables::{self, ACCOUNT, first_of, origin};

/// The most that is read of a file with certificates; a whole system's have a quarter of it.
const MAX_CERTIFICATES: u64 = 1024 * 1024;

/// Account, endpoint and credential, before a container is chosen.
pub(crate) struct Config {
    container: String,
    /// The account that is named by itself, and where.
    account: Option<(String, String)>,
    /// An endpoint that is set, and where.
    endpoint: Option<(String, String)>,
    source: Source,
    /// Whether warnings are shown.
    global: Global,
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

/// A lock that a command works on.
#[derive(Debug, Clone)]
pub(crate) struct Lock {
    pub(crate) mutex: AzureMutex,
    /// The blob's name.
    pub(crate) key: String,
    /// The name as a terminal can show it.
    pub(crate) name: String,
    /// The lock as it was given, as an argument in a shell.
    pub(crate) word: String,
    /// The blob's URL, without a query.
    pub(crate) url: String,
    /// With `--emulator`, keeps it running for as long as the lock is in use.
    #[cfg(feature = "emulator")]
    _emulator: Option<Arc<azmutex::emulator::Emulator>>,
}

impl Lock {
    /// What the service says of it; `None` if there is no such blob or container.
    pub(crate) fn status(&self) -> Result<Option<LeaseStatus>, Failure> {
        match self.mutex.status(&self.key) {
            Ok(status) => Ok(Some(status)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The lock that is one of the permits of this one.
    pub(crate) fn slot(&self, slot: u32) -> Self {
        let slot = format!(".slot{slot}");
        Self {
            key: format!("{}{slot}", self.key),
            name: format!("{}{slot}", self.name),
            word: crate::text::shell_argument(&format!("{}{slot}", self.key)),
            url: format!("{}{slot}", self.url),
            ..self.clone()
        }
    }
}

impl Config {
    /// Reads flags, files and variables. Sends nothing.
    pub(crate) fn load(global: &Global) -> Result<Self, Failure> {
        Self::load_within(global, global.request_timeout)
    }

    /// The file with certificates that are trusted, too.
    pub(crate) fn ca_file(&self) -> Option<&str> {
        self.ca_file.as_ref().map(|(name, _)| name.as_str())
    }

    /// Like [`Config::load`], but waits for a file that is a named pipe for at most `limit`.
    pub(crate) fn load_within(global: &Global, limit: Duration) -> Result<Self, Failure> {
        let source = Source::find(global, limit)?;
        let option = |option: &str, value: &Option<String>| {
            let value = value.clone().filter(|value| !value.is_empty())?;
            let from = origin(option, &value);
            Some((value.trim().to_owned(), from))
        };
        let ca_file = global.ca_file.as_ref().map(|path| {
            let path_text = path.display().to_string();
            let name = format!("{} {}", origin("--ca-file", &path_text), clean(&path_text));
            files::open(path)
                .and_then(|file| files::read(&file, MAX_CERTIFICATES, limit))
                .map_err(|error| Failure::new(Code::Config, format!("{name}: {error}")))
                .map(|pem| (name, pem))
        });
        // A connection string names its own account.
        let account = match (option("--account", &global.account), &source) {
            (Some(account), _) => Some(account),
            (None, Source::Credential(..)) => first_of(&ACCOUNT)?,
            (None, _) => None,
        };
        Ok(Self {
            container: global.container.clone(),
            account,
            endpoint: option("--endpoint", &global.endpoint),
            source,
            global: global.clone(),
            ca_file: ca_file.transpose()?,
            allow_insecure_http: global.allow_insecure_http,
            request_timeout: global.request_timeout,
            clients: RefCell::default(),
        })
    }

    /// Where the account's name came from.
    pub(crate) fn account_from(&self) -> String {
        match &self.account {
            Some((_, from)) => from.clone(),
            None => self.credential().1,
        }
    }

    /// Where the endpoint came from.
    pub(crate) fn endpoint_from(&self) -> String {
        match (&self.endpoint, &self.source) {
            (Some((_, from)), _) => from.clone(),
            (None, Source::Credential(..)) => "the account's name".to_owned(),
            (None, _) => self.credential().1,
        }
    }

    /// The variables with secrets that are set but not used.
    pub(crate) fn unused(&self) -> Vec<&'static str> {
        let (_, used) = self.credential();
        variables::secrets()
            .filter(|name| **name != *used && variables::is_set(name))
            .collect()
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
            word: crate::text::shell_argument(text),
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
            && let Some((account, _)) = &self.account
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
        if let Source::ConnectionString(_, from) = &self.source
            && self.account.is_none()
            && let Some((account, name)) = first_of(&ACCOUNT)?
            && mutex.account() != account
        {
            let used = clean(mutex.account());
            warn(
                &self.global,
                &format!(
                    "{from} is used, for the account {used}; {name}, which names {}, is not",
                    clean(&account)
                ),
            );
        }
        clients.push((place, mutex.clone()));
        Ok(mutex)
    }

    fn options(&self, container: &str) -> Result<MutexOptions, Failure> {
        check_container(container)?;
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
                let Some((account, _)) = &self.account else {
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
            Some((url, _)) => options.endpoint(url).map_err(|error| {
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
    pub(crate) fn endpoint(&self) -> Result<String, Failure> {
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
        let below = normal(text);
        let below = below
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

/// Checks the name of a container.
pub(crate) fn check_container(name: &str) -> Result<(), Failure> {
    match MutexOptions::development(name) {
        Ok(_) => Ok(()),
        // Only the container's name can be wrong here.
        Err(error) => Err(Failure::usage(rule_of(&error))
            .hint("set it with --container or AZMUTEX_CONTAINER, or pass a full URL as LOCK")),
    }
}

/// A URL with its scheme and host as endpoints are written: in lower case, without the usual port.
fn normal(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (scheme, at) = (
        scheme.to_ascii_lowercase(),
        rest.find('/').unwrap_or(rest.len()),
    );
    let (host, path) = rest.split_at(at);
    let usual = if scheme == "http" { ":80" } else { ":443" };
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix(usual).unwrap_or(&host);
    format!("{scheme}://{host}{path}")
}

fn shown(text: &str) -> String {
    let text = clean(text);
    let mut out: String = text.chars().take(64).collect();
    if text.chars().nth(64).is_some() {
        out.push('…');
    }
    format!("\"{out}\"")
}
