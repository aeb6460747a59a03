//! The credential: from flags, files and variables, or by signing in.

use std::path::{Path, PathBuf};
#[cfg(feature = "emulator")]
use std::sync::Arc;
use std::time::Duration;

use azmutex::{Credential, Error};
use zeroize::Zeroizing;

use crate::args::{Auth, Global};
use crate::exit::Code;
use crate::output::{Failure, clean, warn};
use crate::secret_file;
use crate::sign_in::{self, named_by_options};
use crate::value::bare;
use crate::variables::{
    self, ACCOUNT, CONNECTION_STRING, KEY, SAS, first_of, not_read, origin, variable,
};

/// The variables with a secret, by its kind. The first that is set is used.
const SECRETS: [(Auth, &[&str]); 3] = [
    (Auth::ConnectionString, &CONNECTION_STRING),
    (Auth::Key, &KEY),
    (Auth::Sas, &SAS),
];

/// The credential, and where it came from.
pub(crate) enum Source {
    ConnectionString(Zeroizing<String>, String),
    Credential(Credential, String),
    #[cfg(feature = "emulator")]
    Emulator(Arc<azmutex::emulator::Emulator>),
}

impl Source {
    pub(crate) fn find(global: &Global, limit: Duration) -> Result<Self, Failure> {
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
        let files = files(global);
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
        if let Some(kind) = named_by_options(global).filter(|_| auth == Auth::Auto) {
            let from = format!("the options of {}", sign_in::shown(kind));
            return Self::signed_in(kind, global, limit, from);
        }
        let mode = mode()?;
        let prefers_login = mode == "login" && auth == Auth::Auto;
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
        if auth == Auth::Auto && has_account && mode != "key" {
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

/// The options with the name of a file with a secret, by its kind.
fn files(global: &Global) -> [(Auth, &'static str, &Option<PathBuf>); 3] {
    [
        (
            Auth::ConnectionString,
            "--connection-string-file",
            &global.connection_string_file,
        ),
        (Auth::Key, "--key-file", &global.key_file),
        (Auth::Sas, "--sas-file", &global.sas_file),
    ]
}

/// What AZURE_STORAGE_AUTH_MODE says: `login`, `key` or nothing.
fn mode() -> Result<String, Failure> {
    let mode = variable("AZURE_STORAGE_AUTH_MODE")?.unwrap_or_default();
    let mode = bare(&mode).to_ascii_lowercase();
    match &*mode {
        "" | "key" | "login" => Ok(mode),
        _ => Err(Failure::new(
            Code::Config,
            "invalid AZURE_STORAGE_AUTH_MODE: it is `login` or `key`",
        )),
    }
}

/// The kind of credential that [`Source::find`] looks for, whether or not it is there and valid.
pub(crate) fn kind(global: &Global) -> Result<Auth, Failure> {
    if global.auth != Auth::Auto {
        return Ok(global.auth);
    }
    let file = files(global).into_iter().find(|(.., path)| path.is_some());
    if let Some(kind) = file
        .map(|(kind, ..)| kind)
        .or_else(|| named_by_options(global))
    {
        return Ok(kind);
    }
    let prefers_login = mode()? == "login";
    let is_set = |names: &[&str]| names.iter().any(|name| variables::is_set(name));
    let mut secrets = SECRETS.into_iter();
    let secret =
        secrets.find(|(kind, names)| !(*kind == Auth::Key && prefers_login) && is_set(names));
    Ok(secret.map_or(Auth::Entra, |(kind, _)| kind))
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

/// The text of an error, for a terminal.
pub(crate) fn rule_of(error: &Error) -> String {
    clean(&error.to_string())
}
