//! A lock that is held for this process already: to wait for it would never end.

use super::tool::{Tool, finish};

const AZMUTEX: &str = env!("CARGO_BIN_EXE_azmutex");

const HELD: &str = "is already held by a parent azmutex (pid ";

#[test]
fn lock_that_a_parent_holds_is_refused_at_once_at_any_depth() {
    let tool = Tool::new();
    for inner in [
        &["run", "A", "echo", "ran"][..],
        &["hold", "A", "--for-pid", "1"],
        &["acquire", "A"],
    ] {
        for between in [
            &[][..],
            &[AZMUTEX, "run", "B", "--"],
            &[
                "sh",
                "-c",
                "\"$0\" \"$@\"",
                AZMUTEX,
                "run",
                "B",
                AZMUTEX,
                "run",
                "C",
            ],
        ] {
            let args = [&["run", "A", "--"], between, &[AZMUTEX], inner].concat();
            let code = if inner[0] == "run" { 125 } else { 2 };
            let done = tool.run(&args).exits(code).says(&format!("A {HELD}"));
            assert_eq!(done.out, "", "{args:?}");
        }
    }
}

#[test]
fn limited_wait_for_a_lock_that_a_parent_holds_is_one_that_fails() {
    let tool = Tool::new();
    for (inner, code) in [
        (&["run", "-n", "A", "true"][..], 75),
        (&["run", "-w", "1h", "A", "true"], 75),
        (&["run", "-n", "-E", "3", "A", "true"], 3),
        (&["hold", "-n", "A", "--for-pid", "1"], 75),
        (&["acquire", "-n", "A"], 75),
    ] {
        let args = [&["run", "A", "--", AZMUTEX], inner].concat();
        tool.run(&args).exits(code).says(HELD);
    }
}

#[test]
fn parents_lock_is_known_however_the_account_is_written() {
    let tool = Tool::new();
    let connection = tool.emulator().connection_string();
    let endpoint = tool.emulator().endpoint();
    for spelling in [
        endpoint.replace("127.0.0.1", "localhost"),
        endpoint.replace("127.0.0.1", "LocalHost"),
        endpoint.replace("127.0.0.1", "[::1]"),
        format!("{endpoint}/"),
    ] {
        let other = connection.replace(&endpoint, &spelling);
        assert_ne!(other, connection);
        let inner = "AZURE_STORAGE_CONNECTION_STRING=$1 exec \"$0\" run A echo ran";
        tool.run(&["run", "A", "sh", "-c", inner, AZMUTEX, &other])
            .exits(125)
            .says(HELD);
    }
    // Other containers and other names are other locks.
    tool.run(&[
        "run",
        "A",
        AZMUTEX,
        "run",
        "--container",
        "other",
        "A",
        "true",
    ])
    .exits(0);
    tool.run(&["run", "A", AZMUTEX, "run", "a", "true"])
        .exits(0);
}

#[test]
fn variable_of_a_holder_that_is_gone_keeps_nobody_out() {
    let tool = Tool::new();
    let print = ["run", "A", "sh", "-c", "echo \"$AZMUTEX_HELD_LOCKS\""];
    let left = tool.run(&print).exits(0).line().to_owned();
    assert!(left.contains("/A"), "{left}");
    let lock = left.splitn(3, ':').nth(2).unwrap();
    // One of its number, and one that was started at another time: this process.
    for entry in [left.clone(), format!("{}:1:{lock}", std::process::id())] {
        let mut command = tool.command(&["run", "A", "true"]);
        command.env("AZMUTEX_HELD_LOCKS", &entry);
        finish(command).exits(0);
    }
}

#[test]
fn credential_is_passed_on_unless_it_is_withheld() {
    let tool = Tool::new();
    let show = "echo ${AZURE_STORAGE_CONNECTION_STRING:+has it} ${AZMUTEX_KEY_FILE:+and the file}";
    let run = |options: &[&str]| {
        let mut command = tool.command(&[&["run"], options, &["a", "sh", "-c", show]].concat());
        command
            .env("AZMUTEX_KEY_FILE", "/nowhere")
            .env("AZMUTEX_AUTH", "connection-string");
        finish(command).exits(0).out
    };
    assert_eq!(run(&[]), "has it and the file\n");
    assert_eq!(run(&["--no-export-credential"]), "\n");
}

#[cfg(target_os = "linux")]
#[test]
fn core_of_azmutex_is_none_and_that_of_the_command_as_before() {
    let tool = Tool::new();
    let script = "ulimit -c unlimited 2>/dev/null || ulimit -c \"$(ulimit -H -c)\"; ulimit -c; \
                  exec \"$0\" run a sh -c 'ulimit -c; \
                  grep \"^Max core file size\" /proc/$AZMUTEX_PID/limits'";
    let from = tool.command(&[]);
    let mut command = std::process::Command::new("bash");
    command.args(["-c", script, AZMUTEX]);
    for (name, value) in from.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let done = finish(command).exits(0);
    let lines: Vec<_> = done.out.lines().collect();
    assert_eq!(lines[0], lines[1], "{done:?}");
    let soft = lines[2].split_ascii_whitespace().nth(4).unwrap();
    assert!(matches!(soft, "0" | "1"), "{done:?}");
}
