//! The `azmutex` command: flock(1) across machines. It uses only the library's public API.

mod args;
mod chain;
mod config;
mod cores;
mod examples;
mod exit;
mod files;
mod logger;
mod output;
mod process;
#[cfg_attr(not(unix), allow(dead_code, reason = "for run"))]
mod processes;
mod run;
mod script;
mod secret_file;
mod sign_in;
mod signals;
mod source;
mod stdin;
mod text;
mod times;
mod usage;
mod value;
mod variables;
mod verbs;
mod wait_display;
mod writer;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches as _};

use self::args::{Cli, Command, Purpose};

fn main() -> ExitCode {
    // The limits on waiting count from here.
    times::since_start();
    cores::leave_none();
    #[cfg(unix)]
    if let Some(code) = run::serve_health_checks() {
        return code;
    }
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => return usage::report(&error),
    };
    let global = &cli.global;
    logger::start(global);
    let code = match &cli.command {
        Command::Run(args) => run::run(args, Purpose::Run, global),
        Command::Elect(args) if !args.looks() => run::run(&args.run, Purpose::Lead(args), global),
        Command::Once(args) if !args.forget => run::run(&args.run, Purpose::Once(args), global),
        command => match verbs::dispatch(command, global) {
            Ok(code) => code.into(),
            Err(failure) => {
                failure.report(global);
                failure.exit().into()
            }
        },
    };
    output::flush(writer::soon());
    code
}

fn parse() -> Result<Cli, clap::Error> {
    let args: Vec<_> = std::env::args_os().collect();
    let (mut command, matches) = matches(&args)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let run = match &cli.command {
        Command::Run(run) => Some(run),
        Command::Once(once) if !once.forget => Some(&once.run),
        Command::Elect(elect) => Some(&elect.run),
        _ => None,
    };
    if let Some(run) = run
        && args.iter().skip_while(|arg| *arg != "--").nth(1) == Some(&OsString::from(&run.lock))
    {
        usage::check_lock(&args)?;
    }
    if let Some(("elect", given)) = matches.subcommand()
        && let Some(option) = args::unknown_to_elect(given)
    {
        let mut error = clap::Error::new(clap::error::ErrorKind::UnknownArgument);
        let option = ContextValue::String(option);
        error.insert(ContextKind::InvalidArg, option);
        return Err(error);
    }
    if let Some(("elect", given)) = matches.subcommand()
        && args::lacks_health_cmd(given)
    {
        return Err(usage::missing("--health-cmd <COMMAND>"));
    }
    // A file with a secret on the command line takes precedence over those in variables.
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

fn matches(args: &[OsString]) -> Result<(clap::Command, ArgMatches), clap::Error> {
    if args.get(1).is_some_and(|name| name == "run") {
        let mut command = args::parser_of_run();
        // Errors and requests for help need the whole definition.
        if let Ok(matches) = command.try_get_matches_from_mut(args) {
            return Ok((command, matches));
        }
    }
    let mut command = args::parser();
    let matches = command.try_get_matches_from_mut(args).map_err(|error| {
        let run = error.kind() == clap::error::ErrorKind::MissingRequiredArgument;
        // `run -- make` lacks a command only because `make` was taken for the lock.
        run.then(|| usage::check_lock(args).err())
            .flatten()
            .unwrap_or(error)
    })?;
    Ok((command, matches))
}
