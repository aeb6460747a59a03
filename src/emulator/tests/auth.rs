use super::*;
use crate::time::dates;

const OTHER_KEY: &str = "bm90IHRoZSBrZXkgb2YgdGhpcyBhY2NvdW50";
const SAS: &str = "sv=2021-04-10&sr=c&sp=rwdl&se=2999-01-01T00%3A00%3A00Z&sig=aG1hYw%2B%2Fs%3D";

/// Sends a request without `Authorization`.
fn send_anonymous(setup: &mut Setup, method: &str, target: &str) -> Answer {
    let headers = [("x-ms-version", VERSION), ("Content-Length", "0")];
    let request = request(method, target, &headers);
    exchange(&mut setup.stream, request.as_bytes(), method == "HEAD")
}

fn send_dated(setup: &mut Setup, key: &str, date: &str) -> Answer {
    let headers = [
        ("x-ms-client-request-id", "mine"),
        ("x-ms-date", date),
        ("x-ms-version", VERSION),
    ];
    let authorization = signed(key, "GET", "/locks/job", &headers);
    let headers = [&headers[..], &[("authorization", &*authorization)]].concat();
    let request = request("GET", "/locks/job", &headers);
    exchange(&mut setup.stream, request.as_bytes(), false)
}

#[test]
fn wrong_key_is_refused_with_the_string_to_sign() {
    let mut setup = Setup::with_blob();
    let date = dates::http(setup.emulator.clock().wall());
    assert_eq!(send_dated(&mut setup, KEY, &date).status, 200);
    let answer = send_dated(&mut setup, OTHER_KEY, &date);
    assert_eq!(answer.code(), (403, "AuthenticationFailed"));
    let detail = format!(
        "is not the same as any computed signature. Server used following string to sign: \
         'GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-client-request-id:mine\nx-ms-date:{date}\n\
         x-ms-version:2021-04-10\n/devstoreaccount1/devstoreaccount1/locks/job'.\
         </AuthenticationErrorDetail></Error>"
    );
    assert!(answer.body.ends_with(&detail), "{}", answer.body);
    // What answers here knows neither versions nor request IDs of clients.
    assert_eq!(answer.header("Server"), Some("Microsoft-HTTPAPI/2.0"));
    #[rustfmt::skip]
    let names = ["Content-Length", "Content-Type", "Server", "x-ms-request-id", "x-ms-error-code", "Date"];
    assert_eq!(answer.names(), names);
}

#[test]
fn date_is_accepted_within_15_minutes() {
    let mut setup = Setup::with_blob();
    let wall = setup.emulator.clock().wall();
    // Dates on the wire have no fractions of a second.
    let table = [(-899, 200), (-902, 403), (899, 200), (902, 403)];
    for (offset, status) in table {
        let date = dates::http(wall + time::Duration::seconds(offset));
        let answer = send_dated(&mut setup, KEY, &date);
        assert_eq!(answer.status, status, "{offset}");
    }
}

#[test]
fn old_date_is_refused_in_435_bytes() {
    let mut setup = Setup::new();
    let date = "Thu, 31 Dec 2015 19:41:27 GMT";
    let answer = send_dated(&mut setup, KEY, date);
    assert_eq!(answer.code(), (403, "AuthenticationFailed"));
    assert!(answer.body.contains(&format!(
        "<AuthenticationErrorDetail>Request date header too old: '{date}'<"
    )));
    assert_eq!(answer.header("Content-Length"), Some("435"));
    let answer = send_dated(&mut setup, KEY, "yesterday");
    assert_eq!(answer.code(), (403, "AuthenticationFailed"));
}

#[test]
fn anonymous_reads_find_nothing_and_writes_are_challenged() {
    let mut setup = Setup::with_blob();
    let answer = send_anonymous(&mut setup, "GET", "/locks/job");
    assert_eq!(answer.code(), (404, "ResourceNotFound"));
    let answer = send_anonymous(&mut setup, "HEAD", "/locks/job");
    assert_eq!(answer.code(), (404, "ResourceNotFound"));
    let answer = send_anonymous(&mut setup, "PUT", "/locks/job?comp=lease");
    assert_eq!(answer.code(), (401, "NoAuthenticationInformation"));
    assert_eq!(answer.header("x-ms-version"), Some(VERSION));
    let challenge = answer.header("WWW-Authenticate").unwrap_or_default();
    assert!(
        challenge.starts_with("Bearer authorization_uri=https://"),
        "{challenge}"
    );
}

