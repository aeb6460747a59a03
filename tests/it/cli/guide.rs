//! What README and guide tell people to type does what they say.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tool::{Done, Tool, bare, finish};

/// The pages with commands in them.
const PAGES: [&str; 7] = [
    "README.md",
    "src/guide/first_lock.md",
    "src/guide/command.md",
    "src/guide/recipes.md",
    "src/guide/semaphore.md",
    "src/guide/once.md",
    "src/guide/several_locks.md",
];

/// What stands between fences of these kinds may be a command.
const LANGUAGES: [&str; 6] = ["sh", "bash", "crontab", "ini", "yaml", "dockerfile"];

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(path).unwrap()
}

/// The code blocks of a page, with their languages.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let fenced = page.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.split_once('\n')).collect()
}

/// The block of a page that begins so.
fn recipe(name: &str, beginning: &str) -> String {
    let page = page(name);
    let block = blocks(&page)
        .into_iter()
        .find(|(_, text)| text.starts_with(beginning));
    block
        .unwrap_or_else(|| panic!("no {beginning} in {name}"))
        .1
        .to_owned()
}

/// The commands of a page that begin with `azmutex`, for the shell.
fn commands(page: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for (language, text) in blocks(page) {
        if !LANGUAGES.contains(&language) {
            continue;
        }
        for line in text.lines() {
            if let Some(at) = line.find("[\"azmutex\"") {
                let words: Vec<String> = serde_json::from_str(&line[at..]).unwrap();
                let quoted = words.iter().map(|word| format!("'{word}'"));
                commands.push(quoted.collect::<Vec<_>>().join(" "));
            } else if let Some(at) = line.find("azmutex ") {
                let before = line[..at].trim_end_matches("/usr/local/bin/");
                let starts = ["", "- run:", "- script:", "-", "ExecStart="];
                let is_command = starts.contains(&before.trim()) || before.starts_with("0 3 * * *");
                if is_command {
                    commands.push(line[at..].to_owned());
                }
            }
        }
    }
    commands
}

/// A directory with the programs that the guide speaks of: each says that it ran, and under which
/// lock.
struct Programs(PathBuf);

impl Programs {
    const NAMES: [&str; 9] = [
        "deploy.sh",
        "move.sh",
        "migrate.sh",
        "report.sh",
        "build.sh",
        "report",
        "migrate",
        "import",
        "terraform",
    ];

