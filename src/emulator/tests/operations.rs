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
        for target in ["/locks/none?comp=lease", "/locks/none?comp=metadata"] {
            let headers = [("x-ms-lease-id", id), ("x-ms-lease-action", "renew")];
            let headers = &headers[..if target.ends_with("lease") { 2 } else { 1 }];
            let answer = setup.send("PUT", target, headers, "");
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
            ("x-ms-version", VERSION),
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
        ("bytes=0-4", 206, "hello", Some("bytes 0-4/11")),
        ("bytes=6-33554431", 206, "world", Some("bytes 6-10/11")),
        ("bytes=6-", 206, "world", Some("bytes 6-10/11")),
    ];
    for (range, status, body, part) in table {
        let answer = setup.send("GET", "/locks/text", &[("x-ms-range", range)], "");
        assert_eq!((answer.status, &*answer.body), (status, body), "{range}");
        assert_eq!(answer.header("Content-Range"), part);
        assert_eq!(answer.header("Content-Type"), Some("text/plain"));
    }
    let answer = setup.send("GET", "/locks/text", &[], "");
    assert_eq!((answer.status, &*answer.body), (200, "hello world"));
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
    let query = "InvalidQueryParameterValue";
    #[rustfmt::skip]
    let table = [
        ("PUT", "/locks/job?comp=snapshot", (501, "NotImplemented")),
        ("PUT", "/locks/job?comp=properties", (501, "NotImplemented")),
        ("PUT", "/locks/job?comp=tier", (501, "NotImplemented")),
        ("PUT", "/locks/job?comp=tags", (501, "NotImplemented")),
        ("GET", "/locks/job?comp=tags", (501, "NotImplemented")),
        ("PUT", "/locks/job?comp=legalhold", (501, "NotImplemented")),
        ("PUT", "/locks/job?comp=immutabilityPolicies", (501, "NotImplemented")),
        ("DELETE", "/locks/job?comp=immutabilityPolicies", (501, "NotImplemented")),
        ("PUT", "/locks/job?comp=undelete", (501, "NotImplemented")),
        ("PUT", "/locks/job?comp=appendblock", (501, "NotImplemented")),
        ("PUT", "/locks/job?comp=page", (501, "NotImplemented")),
        ("PUT", "/locks/job?comp=copy", (501, "NotImplemented")),
        ("POST", "/locks/job?comp=query", (501, "NotImplemented")),
        ("PUT", "/locks/job?restype=container", (405, "UnsupportedHttpVerb")),
        ("DELETE", "/locks/job?comp=", (400, query)),
        ("DELETE", "/locks/job?restype=", (400, query)),
        ("PUT", "/locks/job?comp=", (400, query)),
        ("DELETE", "/locks?restype=container&comp=", (400, query)),
        ("GET", "/locks/job?restype=account&comp=properties", (501, "NotImplemented")),
        ("GET", "/locks?restype=container&comp=acl", (501, "NotImplemented")),
        ("PUT", "/locks?restype=container&comp=acl", (501, "NotImplemented")),
        ("PUT", "/locks?restype=container&comp=rename", (501, "NotImplemented")),
        ("PUT", "/locks?restype=container&comp=undelete", (501, "NotImplemented")),
        ("POST", "/locks?restype=container&comp=batch", (501, "NotImplemented")),
        ("GET", "/locks?restype=container&comp=blobs&where=a", (501, "NotImplemented")),
        ("GET", "/locks?restype=account&comp=properties", (501, "NotImplemented")),
        ("GET", "/?restype=service&comp=properties", (501, "NotImplemented")),
        ("PUT", "/?restype=service&comp=properties", (501, "NotImplemented")),
        ("GET", "/?restype=account&comp=properties", (501, "NotImplemented")),
        ("POST", "/?restype=service&comp=userdelegationkey", (501, "NotImplemented")),
        ("POST", "/?comp=batch", (501, "NotImplemented")),
        ("GET", "/?comp=blobs&where=a", (501, "NotImplemented")),
        ("GET", "/locks?restype=container&comp=list&maxresults=0", (400, query)),
        ("GET", "/locks?restype=container&comp=list&marker=x", (400, query)),
        ("GET", "/locks", (400, query)),
        ("GET", "/locks/job?timeout=soon", (400, query)),
        ("GET", "/locks/job?timeout=30&timeout=30", (400, query)),
        ("GET", "/locks/job?comp=blocklist&blocklisttype=some", (400, query)),
        ("PUT", "/locks/job?comp=block", (400, "InvalidBlockId")),
        ("PUT", "/locks/job?comp=block&blockid=!", (400, "InvalidBlockId")),
        ("PATCH", "/locks?restype=container", (405, "UnsupportedHttpVerb")),
        ("OPTIONS", "/locks/job", (405, "UnsupportedHttpVerb")),
        ("HEAD", "/?comp=list", (405, "UnsupportedHttpVerb")),
        ("HEAD", "/locks?restype=container&comp=list", (405, "UnsupportedHttpVerb")),
        ("DELETE", "/locks/job?comp=lease", (405, "UnsupportedHttpVerb")),
        ("PUT", "/locks/job", (400, "MissingRequiredHeader")),
    ];
    for (method, target, expected) in table {
        let answer = setup.send(method, target, &[], "");
        assert_eq!(answer.code(), expected, "{method} {target}");
    }
    assert_eq!(
        setup.send("GET", "/locks/job?timeout=30", &[], "").status,
        200
    );
}