#[test]
fn other_schemes_are_refused_as_malformed() {
    let mut setup = Setup::with_blob();
    for value in [
        "Bearer",
        "bearer eyJ",
        "Bearer two words",
        "SharedKeyLite a:b",
        "SharedKey devstoreaccount1",
        "",
        "é",
    ] {
        let request = request("GET", "/locks/job", &[("Authorization", value)]);
        let answer = exchange(&mut setup.stream, request.as_bytes(), false);
        assert_eq!(answer.code(), (400, "InvalidAuthenticationInfo"), "{value}");
        assert_eq!(answer.header("Server"), Some("Microsoft-HTTPAPI/2.0"));
        assert_eq!(answer.header("x-ms-version"), None);
    }
}

#[test]
fn sas_is_accepted_as_told() {
    let mut setup = Setup::with(|builder| builder.sas(format!("?{SAS}")));
    let target = format!("/locks?restype=container&{SAS}");
    assert_eq!(send_anonymous(&mut setup, "PUT", &target).status, 201);

    let unescaped = target.replace("%2B%2F", "+/");
    let answer = send_anonymous(&mut setup, "GET", &unescaped);
    assert_eq!(answer.status, 200, "{answer:?}");

    for (was, wrong) in [
        ("sig=a", "sig=b"),
        ("sp=rwdl", "sp=r"),
        ("se=2999", "se=3999"),
    ] {
        let answer = send_anonymous(&mut setup, "GET", &target.replace(was, wrong));
        assert_eq!(answer.code(), (403, "AuthenticationFailed"), "{wrong}");
        let detail = "<AuthenticationErrorDetail>Signature did not match.";
        assert!(answer.body.contains(detail), "{}", answer.body);
    }
}

#[test]
fn sas_is_accepted_until_it_expires() {
    let clock = Clock::frozen();
    let expiry = dates::utc(clock.wall() + Duration::from_secs(60));
    let sas = format!("sv=2021-04-10&se={expiry}&sig=x");
    let mut setup = Setup::with(|builder| builder.clock(clock.clone()).sas(&sas));
    let target = format!("/locks?restype=container&{sas}");
    clock.advance(Duration::from_secs(59));
    assert_eq!(send_anonymous(&mut setup, "PUT", &target).status, 201);
    clock.advance(Duration::from_secs(1));
    let answer = send_anonymous(&mut setup, "GET", &target);
    assert_eq!(answer.code(), (403, "AuthenticationFailed"));
    let detail = "Signature not valid in the specified time frame: Start [] - Expiry [";
    assert!(answer.body.contains(detail), "{}", answer.body);
}

#[test]
fn sas_dates_have_the_forms_that_the_service_takes() {
    let start = |sas: &str| Emulator::builder().sas(sas).start().map(drop);
    let fine = [
        "sig=x",
        "se=2030-01-02&sig=x",
        "se=2030-01-02T03:04Z&sig=x",
        "se=2030-01-02T03:04:05Z&sig=x",
        "se=2030-01-02T03%3A04%3A05.1234567Z&sig=x",
    ];
    for sas in fine {
        assert!(start(sas).is_ok(), "{sas}");
    }
    for sas in [
        "",
        "sv=2021-04-10",
        "sig=",
        "se=tomorrow&sig=x",
        "se=&sig=x",
        "sig=%ff",
    ] {
        let kind = start(sas).map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::InvalidInput), "{sas}");
    }
}

#[test]
fn debug_output_holds_no_secrets() {
    let builder = Emulator::builder().sas(SAS).bearer("aG1hYw-token");
    let shown = format!("{builder:?}");
    let emulator = builder.start().expect("a loopback port is free");
    let shown = shown + &format!("{emulator:?}");
    assert!(!shown.contains("aG1hYw") && !shown.contains(KEY), "{shown}");
}

/// Sends a request with a bearer token.
fn send_bearer(setup: &mut Setup, method: &str, target: &str, token: &str) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [
        ("x-ms-version", setup.version),
        ("Content-Length", "0"),
        ("Authorization", &authorization),
        ("x-ms-blob-type", "BlockBlob"),
    ];
    let headers = &headers[..if target == "/locks/new" { 4 } else { 3 }];
    let request = request(method, target, headers);
    exchange(&mut setup.stream, request.as_bytes(), method == "HEAD")
}

