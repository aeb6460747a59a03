//! Errors of the command line, in this program's words: one line that names the argument and the
//! rule, and a hint.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::args;
use crate::exit::Code;
use crate::output::{clean, print, say};

/// Reports an error of the parser, or shows the requested help or version.
pub(crate) fn report(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            print(&error.render().to_string());
            return Code::Done.into();
        }
        // `azmutex` without a command shows the help, but is still an error.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            return Code::Usage.into();
        }
        _ => {}
    }
    let command = subcommand(std::env::args_os().skip(1));
    let (text, hints) = explain(error, command.as_deref());
    let mut out = format!("error: {text}");
    for hint in hints {
        out.push_str("\n  hint: ");
        out.push_str(&hint);
    }
    say(&out);
    match command.as_deref() {
        Some("run") => Code::Usage.in_run().into(),
        _ => Code::Usage.into(),
    }
}

/// The command, as well as it can be told from arguments that did not parse.
fn subcommand(args: impl Iterator<Item = OsString>) -> Option<String> {
    let cli = args::command();
    let mut args = args.map(|arg| arg.to_string_lossy().into_owned());
    while let Some(arg) = args.next() {
        if let Some(name) = arg.strip_prefix("--") {
            let takes_value = cli
                .get_arguments()
                .any(|a| a.get_long() == Some(name) && a.get_action().takes_values());
            if takes_value {
                args.next();
            }
        } else if !arg.starts_with('-') {
            return Some(arg);
        }
    }
    None
}

fn explain(error: &clap::Error, command: Option<&str>) -> (String, Vec<String>) {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let help = match command {
        Some(command) if args::command().find_subcommand(command).is_some() => {
            format!("azmutex {} --help", clean(command))
        }
        _ => "azmutex --help".to_owned(),
    };
    let argument = context(ContextKind::InvalidArg);
    let value = context(ContextKind::InvalidValue);
    match (error.kind(), argument, value) {
        (ErrorKind::ValueValidation, Some(argument), Some(value)) => {
            let rule = std::error::Error::source(error).map(ToString::to_string);
            let rule = rule.unwrap_or_else(|| "it is not valid".to_owned());
            let what = what(&argument, &value);
            (
                format!(
                    "{what}: invalid value \"{}\": {}",
                    shorten(&value),
                    clean(&rule)
                ),
                vec![help],
            )
        }
        (ErrorKind::InvalidValue, Some(argument), Some(value)) => {
            let known = context(ContextKind::ValidValue).unwrap_or_default();
            let rule = if value.is_empty() {
                "it needs a value".to_owned()
            } else {
                format!("invalid value \"{}\": use one of {known}", shorten(&value))
            };
            (format!("{}: {rule}", what(&argument, &value)), vec![help])
        }
        (ErrorKind::UnknownArgument, Some(argument), _) => {
            // `--x=SECRET` is named without its value.
            let name = argument.split('=').next().unwrap_or_default();
            let mut hints = Vec::new();
            if let Some(file) = secret_option(name) {
                hints.push(format!(
                    "secrets do not belong on the command line, where others can see them: use \
                     {file}"
                ));
            } else if let Some(close) = context(ContextKind::SuggestedArg) {
                hints.push(format!("did you mean {close}?"));
            } else if command == Some("run") {
                hints.push("put options of the command after its name, or after --".to_owned());
            }
            hints.push(help);
            (format!("{}: there is no such option", clean(name)), hints)
        }
        (ErrorKind::InvalidSubcommand, ..) => {
            let name = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            let mut hints = Vec::new();
            if let Some(close) = context(ContextKind::SuggestedSubcommand) {
                hints.push(format!("did you mean {close}?"));
            } else {
                hints.push(format!(
                    "to run it under a lock: azmutex run LOCK {}",
                    shorten(&name)
                ));
            }
            hints.push(help);
            (
                format!("{}: there is no such command", shorten(&name)),
                hints,
            )
        }
        (ErrorKind::MissingRequiredArgument, Some(missing), _) => {
            (format!("missing: {}", clean(&missing)), vec![help])
        }
        (ErrorKind::ArgumentConflict, Some(argument), _) => {
            let other = context(ContextKind::PriorArg).unwrap_or_default();
            (
                format!("{} and {}: use one", clean(&argument), clean(&other)),
                vec![help],
            )
        }
        _ => {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let line = text.lines().next().unwrap_or("the arguments are not valid");
            (clean(line), vec![help])
        }
    }
}

/// The option as it was written: its name, or the variable that it came from.
fn what(argument: &str, value: &str) -> String {
    let name = argument.split([' ', '=', '[']).next().unwrap_or_default();
    let on_command_line = std::env::args_os().any(|arg| arg.to_string_lossy().contains(value));
    let variable = format!(
        "AZMUTEX_{}",
        name.trim_start_matches('-')
            .replace('-', "_")
            .to_ascii_uppercase()
    );
    let from_variable = std::env::var(&variable).is_ok_and(|set| set == value);
    if from_variable && (value.is_empty() || !on_command_line) {
        variable
    } else {
        clean(name)
    }
}

/// The option to use instead of one that would take a secret.
fn secret_option(name: &str) -> Option<&'static str> {
    let name = name.trim_start_matches('-');
    match name {
        "account-key" | "key" | "access-key" | "storage-key" => {
            Some("AZURE_STORAGE_KEY or --key-file")
        }
        "sas" | "sas-token" | "token" => Some("AZURE_STORAGE_SAS_TOKEN or --sas-file"),
        "connection-string" => Some("AZURE_STORAGE_CONNECTION_STRING or --connection-string-file"),
        _ => None,
    }
}

fn shorten(text: &str) -> String {
    let mut out: String = clean(text).chars().take(64).collect();
    if clean(text).chars().nth(64).is_some() {
        out.push('…');
    }
    out
}
