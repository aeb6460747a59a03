//! `status`, `list` and `break`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use azmutex::{Error, LeaseDuration, LeaseId, LeaseState, Locker, Semaphore};

use super::tool::{Tool, finish};
use crate::support::account::Account;
use crate::support::azurite::Azurite;

#[test]
fn status_of_a_lock_tells_its_holder() {
    let tool = Tool::new();
    let locker = Locker::builder(tool.mutex(), "prod/deploy")
        .owner("ci@build-07")
        .reason("release 812")
        .fencing(true)
        .build()
        .unwrap();
    let guard = locker.lock().unwrap();
    let pid = std::process::id();
    tool.run(&["status", "prod/deploy"])
        .exits(0)
        .prints(&format!(
            "prod/deploy: held by ci@build-07 (pid {pid}, reason: release 812) for "
        ));
    let token = guard.fencing_token().unwrap();
    guard.release().unwrap();
    tool.run(&["status", "prod/deploy", "-v"])
        .exits(0)
        .prints("prod/deploy: free (released)\n")
        .prints("/locks/prod/deploy\n")
        .prints(&format!("fencing token  {token}\n"));
}

#[test]
fn status_of_an_unknown_holder_says_so() {
    let tool = Tool::new();
    tool.mutex().acquire("a", LeaseDuration::MAX).unwrap();
    tool.mutex().acquire("b", LeaseDuration::INFINITE).unwrap();
    tool.run(&["status", "a", "b"])
        .exits(0)
        .prints("a: held by an unknown holder (leased, no azmutex metadata)")
        .prints("b: held by an unknown holder, with an infinite lease");
}

#[test]
fn status_tells_how_the_last_lease_ended() {
    let tool = Tool::new();
    let mutex = tool.mutex();
    for (name, by) in [("ran-out", None), ("broken", Some(Duration::ZERO))] {
        tool.run(&["acquire", name, "--owner", "ci@gone"]).exits(0);
        if let Some(period) = by {
            mutex.break_lease(name, Some(period)).unwrap();
        }
    }
    let lease = mutex.acquire("never-said", LeaseDuration::MAX).unwrap();
    mutex.release(&lease).unwrap();
    mutex.acquire("unnamed", LeaseDuration::MAX).unwrap();
    tool.emulator().clock().advance(Duration::from_secs(61));
    tool.run(&["status", "ran-out", "broken", "never-said", "unnamed"])
        .exits(0)
        .prints("ran-out: free: the last holder's lease ran out (last recorded: ci@gone (pid ")
        .prints(" since 20")
        .prints("broken: free: the lease was broken (last recorded: ci@gone")
        .prints("never-said: free\n")
        .prints("unnamed: free: the last holder's lease ran out\n");
    let done = tool.run(&["list"]).exits(0);
    for (lock, state) in [
        ("broken", "free (broken)"),
        ("never-said", "free"),
        ("ran-out", "free (ran out)"),
        ("unnamed", "free (ran out)"),
    ] {
        let row = done.out.lines().find(|line| line.starts_with(lock));
        let cells: Vec<_> = row.unwrap().split("  ").map(str::trim).collect();
        assert!(cells.contains(&state), "{cells:?}");
    }
}

#[test]
fn status_of_a_holder_that_the_record_contradicts_names_it_as_last_recorded() {
    let tool = Tool::new();
    tool.run(&["acquire", "a", "--owner", "alice@gone", "--lease", "15s"])
        .exits(0);
    tool.mutex().break_lease("a", Some(Duration::ZERO)).unwrap();
    tool.mutex().acquire("a", LeaseDuration::INFINITE).unwrap();
    tool.run(&["status", "a"])
        .exits(0)
        .prints("a: held by an unknown holder; last recorded: alice@gone (pid ")
        .prints("; this lease is infinite\n");
    let object = tool.run(&["status", "a", "--json"]).exits(0).json();
    assert!(object["holder"].is_null());
    assert_eq!(object["last_holder"]["owner"], "alice@gone");
    tool.run(&["acquire", "-n", "a"])
        .exits(75)
        .says("held by an unknown holder; last recorded: alice@gone");
}

