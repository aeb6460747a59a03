//! Where account, container and credential come from.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use azmutex::LeaseDuration;

use super::tool::{Done, Tool, bare, finish};
use crate::support::account::Account;

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
fn secret_that_others_can_read_is_used_with_a_warning_or_refused() {
    let tool = Tool::new();
    let dir = Dir::new("modes");
    let refused = |done: Done, file: &str, why: &str| {
        done.exits(78)
            .says(&format!("--key-file {file}: {why}"))
            .says(&format!("hint: chmod 600 {file}"))
            .says("--allow-insecure-secret-file, or AZMUTEX_ALLOW_INSECURE_SECRET_FILE=1");
    };
    let endpoint = tool.emulator().endpoint();
    let set = [
        ("AZURE_STORAGE_ACCOUNT", "devstoreaccount1"),
        ("AZMUTEX_ENDPOINT", &*endpoint),
    ];
    let allowed = [&set[..], &[("AZMUTEX_ALLOW_INSECURE_SECRET_FILE", "1")]].concat();
    for (mode, what, is_refused) in [
        (0o440, "read", false),
        (0o640, "read", false),
        (0o444, "read", true),
        (0o644, "read", true),
        (0o604, "read", true),
        (0o620, "write", true),
        (0o666, "write", true),
    ] {
        let file = dir.file(&format!("{mode:o}"), tool.emulator().key(), mode);
        let args = ["status", "a", "--key-file", &file];
        let why = format!("others can {what} this secret (mode {mode:03o})");
        if is_refused {
            refused(with(&args, &set), &file, &why);
        } else {
            with(&args, &set)
                .exits(3)
                .says(&format!("azmutex: warning: --key-file {file}: {why}"));
        }
        with(&args, &allowed)
            .exits(3)
            .says(&format!("warning: --key-file {file}: {why}"));
        let args = [&args[..], &["--allow-insecure-secret-file", "-q"]].concat();
        let done = with(&args, &set).exits(3);
        assert_eq!(done.err, "");
    }
    let file = dir.file("quiet", tool.emulator().key(), 0o600);
    let done = with(&["status", "a", "--key-file", &file], &set).exits(3);
    assert_eq!(done.err, "");
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

#[cfg(unix)]
#[test]
fn secret_is_read_as_it_is_mounted_or_the_file_says_what_is_wrong() {
    let tool = Tool::new();
    let dir = Dir::new("forms");
    let endpoint = tool.emulator().endpoint();
    let set = [
        ("AZURE_STORAGE_ACCOUNT", "devstoreaccount1"),
        ("AZMUTEX_ENDPOINT", &*endpoint),
    ];
    let key = tool.emulator().key();
    let write = |bytes: &[u8]| {
        let file = dir.file("key", "", 0o600);
        fs::write(&file, bytes).unwrap();
        file
    };
    let utf16 =
        |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    for bytes in [
        format!("{key}\n").into_bytes(),
        format!("\u{feff}{key}\r\n").into_bytes(),
        format!("\"{key}\"\n").into_bytes(),
        format!("'{key}'").into_bytes(),
        format!("\n  {key}  \n\n").into_bytes(),
        utf16(&format!("\u{feff}{key}\r\n")),
    ] {
        let file = write(&bytes);
        with(
            &["acquire", "-n", "a", "--lease", "15s", "--key-file", &file],
            &set,
        )
        .exits(0);
        tool.emulator()
            .clock()
            .advance(std::time::Duration::from_secs(16));
    }
    let connection = tool.emulator().connection_string();
    let large = "x".repeat(70_000);
    for (bytes, rule) in [
        (
            utf16(key),
            "it has NUL characters, as UTF-16 without a byte order mark has",
        ),
        (b"\xe9\xff".to_vec(), "it is not text in UTF-8"),
        (connection.into_bytes(), "it is a connection string"),
        (b"{\"key1\":\"s3cret\"}".to_vec(), "it is JSON"),
        (format!("\"{key}").into_bytes(), "remove the quotes"),
        (large.into_bytes(), "it is larger than 64 KiB"),
        (b"\r\n".to_vec(), "it is empty"),
    ] {
        let file = write(&bytes);
        let done = with(&["status", "a", "--key-file", &file], &set)
            .exits(78)
            .says(rule);
        done.says(&format!("--key-file {file}: "));
    }
    for device in ["/dev/zero", "/dev/null"] {
        let args = [
            "status",
            "a",
            "--allow-insecure-secret-file",
            "--key-file",
            device,
        ];
        with(&args, &set).exits(78);
    }
}

#[test]
fn other_names_of_variables_are_read_and_contradictions_refused() {
    let tool = Tool::new();
    let (key, endpoint) = (tool.emulator().key(), tool.emulator().endpoint());
    let at = ("AZMUTEX_ENDPOINT", &*endpoint);
    let account = ("AZURE_STORAGE_ACCOUNT", "devstoreaccount1");
    for row in [
        [
            at,
            ("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1"),
            ("AZURE_STORAGE_KEY", key),
        ],
        [at, account, ("AZURE_STORAGE_ACCESS_KEY", key)],
        [at, account, ("AZURE_STORAGE_ACCOUNT_KEY", key)],
    ] {
        with(&["status", "a"], &row).exits(3);
    }
    let other = ("AZURE_STORAGE_ACCESS_KEY", KEY);
    with(
        &["status", "a"],
        &[at, account, ("AZURE_STORAGE_KEY", key), other],
    )
    .exits(78)
    .says("AZURE_STORAGE_KEY and AZURE_STORAGE_ACCESS_KEY have different values");
    let name = ("AZURE_STORAGE_ACCOUNT_NAME", "other");
    with(
        &["status", "a"],
        &[at, account, name, ("AZURE_STORAGE_KEY", key)],
    )
    .exits(78)
    .says("AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_ACCOUNT_NAME have different values");
    for (foreign, ours) in [
        ("ARM_ACCESS_KEY", "AZURE_STORAGE_KEY"),
        ("ARM_SAS_TOKEN", "AZURE_STORAGE_SAS_TOKEN"),
        ("AzureWebJobsStorage", "AZURE_STORAGE_CONNECTION_STRING"),
        (
            "AZURE_STORAGEBLOB_CONNECTIONSTRING",
            "AZURE_STORAGE_CONNECTION_STRING",
        ),
    ] {
        let says = format!("{foreign} is set, but not read; to use it, set {ours} to its value");
        let by_key = ("AZURE_STORAGE_AUTH_MODE", "key");
        with(&["status", "a"], &[account, by_key, (foreign, key)])
            .exits(78)
            .says("no credential for Azure Storage")
            .says(&format!("hint: {says}"));
        // It could be meant; the identity of this place signs in.
        let tool = ("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential");
        let nowhere = ("PATH", "/nowhere");
        with(&["--auth", "azure-cli", "status", "a"], &[account, nowhere])
            .exits(78)
            .says("`az` is not installed");
        with(&["status", "a"], &[account, tool, nowhere, (foreign, key)])
            .exits(77)
            .says("Azure CLI: `az` is not installed")
            .says(&format!("warning: {says}"));
    }
    let connection = tool.emulator().connection_string();
    let connection = ("AZURE_STORAGE_CONNECTION_STRING", &*connection);
    with(
        &["status", "a"],
        &[connection, ("AZURE_STORAGE_ACCOUNT", "other")],
    )
    .exits(3)
    .says(
        "warning: AZURE_STORAGE_CONNECTION_STRING is used, for the account devstoreaccount1; \
             AZURE_STORAGE_ACCOUNT, which names other, is not",
    );
}

/// As env files leave them: with quotes, and with the line ends of Windows.
#[test]
fn variables_are_read_as_env_files_leave_them() {
    let tool = Tool::new();
    let (key, endpoint) = (tool.emulator().key(), tool.emulator().endpoint());
    let quoted = format!("\"{key}\"\r");
    let at = ("AZMUTEX_ENDPOINT", &*endpoint);
    let account = ("AZURE_STORAGE_ACCOUNT", "devstoreaccount1\r");
    for empty in ["\r", "\"\"", "''\r\n", " "] {
        let set = [
            at,
            account,
            ("AZURE_STORAGE_CONNECTION_STRING", empty),
            ("AZURE_STORAGE_KEY", empty),
            ("AZURE_STORAGE_ACCOUNT_NAME", empty),
            ("AZURE_STORAGE_AUTH_MODE", empty),
            ("AZURE_STORAGE_ACCESS_KEY", &quoted),
        ];
        with(&["status", "a"], &set).exits(3);
    }
    let same = [
        at,
        account,
        ("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1"),
        ("AZURE_STORAGE_KEY", key),
        ("AZURE_STORAGE_ACCESS_KEY", &quoted),
    ];
    with(&["status", "a"], &same).exits(3);
    let by_key = ("AZURE_STORAGE_AUTH_MODE", "\"key\"\r");
    with(&["status", "a"], &[at, account, by_key])
        .exits(78)
        .says("no credential for Azure Storage");
    for allowed in ["true\r", "\"1\""] {
        let insecure = ("AZMUTEX_ALLOW_INSECURE_HTTP", allowed);
        let set = [at, account, insecure, ("AZURE_STORAGE_KEY", key)];
        with(&["status", "a"], &set).exits(3);
    }
    let file = ("AZMUTEX_KEY_FILE", "/missing/key");
    with(&["status", "a"], &[at, account, file])
        .exits(78)
        .says("azmutex: error: AZMUTEX_KEY_FILE /missing/key: ");
    let odd = ("AZURE_STORAGE_AUTH_MODE", "anonymous");
    with(
        &["status", "a"],
        &[at, account, odd, ("AZURE_STORAGE_KEY", key)],
    )
    .exits(78)
    .says("invalid AZURE_STORAGE_AUTH_MODE: it is `login` or `key`");
}

#[test]
fn container_sas_is_not_sent_to_create_its_container() {
    let emulator = azmutex::emulator::Emulator::start().unwrap();
    let account = Account::parse(&emulator.connection_string());
    let sas = account.sas_of_container("locks", Duration::from_secs(3600));
    let set = [
        ("AZURE_STORAGE_ACCOUNT", "devstoreaccount1"),
        ("AZURE_STORAGE_SAS_TOKEN", &sas),
        ("AZMUTEX_ENDPOINT", &*emulator.endpoint()),
    ];
    with(&["acquire", "-n", "a"], &set)
        .exits(77)
        .says("failed to create container `devstoreaccount1/locks`")
        .says("a container SAS cannot create its container; create the container first");
    assert_eq!(emulator.requests(), 1);
}

#[test]
fn url_of_a_lock_is_read_as_browsers_read_it() {
    let key = ("AZURE_STORAGE_KEY", KEY);
    let account = ("AZURE_STORAGE_ACCOUNT", "acct");
    for url in [
        "HTTPS://ACCT.blob.core.windows.net/locks",
        "https://acct.blob.core.windows.net:443/locks",
    ] {
        with(&["status", url], &[key, account])
            .exits(2)
            .says("it has a container but no blob");
    }
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
        (
            "AZURE_STORAGE_CONNECTION_STRING",
            "@Microsoft.KeyVault(SecretUri=https://v/s3cret)",
            "AZURE_STORAGE_CONNECTION_STRING: invalid connection string: it is a Key Vault",
        ),
        (
            "AZURE_STORAGE_CONNECTION_STRING",
            "DefaultEndpointsProtocol=https",
            "a shell cuts it at the first `;`",
        ),
        (
            "AZURE_STORAGE_CONNECTION_STRING",
            "AccountName=acct;AccountKey=czNjcmV0;BlobEndpoint=https://acct.blob.core.windows.net/locks",
            "it holds the container, `locks`",
        ),
        (
            "AZURE_STORAGE_KEY",
            "AccountName=acct;AccountKey=s3cret",
            "AZURE_STORAGE_KEY: invalid account key: it is a connection string",
        ),
        (
            "AZURE_STORAGE_SAS_TOKEN",
            "sv=1&st=2999-01-01&sig=s3cret",
            "it is not valid before 2999-01-01",
        ),
        (
            "AZURE_STORAGE_SAS_TOKEN",
            "sv=1&se=2999-01-01&ske=2001-01-01&sig=s3cret",
            "it expired with the key that signed it at 2001-01-01",
        ),
        (
            "AZURE_STORAGE_SAS_TOKEN",
            "ss=q&srt=sco&sig=s3cret",
            "it is not for blobs",
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
