//! The options of `azmutex run`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use azmutex::LeaseDuration;
use clap::{Args, ValueEnum};

use super::acquiring::{Identity, Waiting};
use crate::examples;
use crate::value::{self, Signal};

/// Run a command while holding a lock
///
/// Acquires the lock, runs the command, releases the lock and exits with the command's exit status.
/// Renews the lease while the command runs. If the lock is lost, ends the command before another
/// holder can acquire the lock.
#[derive(Debug, Args)]
#[command(after_help = examples::RUN, after_long_help = examples::with_exit(examples::RUN, true))]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) waiting: Waiting,
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
        value_parser = value::renewal_interval
    )]
    pub(crate) renew_every: Option<Duration>,
    /// How long before the end of the lease the command must be gone [default: 5s, less if the
    /// lease is short]
    #[arg(long, value_name = "DURATION", env = "AZMUTEX_MARGIN", value_parser = value::duration)]
    pub(crate) margin: Option<Duration>,
    /// The signal to send to the command when the lock is lost
    #[arg(
        short,
        long,
        value_name = "SIGNAL",
        env = "AZMUTEX_SIGNAL",
        default_value = "TERM",
        value_parser = Signal::parse
    )]
    pub(crate) signal: Signal,
    /// Kill the command if it still runs this long after the signal [default: 10s, less if the
    /// lease is short]
    #[arg(
        short,
        long,
        value_name = "DURATION",
        env = "AZMUTEX_KILL_AFTER",
        value_parser = value::duration
    )]
    pub(crate) kill_after: Option<Duration>,
    /// Kill the command this long after azmutex passed a signal on to it [default: never]
    #[arg(
        long,
        value_name = "DURATION",
        env = "AZMUTEX_KILL_AFTER_SIGNAL",
        value_parser = value::duration
    )]
    pub(crate) kill_after_signal: Option<Duration>,
    /// What to do with the command when the lock is lost
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
    /// What to do with processes that the command leaves behind
    #[arg(
        long,
        value_name = "WHAT",
        env = "AZMUTEX_STRAGGLERS",
        value_enum,
        default_value_t = Stragglers::Warn
    )]
    pub(crate) stragglers: Stragglers,
    /// What to do with the lock while the command is suspended (^Z)
    #[arg(
        long,
        value_name = "WHAT",
        env = "AZMUTEX_ON_SUSPEND",
        value_enum,
        default_value_t = OnSuspend::Hold
    )]
    pub(crate) on_suspend: OnSuspend,
    /// Start no guardian, the process that ends the command if azmutex itself is killed or stopped; then only the command's first process is sent SIGTERM
    #[arg(long, env = "AZMUTEX_NO_GUARDIAN", value_parser = value::truth)]
    pub(crate) no_guardian: bool,
    /// Let the command run on without the lock if azmutex itself is killed; implies --no-guardian
    #[arg(long, env = "AZMUTEX_NO_PDEATHSIG", value_parser = value::truth)]
    pub(crate) no_pdeathsig: bool,
    /// Keep the lock at least this long, in case the machines' clocks differ
    #[arg(
        long,
        value_name = "DURATION",
        env = "AZMUTEX_MIN_HOLD",
        default_value = "0s",
        value_parser = value::duration
    )]
    pub(crate) min_hold: Duration,
    /// Hold one of N permits of LOCK, so that up to N commands run at once; $AZMUTEX_SLOT is its number
    #[arg(
        long,
        value_name = "N",
        env = "AZMUTEX_SLOTS",
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub(crate) slots: Option<u32>,
    /// Change the number of permits of LOCK to that of --slots
    #[arg(long, requires = "slots")]
    pub(crate) resize: bool,
    /// Hold this lock too: all of them or none; may be given up to 15 times
    #[arg(long, value_name = "LOCK", conflicts_with = "slots")]
    pub(crate) also: Vec<String>,
    #[command(flatten)]
    pub(crate) identity: Identity,
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
    /// Take no fencing token, which saves up to three requests
    #[arg(long, env = "AZMUTEX_NO_FENCING", value_parser = value::truth)]
    pub(crate) no_fencing: bool,
    /// Keep the lease ID out of the command's environment
    #[arg(long, env = "AZMUTEX_NO_EXPORT_LEASE_ID", value_parser = value::truth)]
    pub(crate) no_export_lease_id: bool,
    /// Keep the account's credential out of the command's environment [default: passed on]
    #[arg(long, env = "AZMUTEX_NO_EXPORT_CREDENTIAL", value_parser = value::truth)]
    pub(crate) no_export_credential: bool,
    /// Check everything and print the plan, without acquiring or running anything
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The lock: a blob name in the container, or the blob's URL
    #[arg(value_name = "LOCK")]
    pub(crate) lock: String,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// Run a command once, whoever starts it and however often
///
/// Runs the command under the lock, as `run` does, and records in the lock's blob that it succeeded;
/// from then on does nothing. It runs again if it was killed, or azmutex was, before that was recorded:
/// so it must do no harm to run it twice. The service's clock alone decides when it is due.
#[derive(Debug, Args)]
#[command(after_help = examples::ONCE, after_long_help = examples::with_exit_of_once(examples::ONCE))]
pub(crate) struct OnceArgs {
    /// Run it again this long after it was done; a day is best written as 23h [default: never]
    #[arg(long, value_name = "DURATION", env = "AZMUTEX_EVERY", value_parser = value::duration)]
    pub(crate) every: Option<Duration>,
    /// Exit with this code if it was done before
    #[arg(
        long,
        value_name = "CODE",
        env = "AZMUTEX_DONE_EXIT_CODE",
        default_value = "0",
        value_parser = value::exit_status
    )]
    pub(crate) done_exit_code: u8,
    /// Forget that it was done, and run nothing
    #[arg(long, conflicts_with_all = ["command", "every", "dry_run"])]
    pub(crate) forget: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
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
    /// Its own, except in a pipeline on a terminal
    Auto,
    /// Its own
    Own,
    /// The same as azmutex's
    Shared,
    /// A session of its own, without a terminal
    Session,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stragglers {
    /// Warn; hold the lock until those in the command's process group are gone, and let the others run
    /// on without it
    Warn,
    /// Hold the lock until they are gone
    Wait,
    /// Signal them, then kill them
    Kill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnSuspend {
    /// Keep it until it runs out
    Hold,
    /// Release it
    Release,
    /// Keep and renew it: azmutex does not stop
    IgnoreStop,
}
