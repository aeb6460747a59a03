use super::*;
use crate::time::dates;

const A: &str = "aaaaaaaa-0000-4000-8000-00000000000a";
const B: &str = "bbbbbbbb-0000-4000-8000-00000000000b";

#[test]
fn lease_ids_are_checked_before_the_blob_is_looked_up() {
    let mut setup = Setup::with_blob();
    for id in [
        "",
        "abc",
        "{aaaaaaaa}",
        "aaaaaaaa-0000-4000-8000-00000000000g",
        "é",
    ] {
        for target in ["/locks/none?comp=lease", "/locks/none"] {
            let headers = [("x-ms-lease-action", "renew"), ("x-ms-lease-id", id)];
            let answer = setup.send("PUT", target, &headers, "");
            assert_eq!(answer.code(), (400, "InvalidHeaderValue"), "{id}");
            let detail = "</Message><HeaderName>x-ms-lease-id</HeaderName><HeaderValue";
            assert!(answer.body.contains(detail), "{}", answer.body);
        }
    }
}

#[test]
fn lease_ids_are_compared_as_guids_and_shown_in_one_form() {
    let mut setup = Setup::with_blob();
    let bare = A.replace('-', "");
    let forms = [
        &A.to_uppercase(),
        &bare,
        &format!("{{{A}}}"),
        &format!("({A})"),
    ];
    for id in forms {
        let headers = [
            ("x-ms-lease-duration", "60"),
            ("x-ms-proposed-lease-id", id),
        ];
        let answer = setup.lease("acquire", &headers);
        assert_eq!(answer.status, 201, "{id}");
        assert_eq!(answer.header("x-ms-lease-id"), Some(A));
        let answer = setup.lease("renew", &[("x-ms-lease-id", id)]);
        assert_eq!(
            (answer.status, answer.header("x-ms-lease-id")),
            (200, Some(A))
        );
    }
}

#[test]
fn lease_headers_are_checked() {
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);
    #[rustfmt::skip]
    let table: [Row<'_>; 13] = [
        ("acquire", &[], "MissingRequiredHeader", "x-ms-lease-duration"),
        ("acquire", &[("x-ms-lease-duration", "14")], "InvalidHeaderValue", "x-ms-lease-duration"),
        ("acquire", &[("x-ms-lease-duration", "61")], "InvalidHeaderValue", "x-ms-lease-duration"),
        ("acquire", &[("x-ms-lease-duration", "-2")], "InvalidHeaderValue", "x-ms-lease-duration"),
        ("acquire", &[("x-ms-lease-duration", "60"), ("x-ms-proposed-lease-id", "x")], "InvalidHeaderValue", "x-ms-proposed-lease-id"),
        ("renew", &[], "MissingRequiredHeader", "x-ms-lease-id"),
        ("release", &[], "MissingRequiredHeader", "x-ms-lease-id"),
        ("change", &[("x-ms-lease-id", A)], "MissingRequiredHeader", "x-ms-proposed-lease-id"),
        ("change", &[("x-ms-proposed-lease-id", A)], "MissingRequiredHeader", "x-ms-lease-id"),
        ("change", &[("x-ms-lease-id", A), ("x-ms-proposed-lease-id", "x")], "InvalidHeaderValue", "x-ms-proposed-lease-id"),
        ("break", &[("x-ms-lease-break-period", "61")], "InvalidHeaderValue", "x-ms-lease-break-period"),
        ("break", &[("x-ms-lease-break-period", "-1")], "InvalidHeaderValue", "x-ms-lease-break-period"),
        ("steal", &[], "InvalidHeaderValue", "x-ms-lease-action"),
    ];
    let mut setup = Setup::with_blob();
    for (action, headers, code, name) in table {
        let answer = setup.lease(action, headers);
        assert_eq!(answer.code(), (400, code), "{action} {headers:?}");
        let element = format!("<HeaderName>{name}</HeaderName>");
        assert!(answer.body.contains(&element), "{}", answer.body);
    }
    let answer = setup.send("PUT", "/locks/job?comp=lease", &[], "");
    assert_eq!(answer.code(), (400, "MissingRequiredHeader"));
}

