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
use crate::output::{Failure, clean, warn};
use crate::secret_file;
use crate::sign_in;
use crate::value::bare;

/// The variables that hold the account's credential, or say where it is. Only azmutex needs them.
pub(crate) const CREDENTIALS: [&str; 11] = [
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_SAS",
    "AZMUTEX_KEY_FILE",
    "AZMUTEX_SAS_FILE",
    "AZMUTEX_CONNECTION_STRING_FILE",
    "AZMUTEX_CLIENT_SECRET_FILE",
    "AZMUTEX_CLIENT_CERTIFICATE",
];

/// The variables with the account's name.
const ACCOUNT: [&str; 2] = ["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"];

/// Those with a secret, by its kind. The first that is set is used.
const SECRETS: [(Auth, &[&str]); 3] = [
    (Auth::ConnectionString, &["AZURE_STORAGE_CONNECTION_STRING"]),
    (
        Auth::Key,
        &[
            "AZURE_STORAGE_KEY",
            "AZURE_STORAGE_ACCESS_KEY",
            "AZURE_STORAGE_ACCOUNT_KEY",
        ],
    ),
    (Auth::Sas, &["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS"]),
];

/// Variables of other programs that may hold what is missing, and the ones to set from them. They
/// are not read: their account may be another one.
const FOREIGN: [(&str, &str); 4] = [
    ("AzureWebJobsStorage", "AZURE_STORAGE_CONNECTION_STRING"),
    (
        "AZURE_STORAGEBLOB_CONNECTIONSTRING", // Service Connector
        "AZURE_STORAGE_CONNECTION_STRING",
    ),
    ("ARM_ACCESS_KEY", "AZURE_STORAGE_KEY"),
    ("ARM_SAS_TOKEN", "AZURE_STORAGE_SAS_TOKEN"),
];

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
    /// The lock as it was given, as an argument in a shell.
    pub(crate) word: String,
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
        let is_set = |name: &str| variable(name).is_ok_and(|value| value.is_some());
        let names = SECRETS.iter().flat_map(|(_, names)| names.iter().copied());
        names
            .filter(|name| **name != *used && is_set(name))
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
            let name = path.display().to_string();
            let option = origin(option, &name);
            let from = format!("{option} {}", clean(&name));
            warn_of_no_effect(None, &from, global);
            return Self::of(kind, secret_file::read(&option, path, limit, global)?, from);
        }
        if let Some(kind) = sign_in::named_by_options(global).filter(|_| auth == Auth::Auto) {
            let from = format!("the options of {}", sign_in::shown(kind));
            return Self::signed_in(kind, global, limit, from);
        }
        let mode = variable("AZURE_STORAGE_AUTH_MODE")?.unwrap_or_default();
        let mode = bare(&mode);
        if !["", "key", "login"]
            .iter()
            .any(|m| mode.eq_ignore_ascii_case(m))
        {
            return Err(Failure::new(
                Code::Config,
                "invalid AZURE_STORAGE_AUTH_MODE: it is `login` or `key`",
            ));
        }
        let prefers_login = mode.eq_ignore_ascii_case("login") && auth == Auth::Auto;
        for (kind, names) in SECRETS {
            if wants(kind)
                && !(kind == Auth::Key && prefers_login)
                && let Some((secret, name)) = first_of(names)?
            {
                warn_of_no_effect(None, &name, global);
                return Self::of(kind, Zeroizing::new(secret), name);
            }
        }
        let has_account = first_of(&ACCOUNT)?.is_some() || global.account.is_some();
        if auth == Auth::Auto && has_account && !mode.eq_ignore_ascii_case("key") {
            if let Some(text) = not_read() {
                warn(global, &text);
            }
            let from = "the environment".to_owned();
            return Self::signed_in(Auth::Entra, global, limit, from);
        }
        let (what, hint) = match auth {
            Auth::Auto => (
                "no credential for Azure Storage",
                "set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT, optionally with \
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
        let mut failure = Failure::new(Code::Config, what).hint(hint);
        if let Some(text) = not_read() {
            failure = failure.hint(text);
        }
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
        let secret = |option: &str, path: &Path| secret_file::read(option, path, limit, global);
        warn_of_no_effect(Some(auth), &from, global);
        let credential = sign_in::credential(auth, global, secret, variable)?;
        Ok(Self::Credential(credential, from))
    }

    fn of(kind: Auth, secret: Zeroizing<String>, from: String) -> Result<Self, Failure> {
        let credential = match kind {
            Auth::Auto | Auth::ConnectionString => {
                return Ok(Self::ConnectionString(secret, from));
            }
            Auth::Key => Credential::shared_key(&secret),
            _ => Credential::sas(&secret),
        };
        credential
            .map_err(|error| Failure::new(Code::Config, format!("{from}: {}", rule_of(&error))))
            .map(|credential| Self::Credential(credential, from))
    }
}

/// Names the options for signing in that are not used.
fn warn_of_no_effect(auth: Option<Auth>, from: &str, global: &Global) {
    let options = sign_in::without_effect(auth, global);
    if !options.is_empty() {
        let options = options.join(", ");
        warn(
            global,
            &format!("no effect with the credential of {from}: {options}"),
        );
    }
}

/// What to do with a variable of another program that may hold what is missing.
fn not_read() -> Option<String> {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let (foreign, ours) = FOREIGN.iter().find(|(name, _)| is_set(name))?;
    Some(format!(
        "{foreign} is set, but not read; to use it, set {ours} to its value"
    ))
}

/// Where an option's value came from: the command line, or its variable.
fn origin(option: &str, value: &str) -> String {
    let variable = format!(
        "AZMUTEX_{}",
        option
            .trim_start_matches('-')
            .replace('-', "_")
            .to_ascii_uppercase()
    );
    let with_value = format!("{option}=");
    let is_given = env::args_os().any(|arg| {
        let arg = arg.to_string_lossy();
        arg == option || arg.starts_with(&with_value)
    });
    match env::var(&variable) {
        Ok(set) if set == value && !is_given => variable,
        _ => option.to_owned(),
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

/// The value of the first of these variables that is set, and its name. Others must not contradict
/// it.
fn first_of(names: &[&str]) -> Result<Option<(String, String)>, Failure> {
    let mut found: Option<(String, String)> = None;
    for name in names {
        let Some(value) = variable(name)? else {
            continue;
        };
        match &found {
            None => found = Some((value, (*name).to_owned())),
            Some((known, _)) if bare(known) == bare(&value) => {}
            Some((_, other)) => {
                return Err(Failure::new(
                    Code::Config,
                    format!("{other} and {name} have different values"),
                )
                .hint("unset one of them"));
            }
        }
    }
    Ok(found)
}

/// A variable that is set, and not empty but for what env files leave.
fn variable(name: &str) -> Result<Option<String>, Failure> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !bare(value).is_empty())),
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