#[test]
fn bearer_token_is_accepted_until_it_expires_or_is_revoked() {
    let mut setup = Setup::with_blob();
    let status = |setup: &mut Setup| send_bearer(setup, "GET", "/locks/job", "eyJ.1").status;
    assert_eq!(status(&mut setup), 401);
    let token = BearerToken::new("eyJ.1").expires_in(Duration::from_secs(60));
    setup.emulator.expect_bearer(token);
    setup.emulator.clock().advance(Duration::from_secs(59));
    assert_eq!(status(&mut setup), 200);
    setup.emulator.clock().advance(Duration::from_secs(1));
    let answer = send_bearer(&mut setup, "GET", "/locks/job", "eyJ.1");
    assert_eq!(answer.code(), (401, "InvalidAuthenticationInfo"));
    let detail = "<AuthenticationErrorDetail>Lifetime validation failed. The token is \
                  expired.</AuthenticationErrorDetail>";
    assert!(answer.body.contains(detail), "{}", answer.body);
    setup.emulator.expect_bearer("eyJ.1");
    setup.emulator.clock().advance(Duration::from_secs(100_000));
    assert_eq!(status(&mut setup), 200);
    setup.emulator.revoke_bearer("eyJ.1");
    assert_eq!(status(&mut setup), 401);
}

#[test]
fn unknown_bearer_token_is_answered_by_the_challenge() {
    let mut setup = Setup::with(|builder| builder.bearer("known"));
    let answer = send_bearer(&mut setup, "PUT", "/locks?restype=container", "unknown");
    assert_eq!(answer.code(), (401, "InvalidAuthenticationInfo"));
    let challenge = "Bearer authorization_uri=https://login.microsoftonline.com/\
                     00000000-0000-0000-0000-000000000000/oauth2/authorize \
                     resource_id=https://storage.azure.com";
    assert_eq!(answer.header("WWW-Authenticate"), Some(challenge));
    assert_eq!(answer.header("Server"), Some("Microsoft-HTTPAPI/2.0"));
    assert_eq!(answer.header("x-ms-version"), None);
    let detail = "Issuer validation failed. Issuer did not match.";
    assert!(answer.body.contains(detail), "{}", answer.body);
    let head = send_bearer(&mut setup, "HEAD", "/locks/job", "unknown");
    assert_eq!(head.code(), (401, "InvalidAuthenticationInfo"));
    assert_eq!(head.header("WWW-Authenticate"), Some(challenge));
    let known = send_bearer(&mut setup, "PUT", "/locks?restype=container", "known");
    assert_eq!(known.status, 201);
}

#[test]
fn older_versions_answer_bearer_tokens_differently() {
    let mut setup = Setup::with(|builder| builder.bearer("known"));
    let unsupported = "Authentication scheme Bearer is not supported in this version.";
    let mismatch = "Issuer validation failed. Issuer did not match.";
    let table = [
        ("2017-07-29", "known", 403, unsupported),
        ("2017-11-09", "known", 404, ""),
        ("2019-07-07", "unknown", 403, mismatch),
        ("2019-12-12", "unknown", 401, mismatch),
    ];
    for (version, token, status, detail) in table {
        setup.version = version;
        let answer = send_bearer(&mut setup, "GET", "/locks/job", token);
        assert_eq!(answer.status, status, "{version}");
        assert!(answer.body.contains(detail), "{}", answer.body);
    }
}

#[test]
fn bearer_token_allows_what_its_role_allows() {
    let mut setup = Setup::with_blob();
    let tokens = [
        ("contributor", BearerToken::new("contributor"), 200, 201),
        ("reader", BearerToken::new("reader").read_only(), 200, 403),
        (
            "nobody",
            BearerToken::new("nobody").without_role(),
            403,
            403,
        ),
    ];
    for (token, bearer, read, write) in tokens {
        setup.emulator.expect_bearer(bearer);
        for (method, target, status) in [("GET", "/locks/job", read), ("PUT", "/locks/new", write)]
        {
            let answer = send_bearer(&mut setup, method, target, token);
            let code = if status == 403 {
                "AuthorizationPermissionMismatch"
            } else {
                ""
            };
            assert_eq!(answer.code(), (status, code), "{token} {method}");
        }
    }
}

#[test]
fn account_without_key_access_takes_bearer_tokens_alone() {
    let set = |builder: EmulatorBuilder| {
        builder
            .allow_shared_key_access(false)
            .bearer("known")
            .sas(SAS)
    };
    let mut setup = Setup::with(set);
    let expected = (403, "KeyBasedAuthenticationNotPermitted");
    assert_eq!(setup.send("GET", "/locks/job", &[], "").code(), expected);
    let target = format!("/locks?restype=container&{SAS}");
    assert_eq!(send_anonymous(&mut setup, "PUT", &target).code(), expected);
    let answer = send_bearer(&mut setup, "PUT", "/locks?restype=container", "known");
    assert_eq!(answer.status, 201);
}
