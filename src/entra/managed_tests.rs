use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use parking_lot::Mutex;

use super::super::scratch::Scratch;
use super::super::token::tests::request;
use super::*;
use crate::http::test_server::{Answer, Server, reply};
use crate::time::clock::Clock;
use crate::time::test_clock;

/// How long a failing test may take.
const LONG: Duration = Duration::from_secs(60);

const TOKEN: &str = r#"{"access_token":"abc.def","expires_in":"86399","expires_on":"32503680000",
    "resource":"https://storage.azure.com","token_type":"Bearer"}"#;

type Reply = fn() -> Answer;

/// An endpoint that answers its requests in this order, the last answer for ever.
struct Script {
    server: Server,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn new(answers: Vec<Reply>) -> Self {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let server = Server::start(move |_, head| {
            let mut heads = seen.lock();
            heads.push(head.to_owned());
            answers[(heads.len() - 1).min(answers.len() - 1)]()
        });
        Self { server, heads }
    }

    fn url(&self) -> String {
        format!("http://{}", self.server.addr)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().clone()
    }

    fn imds(&self, choice: Choice) -> ManagedIdentity {
        let env = Env::of([("AZURE_POD_IDENTITY_AUTHORITY_HOST", self.url())]);
        ManagedIdentity::at(Place::Imds, &env, choice, None).unwrap()
    }

    fn app(&self, choice: Choice) -> ManagedIdentity {
        let url = format!("{}/msi/token?api=1", self.url());
        let env = Env::of([("IDENTITY_ENDPOINT", &*url), ("IDENTITY_HEADER", "s3cret")]);
        ManagedIdentity::at(Place::AppService, &env, choice, None).unwrap()
    }

    fn arc(&self, choice: Choice, keys: &Path) -> ManagedIdentity {
        let url = format!("{}/metadata/identity/oauth2/token", self.url());
        let env = Env::of([("IDENTITY_ENDPOINT", &*url), ("IMDS_ENDPOINT", "x")]);
        ManagedIdentity::at(Place::Arc, &env, choice, Some(keys.to_owned())).unwrap()
    }
}

fn good() -> Answer {
    reply("200 OK", "Content-Type: application/json\r\n", TOKEN)
}

/// A hundred times as fast as real time.
fn fast() -> Clock {
    Clock::Test(test_clock::Clock::with_rate(100))
}

fn fetch(identity: &ManagedIdentity, clock: &Clock) -> Result<AccessToken, Error> {
    identity.fetch(&request(clock, LONG * 100))
}

#[test]
fn environment_decides_where_the_identity_is() {
    let (endpoint, header) = (("IDENTITY_ENDPOINT", "http://x"), ("IDENTITY_HEADER", "h"));
    let (msi, secret) = (("MSI_ENDPOINT", "http://y"), ("MSI_SECRET", "s"));
    let thumbprint = ("IDENTITY_SERVER_THUMBPRINT", "t");
    let imds = ("IMDS_ENDPOINT", "http://z");
    type Row<'a> = (
        &'a [(&'static str, &'static str)],
        bool,
        Result<Place, &'a str>,
    );
    let rows: [Row<'_>; 13] = [
        (&[], false, Ok(Place::Imds)),
        (&[], true, Ok(Place::Arc)),
        (&[endpoint, header], false, Ok(Place::AppService)),
        (&[endpoint, header], true, Ok(Place::AppService)),
        (
            &[endpoint, header, msi, secret],
            false,
            Ok(Place::AppService),
        ),
        (&[endpoint, header, imds], false, Ok(Place::AppService)),
        (
            &[endpoint, header, thumbprint],
            false,
            Err("Service Fabric"),
        ),
        (&[msi, secret], false, Err("Machine Learning")),
        (&[msi], false, Err("Cloud Shell")),
        (&[endpoint, imds], false, Ok(Place::Arc)),
        (&[endpoint], false, Ok(Place::Imds)),
        (&[header, secret], false, Ok(Place::Imds)),
        (&[("IDENTITY_ENDPOINT", ""), header], false, Ok(Place::Imds)),
    ];
    for (variables, has_agent, wanted) in rows {
        let found = Place::of(&Env::of(variables.iter().copied()), has_agent);
        match (found, wanted) {
            (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{variables:?}"),
            (Err(error), Err(wanted)) => {
                assert_eq!(error.kind(), ErrorKind::Config);
                assert!(error.to_string().contains(wanted), "{error}");
            }
            (found, wanted) => panic!("{variables:?}: {found:?}, not {wanted:?}"),
        }
    }
}

