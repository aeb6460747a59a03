//! Where account, container and credential come from.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use azmutex::LeaseDuration;

use super::tool::{Done, Tool, bare, finish};

/// A directory of one test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("cli-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;

            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let _ = mode;
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn with(args: &[&str], variables: &[(&str, &str)]) -> Done {
    let mut command: Command = bare(args);
    command.envs(variables.iter().copied());
    finish(command)
}

const KEY: &str = "bXkgc2VjcmV0IGtleQ==";

#[test]
fn nothing_configured_is_told_with_what_to_set() {
    with(&["status", "a"], &[])
        .exits(78)
        .says("azmutex: error: no credential for Azure Storage\n  hint: set AZURE_STORAGE_CONN");
    with(&["status", "a", "--auth", "key"], &[])
        .exits(78)
        .says("there is no account key");
    with(&["status", "a"], &[("AZURE_STORAGE_KEY", KEY)])
        .exits(78)
        .says("no storage account is given\n  hint: set AZURE_STORAGE_ACCOUNT");
}

#[test]
fn account_and_key_are_read_from_variables_and_files() {
    let tool = Tool::new();
    tool.mutex().acquire("a", LeaseDuration::MAX).unwrap();
    let (key, endpoint) = (tool.emulator().key(), tool.emulator().endpoint());
    let account = ("AZURE_STORAGE_ACCOUNT", "devstoreaccount1");
    let args = ["status", "a", "--check", "held"];
    let at = ("AZMUTEX_ENDPOINT", &*endpoint);
    with(&args, &[account, ("AZURE_STORAGE_KEY", key), at]).exits(0);
    // A flag goes before a variable.
    with(
        &[
            &args[..],
            &["--account", "devstoreaccount1", "--endpoint", &endpoint],
        ]
        .concat(),
        &[
            ("AZURE_STORAGE_ACCOUNT", "other"),
            ("AZURE_STORAGE_KEY", key),
            ("AZMUTEX_ENDPOINT", "http://127.0.0.1:9/x"),
        ],
    )
    .exits(0);
    let dir = Dir::new("files");
    let file = dir.file("key", &format!("{key}\n"), 0o600);
    with(
        &[&args[..], &["--key-file", &file]].concat(),
        &[account, at],
    )
    .exits(0);
    with(&args, &[account, at, ("AZMUTEX_KEY_FILE", &file)]).exits(0);
    let file = dir.file("connection", &tool.emulator().connection_string(), 0o400);
    with(
        &[&args[..], &["--connection-string-file", &file]].concat(),
        &[],
    )
    .exits(0);
    // A file on the command line goes before one in a variable.
    let other = ("AZMUTEX_KEY_FILE", "/missing");
    with(
        &[&args[..], &["--connection-string-file", &file]].concat(),
        &[other],
    )
    .exits(0);
    // An empty variable is not set.
    let empty = ("AZURE_STORAGE_CONNECTION_STRING", "");
    with(&args, &[empty, account, ("AZURE_STORAGE_KEY", key), at]).exits(0);
    // The container, too.
    let done = tool.run(&["status", "a", "--container", "others"]);
    done.exits(3);
}

#[cfg(unix)]
#[test]
fn secret_that_others_can_read_is_refused() {
    let dir = Dir::new("modes");
    for (mode, option) in [
        (0o644, "--key-file"),
        (0o640, "--sas-file"),
        (0o604, "--key-file"),
    ] {
        let file = dir.file("secret", KEY, mode);
        let done = with(&["status", "a", "--account", "acct", option, &file], &[]).exits(78);
        done.says(&format!(
            "{option} {file}: others can read this secret (mode {mode:03o})"
        ))
        .says(&format!("hint: chmod 600 {file}"));
    }
    let missing = dir.0.join("missing");
    let missing = missing.to_str().unwrap();
    with(&["status", "a", "--key-file", missing], &[])
        .exits(78)
        .says("No such file");
    let empty = dir.file("empty", " \n", 0o600);
    with(&["status", "a", "--key-file", &empty], &[])
        .exits(78)
        .says("it is empty");
    let directory = dir.0.to_str().unwrap();
    with(&["status", "a", "--key-file", directory], &[])
        .exits(78)
        .says("it is a directory");
}

