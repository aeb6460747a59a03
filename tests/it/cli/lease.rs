//! `acquire`, `renew` and `release`: what scripts do.

use std::time::{Duration, Instant};

use azmutex::{Lease, LeaseDuration, LeaseId, LeaseState};

use super::tool::{Tool, finish};

#[test]
fn acquire_prints_the_lease_id_and_nothing_else() {
    let tool = Tool::new();
    let done = tool.run(&["acquire", "prod/a"]).exits(0);
    assert_eq!(done.err, "");
    let id: LeaseId = done.line().parse().unwrap();
    let lease = Lease::new("prod/a", id).unwrap();
    tool.mutex().verify(&lease).unwrap();
    tool.run(&["renew", "prod/a", "--lease-id", &id.to_string()])
        .exits(0);
    let done = tool
        .run(&["release", "prod/a", "--lease-id", &id.to_string()])
        .exits(0);
    assert_eq!((&*done.out, &*done.err), ("", ""));
    let status = tool.mutex().status("prod/a").unwrap();
    assert_eq!(status.state(), LeaseState::Available);
    assert!(status.last_holder().unwrap().released());
}

#[test]
#[cfg_attr(windows, ignore = "the command does not know its parent on Windows")]
fn acquire_names_the_process_that_called_it() {
    let tool = Tool::new();
    tool.run(&["acquire", "a", "--owner", "ci@x", "--reason", "it's"])
        .exits(0);
    let status = tool.mutex().status("a").unwrap();
    let holder = status.holder().unwrap();
    assert_eq!(
        (holder.owner(), holder.reason()),
        (Some("ci@x"), Some("it's"))
    );
    assert_eq!(holder.pid(), Some(std::process::id()));
}

#[test]
fn acquire_of_a_held_lock_is_not_acquired() {
    let tool = Tool::new();
    tool.run(&["acquire", "a", "--owner", "ci@build-07"])
        .exits(0);
    for wait in [&["-n"][..], &["-w", "0"], &["-w", "300ms"]] {
        let done = tool.run(&[&["acquire", "a"], wait].concat()).exits(75);
        assert_eq!(done.out, "");
        done.says("error: cannot acquire a: ")
            .says("held by ci@build-07 (pid ")
            .says("  hint: azmutex status a; if the holder is gone: azmutex break a");
    }
}

#[test]
fn acquire_waits_until_the_holder_releases() {
    let tool = Tool::new();
    let lease = tool.mutex().acquire("a", LeaseDuration::MAX).unwrap();
    let mut waiting = tool.start(&["acquire", "a"]);
    let said = waiting.says("azmutex: waiting for a: held by an unknown holder");
    assert!(said.ends_with("(waited 0s)"), "{said}");
    tool.mutex().release(&lease).unwrap();
    assert_eq!(waiting.line().len(), 36);
    waiting.says("azmutex: acquired a after ");
    assert_eq!(waiting.wait().code(), Some(0));
}

#[cfg(unix)]
#[test]
fn signal_ends_the_waiting_and_leaves_nothing_held() {
    use std::os::unix::process::ExitStatusExt as _;

    let tool = Tool::new();
    let lease = tool.mutex().acquire("a", LeaseDuration::MAX).unwrap();
    let mut waiting = tool.start(&["acquire", "a"]);
    waiting.says("waiting for a");
    waiting.signal("TERM");
    assert_eq!(waiting.wait().signal(), Some(15));
    tool.mutex().release(&lease).unwrap();
    tool.run(&["acquire", "-n", "a"]).exits(0);
}

#[test]
fn acquire_for_ever_warns() {
    let tool = Tool::new();
    tool.run(&["acquire", "a", "--lease", "infinite"])
        .exits(0)
        .says("azmutex: warning: an infinite lease stays");
    assert!(tool.mutex().status("a").unwrap().is_infinite());
    let quiet = tool
        .run(&["acquire", "b", "--lease", "infinite", "-q"])
        .exits(0);
    assert_eq!(quiet.err, "");
}

#[test]
fn acquire_in_other_formats_tells_the_fencing_token_too() {
    let tool = Tool::new();
    let first = tool
        .run(&["acquire", "a", "--json", "--lease", "20s"])
        .exits(0)
        .json();
    assert_eq!((&first["schema"], &first["lock"]), (&1.into(), &"a".into()));
    assert_eq!(first["lease_s"], 20);
    assert!(first["acquired_at"].as_str().unwrap().ends_with('Z'));
    tool.run(&["break", "a", "--yes", "--now"]).exits(0);
    let done = tool.run(&["acquire", "a", "--format", "shell"]).exits(0);
    let lines: Vec<_> = done.out.lines().collect();
    assert_eq!(lines[0], "export AZMUTEX_NAME='a'");
    assert!(lines[1].starts_with("export AZMUTEX_LEASE_ID="));
    let fence = lines[2].strip_prefix("export AZMUTEX_FENCE=").unwrap();
    assert!(fence.parse::<u64>().unwrap() > first["fence"].as_u64().unwrap());
}