/// The method, the target and the headers.
type Request<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// One request for each operation, with what it needs.
#[rustfmt::skip]
const OPERATIONS: [Request<'_>; 15] = [
    ("GET", "/?comp=list", &[]),
    ("PUT", "/new?restype=container", &[]),
    ("HEAD", "/locks?restype=container", &[]),
    ("PUT", "/locks?restype=container&comp=metadata", &[]),
    ("PUT", "/locks?restype=container&comp=lease", &[("x-ms-lease-action", "break")]),
    ("GET", "/locks?restype=container&comp=list", &[]),
    ("PUT", "/locks/job", &[("x-ms-blob-type", "BlockBlob")]),
    ("PUT", "/locks/job?comp=block&blockid=MQ%3D%3D", &[]),
    ("PUT", "/locks/job?comp=blocklist", &[]),
    ("GET", "/locks/job?comp=blocklist", &[]),
    ("GET", "/locks/job", &[]),
    ("PUT", "/locks/job?comp=metadata", &[]),
    ("PUT", "/locks/job?comp=lease", &[("x-ms-lease-action", "break")]),
    ("DELETE", "/locks/job", &[]),
    ("DELETE", "/locks?restype=container", &[]),
];

#[test]
fn query_parameters_that_are_not_implemented_are_refused_by_every_operation() {
    let mut setup = Setup::with_blob();
    for (method, target, headers) in OPERATIONS {
        for query in [
            "snapshot=2026-01-01T00:00:00.0000000Z",
            "versionid=2026-01-01T00:00:00.0000000Z",
            "versionId=x",
            "prevsnapshot=x",
            "deletetype=permanent",
            "showonly=deleted",
            "startFrom=a",
            "where=x",
            "sv=2021-04-10",
            "rsct=text",
            "unknown=1",
        ] {
            let separator = if target.contains('?') { '&' } else { '?' };
            let target = format!("{target}{separator}{query}");
            let answer = setup.send(method, &target.replace("%3D", "="), headers, "");
            let code = answer.code();
            assert_eq!(
                code,
                (400, "UnsupportedQueryParameter"),
                "{method} {target}"
            );
        }
    }
    // Nothing has happened to what is there.
    assert_eq!(setup.send("GET", "/locks/job", &[], "").status, 200);
}