#[test]
fn status_as_json_has_the_same_members_in_every_state() {
    let members = [
        "permits",
        "schema",
        "time",
        "event",
        "lock",
        "url",
        "state",
        "held",
        "done_at",
        "done_by",
        "duration",
        "holder",
        "last_holder",
        "fence",
        "etag",
        "last_modified",
    ];
    let tool = Tool::new();
    tool.run(&["acquire", "held"]).exits(0);
    tool.mutex()
        .acquire("unknown", LeaseDuration::INFINITE)
        .unwrap();
    let lease = tool.mutex().acquire("free", LeaseDuration::MAX).unwrap();
    tool.mutex().release(&lease).unwrap();
    let locks = ["held", "unknown", "free", "missing"];
    let done = tool
        .run(&["status", "--json", "held", "unknown", "free", "missing"])
        .exits(3);
    let all = done.jsons();
    assert_eq!(all.len(), locks.len());
    for (object, name) in all.iter().zip(locks) {
        let object = object.as_object().unwrap();
        let mut wanted = members;
        wanted.sort_unstable();
        let mut found: Vec<_> = object.keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, wanted);
        assert_eq!(
            (&object["schema"], &object["lock"]),
            (&1.into(), &name.into())
        );
    }
    assert!(
        done.out
            .lines()
            .all(|line| line.starts_with("{\"schema\":1,\"time\":\""))
    );
    let states: Vec<_> = all.iter().map(|object| &object["state"]).collect();
    assert_eq!(states, ["leased", "leased", "available", "missing"]);
    let durations: Vec<_> = all
        .iter()
        .map(|object| object["duration"].as_str())
        .collect();
    assert_eq!(durations, [Some("fixed"), Some("infinite"), None, None]);
    let holder = &all[0]["holder"];
    assert!(holder["pid"].is_u64() && holder["since"].as_str().unwrap().ends_with('Z'));
    assert!(holder["reason"].is_null() && all[0]["fence"].is_u64());
}

#[test]
fn status_check_answers_by_its_exit_code() {
    let tool = Tool::new();
    let lease = tool.mutex().acquire("held", LeaseDuration::MAX).unwrap();
    let other = tool.mutex().acquire("free", LeaseDuration::MAX).unwrap();
    tool.mutex().release(&other).unwrap();
    let (mine, not_mine) = (
        lease.id().to_string(),
        LeaseId::random().expect("random numbers").to_string(),
    );
    let rows: [(&[&str], i32); 9] = [
        (&["--check", "held", "held"], 0),
        (&["--check", "free", "held"], 1),
        (&["--check", "held", "free"], 1),
        (&["--check", "free", "free"], 0),
        (&["--check", "held", "held", "free"], 1),
        (&["--check", "mine", "--lease-id", &mine, "held"], 0),
        (&["--check", "mine", "--lease-id", &not_mine, "held"], 1),
        (&["--check", "mine", "--lease-id", &mine, "free"], 1),
        (&["--check", "free", "missing"], 3),
    ];
    for (args, code) in rows {
        let done = tool.run(&[&["status"], args].concat()).exits(code);
        assert_eq!((&*done.out, &*done.err), ("", ""), "{args:?}");
    }
    tool.run(&["status", "--check", "mine", "held"])
        .exits(2)
        .says("pass --lease-id or set AZMUTEX_LEASE_ID");
}

#[test]
fn status_takes_the_url_of_a_lock() {
    let tool = Tool::new();
    let lease = tool
        .mutex()
        .acquire("prod/ä b", LeaseDuration::MAX)
        .unwrap();
    let url = tool.mutex().url(lease.key());
    assert!(url.ends_with("/locks/prod/%C3%A4%20b"), "{url}");
    let object = tool.run(&["status", &url, "--json"]).exits(0).json();
    assert_eq!(
        (&object["lock"], &object["url"]),
        (&"prod/ä b".into(), &url.into())
    );
}

