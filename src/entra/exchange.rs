//! Requests for tokens: sent until they are answered, and how what they send is written.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use time::OffsetDateTime;
use zeroize::{Zeroize as _, Zeroizing};

use super::address::Address;
use super::token::TokenRequest;
use crate::error::Error;
use crate::http::agent::Transport;
use crate::http::message::{Reply, Request, encode_query};
use crate::http::proxy::Proxy;
use crate::sync::{Condvar, Mutex};
use crate::time::clock::Clock;
use crate::time::jitter::Jitter;
use crate::time::retry::Retry;
use crate::time::tick::{Moment, Tick};

/// The longest that one attempt may take. An endpoint that is being updated is silent for about a
/// minute; one that answers at all does so within seconds.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(30);

/// The least delay after the first failure, and the longest. Endpoints of managed identities ask
/// for at least a second, and for ever longer delays.
const DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(16));

/// A host that gives tokens, and the path of its URL.
pub(crate) struct Endpoint {
    /// Or why there is no way to it, such as a proxy that cannot be.
    transport: Result<Transport, Error>,
    origin: String,
    host: String,
    /// Path and query.
    pub(crate) target: String,
}

impl Endpoint {
    /// An endpoint of this machine or its platform, never reached through a proxy.
    pub(crate) fn local(address: &Address) -> Self {
        Self::new(address, true, &[])
    }

    /// An endpoint elsewhere. `roots`: the certificates to trust besides the usual ones, in DER.
    pub(crate) fn remote(address: &Address, roots: &[Vec<u8>]) -> Self {
        Self::new(address, address.loopback, roots)
    }

    fn new(address: &Address, direct: bool, roots: &[Vec<u8>]) -> Self {
        let origin = address.origin.clone();
        let proxy = match direct {
            true => Ok(None),
            false => Proxy::from_env(&origin),
        };
        let transport = proxy.and_then(|proxy| Transport::new(origin.clone(), proxy, roots));
        let host = transport.as_ref().map_or(&*origin, Transport::host);
        Self {
            host: host.to_owned(),
            transport,
            origin,
            target: address.target.clone(),
        }
    }

    /// Scheme, host and port.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// Host and port, as errors show them.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Sends one request, and returns what was answered within `timeout`.
    pub(crate) fn send(&self, request: &Request<'_>, timeout: Duration) -> Result<Reply, Error> {
        let transport = self.transport.as_ref().map_err(Error::clone)?;
        transport.send(request, None, timeout)
    }

    /// Sends what `request` makes until it is answered, or the caller's time is up. `read` makes
    /// something of each reply; it gets the wall-clock time before the request was sent.
    pub(crate) fn ask<'a, T>(
        &self,
        token: &TokenRequest,
        mut request: impl FnMut() -> Result<Request<'a>, Error>,
        mut read: impl FnMut(&Reply, OffsetDateTime) -> Result<T, Error>,
    ) -> Result<T, Error> {
        until_answered(token, |timeout| {
            let request = request()?;
            let sent = token.clock.wall();
            let mut reply = self.send(&request, timeout)?;
            if reply.status != 200 {
                mask(&mut reply.body, &request);
            }
            let result = read(&reply, sent);
            reply.body.zeroize();
            result.map_err(|error| error.with_host(self.host()))
        })
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.origin())
    }
}

/// What proves to an endpoint who asks, by the names of headers and of a form's fields.
const PROOFS: [&str; 4] = [
    "authorization",
    "x-identity-header",
    "client_secret",
    "client_assertion",
];

const MASK: &[u8; 8] = b"REDACTED";

/// Masks the proofs in `request` where a refusal repeats them: errors show its text.
fn mask(body: &mut Vec<u8>, request: &Request<'_>) {
    let headers = request.headers.iter();
    let headers = headers.map(|(name, value)| (&**name, value.as_str()));
    let form = std::str::from_utf8(request.body).unwrap_or_default();
    let fields = form.split('&').filter_map(|field| field.split_once('='));
    for (_, value) in headers
        .chain(fields)
        .filter(|(name, _)| PROOFS.contains(name))
    {
        let proof = value.rsplit(' ').next().unwrap_or_default();
        let plain = Zeroizing::new(percent_decode_str(proof).collect::<Vec<u8>>());
        for proof in [proof.as_bytes(), &plain]
            .into_iter()
            .filter(|proof| !proof.is_empty())
        {
            let mut from = 0;
            let next = |body: &[u8], from: usize| {
                let mut parts = body[from..].windows(proof.len());
                parts.position(|part| part == proof).map(|at| from + at)
            };
            while let Some(at) = next(body, from) {
                body.splice(at..at + proof.len(), *MASK);
                from = at + MASK.len();
            }
        }
    }
}

