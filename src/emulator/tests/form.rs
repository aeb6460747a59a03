use super::*;

const BOM: char = '\u{feff}';

#[test]
fn error_body_has_the_form_of_the_service() {
    let mut setup = Setup::with_blob();
    let answer = setup.send(
        "DELETE",
        "/locks/none",
        &[("x-ms-client-request-id", "mine")],
        "",
    );
    assert_eq!(answer.code(), (404, "BlobNotFound"));
    assert_eq!(answer.reason, "The specified blob does not exist.");
    #[rustfmt::skip]
    let names = [
        "Content-Length", "Content-Type", "Server", "x-ms-request-id", "x-ms-client-request-id",
        "x-ms-version", "x-ms-error-code", "Date",
    ];
    assert_eq!(answer.names(), names);
    assert_eq!(answer.header("Content-Type"), Some("application/xml"));
    let server = "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0";
    assert_eq!(answer.header("Server"), Some(server));
    let id = answer.header("x-ms-request-id").expect("it is there");
    let start = format!(
        "{BOM}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>BlobNotFound</Code><Message>The \
         specified blob does not exist.\nRequestId:{id}\nTime:"
    );
    let rest = answer.body.strip_prefix(&start).expect("it begins so");
    let time = rest.strip_suffix("</Message></Error>").expect("it ends so");
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00.0000000Z");
}

#[test]
fn error_bodies_are_as_long_as_those_of_the_service() {
    const OTHER: &str = "11111111-1111-1111-1111-111111111111";
    const LEASE: &str = "/locks/job?comp=lease";
    let mut setup = Setup::with_blob();
    let duration = ("x-ms-lease-duration", "60");
    let acquire = [("x-ms-lease-action", "acquire"), duration];
    let change = [
        ("x-ms-lease-action", "change"),
        ("x-ms-lease-id", OTHER),
        ("x-ms-proposed-lease-id", "1f812371-a41d-49e6-b123-f4b542e"),
    ];
    let star = [("x-ms-blob-type", "BlockBlob"), ("If-None-Match", "*")];
    let id = [("x-ms-lease-id", OTHER)];
    let container = "/locks?restype=container";
    // Each row is sent in turn. The lengths are those that were seen of the service.
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);
    #[rustfmt::skip]
    let table: [Row<'_>; 15] = [
        ("PUT", container, &[], "ContainerAlreadyExists", "230"),
        ("PUT", "/a%20b?restype=container", &[], "InvalidResourceName", "243"),
        ("DELETE", "/none?restype=container", &[], "ContainerNotFound", "225"),
        ("PUT", "/locks/job", &star, "BlobAlreadyExists", "220"),
        ("DELETE", "/locks/none", &[], "BlobNotFound", "215"),
        ("DELETE", "/locks/job", &id, "LeaseNotPresentWithBlobOperation", "241"),
        ("PUT", "/locks/job?comp=metadata", &[("If-Match", "garbage")], "ConditionNotMet", "252"),
        ("PUT", "/locks?restype=container&comp=lease", &[("x-ms-lease-action", "break")], "LeaseNotPresentWithLeaseOperation", "247"),
        ("PUT", LEASE, &change, "InvalidHeaderValue", "359"),
        ("PUT", LEASE, &acquire, "", "0"),
        ("PUT", LEASE, &acquire, "LeaseAlreadyPresent", "221"),
        ("DELETE", "/locks/job", &[], "LeaseIdMissing", "267"),
        ("DELETE", "/locks/job", &id, "LeaseIdMismatchWithBlobOperation", "264"),
        ("PUT", "/locks?restype=container&comp=lease", &acquire, "", "0"),
        ("DELETE", container, &[], "LeaseIdMissing", "272"),
    ];
    for (method, target, headers, code, length) in table {
        // Names are signed in lower case.
        let lower: Vec<_> = headers
            .iter()
            .map(|(n, v)| (n.to_ascii_lowercase(), *v))
            .collect();
        let headers: Vec<_> = lower
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .collect();
        let answer = setup.send(method, target, &headers, "");
        assert_eq!(answer.code().1, code, "{method} {target}");
        assert_eq!(answer.header("Content-Length"), Some(length), "{code}");
    }
}