#[test]
fn headers_that_are_not_implemented_are_refused_by_every_operation() {
    let mut setup = Setup::with_blob();
    for (method, target, headers) in OPERATIONS {
        for header in [
            ("x-ms-copy-source", "http://127.0.0.1/account/a/b"),
            ("x-ms-if-tags", "\"a\" = 'b'"),
            ("x-ms-source-if-match", "*"),
            ("x-ms-access-tier", "Cool"),
            ("x-ms-tags", "a=b"),
            ("x-ms-legal-hold", "true"),
            ("x-ms-immutability-policy-mode", "locked"),
            (
                "x-ms-immutability-policy-until-date",
                "Wed, 01 Jan 2031 00:00:00 GMT",
            ),
            ("x-ms-encryption-scope", "a"),
            ("x-ms-encryption-key", "a"),
            ("x-ms-encryption-key-sha256", "a"),
            ("x-ms-encryption-algorithm", "AES256"),
            ("x-ms-content-crc64", "AAAAAAAAAAA="),
            ("x-ms-structured-body", "XSM/1.0; properties=crc64"),
            ("x-ms-blob-public-access", "blob"),
            ("x-ms-range-get-content-md5", "true"),
            ("x-ms-requires-sync", "true"),
            ("x-ms-unknown", "1"),
            ("if-range", "*"),
            ("if-unknown", "*"),
        ] {
            let headers = [headers, &[header]].concat();
            let answer = setup.send(method, &target.replace("%3D", "="), &headers, "");
            let code = answer.code();
            assert_eq!(
                code,
                (400, "UnsupportedHeader"),
                "{method} {target} {header:?}"
            );
            let name = format!("<HeaderName>{}</HeaderName>", header.0);
            assert!(
                method == "HEAD" || answer.body.contains(&name),
                "{}",
                answer.body
            );
        }
    }
    assert_eq!(setup.send("GET", "/locks/job", &[], "").status, 200);
}

#[test]
fn headers_of_other_operations_are_refused() {
    let mut setup = Setup::with_blob();
    let date = "Mon, 23 Nov 2026 04:54:48 GMT";
    let md5 = "1B2M2Y8AsgTpgAmY7PhCfg==";
    #[rustfmt::skip]
    let table = [
        ("GET", "/?comp=list", &[("if-match", "*"), ("if-modified-since", date), ("x-ms-lease-id", A), ("x-ms-meta-a", "1")][..]),
        ("PUT", "/new?restype=container", &[("if-none-match", "*"), ("if-modified-since", date), ("x-ms-lease-id", A), ("content-md5", md5), ("content-language", "de")]),
        ("HEAD", "/locks?restype=container", &[("if-match", "*"), ("if-modified-since", date), ("range", "bytes=0-1")]),
        ("PUT", "/locks?restype=container&comp=metadata", &[("if-match", "*"), ("if-unmodified-since", date), ("content-md5", md5)]),
        ("DELETE", "/locks?restype=container", &[("if-match", "*"), ("x-ms-meta-a", "1")]),
        ("GET", "/locks?restype=container&comp=list", &[("if-match", "*"), ("x-ms-lease-id", A)]),
        ("PUT", "/locks/job?comp=block&blockid=MQ==", &[("if-match", "*"), ("x-ms-meta-a", "1"), ("x-ms-blob-content-type", "a")]),
        ("GET", "/locks/job?comp=blocklist", &[("if-match", "*"), ("range", "bytes=0-1")]),
        ("HEAD", "/locks/job", &[("range", "bytes=0-1"), ("x-ms-range", "bytes=0-1"), ("x-ms-meta-a", "1")]),
        ("GET", "/locks/job", &[("x-ms-blob-type", "BlockBlob"), ("x-ms-lease-action", "break")]),
        ("GET", "/locks/job?comp=metadata", &[("range", "bytes=0-1")]),
        ("PUT", "/locks/job?comp=metadata", &[("content-encoding", "gzip"), ("cache-control", "no-cache"), ("x-ms-blob-content-type", "a"), ("range", "bytes=0-1")]),
        ("DELETE", "/locks/job", &[("x-ms-delete-snapshots", "only"), ("content-md5", md5)]),
    ];
    for (method, target, headers) in table {
        for header in headers {
            let answer = setup.send(method, target, &[*header], "");
            let code = answer.code();
            assert_eq!(
                code,
                (400, "UnsupportedHeader"),
                "{method} {target} {header:?}"
            );
        }
    }
    let id = ("x-ms-lease-id", A);
    #[rustfmt::skip]
    let actions = [
        ("acquire", &[("x-ms-lease-duration", "15"), id][..]),
        ("acquire", &[("x-ms-lease-duration", "15"), ("x-ms-lease-break-period", "5")]),
        ("renew", &[id, ("x-ms-lease-duration", "15")]),
        ("renew", &[id, ("x-ms-proposed-lease-id", B)]),
        ("change", &[id, ("x-ms-proposed-lease-id", B), ("x-ms-lease-duration", "15")]),
        ("release", &[id, ("x-ms-lease-break-period", "5")]),
        ("break", &[id]),
        ("break", &[("x-ms-lease-duration", "15")]),
    ];
    for (action, headers) in actions {
        let answer = setup.lease(action, headers);
        let code = answer.code();
        assert_eq!(code, (400, "UnsupportedHeader"), "{action} {headers:?}");
    }
    assert_eq!(
        setup
            .send(
                "DELETE",
                "/locks/job",
                &[("x-ms-delete-snapshots", "include")],
                ""
            )
            .status,
        202
    );
}

