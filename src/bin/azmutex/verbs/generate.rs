//! `azmutex completions` and `azmutex man`, made from the same definition as `--help`.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

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

/// One page, in the usual order of sections.
fn page(command: &Command, name: &str) -> io::Result<Vec<u8>> {
    let run = command.get_name() == "run";
    let examples = command.get_after_help().map(ToString::to_string);
    let title = name.to_owned();
    let plain = command.clone().after_help("").after_long_help("");
    let plain = plain
        .display_name(title.clone())
        .bin_name(name.replace('-', " "));
    let man = Man::new(plain).title(title);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
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
    if !matches!(command.get_name(), "completions" | "man") {
        rest.control("SH", ["EXIT STATUS"]);
        for (code, meaning) in exit::rows(run) {
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