#[test]
fn credentials_that_cannot_be_are_refused_by_name() {
    let account = ("AZURE_STORAGE_ACCOUNT", "acct");
    let ended = "sv=2021-08-06&se=2001-01-01&sig=s3cret";
    for (variable, value, rule) in [
        (
            "AZURE_STORAGE_KEY",
            "s3cret!",
            "AZURE_STORAGE_KEY: invalid account key: it is not base64",
        ),
        (
            "AZURE_STORAGE_SAS_TOKEN",
            "sv=1",
            "AZURE_STORAGE_SAS_TOKEN: invalid SAS: it has no `sig`",
        ),
        ("AZURE_STORAGE_SAS_TOKEN", ended, "it expired at 2001-01-01"),
        (
            "AZURE_STORAGE_CONNECTION_STRING",
            "AccountName=acct;AccountKey=s3cret!",
            "AZURE_STORAGE_CONNECTION_STRING: invalid account key",
        ),
        (
            "AZURE_STORAGE_CONNECTION_STRING",
            "nonsense",
            "a part has no `=`",
        ),
    ] {
        let done = with(&["status", "a"], &[account, (variable, value)])
            .exits(78)
            .says(rule);
        assert!(!done.err.contains("s3cret"), "{done:?}");
    }
}

#[test]
fn embedded_emulator_needs_no_account() {
    with(&["status", "a", "--emulator"], &[])
        .exits(3)
        .prints("a: no such lock");
    with(
        &["doctor"],
        &[("AZMUTEX_EMULATOR", "1"), ("AZURE_STORAGE_ACCOUNT", "acct")],
    )
    .exits(0)
    .prints("from --emulator");
    let done = with(&["acquire", "a", "--emulator"], &[]).exits(0);
    assert_eq!(done.line().len(), 36);
}

#[test]
fn url_goes_to_no_other_host_than_the_one_configured() {
    let tool = Tool::new();
    let sas = "https://acct.blob.core.windows.net/locks/a?sv=1&SIG=s3cret";
    let done = tool.run(&["status", sas]).exits(2);
    assert!(!done.err.contains("s3cret"));
    done.says("LOCK: the URL holds a SAS")
        .says("hint: put the SAS in AZURE_STORAGE_SAS_TOKEN or --sas-file");
    let before = tool.emulator().requests();
    tool.run(&["status", "https://acct.blob.core.windows.net/locks/a"])
        .exits(2)
        .says("it is not at the endpoint in use, http://127.0.0.1:");
    let key = ("AZURE_STORAGE_KEY", KEY);
    let account = ("AZURE_STORAGE_ACCOUNT", "acct");
    for (url, rule) in [
        (
            "http://acct.blob.core.windows.net/locks/a",
            "it is not at the endpoint in use, https://acct.blob.core.windows.net",
        ),
        (
            "https://acct.example.com/locks/a",
            "it is not at the endpoint in use",
        ),
        (
            "https://other.blob.core.windows.net/locks/a",
            "it is not at the endpoint in use",
        ),
        (
            "https://acct.blob.core.windows.net",
            "it has no container and no blob",
        ),
        (
            "https://acct.blob.core.windows.net/locks",
            "it has a container but no blob",
        ),
        (
            "https://user@acct.blob.core.windows.net/locks/a",
            "cannot have a user or a fragment",
        ),
        (
            "https://acct.blob.core.windows.net/locks/%ff",
            "its name is not UTF-8",
        ),
    ] {
        with(&["status", url], &[key, account]).exits(2).says(rule);
    }
    assert_eq!(tool.emulator().requests(), before);
}

#[test]
fn url_by_itself_does_not_name_the_account_that_gets_the_credential() {
    for secret in [
        ("AZURE_STORAGE_KEY", KEY),
        ("AZURE_STORAGE_SAS_TOKEN", "sv=2021-08-06&sig=c2VjcmV0"),
    ] {
        for host in ["acct.blob.core.windows.net", "acct.blob.example.com"] {
            let url = format!("https://{host}/locks/a");
            with(&["acquire", "-n", &url], &[secret])
                .exits(78)
                .says(&format!(
                    "no storage account is given, so the credential is not sent to \"{host}\""
                ))
                .says("hint: if it is yours: set AZURE_STORAGE_ACCOUNT, or pass --account NAME");
        }
    }
}

