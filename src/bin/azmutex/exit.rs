//! The exit codes: the code, `--help` and the man pages all read this table.

use std::fmt::Write as _;
use std::iter;
use std::process::ExitCode;

/// Why the process ends, as an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Done = 0,
    False = 1,
    Usage = 2,
    NoSuchLock = 3,
    NotHolder = 4,
    Unconfirmed = 5,
    Unavailable = 69,
    Bug = 70,
    NotAcquired = 75,
    Denied = 77,
    Config = 78,
    Lost = 121,
    Failed = 125,
    CannotExecute = 126,
    CommandNotFound = 127,
}

impl Code {
    /// The code for `run`, where small codes belong to the command.
    pub(crate) fn in_run(self) -> Self {
        match self {
            Self::Done | Self::NotAcquired | Self::Lost => self,
            Self::CannotExecute | Self::CommandNotFound => self,
            _ => Self::Failed,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// The code, its meaning for `run`, and for the other commands; empty if it does not occur.
pub(crate) const TABLE: &[(&str, &str, &str)] = &[
    ("0", "the command's own status", "done"),
    (
        "1",
        "",
        "the condition does not hold (status --check, break --if-stale)",
    ),
    ("2", "", "usage: an argument or value is invalid"),
    (
        "3",
        "",
        "no such lock: the blob or the container does not exist",
    ),
    ("4", "", "the lease ID is not the holder's (renew, release)"),
    (
        "5",
        "",
        "not confirmed: declined, or no terminal to ask on (break)",
    ),
    ("69", "", "the service did not answer, or failed"),
    (
        "70",
        "",
        "azmutex, the system or the service did something unexpected",
    ),
    (
        "75",
        "lock not acquired (-n, -w)",
        "lock not acquired, or taken by another holder since (break)",
    ),
    ("77", "", "access denied"),
    ("78", "", "configuration: account, credential or endpoint"),
    (
        "121",
        "lock lost: command ended, or not started",
        "lock lost (hold)",
    ),
    ("125", "azmutex failed before the command started", ""),
    ("126", "the command cannot be executed", ""),
    ("127", "the command was not found", ""),
    (
        "128+n",
        "the command was killed by signal n",
        "ended by signal n",
    ),
];

/// The rows that concern `run`, or the other commands.
pub(crate) fn rows(run: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = TABLE.iter();
    let rows = rows.map(move |(code, in_run, admin)| (*code, if run { *in_run } else { *admin }));
    rows.filter(|(_, meaning)| !meaning.is_empty())
}

/// The rows that concern `once`: those of `run`, some with more to say.
pub(crate) fn rows_of_once() -> impl Iterator<Item = (&'static str, &'static str)> {
    rows(true).map(|(code, meaning)| {
        let meaning = match code {
            "0" => "the command's own status; 0 also if it was done before",
            "125" => {
                "azmutex failed before the command started, or could not record that it succeeded"
            }
            _ => meaning,
        };
        (code, meaning)
    })
}

/// The rows that concern `elect`: those of `run`, and one of its own.
pub(crate) fn rows_of_elect() -> impl Iterator<Item = (&'static str, &'static str)> {
    rows(true).flat_map(|(code, meaning)| {
        let own = (code == "0").then_some(("1", "nobody leads (--who)"));
        iter::once((code, meaning)).chain(own)
    })
}

/// Rows as `--help` shows them.
pub(crate) fn help(rows: impl Iterator<Item = (&'static str, &'static str)>) -> String {
    let mut text = String::from("Exit status:\n");
    for (code, meaning) in rows {
        let _ = writeln!(text, "  {code:<6} {meaning}");
    }
    text.truncate(text.trim_end().len());
    text
}
