//! What the fuzz targets feed to the emulator, without a socket.

use std::net::Ipv4Addr;

use super::Clock;
use super::auth::{ACCOUNT, Authorizer};
use super::request::Target;
use super::server::{Server, Step};

/// How many requests of one connection are answered.
const REQUESTS: usize = 32;

/// The bytes that come from one connection, to an emulator that accepts `Bearer s`.
///
/// # Panics
///
/// If an answer is not an HTTP reply.
pub fn connection(data: &[u8]) {
    let clock = Clock::frozen();
    let authorizer = Authorizer::new(true);
    authorizer.bearers.expect("s".into(), clock.now());
    let server = Server::detached(clock, authorizer);
    let mut rest = data;
    for _ in 0..REQUESTS {
        let Step::Answered {
            used,
            answer,
            is_last,
        } = server.step(rest, Ipv4Addr::LOCALHOST.into())
        else {
            return;
        };
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut reply = httparse::Response::new(&mut headers);
        let head = reply.parse(&answer).expect("an HTTP reply");
        assert!(head.is_complete(), "{}", answer.escape_ascii());
        let length = reply
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let is_head = rest.starts_with(b"HEAD ");
        if let Some(length) = length
            && !is_head
        {
            let length = str::from_utf8(length.value).expect("digits");
            assert_eq!(length.parse(), Ok(answer.len() - head.unwrap()));
        }
        if is_last {
            return;
        }
        assert!(used > 0);
        rest = &rest[used..];
    }
}

/// Checks that the blob at this path has this name.
///
/// # Panics
///
/// If it has another name.
pub(crate) fn check_path(path: &str, key: &str) {
    let path = path.strip_prefix("/account").expect("the account");
    let path = format!("/{ACCOUNT}{path}");
    let Ok(Target::Blob("locks", name)) = Target::parse(&path, ACCOUNT) else {
        panic!("{path} is refused");
    };
    assert_eq!(name, key);
}
