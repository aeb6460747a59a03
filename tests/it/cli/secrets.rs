//! No secret is in any output, at any verbosity.

use std::process::Stdio;
use std::time::Duration;

use azmutex::emulator::Emulator;

use super::tool::{Tool, bare, finish};

const SAS: &str = "sv=2021-08-06&se=2999-01-01T00%3A00%3A00Z&sp=rcwl&sig=s3cret%2Bsignature%3D";

const VERBS: [&[&str]; 12] = [
    &["status", "a"],
    &["status", "a", "--json"],
    &["list"],
    &["break", "a", "--yes"],
    &["acquire", "-n", "a"],
    &["acquire", "-n", "b", "--format", "shell"],
    &[
        "renew",
        "a",
        "--lease-id",
        "6b1f3a60-9f0d-4c8e-8a55-3c1d2e4f5a6b",
    ],
    &[
        "release",
        "a",
        "--lease-id",
        "6b1f3a60-9f0d-4c8e-8a55-3c1d2e4f5a6b",
    ],
    &["hold", "-n", "c"],
    &["doctor"],
    &["doctor", "--json"],
    &["run", "-n", "d", "true"],
];

const VERBOSITIES: [&[&str]; 4] = [
    &[],
    &["-v"],
    &["-vvvv"],
    &["-vvvv", "--log-format", "json", "--json"],
];

#[track_caller]
fn shows_none(variables: &[(&str, &str)], secrets: &[&str]) {
    for verb in VERBS {
        for verbosity in VERBOSITIES {
            let args = [verb, verbosity].concat();
            let mut command = match verb[0] {
                // Options of run go before its command.
                "run" => bare(&[verbosity, verb].concat()),
                _ => bare(&args),
            };
            command.envs(variables.iter().copied());
            let output = if verb[0] == "hold" {
                // A pipe that ends at once.
                let (reader, writer) = std::io::pipe().unwrap();
                drop(writer);
                command.stdin(reader).output().unwrap()
            } else {
                command.stdin(Stdio::null()).output().unwrap()
            };
            let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.push_str(&String::from_utf8_lossy(&output.stderr));
            assert!(
                !text.is_empty() || verb[0] == "run" || verb[0] == "hold",
                "{args:?}"
            );
            for secret in secrets {
                assert!(
                    !text.contains(secret),
                    "{secret} in the output of {args:?}: {text}"
                );
            }
            assert!(!text.contains("SharedKey "), "{args:?}: {text}");
        }
    }
}

#[test]
fn account_key_is_in_no_output() {
    let tool = Tool::new();
    let (key, connection) = (tool.emulator().key(), tool.emulator().connection_string());
    shows_none(
        &[("AZURE_STORAGE_CONNECTION_STRING", &connection)],
        &[&key[..20]],
    );
}

#[test]
fn sas_is_in_no_output_whether_it_is_accepted_or_not() {
    let emulator = Emulator::start().unwrap();
    let endpoint = emulator.endpoint();
    let accepted = emulator.sas(Duration::from_secs(3600));
    let (_, signature) = accepted.rsplit_once("sig=").unwrap();
    for sas in [&*accepted, SAS] {
        let variables = [
            ("AZURE_STORAGE_ACCOUNT", "devstoreaccount1"),
            ("AZURE_STORAGE_SAS_TOKEN", sas),
            ("AZMUTEX_ENDPOINT", &*endpoint),
        ];
        shows_none(&variables, &["s3cret", "signature", signature]);
    }
}

#[test]
fn secrets_are_in_no_output_when_nobody_answers() {
    let connection =
        format!("BlobEndpoint=http://127.0.0.1:9/devstoreaccount1;SharedAccessSignature={SAS}");
    for verb in [&["status", "a"][..], &["doctor"]] {
        let mut command = bare(&[verb, &["-vvvv"]].concat());
        command.env("AZURE_STORAGE_CONNECTION_STRING", &connection);
        let done = finish(command).exits(69);
        assert!(!format!("{done:?}").contains("s3cret"), "{done:?}");
    }
}

#[test]
fn secret_in_the_wrong_place_is_not_repeated() {
    let tool = Tool::new();
    for args in [
        &["status", "--sas-token", "sig=s3cret", "a"][..],
        &["status", "--account-key=s3cret", "a"],
        &["status", "--auth", "AccountKey=s3cret", "a"],
        &[
            "status",
            "https://acct.blob.core.windows.net/locks/a?sig=s3cret",
        ],
        &[
            "status",
            "a",
            "--endpoint",
            "https://acct.blob.core.windows.net/?sig=s3cret",
        ],
        &["sig=s3cret"],
    ] {
        let done = tool.run(args).exits(2);
        assert!(!format!("{done:?}").contains("s3cret"), "{done:?}");
    }
}

#[test]
fn name_that_looks_like_a_secret_stays_as_it_is_in_json() {
    let tool = Tool::new();
    let object = tool.run(&["acquire", "a sig=b", "--json"]).exits(0).json();
    assert_eq!(object["lock"], "a sig=b");
    let object = tool.run(&["list", "--json"]).exits(0).json();
    assert_eq!(object["lock"], "a sig=b");
}
