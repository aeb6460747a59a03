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
        "Bearer eyJ",
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
    let builder = Emulator::builder().sas(SAS);
    let shown = format!("{builder:?}");
    let emulator = builder.start().expect("a loopback port is free");
    let shown = shown + &format!("{emulator:?}");
    assert!(!shown.contains("aG1hYw") && !shown.contains(KEY), "{shown}");
}
