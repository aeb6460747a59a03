//! The options of the other commands.

use std::path::PathBuf;
use std::time::Duration;

use azmutex::{LeaseDuration, LeaseId};
use clap::{Args, ValueEnum};

use super::acquiring::{Identity, Waiting};
use crate::examples;
use crate::value::{self, Signal};

/// Show who holds locks
///
/// Changes nothing. With --check, the exit code is the answer.
#[derive(Debug, Args)]
#[command(after_help = examples::STATUS, after_long_help = examples::with_exit(examples::STATUS, false))]
pub(crate) struct StatusArgs {
    /// The locks: blob names in the container, or URLs
    #[arg(value_name = "LOCK", required = true)]
    pub(crate) locks: Vec<String>,
    /// Show the permits of locks that were used with `run --slots`, too
    #[arg(long, conflicts_with = "check")]
    pub(crate) slots: bool,
    /// Exit with 1 unless this is true of all the locks; print nothing
    #[arg(long, value_name = "STATE", value_enum)]
    pub(crate) check: Option<Check>,
    /// The lease ID for --check mine
    #[arg(
        long,
        value_name = "ID",
        env = "AZMUTEX_LEASE_ID",
        value_parser = value::lease_id
    )]
    pub(crate) lease_id: Option<LeaseId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Check {
    /// Somebody holds it, or its break period still runs
    Held,
    /// It can be acquired now
    Free,
    /// The lease given with --lease-id holds it
    Mine,
}

/// List the locks of the container
#[derive(Debug, Args)]
#[command(after_help = examples::LIST, after_long_help = examples::with_exit(examples::LIST, false))]
pub(crate) struct ListArgs {
    /// Only locks whose names begin with this
    #[arg(
        long,
        value_name = "PREFIX",
        env = "AZMUTEX_PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) prefix: String,
    /// Only locks that somebody holds
    #[arg(long, conflicts_with = "free")]
    pub(crate) held: bool,
    /// Only locks that can be acquired
    #[arg(long)]
    pub(crate) free: bool,
    /// Show at most this many locks
    #[arg(long, value_name = "N", value_parser = value::count)]
    pub(crate) limit: Option<usize>,
    /// The order of the locks
    #[arg(long, value_name = "ORDER", value_enum, default_value_t = Sort::Name)]
    pub(crate) sort: Sort,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// By name, as the service lists them; shown while they are read
    Name,
    /// Held locks first; shown once all are read
    State,
    /// Locks held for longest first; shown once all are read
    Since,
}

/// End the lease of a lock's holder
///
/// For a holder that is gone but whose lease is not, or that hangs. Shows the holder, asks for
/// confirmation, and gives the holder time to notice. If another holder has taken the lock since,
/// nothing is broken.
#[derive(Debug, Args)]
#[command(
    visible_alias = "force-unlock",
    after_help = examples::BREAK,
    after_long_help = examples::with_exit(examples::BREAK, false)
)]
pub(crate) struct BreakArgs {
    /// The lock: a blob name in the container, or the blob's URL
    #[arg(value_name = "LOCK")]
    pub(crate) lock: String,
    /// Of the permits of LOCK, this one: the number that its holder has as $AZMUTEX_SLOT
    #[arg(long, value_name = "N")]
    pub(crate) slot: Option<u32>,
    /// The longest that the lease may still run, so that a live holder can stop
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = value::period)]
    pub(crate) period: Duration,
    /// End the lease at once: a live holder and the next one may overlap; the same as --period 0
    #[arg(long, conflicts_with = "period")]
    pub(crate) now: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Do not ask if this is the lock's name
    #[arg(long, value_name = "NAME")]
    pub(crate) confirm: Option<String>,
    /// Wait until the lock can be acquired, and report it; with a value, for at most this time
    /// [default: 75s]
    #[arg(
        long,
        value_name = "DURATION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "75s",
        value_parser = value::duration
    )]
    pub(crate) wait: Option<Duration>,
    /// Only if the lease's holder has recorded that it has held the lock for this long, and nobody
    /// has written to it since
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub(crate) if_stale: Option<Duration>,
    /// With --if-stale, also break a lease of unknown age: its holder recorded nothing, and may have
    /// taken the lock a moment ago
    #[arg(long, requires = "if_stale")]
    pub(crate) unknown_is_stale: bool,
}

/// Acquire a lock and print its lease ID
///
/// azmutex does not renew it: it runs out unless `azmutex renew` is run in time. Prefer `run`,
/// which renews and stops the command when the lock is lost, or `hold`, which renews.
#[derive(Debug, Args)]
#[command(after_help = examples::ACQUIRE, after_long_help = examples::with_exit(examples::ACQUIRE, false))]
pub(crate) struct AcquireArgs {
    /// The lock: a blob name in the container, or the blob's URL
    #[arg(value_name = "LOCK")]
    pub(crate) lock: String,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    /// The duration of the lease: 15s to 60s, or infinite
    #[arg(
        long,
        value_name = "DURATION",
        env = "AZMUTEX_LEASE",
        default_value = "60s",
        value_parser = value::lease
    )]
    pub(crate) lease: LeaseDuration,
    #[command(flatten)]
    pub(crate) identity: Identity,
    /// How to print the lease
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Id)]
    pub(crate) format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Only the lease ID
    Id,
    /// Assignments for eval in a shell
    Shell,
    /// An object, as --json
    Json,
}

