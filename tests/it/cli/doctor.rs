//! `doctor`: how far it gets, and what is permitted.

use std::time::Duration;

use super::tool::{Tool, bare, finish};
use crate::support::account::Account;

#[test]
fn doctor_finds_a_healthy_service_healthy() {
    let tool = Tool::new();
    let done = tool.run(&["doctor"]).exits(0);
    for check in [
        "ok    account             devstoreaccount1, from AZURE_STORAGE_CONNECTION_STRING",
        "ok    endpoint            http://127.0.0.1:",
        "ok    proxy               none",
        "ok    trust store         none: plain http",
        "ok    credential          connection string, from AZURE_STORAGE_CONNECTION_STRING: accepted",
        "ok    container           http://127.0.0.1:",
        "ok    name",
        "ok    connection",
        "ok    service",
        "ok    clock               this machine's is right",
        "ok    round trip",
        "ok    create and acquire  permitted, on the lock azmutex-doctor",
        "ok    write metadata      permitted",
        "ok    renew               permitted",
        "ok    release             permitted",
    ] {
        assert!(done.out.contains(check), "no {check:?} in {done:?}");
    }
    assert!(
        tool.mutex()
            .status("azmutex-doctor")
            .unwrap()
            .state()
            .is_free()
    );
    tool.run(&["doctor"])
        .exits(0)
        .prints("ok    list                permitted");
}

#[test]
fn doctor_that_may_only_read_writes_nothing() {
    let tool = Tool::new();
    tool.run(&["doctor", "--read-only"])
        .exits(0)
        .prints("skip  lease");
    assert!(tool.mutex().status("azmutex-doctor").is_err());
}

#[test]
fn doctor_as_json_is_one_object() {
    let object = Tool::new().run(&["doctor", "--json"]).exits(0).json();
    assert_eq!(
        (&object["schema"], &object["ok"]),
        (&1.into(), &true.into())
    );
    for check in object["checks"].as_array().unwrap() {
        assert!(
            check["check"].is_string() && check["detail"].is_string(),
            "{check}"
        );
        assert!(matches!(
            check["result"].as_str(),
            Some("ok" | "warn" | "fail" | "skip")
        ));
    }
}

#[test]
fn doctor_names_the_step_that_fails() {
    let tool = Tool::new();
    let mut refused = tool.command(&["doctor"]);
    // The right account with a wrong key.
    let wrong = tool.emulator().connection_string();
    let wrong = wrong.replace(tool.emulator().key(), "bXkgc2VjcmV0IGtleQ==");
    refused.env("AZURE_STORAGE_CONNECTION_STRING", wrong);
    let done = finish(refused)
        .exits(77)
        .prints("ok    service")
        .prints(
            "fail  credential          connection string, from AZURE_STORAGE_CONNECTION_STRING: ",
        )
        .prints("AuthenticationFailed (403)");
    assert!(
        !done.out.contains("list  ") && !done.out.contains("acquire"),
        "{done:?}"
    );

    let mut nobody = bare(&["doctor"]);
    nobody.env(
        "AZURE_STORAGE_CONNECTION_STRING",
        "AccountName=devstoreaccount1;AccountKey=bXkgc2VjcmV0IGtleQ==;\
         BlobEndpoint=http://127.0.0.1:9/devstoreaccount1",
    );
    let done = finish(nobody)
        .exits(69)
        .prints("fail  connection")
        .prints("is the emulator running, at this port?")
        .prints("skip  credential          connection string, from AZURE_STORAGE_CONNECTION_STRING: not");
    assert!(!done.out.contains("service"), "{done:?}");
}