#[test]
fn list_shows_a_table_of_all_locks() {
    let tool = Tool::new();
    tool.run(&[
        "acquire",
        "prod/deploy",
        "--owner",
        "ci@build-07",
        "--reason",
        "release 812",
    ])
    .exits(0);
    tool.mutex()
        .acquire("prod/migrate", LeaseDuration::MAX)
        .unwrap();
    tool.mutex().break_lease("prod/migrate", None).unwrap();
    let lease = tool
        .mutex()
        .acquire("prod/reindex", LeaseDuration::MAX)
        .unwrap();
    tool.mutex().release(&lease).unwrap();
    tool.mutex().acquire("test/a", LeaseDuration::MAX).unwrap();

    let done = tool.run(&["list", "--prefix", "prod/"]).exits(0);
    let rows: Vec<Vec<&str>> = done
        .out
        .lines()
        .map(|line| {
            line.split("  ")
                .map(str::trim)
                .filter(|c| !c.is_empty())
                .collect()
        })
        .collect();
    assert_eq!(rows[0], ["LOCK", "STATE", "HOLDER", "SINCE", "REASON"]);
    assert_eq!(rows[1][..3], ["prod/deploy", "held", "ci@build-07"]);
    assert_eq!(rows[1][4], "release 812");
    assert_eq!(rows[2], ["prod/migrate", "breaking", "unknown", "-", "-"]);
    assert_eq!(rows[3], ["prod/reindex", "free", "-", "-", "-"]);
    assert_eq!(rows.len(), 4);

    let names = |args: &[&str]| -> Vec<String> {
        let done = tool.run(&[&["list", "--json"], args].concat()).exits(0);
        let name = |object: serde_json::Value| object["lock"].as_str().unwrap().to_owned();
        done.jsons().into_iter().map(name).collect()
    };
    assert_eq!(names(&["--free"]), ["prod/reindex"]);
    assert_eq!(
        names(&["--held"]),
        ["prod/deploy", "prod/migrate", "test/a"]
    );
    tool.run(&["list", "--prefix", "none/"])
        .exits(0)
        .says("no such locks in locks");
}

#[test]
fn list_of_a_container_that_is_not_there_is_no_such_lock() {
    let tool = Tool::new();
    tool.run(&["list"])
        .exits(3)
        .says("ContainerNotFound")
        .says("hint: choose one with --container");
}

#[test]
fn break_ends_a_lease_after_the_grace_and_says_when() {
    let tool = Tool::new();
    let mutex = tool.mutex();
    mutex.acquire("a", LeaseDuration::MAX).unwrap();
    tool.run(&["break", "a", "--yes"])
        .exits(0)
        .prints("Lease broken; acquirable in 30s.\n");
    assert_eq!(mutex.status("a").unwrap().state(), LeaseState::Breaking);
    tool.run(&["break", "a", "--yes", "--now"])
        .exits(0)
        .prints("Lease broken; acquirable now.\n");
    assert!(mutex.status("a").unwrap().state().is_free());
    tool.run(&["break", "a", "--yes"])
        .exits(0)
        .prints("a is free: there is nothing to break.\n");
    tool.run(&["force-unlock", "b", "--yes"])
        .exits(3)
        .says("b: no such lock");
}

#[test]
fn break_as_json_tells_the_holder_and_the_seconds() {
    let tool = Tool::new();
    tool.run(&[
        "acquire",
        "a",
        "--owner",
        "ci@build-07",
        "--lease",
        "infinite",
    ])
    .exits(0);
    let object = tool.run(&["break", "a", "--confirm", "a", "--period", "7", "--json"]);
    let object = object.exits(0).json();
    assert_eq!(object["schema"], 1);
    assert_eq!(
        (&object["broken"], &object["remaining_s"]),
        (&true.into(), &7.into())
    );
    assert_eq!(object["holder"]["owner"], "ci@build-07");
}

#[test]
fn break_without_confirmation_changes_nothing() {
    let tool = Tool::new();
    let lease = tool.mutex().acquire("prod/a", LeaseDuration::MAX).unwrap();
    let refused = "refusing to break prod/a without confirmation";
    for (args, why) in [
        (&["break", "prod/a"][..], "stdin is not a terminal"),
        (&["break", "prod/a", "--no-input"], "--no-input"),
        (
            &["break", "prod/a", "--confirm", "prod/b"],
            "--confirm has a different name",
        ),
    ] {
        tool.run(args)
            .exits(5)
            .says(&format!("{refused}: {why}"))
            .says("hint: pass --yes, or --confirm prod/a");
    }
    tool.mutex().renew(&lease).unwrap();
}

#[test]
fn break_of_stale_holders_leaves_fresh_ones_alone() {
    let tool = Tool::new();
    tool.run(&["acquire", "a"]).exits(0);
    tool.run(&["break", "a", "--yes", "--if-stale", "2h"])
        .exits(1)
        .says("which is less than 2h00m (--if-stale)");
    assert_eq!(
        tool.mutex().status("a").unwrap().state(),
        LeaseState::Leased
    );
    tool.run(&["break", "a", "--yes", "--if-stale", "0"])
        .exits(0);
}

