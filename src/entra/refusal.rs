//! PURE: what endpoints say when they refuse a token.

use time::OffsetDateTime;

use super::reply::Object;
use crate::error::{Error, ErrorKind};
use crate::http::message::Reply;
use crate::text::is_invisible;

/// The most of a foreign text that an error shows, in characters.
const MAX_TEXT: usize = 300;

/// A refusal by Entra ID or an endpoint that speaks for it.
#[derive(Default)]
pub(crate) struct Refusal {
    /// Such as `invalid_client`.
    error: String,
    /// The number after `AADSTS`.
    pub(crate) code: Option<u32>,
    /// The first line of the description.
    pub(crate) text: String,
    correlation: Option<String>,
}

impl Refusal {
    pub(crate) fn read(body: &[u8]) -> Self {
        let Some(object) = Object::read(body) else {
            return Self::default();
        };
        let text = ["error_description", "message", "Message"];
        let text = text
            .iter()
            .find_map(|name| object.text(name))
            .unwrap_or_default();
        let listed = object
            .get("error_codes")
            .and_then(|codes| codes.get(0)?.as_u64());
        Self {
            error: first_line(object.text("error").unwrap_or_default()),
            code: aadsts(text).or(listed.and_then(|code| u32::try_from(code).ok())),
            text: first_line(text),
            correlation: object.text("correlation_id").map(first_line),
        }
    }

    /// What the endpoint says itself.
    pub(crate) fn words(&self) -> String {
        match (&*self.error, &*self.text) {
            ("", "") => "the endpoint gives no reason".to_owned(),
            (error, "") => error.to_owned(),
            ("", text) => text.to_owned(),
            (error, text) => format!("{error}: {text}"),
        }
    }

    /// The error for `reply`, which is this refusal. `detail`: what it means.
    pub(crate) fn into_error(self, reply: &Reply, sent: OffsetDateTime, detail: &str) -> Error {
        let kind = kind_of(reply.status);
        let detail = match reply.status {
            300..=399 => {
                "the reply is a redirect, which is not followed, to protect the credential"
            }
            _ => detail,
        };
        let code = self.code.map(|code| format!("AADSTS{code}"));
        let trace = ["x-vss-e2eid", "x-msedge-ref", "x-github-request-id"];
        let trace = || {
            trace
                .iter()
                .find_map(|name| reply.header(name))
                .map(first_line)
        };
        let id = self.correlation.or_else(trace);
        let asked = reply.retry_after(sent);
        let error = Error::new(kind, detail).with_reply(reply.status, code, id, asked);
        match kind {
            ErrorKind::Protocol => error.permanent(),
            _ => error,
        }
    }
}

/// The error for a reply that is not a success, read as far as possible.
pub(crate) fn read_error(reply: &Reply, sent: OffsetDateTime) -> Error {
    let refusal = Refusal::read(&reply.body);
    let detail = match refusal.code.and_then(meaning) {
        Some(meaning) => meaning.to_owned(),
        None => refusal.words(),
    };
    refusal.into_error(reply, sent, &detail)
}

fn kind_of(status: u16) -> ErrorKind {
    match status {
        429 | 503 => ErrorKind::Throttled,
        // An endpoint of a managed identity that is being updated says 404 or 410.
        408 | 410 | 500..=599 => ErrorKind::Service,
        400..=499 => ErrorKind::Auth,
        _ => ErrorKind::Protocol,
    }
}

/// What a code of Entra ID means, and what to do.
pub(crate) fn meaning(code: u32) -> Option<&'static str> {
    Some(match code {
        7_000_215 => {
            "the client secret is wrong; use the secret's value, not its ID, without a newline at \
             its end"
        }
        7_000_222 => "the client secret has expired; make a new one",
        700_016 => "there is no such application in this tenant; check the client and tenant IDs",
        90_002 | 900_023 => "there is no such tenant; check the tenant ID",
        700_027 => {
            "the application does not know this certificate; upload it to the application, and \
             check the client ID"
        }
        700_024 => {
            "the assertion is outside the time it is valid for; check this machine's clock, and \
             whether the token file is still written anew"
        }
        70_021 | 700_211 | 700_212 | 700_213 => {
            "no federated credential of the application matches; compare its issuer, audience and \
             subject with the token's; a new one takes some minutes to be known"
        }
        7_002_138 => {
            "no federated credential of the application matches: its subject differs from the \
             token's in upper and lower case alone"
        }
        500_011 | 70_011 => "there is no such resource; check the audience",
        53_003 => "a conditional access policy forbids it; ask the directory's administrator",
        50_076 | 50_079 => "the account needs another factor; sign in again",
        50_173 | 700_082 | 700_084 => "the sign-in has expired; sign in again",
        _ => return None,
    })
}