#[cfg(unix)]
#[test]
fn assignments_for_a_shell_hold_any_name() {
    let tool = Tool::new();
    for name in ["it's $(a) \"b\"", "\u{202e}a'%s \u{200b}"] {
        let done = tool.run(&["acquire", name, "--format", "shell"]).exits(0);
        assert!(!done.out.contains(['\u{202e}', '\u{200b}']), "{done:?}");
        let script = format!(
            "{}printf '%s|%s' \"$AZMUTEX_NAME\" \"$AZMUTEX_LEASE_ID\"",
            done.out
        );
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (read, id) = text.split_once('|').unwrap();
        assert_eq!(read, name);
        let mut release = tool.command(&["release", name]);
        release.env("AZMUTEX_LEASE_ID", id);
        finish(release).exits(0);
    }
}

#[test]
fn renew_and_release_of_another_lease_are_refused() {
    let tool = Tool::new();
    let id = tool.run(&["acquire", "a"]).exits(0).line().to_owned();
    let other = LeaseId::random().expect("random numbers").to_string();
    for verb in ["renew", "release"] {
        tool.run(&[verb, "a", "--lease-id", &other])
            .exits(4)
            .says(&format!(
                "error: cannot {verb} a: the lease ID does not hold it"
            ))
            .says("hint: stop all work under the lock");
        tool.run(&[verb, "missing", "--lease-id", &other])
            .exits(3)
            .says("missing: no such lock");
    }
    tool.run(&["renew", "a", "--lease-id", &id]).exits(0);
    tool.run(&["break", "a", "--yes", "--now"]).exits(0);
    tool.run(&["renew", "a", "--lease-id", &id]).exits(4);
}

#[test]
fn renew_after_expiry_succeeds_if_nobody_came() {
    let tool = Tool::new();
    let id = tool
        .run(&["acquire", "a", "--lease", "15s"])
        .exits(0)
        .line()
        .to_owned();
    tool.emulator().clock().advance(Duration::from_secs(20));
    let object = tool
        .run(&["renew", "a", "--lease-id", &id, "--json"])
        .exits(0)
        .json();
    assert_eq!(
        (&object["schema"], &object["event"]),
        (&1.into(), &"renewed".into())
    );
}

#[test]
fn acquire_creates_what_is_missing_unless_told_not_to() {
    let tool = Tool::new();
    tool.run(&["acquire", "a", "--create", "never"])
        .exits(3)
        .says("ContainerNotFound");
    tool.run(&["acquire", "a"]).exits(0);
    tool.run(&["acquire", "b", "--create", "never"])
        .exits(3)
        .says("BlobNotFound");
}

#[cfg(unix)]
#[test]
fn lease_whose_id_nobody_reads_is_released() {
    let tool = Tool::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = tool.command(&["acquire", "a"]);
    let status = command
        .stdout(writer)
        .stdin(std::process::Stdio::null())
        .output();
    assert_eq!(status.unwrap().status.code(), Some(70));
    let status = tool.mutex().status("a").unwrap();
    assert!(status.state().is_free() && status.last_holder().unwrap().released());
}

#[test]
fn acquire_keeps_its_limits_when_nobody_answers() {
    let tool = Tool::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    for (limit, least) in [
        (["-w", "1s"], Duration::from_secs(1)),
        (["--fault-wait", "1s"], Duration::from_millis(500)),
    ] {
        let mut acquire = tool.command(&["acquire", "a", limit[0], limit[1]]);
        acquire.env(
            "AZURE_STORAGE_CONNECTION_STRING",
            format!(
                "AccountName=devstoreaccount1;AccountKey=a2V5;\
                 BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1"
            ),
        );
        let started = Instant::now();
        finish(acquire).exits(69).says("the connection was refused");
        let took = started.elapsed();
        // Much less than the ten seconds that one operation may take.
        assert!(
            took >= least && took < Duration::from_secs(5),
            "{limit:?}: {took:?}"
        );
    }
}

#[test]
fn poll_interval_has_a_least() {
    let tool = Tool::new();
    tool.run(&["acquire", "a", "--poll", "9ms"])
        .exits(2)
        .says("it must be at least 10ms");
    tool.run(&["acquire", "a", "--poll", "10ms"]).exits(0);
}
