//! The command line: what `--help`, the completions and the man pages are made of.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use azmutex::{LeaseDuration, LeaseId};
use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::examples;
use crate::exit;
use crate::value::{self, Signal};

/// Runs commands under a distributed lock: flock(1) across machines, on Azure Blob leases.
#[derive(Debug, Parser)]
#[command(
    name = "azmutex",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = examples::MAIN,
    after_long_help = format!("{}\n\n{}", examples::MAIN, exit::help(false)),
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The storage account [or AZURE_STORAGE_ACCOUNT]
    #[arg(long, value_name = "NAME", global = true, env = "AZMUTEX_ACCOUNT")]
    pub(crate) account: Option<String>,
    /// The blob endpoint, if it is not https://ACCOUNT.blob.core.windows.net
    #[arg(
        long,
        value_name = "URL",
        global = true,
        env = "AZMUTEX_ENDPOINT",
        hide_short_help = true
    )]
    pub(crate) endpoint: Option<String>,
    /// The container of the locks
    #[arg(
        long,
        value_name = "NAME",
        global = true,
        env = "AZMUTEX_CONTAINER",
        default_value = "locks"
    )]
    pub(crate) container: String,
    /// The kind of credential to use
    #[arg(
        long,
        value_name = "KIND",
        global = true,
        env = "AZMUTEX_AUTH", hide_short_help = true,
        value_enum,
        default_value_t = Auth::Auto
    )]
    pub(crate) auth: Auth,
    /// A file with the account key [else AZURE_STORAGE_KEY]
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        env = "AZMUTEX_KEY_FILE",
        hide_short_help = true
    )]
    pub(crate) key_file: Option<PathBuf>,
    /// A file with a SAS token [else AZURE_STORAGE_SAS_TOKEN]
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        env = "AZMUTEX_SAS_FILE",
        hide_short_help = true
    )]
    pub(crate) sas_file: Option<PathBuf>,
    /// A file with a connection string [else AZURE_STORAGE_CONNECTION_STRING]
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        env = "AZMUTEX_CONNECTION_STRING_FILE",
        hide_short_help = true
    )]
    pub(crate) connection_string_file: Option<PathBuf>,
    /// Use an emulator inside this process: nothing to set up, and gone when it ends
    #[cfg(feature = "emulator")]
    #[arg(
        long,
        global = true,
        env = "AZMUTEX_EMULATOR",
        value_parser = FalseyValueParser::new()
    )]
    pub(crate) emulator: bool,
    /// Print JSON, one object per line
    #[arg(long, global = true, env = "AZMUTEX_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
    /// Say more; twice for what the lock does
    #[arg(short, long, global = true, env = "AZMUTEX_VERBOSE", action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say errors only
    #[arg(
        short,
        long,
        global = true,
        env = "AZMUTEX_QUIET",
        value_parser = FalseyValueParser::new()
    )]
    pub(crate) quiet: bool,
    /// How messages on stderr are written
    #[arg(
        long,
        value_name = "FORMAT",
        global = true,
        env = "AZMUTEX_LOG_FORMAT", hide_short_help = true,
        value_enum,
        default_value_t = LogFormat::Text
    )]
    pub(crate) log_format: LogFormat,
    /// Whether stderr is coloured
    #[arg(
        long,
        value_name = "WHEN",
        global = true,
        env = "AZMUTEX_COLOR", hide_short_help = true,
        value_enum,
        default_value_t = When::Auto
    )]
    pub(crate) color: When,
    /// Whether waiting is shown in one line that is redrawn
    #[arg(
        long,
        value_name = "WHEN",
        global = true,
        env = "AZMUTEX_PROGRESS", hide_short_help = true,
        value_enum,
        default_value_t = When::Auto
    )]
    pub(crate) progress: When,
    /// Never ask: what needs an answer fails
    #[arg(long, global = true, env = "AZMUTEX_NO_INPUT", hide_short_help = true, value_parser = FalseyValueParser::new())]
    pub(crate) no_input: bool,
}

