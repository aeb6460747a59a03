//! Prevents core dumps of this program, which would hold the account's key.

#[cfg(unix)]
mod system {
    use std::sync::OnceLock;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    /// One byte on Linux: where cores are piped to a program, it obeys no other limit. A file of one
    /// byte is not a core either.
    const NONE: u64 = if cfg!(target_os = "linux") { 1 } else { 0 };

    static BEFORE: OnceLock<Rlimit> = OnceLock::new();

    /// Makes this process leave no core. Changes only its own limit, which can be restored.
    ///
    /// Does not make it undumpable, which would also keep its owner from reading it in /proc.
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