#[test]
fn identity_is_named_as_each_endpoint_wants_it() {
    let choices = [
        Choice::Any,
        Choice::ClientId("1f2e".to_owned()),
        Choice::ObjectId("3a4b".to_owned()),
        Choice::ResourceId("/subscriptions/a b".to_owned()),
    ];
    let wanted = [
        [
            "",
            "&client_id=1f2e",
            "&object_id=3a4b",
            "&msi_res_id=%2Fsubscriptions%2Fa%20b",
        ],
        [
            "",
            "&client_id=1f2e",
            "&principal_id=3a4b",
            "&mi_res_id=%2Fsubscriptions%2Fa%20b",
        ],
    ];
    let script = Script::new(vec![good]);
    for (choice, number) in choices.into_iter().zip(0..) {
        fetch(&script.imds(choice.clone()), &Clock::System).unwrap();
        fetch(&script.app(choice), &Clock::System).unwrap();
        let heads = script.heads();
        let [imds, app] = [&heads[2 * number], &heads[2 * number + 1]];
        let resource = "resource=https%3A%2F%2Fstorage.azure.com";
        let line = format!(
            "GET /metadata/identity/oauth2/token?api-version=2018-02-01&{resource}{} HTTP/1.1\r\n",
            wanted[0][number]
        );
        assert!(imds.starts_with(&line), "{imds}");
        assert!(
            imds.to_lowercase().contains("\r\nmetadata: true\r\n"),
            "{imds}"
        );
        let line = format!(
            "GET /msi/token?api=1&api-version=2019-08-01&{resource}{} HTTP/1.1\r\n",
            wanted[1][number]
        );
        assert!(app.starts_with(&line), "{app}");
        assert!(
            app.to_lowercase()
                .contains("\r\nx-identity-header: s3cret\r\n"),
            "{app}"
        );
    }
}

#[test]
fn endpoint_that_is_not_found_twice_is_asked_a_third_time() {
    let missing = || reply("404 Not Found", "", "");
    let script = Script::new(vec![missing, missing, good]);
    let clock = fast();
    let start = clock.now();
    let token = fetch(&script.imds(Choice::Any), &clock).unwrap();
    assert_eq!(token.secret(), "abc.def");
    assert_eq!(script.heads().len(), 3);
    let took = clock.now().since(start);
    assert!(
        took >= Duration::from_secs(3),
        "{took:?}: one second, then two"
    );
}