#[test]
fn values_that_cannot_be_honoured_are_refused() {
    let mut setup = Setup::with_blob();
    #[rustfmt::skip]
    let table = [
        ("GET", "range", "bytes=-5", "InvalidHeaderValue"),
        ("GET", "range", "bytes=5-1", "InvalidHeaderValue"),
        ("GET", "range", "bytes=0-1,3-4", "InvalidHeaderValue"),
        ("GET", "x-ms-range", "lines=0-1", "InvalidHeaderValue"),
        ("GET", "if-modified-since", "yesterday", "InvalidHeaderValue"),
        ("GET", "if-unmodified-since", "2026-01-01", "InvalidHeaderValue"),
        ("GET", "if-match", "\"a\", \"b\"", "InvalidHeaderValue"),
        ("GET", "if-none-match", "\"a\", \"b\"", "InvalidHeaderValue"),
        ("PUT", "x-ms-blob-type", "AppendBlob", "UnsupportedHeader"),
        ("PUT", "x-ms-blob-type", "PageBlob", "UnsupportedHeader"),
        ("PUT", "x-ms-blob-type", "Blob", "InvalidHeaderValue"),
    ];
    for (method, name, value, code) in table {
        let answer = setup.send(method, "/locks/job", &[(name, value)], "");
        assert_eq!(answer.code(), (400, code), "{name} {value}");
    }
    let twice = [("x-ms-lease-id", A), ("x-ms-lease-id", B)];
    let answer = setup.send("GET", "/locks/job", &twice, "");
    assert_eq!(answer.code(), (400, "InvalidHeaderValue"));
    let date = dates::http(setup.emulator.clock().wall());
    let headers = [("x-ms-date", &*date)];
    let authorization = signed(KEY, "GET", "/locks/job", &headers);
    let headers = [&headers[..], &[("authorization", &*authorization)]].concat();
    let request = request("GET", "/locks/job", &headers);
    let answer = exchange(&mut setup.stream, request.as_bytes(), false);
    assert_eq!(answer.code(), (400, "MissingRequiredHeader"));
}