#[test]
fn doctor_says_where_each_value_came_from() {
    let tool = Tool::new();
    let endpoint = tool.emulator().endpoint();
    let mut command = bare(&["doctor", "--account", "devstoreaccount1"]);
    command
        .env("AZMUTEX_ENDPOINT", &endpoint)
        .env("AZURE_STORAGE_ACCESS_KEY", tool.emulator().key())
        .env("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=x");
    finish(command)
        .exits(0)
        .prints("ok    account             devstoreaccount1, from --account\n")
        .prints(&format!(
            "ok    endpoint            {endpoint}, from AZMUTEX_ENDPOINT\n"
        ))
        .prints(
            "ok    credential          account key, from AZURE_STORAGE_ACCESS_KEY: accepted (also \
             set, but not used: AZURE_STORAGE_SAS_TOKEN)\n",
        );
    let mut command = bare(&["doctor"]);
    command
        .env("AZURE_STORAGE_ACCOUNT", "acct")
        .env("AZURE_STORAGE_KEY", "bXkgc2VjcmV0IGtleQ==")
        .env("HTTPS_PROXY", "http://127.0.0.1:9");
    finish(command)
        .exits(69)
        .prints("ok    account             acct, from AZURE_STORAGE_ACCOUNT\n")
        .prints(
            "ok    endpoint            https://acct.blob.core.windows.net, from the account's \
             name\n",
        )
        .prints("ok    proxy               http://127.0.0.1:9 (from HTTPS_PROXY)\n")
        .prints("fail  service");
}

#[test]
fn doctor_names_what_is_wrong_before_anything_is_sent() {
    for (variables, row) in [
        (
            &[][..],
            "fail  credential          no credential for Azure Storage",
        ),
        (
            &[
                ("AZURE_STORAGE_ACCOUNT", "acct"),
                ("AZURE_STORAGE_SAS_TOKEN", "sv=1&se=2001-01-01&sig=s3cret"),
            ],
            "fail  credential          AZURE_STORAGE_SAS_TOKEN: invalid SAS: it expired at 2001",
        ),
        (
            &[(
                "AZURE_STORAGE_CONNECTION_STRING",
                "AccountName=acct;AccountKey=czNjcmV0;BlobEndpoint=https://acct.blob.core.windows.net/locks",
            )],
            "fail  configuration       AZURE_STORAGE_CONNECTION_STRING: invalid endpoint",
        ),
    ] {
        let mut command = bare(&["doctor"]);
        command.envs(variables.iter().copied());
        let done = finish(command)
            .exits(78)
            .prints(row)
            .says("azmutex: error: ");
        let is_credential = row.starts_with("fail  credential");
        assert_eq!(
            done.err.contains("hint: azmutex doctor --setup"),
            is_credential
        );
        assert!(!format!("{done:?}").contains("s3cret"));
        let mut command = bare(&["doctor", "--json"]);
        command.envs(variables.iter().copied());
        let object = finish(command).exits(78).json();
        assert_eq!(
            (&object["event"], &object["ok"]),
            (&"doctor".into(), &false.into())
        );
        assert_eq!(object["checks"][0]["result"], "fail");
    }
}

#[test]
fn doctor_tells_permission_from_credential() {
    for (permissions, code, rows) in [
        (
            "rcw",
            0,
            &[
                "ok    create and acquire",
                "warn  list",
                "(`sp=rcw`) lack `l`",
            ][..],
        ),
        (
            "rl",
            77,
            &[
                "fail  create and acquire",
                "(`sp=rl`) lack `w`",
                "ok    list",
            ],
        ),
        ("wl", 77, &["fail  read", "(`sp=wl`) lack `r`"]),
    ] {
        let emulator = azmutex::emulator::Emulator::start().unwrap();
        let account = Account::parse(&emulator.connection_string());
        let sas = account.sas_that_allows(permissions, "locks", Duration::from_secs(3600));
        azmutex::AzureMutex::new(emulator.options("locks").unwrap())
            .and_then(|mutex| mutex.acquire("other", azmutex::LeaseDuration::MAX))
            .unwrap();
        let mut command = bare(&["doctor"]);
        command
            .env("AZURE_STORAGE_ACCOUNT", "devstoreaccount1")
            .env("AZURE_STORAGE_SAS_TOKEN", &sas)
            .env("AZMUTEX_ENDPOINT", emulator.endpoint());
        let mut done = finish(command).exits(code).prints("ok    credential");
        for row in rows {
            done = done.prints(row);
        }
    }
}

