use super::*;
use crate::time::dates;

const OTHER_KEY: &str = "bm90IHRoZSBrZXkgb2YgdGhpcyBhY2NvdW50";

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
fn account_sas_is_accepted_until_it_expires() {
    let mut setup = Setup::new();
    let sas = setup.emulator.sas(Duration::from_secs(60));
    let target = format!("/locks?restype=container&{sas}");
    setup.emulator.clock().advance(Duration::from_secs(58));
    assert_eq!(send_anonymous(&mut setup, "PUT", &target).status, 201);
    setup.emulator.clock().advance(Duration::from_secs(2));
    let answer = send_anonymous(&mut setup, "GET", &target);
    assert_eq!(answer.code(), (403, "AuthenticationFailed"));
    let detail = "Signature not valid in the specified time frame: Start [] - Expiry [";
    assert!(answer.body.contains(detail), "{}", answer.body);
}

#[test]
fn sas_lasts_as_long_as_a_date_can_tell() {
    let setup = Setup::new();
    let sas = setup.emulator.sas(Duration::MAX);
    assert!(sas.contains("se=9999-12-31"), "{sas}");
}

/// Tokens that a public SDK made with the emulators' key, until 2099.
#[test]
fn sas_of_an_sdk_is_accepted() {
    #[rustfmt::skip]
    let table = [
        ("GET", "/?comp=list", "se=2099-01-01T00%3A00%3A00Z&sp=rl&sv=2026-10-06&ss=b&srt=sco&sig=%2BtLq9RN2eh8U1TS6bOHe%2BgvBPtogAGzR/ngr4WCQlWA%3D"),
        ("GET", "/locks/job", "se=2099-01-01T00%3A00%3A00Z&sp=rl&sv=2026-10-06&ss=b&srt=sco&sig=%2BtLq9RN2eh8U1TS6bOHe%2BgvBPtogAGzR/ngr4WCQlWA%3D"),
        ("GET", "/locks?restype=container&comp=list", "st=2020-01-01T00%3A00%3A00Z&se=2099-01-01T00%3A00%3A00Z&sp=rl&spr=https%2Chttp&sv=2026-10-06&sr=c&sig=S72Zk5TfIaXnbHhGIj9aqCU0Y48a3pYCFpU%2BRFHBhkE%3D"),
        ("GET", "/locks/job", "st=2020-01-01T00%3A00%3A00Z&se=2099-01-01T00%3A00%3A00Z&sp=rl&spr=https%2Chttp&sv=2026-10-06&sr=c&sig=S72Zk5TfIaXnbHhGIj9aqCU0Y48a3pYCFpU%2BRFHBhkE%3D"),
        ("GET", "/locks/job", "se=2099-01-01T00%3A00%3A00Z&sp=r&sip=127.0.0.1&sv=2026-10-06&sr=b&sig=9fkAfdDhI5AIdF52af4CHRH0e%2BVf3i2yWT%2BGT13LWI8%3D"),
    ];
    for (method, target, sas) in table {
        let mut setup = Setup::with_blob();
        let separator = if target.contains('?') { '&' } else { '?' };
        let target = format!("{target}{separator}{sas}");
        let answer = send_anonymous(&mut setup, method, &target);
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        for changed in [
            target.replace("sp=", "sp=w"),
            target.replace("sig=", "sig=x"),
            target.replace("se=2099", "se=2098"),
        ] {
            let answer = send_anonymous(&mut setup, method, &changed);
            assert_eq!(answer.code(), (403, "AuthenticationFailed"), "{changed}");
            let detail = "<AuthenticationErrorDetail>Signature did not match.";
            assert!(answer.body.contains(detail), "{}", answer.body);
        }
    }
}

/// Signs fields that end with the version, as each version of the service has them.
fn service_sas(fields: &[(&str, &str)], resource: &str, version: &str) -> String {
    let value = |wanted: &str| {
        let found = fields.iter().find(|(name, _)| *name == wanted);
        found.map_or("", |(_, value)| *value)
    };
    let [sp, st, se, sip, spr, sr] = ["sp", "st", "se", "sip", "spr", "sr"].map(value);
    let resource = format!("/blob/{ACCOUNT}/{resource}");
    let mut text = format!("{sp}\n{st}\n{se}\n{resource}\n\n{sip}\n{spr}\n{version}\n");
    match version {
        "2015-02-21" | "2015-04-05" => {}
        "2018-11-09" => text += &format!("{sr}\n\n"),
        _ => text += &format!("{sr}\n\n\n"),
    }
    token(fields, &(text + "\n\n\n\n"), version)
}

fn account_sas(fields: &[(&str, &str)], version: &str) -> String {
    let names = ["sp", "ss", "srt", "st", "se", "sip", "spr"];
    let mut text = format!("{ACCOUNT}\n");
    for wanted in names {
        let found = fields.iter().find(|(name, _)| *name == wanted);
        text += found.map_or("", |(_, value)| *value);
        text += "\n";
    }
    text += version;
    text += if version < "2020-12-06" { "\n" } else { "\n\n" };
    token(fields, &text, version)
}