#[test]
fn hash_of_content_is_checked_and_returned() {
    let mut setup = Setup::with_blob();
    let md5 = "XUFAKrxLKna5cZ2REBfFkg=="; // of "hello"
    let kind = ("x-ms-blob-type", "BlockBlob");
    let wrong = "1B2M2Y8AsgTpgAmY7PhCfg==";
    #[rustfmt::skip]
    let table = [
        ("/locks/a", "content-md5", md5, (201, "")),
        ("/locks/a", "x-ms-blob-content-md5", md5, (201, "")),
        ("/locks/a", "content-md5", wrong, (400, "Md5Mismatch")),
        ("/locks/a", "x-ms-blob-content-md5", wrong, (400, "Md5Mismatch")),
        ("/locks/a", "content-md5", "XUFAKrxL", (400, "InvalidMd5")),
        ("/locks/a", "content-md5", "?", (400, "InvalidMd5")),
        ("/locks/a?comp=block&blockid=MQ==", "content-md5", md5, (201, "")),
        ("/locks/a?comp=block&blockid=MQ==", "content-md5", wrong, (400, "Md5Mismatch")),
        ("/locks/a?comp=blocklist", "content-md5", wrong, (400, "Md5Mismatch")),
    ];
    for (target, name, value, expected) in table {
        let headers = [(name, value), kind];
        let headers = &headers[..if target == "/locks/a" { 2 } else { 1 }];
        let answer = setup.send("PUT", target, headers, "hello");
        assert_eq!(answer.code(), expected, "{target} {name} {value}");
    }
    let answer = setup.send("PUT", "/locks/a", &[kind], "hello");
    assert_eq!(answer.header("Content-MD5"), Some(md5));
    let answer = setup.send("GET", "/locks/a", &[], "");
    assert_eq!(answer.header("Content-MD5"), Some(md5));
    let answer = setup.send("GET", "/locks/a", &[("range", "bytes=1-2")], "");
    assert_eq!(answer.header("Content-MD5"), None);
    assert_eq!(answer.header("x-ms-blob-content-md5"), Some(md5));
}

#[test]
fn properties_of_content_are_stored_and_returned() {
    let mut setup = Setup::with_blob();
    let kind = ("x-ms-blob-type", "BlockBlob");
    #[rustfmt::skip]
    let names = ["Content-Type", "Content-Encoding", "Content-Language", "Cache-Control", "Content-Disposition"];
    let lower: Vec<_> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let ours: Vec<_> = lower
        .iter()
        .map(|name| format!("x-ms-blob-{name}"))
        .collect();
    for (sent, content) in [(&lower, "a"), (&ours, "b")] {
        let mut headers: Vec<_> = sent.iter().map(|name| (name.as_str(), content)).collect();
        headers.push(kind);
        assert_eq!(setup.send("PUT", "/locks/a", &headers, "x").status, 201);
        let answer = setup.send("HEAD", "/locks/a", &[], "");
        for name in names {
            assert_eq!(answer.header(name), Some(content), "{name}");
        }
    }
    let answer = setup.send(
        "GET",
        "/locks?restype=container&comp=list&prefix=a",
        &[],
        "",
    );
    for name in names {
        let element = format!("<{name}>b</{name}>");
        assert!(answer.body.contains(&element), "{}", answer.body);
    }
}

fn block_list(ids: &[(&str, &str)]) -> String {
    let ids = ids
        .iter()
        .map(|(kind, id)| format!("<{kind}>{id}</{kind}>"));
    let ids: String = ids.collect();
    format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{ids}</BlockList>")
}

const LIST: &str = "/locks/text?comp=blocklist";

fn put_block(setup: &mut Setup, id: &str, content: &str) -> u16 {
    let target = format!("/locks/text?comp=block&blockid={id}");
    setup.send("PUT", &target, &[], content).status
}

