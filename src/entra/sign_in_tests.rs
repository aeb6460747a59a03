use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use percent_encoding::percent_decode_str;

use super::super::scratch::Scratch;
use super::super::token::tests::request;
use super::*;
use crate::error::ErrorKind;
use crate::http::test_server::{Answer, Server, reply};
use crate::time::clock::Clock;

/// How long a failing test may take.
const LONG: Duration = Duration::from_secs(60);

const HOST: &str = "acct.blob.core.windows.net";
const TOKEN: &str = r#"{"token_type":"Bearer","expires_in":3599,"access_token":"abc.def"}"#;

/// Secrets in these tests contain this.
const SECRET: &str = "s3cret";

/// A server that records what it is asked, and answers as `script` says.
struct Recorder {
    server: Server,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn new(script: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let heads = Arc::clone(&seen);
        let server = Server::start(move |_, head| {
            let mut heads = heads.lock();
            heads.push(head.to_owned());
            script(head, heads.len() - 1)
        });
        Self { server, seen }
    }

    fn tokens() -> Self {
        Self::new(|_, _| reply("200 OK", "", TOKEN))
    }

    fn url(&self) -> String {
        format!("http://{}", self.server.addr)
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().clone()
    }

    /// The value of a field of the form in the request with this number.
    fn field(&self, number: usize, name: &str) -> Option<String> {
        let seen = self.seen();
        let form = seen[number]
            .split_once("\r\n\r\n")
            .map(|(_, form)| form.to_owned())?;
        let fields = form.split('&').filter_map(|field| field.split_once('='));
        let value = fields
            .filter(|(field, _)| *field == name)
            .map(|(_, value)| value)
            .next()?;
        Some(
            percent_decode_str(value)
                .decode_utf8()
                .unwrap()
                .into_owned(),
        )
    }
}

fn fetch(sign_in: &SignIn) -> Result<AccessToken, Error> {
    sign_in.source(HOST)?.fetch(&request(&Clock::System, LONG))
}

fn env<'a>(variables: impl IntoIterator<Item = (&'static str, &'a str)>) -> Env {
    Env::of(variables)
}

#[cfg(feature = "client-certificate")]
fn pem() -> String {
    format!(
        "{}{}",
        include_str!("testdata/key.pem"),
        include_str!("testdata/certificate.pem")
    )
}

#[test]
fn application_asks_with_its_secret() {
    let authority = Recorder::tokens();
    let sign_in = SignIn::client_secret(&env([]), "contoso.example", "1f2e", "a ~+/=s3cret\r\n")
        .and_then(|sign_in| sign_in.authority_host(&authority.url()))
        .unwrap();
    let token = fetch(&sign_in).unwrap();
    assert_eq!(token.secret(), "abc.def");
    let seen = authority.seen();
    let head = seen[0].to_lowercase();
    assert!(
        head.starts_with("post /contoso.example/oauth2/v2.0/token http/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("\r\ncontent-type: application/x-www-form-urlencoded\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\naccept: application/json\r\n"), "{head}");
    let rows = [
        ("client_id", Some("1f2e")),
        ("scope", Some("https://storage.azure.com/.default")),
        ("grant_type", Some("client_credentials")),
        ("client_secret", Some("a ~+/=s3cret")),
        ("client_assertion", None),
        ("claims", None),
    ];
    for (name, value) in rows {
        assert_eq!(authority.field(0, name).as_deref(), value, "{name}");
    }
    assert_eq!(
        sign_in.source(HOST).unwrap().identity().to_string(),
        "service principal, client 1f2e, tenant contoso.example"
    );
}

#[test]
fn life_of_a_token_counts_from_before_it_was_asked_for() {
    let authority = Recorder::tokens();
    let sign_in = SignIn::client_secret(&env([]), "t", "c", "s")
        .and_then(|sign_in| sign_in.authority_host(&authority.url()))
        .unwrap();
    let before = std::time::SystemTime::now();
    let expires = fetch(&sign_in).unwrap().expires();
    let life = Duration::from_secs(3599);
    assert!(
        (before..=before + LONG).contains(&(expires - life)),
        "{expires:?}"
    );
}

#[cfg(feature = "client-certificate")]
#[test]
fn application_asks_with_an_assertion_for_the_very_url_that_it_asks() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let authority = Recorder::tokens();
    let sign_in = SignIn::client_certificate(&env([]), "t", "1f2e", pem().as_bytes())
        .and_then(|sign_in| sign_in.authority_host(&authority.url()))
        .unwrap();
    fetch(&sign_in).unwrap();
    let kind = authority.field(0, "client_assertion_type");
    assert_eq!(
        kind.as_deref(),
        Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
    );
    let jwt = authority.field(0, "client_assertion").unwrap();
    let claims = URL_SAFE_NO_PAD
        .decode(jwt.split('.').nth(1).unwrap())
        .unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(
        claims["aud"],
        format!("{}/t/oauth2/v2.0/token", authority.url())
    );
    assert_eq!(claims["sub"], "1f2e");
}

#[cfg(feature = "client-certificate")]
#[test]
fn certificate_file_of_the_environment_is_read_anew_each_time() {
    let scratch = Scratch::new();
    let path = scratch.join("c.pem");
    let authority = Recorder::tokens();
    let url = authority.url();
    let variables = [
        ("AZURE_CLIENT_ID", "1f2e"),
        ("AZURE_TENANT_ID", "t"),
        ("AZURE_CLIENT_CERTIFICATE_PATH", path.to_str().unwrap()),
        ("AZURE_AUTHORITY_HOST", &url),
    ];
    let source = SignIn::from_env(&env(variables))
        .unwrap()
        .source(HOST)
        .unwrap();
    let error = source.fetch(&request(&Clock::System, LONG)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cannot read the client certificate"),
        "{error}"
    );
    fs::write(&path, pem()).unwrap();
    source.fetch(&request(&Clock::System, LONG)).unwrap();
    let password = ("AZURE_CLIENT_CERTIFICATE_PASSWORD", "x");
    let error = SignIn::from_env(&env(variables.into_iter().chain([password]))).unwrap();
    let error = error.source(HOST).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("AZURE_CLIENT_CERTIFICATE_PASSWORD is set"),
        "{error}"
    );
}

