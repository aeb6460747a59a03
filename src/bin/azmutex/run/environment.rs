//! What a command learns of its lock.

use std::ffi::{CString, OsString};
use std::time::SystemTime;

use super::budget::Budget;
use super::held::Held;
use super::program::c_string;
use crate::args::RunArgs;
use crate::chain::{self, HELD_LOCKS};
use crate::config::Lock;
use crate::times::rfc3339;
use crate::variables;

/// The variables that a command under a lock is given. Those of an outer lock are not passed on.
const OURS: [&str; 11] = [
    "AZMUTEX_HELD",
    HELD_LOCKS,
    "AZMUTEX_NAME",
    "AZMUTEX_URL",
    "AZMUTEX_SLOT",
    "AZMUTEX_OWNER",
    "AZMUTEX_LEASE_ID",
    "AZMUTEX_FENCE",
    "AZMUTEX_ACQUIRED_AT",
    "AZMUTEX_LEASE_SECONDS",
    "AZMUTEX_PID",
];

/// The environment of the command, as `NAME=value`.
pub(super) fn of_child(
    args: &RunArgs,
    lock: &Lock,
    others: &[Lock],
    held: &Held,
    budget: &Budget,
) -> Vec<CString> {
    let mut ours: Vec<(&str, String)> = vec![
        ("AZMUTEX_HELD", "1".to_owned()),
        (HELD_LOCKS, chain::with(lock, held.slot, others)),
        // As it was given, for a script to compare with what it would give itself.
        ("AZMUTEX_NAME", args.lock.clone()),
        ("AZMUTEX_URL", held.url(lock)),
        ("AZMUTEX_ACQUIRED_AT", rfc3339(SystemTime::now())),
        ("AZMUTEX_LEASE_SECONDS", budget.lease.as_secs().to_string()),
        ("AZMUTEX_PID", std::process::id().to_string()),
    ];
    if let Some(owner) = &args.identity.owner {
        ours.push(("AZMUTEX_OWNER", owner.clone()));
    }
    if let Some(slot) = held.slot {
        ours.push(("AZMUTEX_SLOT", slot.to_string()));
    }
    if let Some(fence) = held.fencing_token() {
        ours.push(("AZMUTEX_FENCE", fence.to_string()));
    }
    if !args.no_export_lease_id {
        ours.push(("AZMUTEX_LEASE_ID", held.lease_id().to_string()));
    }
    let withheld = variables::credentials().filter(|_| args.no_export_credential);
    let left_out: Vec<_> = OURS.into_iter().chain(withheld).collect();
    let left_out = |name: &OsString| left_out.iter().any(|out| name == out);
    let inherited = std::env::vars_os().filter(|(name, _)| !left_out(name));
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