#[test]
fn break_of_stale_holders_leaves_those_of_unknown_age_alone() {
    let tool = Tool::new();
    let mutex = tool.mutex();
    let lease = mutex.acquire("a", LeaseDuration::MAX).unwrap();
    mutex.release(&lease).unwrap();
    tool.emulator().clock().advance(Duration::from_secs(600));
    mutex.acquire("a", LeaseDuration::MAX).unwrap();
    tool.run(&["break", "a", "--yes", "--if-stale", "5m"])
        .exits(1)
        .says("how long it has been held is not known (--if-stale)");
    assert_eq!(mutex.status("a").unwrap().state(), LeaseState::Leased);
}

/// What is not known of the lease that would be broken.
#[test]
fn break_of_stale_holders_goes_by_the_record_of_this_lease() {
    let account = |tool: &Tool| Account::parse(&tool.emulator().connection_string());
    let since = "2026-01-07T10:02:11Z";
    let old = |state, lease| {
        let mut values = vec![
            ("azmutexstate", state),
            ("azmutexowner", "alice@gone"),
            ("azmutexsince", since),
        ];
        values.extend(lease);
        values
    };
    let fixed = ("azmutexlease", "60");
    let (held, by_sdk) = ("held by alice@gone", "an unknown holder");
    for (metadata, duration, why) in [
        // It fits, and was written long ago.
        (old("held", Some(fixed)), LeaseDuration::MAX, None),
        (old("held", None), LeaseDuration::INFINITE, None),
        // Somebody released the lock, and another client took it.
        (
            old("released", Some(fixed)),
            LeaseDuration::MAX,
            Some(by_sdk),
        ),
        // A lease of another kind.
        (
            old("held", Some(fixed)),
            LeaseDuration::INFINITE,
            Some(by_sdk),
        ),
        (old("held", None), LeaseDuration::MAX, Some(by_sdk)),
        // No time, or no record.
        (
            vec![
                ("azmutexstate", "held"),
                ("azmutexowner", "alice@gone"),
                fixed,
            ],
            LeaseDuration::MAX,
            Some(held),
        ),
        (vec![("team", "platform")], LeaseDuration::MAX, Some(by_sdk)),
    ] {
        let tool = Tool::new();
        let lease = tool.mutex().acquire("a", LeaseDuration::MAX).unwrap();
        let id = lease.id().to_string();
        let answer = account(&tool).write_metadata("locks/a", Some(&id), &metadata);
        assert_eq!(answer.status, 200, "{answer:?}");
        tool.mutex().release(&lease).unwrap();
        tool.mutex().acquire("a", duration).unwrap();
        let state = || tool.mutex().status("a").unwrap().state();
        let args = ["break", "a", "--yes", "--now", "--if-stale"];
        // The blob was written to a moment ago, whatever the record says.
        let done = tool.run(&[&args[..], &["10s"]].concat()).exits(1);
        match why {
            None => done.says("which is less than 10s (--if-stale)"),
            Some(why) => done
                .says("how long it has been held is not known (--if-stale)")
                .says(why)
                .says("hint: to break it all the same: --unknown-is-stale"),
        };
        let unknown = [&args[..], &["10s", "--unknown-is-stale"]].concat();
        tool.run(&unknown)
            .exits(1)
            .says("which is less than 10s (--if-stale)");
        assert_eq!(state(), LeaseState::Leased);
        let args = [&args[..], &["0"]].concat();
        if why.is_some() {
            tool.run(&args).exits(1).says("is not known");
            tool.run(&[&args[..], &["--unknown-is-stale"]].concat())
                .exits(0);
        } else {
            tool.run(&args).exits(0);
        }
        assert_eq!(state(), LeaseState::Broken);
    }
    Tool::new()
        .run(&["break", "a", "--yes", "--unknown-is-stale"])
        .exits(2)
        .says("--if-stale");
}