/// A named pipe.
#[cfg(unix)]
fn pipe(dir: &Dir, name: &str) -> String {
    let path = dir.0.join(name);
    let status = Command::new("mkfifo")
        .arg("-m")
        .arg("600")
        .arg(&path)
        .status();
    assert!(status.unwrap().success());
    path.to_str().unwrap().to_owned()
}

#[cfg(unix)]
#[test]
fn secret_is_read_from_a_pipe() {
    let tool = Tool::new();
    let dir = Dir::new("pipe");
    let file = pipe(&dir, "connection");
    let mut command = bare(&["acquire", "a", "--connection-string-file", &file]);
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // In two parts, which come whenever they come.
    let text = tool.emulator().connection_string();
    let (first, rest) = text.split_at(20);
    let mut writer = fs::File::options().write(true).open(&file).unwrap();
    std::io::Write::write_all(&mut writer, first.as_bytes()).unwrap();
    std::thread::yield_now();
    std::io::Write::write_all(&mut writer, rest.as_bytes()).unwrap();
    drop(writer);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[cfg(unix)]
#[test]
fn pipe_that_nobody_uses_is_waited_for_within_the_limits() {
    use std::os::unix::process::ExitStatusExt as _;
    use std::time::{Duration, Instant};

    let tool = Tool::new();
    let dir = Dir::new("unused-pipe");
    let file = pipe(&dir, "p");
    let limits: [&[&str]; 3] = [
        &["-w", "1s"],
        &["-n", "--request-timeout", "1s"],
        &["--fault-wait", "1s"],
    ];
    for limit in limits {
        for (verb, code) in [("run", 125), ("acquire", 78), ("hold", 78)] {
            let tail: &[&str] = match verb {
                "run" => &["a", "echo", "ran"],
                "hold" => &["a", "--for-pid", "1"],
                _ => &["a"],
            };
            let started = Instant::now();
            let args = [&[verb][..], limit, &["--key-file", &file], tail].concat();
            with(&args, &[("AZURE_STORAGE_ACCOUNT", "acct")])
                .exits(code)
                .says(&format!(
                    "--key-file {file}: nobody has written to this pipe"
                ));
            assert!(started.elapsed() < Duration::from_secs(4));
        }
        let started = Instant::now();
        let args = [&["run"][..], limit, &["--event-file", &file, "a", "true"]].concat();
        tool.run(&args)
            .exits(125)
            .says("cannot write to it: nobody reads from this pipe");
        assert!(started.elapsed() < Duration::from_secs(4));
    }
    for option in ["--key-file", "--event-file"] {
        let mut command = tool.command(&["run", option, &file, "a", "true"]);
        command.env("AZURE_STORAGE_ACCOUNT", "acct");
        let mut child = command.spawn().unwrap();
        // It waits, also if it is asked before it does.
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(15), "{option}");
    }
}

#[test]
fn request_timeout_bounds_every_command() {
    use std::time::{Duration, Instant};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connection = format!(
        "AccountName=devstoreaccount1;AccountKey={KEY};\
         BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1"
    );
    let set = [("AZURE_STORAGE_CONNECTION_STRING", &*connection)];
    for args in [
        &["status", "a", "--request-timeout", "1s"][..],
        &["list", "--request-timeout", "1s"],
        &["acquire", "-n", "a", "--request-timeout", "1s"],
    ] {
        let started = Instant::now();
        with(args, &set).exits(69).says("timed out");
        let took = started.elapsed();
        assert!(took < Duration::from_secs(5), "{args:?}: {took:?}");
    }
    let variable = ("AZMUTEX_REQUEST_TIMEOUT", "1ms");
    with(&["status", "a"], &[set[0], variable])
        .exits(2)
        .says("AZMUTEX_REQUEST_TIMEOUT: invalid value \"1ms\": it must be at least 100ms");
}
