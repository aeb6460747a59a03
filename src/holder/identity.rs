//! Who this process is: the default name of a holder.

use std::env;

/// `user@host`, or whichever of them is known.
pub(crate) fn default_owner() -> Option<String> {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let user = set("USER")
        .or_else(|| set("LOGNAME"))
        .or_else(|| set("USERNAME"));
    match (user, host()) {
        (Some(user), Some(host)) => Some(format!("{user}@{host}")),
        (user, host) => user.or(host),
    }
}

#[cfg(unix)]
fn host() -> Option<String> {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    Some(name).filter(|name| !name.is_empty())
}

#[cfg(not(unix))]
fn host() -> Option<String> {
    env::var("COMPUTERNAME")
        .ok()
        .filter(|name| !name.is_empty())
}