#[test]
fn claims_of_a_challenge_are_sent_along() {
    let authority = Recorder::tokens();
    let sign_in = SignIn::client_secret(&env([]), "t", "c", "s")
        .and_then(|sign_in| sign_in.authority_host(&authority.url()))
        .unwrap();
    let mut request = request(&Clock::System, LONG);
    request.claims = Some(r#"{"access_token":{}}"#.to_owned());
    request.audience = "https://acct.blob.core.windows.net".to_owned();
    sign_in.source(HOST).unwrap().fetch(&request).unwrap();
    assert_eq!(
        authority.field(0, "claims").as_deref(),
        Some(r#"{"access_token":{}}"#)
    );
    let scope = authority.field(0, "scope");
    assert_eq!(
        scope.as_deref(),
        Some("https://acct.blob.core.windows.net/.default")
    );
}

#[test]
fn refusal_names_the_application_the_reason_and_the_host() {
    let authority = Recorder::new(|_, _| {
        let body = r#"{"error":"invalid_client","error_description":"AADSTS7000222: The provided client secret keys are expired.\r\nTrace ID: 1","error_codes":[7000222],"correlation_id":"0a1b"}"#;
        reply("401 Unauthorized", "", body)
    });
    let sign_in = SignIn::client_secret(&env([]), "9a3c", "1f2e", SECRET)
        .and_then(|sign_in| sign_in.authority_host(&authority.url()))
        .unwrap();
    let error = fetch(&sign_in).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert_eq!(
        error.to_string(),
        format!(
            "failed to get a token by `service principal, client 1f2e, tenant 9a3c`: \
             AADSTS7000222 (401): the client secret has expired; make a new one ({})",
            authority.server.addr
        )
    );
    assert_eq!(error.request_id(), Some("0a1b"));
    assert_eq!(authority.seen().len(), 1, "it is not asked again");
}

#[test]
fn secret_that_a_refusal_repeats_is_not_shown() {
    let authority = Recorder::new(|_, _| {
        let body = r#"{"error":"x","error_description":"the value s3cret is bad"}"#;
        reply("400 Bad Request", "", body)
    });
    let sign_in = SignIn::client_secret(&env([]), "t", "c", SECRET)
        .and_then(|sign_in| sign_in.authority_host(&authority.url()))
        .unwrap();
    let error = fetch(&sign_in).unwrap_err();
    assert!(
        error.to_string().contains("the value REDACTED is bad"),
        "{error}"
    );
}

#[test]
fn busy_authority_is_asked_again() {
    let authority = Recorder::new(|_, number| match number {
        0 => reply("503 Service Unavailable", "", "busy"),
        _ => reply("200 OK", "", TOKEN),
    });
    let sign_in = SignIn::client_secret(&env([]), "t", "c", "s")
        .and_then(|sign_in| sign_in.authority_host(&authority.url()))
        .unwrap();
    let clock = Clock::Test(crate::time::test_clock::Clock::with_rate(100));
    sign_in
        .source(HOST)
        .unwrap()
        .fetch(&request(&clock, LONG * 100))
        .unwrap();
    assert_eq!(authority.seen().len(), 2);
}

#[test]
fn secret_that_no_secret_is_gets_refused_without_being_shown() {
    let rows = [
        ("", "it is empty"),
        ("\n", "it is empty"),
        ("s3cret\nx", "U+000A"),
        ("s3cret\tx", "U+0009"),
        ("s3cret…", "not ASCII"),
    ];
    for (secret, rule) in rows {
        let error = SignIn::client_secret(&env([]), "t", "c", secret).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(rule), "{error}");
        assert!(!error.to_string().contains(SECRET), "{error}");
    }
}

fn workload(file: &Path, authority: &Recorder) -> SignIn {
    let url = format!("{}/", authority.url());
    let env = Env::of([
        ("AZURE_CLIENT_ID", "1f2e".into()),
        ("AZURE_TENANT_ID", "9a3c\n".into()),
        ("AZURE_FEDERATED_TOKEN_FILE", file.as_os_str().to_owned()),
        ("AZURE_AUTHORITY_HOST", url.into()),
    ]);
    SignIn::workload_identity(&env).unwrap()
}

#[test]
fn token_file_is_read_at_each_exchange() {
    let scratch = Scratch::new();
    let file = scratch.join("token");
    let authority = Recorder::tokens();
    let source = workload(&file, &authority).source(HOST).unwrap();
    for (number, token) in ["first", "second\n"].into_iter().enumerate() {
        fs::write(&file, token).unwrap();
        source.fetch(&request(&Clock::System, LONG)).unwrap();
        let sent = authority.field(number, "client_assertion");
        assert_eq!(sent.as_deref(), Some(token.trim()));
    }
    let path = authority.seen().remove(0);
    assert!(
        path.starts_with("POST /9a3c/oauth2/v2.0/token "),
        "no double slash: {path}"
    );
}

#[test]
fn stale_token_file_is_read_once_more() {
    let scratch = Scratch::new();
    let file = scratch.join("token");
    fs::write(&file, "first").unwrap();
    let rotated = file.clone();
    let authority = Recorder::new(move |head, _| {
        if head.contains("client_assertion=second") {
            return reply("200 OK", "", TOKEN);
        }
        fs::write(&rotated, "second").unwrap();
        reply(
            "400 Bad Request",
            "",
            r#"{"error":"invalid_client","error_codes":[700024]}"#,
        )
    });
    fetch(&workload(&file, &authority)).unwrap();
    let authority = Recorder::new(|_, _| {
        reply(
            "400 Bad Request",
            "",
            r#"{"error":"invalid_client","error_codes":[700024]}"#,
        )
    });
    let error = fetch(&workload(&file, &authority)).unwrap_err();
    assert!(
        error.to_string().contains("check this machine's clock"),
        "{error}"
    );
    assert_eq!(authority.seen().len(), 2);
}

#[test]
fn token_file_that_holds_none_is_named_without_its_content() {
    let scratch = Scratch::new();
    let authority = Recorder::tokens();
    let rows: [(&str, Vec<u8>, &str); 4] = [
        ("empty", b" \n".to_vec(), "is empty"),
        ("lines", b"s3cret\ns3cret".to_vec(), "holds no token"),
        ("large", vec![b's'; 70_000], "is too large"),
        (
            "binary",
            vec![0xff, 0xfe],
            "cannot read the federated token file",
        ),
    ];
    for (name, content, rule) in rows {
        let file = scratch.join(name);
        fs::write(&file, content).unwrap();
        let error = fetch(&workload(&file, &authority)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(rule), "{error}");
        assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
    }
    let error = fetch(&workload(&scratch.join("missing"), &authority)).unwrap_err();
    assert!(error.to_string().contains("missing`"), "{error}");
    assert!(authority.seen().is_empty());
}

#[test]
fn identity_bindings_are_refused_by_name() {
    let scratch = Scratch::new();
    let file = scratch.join("token");
    fs::write(&file, "jwt").unwrap();
    let authority = Recorder::new(|_, _| {
        let body = r#"{"error":"invalid_request","error_description":"AADSTS700212: No matching federated identity record found for presented assertion audience 'api://AKSIdentityBinding'."}"#;
        reply("400 Bad Request", "", body)
    });
    let error = fetch(&workload(&file, &authority)).unwrap_err();
    assert!(error.to_string().contains("identity bindings"), "{error}");
}

#[test]
fn job_in_github_actions_exchanges_a_fresh_token_each_time() {
    let github = Recorder::new(|_, number| {
        reply(
            "200 OK",
            "",
            &format!(r#"{{"count":1,"value":"jwt{number}"}}"#),
        )
    });
    let authority = Recorder::tokens();
    let (url, host) = (format!("{}/token?v=1", github.url()), authority.url());
    let env = env([
        ("AZURE_CLIENT_ID", "1f2e"),
        ("AZURE_TENANT_ID", "t"),
        ("AZURE_AUTHORITY_HOST", &host),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", &url),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", SECRET),
    ]);
    let source = SignIn::github_actions(&env).unwrap().source(HOST).unwrap();
    for number in 0..2 {
        source.fetch(&request(&Clock::System, LONG)).unwrap();
        let sent = authority.field(number, "client_assertion");
        assert_eq!(sent, Some(format!("jwt{number}")));
    }
    let head = github.seen().remove(0);
    let line = "GET /token?v=1&audience=api%3A%2F%2FAzureADTokenExchange HTTP/1.1\r\n";
    assert!(head.starts_with(line), "{head}");
    assert!(
        head.to_lowercase()
            .contains("\r\nauthorization: bearer s3cret\r\n"),
        "{head}"
    );
}

#[test]
fn token_of_a_job_that_is_none_is_named_and_not_sent() {
    for token in [" ", "s3cret s3cret", "s3cret\ns3cret", "s3crét"] {
        let github = Recorder::new(|_, _| reply("200 OK", "", r#"{"value":"jwt"}"#));
        let url = github.url();
        let env = env([
            ("AZURE_CLIENT_ID", "1f2e"),
            ("AZURE_TENANT_ID", "t"),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", &url),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", token),
        ]);
        let error = fetch(&SignIn::github_actions(&env).unwrap()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("invalid ACTIONS_ID_TOKEN_REQUEST_TOKEN") && !text.contains("s3cr"),
            "{text}"
        );
        assert!(github.seen().is_empty());
    }
}

#[test]
fn job_in_azure_pipelines_exchanges_the_token_of_its_service_connection() {
    let pipelines = Recorder::new(|_, _| reply("200 OK", "", r#"{"oidcToken":"jwt"}"#));
    let authority = Recorder::tokens();
    let (url, host) = (format!("{}/oidctoken", pipelines.url()), authority.url());
    let variables = [
        ("AZURESUBSCRIPTION_CLIENT_ID", "1f2e"),
        ("AZURESUBSCRIPTION_TENANT_ID", "t"),
        ("AZURE_AUTHORITY_HOST", &host),
        ("SYSTEM_OIDCREQUESTURI", &url),
        ("SYSTEM_ACCESSTOKEN", SECRET),
    ];
    fetch(&SignIn::azure_pipelines(&env(variables), "5c6d").unwrap()).unwrap();
    assert_eq!(
        authority.field(0, "client_assertion").as_deref(),
        Some("jwt")
    );
    let head = pipelines.seen().remove(0);
    let line = "POST /oidctoken?api-version=7.1&serviceConnectionId=5c6d&audience=api%3A%2F%2FAzureADTokenExchange HTTP/1.1\r\n";
    assert!(head.starts_with(line), "{head}");
    let head = head.to_lowercase();
    for header in [
        "authorization: bearer s3cret",
        "x-tfs-fedauthredirect: suppress",
        "content-length: 0",
    ] {
        assert!(head.contains(&format!("\r\n{header}\r\n")), "{head}");
    }
    // The chain finds the connection in the variables.
    let connection = ("ARM_ADO_PIPELINE_SERVICE_CONNECTION_ID", "5c6d");
    fetch(&SignIn::from_env(&env(variables.into_iter().chain([connection]))).unwrap()).unwrap();
}

#[test]
fn refusal_of_a_job_says_what_its_description_lacks() {
    let rows = [
        ("GitHub", "403 Forbidden", "", "id-token: write"),
        (
            "Azure Pipelines",
            "401 Unauthorized",
            "",
            "SYSTEM_ACCESSTOKEN: $(System.AccessToken)",
        ),
        (
            "Azure Pipelines",
            "203 Non-Authoritative",
            "",
            "SYSTEM_ACCESSTOKEN: $(System.AccessToken)",
        ),
        (
            "Azure Pipelines",
            "404 Not Found",
            r#"{"message":"No service connection found with identifier 5c6d"}"#,
            "Azure Pipelines gave no token: No service connection found with identifier 5c6d",
        ),
        ("Azure Pipelines", "302 Found", "", "redirect"),
        ("GitHub", "200 OK", "{}", "GitHub's has no `value`"),
    ];
    for (job, status, body, text) in rows {
        let endpoint = Recorder::new(move |_, _| reply(status, "x-vss-e2eid: e2e\r\n", body));
        let url = endpoint.url();
        let env = env([
            ("AZURE_CLIENT_ID", "1f2e"),
            ("AZURE_TENANT_ID", "t"),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", &url),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", SECRET),
            ("SYSTEM_OIDCREQUESTURI", &url),
            ("SYSTEM_ACCESSTOKEN", SECRET),
        ]);
        let sign_in = match job {
            "GitHub" => SignIn::github_actions(&env),
            _ => SignIn::azure_pipelines(&env, "5c6d"),
        };
        let error = fetch(&sign_in.unwrap()).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
        assert_eq!(endpoint.seen().len(), 1, "{error}");
        if error.status() != Some(200) && error.status().is_some() {
            assert_eq!(error.request_id(), Some("e2e"));
        }
    }
}

#[cfg(unix)]
#[test]
fn azure_cli_is_run_and_its_failure_told() {
    let scratch = Scratch::new();
    let token = r#"{"accessToken":"abc.def","expires_on":32503680000}"#;
    let rows = [
        (format!("echo '{token}'; echo 'WARNING: old' >&2"), Ok(())),
        (
            "echo \"ERROR: Please run 'az login' to setup account.\" >&2; exit 1".to_owned(),
            Err((ErrorKind::Auth, "`az` is not signed in; run `az login`")),
        ),
        (
            "echo 'ERROR: AADSTS50076: MFA' >&2; exit 1".to_owned(),
            Err((ErrorKind::Auth, "AADSTS50076")),
        ),
        (
            "echo 'ERROR: bad eyJhbGciOi.s3cret.x' >&2; exit 1".to_owned(),
            Err((ErrorKind::Service, "`az` failed: bad REDACTED")),
        ),
        (
            "echo s3cret".to_owned(),
            Err((ErrorKind::Protocol, "it is not JSON")),
        ),
        (
            "head -c 1000000 /dev/zero".to_owned(),
            Err((ErrorKind::Protocol, "it is too much")),
        ),
        (
            "sleep 60".to_owned(),
            Err((ErrorKind::Transport, "`az` did not answer within 1 s")),
        ),
    ];
    let env = Env::of([("PATH", scratch.as_os_str().to_owned())]);
    let source = SignIn::azure_cli(&env).source(HOST).unwrap();
    for (script, wanted) in rows {
        scratch.program("az", &format!("PATH=/bin:/usr/bin; {script}"));
        let limit = if script.starts_with("sleep") {
            Duration::from_secs(1)
        } else {
            LONG
        };
        let start = Instant::now();
        let result = source.fetch(&request(&Clock::System, limit));
        assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
        match (result, wanted) {
            (Ok(token), Ok(())) => assert_eq!(token.secret(), "abc.def"),
            (Err(error), Err((kind, text))) => {
                assert_eq!(error.kind(), kind, "{error}");
                assert!(error.to_string().contains(text), "{error}");
                assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
            }
            (result, wanted) => panic!("{script}: {result:?}, not {wanted:?}"),
        }
    }
    fs::remove_file(scratch.join("az")).unwrap();
    let error = source.fetch(&request(&Clock::System, LONG)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error
            .to_string()
            .contains("`az` is not installed, or not in PATH"),
        "{error}"
    );
    let mut challenged = request(&Clock::System, LONG);
    challenged.claims = Some("{}".to_owned());
    let error = source.fetch(&challenged).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("az login --claims-challenge e30="),
        "{error}"
    );
}

/// Without IMDS, whatever machine the test runs on.
fn nowhere() -> (&'static str, String) {
    (
        "AZURE_POD_IDENTITY_AUTHORITY_HOST",
        "http://127.0.0.1:9".to_owned(),
    )
}

#[test]
fn choice_that_means_nothing_is_refused() {
    let env = env([
        ("AZURE_FEDERATED_TOKEN_FILE", "f"),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://x"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "t"),
        ("SYSTEM_OIDCREQUESTURI", "https://x"),
        ("SYSTEM_ACCESSTOKEN", "t"),
    ]);
    type Set = fn(SignIn) -> Result<SignIn, Error>;
    let choices: [(&str, Set); 5] = [
        ("client ID", |sign_in| sign_in.client_id("1f2e")),
        ("object ID", |sign_in| sign_in.object_id("1f2e")),
        ("resource ID", |sign_in| {
            sign_in.resource_id("/subscriptions/x")
        }),
        ("tenant ID", |sign_in| sign_in.tenant_id("t")),
        ("authority", |sign_in| {
            sign_in.authority_host("https://login.example")
        }),
    ];
    let rows = [
        (
            SignIn::managed_identity(&env),
            [true, true, true, false, false],
        ),
        (
            SignIn::workload_identity(&env).unwrap(),
            [true, false, false, true, true],
        ),
        (
            SignIn::client_secret(&env, "t", "c", "s").unwrap(),
            [true, false, false, true, true],
        ),
        (
            SignIn::github_actions(&env).unwrap(),
            [true, false, false, true, true],
        ),
        (
            SignIn::azure_pipelines(&env, "c").unwrap(),
            [true, false, false, true, true],
        ),
        (SignIn::azure_cli(&env), [false, false, false, true, false]),
        (
            SignIn::from_env(&env).unwrap(),
            [true, false, false, true, true],
        ),
    ];
    for (sign_in, allowed) in rows {
        for ((what, set), allowed) in choices.into_iter().zip(allowed) {
            match set(sign_in.clone()) {
                Ok(_) => assert!(allowed, "{sign_in:?} {what}"),
                Err(error) => {
                    assert!(!allowed, "{error}");
                    assert_eq!(error.kind(), ErrorKind::Config);
                    assert!(
                        error.to_string().ends_with(&format!("takes no {what}")),
                        "{error}"
                    );
                }
            }
        }
        assert_eq!(sign_in.token_audience(), "https://storage.azure.com");
        let own = sign_in
            .audience("https://acct.blob.core.windows.net/")
            .unwrap();
        assert_eq!(own.token_audience(), "https://acct.blob.core.windows.net");
    }
    let both = SignIn::managed_identity(&env)
        .client_id("a")
        .unwrap()
        .object_id("b")
        .unwrap_err();
    assert!(both.to_string().contains("use one of them"), "{both}");
}

#[test]
fn id_that_could_change_a_url_or_an_argument_is_refused() {
    let job = env([
        ("SYSTEM_OIDCREQUESTURI", "https://x"),
        ("SYSTEM_ACCESSTOKEN", "t"),
    ]);
    for id in [
        "", " ", "a/b", "..", ".", "-x", "--tenant", "a b", "a?b", "a\u{0}", "é", "a&b", "a;b",
    ] {
        let sign_in = SignIn::azure_cli(&env([]));
        let error = sign_in.tenant_id(id).unwrap_err();
        assert!(
            error.to_string().starts_with("invalid tenant ID"),
            "{error}"
        );
        assert!(
            SignIn::managed_identity(&env([])).client_id(id).is_err(),
            "{id}"
        );
        let error = SignIn::azure_pipelines(&job, id).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("invalid service connection ID"),
            "{error}"
        );
    }
    for id in [
        "contoso.onmicrosoft.com",
        " 72f988bf-86f1-41af-91ab-2d7cd011db47\n",
    ] {
        SignIn::azure_cli(&env([])).tenant_id(id).unwrap();
    }
}

#[test]
fn id_that_is_missing_is_asked_for_by_its_variable() {
    let file = ("AZURE_FEDERATED_TOKEN_FILE", "f");
    let error = SignIn::workload_identity(&env([file]))
        .unwrap()
        .source(HOST)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "signing in by workload identity needs a client ID: set AZURE_CLIENT_ID"
    );
    let error = SignIn::workload_identity(&env([])).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("AZURE_FEDERATED_TOKEN_FILE is not set"),
        "{error}"
    );
    let chosen = SignIn::workload_identity(&env([file]))
        .unwrap()
        .client_id("1f2e")
        .unwrap();
    chosen.tenant_id("t").unwrap().source(HOST).unwrap();
}

