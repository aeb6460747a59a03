//! Whatever is written as JSON holds to the schema that `azmutex schema` prints.

use std::collections::BTreeSet;
use std::time::Duration;

use azmutex::{AzureMutex, LeaseDuration, LeaseId};
use serde_json::Value;

use super::tool::{Done, Tool, bare, finish};

const SCHEMA: &str = include_str!("../../../src/bin/azmutex/schema.json");

/// Checks a value by the part of JSON Schema that the schema uses, and one thing more: it has no
/// members that the schema does not know.
fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let wrong = |rule: &str| Err(format!("{at}: {value}: {rule}"));
    for (keyword, rule) in schema.as_object().expect("a schema") {
        match keyword.as_str() {
            "$ref" => {
                let pointer = rule.as_str().unwrap().trim_start_matches('#');
                check(root, root.pointer(pointer).expect(pointer), value, at)?;
            }
            "const" if rule != value => return wrong(&format!("not {rule}")),
            "enum" if !rule.as_array().unwrap().contains(value) => {
                return wrong(&format!("none of {rule}"));
            }
            "type" => {
                let types = rule
                    .as_array()
                    .map_or_else(|| vec![rule], |all| all.iter().collect());
                let is = |name: &Value| match name.as_str().unwrap() {
                    "string" => value.is_string(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    "boolean" => value.is_boolean(),
                    "array" => value.is_array(),
                    "object" => value.is_object(),
                    "null" => value.is_null(),
                    other => panic!("type {other}"),
                };
                if !types.into_iter().any(is) {
                    return wrong(&format!("not of type {rule}"));
                }
            }
            "minimum" if value.as_f64() < rule.as_f64() && value.is_number() => {
                return wrong("too small");
            }
            "format" => {
                assert_eq!(rule, "date-time");
                if value.as_str().is_some_and(|text| !is_date_time(text)) {
                    return wrong("not a time in RFC 3339");
                }
            }
            "required" => {
                for name in rule.as_array().unwrap() {
                    if value.get(name.as_str().unwrap()).is_none() {
                        return wrong(&format!("it lacks {name}"));
                    }
                }
            }
            "properties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    let at = format!("{at}.{name}");
                    let rule = rule.get(name).ok_or(format!("{at}: not in the schema"))?;
                    check(root, rule, value, &at)?;
                }
            }
            "items" => {
                for value in value.as_array().into_iter().flatten() {
                    check(root, rule, value, at)?;
                }
            }
            "oneOf" => {
                let results = rule.as_array().unwrap().iter();
                let results: Vec<_> = results.map(|one| check(root, one, value, at)).collect();
                if results.iter().filter(|result| result.is_ok()).count() != 1 {
                    return wrong(&format!("not one of these: {results:?}"));
                }
            }
            "const" | "enum" | "minimum" | "description" | "title" | "$schema" | "$defs" => {}
            other => panic!("keyword {other}"),
        }
    }
    Ok(())
}

fn is_date_time(text: &str) -> bool {
    let form: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    ["0000-00-00T00:00:00Z", "0000-00-00T00:00:00.000Z"].contains(&&*form)
}

/// Asserts that an object holds to the schema, and returns its event.
#[track_caller]
pub(crate) fn assert_valid(object: &Value) -> String {
    let root: Value = serde_json::from_str(SCHEMA).unwrap();
    let event = object["event"]
        .as_str()
        .unwrap_or_else(|| panic!("no event in {object}"));
    // The same as the whole, with a message that can be read.
    let schema = root.pointer(&format!("/$defs/{event}"));
    let schema = schema.unwrap_or_else(|| panic!("{event} is not in the schema"));
    check(&root, schema, object, event).unwrap_or_else(|wrong| panic!("{wrong}"));
    check(&root, &root, object, event).unwrap_or_else(|wrong| panic!("{wrong}"));
    event.to_owned()
}

impl Done {
    /// The events on stdout, all of which hold to the schema.
    #[track_caller]
    fn events(&self) -> Vec<String> {
        self.jsons().iter().map(assert_valid).collect()
    }

