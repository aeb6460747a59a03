//! `azmutex completions` and `azmutex man`, made from the same definition as `--help`.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

use super::Outcome;
use crate::args::{CompletionsArgs, ManArgs, command};
use crate::exit::{self, Code};
use crate::output::{Failure, clean, print};

pub(crate) fn completions(args: &CompletionsArgs) -> Outcome {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "azmutex", &mut out);
    print(&String::from_utf8_lossy(&out));
    Ok(Code::Done)
}

/// What every line of JSON holds to.
pub(crate) fn schema() -> Outcome {
    print(include_str!("../schema.json"));
    Ok(Code::Done)
}

pub(crate) fn man(args: &ManArgs) -> Outcome {
    let mut command = command();
    command.build();
    let Some(dir) = &args.dir else {
        let page = page(&command, "azmutex").map_err(|error| failed(Path::new("-"), &error))?;
        print(&String::from_utf8_lossy(&page));
        return Ok(Code::Done);
    };
    fs::create_dir_all(dir).map_err(|error| failed(dir, &error))?;
    let names = command.get_subcommands().map(Command::get_name);
    let names: Vec<_> = names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect();
    write(dir, &command, "azmutex")?;
    for name in names {
        if let Some(sub) = command.find_subcommand(&name) {
            write(dir, sub, &format!("azmutex-{name}"))?;
        }
    }
    Ok(Code::Done)
}

fn write(dir: &Path, command: &Command, name: &str) -> Result<(), Failure> {
    let path = dir.join(format!("{name}.1"));
    page(command, name)
        .and_then(|page| fs::write(&path, page))
        .map_err(|error| failed(&path, &error))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    let path = clean(&path.display().to_string());
    Failure::usage(format!("DIR: cannot write {path}: {error}"))
}

/// The options of the command itself; those of all commands have a section of their own.
fn synopsis(command: &Command, name: &str) -> Roff {
    let mut line = vec![bold(name.replace('-', " ")), roman(" ")];
    for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
        if arg.is_global_set() || arg.is_hide_set() || is_of_clap(arg) {
            continue;
        }
        let (open, close) = if arg.is_required_set() {
            ("", " ")
        } else {
            ("[", "] ")
        };
        line.push(roman(open));
        match (arg.get_long(), arg.get_short()) {
            (Some(long), _) => line.push(bold(format!("--{long}"))),
            (None, Some(short)) => line.push(bold(format!("-{short}"))),
            (None, None) => {}
        }
        if arg.get_action().takes_values() {
            let value = arg.get_value_names().and_then(|names| names.first());
            let value = value.map_or("VALUE", |name| name.as_str());
            let optional = arg
                .get_num_args()
                .is_some_and(|range| range.min_values() == 0);
            line.push(roman(if optional { "[=" } else { " " }));
            line.push(italic(value));
            line.push(roman(if optional { "]" } else { "" }));
        }
        line.push(roman(close));
    }
    line.push(roman("["));
    line.push(italic("GLOBAL OPTIONS"));
    line.push(roman("]"));
    for arg in command.get_positionals() {
        let value = arg.get_value_names().and_then(|names| names.first());
        let value = value.map_or(arg.get_id().as_str(), |name| name.as_str());
        let dots = if takes_many(arg) { " ..." } else { "" };
        // What the command of `run` is given is not azmutex's.
        line.push(roman(if arg.is_trailing_var_arg_set() {
            " [--] "
        } else {
            " "
        }));
        line.push(roman(if arg.is_required_set() { "" } else { "[" }));
        line.push(italic(format!("{value}{dots}")));
        line.push(roman(if arg.is_required_set() { "" } else { "]" }));
    }
    if command.has_subcommands() {
        line.extend([roman(" "), italic("COMMAND"), roman(" ...")]);
    }
    let mut roff = Roff::default();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text(line);
    roff
}

/// Whether clap has added it to every command.
fn is_of_clap(arg: &Arg) -> bool {
    matches!(arg.get_id().as_str(), "help" | "version")
}

fn takes_many(arg: &Arg) -> bool {
    arg.get_num_args()
        .is_some_and(|range| range.max_values() > 1)
}

/// One page, in the usual order of sections.
fn page(command: &Command, name: &str) -> io::Result<Vec<u8>> {
    let run = matches!(command.get_name(), "run" | "elect");
    let examples = command.get_after_help().map(ToString::to_string);
    let title = name.to_owned();
    // The page is made like the short help, and shows all options.
    let plain = command.clone().after_help("").after_long_help("");
    let plain = plain.mut_args(|arg| arg.hide_short_help(false));
    let plain = plain
        .display_name(title.clone())
        .bin_name(name.replace('-', " "));
    let man = Man::new(plain).title(title);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    synopsis(command, name).to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().next().is_some() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::default();
    if let Some(examples) = examples {
        rest.control("SH", ["EXAMPLES"]);
        rest.control("nf", []);
        for line in examples.lines().skip_while(|line| *line == "Examples:") {
            rest.text([roman(line)]);
        }
        rest.control("fi", []);
    }
    if !matches!(command.get_name(), "completions" | "man" | "schema") {
        rest.control("SH", ["EXIT STATUS"]);
        let rows: Vec<_> = match command.get_name() {
            "once" => exit::rows_of_once().collect(),
            "elect" => exit::rows_of_elect().collect(),
            _ => exit::rows(run).collect(),
        };
        for (code, meaning) in rows {
            rest.control("TP", []);
            rest.text([bold(code)]);
            rest.text([roman(meaning)]);
        }
    }
    rest.control("SH", ["ENVIRONMENT"]);
    for (variable, meaning) in crate::args::variables(command) {
        rest.control("TP", []);
        rest.text([bold(variable)]);
        rest.text([roman(meaning)]);
    }
    rest.to_writer(&mut page)?;
    Ok(page)
}