#[test]
fn doctor_tells_a_clock_that_is_off() {
    let tool = Tool::new();
    tool.emulator()
        .clock()
        .advance(std::time::Duration::from_secs(120));
    tool.run(&["doctor"])
        .exits(0)
        .prints("warn  clock               this machine's is ")
        .prints("s behind the service's");
    tool.emulator()
        .clock()
        .advance(std::time::Duration::from_secs(3600));
    tool.run(&["doctor"])
        .exits(77)
        .prints("fail  clock")
        .prints("15 minutes are allowed");
}

#[test]
fn doctor_tells_a_host_that_is_not_found_from_an_account() {
    let mut command = bare(&["doctor"]);
    command
        .env("AZMUTEX_ALLOW_INSECURE_HTTP", "1")
        .env("AZMUTEX_ENDPOINT", "http://azurite.invalid:10000")
        .env("AZURE_STORAGE_ACCOUNT", "devstoreaccount1")
        .env("AZURE_STORAGE_KEY", "bXkgc2VjcmV0IGtleQ==");
    let done = finish(command)
        .exits(69)
        .prints("fail  name                azurite.invalid:10000: ")
        .prints("; check the endpoint's host, from AZMUTEX_ENDPOINT");
    assert!(!done.out.contains("the account's name"), "{done:?}");
    let mut command = bare(&["doctor"]);
    command
        .env("AZURE_STORAGE_ACCOUNT", "acct")
        .env("AZMUTEX_ENDPOINT", "https://acct.blob.invalid")
        .env("AZURE_STORAGE_KEY", "bXkgc2VjcmV0IGtleQ==");
    finish(command)
        .exits(69)
        .prints("; check the account's name (acct), ");
}

#[test]
fn file_with_certificates_is_named_with_its_variable() {
    let mut command = bare(&["doctor"]);
    command
        .env("AZURE_STORAGE_ACCOUNT", "acct")
        .env("AZURE_STORAGE_KEY", "bXkgc2VjcmV0IGtleQ==")
        .env("AZMUTEX_CA_FILE", "/missing/ca.pem");
    finish(command)
        .exits(78)
        .says("azmutex: error: AZMUTEX_CA_FILE /missing/ca.pem: ");
    finish(bare(&[
        "status",
        "a",
        "--ca-file",
        "/missing/ca.pem",
        "--emulator",
    ]))
    .exits(78)
    .says("azmutex: error: --ca-file /missing/ca.pem: ");
}

#[cfg(unix)]
const WAYS: [&str; 10] = [
    "key",
    "sas",
    "connection-string",
    "entra",
    "managed-identity",
    "workload-identity",
    "service-principal",
    "github",
    "azure-pipelines",
    "azure-cli",
];