#[test]
fn lock_of_terraform_is_shown_as_its_holders() {
    let tool = Tool::new();
    // {"ID":"1","Operation":"OperationTypeApply","Who":"bob@ws","Created":"2026-01-07T10:02:11.5Z"}
    let lock = "eyJJRCI6IjEiLCJPcGVyYXRpb24iOiJPcGVyYXRpb25UeXBlQXBwbHkiLCJXaG8iOiJib2JAd3MiLCJDcmVhdGVkIjoiMjAyNi0wMS0wN1QxMDowMjoxMS41WiJ9";
    let lease = tool
        .mutex()
        .acquire("prod.tfstate", LeaseDuration::INFINITE)
        .unwrap();
    let id = lease.id().to_string();
    let account = Account::parse(&tool.emulator().connection_string());
    let metadata = [("terraformlockid", lock)];
    account.write_metadata("locks/prod.tfstate", Some(&id), &metadata);
    tool.run(&["status", "prod.tfstate"])
        .exits(0)
        .prints("prod.tfstate: held by bob@ws (reason: OperationTypeApply) for ");
    let object = tool
        .run(&["status", "--json", "prod.tfstate"])
        .exits(0)
        .json();
    assert_eq!(object["holder"]["owner"], "bob@ws");
    assert_eq!(object["holder"]["since"], "2026-01-07T10:02:11Z");
    tool.run(&["list"])
        .exits(0)
        .prints("bob@ws")
        .prints("OperationTypeApply");
    tool.run(&["acquire", "-n", "prod.tfstate"])
        .exits(75)
        .says("held by bob@ws");
    // Held for long, but the holder has just written to it.
    tool.run(&["break", "prod.tfstate", "--yes", "--if-stale", "1h"])
        .exits(1)
        .says("prod.tfstate was not broken: not written to for ");
    // Terraform clears its metadata when it unlocks; a leftover is no holder.
    tool.mutex().release(&lease).unwrap();
    tool.run(&["status", "prod.tfstate"])
        .exits(0)
        .prints("prod.tfstate: free (last recorded: bob@ws");
}

#[test]
fn status_says_released_only_of_what_was() {
    let tool = Tool::new();
    // Broken, and then released by its holder, as `run` does once it has noticed.
    let lease = tool
        .run(&["acquire", "a", "--owner", "ci@gone"])
        .exits(0)
        .line()
        .to_owned();
    tool.mutex().break_lease("a", Some(Duration::ZERO)).unwrap();
    tool.run(&["status", "a"])
        .exits(0)
        .prints("a: free: the lease was broken (last recorded: ci@gone (pid ");
    let lease = azmutex::Lease::new("a", lease.parse().unwrap()).unwrap();
    tool.mutex().release(&lease).unwrap();
    let done = tool.run(&["status", "a"]).exits(0);
    assert!(
        done.out
            .starts_with("a: free (last recorded: ci@gone (pid "),
        "{done:?}"
    );
    // Another holder that wrote nothing.
    let lease = tool.mutex().acquire("a", LeaseDuration::MAX).unwrap();
    tool.mutex().release(&lease).unwrap();
    let done = tool.run(&["status", "a"]).exits(0);
    assert!(!done.out.contains("released"), "{done:?}");
    // One that recorded its release.
    let id = tool.run(&["acquire", "b"]).exits(0).line().to_owned();
    tool.run(&["release", "b", "--lease-id", &id]).exits(0);
    tool.run(&["status", "b"])
        .exits(0)
        .prints("b: free (released)\n");
}

#[cfg(unix)]
#[test]
fn holder_has_the_system_s_user_name_if_no_variable_has_one() {
    let tool = Tool::new();
    let output = std::process::Command::new("id")
        .arg("-un")
        .output()
        .unwrap();
    let user = String::from_utf8(output.stdout).unwrap();
    let mut command = tool.command(&["acquire", "a"]);
    for name in ["USER", "LOGNAME", "USERNAME"] {
        command.env_remove(name);
    }
    finish(command).exits(0);
    let status = tool.mutex().status("a").unwrap();
    let owner = status.holder().and_then(azmutex::Holder::owner).unwrap();
    assert!(owner.starts_with(&format!("{}@", user.trim())), "{owner}");
}

#[test]
fn names_from_elsewhere_cannot_control_the_terminal() {
    let tool = Tool::new();
    tool.mutex()
        .acquire("\u{202e}evil", LeaseDuration::MAX)
        .unwrap();
    let done = tool.run(&["list"]).exits(0).prints("\\u{202e}evil");
    assert!(!done.out.contains('\u{202e}'));
    tool.mutex()
        .acquire("hid\u{200b}den\u{61c}", LeaseDuration::MAX)
        .unwrap();
    tool.run(&["list"])
        .exits(0)
        .prints("hid\\u{200b}den\\u{61c}");
    let done = tool
        .run(&["list", "--json"])
        .exits(0)
        .prints("\"hid\\u200bden\\u061c\"");
    assert!(
        !done.out.contains(['\u{202e}', '\u{200b}', '\u{61c}']),
        "{done:?}"
    );
    assert!(
        done.jsons()
            .iter()
            .any(|object| object["lock"] == "\u{202e}evil")
    );
    let mut command = tool.command(&["status", "a\u{1b}[2J"]);
    command.env("AZMUTEX_COLOR", "never");
    let done = finish(command).exits(2);
    assert!(!done.err.contains('\u{1b}'), "{done:?}");
}

