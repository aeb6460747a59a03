//! The environment's variables that name the account and its credential.

use std::env;

use crate::exit::Code;
use crate::output::Failure;
use crate::value::bare;

/// The account's name. These names are the library's too; a test compares them.
pub(crate) const ACCOUNT: [&str; 2] = ["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"];
pub(crate) const CONNECTION_STRING: [&str; 1] = ["AZURE_STORAGE_CONNECTION_STRING"];
pub(crate) const KEY: [&str; 3] = [
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_ACCOUNT_KEY",
];
pub(crate) const SAS: [&str; 2] = ["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS"];

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

/// Where files with a credential are.
const FILES: [&str; 5] = [
    "AZMUTEX_KEY_FILE",
    "AZMUTEX_SAS_FILE",
    "AZMUTEX_CONNECTION_STRING_FILE",
    "AZMUTEX_CLIENT_SECRET_FILE",
    "AZMUTEX_CLIENT_CERTIFICATE",
];

/// The variables that hold a secret of the account.
pub(crate) fn secrets() -> impl Iterator<Item = &'static str> {
    [&CONNECTION_STRING[..], &KEY, &SAS].concat().into_iter()
}

/// The variables that hold the account's credential, or say where it is. Only azmutex needs them.
pub(crate) fn credentials() -> impl Iterator<Item = &'static str> {
    secrets().chain(FILES)
}

/// What to do with a variable of another program that may hold what is missing.
pub(crate) fn not_read() -> Option<String> {
    let (foreign, ours) = FOREIGN.iter().find(|(name, _)| is_set(name))?;
    Some(format!(
        "{foreign} is set, but not read; to use it, set {ours} to its value"
    ))
}

/// Where an option's value came from: the command line, or its variable.
pub(crate) fn origin(option: &str, value: &str) -> String {
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

/// The value of the first of these variables that is set, and its name. Others must not contradict
/// it.
pub(crate) fn first_of(names: &[&str]) -> Result<Option<(String, String)>, Failure> {
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
pub(crate) fn variable(name: &str) -> Result<Option<String>, Failure> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !bare(value).is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(Failure::new(
            Code::Config,
            format!("{name}: it is not UTF-8"),
        )),
    }
}

pub(crate) fn is_set(name: &str) -> bool {
    variable(name).is_ok_and(|value| value.is_some())
}