#[test]
fn head_errors_are_chunked_and_have_no_body() {
    let mut setup = Setup::with_blob();
    let answer = setup.send("HEAD", "/locks/none", &[], "");
    assert_eq!(answer.code(), (404, "BlobNotFound"));
    #[rustfmt::skip]
    let names = [
        "Transfer-Encoding", "Server", "x-ms-request-id", "x-ms-version", "x-ms-error-code", "Date",
    ];
    assert_eq!(answer.names(), names);
    // The next answer begins where this one ended.
    assert_eq!(setup.send("HEAD", "/locks/job", &[], "").status, 200);
}

#[test]
fn unmodified_blob_is_answered_without_length_or_etag() {
    let mut setup = Setup::with_blob();
    let answer = setup.send("HEAD", "/locks/job", &[], "");
    let etag = answer.header("ETag").expect("a blob has one").to_owned();
    for method in ["HEAD", "GET"] {
        let answer = setup.send(method, "/locks/job", &[("if-none-match", &etag)], "");
        assert_eq!(answer.code(), (304, "ConditionNotMet"));
        let names = [
            "Server",
            "x-ms-request-id",
            "x-ms-version",
            "x-ms-error-code",
            "Date",
        ];
        assert_eq!(answer.names(), names);
    }
}

#[test]
fn headers_of_a_blob_have_order_and_case_of_the_service() {
    let mut setup = Setup::with_blob();
    setup.lease("acquire", &[("x-ms-lease-duration", "-1")]);
    let answer = setup.send("HEAD", "/locks/job", &[], "");
    #[rustfmt::skip]
    let names = [
        "Content-Length", "Content-Type", "Content-MD5", "Last-Modified", "Accept-Ranges", "ETag", "Server",
        "x-ms-request-id", "x-ms-version", "x-ms-access-tier", "x-ms-access-tier-inferred",
        "x-ms-lease-status", "x-ms-lease-state", "x-ms-lease-duration", "x-ms-blob-type",
        "x-ms-server-encrypted", "x-ms-creation-time", "Date",
    ];
    assert_eq!(answer.names(), names);
    assert_eq!(answer.header("x-ms-lease-duration"), Some("infinite"));
    assert_eq!(answer.header("x-ms-lease-status"), Some("locked"));
    assert_eq!(answer.reason, "OK");
}

#[test]
fn empty_successes_are_chunked_now_and_then() {
    let mut setup = Setup::with_blob();
    let forms = (0..16).map(|_| {
        let answer = setup.send("PUT", "/locks/job?comp=metadata", &[], "");
        assert_eq!((answer.status, &*answer.body), (200, ""));
        answer.header("Transfer-Encoding").is_some()
    });
    let chunked: Vec<_> = forms
        .enumerate()
        .filter(|(_, is)| *is)
        .map(|(at, _)| at)
        .collect();
    // The two before count too.
    assert_eq!(chunked, [5, 13]);
}

#[test]
fn replies_depend_on_the_version_asked_for() {
    let mut setup = Setup::with_blob();
    let table = [
        ("2016-05-31", false, false),
        ("2018-03-28", true, false),
        ("2019-02-02", true, false),
        ("2020-04-08", true, true),
        ("2025-11-05", true, true),
    ];
    for (version, has_code, has_echo) in table {
        setup.version = version;
        let answer = setup.send(
            "GET",
            "/locks/none",
            &[("x-ms-client-request-id", "mine")],
            "",
        );
        assert_eq!(
            answer.header("x-ms-error-code").is_some(),
            has_code,
            "{version}"
        );
        let echo = answer.header("x-ms-client-request-id");
        assert_eq!(echo, has_echo.then_some("mine"), "{version}");
        assert_eq!(answer.header("x-ms-version"), Some(version));
    }
    for version in ["latest", "2014-02-14", "2021-04-11", "2099-01-01", ""] {
        setup.version = version;
        let answer = setup.send("GET", "/locks/none", &[], "");
        assert_eq!(answer.status, 400, "{version}");
        let code = "<Code>InvalidHeaderValue</Code>";
        assert!(answer.body.contains(code), "{}", answer.body);
    }
}

#[test]
fn request_ids_differ() {
    let mut setup = Setup::new();
    let mut ids: Vec<_> = (0..100)
        .map(|_| {
            let answer = setup.send("GET", "/locks/none", &[], "");
            answer
                .header("x-ms-request-id")
                .expect("it is there")
                .to_owned()
        })
        .collect();
    assert!(
        ids.iter()
            .all(|id| id.len() == 36 && id.ends_with("000000")),
        "{ids:?}"
    );
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 100);
}