#[test]
fn blob_is_put_together_from_blocks() {
    let mut setup = Setup::with_blob();
    assert_eq!(put_block(&mut setup, "MQ==", "hello "), 201);
    assert_eq!(put_block(&mut setup, "Mg==", "there"), 201);
    assert_eq!(put_block(&mut setup, "Mg==", "world"), 201);
    assert_eq!(
        setup.send("GET", "/locks/text", &[], "").code(),
        (404, "BlobNotFound")
    );
    let answer = setup.send("GET", &format!("{LIST}&blocklisttype=all"), &[], "");
    let expected = "<BlockList><CommittedBlocks /><UncommittedBlocks><Block><Name>MQ==</Name>\
                    <Size>6</Size></Block><Block><Name>Mg==</Name><Size>5</Size></Block>\
                    </UncommittedBlocks></BlockList>";
    assert!(answer.body.ends_with(expected), "{}", answer.body);
    assert_eq!(answer.header("ETag"), None);

    let headers = [
        ("x-ms-blob-content-type", "text/plain"),
        ("x-ms-meta-a", "1"),
    ];
    let list = block_list(&[("Latest", "MQ=="), ("Uncommitted", "Mg==")]);
    assert_eq!(setup.send("PUT", LIST, &headers, &list).status, 201);
    let answer = setup.send("GET", "/locks/text", &[], "");
    assert_eq!(answer.body, "hello world");
    assert_eq!(answer.header("Content-Type"), Some("text/plain"));
    assert_eq!(answer.header("x-ms-meta-a"), Some("1"));

    // A committed block can be used again, beside a new one of the same ID.
    assert_eq!(put_block(&mut setup, "MQ==", "goodbye "), 201);
    let both = block_list(&[
        ("Committed", "MQ=="),
        ("Latest", "MQ=="),
        ("Latest", "Mg=="),
    ]);
    assert_eq!(setup.send("PUT", LIST, &[], &both).status, 201);
    assert_eq!(
        setup.send("GET", "/locks/text", &[], "").body,
        "hello goodbye world"
    );
    let answer = setup.send("GET", LIST, &[], "");
    let expected = "<BlockList><CommittedBlocks><Block><Name>MQ==</Name><Size>6</Size></Block>\
                    <Block><Name>MQ==</Name><Size>8</Size></Block><Block><Name>Mg==</Name>\
                    <Size>5</Size></Block></CommittedBlocks></BlockList>";
    assert!(answer.body.ends_with(expected), "{}", answer.body);
    assert_eq!(answer.header("x-ms-blob-content-length"), Some("19"));
}

#[test]
fn block_lists_that_are_wrong_are_refused() {
    let mut setup = Setup::with_blob();
    assert_eq!(put_block(&mut setup, "MQ==", "a"), 201);
    assert_eq!(put_block(&mut setup, "MTI=", "same length"), 201);
    let answer = setup.send("PUT", "/locks/text?comp=block&blockid=MTIzNA==", &[], "a");
    assert_eq!(answer.code(), (400, "InvalidBlobOrBlock"));
    let xml = "InvalidXmlDocument";
    let long = block_list(&vec![("Latest", "MQ=="); 50_001]);
    let table = [
        (block_list(&[("Latest", "Mg==")]), "InvalidBlockList"),
        (block_list(&[("Committed", "MQ==")]), "InvalidBlockList"),
        (block_list(&[("Newest", "MQ==")]), xml),
        ("<BlockList>".to_owned(), xml),
        (String::new(), xml),
        ("<Blocks></Blocks>".to_owned(), xml),
        (long, "BlockListTooLong"),
        // Nesting takes no stack.
        ("<BlockList>".repeat(700_000), xml),
    ];
    for (body, code) in table {
        let answer = setup.send("PUT", LIST, &[], &body);
        assert_eq!(answer.code(), (400, code), "{:.80}", body);
    }
    // A blob that is written as a whole has no blocks left.
    let kind = [("x-ms-blob-type", "BlockBlob")];
    for _ in ["new", "overwritten"] {
        assert_eq!(put_block(&mut setup, "MQ==", "a"), 201);
        assert_eq!(setup.send("PUT", "/locks/text", &kind, "whole").status, 201);
        let answer = setup.send("PUT", LIST, &[], &block_list(&[("Latest", "MQ==")]));
        assert_eq!(answer.code(), (400, "InvalidBlockList"));
    }
}

