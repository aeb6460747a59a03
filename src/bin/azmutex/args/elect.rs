//! The options of `azmutex elect`.

use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args};

use super::run::{OnceArgs, RunArgs};
use crate::examples;
use crate::value;

/// The options of `run` that an election has no use for.
const NOT_HERE: [&str; 4] = ["no_fencing", "slots", "resize", "also"];

const ABOUT: &str = "Run a command on the one machine that is elected";
const LONG_ABOUT: &str = "\
Run a command on the one machine that is elected

Stands for election, runs the command while this machine is the leader, and ends with the command's exit \
status when the command ends by itself. If the leadership is lost, ends the command before another \
leader can be elected, and stands again. The command finds its term in AZMUTEX_FENCE. The options of \
`run` mean the same here; those by which the command would go on without its term are refused.";

#[derive(Debug, Args)]
pub(crate) struct ElectArgs {
    /// End when the leadership is lost, with --lost-exit-code, rather than stand again
    #[arg(long)]
    pub(crate) once: bool,
    /// A command for /bin/sh that succeeds while the work gets on. It is run three times in
    /// --health-within, without input and output, and killed if it takes longer than a third of that
    #[arg(long, value_name = "COMMAND", env = "AZMUTEX_HEALTH_CMD")]
    pub(crate) health_cmd: Option<String>,
    /// How old the last success of --health-cmd may be for the lease to be renewed: the leadership is
    /// lost after that and a lease at most
    #[arg(
        long,
        value_name = "DURATION",
        env = "AZMUTEX_HEALTH_WITHIN",
        default_value = "30s",
        value_parser = value::renewal_interval
    )]
    pub(crate) health_within: Duration,
    /// Print who leads, and each change, without standing for election; every --poll is one request
    #[arg(long, conflicts_with_all = ["who", "once", "health_cmd", "command"])]
    pub(crate) observe: bool,
    /// Print who leads, without standing for election; exit with 1 if nobody does
    #[arg(long, conflicts_with_all = ["once", "health_cmd", "command"])]
    pub(crate) who: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// What a command is run for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose<'a> {
    Run,
    Once(&'a OnceArgs),
    Lead(&'a ElectArgs),
}

impl<'a> Purpose<'a> {
    pub(crate) fn once(self) -> Option<&'a OnceArgs> {
        match self {
            Self::Once(once) => Some(once),
            _ => None,
        }
    }

    pub(crate) fn election(self) -> Option<&'a ElectArgs> {
        match self {
            Self::Lead(election) => Some(election),
            _ => None,
        }
    }
}

impl ElectArgs {
    /// Whether it only looks.
    pub(crate) fn looks(&self) -> bool {
        self.observe || self.who
    }
}

/// Makes of the definition that has all options of `run` the one of `elect`.
pub(super) fn adapt(command: clap::Command) -> clap::Command {
    command
        .about(ABOUT)
        .long_about(LONG_ABOUT)
        .after_help(examples::ELECT)
        .after_long_help(examples::with_exit_of_elect(examples::ELECT))
        .mut_arg("command", |arg| {
            let looks = ["observe", "who"];
            arg.required(false).required_unless_present_any(looks)
        })
        .mut_args(|arg| {
            let is_not_here = NOT_HERE.contains(&arg.get_id().as_str());
            if is_not_here {
                arg.hide(true).env(None::<&str>)
            } else {
                arg
            }
        })
}

/// Whether a time is given for a health command, and no such command, for what is to be run.
pub(crate) fn lacks_health_cmd(matches: &ArgMatches) -> bool {
    let source = |id| matches.value_source(id);
    let runs = !matches.get_flag("who") && !matches.get_flag("observe");
    let is_given = source("health_within") == Some(ValueSource::CommandLine);
    runs && is_given && source("health_cmd").is_none()
}

/// The first option among these that `elect` does not have, although the parser knows it.
pub(crate) fn unknown(matches: &ArgMatches) -> Option<String> {
    let is_given = |id: &str| {
        matches.try_contains_id(id).unwrap_or(false)
            && matches.value_source(id) == Some(ValueSource::CommandLine)
    };
    let id = NOT_HERE.iter().find(|id| is_given(id))?;
    Some(format!("--{}", id.replace('_', "-")))
}
