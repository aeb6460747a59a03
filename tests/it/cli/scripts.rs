//! The recipes for shell scripts: nothing works without the lock.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use azmutex::LeaseDuration;

use super::tool::{Done, Running, Tool, bare, finish};
use crate::support::eventually;

/// A directory with scripts of one test.
struct Scripts(PathBuf);

impl Scripts {
    fn new(name: &str) -> Self {
        let name = format!("scripts {name} {}", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The search path with the tool on it, as after an installation.
fn installed() -> String {
    let tool = Path::new(env!("CARGO_BIN_EXE_azmutex")).parent().unwrap();
    format!("{}:{}", tool.display(), std::env::var("PATH").unwrap())
}

/// A script as a command with the environment of `tool`.
fn script(tool: &Tool, path: &Path, args: &[&str]) -> Command {
    let mut from = tool.command(&[]);
    from.env("PATH", installed());
    moved(&from, path, args)
}

/// The same without a credential.
fn without_credential(path: &Path) -> Command {
    let mut from = bare(&[]);
    from.env("PATH", installed());
    moved(&from, path, &[])
}

/// The environment of one command for another.
fn moved(from: &Command, program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn is_free(tool: &Tool, lock: &str) -> bool {
    let status = tool.mutex().status(lock);
    status.is_ok_and(|status| status.state().is_free())
}

#[track_caller]
fn deploys_nothing(done: &Done) {
    assert!(!done.out.contains("deployed"), "{done:?}");
    assert_ne!(done.code, Some(0), "{done:?}");
}

fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    !state.is_empty() && !state.starts_with('Z')
}

#[track_caller]
fn dies(pid: &str) {
    eventually(|| (!is_alive(pid)).then_some(()));
}

fn kill(pid: &str, signal: &str) {
    let status = Command::new("kill").args(["-s", signal, pid]).status();
    assert!(status.unwrap().success());
}

const SHELLS: [&str; 2] = ["bash", "dash"];

fn self_exec(shell: &str, lock: &str, options: &str) -> String {
    format!(
        "#!/usr/bin/env {shell}\n\
         [ \"${{AZMUTEX_NAME-}}\" = '{lock}' ] || exec azmutex run {options} '{lock}' -- \"$0\" \"$@\"\n\
         azmutex status --check mine '{lock}' || exit 99\n\
         printf 'deployed <%s>\\n' \"$@\"\n"
    )
}

#[test]
fn script_that_runs_itself_under_the_lock_gets_its_arguments_unchanged() {
    let tool = Tool::new();
    let scripts = Scripts::new("self-exec");
    let url = tool.mutex().url("prod/deploy");
    for shell in SHELLS {
        for lock in ["prod/deploy", &url, "a name with blanks"] {
            let path = scripts.write("deploy.sh", &self_exec(shell, lock, ""));
            let args = ["two words", "", "it's \"$x\" *", "--wait"];
            let done = finish(script(&tool, &path, &args)).exits(0);
            assert_eq!(
                done.out,
                "deployed <two words>\ndeployed <>\ndeployed <it's \"$x\" *>\ndeployed <--wait>\n",
                "{shell} {lock}"
            );
        }
        assert!(is_free(&tool, "prod/deploy"));
    }
}

#[test]
fn script_that_runs_itself_does_nothing_without_the_lock() {
    let tool = Tool::new();
    let scripts = Scripts::new("self-exec without");
    tool.mutex().acquire("held", LeaseDuration::MAX).unwrap();
    for shell in SHELLS {
        let path = scripts.write("deploy.sh", &self_exec(shell, "prod/deploy", ""));
        let done = finish(without_credential(&path)).exits(125);
        deploys_nothing(&done);
        let mut missing = script(&tool, &path, &[]);
        missing.env("PATH", "/usr/bin:/bin");
        deploys_nothing(&finish(missing).exits(127));
        let path = scripts.write("waits.sh", &self_exec(shell, "held", "-w 500ms"));
        deploys_nothing(&finish(script(&tool, &path, &[])).exits(75));
    }
}

/// The recipe of `azmutex hold --help`.
fn hold(lock: &str, options: &str, work: &str) -> String {
    format!(
        "#!/usr/bin/env bash\n\
         coproc azmutex hold {options} '{lock}' --ready --for-pid $$ --on-lost-signal TERM\n\
         read -r line <&\"${{COPROC[0]}}\" && [ \"$line\" = READY ] || exit\n\
         {work}\n\
         exec {{COPROC[1]}}>&-\n\
         wait\n"
    )
}

#[test]
fn script_that_holds_the_lock_works_and_releases_it() {
    let tool = Tool::new();
    let scripts = Scripts::new("hold");
    let path = scripts.write(
        "deploy.sh",
        &hold("a", "", "azmutex status a; echo deployed"),
    );
    let done = finish(script(&tool, &path, &[])).exits(0);
    assert!(
        done.out.contains("held by") && done.out.ends_with("deployed\n"),
        "{done:?}"
    );
    assert!(is_free(&tool, "a"));
}

#[test]
fn script_that_cannot_hold_the_lock_does_nothing() {
    let tool = Tool::new();
    let scripts = Scripts::new("hold without");
    tool.mutex().acquire("held", LeaseDuration::MAX).unwrap();
    let path = scripts.write("deploy.sh", &hold("a", "", "echo deployed"));
    deploys_nothing(&finish(without_credential(&path)));
    let mut missing = script(&tool, &path, &[]);
    missing.env("PATH", "/usr/bin:/bin");
    deploys_nothing(&finish(missing).says("azmutex: command not found"));
    let path = scripts.write("waits.sh", &hold("held", "-w 2s", "echo deployed"));
    let done = finish(script(&tool, &path, &[])).says("not acquired within 2s");
    deploys_nothing(&done);
}

#[cfg(target_os = "linux")]
mod processes {
    use super::*;

    /// A script that holds the lock `a` while its last command, whose ID it prints, runs.
    fn working(tool: &Tool, scripts: &Scripts, before: &str, command: &str) -> (Running, String) {
        let work = format!("{before}\n{command}\necho never");
        let path = scripts.write("deploy.sh", &hold("a", "--renew-every 1s", &work));
        let running = Running::start(script(tool, &path, &[]));
        let pid = running.line();
        assert!(is_alive(&pid), "{pid}");
        (running, pid)
    }

    const FOREGROUND: &str = "bash -c 'echo $$; exec sleep 600'";

    #[test]
    fn lock_is_kept_while_a_command_of_the_killed_script_runs() {
        let tool = Tool::new();
        let scripts = Scripts::new("killed");
        let (script, pid) = working(&tool, &scripts, "", FOREGROUND);
        kill(&script.id().to_string(), "KILL");
        script.says("a is kept until what the script has started has ended too: ");
        tool.run(&["acquire", "-n", "a"]).exits(75);
        assert!(is_alive(&pid), "it is left alone");
        kill(&pid, "KILL");
        eventually(|| is_free(&tool, "a").then_some(()));
    }

    #[test]
    fn lock_is_kept_for_what_a_command_of_the_killed_script_starts_later() {
        let tool = Tool::new();
        let scripts = Scripts::new("later");
        // It stays for a second, in which what it started can be seen.
        let command = "bash -c 'echo $$; trap : USR1; sleep 600 & wait $!; kill $!; \
                       setsid sleep 601 & echo $! >&2; sleep 1'";
        let (script, pid) = working(&tool, &scripts, "", command);
        kill(&script.id().to_string(), "KILL");
        script.says("a is kept until");
        kill(&pid, "USR1");
        let late = script.says("");
        dies(&pid);
        tool.run(&["acquire", "-n", "a"]).exits(75);
        kill(&late, "KILL");
        eventually(|| is_free(&tool, "a").then_some(()));
    }

    /// A script that goes on after one of its commands has ended, and the ID of what that left
    /// behind.
    fn left_behind(tool: &Tool, scripts: &Scripts) -> (Running, String) {
        // It stays for a second, in which what it started can be seen, and is gone for another.
        let command = "bash -c 'sleep 600 >&2 & echo $!; sleep 1'\nsleep 1\necho next\nread -r go";
        let (script, pid) = working(tool, scripts, "", command);
        assert_eq!(script.line(), "next", "the command is gone");
        (script, pid)
    }

    #[test]
    fn lock_is_kept_for_what_a_command_of_the_script_left_behind_long_before_its_end() {
        let tool = Tool::new();
        let scripts = Scripts::new("left behind");
        let (script, pid) = left_behind(&tool, &scripts);
        kill(&script.id().to_string(), "KILL");
        script.says(&format!("what the script has started has ended too: {pid}"));
        tool.run(&["acquire", "-n", "a"]).exits(75);
        kill(&pid, "KILL");
        eventually(|| is_free(&tool, "a").then_some(()));
    }

    #[test]
    fn loss_ends_what_a_command_of_the_script_left_behind() {
        let tool = Tool::new();
        let scripts = Scripts::new("left behind and lost");
        let (mut script, pid) = left_behind(&tool, &scripts);
        tool.run(&["break", "a", "--yes", "--now"]).exits(0);
        script.says("lock a lost: ");
        dies(&pid);
        script.wait();
    }

    #[test]
    fn lock_is_kept_for_what_ran_when_stdin_ended_and_not_for_what_came_later() {
        let tool = Tool::new();
        let scripts = Scripts::new("stdin");
        let text = "#!/usr/bin/env bash\n\
                    coproc azmutex hold a --ready --for-pid $$\n\
                    read -r line <&\"${COPROC[0]}\" && [ \"$line\" = READY ] || exit\n\
                    sleep 600 & echo $!\n\
                    exec {COPROC[1]}>&-\n\
                    read -r go\n\
                    sleep 600 & echo $!\n\
                    read -r go\n";
        let path = scripts.write("deploy.sh", text);
        let mut script = Running::start(script(&tool, &path, &[]));
        let first = script.line();
        script.says("a is kept until what the script has started has ended too: ");
        script.write("go\n");
        let second = script.line();
        tool.run(&["acquire", "-n", "a"]).exits(75);
        kill(&first, "KILL");
        eventually(|| is_free(&tool, "a").then_some(()));
        assert!(is_alive(&second));
        kill(&second, "KILL");
    }

    #[test]
    fn loss_ends_the_command_of_the_script_and_the_script() {
        let tool = Tool::new();
        let scripts = Scripts::new("loss");
        for before in ["", "trap 'echo trapped; exit 3' TERM"] {
            let (mut script, pid) = working(&tool, &scripts, before, FOREGROUND);
            tool.run(&["break", "a", "--yes", "--now"]).exits(0);
            script.says("lock a lost: the lease was broken by another client; sent SIGTERM to");
            dies(&pid);
            if before.is_empty() {
                script.wait();
            } else {
                assert_eq!(script.line(), "trapped");
                assert_eq!(script.wait().code(), Some(3));
            }
            eventually(|| is_free(&tool, "a").then_some(()));
        }
    }

    #[test]
    fn loss_kills_what_does_not_end_by_the_signal() {
        let tool = Tool::new();
        let scripts = Scripts::new("stubborn");
        let command = "bash -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done'";
        let (mut script, pid) = working(&tool, &scripts, "trap : TERM", command);
        let started = Instant::now();
        tool.run(&["break", "a", "--yes", "--now"]).exits(0);
        script.says(", SIGKILL in 5s");
        dies(&pid);
        script.wait();
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn service_that_is_silent_ends_the_script_before_its_lease_does() {
        let emulator = azmutex::emulator::Emulator::start().unwrap();
        let tool = Tool::of(emulator.connection_string());
        let scripts = Scripts::new("silent");
        let work = format!("{FOREGROUND}\necho never");
        let path = scripts.write("deploy.sh", &hold("a", "--lease 15s", &work));
        let mut script = Running::start(script(&tool, &path, &[]));
        let pid = script.line();
        let started = Instant::now();
        drop(emulator);
        script.says("error: lock a lost: no renewal was confirmed in time; sent SIGTERM to");
        dies(&pid);
        script.wait();
        assert!(started.elapsed() < Duration::from_secs(15));
    }
}

#[test]
fn loss_is_said_once() {
    let tool = Tool::new();
    let mut script = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let pid = script.id().to_string();
    for signal in [&[][..], &["--on-lost-signal", "TERM"]] {
        let args = [
            "hold",
            "a",
            "--for-pid",
            &pid,
            "--renew-every",
            "1s",
            "--ready",
        ];
        let mut command = tool.command(&[&args[..], signal].concat());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut hold = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        let out = hold.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut ready).unwrap();
        tool.run(&["break", "a", "--yes", "--now"]).exits(0);
        let output = hold.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(121));
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(err.matches("lost").count(), 1, "{err}");
    }
    script.wait().unwrap();
}

#[test]
fn lease_that_nobody_can_learn_of_is_not_taken() {
    let tool = Tool::new();
    let scripts = Scripts::new("closed");
    let path = scripts.write("acquire.sh", "#!/bin/sh\nexec azmutex acquire a >&-\n");
    finish(script(&tool, &path, &[]))
        .exits(2)
        .says("stdout is closed, so nobody would see the lease ID");
    assert!(tool.mutex().status("a").is_err(), "nothing was asked");
    // On purpose.
    let path = scripts.write(
        "thrown.sh",
        "#!/bin/sh\nexec azmutex acquire a >/dev/null\n",
    );
    finish(script(&tool, &path, &[])).exits(0);
}

#[test]
fn proxy_that_refuses_is_named() {
    for verb in [
        &["acquire", "-w", "1s", "a"][..],
        &["run", "-w", "1s", "a", "true"],
        &["hold", "-w", "1s", "a", "--for-pid", "1"],
    ] {
        let mut command = bare(verb);
        command
            .env("AZURE_STORAGE_ACCOUNT", "acct")
            .env("AZURE_STORAGE_KEY", "bXkgc2VjcmV0IGtleQ==")
            .env("HTTPS_PROXY", "http://127.0.0.1:9");
        finish(command).says("the connection was refused (proxy 127.0.0.1:9");
    }
}