/// The kinds of credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Auth {
    /// What is there: a file first, then the environment; connection string, key, SAS
    Auto,
    /// The account key
    Key,
    /// A shared access signature
    Sas,
    /// A connection string
    ConnectionString,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(RunArgs),
    Status(StatusArgs),
    List(ListArgs),
    Break(BreakArgs),
    Acquire(AcquireArgs),
    Renew(RenewArgs),
    Release(ReleaseArgs),
    Hold(HoldArgs),
    Doctor(DoctorArgs),
    #[cfg(feature = "emulator")]
    Emulator(EmulatorArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Run a command while holding a lock
///
/// The lock is acquired, the command runs, the lock is released, and azmutex exits as the command
/// did. The lease is renewed while it runs. If the lock is lost, the command is ended before
/// another holder can have it.
#[derive(Debug, Args)]
#[command(after_help = examples::RUN, after_long_help = examples::with_exit(examples::RUN, true))]
pub(crate) struct RunArgs {
    /// Fail at once if somebody holds the lock; the same as -w 0
    #[arg(short, long, overrides_with = "wait")]
    pub(crate) nonblock: bool,
    /// Give up after this time, such as 30s or 5m [default: wait for ever]
    #[arg(
        short,
        long,
        value_name = "DURATION",
        env = "AZMUTEX_WAIT",
        value_parser = value::duration,
        overrides_with = "nonblock"
    )]
    pub(crate) wait: Option<Duration>,
    /// Exit with this code if the lock is not acquired in time
    #[arg(
        short = 'E',
        long,
        value_name = "CODE",
        env = "AZMUTEX_CONFLICT_EXIT_CODE",
        default_value = "75",
        value_parser = value::exit_status
    )]
    pub(crate) conflict_exit_code: u8,
    /// Pass COMMAND, one string, to a shell [default shell: /bin/sh]
    #[arg(
        short = 'c',
        long,
        value_name = "PATH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "/bin/sh"
    )]
    pub(crate) shell: Option<PathBuf>,
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
        value_parser = value::duration
    )]
    pub(crate) renew_every: Option<Duration>,
    /// How long before the lease ends the command has to be gone [default: 5s, less if the lease is short]
    #[arg(long, value_name = "DURATION", env = "AZMUTEX_MARGIN", value_parser = value::duration)]
    pub(crate) margin: Option<Duration>,
    /// The signal for the command when the lock is lost
    #[arg(
        short,
        long,
        value_name = "SIGNAL",
        env = "AZMUTEX_SIGNAL",
        default_value = "TERM",
        value_parser = Signal::parse
    )]
    pub(crate) signal: Signal,
    /// Kill the command if it is still there this long after the signal [default: 10s, less if the lease is short]
    #[arg(
        short,
        long,
        value_name = "DURATION",
        env = "AZMUTEX_KILL_AFTER",
        value_parser = value::duration
    )]
    pub(crate) kill_after: Option<Duration>,
    /// Kill the command this long after a signal to azmutex was passed on [default: never]
    #[arg(
        long,
        value_name = "DURATION",
        env = "AZMUTEX_KILL_AFTER_SIGNAL",
        value_parser = value::duration
    )]
    pub(crate) kill_after_signal: Option<Duration>,
    /// What becomes of the command when the lock is lost
    #[arg(
        long,
        value_name = "WHAT",
        env = "AZMUTEX_ON_LOST",
        value_enum,
        default_value_t = OnLost::Terminate
    )]
    pub(crate) on_lost: OnLost,
    /// Exit with this code if the lock was lost
    #[arg(
        long,
        value_name = "CODE",
        env = "AZMUTEX_LOST_EXIT_CODE",
        default_value = "121",
        value_parser = value::exit_status
    )]
    pub(crate) lost_exit_code: u8,
    /// The process group of the command
    #[arg(
        long,
        value_name = "MODE",
        env = "AZMUTEX_PROCESS_GROUP",
        value_enum,
        default_value_t = ProcessGroup::Auto
    )]
    pub(crate) process_group: ProcessGroup,
    /// What becomes of processes that the command leaves behind
    #[arg(
        long,
        value_name = "WHAT",
        env = "AZMUTEX_STRAGGLERS",
        value_enum,
        default_value_t = Stragglers::Warn
    )]
    pub(crate) stragglers: Stragglers,
    /// What becomes of the lock while the command is suspended (^Z)
    #[arg(
        long,
        value_name = "WHAT",
        env = "AZMUTEX_ON_SUSPEND",
        value_enum,
        default_value_t = OnSuspend::Hold
    )]
    pub(crate) on_suspend: OnSuspend,
    /// Let the command live on if azmutex itself is killed (Linux)
    #[arg(long, env = "AZMUTEX_NO_PDEATHSIG", value_parser = FalseyValueParser::new())]
    pub(crate) no_pdeathsig: bool,
    /// Keep the lock at least this long, for clocks that differ
    #[arg(
        long,
        value_name = "DURATION",
        env = "AZMUTEX_MIN_HOLD",
        default_value = "0s",
        value_parser = value::duration
    )]
    pub(crate) min_hold: Duration,
    #[command(flatten)]
    pub(crate) identity: Identity,
    /// Whether a missing container and lock blob are created
    #[arg(
        long,
        value_name = "WHEN",
        env = "AZMUTEX_CREATE",
        value_enum,
        default_value_t = Create::Auto
    )]
    pub(crate) create: Create,
    /// How long a service that fails or does not answer is put up with
    #[arg(
        long,
        value_name = "DURATION",
        env = "AZMUTEX_FAULT_WAIT",
        default_value = "60s",
        value_parser = value::duration
    )]
    pub(crate) fault_wait: Duration,
    /// Write events to this file descriptor, as lines of JSON
    #[arg(
        long,
        value_name = "FD",
        env = "AZMUTEX_EVENT_FD",
        conflicts_with = "event_file"
    )]
    pub(crate) event_fd: Option<u16>,
    /// Append events to this file, as lines of JSON
    #[arg(long, value_name = "FILE", env = "AZMUTEX_EVENT_FILE")]
    pub(crate) event_file: Option<PathBuf>,
    /// Do without a fencing token, which saves up to three requests
    #[arg(long, env = "AZMUTEX_NO_FENCING", value_parser = FalseyValueParser::new())]
    pub(crate) no_fencing: bool,
    /// Keep the lease ID out of the command's environment
    #[arg(long, env = "AZMUTEX_NO_EXPORT_LEASE_ID", value_parser = FalseyValueParser::new())]
    pub(crate) no_export_lease_id: bool,
    /// Check everything and print the plan; acquire nothing, run nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The lock: a blob name in the container, or the blob's URL
    #[arg(value_name = "LOCK")]
    pub(crate) lock: String,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// Who holds the lock and what for, as others see it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Identity {
    /// Who holds the lock, for others to see [default: user@host]
    #[arg(long, value_name = "TEXT", env = "AZMUTEX_OWNER")]
    pub(crate) owner: Option<String>,
    /// What the lock is held for, for others to see: no place for secrets
    #[arg(long, value_name = "TEXT", env = "AZMUTEX_REASON")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnLost {
    /// Signal it, then kill it
    Terminate,
    /// Kill it at once
    Kill,
    /// Warn and go on: two commands may run at once
    Continue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProcessGroup {
    /// Its own, but in a pipeline on a terminal
    Auto,
    /// Its own
    Own,
    /// That of azmutex
    Shared,
    /// A session of its own, without a terminal
    Session,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stragglers {
    /// They live on without the lock, with a warning
    Warn,
    /// The lock is held until they are gone
    Wait,
    /// They are killed
    Kill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnSuspend {
    /// Kept until it runs out
    Hold,
    /// Released
    Release,
    /// Kept and renewed: azmutex does not stop
    IgnoreStop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Create {
    /// On first use
    Auto,
    /// Never: what is missing is an error
    Never,
}

/// Show who holds locks
///
/// Reads, and changes nothing. With --check the answer is the exit code.
#[derive(Debug, Args)]
#[command(after_help = examples::STATUS, after_long_help = examples::with_exit(examples::STATUS, false))]
pub(crate) struct StatusArgs {
    /// The locks: blob names in the container, or URLs
    #[arg(value_name = "LOCK", required = true)]
    pub(crate) locks: Vec<String>,
    /// Exit with 1 unless all locks are so; print nothing
    #[arg(long, value_name = "STATE", value_enum)]
    pub(crate) check: Option<Check>,
    /// The lease ID to ask for with --check mine
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
    /// The lease with --lease-id holds it
    Mine,
}

/// List the locks of the container
#[derive(Debug, Args)]
#[command(after_help = examples::LIST, after_long_help = examples::with_exit(examples::LIST, false))]
pub(crate) struct ListArgs {
    /// Only locks whose names begin so
    #[arg(
        long,
        value_name = "PREFIX",
        env = "AZMUTEX_PREFIX",
        default_value = ""
    )]
    pub(crate) prefix: String,
    /// Only locks that somebody holds
    #[arg(long, conflicts_with = "free")]
    pub(crate) held: bool,
    /// Only locks that can be acquired
    #[arg(long)]
    pub(crate) free: bool,
}

/// End the lease of whoever holds a lock
///
/// For a holder that is gone but whose lease is not, or that hangs. Shows the holder, asks, and
/// gives it time to notice. A newer holder than the one shown is not broken.
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
    /// How long the lease may still run at most: time for a live holder to stop
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
    /// Only if nobody took or wrote to the lock for this time
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub(crate) if_stale: Option<Duration>,
}