    fn new(name: &str) -> Self {
        let name = format!("guide {name} {}", std::process::id());
        let programs = Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name));
        fs::create_dir_all(&programs.0).unwrap();
        for name in Self::NAMES {
            let says = format!("#!/bin/sh\necho \"{name} under $AZMUTEX_NAME\"\n");
            programs.write(name, &says);
        }
        programs
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Runs a program of the directory, as if all of them were installed.
    fn run(&self, tool: &Tool, program: &str, args: &[&str]) -> Done {
        let from = tool.command(&[]);
        let mut command = Command::new(program);
        for (name, value) in from.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let azmutex = Path::new(env!("CARGO_BIN_EXE_azmutex")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{}:{path}", self.0.display(), azmutex.display());
        finish({
            command.args(args).env("PATH", path).current_dir(&self.0);
            command
        })
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn commands_of_the_guide_run_what_they_say_under_the_lock_they_name() {
    let tool = Tool::new();
    let programs = Programs::new("commands");
    let mut ran = 0;
    for name in PAGES {
        let page = page(name);
        let all = commands(&page);
        assert!(!all.is_empty(), "no commands in {name}");
        for line in all {
            let is_once = line.starts_with("azmutex once") && !line.contains("--forget");
            if !line.contains("azmutex run") && !line.contains("'azmutex' 'run'") && !is_once {
                continue;
            }
            let line = line
                .replace("/usr/local/bin/", "./")
                .replace("/app/", "./")
                .replace("$(Build.BuildId)", "7")
                // The account is the emulator's.
                .replace("--key-file /etc/azmutex.key ", "")
                .replace("--min-hold 1m", "--min-hold 1s");
            let done = programs.run(&tool, "sh", &["-c", &line]).exits(0);
            let says = done.out.contains(" under ") || line.contains("echo");
            assert!(says && !done.out.contains(" under \n"), "{line}: {done:?}");
            ran += 1;
        }
    }
    assert!(ran >= 10, "{ran}");
}

#[test]
fn other_commands_of_the_guide_are_understood() {
    let tool = Tool::new();
    let programs = Programs::new("understood");
    for name in PAGES {
        for line in commands(&page(name)) {
            if line.starts_with("azmutex run") || line.starts_with('\'') {
                continue;
            }
            let done = programs.run(&tool, "sh", &["-c", &line]);
            assert_ne!(done.code, Some(2), "{line}: {done:?}");
        }
    }
}

#[test]
fn script_of_the_guide_starts_itself_again_under_the_lock() {
    let tool = Tool::new();
    let programs = Programs::new("self-exec");
    let line = recipe("src/guide/recipes.md", "[ \"${AZMUTEX_NAME-}\"");
    for shell in ["bash", "dash"] {
        let text = format!("#!/usr/bin/env {shell}\n{line}echo \"worked under $AZMUTEX_NAME\"\n");
        programs.write("work.sh", &text);
        let done = programs.run(&tool, "./work.sh", &[]).exits(0);
        assert_eq!(done.out, "worked under prod/deploy\n", "{shell}");
    }
}

#[test]
fn script_of_the_guide_holds_the_lock_over_several_commands() {
    let tool = Tool::new();
    let programs = Programs::new("hold");
    let text = recipe("src/guide/recipes.md", "coproc azmutex hold");
    programs.write("build.sh", "#!/bin/sh\nazmutex status prod/deploy\n");
    programs.write("deploy.sh", "#!/bin/sh\necho deployed; exit 3\n");
    programs.write("work.sh", &format!("#!/usr/bin/env bash\n{text}"));
    let done = programs.run(&tool, "./work.sh", &[]).exits(3);
    let held = done.out.contains("held by") && done.out.ends_with("deployed\n");
    assert!(held, "{done:?}");
}

const TERMINAL: &str = "src/guide/terminal.md";

/// Set to write the page instead of comparing it.
const WRITE: &str = "AZMUTEX_WRITE_GUIDE";

/// Folded as a page can show it.
fn folded(text: &str) -> String {
    let mut folded = String::new();
    for line in text.lines() {
        let mut columns = 0;
        for word in line.split_inclusive(' ') {
            columns += word.chars().count();
            if columns > 92 {
                folded = format!("{}{FOLD}", folded.trim_end());
                columns = FOLD.len() + word.chars().count();
            }
            folded += word;
        }
        folded.push('\n');
    }
    folded
}

/// The beginning of the rest of a line that was folded.
const FOLD: &str = "\n      ";

/// Without what differs from run to run: numbers, and how far columns are apart.
fn shape(text: &str) -> String {
    let mut shape = String::new();
    for c in text.replace(FOLD, " ").chars() {
        let c = if c.is_ascii_digit() { '0' } else { c };
        if !(shape.ends_with(c) && matches!(c, '0' | ' ')) {
            shape.push(c);
        }
    }
    shape.replace("0.0", "0")
}

#[test]
fn terminal_shows_what_the_guide_shows() {
    let tool = Tool::new();
    let programs = Programs::new("terminal");
    let holder = azmutex::Locker::builder(tool.mutex(), "prod/deploy")
        .owner("ci@build-07")
        .reason("release 812")
        .holder_delay(std::time::Duration::ZERO)
        .build()
        .unwrap();
    let guard = holder.lock().unwrap();
    let before = page(TERMINAL);
    let mut after = String::new();
    let mut is_output = false;
    for line in before.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            let done = programs.run(&tool, "sh", &["-c", &format!("{command} 2>&1")]);
            after += &format!("{line}\n{}", folded(&done.out));
            is_output = true;
            continue;
        }
        is_output &= line != "```";
        if !is_output {
            after += &format!("{line}\n");
        }
    }
    drop(guard);
    if std::env::var_os(WRITE).is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(TERMINAL), &after).unwrap();
    }
    assert_eq!(
        shape(&after),
        shape(&page(TERMINAL)),
        "{WRITE}=1 writes the page"
    );
}

