//! `doctor`: how far it gets, and what is permitted.

use super::tool::{Tool, bare, finish};

#[test]
fn doctor_finds_a_healthy_service_healthy() {
    let tool = Tool::new();
    let done = tool.run(&["doctor"]).exits(0);
    for check in [
        "ok    credential          connection string, from AZURE_STORAGE_CONNECTION_STRING",
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
    finish(refused)
        .exits(77)
        .prints("ok    service")
        .prints("fail  create and acquire")
        .prints("AuthenticationFailed (403)");

    let mut nobody = bare(&["doctor"]);
    nobody.env(
        "AZURE_STORAGE_CONNECTION_STRING",
        "AccountName=devstoreaccount1;AccountKey=bXkgc2VjcmV0IGtleQ==;\
         BlobEndpoint=http://127.0.0.1:9/devstoreaccount1",
    );
    let done = finish(nobody).exits(69).prints("fail  connection");
    assert!(!done.out.contains("service"), "{done:?}");
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