#[test]
fn lease_runs_its_course_on_the_wire() {
    let mut setup = Setup::with_blob();
    let (a, b) = (("x-ms-lease-id", A), ("x-ms-lease-id", B));
    let propose_a = [("x-ms-lease-duration", "20"), ("x-ms-proposed-lease-id", A)];
    let to_b = [a, ("x-ms-proposed-lease-id", B)];
    let period = [("x-ms-lease-break-period", "5")];
    // Milliseconds to advance, the action, the status, the lease ID and the lease time.
    type Row<'a> = (
        u64,
        &'a str,
        &'a [(&'a str, &'a str)],
        u16,
        Option<&'a str>,
        Option<&'a str>,
    );
    let table: [Row<'_>; 11] = [
        (0, "acquire", &propose_a, 201, Some(A), None),
        (1, "renew", &[a], 200, Some(A), None),
        (1, "change", &to_b, 200, Some(B), None),
        (1, "change", &to_b, 200, Some(B), None),
        (1, "release", &[a], 409, None, None),
        (25_000, "renew", &[b], 200, Some(B), None),
        (1, "break", &[], 202, None, Some("19")),
        (1, "break", &period, 202, None, Some("5")),
        (4_999, "acquire", &propose_a, 409, None, None),
        (1, "acquire", &propose_a, 201, Some(A), None),
        (1, "release", &[a], 200, None, None),
    ];
    for (row, (millis, action, headers, status, id, time)) in table.into_iter().enumerate() {
        setup
            .emulator
            .clock()
            .advance(Duration::from_millis(millis));
        let answer = setup.lease(action, headers);
        assert_eq!(answer.status, status, "row {row}: {answer:?}");
        assert_eq!(answer.header("x-ms-lease-id"), id, "row {row}");
        assert_eq!(answer.header("x-ms-lease-time"), time, "row {row}");
    }
}

#[test]
fn service_makes_an_id_when_none_is_proposed() {
    let mut setup = Setup::with_blob();
    let answer = setup.lease("acquire", &[("x-ms-lease-duration", "60")]);
    let id = answer
        .header("x-ms-lease-id")
        .expect("it is there")
        .to_owned();
    let answer = setup.lease("renew", &[("x-ms-lease-id", &id)]);
    assert_eq!(answer.header("x-ms-lease-id"), Some(&*id));
}

#[test]
fn metadata_keeps_its_case_and_is_replaced_as_a_whole() {
    let mut setup = Setup::with_blob();
    // Signed in lower case, sent as a client may spell it.
    let date = dates::http(setup.emulator.clock().wall());
    let headers = |name| {
        [
            (name, "Bob"),
            ("x-ms-date", &*date),
            ("content-length", "0"),
        ]
    };
    let target = "/locks/job?comp=metadata";
    let authorization = signed(KEY, "PUT", target, &headers("x-ms-meta-holdername"));
    let sent = [
        &headers("X-Ms-Meta-HolderName")[..],
        &[("authorization", &*authorization)],
    ];
    let request = request("PUT", target, &sent.concat());
    assert_eq!(
        exchange(&mut setup.stream, request.as_bytes(), false).status,
        200
    );

    let answer = setup.send("HEAD", "/locks/job", &[], "");
    assert_eq!(answer.header("x-ms-meta-HolderName"), Some("Bob"));
    setup.send("PUT", target, &[("x-ms-meta-other", "1")], "");
    let answer = setup.send("HEAD", "/locks/job", &[], "");
    assert_eq!(answer.header("x-ms-meta-HolderName"), None);
    assert_eq!(answer.header("x-ms-meta-other"), Some("1"));
}