fn token(fields: &[(&str, &str)], text: &str, version: &str) -> String {
    let key = STANDARD.decode(KEY).expect("a key is base64");
    let signature = sign::signature(&key, text).replace('+', "%2B");
    let fields = fields.iter();
    let fields: String = fields
        .map(|(name, value)| format!("&{name}={value}"))
        .collect();
    format!("sv={version}{fields}&sig={signature}")
}

const FOREVER: (&str, &str) = ("se", "2999-01-01T00:00:00Z");

#[test]
fn sas_of_each_version_is_signed_in_its_own_way() {
    let mut setup = Setup::with_blob();
    for version in ["2015-04-05", "2018-11-09", "2020-12-06", "2026-10-06"] {
        let (rights, sr) = (("sp", "r"), ("sr", "c"));
        let of_container = service_sas(&[sr, rights, FOREVER], "locks", version);
        let of_blob = service_sas(&[("sr", "b"), rights, FOREVER], "locks/job", version);
        let account = [("ss", "b"), ("srt", "o"), rights, FOREVER];
        for sas in [of_container, of_blob, account_sas(&account, version)] {
            let answer = send_anonymous(&mut setup, "GET", &format!("/locks/job?{sas}"));
            assert_eq!(answer.status, 200, "{sas} {answer:?}");
        }
    }
    let old = service_sas(&[("sr", "c"), ("sp", "r"), FOREVER], "locks", "2015-02-21");
    let answer = send_anonymous(&mut setup, "GET", &format!("/locks/job?{old}"));
    assert_eq!(answer.code(), (403, "AuthenticationFailed"));
}

#[test]
fn sas_allows_what_its_permissions_allow() {
    let blob = ("x-ms-blob-type", "BlockBlob");
    let acquire = [
        ("x-ms-lease-action", "acquire"),
        ("x-ms-lease-duration", "15"),
    ];
    let breaking = [("x-ms-lease-action", "break")];
    type Row<'a> = (
        &'a str,
        &'a str,
        &'a [(&'a str, &'a str)],
        char,
        &'a str,
        bool,
    );
    // The request, the kind of resource, the permissions of which one is enough, and whether a SAS
    // of the container can have them.
    #[rustfmt::skip]
    let table: [Row<'_>; 17] = [
        ("GET", "/?comp=list", &[], 's', "l", false),
        ("PUT", "/new?restype=container", &[], 'c', "cw", false),
        ("HEAD", "/locks?restype=container", &[], 'c', "r", false),
        ("PUT", "/locks?restype=container&comp=metadata", &[], 'c', "w", false),
        ("DELETE", "/locks?restype=container", &[], 'c', "d", false),
        ("PUT", "/locks?restype=container&comp=lease", &acquire, 'c', "w", false),
        ("PUT", "/leased?restype=container&comp=lease", &breaking, 'c', "wd", false),
        ("GET", "/locks?restype=container&comp=list", &[], 'c', "l", true),
        ("PUT", "/locks/new", &[blob], 'o', "cw", true),
        ("PUT", "/locks/job", &[blob], 'o', "w", true),
        ("PUT", "/locks/job?comp=block&blockid=MQ==", &[], 'o', "w", true),
        ("GET", "/locks/job?comp=blocklist", &[], 'o', "r", true),
        ("GET", "/locks/job", &[], 'o', "r", true),
        ("PUT", "/locks/job?comp=metadata", &[], 'o', "w", true),
        ("DELETE", "/locks/job", &[], 'o', "d", true),
        ("PUT", "/locks/job?comp=lease", &acquire, 'o', "w", true),
        ("PUT", "/leased/job?comp=lease", &breaking, 'o', "wd", true),
    ];
    for (method, target, headers, kind, any_of, by_service) in table {
        for letter in "rwdlc".chars() {
            let (sp, srt) = (letter.to_string(), kind.to_string());
            let others: String = "sco".chars().filter(|other| *other != kind).collect();
            let sas = |srt: &str| {
                let fields = [("ss", "b"), ("srt", srt), ("sp", &*sp), FOREVER];
                account_sas(&fields, VERSION)
            };
            let container = target[1..].split(['/', '?']).next().unwrap_or_default();
            let fields = [("sr", "c"), ("sp", &*sp), FOREVER];
            let of_container = service_sas(&fields, container, VERSION);
            let is_allowed = any_of.contains(letter);
            let mut rows = vec![(sas(&srt), is_allowed), (sas(&others), false)];
            if kind != 's' {
                rows.push((of_container, is_allowed && by_service));
            }
            for (sas, is_allowed) in rows {
                let mut setup = Setup::with_blob();
                setup.send("PUT", "/leased?restype=container", &[], "");
                setup.send("PUT", "/leased/job", &[blob], "content!");
                setup.send("PUT", "/leased/job?comp=lease", &acquire, "");
                setup.send("PUT", "/leased?restype=container&comp=lease", &acquire, "");
                let separator = if target.contains('?') { '&' } else { '?' };
                let target = format!("{target}{separator}{sas}");
                let answer = send_with(&mut setup, method, &target, headers);
                let is_refused = answer.status == 403;
                assert_eq!(is_refused, !is_allowed, "{method} {target}: {answer:?}");
            }
        }
    }
}

