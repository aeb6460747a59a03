use super::*;
use std::net::Shutdown;

fn assert_send_sync<T: Send + Sync>() {}

#[test]
fn emulator_is_send_and_sync() {
    assert_send_sync::<Emulator>();
    assert_send_sync::<EmulatorBuilder>();
}

#[test]
fn requests_share_a_connection_and_are_counted() {
    let mut setup = Setup::with_blob();
    for _ in 0..3 {
        assert_eq!(setup.send("GET", "/locks/job", &[], "").status, 200);
    }
    assert_eq!(setup.emulator.requests(), 5);
    assert_eq!(setup.emulator.connections(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut setup = Setup::new();
    let both = request("GET", "/locks/1", &[]) + &request("DELETE", "/locks/2", &[]);
    let first = exchange(&mut setup.stream, both.as_bytes(), false);
    assert_eq!(first.status, 404);
    assert_eq!(receive(&mut setup.stream, false).status, 401);
}

#[test]
fn request_in_pieces_is_put_together() {
    let mut setup = Setup::new();
    let request = request("PUT", "/locks/job", &[("Content-Length", "5")]) + "hello";
    for piece in request.as_bytes().chunks(7) {
        setup.stream.write_all(piece).expect("the emulator reads");
    }
    assert_eq!(receive(&mut setup.stream, false).status, 401);
}

#[test]
fn client_that_waits_is_told_to_send_its_body() {
    let mut setup = Setup::new();
    let headers = [("Content-Length", "5"), ("Expect", "100-continue")];
    let request = request("PUT", "/locks/job", &headers);
    setup
        .stream
        .write_all(request.as_bytes())
        .expect("the emulator reads");
    let told = read_until(&mut setup.stream, "\r\n\r\n");
    assert_eq!(told, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(exchange(&mut setup.stream, b"hello", false).status, 401);
}

/// Sends bytes on a connection of their own, and returns everything that comes back until it ends.
fn answers_to(emulator: &Emulator, bytes: &[u8]) -> String {
    let mut stream = connect(emulator);
    // The emulator may stop reading at any point.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answers = Vec::new();
    let _ = stream.read_to_end(&mut answers);
    String::from_utf8_lossy(&answers).into_owned()
}

#[test]
fn garbage_is_refused_and_ends_the_connection() {
    let setup = Setup::new();
    let good = request("GET", "/locks/job", &[]);
    let garbage: [&[u8]; 9] = [
        b"\0\x01\x02\xff\xfe\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://localhost/a HTTP/1.1\r\n\r\n",
        b"GET /%ff?%ff=%ff HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nname: \xff\xfe\r\n\r\n",
        b"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ];
    for bytes in garbage {
        let answers = answers_to(
            &setup.emulator,
            &[good.as_bytes(), bytes, good.as_bytes()].concat(),
        );
        let first = answers.find("HTTP/1.1 404 The specified resource does not exist.\r\n");
        let second = answers.find("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n");
        assert_eq!(first, Some(0), "{answers:?}");
        assert!(
            second.is_some() && answers.ends_with("Connection: close\r\n\r\n"),
            "{answers:?}"
        );
        assert_eq!(answers.matches("HTTP/1.1").count(), 2, "{answers:?}");
    }
}

#[test]
fn any_bytes_leave_the_emulator_standing() {
    let mut setup = Setup::new();
    let template = request("PUT", "/locks/job?comp=lease", &[("Content-Length", "0")]);
    let mut state = 1_u64;
    for _ in 0..200 {
        let mut bytes = template.clone().into_bytes();
        for _ in 0..4 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let place = (state >> 33) as usize % bytes.len();
            bytes[place] = (state >> 24) as u8;
        }
        answers_to(&setup.emulator, &bytes);
    }
    let answer = setup.send("PUT", "/locks?restype=container", &[], "");
    assert_eq!(answer.status, 201);
}

#[test]
fn too_large_headers_are_refused() {
    let setup = Setup::new();
    let long = "x".repeat(70_000);
    let many = [("a", "b"); 200];
    for headers in [&[("name", &*long)][..], &many] {
        let request = request("GET", "/locks/job", headers);
        let answers = answers_to(&setup.emulator, request.as_bytes());
        let refusal = "HTTP/1.1 431 Request Header Fields Too Large\r\n";
        assert!(answers.starts_with(refusal), "{answers:?}");
        assert!(
            answers.ends_with("Connection: close\r\n\r\n"),
            "{answers:?}"
        );
    }
}

#[test]
fn bodies_of_unknown_or_excessive_length_are_refused() {
    let mut setup = Setup::new();
    let long = (8 * 1024 * 1024 + 1).to_string();
    let table = [
        (("Host", "again"), (411, "MissingContentLengthHeader")),
        (
            ("Transfer-Encoding", "chunked"),
            (411, "MissingContentLengthHeader"),
        ),
        (("Content-Length", &*long), (413, "RequestBodyTooLarge")),
        (
            ("Content-Length", "99999999999999999999999"),
            (413, "RequestBodyTooLarge"),
        ),
    ];
    for (header, expected) in table {
        setup.stream = connect(&setup.emulator);
        let request = request("PUT", "/locks/job", &[header]);
        let answer = exchange(&mut setup.stream, request.as_bytes(), false);
        assert_eq!(answer.code(), expected);
        assert_eq!(answer.header("Connection"), Some("close"));
        assert_eq!(setup.stream.read(&mut [0]).expect("it ends well"), 0);
    }
}

#[test]
fn connection_ends_when_the_client_asks() {
    let mut setup = Setup::new();
    let request = request("GET", "/locks/job", &[("Connection", "Close")]);
    let answer = exchange(&mut setup.stream, request.as_bytes(), false);
    assert_eq!(answer.header("Connection"), Some("close"));
    assert_eq!(setup.stream.read(&mut [0]).expect("it ends well"), 0);
}

#[test]
fn drop_closes_connections_and_the_port() {
    let setup = Setup::with_blob();
    let Setup {
        emulator,
        mut stream,
        ..
    } = setup;
    let endpoint = emulator.endpoint();
    let address = endpoint.split('/').nth(2).expect("an endpoint has a host");
    drop(emulator);
    // An end or a reset, but no timeout.
    let read = stream.read(&mut [0]).map_err(|error| error.kind());
    assert!(
        matches!(read, Ok(0) | Err(io::ErrorKind::ConnectionReset)),
        "{read:?}"
    );
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn emulator_listens_on_loopback_addresses_only() {
    let start = |address: &str| {
        let address = address.parse().expect("an address");
        Emulator::builder()
            .bind(address)
            .start()
            .map_err(|error| error.kind())
    };
    for address in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"] {
        let kind = start(address).map(drop);
        assert_eq!(kind, Err(io::ErrorKind::InvalidInput), "{address}");
    }
    let emulator = start("127.0.0.1:0").expect("a loopback port is free");
    assert!(emulator.endpoint().starts_with("http://127.0.0.1:"));
}

#[test]
fn connection_string_names_endpoint_account_and_key() {
    let emulator = Emulator::start().expect("a loopback port is free");
    let expected = format!(
        "DefaultEndpointsProtocol=http;AccountName={};AccountKey={};BlobEndpoint={};",
        emulator.account(),
        emulator.key(),
        emulator.endpoint()
    );
    assert_eq!(emulator.connection_string(), expected);
}
