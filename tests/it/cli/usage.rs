//! Bad input: each gets one line that names it and the rule, and a hint.

use std::process::Stdio;

use super::tool::{Tool, bare, finish};

#[test]
fn bad_input_is_named_with_its_rule_and_a_hint() {
    let rows: [(&[&str], &str); 25] = [
        (
            &["stat"],
            "stat: there is no such command\n  hint: did you mean status?",
        ),
        (
            &["terraform"],
            "terraform: there is no such command\n  hint: to run it under a lock: azmutex run LOCK terraform",
        ),
        (
            &["help", "--help"],
            "--help: there is no such command\n  hint: azmutex --help",
        ),
        (&["status"], "missing: <LOCK>..."),
        (&["renew", "a"], "missing: --lease-id <ID>"),
        (
            &["status", "--prefixx", "a"],
            "--prefixx: there is no such option",
        ),
        (
            &["acquire", "a", "-w", "10min"],
            "--wait: invalid value \"10min\": use e.g. 90s, 10m, 1h",
        ),
        (
            &["acquire", "a", "-w", ""],
            "--wait: invalid value \"\": use e.g. 90s",
        ),
        (
            &["acquire", "a", "--lease", "5s"],
            "--lease: invalid value \"5s\": a lease is 15s to 60s",
        ),
        (
            &["hold", "a", "--lease", "infinite"],
            "--lease: invalid value \"infinite\": an infinite lease",
        ),
        (
            &["hold", "a", "--for-pid", "0"],
            "--for-pid: invalid value \"0\": a process ID is",
        ),
        (
            &["hold", "a", "--for-pid", "1", "--on-lost-signal", "X"],
            "invalid value \"X\": use a name such as TERM",
        ),
        (
            &["hold", "a", "--on-lost-signal", "TERM"],
            "missing: --for-pid <PID>",
        ),
        (
            &["renew", "a", "--lease-id", "x"],
            "--lease-id: invalid value \"x\": use a GUID such as",
        ),
        (
            &["break", "a", "--period", "61"],
            "--period: invalid value \"61\": a break period is 0s to 60s",
        ),
        (
            &["break", "a", "--now", "--period", "1"],
            "--now and --period <DURATION>: use one",
        ),
        (&["list", "--held", "--free"], "--held and --free: use one"),
        (
            &["status", "a", "--check", "mien"],
            "--check: invalid value \"mien\": use one of held, free, mine",
        ),
        (
            &["status", "a", "--auth", "x"],
            "--auth: invalid value \"x\": use one of auto, key, sas, connection-string",
        ),
        (
            &["completions", "tcsh"],
            "invalid value \"tcsh\": use one of bash",
        ),
        (
            &["status", ""],
            "LOCK \"\": a key is a blob name of 1 to 1024 characters",
        ),
        (
            &["status", "a/"],
            "LOCK \"a/\": a blob name cannot start or end with `/`",
        ),
        (
            &["status", "a", "--container", "No"],
            "invalid container name `No`",
        ),
        (
            &["status", "a", "--key-file", "x", "--sas-file", "y"],
            "--key-file and --sas-file: use one",
        ),
        (
            &["status", "a", "--account-key=s3cret"],
            "--account-key: there is no such option\n  hint: secrets do not belong on the command \
             line",
        ),
    ];
    let tool = Tool::new();
    for (args, text) in rows {
        let done = tool.run(args).exits(2);
        assert_eq!(done.out, "", "{args:?}");
        assert!(
            done.err.starts_with(&format!("azmutex: error: {text}")) || done.err.contains(text),
            "{args:?}: {done:?}"
        );
        assert!(done.err.starts_with("azmutex: error: "), "{done:?}");
        assert!(done.err.contains("\n  hint: "), "{args:?}: {done:?}");
        assert!(
            done.err
                .lines()
                .skip(1)
                .all(|line| line.starts_with("  hint: ")),
            "{done:?}"
        );
        assert!(!done.err.contains("s3cret"), "{done:?}");
    }
    assert_eq!(tool.emulator().requests(), 0);
}

