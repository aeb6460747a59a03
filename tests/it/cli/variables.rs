//! The guide's list of variables is that of the command and the library.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::tool::{bare, finish};

const PAGE: &str = "src/guide/variables.md";

/// In front of the table of options, which is written by this test.
const OPTIONS: &str = "<!-- options -->\n";

/// Set to write the page instead of comparing it.
const WRITE: &str = "AZMUTEX_WRITE_GUIDE";

/// What is no variable that anyone sets for azmutex: for `az`, and of a test.
const NOT_READ: [&str; 2] = ["AZURE_CORE_NO_COLOR", "AZMUTEX_TEST_ENTRA"];

/// An option with a variable.
struct Option {
    commands: Vec<String>,
    help: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The options that have a variable, by its name, from the man pages.
fn options() -> (BTreeMap<String, Option>, usize) {
    let dir = format!("variables-{}", std::process::id());
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(dir);
    finish(bare(&["man", dir.to_str().unwrap()])).exits(0);
    let mut options: BTreeMap<String, Option> = BTreeMap::new();
    let mut pages = 0;
    let entries = fs::read_dir(&dir).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    // Of what several commands say of one option, the first counts, on every file system the same.
    paths.sort();
    for path in paths {
        let command = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let page = fs::read_to_string(&path).unwrap().replace("\\-", "-");
        let page = page.replace("\\*(Aq", "'");
        pages += 1;
        let items: Vec<_> = page
            .split("\n.TP\n")
            .filter_map(|item| item.split_once('\n'))
            .collect();
        for (variable, meaning) in &items {
            let Some(option) = meaning.strip_prefix("The value of ") else {
                continue;
            };
            let option = option.split(',').next().unwrap().to_owned();
            let (_, help) = items
                .iter()
                .find(|(head, _)| head.contains(&format!("\\fB{option}\\fR")))
                .unwrap_or_else(|| panic!("no {option} in {}", path.display()));
            let help = help.lines().next().unwrap().to_owned();
            let variable = variable.replace("\\fB", "").replace("\\fR", "");
            let named = option[2..].replace('-', "_").to_ascii_uppercase();
            assert_eq!(variable, format!("AZMUTEX_{named}"));
            let found = options.entry(variable).or_insert(Option {
                commands: Vec::new(),
                help,
            });
            if command != "azmutex" {
                let command = command.trim_start_matches("azmutex-").to_owned();
                found.commands.push(command);
            }
        }
    }
    fs::remove_dir_all(&dir).unwrap();
    (options, pages - 1)
}

fn table(options: &BTreeMap<String, Option>, commands: usize) -> String {
    let mut table = "| variable | meaning |\n|---|---|\n".to_owned();
    for (variable, option) in options {
        let mut of = option.commands.clone();
        of.sort();
        let of = match of.len() {
            all if all == commands => String::new(),
            _ => format!("{}: ", of.join(", ")),
        };
        let words = option.help.split(' ').map(|word| {
            let (name, end) = match word.strip_suffix([',', ']']) {
                Some(name) => (name, &word[name.len()..]),
                None => (word, ""),
            };
            match name.contains("://") || name.starts_with("AZURE_") {
                true => format!("`{name}`{end}"),
                // Such as `[default: user@host]`, which is no link.
                false => word.replace('|', "\\|").replace('[', "\\["),
            }
        });
        let help = words.collect::<Vec<_>>().join(" ");
        table += &format!("| `{variable}` | {of}{help} |\n");
    }
    table
}

/// The names in a text that stand between two of these marks.
fn names(text: &str, mark: char) -> BTreeSet<String> {
    let is_name = |text: &&str| {
        ["AZMUTEX_", "AZURE"]
            .iter()
            .any(|start| text.starts_with(start))
            && !text.ends_with('_')
            && text.chars().all(|c| c.is_ascii_uppercase() || c == '_')
    };
    text.split(mark)
        .filter(is_name)
        .map(str::to_owned)
        .collect()
}

/// The names in quotes in the source.
fn names_of_source(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names_of_source(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.extend(names(&fs::read_to_string(&path).unwrap(), '"'));
        }
    }
}

#[test]
fn guide_lists_every_variable_that_is_read_or_set() {
    let before = fs::read_to_string(root().join(PAGE)).unwrap();
    let (start, rest) = before.split_once(OPTIONS).unwrap();
    let rest = &rest[rest.find("\n## ").unwrap()..];
    let (options, commands) = options();
    let after = format!("{start}{OPTIONS}\n{}{rest}", table(&options, commands));
    if std::env::var_os(WRITE).is_some() {
        fs::write(root().join(PAGE), &after).unwrap();
    }
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    assert_eq!(after, page, "{WRITE}=1 writes the page");

    let mut source = BTreeSet::new();
    names_of_source(&root().join("src"), &mut source);
    for name in NOT_READ {
        assert!(source.remove(name), "{name}");
    }
    assert!(source.len() > 70, "{}", source.len());
    assert_eq!(names(&page, '`'), source);
}