/// Sends a request without `Authorization`, with headers.
fn send_with(setup: &mut Setup, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    let common = [("x-ms-version", VERSION), ("Content-Length", "0")];
    let request = request(method, target, &[&common, headers].concat());
    exchange(&mut setup.stream, request.as_bytes(), method == "HEAD")
}

#[test]
fn sas_is_refused_with_what_does_not_fit() {
    let mut setup = Setup::with_blob();
    let rights = [("sr", "c"), ("sp", "r"), FOREVER];
    let service = |more: (&'static str, &'static str)| {
        service_sas(&[&rights[..], &[more]].concat(), "locks", VERSION)
    };
    let account = |ss, srt| {
        let fields = [("ss", ss), ("srt", srt), ("sp", "r"), FOREVER];
        account_sas(&fields, VERSION)
    };
    let failed = "AuthenticationFailed";
    #[rustfmt::skip]
    let table = [
        (service(("spr", "https,http")), ""),
        (service(("spr", "https")), "AuthorizationProtocolMismatch"),
        (service(("sip", "127.0.0.1")), ""),
        (service(("sip", "127.0.0.0-127.0.0.9")), ""),
        (service(("sip", "127.0.0.2")), "AuthorizationSourceIPMismatch"),
        (service(("sip", "127.0.0.2-127.0.0.9")), "AuthorizationSourceIPMismatch"),
        (service(("sip", "any")), "AuthorizationSourceIPMismatch"),
        (service(("st", "2000-01-01")), ""),
        (service(("st", "2000-01-01T00:00Z")), ""),
        (service(("st", "2000-01-01T00:00:00.1234567Z")), ""),
        (service(("st", "2998-01-01T00:00:00Z")), failed),
        (service(("st", "yesterday")), failed),
        (account("b", "o"), ""),
        (account("bfqt", "sco"), ""),
        (account("f", "o"), "AuthorizationServiceMismatch"),
        (account("b", "sc"), "AuthorizationResourceTypeMismatch"),
        (service_sas(&[("sr", "c"), ("sp", "wdl"), FOREVER], "locks", VERSION), "AuthorizationPermissionMismatch"),
        (service_sas(&[("sr", "c"), ("sp", "r")], "locks", VERSION), failed),
        (service_sas(&[("sr", "c"), ("sp", "r"), ("se", "tomorrow")], "locks", VERSION), failed),
        (service_sas(&rights, "other", VERSION), failed),
        (service_sas(&[("sr", "b"), ("sp", "r"), FOREVER], "locks/other", VERSION), failed),
        (service_sas(&[("sr", "d"), ("sp", "r"), FOREVER], "locks", VERSION), failed),
        (service_sas(&rights, "locks", VERSION) + "&skoid=a", failed),
        (service_sas(&rights, "locks", VERSION) + "&si=policy", failed),
        (service_sas(&rights, "locks", VERSION) + "&rsct=text", failed),
        (service_sas(&rights, "locks", "2021-04-11"), failed),
        ("sig=x".to_owned(), failed),
    ];
    for (sas, code) in table {
        let answer = send_anonymous(&mut setup, "GET", &format!("/locks/job?{sas}"));
        let status = if code.is_empty() { 200 } else { 403 };
        assert_eq!(answer.code(), (status, code), "{sas}: {answer:?}");
    }
}

#[test]
fn sas_that_may_only_create_does_not_overwrite() {
    let mut setup = Setup::with_blob();
    let sas = service_sas(&[("sr", "c"), ("sp", "c"), FOREVER], "locks", VERSION);
    let blob = [("x-ms-blob-type", "BlockBlob")];
    let mut put = |name: &str| {
        let target = format!("/locks/{name}?{sas}");
        let answer = send_with(&mut setup, "PUT", &target, &blob);
        (answer.status, answer.code().1.to_owned())
    };
    assert_eq!(put("new"), (201, String::new()));
    let refused = (403, "UnauthorizedBlobOverwrite".to_owned());
    assert_eq!(put("new"), refused);
    assert_eq!(put("job"), refused);
}

#[test]
fn debug_output_holds_no_secrets() {
    let builder = Emulator::builder().bearer("aG1hYw-token");
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
    let set = |builder: EmulatorBuilder| builder.allow_shared_key_access(false).bearer("known");
    let mut setup = Setup::with(set);
    let expected = (403, "KeyBasedAuthenticationNotPermitted");
    assert_eq!(setup.send("GET", "/locks/job", &[], "").code(), expected);
    let sas = setup.emulator.sas(Duration::from_secs(60));
    let target = format!("/locks?restype=container&{sas}");
    assert_eq!(send_anonymous(&mut setup, "PUT", &target).code(), expected);
    let answer = send_bearer(&mut setup, "PUT", "/locks?restype=container", "known");
    assert_eq!(answer.status, 201);
}