/// Repeats `attempt`, which gets the time that it may take, until it succeeds, is refused, or the
/// caller's time is up. Asking for a token twice does no harm.
fn until_answered<T>(
    token: &TokenRequest,
    mut attempt: impl FnMut(Duration) -> Result<T, Error>,
) -> Result<T, Error> {
    let clock = &token.clock;
    let start = clock.now();
    let limit = token.deadline.since(start);
    let mut retry = Retry::started(limit, start);
    let mut jitter = Jitter::new(clock.moment().real.as_nanos());
    let mut least = DELAYS.0;
    let mut before = None;
    loop {
        let timeout = retry.attempt(clock.now(), LONGEST_ATTEMPT.min(limit / 2));
        let error = match attempt(timeout) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let failed = clock.now();
        let delay = error.retry_after().unwrap_or_default().max(least);
        match retry.failed(failed, error.delivery(), true, Some(delay), jitter.next()) {
            Some(due) => {
                log::debug!("no token yet, attempt {}: {error}", retry.attempts());
                *token.failure.lock() = Some(error.clone());
                wait_until(clock, due);
            }
            None => return Err(retry.conclude(failed, error, before)),
        }
        least = (least * 2).min(DELAYS.1);
        before = Some(error);
    }
}

fn wait_until(clock: &Clock, due: Tick) {
    let (lock, never) = (Mutex::new(()), Arc::new(Condvar::new()));
    let mut guard = lock.lock();
    while clock.now() < due {
        let until = Moment {
            lease: due,
            ..Moment::NEVER
        };
        clock.wait(&never, &mut guard, until);
    }
}

/// Adds a parameter to a target that may have some already.
pub(crate) fn add(target: &mut String, name: &str, value: &str) {
    target.push(if target.contains('?') { '&' } else { '?' });
    target.push_str(name);
    target.push('=');
    target.push_str(&encode_query(value));
}

/// Writes the fields of a form. They hold secrets.
pub(crate) fn form(fields: &[(&str, &str)]) -> Zeroizing<String> {
    // In one piece: a buffer that grows would leave parts behind.
    let length = fields
        .iter()
        .map(|(name, value)| name.len() + 3 * value.len() + 2)
        .sum();
    let mut form = Zeroizing::new(String::with_capacity(length));
    for (name, value) in fields {
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        form.push_str(&Zeroizing::new(encode_query(value)));
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proof_that_a_refusal_repeats_is_masked() {
        let form = form(&[("client_id", "1f2e"), ("client_secret", "a+/=b c")]);
        let mut request = Request::new(crate::http::message::Method::Post, "/".to_owned())
            .header("authorization", "Bearer job-t0ken")
            .header("x-identity-header", "h3ader");
        request.body = form.as_bytes();
        let rows = [
            ("you sent a+/=b c and 1f2e", "you sent REDACTED and 1f2e"),
            ("client_secret=a%2B%2F%3Db%20c", "client_secret=REDACTED"),
            ("Bearer job-t0ken, job-t0ken", "Bearer REDACTED, REDACTED"),
            ("h3ader", "REDACTED"),
            ("", ""),
        ];
        for (said, shown) in rows {
            let mut body = said.as_bytes().to_vec();
            mask(&mut body, &request);
            assert_eq!(String::from_utf8_lossy(&body), shown);
        }
    }

    #[test]
    fn form_is_percent_encoded() {
        let fields = [
            ("scope", "https://a/.default"),
            ("client_secret", "~.-+/= é"),
        ];
        assert_eq!(
            *form(&fields),
            "scope=https%3A%2F%2Fa%2F.default&client_secret=~.-%2B%2F%3D%20%C3%A9"
        );
    }
}