    /// The events on stderr, all of which hold to the schema.
    #[track_caller]
    fn logged(&self) -> Vec<String> {
        let objects = self
            .err
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{self:?}")));
        objects.map(|object: Value| assert_valid(&object)).collect()
    }
}

#[test]
fn schema_is_printed_and_names_every_event_once() {
    let printed = finish(bare(&["schema"])).exits(0);
    assert_eq!(printed.out, SCHEMA);
    let root: Value = serde_json::from_str(SCHEMA).unwrap();
    let listed = root["oneOf"].as_array().unwrap().iter();
    let listed: BTreeSet<_> = listed
        .map(|one| one["$ref"].as_str().unwrap().replace("#/$defs/", ""))
        .collect();
    let defined = root["$defs"].as_object().unwrap().iter();
    let defined: BTreeSet<_> = defined
        .filter(|(_, schema)| schema["properties"].get("event").is_some())
        .map(|(name, schema)| {
            assert_eq!(schema["properties"]["event"]["const"], **name);
            name.clone()
        })
        .collect();
    assert_eq!(listed, defined);
}

#[test]
fn json_of_every_verb_holds_to_the_schema() {
    let tool = Tool::new();
    let json = |args: &[&str], code| tool.run(&[args, &["--json"]].concat()).exits(code).events();
    let acquired = tool.run(&["acquire", "a", "--json"]).exits(0);
    assert_eq!(acquired.events(), ["acquired"]);
    let id = acquired.json()["lease_id"].as_str().unwrap().to_owned();
    let other = LeaseId::random().expect("random numbers").to_string();
    tool.mutex()
        .acquire("unknown", LeaseDuration::INFINITE)
        .unwrap();
    let rows: [(&[&str], i32, &[&str]); 19] = [
        (&["acquire", "-n", "a"], 75, &["error"]),
        (&["renew", "a", "--lease-id", &id], 0, &["renewed"]),
        (&["renew", "a", "--lease-id", &other], 4, &["error"]),
        (&["release", "a", "--lease-id", &other], 4, &["error"]),
        (&["status", "a", "unknown", "none"], 3, &["status"; 3]),
        (&["status", "--check", "held", "a"], 0, &["status"]),
        (&["status", "--check", "free", "a"], 1, &["status"]),
        (&["status", "--check", "free", "none"], 3, &["status"]),
        (&["list"], 0, &["status"; 2]),
        (&["list", "--container", "none"], 3, &["error"]),
        (&["break", "a"], 5, &["error"]),
        (
            &["break", "unknown", "--yes", "--period", "9"],
            0,
            &["break"],
        ),
        (&["break", "unknown", "--yes", "--now"], 0, &["break"]),
        (&["break", "unknown", "--yes"], 0, &["break"]),
        (&["break", "none", "--yes"], 3, &["error"]),
        (&["release", "a", "--lease-id", &id], 0, &["released"]),
        (&["doctor"], 0, &["doctor"]),
        (&["doctor", "--setup", "--auth", "sas"], 0, &["setup"]),
        (
            &["run", "--lease", "infinite", "a", "true"],
            125,
            &["error"],
        ),
    ];
    for (args, code, events) in rows {
        assert_eq!(json(args, code), events, "{args:?}");
    }
    let mut hold = tool.start(&["hold", "a", "--json"]);
    let object = serde_json::from_str(&hold.line()).unwrap();
    assert_eq!(assert_valid(&object), "acquired");
    hold.close_stdin();
    for args in [
        &["emulator", "--json"][..],
        &["emulator", "--json", "--sas"],
    ] {
        let emulator = tool.start(args);
        let object = serde_json::from_str(&emulator.line()).unwrap();
        assert_eq!(assert_valid(&object), "serving");
    }
}