/// How to wait for a lock.
#[derive(Debug, Clone, Args)]
pub(crate) struct Waiting {
    /// Fail at once if somebody holds the lock; the same as -w 0
    #[arg(short, long, overrides_with = "wait")]
    pub(crate) nonblock: bool,
    /// Give up after this time, such as 30s or 5m [default: wait for ever]
    #[arg(
        short,
        long,
        value_name = "DURATION",
        env = "AZMUTEX_WAIT",
        value_parser = value::duration,
        overrides_with = "nonblock"
    )]
    pub(crate) wait: Option<Duration>,
    /// Whether a missing container and lock blob are created
    #[arg(
        long,
        value_name = "WHEN",
        env = "AZMUTEX_CREATE",
        value_enum,
        default_value_t = Create::Auto
    )]
    pub(crate) create: Create,
    /// How long a service that fails or does not answer is put up with
    #[arg(
        long,
        value_name = "DURATION",
        env = "AZMUTEX_FAULT_WAIT",
        default_value = "60s",
        value_parser = value::duration
    )]
    pub(crate) fault_wait: Duration,
}

impl Waiting {
    /// How long to wait for a holder; `None` is for ever.
    pub(crate) fn limit(&self) -> Option<Duration> {
        if self.nonblock {
            Some(Duration::ZERO)
        } else {
            self.wait
        }
    }
}

