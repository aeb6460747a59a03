//! PURE: which of the environment's variables are used.

use crate::azure::credential::Credential;
use crate::azure::secret::unquoted;
use crate::error::Error;

const ACCOUNT: [&str; 2] = ["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"];
const KEY: [&str; 3] = [
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_ACCOUNT_KEY",
];
const SAS: [&str; 2] = ["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS"];

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

/// What the environment names. May hold a secret.
pub(super) enum Named {
    /// A connection string, and an account that was named next to it.
    ConnectionString(String, Option<String>),
    Account(String, Credential),
    /// An account without a secret: the identity of this place signs in.
    SignIn(String),
}

/// Reads the variables. `var`: the value of a variable that is set. One that is empty, but for the
/// quotes and line ends that env files leave, counts as not set.
pub(super) fn read(var: impl Fn(&str) -> Result<Option<String>, Error>) -> Result<Named, Error> {
    let var = |name: &str| Ok(var(name)?.filter(|value| !unquoted(value).is_empty()));
    let account = first(&ACCOUNT, &var)?;
    if let Some(text) = var("AZURE_STORAGE_CONNECTION_STRING")? {
        return Ok(Named::ConnectionString(text, account.map(|(_, name)| name)));
    }
    let mode = var("AZURE_STORAGE_AUTH_MODE")?.map(|mode| unquoted(&mode).to_ascii_lowercase());
    if !matches!(mode.as_deref(), None | Some("key" | "login")) {
        return Err(Error::config(
            "invalid AZURE_STORAGE_AUTH_MODE: it is `login` or `key`",
        ));
    }
    let is = |wanted| mode.as_deref() == Some(wanted);
    let key = first(&KEY, &var)?.filter(|_| !is("login"));
    let named = |error: Error, name: &str| Error::config(format!("{name}: {error}"));
    let credential = match key {
        Some((name, key)) => Some(Credential::shared_key(&key).map_err(|e| named(e, name))?),
        None => match first(&SAS, &var)? {
            Some((name, token)) => Some(Credential::sas(&token).map_err(|e| named(e, name))?),
            None => None,
        },
    };
    let missing = match (account, credential) {
        (Some((_, account)), Some(credential)) => {
            return Ok(Named::Account(account, credential));
        }
        (Some((_, account)), None) if !is("key") => return Ok(Named::SignIn(account)),
        (None, _) => {
            "no storage account in the environment: set AZURE_STORAGE_CONNECTION_STRING, or \
             AZURE_STORAGE_ACCOUNT, optionally with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN"
                .to_owned()
        }
        (Some((name, _)), None) => {
            format!(
                "{name} is set, but neither AZURE_STORAGE_KEY nor AZURE_STORAGE_SAS_TOKEN is, and \
                 AZURE_STORAGE_AUTH_MODE is `key`"
            )
        }
    };
    for (foreign, ours) in FOREIGN {
        if var(foreign)?.is_some() {
            return Err(Error::config(format!(
                "{missing} ({foreign} is set, but not read; to use it, set {ours} to its value)"
            )));
        }
    }
    Err(Error::config(missing))
}

/// The first of these names that is set, and its value.
///
/// # Errors
///
/// If another of them has another value: which one is meant is not for us to guess.
fn first<'a>(
    names: &[&'a str],
    var: &impl Fn(&str) -> Result<Option<String>, Error>,
) -> Result<Option<(&'a str, String)>, Error> {
    let mut found: Option<(&str, String)> = None;
    for name in names {
        let Some(value) = var(name)? else { continue };
        match &found {
            None => found = Some((name, value)),
            Some((_, known)) if unquoted(known) == unquoted(&value) => {}
            Some((other, _)) => {
                return Err(Error::config(format!(
                    "{other} and {name} have different values: unset one of them"
                )));
            }
        }
    }
    Ok(found)
}