#[test]
fn azurite_is_looked_at_and_broken_in_the_same_way() {
    let Some(azurite) = Azurite::shared() else {
        return;
    };
    let tool = Tool::of(azurite.connection_string());
    let name = format!("cli/{}", LeaseId::random().expect("random numbers"));
    tool.run(&["acquire", &name, "--owner", "ci@build-07"])
        .exits(0);
    tool.run(&["status", &name])
        .exits(0)
        .prints("held by ci@build-07");
    tool.run(&["list", "--prefix", &name])
        .exits(0)
        .prints("ci@build-07");
    tool.run(&["break", &name, "--yes", "--now"])
        .exits(0)
        .prints("acquirable now");
    tool.run(&["status", "--check", "free", &name]).exits(0);
    tool.run(&["doctor"]).exits(0).prints("create and acquire");
}

#[test]
fn break_without_asking_says_how_long_the_holder_may_go_on() {
    let tool = Tool::new();
    tool.run(&["acquire", "a", "--lease", "15s"]).exits(0);
    let warning = "azmutex: warning: Its holder may work on for up to 8s, judging by its lease of \
                   15s: it notices at its next renewal, within 5s, and azmutex run then ends the \
                   command within 3s. The break period of 5s is shorter: two holders may be at work \
                   for 3s.";
    tool.run(&["break", "a", "--yes", "--period", "5"])
        .exits(0)
        .says(warning);
    tool.run(&["acquire", "b", "--lease", "infinite"]).exits(0);
    tool.run(&["break", "b", "--confirm", "b", "--json"])
        .exits(0)
        .says("azmutex: Such a lease is not renewed, so its holder will not notice");
    tool.mutex().acquire("c", LeaseDuration::MAX).unwrap();
    let done = tool
        .run(&["break", "c", "--yes", "--json"])
        .exits(0)
        .says("up to 30s, judging by a lease of 1m, since its own is not known");
    assert_eq!(done.json()["holder_active_s"], 30);
}

#[test]
fn status_of_a_breaking_lease_does_not_claim_to_know_its_end() {
    let tool = Tool::new();
    tool.run(&["acquire", "a", "--owner", "ci@build-07"])
        .exits(0);
    tool.run(&["break", "a", "--yes", "--period", "5"]).exits(0);
    let done = tool
        .run(&["status", "a"])
        .exits(0)
        .prints("a: breaking: held by ci@build-07 (pid ")
        .prints(" until its break period is over; the service does not tell when that is\n");
    assert!(!done.out.contains("60s"), "{done:?}");
}

#[test]
fn break_waits_until_the_lock_can_be_acquired() {
    let tool = Tool::new();
    tool.mutex().acquire("a", LeaseDuration::MAX).unwrap();
    tool.run(&["break", "a", "--yes", "--period", "1", "--wait"])
        .exits(0)
        .says("azmutex: lease broken; waiting until it ends, in 1s or when its holder releases it")
        .prints("Lease broken; acquirable now.\n");
    tool.run(&["acquire", "-n", "a"]).exits(0);
    let object = tool.run(&["break", "a", "--yes", "--period", "1", "--wait", "--json"]);
    assert_eq!(object.exits(0).json()["remaining_s"], 0);
}

#[test]
fn break_that_waits_ends_within_its_limit() {
    let tool = Tool::new();
    tool.mutex().acquire("a", LeaseDuration::MAX).unwrap();
    tool.run(&["break", "a", "--yes", "--wait=100ms"])
        .exits(75)
        .says("a was broken, but its lease has not ended within 0.1s (--wait)");
}