/// Acquire a lock and print its lease ID
///
/// Nothing renews it: it runs out unless `azmutex renew` comes in time. Prefer `run`, which renews
/// and stops the command when the lock is lost, or `hold`, which renews.
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
    /// How the lease is printed
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Id)]
    pub(crate) format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The lease ID alone
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
/// For scripts that cannot be the command of `run`. The lease is renewed for as long as it is held.
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
        value_parser = value::duration
    )]
    pub(crate) renew_every: Option<Duration>,
    #[command(flatten)]
    pub(crate) identity: Identity,
    /// Print READY once the lock is held
    #[arg(long)]
    pub(crate) ready: bool,
    /// Release when this process ends
    #[arg(long, value_name = "PID", value_parser = value::pid)]
    pub(crate) for_pid: Option<i32>,
    /// Send this signal to the process of --for-pid when the lock is lost
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
/// Shows what would be used and how far it gets: credential, endpoint, name, connection, TLS, clock,
/// round trip, and what is permitted, tried on the lock `azmutex-doctor`.
#[derive(Debug, Args)]
#[command(after_help = examples::DOCTOR, after_long_help = examples::with_exit(examples::DOCTOR, false))]
pub(crate) struct DoctorArgs {
    /// Try nothing that writes
    #[arg(long)]
    pub(crate) read_only: bool,
}