/// Renew a lease: its duration starts again
#[derive(Debug, Args)]
#[command(after_help = examples::RENEW, after_long_help = examples::with_exit(examples::RENEW, false))]
pub(crate) struct RenewArgs {
    /// The lock: a blob name in the container, or the blob's URL
    #[arg(value_name = "LOCK")]
    pub(crate) lock: String,
    /// The lease ID that acquire printed
    #[arg(
        long,
        value_name = "ID",
        env = "AZMUTEX_LEASE_ID",
        value_parser = value::lease_id
    )]
    pub(crate) lease_id: LeaseId,
}

/// Release a lock
#[derive(Debug, Args)]
#[command(after_help = examples::RELEASE, after_long_help = examples::with_exit(examples::RELEASE, false))]
pub(crate) struct ReleaseArgs {
    /// The lock: a blob name in the container, or the blob's URL
    #[arg(value_name = "LOCK")]
    pub(crate) lock: String,
    /// The lease ID that acquire printed
    #[arg(
        long,
        value_name = "ID",
        env = "AZMUTEX_LEASE_ID",
        value_parser = value::lease_id
    )]
    pub(crate) lease_id: LeaseId,
}

/// Hold a lock until stdin ends, a process ends or a signal arrives
///
/// For scripts that cannot be started by `run`. Renews the lease for as long as the lock is held.
/// With --for-pid, on Linux, the lock is kept until everything that this process had started has
/// ended as well. A second signal releases it at once.
#[derive(Debug, Args)]
#[command(after_help = examples::HOLD, after_long_help = examples::with_exit(examples::HOLD, false))]
pub(crate) struct HoldArgs {
    /// The lock: a blob name in the container, or the blob's URL
    #[arg(value_name = "LOCK")]
    pub(crate) lock: String,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    /// The duration of the lease: how long others wait after a crash
    #[arg(
        long,
        value_name = "DURATION",
        env = "AZMUTEX_LEASE",
        default_value = "60s",
        value_parser = value::renewed_lease
    )]
    pub(crate) lease: LeaseDuration,
    /// How often the lease is renewed [default: a third of it]
    #[arg(
        long,
        value_name = "DURATION",
        env = "AZMUTEX_RENEW_EVERY",
        value_parser = value::renewal_interval
    )]
    pub(crate) renew_every: Option<Duration>,
    #[command(flatten)]
    pub(crate) identity: Identity,
    /// Print READY once the lock is held
    #[arg(long)]
    pub(crate) ready: bool,
    /// Release when this process, and what it has started, has ended
    #[arg(long, value_name = "PID", value_parser = value::pid)]
    pub(crate) for_pid: Option<i32>,
    /// When the lock is lost, send this signal to the process of --for-pid and to what it has started,
    /// and kill them before the lease ends
    #[arg(
        long,
        value_name = "SIGNAL",
        requires = "for_pid",
        value_parser = Signal::parse
    )]
    pub(crate) on_lost_signal: Option<Signal>,
}

/// Check the configuration, the connection, the clock and the permissions
///
/// Shows what is used and where it came from: account, endpoint, proxy, trust store, credential. Then
/// tries one step after the other, up to the one that is wrong: name, connection, TLS, clock, round
/// trip, credential, container, and the permissions, on the lock `azmutex-doctor`.
#[derive(Debug, Args)]
#[command(after_help = examples::DOCTOR, after_long_help = examples::with_exit(examples::DOCTOR, false))]
pub(crate) struct DoctorArgs {
    /// Skip everything that writes
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Print the commands of the Azure CLI that make the account, the container and the right to
    /// use it, for the way of signing in that is configured or chosen with --auth; send nothing
    ///
    /// What is not known is in capitals, to be replaced.
    #[arg(long, conflicts_with = "read_only")]
    pub(crate) setup: bool,
}

/// Serve an emulator on this machine, until stdin ends or a signal arrives
///
/// Prints the line that sets the environment of the processes that share it.
///
/// It implements containers, block blobs with metadata, and leases, as Azure Blob Storage does, for
/// this tool, Azure's SDKs and their tests; everything else is refused with 400 or 501. It accepts
/// the account key, shared access signatures made with it, and the bearer tokens of --bearer.
/// Everything is in memory, and gone when it ends.
#[cfg(feature = "emulator")]
#[derive(Debug, Args)]
#[command(after_help = examples::EMULATOR, after_long_help = examples::with_exit(examples::EMULATOR, false))]
pub(crate) struct EmulatorArgs {
    /// The port of 127.0.0.1 to listen on [default: a free one]
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(crate) port: u16,
    /// Print a shared access signature for a year, in place of the account key
    #[arg(long)]
    pub(crate) sas: bool,
    /// Accept this bearer token; can be repeated
    #[arg(long, value_name = "TOKEN", value_parser = value::bearer_token)]
    pub(crate) bearer: Vec<String>,
}

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = examples::COMPLETIONS)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Write the man pages
///
/// Writes one file for each command to DIR; without DIR, prints the page of azmutex itself.
#[derive(Debug, Args)]
#[command(after_help = examples::MAN)]
pub(crate) struct ManArgs {
    /// The directory to write to; it is created if it is missing
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// Print the JSON schema of everything that is written as JSON
///
/// Of what --json and --log-format json write, and of the events of `run`: one object a line.
#[derive(Debug, Args)]
#[command(after_help = examples::SCHEMA)]
pub(crate) struct SchemaArgs {}