#[test]
fn break_that_waits_says_so_if_another_client_was_faster() {
    let tool = Tool::new();
    let mutex = tool.mutex();
    // It looks once a second, and may do so in the moment in which the lock is free.
    let code = (0..5).find_map(|attempt| {
        let key = format!("a{attempt}");
        let lease = mutex.acquire(&key, LeaseDuration::MAX).unwrap();
        let mut breaking = tool.start(&["break", &key, "--yes", "--wait"]);
        breaking.says("waiting until it ends");
        mutex.release(&lease).unwrap();
        mutex.acquire(&key, LeaseDuration::MAX).unwrap();
        breaking.wait().code().filter(|code| *code != 0)
    });
    assert_eq!(code, Some(75));
}

#[test]
fn list_is_not_padded_by_one_long_name() {
    let tool = Tool::new();
    let long = "x".repeat(1024);
    let lock = |name: &str| {
        tool.mutex()
            .acquire(name, LeaseDuration::MAX)
            .map(drop)
            .unwrap()
    };
    ["鍵", "ab", &long].iter().copied().for_each(lock);
    let done = tool.run(&["list"]).exits(0);
    let rows: Vec<_> = done.out.lines().collect();
    assert_eq!(rows[0], "LOCK  STATE  HOLDER   SINCE  REASON");
    assert_eq!(rows[1], "ab    held   unknown  -      -");
    assert!(rows[2].starts_with(&format!("{long}  held ")));
    assert_eq!(rows[3], "鍵    held   unknown  -      -");
}

#[test]
fn list_is_limited_and_sorted() {
    let tool = Tool::new();
    for (name, age) in [("b-free", 0), ("c-old", 20), ("a-new", 0)] {
        let lease = tool.mutex().acquire(name, LeaseDuration::INFINITE).unwrap();
        if name == "b-free" {
            tool.mutex().release(&lease).unwrap();
            continue;
        }
        tool.mutex()
            .write_holder(&lease, azmutex::Holder::current(LeaseDuration::INFINITE))
            .unwrap();
        // The record's time is the machine's, not the emulator's.
        if age > 0 {
            thread::sleep(Duration::from_millis(1100));
        }
    }
    let names = |args: &[&str]| -> Vec<String> {
        let done = tool.run(&[&["list", "--json"], args].concat()).exits(0);
        let name = |object: serde_json::Value| object["lock"].as_str().unwrap().to_owned();
        done.jsons().into_iter().map(name).collect()
    };
    assert_eq!(names(&[]), ["a-new", "b-free", "c-old"]);
    assert_eq!(names(&["--limit", "2"]), ["a-new", "b-free"]);
    assert_eq!(names(&["--sort", "state"]), ["a-new", "c-old", "b-free"]);
    assert_eq!(
        names(&["--sort", "since", "--limit", "2"]),
        ["c-old", "a-new"]
    );
    tool.run(&["list", "--limit", "0"])
        .exits(2)
        .says("--limit: invalid value \"0\": use a number from 1");
}

#[test]
fn list_is_one_table_however_long_it_is() {
    let tool = Tool::new();
    let mutex = tool.mutex();
    for n in 0..201 {
        let name = format!("lock-{n:03}");
        mutex.acquire(&name, LeaseDuration::MAX).unwrap();
    }
    let done = tool.run(&["list"]).exits(0);
    let names: Vec<_> = done
        .out
        .lines()
        .map(|line| line.split(' ').next())
        .collect();
    assert_eq!(
        (names.len(), names[0], names[201]),
        (202, Some("LOCK"), Some("lock-200"))
    );
    assert!(names[1..].is_sorted());
}

#[test]
fn list_shows_what_it_has_while_the_service_is_slow() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // A page with a marker of the next, which never comes.
    let body = "<EnumerationResults><Blobs><Blob><Name>first</Name><Properties>\
                <Etag>0x1</Etag><LeaseStatus>unlocked</LeaseStatus>\
                <LeaseState>available</LeaseState></Properties></Blob></Blobs>\
                <NextMarker>more</NextMarker></EnumerationResults>";
    let reply = format!(
        "HTTP/1.1 200 OK\r\nx-ms-version: 2021-12-02\r\nx-ms-request-id: 1\r\n\
         Content-Type: application/xml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = String::new();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        while !head.ends_with("\r\n\r\n") && lines.read_line(&mut head).is_ok_and(|n| n > 0) {}
        stream.write_all(reply.as_bytes()).unwrap();
        // The next request is read, and not answered.
        let _ = lines.read_to_string(&mut head);
    });
    let tool = Tool::of(format!(
        "AccountName=devstoreaccount1;AccountKey=a2V5;BlobEndpoint=http://{address}/devstoreaccount1"
    ));
    let list = tool.start(&["list"]);
    assert!(list.line().starts_with("LOCK "));
    assert!(list.line().starts_with("first "));
}