/// Serve an emulator on this machine, until stdin ends or a signal arrives
///
/// Prints what to put into the environment of the processes that share it.
#[cfg(feature = "emulator")]
#[derive(Debug, Args)]
#[command(after_help = examples::EMULATOR, after_long_help = examples::with_exit(examples::EMULATOR, false))]
pub(crate) struct EmulatorArgs {
    /// The port of 127.0.0.1 to listen at [default: a free one]
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(crate) port: u16,
}

/// Print the completions of a shell
#[derive(Debug, Args)]
#[command(after_help = examples::COMPLETIONS)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Write the man pages
///
/// Into DIR, one file for each command; without DIR, the page of azmutex itself to stdout.
#[derive(Debug, Args)]
#[command(after_help = examples::MAN)]
pub(crate) struct ManArgs {
    /// The directory to write to; it is created
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// Variables that are no option's own.
const VARIABLES: [(&str, &str); 7] = [
    (
        "AZURE_STORAGE_CONNECTION_STRING",
        "The account and its credential, in one string",
    ),
    (
        "AZURE_STORAGE_ACCOUNT",
        "The storage account, unless --account names it",
    ),
    ("AZURE_STORAGE_KEY", "The account key"),
    ("AZURE_STORAGE_SAS_TOKEN", "A SAS token"),
    (
        "HTTPS_PROXY, NO_PROXY",
        "The proxy to use, and for which hosts not",
    ),
    (
        "NO_COLOR, CLICOLOR_FORCE",
        "Whether stderr is coloured, unless --color says so",
    ),
    ("TERM", "With dumb, nothing is coloured or redrawn"),
];

/// The definition of the command line, as it is parsed and as it is shown.
pub(crate) fn command() -> clap::Command {
    fn quiet(command: clap::Command) -> clap::Command {
        // They are named as the options are, and all in the man pages.
        command
            .mut_args(|arg| arg.hide_env(true))
            .mut_subcommands(quiet)
    }
    quiet(Cli::command())
}

/// The definition to parse with: a variable that is empty is as good as not set.
pub(crate) fn parser() -> clap::Command {
    without_empty(command())
}

/// The part of the definition that `azmutex run` takes, without the help: the other commands would
/// be most of its start.
pub(crate) fn parser_of_run() -> clap::Command {
    let run = RunArgs::augment_args(clap::Command::new("run"));
    without_empty(Global::augment_args(clap::Command::new("azmutex")).subcommand(run))
}

fn without_empty(command: clap::Command) -> clap::Command {
    fn set(arg: &clap::Arg) -> bool {
        let variable = arg.get_env().and_then(std::env::var_os);
        variable.is_none_or(|value| !value.is_empty())
    }
    command
        .mut_args(|arg| {
            if set(&arg) {
                arg
            } else {
                arg.env(None::<&str>)
            }
        })
        .mut_subcommands(without_empty)
}

/// The variables that a command reads, and what they are.
pub(crate) fn variables(command: &clap::Command) -> Vec<(String, String)> {
    let options = command.get_arguments().filter_map(|arg| {
        let variable = arg.get_env()?.to_string_lossy().into_owned();
        let long = arg.get_long()?;
        Some((
            variable,
            format!("The value of --{long}, unless that is given"),
        ))
    });
    let others = VARIABLES.map(|(name, meaning)| (name.to_owned(), meaning.to_owned()));
    options.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    #[test]
    fn run_means_the_same_to_both_definitions() {
        for line in [
            "run deploy -- ./deploy.sh --force",
            "run -n deploy true",
            "run --json -v --container c deploy -c exit",
            "run -w 5m -E 3 --lease 30s --account=a deploy -- sh -c true",
            "run -vv --no-fencing --owner me --reason why -k 3s deploy env -i",
        ] {
            let read = |mut command: clap::Command| {
                let words = ["azmutex"].into_iter().chain(line.split(' '));
                let matches = command.try_get_matches_from_mut(words).unwrap();
                format!("{:?}", Cli::from_arg_matches(&matches).unwrap())
            };
            assert_eq!(read(parser_of_run()), read(parser()));
        }
    }
}