#[test]
fn metadata_is_checked() {
    let mut setup = Setup::with_blob();
    let fits = "x".repeat(8 * 1024 - 1);
    let exceeds = "x".repeat(8 * 1024);
    #[rustfmt::skip]
    let table = [
        ("x-ms-meta-a", &*fits, (200, "")),
        ("x-ms-meta-a", &*exceeds, (400, "MetadataTooLarge")),
        ("x-ms-meta-_a1", "1", (200, "")),
        ("x-ms-meta-1a", "1", (400, "InvalidMetadata")),
        ("x-ms-meta-a-b", "1", (400, "InvalidMetadata")),
        ("x-ms-meta-", "1", (400, "InvalidMetadata")),
        ("x-ms-meta-a", "é", (400, "InvalidMetadata")),
    ];
    for (name, value, expected) in table {
        let answer = setup.send("PUT", "/locks/job?comp=metadata", &[(name, value)], "");
        assert_eq!(answer.code(), expected, "{name}");
    }
}

#[test]
fn names_are_checked() {
    let mut setup = Setup::new();
    let long = "a".repeat(64);
    for name in [
        "ab", "Abc", "a_b", "-ab", "ab-", "a--b", "a.b", "a%20b", &long,
    ] {
        let answer = setup.send("PUT", &format!("/{name}?restype=container"), &[], "");
        assert_eq!(answer.code(), (400, "InvalidResourceName"), "{name}");
    }
    for name in ["abc", "a-b-1", "$root", &long[1..]] {
        let answer = setup.send("PUT", &format!("/{name}?restype=container"), &[], "");
        assert_eq!(answer.status, 201, "{name}");
    }
    let kind = [("x-ms-blob-type", "BlockBlob")];
    let (long, deep) = ("a".repeat(1025), "a/".repeat(254) + "a");
    for name in ["a.", "a/", "a%5C", "a%2F", &long, &deep] {
        let answer = setup.send("PUT", &format!("/abc/{name}"), &kind, "");
        assert_eq!(answer.code(), (400, "InvalidResourceName"), "{name}");
    }
    for name in [
        "a",
        "%E6%B5%8B",
        "a%20b/c%3F",
        "A%5Cb",
        &long[1..],
        &deep[2..],
    ] {
        let answer = setup.send("PUT", &format!("/abc/{name}"), &kind, "");
        assert_eq!(answer.status, 201, "{name}");
    }
    assert_eq!(setup.send("HEAD", "/abc/A/b", &[], "").status, 200);
}

#[test]
fn contents_are_returned_whole_or_in_part() {
    let mut setup = Setup::with_blob();
    let headers = [
        ("x-ms-blob-type", "BlockBlob"),
        ("content-type", "text/plain"),
    ];
    assert_eq!(
        setup
            .send("PUT", "/locks/text", &headers, "hello world")
            .status,
        201
    );
    #[rustfmt::skip]
    let table = [
        ("", 200, "hello world", None),
        ("bytes=0-4", 206, "hello", Some("bytes 0-4/11")),
        ("bytes=6-33554431", 206, "world", Some("bytes 6-10/11")),
        ("bytes=6-", 206, "world", Some("bytes 6-10/11")),
        ("bytes=5-4", 200, "hello world", None),
    ];
    for (range, status, body, part) in table {
        let answer = setup.send("GET", "/locks/text", &[("x-ms-range", range)], "");
        assert_eq!((answer.status, &*answer.body), (status, body), "{range}");
        assert_eq!(answer.header("Content-Range"), part);
        assert_eq!(answer.header("Content-Type"), Some("text/plain"));
    }
    let answer = setup.send("GET", "/locks/text", &[("x-ms-range", "bytes=11-")], "");
    assert_eq!(answer.code(), (416, "InvalidRange"));
}

