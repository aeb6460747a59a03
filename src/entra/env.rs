//! The environment's variables, or a test's.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

use crate::error::Error;

/// Variables by name. An empty one counts as not set.
#[derive(Clone)]
pub(crate) struct Env(Option<Arc<BTreeMap<String, OsString>>>);

impl Env {
    /// The environment of this process, as it is at each look.
    pub(crate) fn system() -> Self {
        Self(None)
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn of<V: Into<OsString>>(
        variables: impl IntoIterator<Item = (&'static str, V)>,
    ) -> Self {
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()));
        Self(Some(Arc::new(variables.collect())))
    }

    pub(crate) fn os(&self, name: &str) -> Option<OsString> {
        let value = match &self.0 {
            None => env::var_os(name),
            Some(variables) => variables.get(name).cloned(),
        };
        value.filter(|value| !value.is_empty())
    }

    pub(crate) fn get(&self, name: &str) -> Result<Option<String>, Error> {
        self.os(name)
            .map(OsString::into_string)
            .transpose()
            .map_err(|_| Error::config(format!("invalid {name}: it is not UTF-8")))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.os(name).is_some()
    }

    /// The first of the variables that is set.
    pub(crate) fn first(&self, names: &[&str]) -> Result<Option<String>, Error> {
        names
            .iter()
            .find(|name| self.has(name))
            .map_or(Ok(None), |name| self.get(name))
    }

    /// The value of a variable that has to be set.
    pub(crate) fn need(&self, name: &str) -> Result<String, Error> {
        self.get(name)?
            .ok_or_else(|| Error::config(format!("{name} is not set")))
    }
}

/// Values may be secrets.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env")
    }
}