#[test]
fn bad_input_to_run_exits_as_run_does() {
    let tool = Tool::new();
    for args in [
        &["run"][..],
        &["run", "a"],
        &["run", "a", "--bogus", "make"],
        &["--container", "status", "run", "-w", "x", "a", "make"],
        &["run", "--lease", "infinite", "a", "make"],
        &["run", "-E", "600", "a", "make"],
    ] {
        tool.run(args)
            .exits(125)
            .says("azmutex: error: ")
            .says("  hint: azmutex run --help");
    }
    for args in [
        &["once"][..],
        &["once", "a"],
        &["once", "--every", "x", "a", "make"],
        &["once", "--done-exit-code", "600", "a", "make"],
    ] {
        tool.run(args)
            .exits(125)
            .says("azmutex: error: ")
            .says("  hint: azmutex once --help");
    }
    for args in [&["once", "--", "make"][..], &["once", "--", "make", "all"]] {
        tool.run(args)
            .exits(125)
            .says("azmutex: error: missing: LOCK, in front of `--`\n")
            .says("  hint: write: azmutex once LOCK -- make");
    }
}

#[test]
fn variable_with_a_bad_value_is_named() {
    for (variable, value, text) in [
        (
            "AZMUTEX_WAIT",
            "10min",
            "AZMUTEX_WAIT: invalid value \"10min\": use e.g.",
        ),
        (
            "AZMUTEX_LEASE",
            "5",
            "AZMUTEX_LEASE: invalid value \"5\": a lease is",
        ),
        (
            "AZMUTEX_VERBOSE",
            "loud",
            "AZMUTEX_VERBOSE: invalid value \"loud\": use a whole number",
        ),
        // The lock has that letter in its name, too.
        (
            "AZMUTEX_RENEW_EVERY",
            "a",
            "AZMUTEX_RENEW_EVERY: invalid value \"a\": use e.g.",
        ),
        (
            "AZMUTEX_COLOR",
            "red",
            "AZMUTEX_COLOR: invalid value \"red\": use one of auto",
        ),
        (
            "AZMUTEX_JSON",
            "maybe",
            "AZMUTEX_JSON: invalid value \"maybe\": use true or false",
        ),
        (
            "AZMUTEX_QUIET",
            "yes",
            "AZMUTEX_QUIET: invalid value \"yes\": use true or false",
        ),
        (
            "AZMUTEX_ALLOW_INSECURE_SECRET_FILE",
            "2",
            "AZMUTEX_ALLOW_INSECURE_SECRET_FILE: invalid value \"2\": use true or false",
        ),
    ] {
        let mut command = Tool::new().command(&["hold", "a"]);
        command.env(variable, value);
        finish(command).exits(2).says(text);
    }
}

#[test]
fn variables_of_options_that_are_not_given_count() {
    let tool = Tool::new();
    tool.run(&["acquire", "a"]).exits(0);
    let mut command = tool.command(&["acquire", "a"]);
    command.env("AZMUTEX_WAIT", "0");
    finish(command).exits(75);
    let mut command = tool.command(&["status", "a"]);
    command.env("AZMUTEX_JSON", "1");
    assert_eq!(finish(command).exits(0).json()["lock"], "a");
    let mut command = tool.command(&["status", "a"]);
    command.env("AZMUTEX_JSON", "\"False\"\r");
    finish(command).exits(0).prints("a: held by");
    // Every switch is read alike.
    for switch in [
        "NO_GUARDIAN",
        "NO_PDEATHSIG",
        "NO_FENCING",
        "NO_EXPORT_LEASE_ID",
        "NO_EXPORT_CREDENTIAL",
        "NO_INPUT",
        "EMULATOR",
        "ALLOW_INSECURE_HTTP",
    ] {
        let variable = format!("AZMUTEX_{switch}");
        let mut command = tool.command(&["run", "b", "true"]);
        command.env(&variable, "maybe");
        finish(command).exits(125).says(&format!(
            "{variable}: invalid value \"maybe\": use true or false"
        ));
    }
}

#[test]
fn variable_that_is_empty_is_not_set() {
    let tool = Tool::new();
    let mut command = tool.command(&["acquire", "a"]);
    for variable in [
        "AZMUTEX_WAIT",
        "AZMUTEX_LEASE",
        "AZMUTEX_CONTAINER",
        "AZMUTEX_VERBOSE",
    ] {
        command.env(variable, "");
    }
    finish(command).exits(0);
}

