//! What a command learns of its lock, and how it is noticed that it asks for it again.

use std::ffi::{CString, OsString};
use std::time::SystemTime;

use azmutex::LeaseGuard;

use super::budget::Budget;
use super::program::c_string;
use crate::args::RunArgs;
use crate::config::Lock;
use crate::times::rfc3339;

const HELD: &str = "AZMUTEX_HELD";
const URL: &str = "AZMUTEX_URL";
const PID: &str = "AZMUTEX_PID";

/// The variables that a command under a lock is given. Those of an outer lock are not passed on.
const OURS: [&str; 9] = [
    HELD,
    "AZMUTEX_NAME",
    URL,
    "AZMUTEX_OWNER",
    "AZMUTEX_LEASE_ID",
    "AZMUTEX_FENCE",
    "AZMUTEX_ACQUIRED_AT",
    "AZMUTEX_LEASE_SECONDS",
    PID,
];

/// The environment of the command, as `NAME=value`.
pub(super) fn of_child(
    args: &RunArgs,
    lock: &Lock,
    guard: &LeaseGuard,
    budget: &Budget,
) -> Vec<CString> {
    let mut ours: Vec<(&str, String)> = vec![
        (HELD, "1".to_owned()),
        ("AZMUTEX_NAME", lock.key.clone()),
        (URL, lock.url.clone()),
        ("AZMUTEX_ACQUIRED_AT", rfc3339(SystemTime::now())),
        ("AZMUTEX_LEASE_SECONDS", budget.lease.as_secs().to_string()),
        (PID, std::process::id().to_string()),
    ];
    if let Some(owner) = &args.identity.owner {
        ours.push(("AZMUTEX_OWNER", owner.clone()));
    }
    if let Some(fence) = guard.fencing_token() {
        ours.push(("AZMUTEX_FENCE", fence.to_string()));
    }
    if !args.no_export_lease_id {
        ours.push(("AZMUTEX_LEASE_ID", guard.lease_id().to_string()));
    }
    let inherited = std::env::vars_os().filter(|(name, _)| OURS.iter().all(|ours| name != ours));
    inherited
        .chain(
            ours.into_iter()
                .map(|(name, value)| (name.into(), value.into())),
        )
        .map(|(name, value): (OsString, OsString)| {
            let mut pair = name;
            pair.push("=");
            pair.push(value);
            c_string(pair)
        })
        .collect()
}

/// The process that holds `lock` for this one already, so that waiting for it would never end.
pub(super) fn holding_parent(lock: &Lock) -> Option<i32> {
    if std::env::var_os(HELD)? != "1" || std::env::var(URL).ok()? != lock.url {
        return None;
    }
    let pid: i32 = std::env::var(PID).ok()?.parse().ok()?;
    let is_alive = rustix::process::Pid::from_raw(pid).is_some_and(|pid| {
        // Not being allowed to signal it also means that it lives.
        rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
    });
    is_alive.then_some(pid)
}