#[test]
fn hints_name_locks_as_a_shell_reads_them() {
    let tool = Tool::new();
    tool.mutex()
        .acquire("it's mine", LeaseDuration::MAX)
        .unwrap();
    tool.run(&["break", "it's mine"])
        .exits(5)
        .says(r"hint: pass --yes, or --confirm 'it'\''s mine'");
}

#[test]
fn permits_of_a_semaphore_that_were_never_used_are_free() {
    let tool = Tool::new();
    let semaphore = Semaphore::new(tool.mutex(), "deploy", 3).unwrap();
    let permit = semaphore.acquire().unwrap();
    let held = semaphore.slot(&permit).unwrap();
    let done = tool
        .run(&["status", "--slots", "deploy"])
        .exits(0)
        .prints("deploy: a semaphore with 3 permits\n");
    for slot in 0..3 {
        let text = match slot {
            _ if slot == held => format!("deploy.slot{slot}: held by "),
            _ => format!("deploy.slot{slot}: free (never used)\n"),
        };
        assert!(done.out.contains(&text), "{text} {done:?}");
    }
    let objects = tool
        .run(&["status", "--slots", "--json", "deploy"])
        .exits(0);
    assert_eq!(objects.jsons().len(), 4);
    drop(permit);
    let one = Semaphore::new(tool.mutex(), "one", 1).unwrap();
    drop(one.acquire().unwrap());
    tool.run(&["status", "one"])
        .exits(0)
        .prints("one: a semaphore with 1 permit\n");
}

#[test]
fn semaphore_whose_own_key_is_held_as_a_lock_is_shown_as_both() {
    let tool = Tool::new();
    let semaphore = Semaphore::new(tool.mutex(), "deploy", 3).unwrap();
    drop(semaphore.acquire().unwrap());
    let locker = Locker::builder(tool.mutex(), "deploy").owner("ci@build-07");
    let locker = locker.holder_delay(Duration::ZERO).build().unwrap();
    let held = locker.lock().unwrap();
    tool.run(&["status", "deploy"])
        .exits(0)
        .prints("deploy: a semaphore with 3 permits; as a lock, held by ci@build-07");
    drop(held);
}

#[test]
fn list_tells_semaphores_and_done_work_from_locks() {
    let tool = Tool::new();
    let semaphore = Semaphore::new(tool.mutex(), "deploy", 3).unwrap();
    drop(semaphore.acquire().unwrap());
    let migration = Locker::new(tool.mutex(), "migration").unwrap();
    migration.once(None, |_| Ok::<_, Error>(())).unwrap();
    let done = tool.run(&["list"]).exits(0);
    for (lock, state) in [("deploy ", "3 permits"), ("migration ", "free (done)")] {
        let row = done.out.lines().find(|line| line.starts_with(lock));
        let cells: Vec<_> = row.unwrap().split("  ").map(str::trim).collect();
        assert!(cells.contains(&state), "{cells:?}");
    }
    tool.run(&["status", "migration"])
        .exits(0)
        .prints("; done by ");
}

#[test]
fn whoever_gets_no_permit_is_told_how_to_look_at_the_permits() {
    let tool = Tool::new();
    let mut holder = tool.start(&["run", "--slots", "1", "a", "--", "cat"]);
    until_held(&tool, "a.slot0");
    tool.run(&["run", "--slots", "1", "-n", "a", "--", "true"])
        .exits(75)
        .says("hint: azmutex status --slots a; if a holder is gone: azmutex break --slot 0 a\n");
    tool.run(&["status", "--slots", "a"])
        .exits(0)
        .prints("a: a semaphore with 1 permit\na.slot0: held by ");
    tool.run(&["break", "a", "--yes"])
        .exits(2)
        .says("a is a semaphore with 1 permit: say which\n")
        .says("hint: azmutex status --slots a; then azmutex break --slot N a\n");
    tool.run(&["break", "--slot", "0", "a", "--yes", "--now"])
        .exits(0)
        .prints("Lease broken; acquirable now.");
    holder.close_stdin();
    holder.wait();
}

fn until_held(tool: &Tool, name: &str) {
    let held = || {
        tool.mutex()
            .status(name)
            .is_ok_and(|s| !s.state().is_free())
    };
    while !held() {
        thread::sleep(Duration::from_millis(20));
    }
}