#[test]
fn blocks_of_a_leased_blob_need_the_lease_id() {
    let mut setup = Setup::with_blob();
    let id = ("x-ms-lease-id", A);
    let other = ("x-ms-lease-id", B);
    let lease = [("x-ms-lease-duration", "15"), ("x-ms-proposed-lease-id", A)];
    let list = block_list(&[("Latest", "MQ==")]);
    let writes = [
        ("/locks/job?comp=block&blockid=MQ==", "text"),
        ("/locks/job?comp=blocklist", &*list),
    ];
    for (target, body) in writes {
        let answer = setup.send("PUT", target, &[id], body);
        assert!(answer.status >= 400, "{target}: {answer:?}");
    }
    setup.lease("acquire", &lease);
    for (target, body) in writes {
        for (headers, expected) in [
            (&[][..], (412, "LeaseIdMissing")),
            (&[other], (412, "LeaseIdMismatchWithBlobOperation")),
            (&[id], (201, "")),
        ] {
            if target.contains("blocklist") && !headers.contains(&id) {
                // The list names a block that is there.
                setup.send("PUT", writes[0].0, &[id], "text");
            }
            let answer = setup.send("PUT", target, headers, body);
            assert_eq!(answer.code(), expected, "{target} {headers:?}");
        }
    }
    let answer = setup.send("GET", "/locks/job?comp=blocklist", &[other], "");
    assert_eq!(answer.code(), (412, "LeaseIdMismatchWithBlobOperation"));
    setup.emulator.clock().advance(Duration::from_secs(15));
    let answer = setup.send("PUT", writes[0].0, &[id], "text");
    assert_eq!(answer.code(), (412, "LeaseLost"));
    assert_eq!(setup.send("PUT", writes[0].0, &[], "text").status, 201);
    assert_eq!(setup.send("PUT", writes[1].0, &[], &list).status, 201);
    // The write ended the holder's right to renew.
    let answer = setup.lease("renew", &[id]);
    assert_eq!(answer.code(), (409, "LeaseIdMismatchWithLeaseOperation"));
}

/// The names in a list, prefixes with a bar before them, and the marker of the next page.
fn names(answer: &Answer) -> (Vec<String>, String) {
    let inside = |text: &str, end| text.split(end).next().unwrap_or_default().to_owned();
    let mut names = Vec::new();
    let mut rest = &*answer.body;
    while let Some(at) = rest.find("<Name>") {
        let bar = if rest[..at].ends_with("<BlobPrefix>") {
            "|"
        } else {
            ""
        };
        rest = &rest[at + "<Name>".len()..];
        names.push(bar.to_owned() + &inside(rest, "</Name>"));
    }
    let marker = answer.body.split("<NextMarker>").nth(1);
    (
        names,
        marker.map(|text| inside(text, "<")).unwrap_or_default(),
    )
}

/// All pages of a list, each joined by spaces.
fn pages(setup: &mut Setup, target: &str) -> Vec<String> {
    let mut pages = Vec::new();
    let mut marker = String::new();
    loop {
        let target = match &*marker {
            "" => target.to_owned(),
            marker => format!("{target}&marker={marker}"),
        };
        let answer = setup.send("GET", &target, &[], "");
        assert_eq!(answer.status, 200, "{answer:?}");
        let (names, next) = names(&answer);
        pages.push(names.join(" "));
        marker = next;
        if marker.is_empty() {
            return pages;
        }
    }
}