#[test]
fn endpoint_that_is_being_updated_for_70_seconds_is_waited_for() {
    let clock = fast();
    let start = clock.now();
    let count = Arc::new(AtomicUsize::new(0));
    let (times, asked) = (clock.clone(), Arc::clone(&count));
    let server = Server::start(move |_, _| {
        asked.fetch_add(1, Ordering::SeqCst);
        match times.now().since(start) < Duration::from_secs(70) {
            true => reply("410 Gone", "", r#"{"error":"gone"}"#),
            false => good(),
        }
    });
    let script = Script {
        server,
        heads: Arc::default(),
    };
    fetch(&script.imds(Choice::Any), &clock).unwrap();
    let count = count.load(Ordering::SeqCst);
    assert!((5..15).contains(&count), "{count} requests");
}

#[test]
fn delay_that_the_endpoint_asks_for_is_kept() {
    let script = Script::new(vec![
        || reply("429 Too Many Requests", "Retry-After: 40\r\n", ""),
        good,
    ]);
    let clock = fast();
    let start = clock.now();
    fetch(&script.imds(Choice::Any), &clock).unwrap();
    assert!(clock.now().since(start) >= Duration::from_secs(40));
    assert_eq!(script.heads().len(), 2);
}

#[test]
fn refusal_is_final_and_says_what_to_do() {
    let rows: [(Reply, Choice, &str); 7] = [
        (
            || {
                reply(
                    "400 Bad Request",
                    "",
                    r#"{"error":"invalid_request","error_description":"Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request"}"#,
                )
            },
            Choice::Any,
            "several identities and none was named",
        ),
        (
            || {
                reply(
                    "400 Bad Request",
                    "",
                    r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
                )
            },
            Choice::Any,
            "no identity is assigned to this machine",
        ),
        (
            || {
                reply(
                    "400 Bad Request",
                    "",
                    r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
                )
            },
            Choice::ClientId("1f2e".to_owned()),
            "no such identity",
        ),
        (
            || {
                reply(
                    "400 Bad Request",
                    "",
                    r#"{"error":"invalid_resource","error_description":"AADSTS500011: x\r\ny"}"#,
                )
            },
            Choice::Any,
            "check the audience",
        ),
        (
            || reply("401 Unauthorized", "", r#"{"error":"unauthorized_client"}"#),
            Choice::Any,
            "unauthorized_client (status 401",
        ),
        (
            || reply("200 OK", "Content-Type: text/html\r\n", "<html>"),
            Choice::Any,
            "does something else answer",
        ),
        (
            || reply("302 Found", "Location: http://127.0.0.1:9/\r\n", ""),
            Choice::Any,
            "redirect",
        ),
    ];
    for (answer, choice, text) in rows {
        let script = Script::new(vec![answer]);
        let error = fetch(&script.imds(choice), &Clock::System).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert!(
            error.to_string().contains(&script.server.addr.to_string()),
            "{error}"
        );
        assert_eq!(script.heads().len(), 1, "{error}");
    }
}

#[test]
fn app_without_a_system_assigned_identity_says_that_one_has_to_be_named() {
    let script = Script::new(vec![|| {
        reply("400 Bad Request", "", r#"{"statusCode":400,"message":"x"}"#)
    }]);
    let error = fetch(&script.app(Choice::Any), &Clock::System).unwrap_err();
    assert!(
        error.to_string().contains("name a user-assigned one"),
        "{error}"
    );
    let error = fetch(
        &script.app(Choice::ClientId("1".to_owned())),
        &Clock::System,
    )
    .unwrap_err();
    assert!(error.to_string().starts_with("x (status 400"), "{error}");
}

#[test]
fn redirect_is_not_followed() {
    let other = Script::new(vec![good]);
    let url = other.url();
    let server =
        Server::start(move |_, _| reply("302 Found", &format!("Location: {url}/x\r\n"), ""));
    let script = Script {
        server,
        heads: Arc::default(),
    };
    fetch(&script.app(Choice::Any), &Clock::System).unwrap_err();
    assert_eq!(other.server.connections(), 0);
}

#[test]
fn endpoint_that_is_silent_or_closes_is_asked_until_the_time_is_up() {
    for answer in [|| Answer::Silence, || Answer::Close] {
        let script = Script::new(vec![answer]);
        let limit = Duration::from_millis(300);
        let start = Instant::now();
        let error = script
            .imds(Choice::Any)
            .fetch(&request(&Clock::System, limit))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transport, "{error}");
        assert!(start.elapsed() < LONG, "{error}");
        assert!(script.heads().len() >= 2, "{error}");
    }
}

#[test]
fn probe_tells_an_endpoint_from_what_answers_in_its_place() {
    let rows: [(Reply, Option<&str>); 6] = [
        (
            || reply("400 Bad Request", "", r#"{"error":"bad_request_102"}"#),
            None,
        ),
        (
            || reply("500 Internal Server Error", "", r#"{"error":"unknown"}"#),
            None,
        ),
        (
            || {
                reply(
                    "403 Forbidden",
                    "",
                    r#"{"message":"network is unreachable"}"#,
                )
            },
            Some("something else"),
        ),
        (|| reply("200 OK", "", "<html>"), Some("something else")),
        (|| Answer::Close, Some("nothing answers at 127.0.0.1")),
        (|| Answer::Silence, Some("nothing answers at 127.0.0.1")),
    ];
    for (answer, absent) in rows {
        let script = Script::new(vec![answer]);
        let start = Instant::now();
        let found = script.imds(Choice::Any).probe(LONG);
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        match (found, absent) {
            (Ok(()), None) => {}
            (Err(error), Some(text)) => assert!(error.to_string().contains(text), "{error}"),
            (found, absent) => panic!("{found:?}, not {absent:?}"),
        }
        let heads = script.heads();
        assert_eq!(heads.len(), 1);
        assert!(
            !heads[0].to_lowercase().contains("metadata:"),
            "{}",
            heads[0]
        );
    }
}

#[test]
fn header_that_is_no_header_is_named_without_its_value() {
    let script = Script::new(vec![good]);
    let env = Env::of([
        ("IDENTITY_ENDPOINT", &*script.url()),
        ("IDENTITY_HEADER", "s3cret\nx"),
    ]);
    let identity = ManagedIdentity::at(Place::AppService, &env, Choice::Any, None).unwrap();
    let error = fetch(&identity, &Clock::System).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        !format!("{error:?} {identity:?}").contains("s3cret"),
        "{error:?} {identity:?}"
    );
}

/// An agent that names `path` in its challenge, and wants what is in it.
fn agent(path: &Path, token: &'static str) -> Script {
    let challenge = format!("WWW-Authenticate: Basic realm={}\r\n", path.display());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    let server = Server::start(move |_, head| {
        seen.lock().push(head.to_owned());
        match head
            .to_lowercase()
            .contains("\r\nauthorization: basic k3y\r\n")
        {
            true => reply("200 OK", "", token),
            false => reply("401 Unauthorized", &challenge, ""),
        }
    });
    Script { server, heads }
}

#[cfg(unix)]
#[test]
fn challenge_of_azure_arc_is_answered_with_the_key_alone() {
    let scratch = Scratch::new();
    let keys = scratch.join("tokens");
    fs::create_dir(&keys).unwrap();
    fs::write(keys.join("a.key"), "k3y").unwrap();
    fs::write(keys.join("large.key"), "k".repeat(4097)).unwrap();
    fs::write(keys.join("blank.key"), " \n").unwrap();
    fs::write(keys.join("a.txt"), "k3y").unwrap();
    fs::write(scratch.join("outside.key"), "k3y").unwrap();
    fs::create_dir(keys.join("folder.key")).unwrap();
    std::os::unix::fs::symlink(scratch.join("outside.key"), keys.join("link.key")).unwrap();
    std::os::unix::fs::symlink(scratch.join("outside.key"), keys.join("outside.key")).unwrap();
    std::os::unix::fs::symlink(keys.join("a.key"), keys.join("alias.key")).unwrap();

    let script = agent(&keys.join("a.key"), TOKEN);
    fetch(&script.arc(Choice::Any, &keys), &Clock::System).unwrap();
    let heads = script.heads();
    assert_eq!(heads.len(), 2);
    assert!(
        !heads[0].to_lowercase().contains("authorization"),
        "{}",
        heads[0]
    );

    let rows = [
        (scratch.join("outside.key"), "no `.key` file in"),
        (keys.join("a.txt"), "no `.key` file in"),
        (keys.join("../tokens/a.key"), "no `.key` file in"),
        (keys.join("link.key"), "a link to somewhere else"),
        (keys.join("outside.key"), "a link to somewhere else"),
        (keys.join("alias.key"), "a link to somewhere else"),
        (keys.join("large.key"), "4096 bytes"),
        (keys.join("folder.key"), "4096 bytes"),
        (keys.join("blank.key"), "holds no key"),
        (keys.join("missing.key"), "cannot read Azure Arc's key"),
    ];
    for (path, text) in rows {
        let script = agent(&path, TOKEN);
        let error = fetch(&script.arc(Choice::Any, &keys), &Clock::System).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert!(!format!("{error:?}").contains("k3y"), "{error:?}");
        assert_eq!(script.heads().len(), 1, "{path:?} was not sent");
    }
}

#[test]
fn agent_of_azure_arc_that_does_not_challenge_is_refused() {
    let scratch = Scratch::new();
    let rows: [(Reply, &str); 3] = [
        (good, "a token without a challenge"),
        (|| reply("401 Unauthorized", "", ""), "no challenge"),
        (
            || reply("401 Unauthorized", "WWW-Authenticate: Bearer x\r\n", ""),
            "names no file",
        ),
    ];
    for (answer, text) in rows {
        let script = Script::new(vec![answer]);
        let error = fetch(&script.arc(Choice::Any, &scratch), &Clock::System).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn token_of_another_identity_than_the_one_named_is_refused() {
    const NAMED: &str = r#"{"access_token":"abc.def","expires_in":"60","client_id":"1F2E"}"#;

    let scratch = Scratch::new();
    let key = scratch.join("a.key");
    fs::write(&key, "k3y").unwrap();
    let chosen = Choice::ClientId("1f2e".to_owned());
    let script = agent(&key, NAMED);
    fetch(&script.arc(chosen.clone(), &scratch), &Clock::System).unwrap();
    for (token, choice) in [
        (TOKEN, chosen),
        (NAMED, Choice::ObjectId("1f2e".to_owned())),
    ] {
        let script = agent(&key, token);
        let error = fetch(&script.arc(choice, &scratch), &Clock::System).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
        assert!(error.to_string().contains("another identity"), "{error}");
    }
}

#[test]
fn wait_between_attempts_ends_when_a_clock_is_advanced() {
    let script = Script::new(vec![|| reply("503 Service Unavailable", "", ""), good]);
    let times = test_clock::Clock::frozen();
    let clock = Clock::Test(times.clone());
    let identity = script.imds(Choice::Any);
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let _presence = clock.enter();
        done.send(fetch(&identity, &clock).map(drop))
    });
    let start = Instant::now();
    loop {
        times.advance(Duration::from_secs(1));
        match is_done.try_recv() {
            Ok(result) => return result.unwrap(),
            Err(_) => assert!(start.elapsed() < LONG, "it still waits"),
        }
    }
}
