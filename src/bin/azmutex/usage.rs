//! Errors of the command line, in this program's words: one line that names the argument and the
//! rule, and a hint.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::args;
use crate::exit::Code;
use crate::output::{Failure, clean, print, print_line, say, say_object};
use crate::text::{self, shell_word};

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
    let code = match command.as_deref() {
        Some("run" | "once" | "elect") => Code::Usage.in_run(),
        _ => Code::Usage,
    };
    let failure = hints
        .into_iter()
        .fold(Failure::new(code, text), Failure::hint);
    let (json, log_json) = formats();
    if json {
        print_line(&failure.object().to_string());
    }
    if log_json {
        say_object(&failure.object());
    } else {
        say(&failure
            .hints
            .iter()
            .fold(format!("error: {}", failure.text), |text, hint| {
                format!("{text}\n  hint: {hint}")
            }));
    }
    code.into()
}

/// Whether `--json` and `--log-format json` were asked for, as far as arguments that did not parse
/// tell.
fn formats() -> (bool, bool) {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let ours = args.split(|arg| arg == "--").next().unwrap_or_default();
    let set = |name| std::env::var(name).unwrap_or_default().to_ascii_lowercase();
    let json = ours.iter().any(|arg| arg == "--json")
        || !["", "0", "f", "false", "n", "no", "off"].contains(&&*set("AZMUTEX_JSON"));
    let log_json = ours.iter().any(|arg| arg == "--log-format=json")
        || ours
            .windows(2)
            .any(|two| two[0] == "--log-format" && two[1] == "json")
        || set("AZMUTEX_LOG_FORMAT") == "json";
    (json, log_json)
}

/// Refuses the arguments of a run whose LOCK can only be what was meant as the command: all of it
/// stands behind `--`. Names that need `--`, since they begin with a dash, are none of these.
pub(crate) fn check_lock(args: &[OsString]) -> Result<(), clap::Error> {
    let Some(dashes) = args.iter().position(|arg| arg == "--") else {
        return Ok(());
    };
    let (front, behind) = (&args[..dashes], &args[dashes + 1..]);
    let begins_with_dash = |arg: &OsString| arg.as_encoded_bytes().first() == Some(&b'-');
    if behind.first().is_none_or(begins_with_dash) {
        return Ok(());
    }
    let lacks_lock = args::parser()
        .try_get_matches_from_mut(front)
        .is_err_and(|error| {
            let missing = error.get(ContextKind::InvalidArg);
            error.kind() == ErrorKind::MissingRequiredArgument
                && matches!(missing, Some(ContextValue::Strings(all)) if all.iter().any(|one| one == "<LOCK>"))
        });
    if !lacks_lock {
        return Ok(());
    }
    let behind = behind.iter().map(|arg| shell_word(&arg.to_string_lossy()));
    let mut error = clap::Error::new(ErrorKind::MissingRequiredArgument);
    error.insert(
        ContextKind::InvalidArg,
        ContextValue::String("LOCK, in front of `--`".to_owned()),
    );
    error.insert(
        ContextKind::InvalidValue,
        ContextValue::String(behind.collect::<Vec<_>>().join(" ")),
    );
    Err(error)
}

/// That an option is missing.
pub(crate) fn missing(option: &str) -> clap::Error {
    let mut error = clap::Error::new(ErrorKind::MissingRequiredArgument);
    error.insert(
        ContextKind::InvalidArg,
        ContextValue::String(option.to_owned()),
    );
    error
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
            let source = std::error::Error::source(error);
            let rule = match source {
                Some(source) if source.is::<std::num::ParseIntError>() => {
                    "use a whole number".to_owned()
                }
                Some(source) => source.to_string(),
                None => "it is not valid".to_owned(),
            };
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
            if !argument.starts_with('-') {
                let word = shorten(&argument);
                let mut hints = vec![help];
                let what = if command == Some("list") {
                    let prefix = shell_word(&argument);
                    hints.insert(
                        0,
                        format!("names that begin so: azmutex list --prefix {prefix}"),
                    );
                    "list takes no names".to_owned()
                } else {
                    "it is one argument too many".to_owned()
                };
                return (format!("{word}: {what}"), hints);
            }
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
            } else if matches!(command, Some("run" | "once" | "elect")) {
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
            } else if !name.starts_with('-') {
                hints.push(format!(
                    "to run it under a lock: azmutex run LOCK {}",
                    shell_word(&name)
                ));
            }
            hints.push(help);
            (
                format!("{}: there is no such command", shorten(&name)),
                hints,
            )
        }
        (ErrorKind::MissingRequiredArgument, Some(missing), Some(behind)) => (
            format!("missing: {missing}"),
            vec![
                format!(
                    "write: azmutex {} LOCK -- {behind}",
                    command.unwrap_or("run")
                ),
                help,
            ],
        ),
        (ErrorKind::InvalidUtf8, ..) => (not_utf8(), vec![help]),
        (ErrorKind::MissingRequiredArgument, Some(missing), None) => {
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

/// Names the argument or variable that is not UTF-8.
fn not_utf8() -> String {
    let args: Vec<_> = std::env::args_os().collect();
    // What follows it may be the command's, of which nothing is asked.
    let Some(at) = args.iter().position(|arg| arg.to_str().is_none()) else {
        let variables = std::env::vars_os().filter(|(_, value)| value.to_str().is_none());
        let mut names = variables.map(|(name, _)| name.to_string_lossy().into_owned());
        let name = names.find(|name| name.starts_with("AZMUTEX_"));
        return match name {
            Some(name) => format!("{}: its value is not UTF-8", clean(&name)),
            None => "an argument is not UTF-8".to_owned(),
        };
    };
    // What cannot be read may be a secret, if it is an option's value.
    let arg = args[at].to_string_lossy();
    let before = args[at - 1].to_string_lossy();
    match arg.split_once('=') {
        Some((option, _)) if option.starts_with("--") => {
            format!("{}: its value is not UTF-8", clean(option))
        }
        _ if before.starts_with("--") && before.len() > 2 && !before.contains('=') => {
            format!("{}: its value is not UTF-8", clean(&before))
        }
        _ => format!("argument {at}, \"{}\": it is not UTF-8", shorten(&arg)),
    }
}

/// The option as it was written: its name, or the variable that it came from.
fn what(argument: &str, value: &str) -> String {
    let name = argument
        .split([' ', '=', '[', '.'])
        .next()
        .unwrap_or_default();
    let is_given = std::env::args_os().any(|arg| {
        let rest = arg.to_str().and_then(|arg| arg.strip_prefix(name));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    });
    let variable = format!(
        "AZMUTEX_{}",
        name.trim_start_matches('-')
            .replace('-', "_")
            .to_ascii_uppercase()
    );
    if !is_given && std::env::var(&variable).is_ok_and(|set| set == value) {
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
    text::shorten(&clean(text), 64)
}
