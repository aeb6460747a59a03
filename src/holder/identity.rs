//! Who this process is: the default name of a holder.

use std::env;

/// `user@host`, or whichever of them is known. The user is the one that the environment names, or
/// else the system's.
pub(crate) fn default_owner() -> Option<String> {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let user = set("USER")
        .or_else(|| set("LOGNAME"))
        .or_else(|| set("USERNAME"))
        .or_else(system_user);
    match (user, host()) {
        (Some(user), Some(host)) => Some(format!("{user}@{host}")),
        (user, host) => user.or(host),
    }
}

/// The user that this process runs as. Services, cron jobs and containers have it in no variable.
#[cfg(unix)]
fn system_user() -> Option<String> {
    use std::fs::File;
    use std::io::Read as _;
    use std::sync::OnceLock;

    static USER: OnceLock<String> = OnceLock::new();
    let user = USER.get_or_init(|| {
        let id = rustix::process::geteuid().as_raw();
        let mut users = String::new();
        // Large directories of users are not in this file.
        let _ = File::open("/etc/passwd")
            .and_then(|file| file.take(1024 * 1024).read_to_string(&mut users));
        user_of(&users, id).unwrap_or_else(|| format!("uid{id}"))
    });
    Some(user.clone())
}

#[cfg(not(unix))]
fn system_user() -> Option<String> {
    None
}

/// The name of the user with this ID, in the format of `/etc/passwd`.
#[cfg(unix)]
fn user_of(users: &str, id: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let found: u32 = fields.next()?.parse().ok()?;
        (found == id && !name.is_empty()).then(|| name.to_owned())
    })
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn user_is_found_by_its_id() {
        let users =
            "root:x:0:0:root:/root:/bin/sh\n# a comment\n::5:\nci:x:1000:1000::/:/bin/sh\nx:y\n";
        for (id, name) in [(0, Some("root")), (1000, Some("ci")), (5, None), (7, None)] {
            assert_eq!(user_of(users, id).as_deref(), name);
        }
        assert_eq!(user_of("", 0), None);
    }
}