#[test]
fn large_contents_pass_through() {
    let mut setup = Setup::with_blob();
    let body = "0123456789abcdef".repeat(512 * 1024);
    let headers = [("x-ms-blob-type", "BlockBlob")];
    assert_eq!(
        setup.send("PUT", "/locks/large", &headers, &body).status,
        201
    );
    assert!(setup.send("GET", "/locks/large", &[], "").body == body);
}

#[test]
fn list_shows_leases_and_metadata_in_the_services_xml() {
    let mut setup = Setup::with_blob();
    let headers = [("x-ms-blob-type", "BlockBlob"), ("x-ms-meta-name", "a<b")];
    setup.send("PUT", "/locks/job%20%26%20%22co%22", &headers, "hello");
    setup.lease("acquire", &[("x-ms-lease-duration", "60")]);
    let target = "/locks?restype=container&comp=list&prefix=job&maxresults=1&include=metadata";
    let answer = setup.send("GET", target, &[], "");
    assert_eq!(
        (answer.status, answer.header("Content-Length")),
        (200, None)
    );
    let endpoint = setup.emulator.endpoint();
    let start = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults \
         ServiceEndpoint=\"{endpoint}/\" ContainerName=\"locks\"><Prefix>job</Prefix>\
         <MaxResults>1</MaxResults><Blobs><Blob><Name>job</Name><Properties><Creation-Time>"
    );
    assert!(answer.body.starts_with(&start), "{}", answer.body);
    let etag = "<Etag>0x8D"; // Without quotes, other than in headers.
    let lease = "<LeaseStatus>locked</LeaseStatus><LeaseState>leased</LeaseState>\
                 <LeaseDuration>fixed</LeaseDuration><ServerEncrypted>true</ServerEncrypted>\
                 </Properties><Metadata /><OrMetadata /></Blob></Blobs><NextMarker>2!";
    assert!(answer.body.contains(etag), "{}", answer.body);
    assert!(answer.body.contains(lease), "{}", answer.body);

    let marker = answer.body.split("<NextMarker>").nth(1).unwrap_or_default();
    let marker = marker.split('<').next().unwrap_or_default();
    let answer = setup.send("GET", &format!("{target}&marker={marker}"), &[], "");
    for part in [
        "<Name>job &amp; \"co\"</Name>",
        "<Content-Length>5</Content-Length>",
        "<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState><ServerEncrypted>",
        "<Metadata><name>a&lt;b</name></Metadata>",
        "</Blobs><NextMarker /></EnumerationResults>",
    ] {
        assert!(answer.body.contains(part), "{part} in {}", answer.body);
    }
}

#[test]
fn other_operations_are_refused() {
    let mut setup = Setup::with_blob();
    let container = "/locks?restype=container";
    let table = [
        (
            "PUT",
            "/locks/job?comp=snapshot",
            (400, "InvalidQueryParameterValue"),
        ),
        (
            "GET",
            "/locks?restype=container&comp=acl",
            (400, "InvalidQueryParameterValue"),
        ),
        (
            "GET",
            "/locks?restype=container&comp=list&delimiter=/",
            (400, "InvalidQueryParameterValue"),
        ),
        (
            "GET",
            "/locks?restype=container&comp=list&maxresults=0",
            (400, "InvalidQueryParameterValue"),
        ),
        (
            "GET",
            "/locks?restype=container&comp=list&marker=x",
            (400, "InvalidQueryParameterValue"),
        ),
        ("GET", "/locks", (400, "InvalidQueryParameterValue")),
        ("GET", "/?comp=list", (501, "NotImplemented")),
        ("PATCH", container, (405, "UnsupportedHttpVerb")),
        (
            "DELETE",
            "/locks/job?comp=lease",
            (405, "UnsupportedHttpVerb"),
        ),
        ("PUT", "/locks/job", (400, "MissingRequiredHeader")),
    ];
    for (method, target, expected) in table {
        let answer = setup.send(method, target, &[], "");
        assert_eq!(answer.code(), expected, "{method} {target}");
    }
}
