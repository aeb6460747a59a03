//! The `azmutex` command: flock(1) across machines. It uses the library's public API alone.

mod ancestors;
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
mod times;
mod usage;
mod value;
mod verbs;
mod waiting;
mod writer;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches as _};

use self::args::{Cli, Command};

fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => return usage::report(&error),
    };
    let global = &cli.global;
    logger::start(global);
    let code = match &cli.command {
        Command::Run(args) => run::run(args, global),
        command => match verbs::dispatch(command, global) {
            Ok(code) => code.into(),
            Err(failure) => {
                failure.report(global);
                failure.code.into()
            }
        },
    };
    output::flush(writer::soon());
    code
}

fn parse() -> Result<Cli, clap::Error> {
    let (mut command, matches) = matches(std::env::args_os().collect())?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    // Of files with a secret, one on the command line goes before those in variables.
    let source = |id| matches.value_source(id);
    let files = ["key_file", "sas_file", "connection_string_file"];
    if files
        .iter()
        .any(|id| source(id) == Some(ValueSource::CommandLine))
    {
        let global = &mut cli.global;
        for (id, file) in [
            ("key_file", &mut global.key_file),
            ("sas_file", &mut global.sas_file),
            ("connection_string_file", &mut global.connection_string_file),
        ] {
            if source(id) == Some(ValueSource::EnvVariable) {
                *file = None;
            }
        }
    }
    Ok(cli)
}

fn matches(args: Vec<OsString>) -> Result<(clap::Command, ArgMatches), clap::Error> {
    if args.get(1).is_some_and(|name| name == "run") {
        let mut command = args::parser_of_run();
        // What is wrong, and what asks for help, the whole definition answers.
        if let Ok(matches) = command.try_get_matches_from_mut(&args) {
            return Ok((command, matches));
        }
    }
    let mut command = args::parser();
    let matches = command.try_get_matches_from_mut(&args)?;
    Ok((command, matches))
}