#[test]
fn list_with_a_delimiter_shows_common_prefixes_once() {
    let mut setup = Setup::with_blob();
    let kind = [("x-ms-blob-type", "BlockBlob")];
    for name in ["a/1", "a/2", "a/b/3", "a-b", "b--c--d", "b--c--e", "c"] {
        let answer = setup.send("PUT", &format!("/locks/{name}"), &kind, "");
        assert_eq!(answer.status, 201);
    }
    let list = "/locks?restype=container&comp=list";
    let table: [(&str, &[&str]); 8] = [
        ("", &["a-b a/1 a/2 a/b/3 b--c--d b--c--e c job"]),
        ("&delimiter=/", &["a-b |a/ b--c--d b--c--e c job"]),
        (
            "&delimiter=/&maxresults=2",
            &["a-b |a/", "b--c--d b--c--e", "c job"],
        ),
        ("&delimiter=/&maxresults=1&prefix=a", &["a-b", "|a/"]),
        ("&delimiter=/&prefix=a/", &["a/1 a/2 |a/b/"]),
        ("&delimiter=/&prefix=a/&maxresults=2", &["a/1 a/2", "|a/b/"]),
        ("&delimiter=--&prefix=b", &["|b--"]),
        ("&delimiter=--&prefix=b--", &["|b--c--"]),
    ];
    for (query, expected) in table {
        assert_eq!(
            pages(&mut setup, &format!("{list}{query}")),
            expected,
            "{query}"
        );
    }
    let answer = setup.send("GET", &format!("{list}&delimiter=/&prefix=a/b"), &[], "");
    let expected = "<Prefix>a/b</Prefix><Delimiter>/</Delimiter><Blobs><BlobPrefix>\
                    <Name>a/b/</Name></BlobPrefix></Blobs><NextMarker />";
    assert!(answer.body.contains(expected), "{}", answer.body);
    for include in ["snapshots", "versions", "metadata,tags", "uncommittedblobs"] {
        let answer = setup.send("GET", &format!("{list}&include={include}"), &[], "");
        assert_eq!(
            answer.code(),
            (400, "UnsupportedQueryParameter"),
            "{include}"
        );
    }
}

#[test]
fn containers_are_listed_with_leases_and_metadata() {
    let mut setup = Setup::with_blob();
    for name in ["logs", "locks-2", "other", "gone"] {
        let target = format!("/{name}?restype=container");
        setup.send("PUT", &target, &[("x-ms-meta-of", name)], "");
    }
    setup.send("DELETE", "/gone?restype=container", &[], "");
    let acquire = [
        ("x-ms-lease-action", "acquire"),
        ("x-ms-lease-duration", "-1"),
    ];
    setup.send("PUT", "/other?restype=container&comp=lease", &acquire, "");
    assert_eq!(
        pages(&mut setup, "/?comp=list"),
        ["locks locks-2 logs other"]
    );
    assert_eq!(
        pages(&mut setup, "/?comp=list&prefix=lo&maxresults=2"),
        ["locks locks-2", "logs"]
    );
    let answer = setup.send("GET", "/?comp=list&prefix=o&include=metadata", &[], "");
    let endpoint = setup.emulator.endpoint();
    for part in [
        &*format!("<EnumerationResults ServiceEndpoint=\"{endpoint}/\"><Prefix>o</Prefix>"),
        "<Etag>\"0x8D",
        "<LeaseStatus>locked</LeaseStatus><LeaseState>leased</LeaseState>\
         <LeaseDuration>infinite</LeaseDuration><DefaultEncryptionScope>",
        "</Properties><Metadata><of>other</of></Metadata></Container></Containers><NextMarker />",
    ] {
        assert!(answer.body.contains(part), "{part} in {}", answer.body);
    }
    let answer = setup.send("GET", "/?comp=list&include=deleted", &[], "");
    assert_eq!(answer.code(), (400, "UnsupportedQueryParameter"));
}