#[test]
fn arguments_that_do_not_parse_are_an_object_where_output_is() {
    for (args, code) in [
        (&["status", "--json"][..], 2),
        (&["--json", "stat"], 2),
        (&["list", "--json", "--bogus"], 2),
        (&["run", "--json", "a"], 125),
        (&["run", "--json", "-w", "x", "a", "true"], 125),
    ] {
        let done = finish(bare(args)).exits(code);
        assert_eq!(done.events(), ["error"], "{args:?}");
        assert_eq!(done.json()["exit"], code);
        assert_eq!(
            done.json()["hints"].as_array().unwrap().len(),
            done.err.matches("hint: ").count()
        );
    }
    let mut command = bare(&["status"]);
    command
        .env("AZMUTEX_JSON", "1")
        .env("AZMUTEX_LOG_FORMAT", "json");
    let done = finish(command).exits(2);
    assert_eq!(
        (done.events(), done.logged()),
        (vec!["error".to_owned()], vec!["error".to_owned()])
    );
    // What is the command's says nothing of azmutex's output.
    let done = finish(bare(&["run", "--bogus", "--", "true", "--json"])).exits(125);
    assert_eq!(done.out, "");
}

#[test]
fn log_as_json_holds_to_the_schema() {
    let tool = Tool::new();
    tool.mutex().acquire("a", LeaseDuration::INFINITE).unwrap();
    let json = ["--log-format", "json"];
    let waited = tool
        .run(&[&["acquire", "-w", "1s", "a", "-v"], &json[..]].concat())
        .exits(75);
    let logged = waited.logged();
    assert!(logged.contains(&"waiting".to_owned()), "{logged:?}");
    assert_eq!(logged.last().unwrap(), "error");
    let warned = tool
        .run(&[&["acquire", "--lease", "infinite", "b", "-v"], &json[..]].concat())
        .exits(0)
        .logged();
    assert!(warned.contains(&"message".to_owned()) && warned.contains(&"acquired".to_owned()));
}

#[test]
#[cfg_attr(windows, ignore = "`run` is not supported on Windows yet")]
fn waiting_of_a_run_is_an_event_that_holds_to_the_schema() {
    let tool = Tool::new();
    let lease = tool
        .mutex()
        .acquire("a\u{200b}", LeaseDuration::MAX)
        .unwrap();
    let run = tool.start(&["run", "--log-format", "json", "a\u{200b}", "true"]);
    let line = run.says("\"waiting\"");
    let object: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(assert_valid(&object), "waiting");
    assert_eq!(object["lock"], "a\u{200b}");
    tool.mutex().release(&lease).unwrap();
}

#[test]
#[cfg_attr(windows, ignore = "`run` is not supported on Windows yet")]
fn plan_of_a_dry_run_is_an_object_that_holds_to_the_schema() {
    let tool = Tool::new();
    tool.mutex().acquire("a", LeaseDuration::INFINITE).unwrap();
    for (lock, wait, state, seconds) in [
        ("a", &[][..], "leased", None),
        ("b", &["-w", "90s"], "missing", Some(90.0)),
    ] {
        let args = [&["run", "--dry-run", "--json"], wait, &[lock, "/bin/sh"]].concat();
        let done = tool.run(&args).exits(0);
        assert_eq!(done.events(), ["plan"]);
        let plan = done.json();
        assert_eq!(plan["state"], state);
        assert_eq!(plan["wait_s"].as_f64(), seconds);
        assert_eq!(plan["signal_after_s"], 45.0);
        assert_eq!(plan["command"], "/bin/sh");
    }
}

#[test]
#[cfg_attr(windows, ignore = "`run` is not supported on Windows yet")]
fn run_that_does_not_start_its_command_prints_one_object_with_its_exit_code() {
    let tool = Tool::new();
    let name = "it's a\u{61c}";
    tool.mutex().acquire(name, LeaseDuration::INFINITE).unwrap();
    let rows: [(&[&str], i32); 9] = [
        (&["-n", name, "true"], 75),
        (&["-w", "1s", name, "true"], 75),
        (&["-n", "-E", "9", name, "true"], 9),
        (&["-n", "-E", "0", name, "true"], 0),
        (&["b", "no-such-command"], 127),
        (&["b", "/"], 126),
        (&["--create", "never", "c", "true"], 125),
        (&["--event-fd", "99", "b", "true"], 125),
        (&["--lease", "15s", "--margin", "14s", "b", "true"], 125),
    ];
    for (args, code) in rows {
        let options = ["run", "--json", "--log-format", "json"];
        let done = tool.run(&[&options[..], args].concat()).exits(code);
        assert_eq!(done.events(), ["error"], "{args:?}");
        let object = done.json();
        assert_eq!(object["exit"], code, "{args:?}");
        assert!(!done.out.contains('\u{61c}'), "{done:?}");
        let logged = done.logged();
        let expected = if code == 0 { 0 } else { 1 };
        let errors = logged.iter().filter(|event| *event == "error").count();
        assert_eq!(errors, expected, "{logged:?}");
        if args.contains(&name) {
            let word = "$'it\\'s a\\U0000061c'";
            let hint =
                format!("azmutex status {word}; if the holder is gone: azmutex break {word}");
            assert_eq!(object["hints"][0], hint);
        }
    }
}