#[test]
fn errors_are_objects_where_output_is() {
    let tool = Tool::new();
    tool.run(&["acquire", "a"]).exits(0);
    let object = tool.run(&["acquire", "-n", "a", "--json"]).exits(75).json();
    assert_eq!(
        (&object["schema"], &object["exit"]),
        (&1.into(), &75.into())
    );
    assert!(
        object["message"]
            .as_str()
            .unwrap()
            .starts_with("cannot acquire a")
    );
    let object = tool
        .run(&["list", "--json", "--container", "none"])
        .exits(3)
        .json();
    assert_eq!(object["service_code"], "ContainerNotFound");
    let id = object["request_id"].as_str().unwrap();
    assert_eq!(id.len(), 36);
    tool.run(&["list", "-v", "--container", "none"])
        .exits(3)
        .says("(request id ");
    let quiet = tool.run(&["list", "--container", "none"]).exits(3);
    assert!(!quiet.err.contains("request id"));
    let logged = tool
        .run(&["list", "--log-format", "json", "--container", "none"])
        .exits(3);
    let line: serde_json::Value = serde_json::from_str(&logged.err).unwrap();
    assert_eq!(line["level"], "error");
}

#[test]
fn colours_are_for_those_who_ask() {
    let tool = Tool::new();
    let plain = tool.run(&["list"]).exits(3);
    assert!(!plain.err.contains('\u{1b}'));
    let coloured = tool.run(&["list", "--color", "always"]).exits(3);
    assert!(coloured.err.contains("\u{1b}[1;31merror\u{1b}[0m: "));
    let mut command = tool.command(&["list"]);
    command.env("CLICOLOR_FORCE", "1");
    assert!(finish(command).err.contains('\u{1b}'));
    let mut command = tool.command(&["list"]);
    command.env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1");
    assert!(!finish(command).err.contains('\u{1b}'));
}

#[test]
fn reader_that_goes_away_is_no_failure() {
    for args in [&["--help"][..], &["man"], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = bare(args);
        let output = command
            .stdout(writer)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(output.stderr, b"", "{args:?}");
    }
}

#[test]
#[cfg_attr(windows, ignore = "`run` is not supported on Windows yet")]
fn run_whose_lock_was_forgotten_does_not_take_the_command_for_it() {
    for (args, missing) in [
        (
            &["run", "--", "echo", "hi there"][..],
            "azmutex run LOCK -- echo 'hi there'",
        ),
        (&["run", "--", "make"], "azmutex run LOCK -- make"),
        (&["elect", "--", "make"], "azmutex elect LOCK -- make"),
        (
            &["run", "-n", "-w", "5s", "--", "make", "-j4"],
            "azmutex run LOCK -- make -j4",
        ),
        (
            &["--container", "c", "run", "--", "make", "all"],
            "azmutex run LOCK -- make all",
        ),
    ] {
        finish(bare(args))
            .exits(125)
            .says("azmutex: error: missing: LOCK, in front of `--`\n")
            .says(&format!("hint: write: {missing}\n"));
    }
    let tool = Tool::new();
    for args in [
        &["run", "echo", "--", "echo", "x"][..],
        &["run", "a", "echo", "--", "a"],
        &["run", "-n", "a", "--", "echo", "a"],
        &["run", "--", "-begins-with-a-dash", "echo", "x"],
    ] {
        tool.run(args).exits(0);
    }
}

#[test]
fn argument_too_many_is_answered_with_what_was_meant() {
    for (args, text) in [
        (
            &["list", "no pe/"][..],
            "no pe/: list takes no names\n  hint: names that begin so: azmutex list --prefix 'no pe/'",
        ),
        (&["acquire", "a", "b"], "b: it is one argument too many"),
        (
            &["terra form"],
            "hint: to run it under a lock: azmutex run LOCK 'terra form'",
        ),
    ] {
        finish(bare(args)).exits(2).says(text);
    }
}

#[cfg(unix)]
#[test]
fn argument_that_is_not_utf_8_is_named() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let bad = OsStr::from_bytes(b"a\xff");
    let tool = Tool::new();
    for (front, behind, code, text) in [
        (
            &["status"][..],
            &[][..],
            2,
            "argument 2, \"a\u{fffd}\": it is not UTF-8",
        ),
        (
            &["run", "-n"],
            &["true"],
            125,
            "argument 3, \"a\u{fffd}\": it is not UTF-8",
        ),
        (
            &["acquire", "a", "--owner"],
            &[],
            2,
            "--owner: its value is not UTF-8",
        ),
    ] {
        let mut command = bare(front);
        command.arg(bad).args(behind);
        finish(command)
            .exits(code)
            .says(&format!("azmutex: error: {text}"));
    }
    let mut command = bare(&["list"]);
    command.env("AZMUTEX_PREFIX", bad);
    finish(command)
        .exits(2)
        .says("AZMUTEX_PREFIX: its value is not UTF-8");
    // The command may be given anything.
    let mut command = tool.command(&["run", "a", "echo"]);
    assert_eq!(command.arg(bad).status().unwrap().code(), Some(0));
}
