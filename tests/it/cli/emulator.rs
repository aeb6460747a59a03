//! `azmutex emulator`, as processes that share it use it.

use super::tool::{Running, Tool, bare, finish};

/// The connection string that it prints.
fn connection(emulator: &Running) -> String {
    let line = emulator.line();
    let connection = line
        .strip_prefix("export AZURE_STORAGE_CONNECTION_STRING='")
        .and_then(|rest| rest.strip_suffix('\''));
    connection.expect("a line for a shell").to_owned()
}

#[test]
fn sas_is_printed_in_place_of_the_key_and_is_enough_for_a_lock() {
    let emulator = Running::start(bare(&["emulator", "--sas"]));
    let connection = connection(&emulator);
    assert!(!connection.contains("AccountKey"), "{connection}");
    let tool = Tool::of(connection);
    tool.run(&["acquire", "a"]).exits(0);
    tool.run(&["acquire", "-n", "a"]).exits(75);
    tool.run(&["list"]).exits(0).prints("a");
    tool.run(&["break", "--yes", "a"]).exits(0);
}

#[test]
fn bearer_tokens_are_accepted_as_told() {
    let emulator = Running::start(bare(&["emulator", "--bearer", "one", "--bearer", "two"]));
    let connection = connection(&emulator);
    let (_, endpoint) = connection.split_once("BlobEndpoint=").unwrap();
    let url = format!("{}?comp=list", endpoint.trim_end_matches(';'));
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .new_agent();
    for (token, status) in [("one", 200), ("two", 200), ("three", 401)] {
        let reply = agent
            .get(&url)
            .header("x-ms-version", "2021-08-06")
            .header("authorization", format!("Bearer {token}"))
            .call();
        assert_eq!(reply.unwrap().status(), status, "{token}");
    }
}

#[test]
fn bearer_token_that_fits_no_header_is_a_usage_error() {
    for token in ["", "two words", "t\u{f6}ken"] {
        finish(bare(&["emulator", "--bearer", token]))
            .exits(2)
            .says("without spaces");
    }
}