#[test]
fn authority_follows_the_choice_the_variable_and_the_cloud() {
    let variable = ("AZURE_AUTHORITY_HOST", "https://login.variable.example/");
    let sign_in = |env: &Env| SignIn::client_secret(env, "t", "c", "s").unwrap();
    let origin = |sign_in: &SignIn, host: &str| sign_in.authority(host).unwrap().origin;
    let china = "acct.blob.core.chinacloudapi.cn";
    assert_eq!(
        origin(&sign_in(&env([])), china),
        "https://login.chinacloudapi.cn"
    );
    assert_eq!(
        origin(&sign_in(&env([])), HOST),
        "https://login.microsoftonline.com"
    );
    let by_variable = sign_in(&env([variable]));
    assert_eq!(
        origin(&by_variable, china),
        "https://login.variable.example"
    );
    let chosen = by_variable
        .authority_host("https://login.chosen.example")
        .unwrap();
    assert_eq!(origin(&chosen, china), "https://login.chosen.example");
    let plain = ("AZURE_AUTHORITY_HOST", "http://login.example");
    let error = sign_in(&env([plain])).source(HOST).unwrap_err();
    assert!(
        error.to_string().contains("invalid AZURE_AUTHORITY_HOST"),
        "{error}"
    );
}

#[test]
fn chain_without_any_identity_lists_what_was_tried_and_why_it_failed() {
    let env = Env::of([
        nowhere(),
        ("MSI_ENDPOINT", "http://127.0.0.1:9".to_owned()),
        ("AZURE_CLIENT_ID", "1f2e".to_owned()),
    ]);
    let error = fetch(&SignIn::from_env(&env).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert_eq!(
        error.to_string(),
        "failed to sign in to `Azure Storage`: there is no identity to do it with. Run `az login`, \
         set the variables of one of these, or use an account key. Tried: service principal: \
         AZURE_TENANT_ID is not set; workload identity: AZURE_FEDERATED_TOKEN_FILE is not set; \
         GitHub Actions: ACTIONS_ID_TOKEN_REQUEST_URL is not set; Azure Pipelines: \
         SYSTEM_OIDCREQUESTURI is not set; managed identity: this is Azure Cloud Shell, whose \
         managed identity is not supported, use the Azure CLI, which is signed in there; Azure CLI: \
         `az` is not installed, or not in PATH; Azure Developer CLI: `azd` is not installed, or not \
         in PATH"
    );
}

#[test]
fn machine_without_a_managed_identity_says_so_soon() {
    let imds = Recorder::new(|_, _| Answer::Silence);
    let env = Env::of([
        ("AZURE_TOKEN_CREDENTIALS", "prod".to_owned()),
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", imds.url()),
    ]);
    let start = Instant::now();
    let error = fetch(&SignIn::from_env(&env).unwrap()).unwrap_err();
    let took = start.elapsed();
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert_eq!(error.kind(), ErrorKind::Auth);
    let text = error.to_string();
    assert!(
        text.contains("managed identity: nothing answers at 127.0.0.1"),
        "{text}"
    );
    assert!(text.contains("(1.0 s)"), "{text}");
}

#[test]
fn candidate_that_is_configured_and_fails_ends_the_chain() {
    let authority = Recorder::new(|_, _| reply("401 Unauthorized", "", r#"{"error":"no"}"#));
    let imds = Recorder::tokens();
    let env = Env::of([
        ("AZURE_CLIENT_ID", "1f2e".to_owned()),
        ("AZURE_TENANT_ID", "t".to_owned()),
        ("AZURE_CLIENT_SECRET", SECRET.to_owned()),
        ("AZURE_AUTHORITY_HOST", authority.url()),
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", imds.url()),
    ]);
    let sign_in = SignIn::from_env(&env).unwrap();
    let error = fetch(&sign_in).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("service principal, client 1f2e, tenant t"),
        "{error}"
    );
    assert!(
        !format!("{error:?} {sign_in:?}").contains(SECRET),
        "{error:?}"
    );
    assert!(imds.seen().is_empty());
}

#[test]
fn first_candidate_that_gives_a_token_is_kept() {
    let imds = Recorder::tokens();
    let probed = |url: String| {
        let env = Env::of([("AZURE_POD_IDENTITY_AUTHORITY_HOST", url)]);
        Arc::new(ManagedIdentity::new(&env, Choice::ClientId("1f2e".to_owned())).unwrap())
    };
    let absent = Recorder::new(|_, _| Answer::Close);
    let chain = Chain::new(vec![
        Link {
            name: "one",
            trial: Trial::Impossible("no".to_owned()),
        },
        Link {
            name: "two",
            trial: Trial::Probed(probed(absent.url())),
        },
        Link {
            name: "three",
            trial: Trial::Probed(probed(imds.url())),
        },
    ]);
    assert_eq!(chain.identity().client_id, None);
    assert_eq!(
        absent.server.connections() + imds.server.connections(),
        0,
        "nothing is asked yet"
    );
    for _ in 0..3 {
        chain.fetch(&request(&Clock::System, LONG)).unwrap();
    }
    assert_eq!(
        chain.identity().to_string(),
        "managed identity, client 1f2e"
    );
    assert_eq!(absent.seen().len(), 1);
    // A probe, which needs a body of JSON, and three tokens.
    assert_eq!(imds.seen().len(), 4);
}

#[test]
fn managed_identity_alone_is_not_probed() {
    let imds = Recorder::tokens();
    let env = Env::of([
        (
            "AZURE_TOKEN_CREDENTIALS",
            "ManagedIdentityCredential".to_owned(),
        ),
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", imds.url()),
        ("AZURE_CLIENT_ID", "1f2e".to_owned()),
    ]);
    fetch(&SignIn::from_env(&env).unwrap()).unwrap();
    let seen = imds.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].contains("&client_id=1f2e "), "{}", seen[0]);
}

