//! No core of this program: it would hold the account's key.

#[cfg(unix)]
mod system {
    use std::sync::OnceLock;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    /// Where cores are given to a program, Linux heeds no other limit than this; a file of one byte
    /// is none either.
    const NONE: u64 = if cfg!(target_os = "linux") { 1 } else { 0 };

    static BEFORE: OnceLock<Rlimit> = OnceLock::new();

    /// Has this process leave no core. Only its own limit changes, which can be put back.
    ///
    /// Not "undumpable", which would also keep its owner from looking at it in /proc.
    pub(crate) fn leave_none() {
        let before = BEFORE.get_or_init(|| getrlimit(Resource::Core));
        let none = before.maximum.map_or(NONE, |most| most.min(NONE));
        let _ = setrlimit(
            Resource::Core,
            Rlimit {
                current: Some(none),
                maximum: before.maximum,
            },
        );
    }

    /// The limit that this process was started with.
    pub(crate) fn limit_before() -> Option<Rlimit> {
        BEFORE.get().cloned()
    }
}

#[cfg(not(unix))]
mod system {
    pub(crate) fn leave_none() {}
}

pub(crate) use self::system::*;