/// What a shell calls `az` and azmutex with: an argument a line, in brackets. The first answer of
/// `az` is that there is no such account.
#[cfg(unix)]
const CALLS: &str = "\
    az() { printf '<%s>\\n' az \"$@\" >&2; [ \"${asked-}\" ] || { asked=1; false; }; }
    azmutex() { printf '<%s>\\n' azmutex \"$@\" >&2; }\n";

#[cfg(unix)]
#[test]
fn setup_is_for_a_shell_whatever_the_names_are() {
    let odd = "it's $(touch injected) \"x\"";
    for way in WAYS {
        let args = [
            "doctor",
            "--setup",
            "--auth",
            way,
            "--account",
            odd,
            "--client-id",
            odd,
            "--container",
            "$root",
        ];
        let script = finish(bare(&args)).exits(0).out;
        let comments = script.lines().filter(|line| line.starts_with('#'));
        for line in comments {
            let plain = |c: char| c.is_alphanumeric() || "# ,:_-".contains(c);
            assert!(line.chars().all(plain), "{line}");
        }
        for shell in ["bash", "dash"] {
            let mut command = std::process::Command::new(shell);
            command.args(["-euc", &format!("{CALLS}{script}")]);
            let done = finish(command).exits(0);
            if way == "connection-string" {
                // It names the account, and what the option says is for another credential.
                continue;
            }
            for word in ["<az>", "<azmutex>", "<doctor>", "<$root>"] {
                assert!(done.err.contains(word), "{way}: {word}: {done:?}");
            }
            assert!(done.err.contains(&format!("<--name>\n<{odd}>")), "{done:?}");
            let is_id = done.err.contains(&format!("<--id>\n<{odd}>"));
            let signs_in = !matches!(way, "key" | "sas" | "azure-cli");
            assert_eq!(is_id, signs_in, "{way}: {done:?}");
        }
    }
    assert!(!std::path::Path::new("injected").exists());
}

#[test]
fn setup_is_for_the_way_of_signing_in_that_is_configured() {
    for (variables, line) in [
        (&[][..], "az ad signed-in-user show"),
        (&[("AZURE_STORAGE_ACCOUNT", "acct")], "--name acct "),
        (
            &[("AZURE_STORAGE_KEY", "not read")],
            "storage account keys list",
        ),
        // Expired, which is why a new one is wanted.
        (
            &[("AZURE_STORAGE_SAS_TOKEN", "sv=1&se=2001-01-01&sig=s")],
            "generate-sas",
        ),
        (&[("AZMUTEX_SAS_FILE", "/missing")], "generate-sas"),
        (
            &[(
                "AZURE_STORAGE_CONNECTION_STRING",
                "AccountName=acct;AccountKey=czNjcmV0;EndpointSuffix=core.windows.net",
            )],
            "--name acct --query connectionString ",
        ),
        (&[("AZURE_CLIENT_ID", "1f2e")], "az ad sp show --id 1f2e "),
        (
            &[
                ("AZMUTEX_AUTH", "managed-identity"),
                ("AZURE_CLIENT_ID", "1f2e"),
            ],
            "az ad sp show --id 1f2e ",
        ),
        (
            &[("AZMUTEX_AUTH", "managed-identity")],
            "--assignee-object-id OBJECT_ID ",
        ),
        (
            &[
                ("AZURE_STORAGE_KEY", "not read"),
                ("AZURE_STORAGE_AUTH_MODE", "login"),
            ],
            "az role assignment create",
        ),
        (
            &[("AZMUTEX_CONTAINER", "mine")],
            "azmutex doctor --container mine\n",
        ),
    ] {
        let mut command = bare(&["doctor", "--setup"]);
        command.envs(variables.iter().copied());
        finish(command).exits(0).prints(line);
        let mut command = bare(&["doctor", "--setup", "--json"]);
        command.envs(variables.iter().copied());
        let object = finish(command).exits(0).json();
        assert!(
            object["script"].as_str().unwrap().contains(line),
            "{object}"
        );
    }
}

#[test]
fn setup_of_an_emulator_or_of_no_container_is_refused() {
    let tool = Tool::new();
    for done in [
        tool.run(&["doctor", "--setup"]),
        finish(bare(&["doctor", "--setup", "--emulator"])),
        finish(bare(&[
            "doctor",
            "--setup",
            "--endpoint",
            "http://localhost:1/a",
        ])),
    ] {
        done.exits(78).says("an emulator has nothing to set up");
    }
    finish(bare(&["doctor", "--setup", "--container", "$(x)"]))
        .exits(2)
        .says("container");
    finish(bare(&["doctor", "--setup", "--read-only"])).exits(2);
}

#[test]
fn hint_at_setup_is_for_the_credential_that_was_asked_for() {
    let mut command = bare(&["doctor", "--auth", "sas"]);
    command.env("AZURE_STORAGE_ACCOUNT", "acct");
    finish(command)
        .exits(78)
        .says("hint: azmutex doctor --setup --auth sas prints ");
}