#[cfg(unix)]
#[test]
fn developer_tools_come_last_and_their_failure_is_passed_over() {
    let scratch = Scratch::new();
    scratch.program("az", "echo \"run 'az login'\" >&2; exit 1");
    scratch.program(
        "azd",
        r#"echo '{"token":"abc.def","expiresOn":"2999-01-01T00:00:00Z"}'"#,
    );
    let env = Env::of([
        ("AZURE_TOKEN_CREDENTIALS", "dev".to_owned()),
        ("PATH", scratch.to_str().unwrap().to_owned()),
    ]);
    let source = SignIn::from_env(&env).unwrap().source(HOST).unwrap();
    source.fetch(&request(&Clock::System, LONG)).unwrap();
    assert_eq!(source.identity().to_string(), "Azure Developer CLI");
}

#[test]
fn debug_of_every_kind_says_who_and_shows_no_secret() {
    let env = Env::of([
        nowhere(),
        ("AZURE_FEDERATED_TOKEN_FILE", "/s3cret".to_owned()),
        (
            "ACTIONS_ID_TOKEN_REQUEST_URL",
            "https://x.example/s3cret".to_owned(),
        ),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", SECRET.to_owned()),
        (
            "SYSTEM_OIDCREQUESTURI",
            "https://x.example/s3cret".to_owned(),
        ),
        ("SYSTEM_ACCESSTOKEN", SECRET.to_owned()),
        ("AZURE_CLIENT_ID", "1f2e".to_owned()),
        ("AZURE_TENANT_ID", "t".to_owned()),
    ]);
    let rows = [
        (
            SignIn::managed_identity(&env).client_id("1f2e").unwrap(),
            "managed identity, client 1f2e",
        ),
        (
            SignIn::client_secret(&env, "t", "1f2e", SECRET).unwrap(),
            "client secret, client 1f2e, tenant t",
        ),
        (SignIn::github_actions(&env).unwrap(), "GitHub Actions"),
        (
            SignIn::azure_pipelines(&env, "5c6d").unwrap(),
            "Azure Pipelines",
        ),
        (SignIn::azure_cli(&env), "Azure CLI"),
        (SignIn::from_env(&env).unwrap(), "environment"),
    ];
    for (sign_in, text) in rows {
        assert_eq!(format!("{sign_in:?}"), text);
        let source = sign_in.source(HOST).unwrap();
        let shown = format!("{source:?} {source:#?} {}", source.identity());
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

/// Set in a process that runs one of these tests alone.
const IN_CHILD: &str = "AZMUTEX_TEST_ENTRA";

/// Runs one of these tests in a process of its own, with these variables.
fn in_child(test: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    command.args([&*name, "--exact", "--nocapture", "--ignored"]);
    for name in [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
    ] {
        command.env_remove(name);
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
fn proxy_gets_the_authoritys_request_and_never_the_managed_identitys() {
    let proxy = Recorder::new(|_, _| reply("502 Bad Gateway", "", ""));
    let local = Recorder::tokens();
    let (url, local_url) = (proxy.url(), local.url());
    let variables = [
        ("HTTP_PROXY", &*url),
        ("HTTPS_PROXY", &url),
        (IN_CHILD, &local_url),
    ];
    in_child("behind_a_proxy", &variables);
    let seen = proxy.seen();
    assert!(!seen.is_empty());
    for head in seen {
        assert!(
            head.starts_with("CONNECT login.example.invalid:443 "),
            "{head}"
        );
    }
    assert_eq!(local.seen().len(), 1);
}

#[test]
#[ignore = "part of proxy_gets_the_authoritys_request_and_never_the_managed_identitys"]
fn behind_a_proxy() {
    let Ok(local) = std::env::var(IN_CHILD) else {
        return;
    };
    // At its real address, which is not this machine's.
    let imds = ManagedIdentity::new(&env([]), Choice::Any).unwrap();
    let _ = imds.probe(Duration::from_millis(500));
    let app = Env::of([
        ("IDENTITY_ENDPOINT", format!("{local}/msi")),
        ("IDENTITY_HEADER", SECRET.to_owned()),
    ]);
    fetch(&SignIn::managed_identity(&app)).unwrap();
    let sign_in = SignIn::client_secret(&env([]), "t", "c", "s")
        .and_then(|sign_in| sign_in.authority_host("https://login.example.invalid"))
        .unwrap();
    let source = sign_in.source(HOST).unwrap();
    let error = source
        .fetch(&request(&Clock::System, Duration::from_millis(500)))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport);
}

#[test]
fn logs_at_any_level_show_no_secret() {
    in_child("logged", &[(IN_CHILD, "")]);
}

#[test]
#[ignore = "part of logs_at_any_level_show_no_secret"]
fn logged() {
    if std::env::var_os(IN_CHILD).is_none() {
        return;
    }
    static LINES: Mutex<Vec<String>> = parking_lot::const_mutex(Vec::new());
    struct Logger;
    impl log::Log for Logger {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            if record.target().starts_with("azmutex") {
                LINES.lock().push(record.args().to_string());
            }
        }
        fn flush(&self) {}
    }
    log::set_logger(&Logger).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let clock = Clock::Test(crate::time::test_clock::Clock::with_rate(100));
    let body = r#"{"error":"s3cret","error_description":"s3cret","value":"eyJs3cret","access_token":"eyJs3cret","expires_in":60}"#;
    let server = Recorder::new(move |_, number| match number % 2 {
        0 => reply("503 Service Unavailable", "", &body.replace(SECRET, "x")),
        _ => reply("200 OK", "", body),
    });
    let url = server.url();
    let env = Env::of([
        ("AZURE_AUTHORITY_HOST", url.clone()),
        ("AZURE_CLIENT_ID", "1f2e".to_owned()),
        ("AZURE_TENANT_ID", "t".to_owned()),
        ("AZURE_CLIENT_SECRET", SECRET.to_owned()),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", url.clone()),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", SECRET.to_owned()),
        ("IDENTITY_ENDPOINT", url),
        ("IDENTITY_HEADER", SECRET.to_owned()),
    ]);
    for sign_in in [
        SignIn::from_env(&env).unwrap(),
        SignIn::github_actions(&env).unwrap(),
        SignIn::managed_identity(&env),
    ] {
        sign_in
            .source(HOST)
            .unwrap()
            .fetch(&request(&clock, LONG * 100))
            .unwrap();
    }
    let lines = LINES.lock();
    assert!(lines.len() >= 4, "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains(SECRET)), "{lines:?}");
}
