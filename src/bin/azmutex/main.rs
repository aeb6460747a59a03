//! The `azmutex` command: flock(1) across machines. It uses the library's public API alone.

mod args;
mod config;
mod examples;
mod exit;
mod logger;
mod output;
mod run;
mod usage;
mod value;
mod verbs;

use std::process::ExitCode;

use clap::Parser as _;

use self::args::{Cli, Command};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
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