#[test]
#[cfg_attr(windows, ignore = "`run` is not supported on Windows yet")]
fn lock_that_was_waited_for_is_acquired_as_an_event_with_its_fencing_token() {
    let tool = Tool::new();
    let lease = tool.mutex().acquire("a", LeaseDuration::MAX).unwrap();
    let run = tool.start(&["run", "--log-format", "json", "a", "true"]);
    run.says("\"waiting\"");
    tool.mutex().release(&lease).unwrap();
    let object: Value = serde_json::from_str(&run.says("\"acquired\"")).unwrap();
    assert_eq!(assert_valid(&object), "acquired");
    assert!(
        object["lock"] == "a" && object["fence"].is_i64(),
        "{object}"
    );
}

#[test]
#[cfg_attr(windows, ignore = "`run` is not supported on Windows yet")]
fn hints_quote_the_lock_for_a_shell() {
    let tool = Tool::new();
    let other = LeaseId::random().expect("random numbers").to_string();
    for (name, word) in [
        ("a b", "'a b'"),
        ("$(x)", "'$(x)'"),
        ("--x", "-- --x"),
        ("it's", r"'it'\''s'"),
    ] {
        tool.mutex().acquire(name, LeaseDuration::INFINITE).unwrap();
        // Other words behind dashes are taken for the command.
        let before_lock = if name == "--x" { "--" } else { "-v" };
        for args in [
            &["acquire", "-n", "--", name][..],
            &["run", "-n", before_lock, name, "true"],
            &["renew", "--lease-id", &other, "--", name],
            &["release", "--lease-id", &other, "--", name],
        ] {
            let done = tool.run(args);
            let hint = done.err.lines().last().unwrap();
            assert!(
                hint.contains(&format!("azmutex status {word}")),
                "{args:?}: {done:?}"
            );
        }
    }
    // A lock of another container.
    let url = tool.mutex().url("--x").replace("/locks/", "/others/");
    let others = AzureMutex::new(tool.emulator().options("others").unwrap()).unwrap();
    others.acquire("--x", LeaseDuration::INFINITE).unwrap();
    let hint = format!("azmutex break {url}\n");
    tool.run(&["acquire", "-n", &url]).exits(75).says(&hint);
}

#[test]
fn times_of_events_are_those_of_their_happening() {
    let tool = Tool::new();
    let time = || {
        let object = tool.run(&["status", "none", "--json"]).exits(3).json();
        object["time"].as_str().unwrap().to_owned()
    };
    let first = time();
    std::thread::sleep(Duration::from_millis(2));
    assert!(time() > first);
}

#[cfg(target_os = "linux")]
#[test]
fn guardian_says_when_it_ended_the_command_and_not_when_that_began() {
    let tool = Tool::new();
    let script = "echo $AZMUTEX_PID; exec sleep 1000";
    let run = tool.start(&["run", "--log-format", "json", "a", "-c", script]);
    let pid = run.line();
    let before = tool.run(&["status", "a", "--json"]).json();
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid])
        .status();
    assert!(killed.unwrap().success());
    let said: Value = serde_json::from_str(&run.says("was killed")).unwrap();
    assert_eq!(assert_valid(&said), "message");
    assert!(said["time"].as_str() > before["time"].as_str(), "{said}");
}
