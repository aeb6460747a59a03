//! The `azmutex` command: flock(1) across machines. It uses the library's public API alone.

mod args;
mod config;
mod examples;
mod exit;
mod logger;
mod output;
mod process;
mod run;
mod signals;
mod stdin;
mod usage;
mod value;
mod verbs;
mod waiting;

use std::process::ExitCode;

use clap::FromArgMatches as _;

use self::args::{Cli, Command};

fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => return usage::report(&error),
    };
    let global = &cli.global;
    logger::start(global);
    let result = match &cli.command {
        Command::Run(args) => return run::run(args, global),
        command => verbs::dispatch(command, global),
    };
    match result {
        Ok(code) => code.into(),
        Err(failure) => {
            failure.report(global);
            failure.code.into()
        }
    }
}

fn parse() -> Result<Cli, clap::Error> {
    let mut command = args::parser();
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}