/// The code in `AADSTS7000215: …`.
pub(crate) fn aadsts(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("AADSTS")?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// The first line of a foreign text, short, without what a screen would act on or should not show.
pub(crate) fn first_line(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let line = lines
        .into_iter()
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    let line: String = line
        .chars()
        .filter(|c| !is_invisible(*c))
        .take(MAX_TEXT)
        .collect();
    redacted(&line)
}

/// Masks what looks like a token or a secret: a JWT, or a long word.
fn redacted(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "._~+=-".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        match word.find("eyJ") {
            Some(at) => out.extend([&word[..at], "REDACTED"]),
            None if word.len() > 64 => out.push_str("REDACTED"),
            None => out.push_str(word),
        }
        rest = behind;
        if end == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::tests::reply;

    const ENTRA: &str = r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. Ensure the secret being sent is the value.\r\nTrace ID: 1\r\nCorrelation ID: 2","error_codes":[7000215],"timestamp":"2026-01-07 12:00:00Z","trace_id":"1","correlation_id":"0a1b"}"#;

    fn error(status: u16, body: &str) -> Error {
        read_error(&reply(status, &[], body), OffsetDateTime::UNIX_EPOCH)
    }

    #[test]
    fn refusal_of_entra_says_what_to_do_with_code_and_correlation_id() {
        let error = error(401, ENTRA);
        assert_eq!(error.kind(), ErrorKind::Auth);
        assert_eq!(error.service_code(), Some("AADSTS7000215"));
        assert_eq!(error.request_id(), Some("0a1b"));
        assert_eq!(
            error.to_string(),
            "AADSTS7000215 (401): the client secret is wrong; use the secret's value, not its ID, \
             without a newline at its end"
        );
    }

    #[test]
    fn every_known_code_has_a_meaning() {
        for code in [
            7_000_215, 7_000_222, 700_016, 90_002, 900_023, 700_027, 700_024, 70_021, 700_211,
            700_212, 700_213, 7_002_138, 500_011, 70_011, 53_003, 50_076, 50_079, 50_173, 700_082,
        ] {
            let body = format!(r#"{{"error":"x","error_description":"AADSTS{code}: text"}}"#);
            let error = error(400, &body);
            assert_eq!(error.service_code(), Some(&*format!("AADSTS{code}")));
            assert!(!error.to_string().contains("text"), "{error}");
        }
    }

    #[test]
    fn unknown_refusal_is_shown_in_its_own_words() {
        let rows = [
            (
                r#"{"error":"x","error_description":"AADSTS1: one\r\ntwo"}"#,
                "AADSTS1 (400): x: AADSTS1: one",
            ),
            (r#"{"error":"x","error_codes":[1]}"#, "AADSTS1 (400): x"),
            (
                r#"{"error":"invalid_request"}"#,
                "invalid_request (status 400)",
            ),
            (
                r#"{"statusCode":400,"message":"No MSI found"}"#,
                "No MSI found (status 400)",
            ),
            ("<html>", "the endpoint gives no reason (status 400)"),
            (
                r#"{"error":{"code":"x"}}"#,
                "the endpoint gives no reason (status 400)",
            ),
            (r#"{"error":"\u001b[31mred\u202e"}"#, "[31mred (status 400)"),
        ];
        for (body, text) in rows {
            assert_eq!(error(400, body).to_string(), text);
        }
    }

    #[test]
    fn status_decides_whether_it_is_asked_again() {
        let rows = [
            (400, ErrorKind::Auth, false),
            (401, ErrorKind::Auth, false),
            (408, ErrorKind::Service, true),
            (410, ErrorKind::Service, true),
            (429, ErrorKind::Throttled, true),
            (500, ErrorKind::Service, true),
            (503, ErrorKind::Throttled, true),
            (302, ErrorKind::Protocol, false),
            (204, ErrorKind::Protocol, false),
            (600, ErrorKind::Protocol, false),
        ];
        for (status, kind, again) in rows {
            let error = error(status, "");
            assert_eq!(
                (error.kind(), error.is_transient()),
                (kind, again),
                "{status}"
            );
        }
    }

    #[test]
    fn what_looks_like_a_token_is_masked() {
        let long = "a".repeat(65);
        let rows = [
            ("token=eyJ0eXAi.x", "token=REDACTED".to_owned()),
            ("key eyJ0eXAi.eyJhdWQi.c2ln!", "key REDACTED!".to_owned()),
            (&*long, "REDACTED".to_owned()),
            ("\n  one, two \nthree", "one, two".to_owned()),
            (
                "2d5c1b0a-9f8e-4d3c-8b7a-112233445566 é…",
                "2d5c1b0a-9f8e-4d3c-8b7a-112233445566 é…".to_owned(),
            ),
            ("", String::new()),
        ];
        for (text, wanted) in rows {
            assert_eq!(first_line(text), wanted);
        }
        assert_eq!(first_line(&"ab ".repeat(1000)).chars().count(), MAX_TEXT);
    }
}
