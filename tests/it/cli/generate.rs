//! `--help`, `completions` and `man`: current, because they are made from the same definitions.

use std::fs;
use std::path::Path;

use super::tool::{bare, finish};

const VERBS: [&str; 14] = [
    "run",
    "elect",
    "status",
    "list",
    "break",
    "acquire",
    "renew",
    "release",
    "hold",
    "doctor",
    "emulator",
    "completions",
    "man",
    "schema",
];

#[test]
fn help_of_every_command_teaches_by_example() {
    let top = finish(bare(&["--help"])).exits(0);
    assert!(top.out.contains("Exit status:\n  0 "));
    for verb in VERBS {
        assert!(
            top.out.contains(&format!("\n  {verb} ")),
            "{verb}: {}",
            top.out
        );
        for help in [&[verb, "--help"][..], &[verb, "-h"], &["help", verb]] {
            let done = finish(bare(help)).exits(0);
            assert!(done.out.contains("Examples:\n  "), "{help:?}");
            assert!(done.out.contains(&format!("azmutex {verb}")), "{help:?}");
            assert_eq!(done.err, "");
        }
    }
    let once = finish(bare(&["once", "--help"])).exits(0);
    for text in [
        "0      the command's own status; 0 also if ",
        "or could not record that",
    ] {
        assert!(once.out.contains(text), "{text}: {once:?}");
    }
    for option in ["--slots", "--also", "--resize"] {
        assert!(!once.out.contains(option), "{option}: {once:?}");
    }
    let run = finish(bare(&["run", "--help"])).exits(0);
    for code in ["75 ", "121 ", "125 ", "126 ", "127 ", "128+n "] {
        assert!(run.out.contains(&format!("\n  {code}")), "{code}");
    }
}

#[test]
fn version_is_the_crates() {
    let done = finish(bare(&["--version"])).exits(0);
    assert_eq!(
        done.out,
        concat!("azmutex ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn no_arguments_show_help_and_fail() {
    let done = finish(bare(&[])).exits(2);
    assert!(done.err.contains("Usage: azmutex"));
}

#[test]
fn completions_of_every_shell_know_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let done = finish(bare(&["completions", shell])).exits(0);
        for word in VERBS
            .iter()
            .chain(&["connection-string-file", "on-lost-signal"])
        {
            assert!(done.out.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn man_pages_have_their_sections_and_every_command() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("man-{}", std::process::id()));
    finish(bare(&["man", dir.to_str().unwrap()])).exits(0);
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let top = read("azmutex.1");
    for section in [
        "NAME",
        "SYNOPSIS",
        "OPTIONS",
        "EXAMPLES",
        "\"EXIT STATUS\"",
        "ENVIRONMENT",
    ] {
        assert!(
            top.contains(&format!("\n.SH {section}\n")),
            "{section}: {top}"
        );
    }
    for verb in VERBS {
        assert!(
            top.contains(&format!("azmutex\\-{verb}(1)")),
            "{verb}: {top}"
        );
        let page = read(&format!("azmutex-{verb}.1"));
        assert!(
            page.contains("\n.SH EXAMPLES\n") && page.contains("\n.SH ENVIRONMENT\n"),
            "{verb}"
        );
        assert!(page.contains("AZURE_STORAGE_CONNECTION_STRING"), "{verb}");
    }
    let once = read("azmutex-once.1");
    assert!(once.contains("0 also if it was done before") && once.contains("\\fB121\\fR"));
    let run = read("azmutex-run.1");
    assert!(run.contains("AZMUTEX_ON_LOST") && run.contains("\\fB121\\fR"));
    let synopsis = run.split(".SH SYNOPSIS\n").nth(1).unwrap();
    let synopsis = synopsis.lines().next().unwrap();
    assert!(synopsis.contains("[\\fB\\-\\-nonblock\\fR]"), "{synopsis}");
    assert!(
        synopsis.ends_with("[\\fIGLOBAL OPTIONS\\fR] \\fILOCK\\fR [\\-\\-] \\fICOMMAND ...\\fR"),
        "{synopsis}"
    );
    assert!(
        !synopsis.contains("container") && run.contains(".SH \"GLOBAL OPTIONS\""),
        "{synopsis}"
    );
    fs::remove_dir_all(&dir).unwrap();
    let printed = finish(bare(&["man"])).exits(0);
    assert_eq!(printed.out, top);
}
