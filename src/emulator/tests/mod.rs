//! The emulator as clients meet it: over sockets.

mod auth;
mod connection;
mod form;
mod operations;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::azure::sign;
use crate::time::dates;

const VERSION: &str = "2021-04-10";

/// An emulator whose clock stands still, and a signed connection to it.
struct Setup {
    emulator: Emulator,
    stream: TcpStream,
    version: &'static str,
}

/// A reply, taken apart.
#[derive(Debug)]
struct Answer {
    status: u16,
    reason: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    fn code(&self) -> (u16, &str) {
        (
            self.status,
            self.header("x-ms-error-code").unwrap_or_default(),
        )
    }

    fn names(&self) -> Vec<&str> {
        self.headers.iter().map(|(name, _)| name.as_str()).collect()
    }
}

impl Setup {
    fn new() -> Self {
        Self::with(|builder| builder)
    }

    fn with(set: impl FnOnce(EmulatorBuilder) -> EmulatorBuilder) -> Self {
        let builder = Emulator::builder().clock(Clock::frozen());
        let emulator = set(builder).start().expect("a loopback port is free");
        let stream = connect(&emulator);
        Self {
            emulator,
            stream,
            version: VERSION,
        }
    }

    /// With the container `locks` and the blob `job` in it.
    fn with_blob() -> Self {
        let mut setup = Self::new();
        assert_eq!(
            setup
                .send("PUT", "/locks?restype=container", &[], "")
                .status,
            201
        );
        let kind = [("x-ms-blob-type", "BlockBlob")];
        assert_eq!(setup.send("PUT", "/locks/job", &kind, "").status, 201);
        setup
    }

    /// Sends a signed request for a path behind the account.
    fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let date = dates::http(self.emulator.clock().wall());
        let mut headers = headers.to_vec();
        headers.push(("x-ms-date", &date));
        headers.push(("x-ms-version", self.version));
        let length = body.len().to_string();
        if method == "PUT" {
            headers.push(("content-length", &length));
        }
        let authorization = signed(KEY, method, target, &headers);
        headers.push(("authorization", &authorization));
        let request = request(method, target, &headers) + body;
        exchange(&mut self.stream, request.as_bytes(), method == "HEAD")
    }

    fn lease(&mut self, action: &str, headers: &[(&str, &str)]) -> Answer {
        let mut headers = headers.to_vec();
        headers.push(("x-ms-lease-action", action));
        self.send("PUT", "/locks/job?comp=lease", &headers, "")
    }
}

fn connect(emulator: &Emulator) -> TcpStream {
    let address = emulator.endpoint();
    let address = address.split('/').nth(2).expect("an endpoint has a host");
    let stream = TcpStream::connect(address).expect("the emulator listens");
    // A hang fails a test instead of stopping all.
    let timeout = stream.set_read_timeout(Some(Duration::from_secs(20)));
    timeout.expect("the timeout is not zero");
    stream
}

/// The `Authorization` of a request. Header names are in lower case, queries need no decoding.
fn signed(key: &str, method: &str, target: &str, headers: &[(&str, &str)]) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let path = format!("/{ACCOUNT}{path}");
    let headers = headers.iter().copied();
    let signed = sign::string_to_sign(ACCOUNT, method, &path, query, headers);
    let key = STANDARD.decode(key).expect("a key is base64");
    let signature = sign::signature(&key, &signed);
    format!("SharedKey {ACCOUNT}:{signature}")
}

/// The head of a request.
fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> String {
    let headers = headers.iter();
    let headers: String = headers
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("{method} /{ACCOUNT}{target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

fn exchange(stream: &mut TcpStream, request: &[u8], is_head: bool) -> Answer {
    stream.write_all(request).expect("the emulator reads");
    receive(stream, is_head)
}

/// Reads one reply and nothing behind it.
fn receive(stream: &mut TcpStream, is_head: bool) -> Answer {
    let head = read_until(stream, "\r\n\r\n");
    let mut lines = head.trim_end().split("\r\n");
    let mut status = lines.next().unwrap_or_default().splitn(3, ' ');
    assert_eq!(status.next(), Some("HTTP/1.1"), "{head:?}");
    let mut answer = Answer {
        status: status
            .next()
            .and_then(|code| code.parse().ok())
            .expect("a status"),
        reason: status.next().unwrap_or_default().to_owned(),
        headers: Vec::new(),
        body: String::new(),
    };
    let headers = lines.map(|line| line.split_once(": ").expect("a header has a name"));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    answer.headers = headers.collect();
    if is_head || answer.status == 304 {
        return answer;
    }
    if let Some(length) = answer.header("Content-Length") {
        let length = length.parse().expect("a length is a number");
        answer.body = read_exact(stream, length);
    } else {
        assert_eq!(answer.header("Transfer-Encoding"), Some("chunked"));
        loop {
            let size = read_until(stream, "\r\n");
            let size = usize::from_str_radix(size.trim_end(), 16).expect("a chunk has a size");
            answer.body += &read_exact(stream, size);
            assert_eq!(read_exact(stream, 2), "\r\n");
            if size == 0 {
                break;
            }
        }
    }
    answer
}

fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let mut seen = [0; 1024];
        let length = stream.peek(&mut seen).expect("the emulator answers");
        assert_ne!(
            length, 0,
            "the emulator closed the connection after {text:?}"
        );
        let ahead = text.clone() + &String::from_utf8_lossy(&seen[..length]);
        let wanted = ahead.find(end).map_or(ahead.len(), |at| at + end.len());
        text += &read_exact(stream, wanted - text.len());
    }
    text
}

fn read_exact(stream: &mut TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).expect("the emulator answers");
    String::from_utf8(bytes).expect("an answer is UTF-8")
}