#[test]
fn archives_are_named_as_the_metadata_for_binstall_says() {
    let manifest = page("Cargo.toml");
    let of = |key: &str| {
        let line = manifest.lines().find(|line| line.starts_with(key)).unwrap();
        let value = line.split('"').nth(1).unwrap();
        value.replace("{ target }", "$target")
    };
    let script = page(".ci/archive");
    let name = of("pkg-url").rsplit('/').next().unwrap().to_owned();
    let dir = name.strip_suffix(".tar.gz").unwrap();
    assert!(script.contains(&format!("\ndir={dir}\n")), "{dir}");
    assert!(script.contains("tar czf \"$dir.tar.gz\" \"$dir\"\n"));
    assert_eq!(of("bin-dir"), format!("{dir}/azmutex"));
    let release = page(".github/workflows/release.yml");
    assert!(release.contains("tags: [\"v*\"]") && of("pkg-url").contains("/v{ version }/"));
    assert!(release.contains("run: .ci/archive ${{ matrix.target }}"));
    assert!(release.contains("target/archives/*.tar.gz"));
}

#[test]
fn shell_blocks_of_the_guide_can_be_pasted() {
    let mut checked = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "md") {
            continue;
        }
        for (language, text) in blocks(&fs::read_to_string(&path).unwrap()) {
            if !["sh", "bash"].contains(&language) {
                continue;
            }
            let mut command = Command::new("bash");
            command.args(["-nc", text]);
            let done = finish(command).exits(0);
            assert_eq!(done.err, "", "{}: {text}", path.display());
            checked += 1;
        }
    }
    assert!(checked >= 15, "{checked}");
}

/// In front of a block that is what a command prints.
const SHOWS: &str = "<!-- azmutex doctor --setup";

#[test]
fn setup_prints_what_the_guide_shows() {
    let mut shown = 0;
    for name in [
        "src/guide/first_lock.md",
        "src/guide/signing_in.md",
        "src/guide/signing_in_with_an_identity.md",
    ] {
        let before = page(name);
        let mut after = String::new();
        let mut lines = before.lines();
        while let Some(line) = lines.next() {
            after += &format!("{line}\n");
            let Some(options) = line.strip_prefix(SHOWS) else {
                continue;
            };
            let options = options.trim_end_matches("-->").split_whitespace();
            let args: Vec<_> = ["doctor", "--setup"].into_iter().chain(options).collect();
            let done = finish(bare(&args)).exits(0);
            after += &format!("\n```sh\n{}```\n", done.out);
            let block = lines.by_ref().skip_while(|line| *line != "```sh");
            block.skip(1).find(|line| *line == "```").unwrap();
            shown += 1;
        }
        if std::env::var_os(WRITE).is_some() {
            fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), &after).unwrap();
        }
        // The day on which a SAS ends is another one every day.
        assert_eq!(shape(&after), shape(&page(name)), "{WRITE}=1 writes {name}");
    }
    assert_eq!(shown, 3);
}

#[test]
fn action_runs_its_command_under_the_lock_and_takes_no_input_for_a_script() {
    let tool = Tool::new();
    let programs = Programs::new("action");
    let action = page(".github/actions/azmutex/action.yml");
    let (_, script) = action.rsplit_once("run: |\n").unwrap();
    let lock = "prod/$(touch injected)";
    let run = programs.write(
        "action.sh",
        &format!(
            "export LOCK='{lock}' COMMAND='./deploy.sh && echo $((6 * 7))' ACCOUNT= CONTAINER=locks
             export WAIT=5s GITHUB_REPOSITORY=o/r GITHUB_RUN_ID=7\n{script}"
        ),
    );
    let done = programs
        .run(&tool, "bash", &[run.to_str().unwrap()])
        .exits(0);
    assert_eq!(done.out, format!("deploy.sh under {lock}\n42\n"));
    assert!(!programs.0.join("injected").exists());
}
