//! PURE: whether a reply comes from the service, and what an error reply means.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use time::OffsetDateTime;

use super::challenge::Challenge;
use super::xml::{self, text_of};
use crate::entra::identity::TokenIdentity;
use crate::error::{Error, ErrorKind, LossReason};
use crate::http::message::Reply;
use crate::text::is_invisible;
use crate::time::dates;

/// Rejects a reply that does not come from the service but from a proxy, a web filter, a login page
/// or another server. None of those sends the service's headers.
///
/// The answer of a gateway that cannot reach the service (429, 5xx) is transient, like the
/// service's own failures. Everything else is final.
pub(crate) fn check_is_service(reply: &Reply, sent: OffsetDateTime) -> Result<(), Error> {
    // The service's front end omits the version if the credential is malformed.
    let service_headers = ["x-ms-request-id", "x-ms-version", "x-ms-error-code"];
    if service_headers
        .iter()
        .any(|name| reply.header(name).is_some())
    {
        return Ok(());
    }
    let server = match printable(reply.header("server").unwrap_or_default(), 60) {
        server if server.is_empty() => String::new(),
        server => format!(" (Server: {server})"),
    };
    let answered_instead =
        format!("something between this machine and Azure answered instead{server}");
    let (kind, detail) = match reply.status {
        407 => {
            let text = "the proxy asks for credentials; put them into the proxy's URL, as in \
                        http://USER:PASSWORD@HOST:PORT";
            (ErrorKind::Transport, text.to_owned())
        }
        429 | 503 => (ErrorKind::Throttled, answered_instead),
        408 | 500 | 502 | 504 | 520..=530 => (ErrorKind::Service, answered_instead),
        401 | 403 | 451 | 511 => (ErrorKind::Protocol, answered_instead),
        300..=399 => {
            let text = format!(
                "this is not Azure Blob Storage: the reply is a redirect{server}, which is not \
                 followed, to protect the credential; check endpoint and proxy"
            );
            (ErrorKind::Protocol, text)
        }
        _ => {
            let text = format!(
                "this is not Azure Blob Storage: the reply has no x-ms headers{server}; check \
                 endpoint and proxy"
            );
            (ErrorKind::Protocol, text)
        }
    };
    let transient = matches!(kind, ErrorKind::Throttled | ErrorKind::Service);
    let error =
        Error::new(kind, detail).with_reply(reply.status, None, None, reply.retry_after(sent));
    let error = if transient { error } else { error.permanent() };
    // A redirect or a proxy that requires credentials did not pass the request on.
    Err(match reply.status {
        300..=399 | 407 => error,
        _ => error.marked_foreign(),
    })
}

/// How a request was authorized, for what to say if that was not accepted.
#[derive(Debug)]
pub(crate) struct Used<'a> {
    /// What to check.
    pub(crate) hint: Cow<'a, str>,
    /// Whose token it carried.
    pub(crate) identity: Option<&'a TokenIdentity>,
}

impl<'a> From<&'a str> for Used<'a> {
    fn from(hint: &'a str) -> Self {
        Self {
            hint: hint.into(),
            identity: None,
        }
    }
}

/// Whether the service did not accept the token that the request carried. Versions before 2019-12-12
/// and emulators say 403.
pub(crate) fn is_token_refused(reply: &Reply) -> bool {
    match reply.status {
        401 => true,
        403 => reply_code(reply).as_deref() == Some("AuthenticationFailed"),
        _ => false,
    }
}

/// The claims that the service demands of the next token.
pub(crate) fn demanded_claims(reply: &Reply) -> Option<String> {
    Challenge::parse(reply.header("www-authenticate")?).claims
}

/// The error for a reply with a status of 400 or more.
///
/// `sent`: the wall clock when the request was sent; compared with the reply's date, it shows
/// whether the clock is off.
pub(crate) fn read_error<'a>(
    reply: &Reply,
    sent: OffsetDateTime,
    used: impl Into<Used<'a>>,
) -> Error {
    let used = used.into();
    let code = reply_code(reply);
    let request_id = reply.header("x-ms-request-id").map(str::to_owned);
    let retry_after = reply.retry_after(sent);
    let (kind, detail) = meaning(reply, code.as_deref(), sent, &used);
    let error = match loss(code.as_deref()) {
        Some(reason) if kind == ErrorKind::LeaseLost => Error::lost(reason),
        _ => Error::new(kind, detail),
    };
    error.with_reply(reply.status, code, request_id, retry_after)
}

/// The service's own code.
fn reply_code(reply: &Reply) -> Option<String> {
    // HEAD replies have no body, so only the header is sure to have the code.
    match reply.header("x-ms-error-code") {
        Some(code) => Some(code).filter(|code| is_code(code)).map(str::to_owned),
        None => error_element(&reply.body, "Code").filter(|code| is_code(code)),
    }
}

/// The loss that a code means to the holder of the lease. A missing blob is left out, since without
/// a lease it means something else.
fn loss(code: Option<&str>) -> Option<LossReason> {
    match code? {
        "LeaseIsBrokenAndCannotBeRenewed"
        | "LeaseIsBreakingAndCannotBeChanged"
        | "LeaseAlreadyBroken" => Some(LossReason::Broken),
        "LeaseIdMismatchWithLeaseOperation"
        | "LeaseIdMismatchWithBlobOperation"
        | "LeaseNotPresentWithLeaseOperation"
        | "LeaseNotPresentWithBlobOperation"
        | "LeaseLost" => Some(LossReason::Taken),
        _ => None,
    }
}

/// The kind of error, and the text after the code. The bare status counts only if the code is
/// unknown.
fn meaning(
    reply: &Reply,
    code: Option<&str>,
    sent: OffsetDateTime,
    used: &Used<'_>,
) -> (ErrorKind, Cow<'static, str>) {
    if let Some(identity) = used.identity
        && let Some(text) = token_refused(reply, code, sent, identity)
    {
        return (ErrorKind::Auth, text);
    }
    let hint = &used.hint;
    let text: &'static str = match code.unwrap_or_default() {
        "LeaseAlreadyPresent" => return (ErrorKind::WouldBlock, "another client holds it".into()),
        "LeaseIsBreakingAndCannotBeAcquired" => {
            return (
                ErrorKind::WouldBlock,
                "its lease was broken but has not ended yet".into(),
            );
        }
        "BlobNotFound" => return (ErrorKind::NotFound, "the blob does not exist".into()),
        "ContainerNotFound" => return (ErrorKind::NotFound, "the container does not exist".into()),
        "ResourceNotFound" => {
            return (
                ErrorKind::NotFound,
                "it does not exist, or anonymous access is off".into(),
            );
        }
        "ContainerBeingDeleted" => {
            let text = "the container is being deleted; wait a minute or use another";
            return (ErrorKind::NotFound, text.into());
        }
        "ServerBusy" => return (ErrorKind::Throttled, "the service is overloaded".into()),
        "OperationTimedOut" | "InternalError" => {
            return (ErrorKind::Service, "the service failed".into());
        }
        code if loss(Some(code)).is_some() => return (ErrorKind::LeaseLost, "".into()),
        "AuthenticationFailed" => {
            let text = clock_skew(reply, sent)
                .unwrap_or_else(|| format!("the service does not accept the credential; {hint}"));
            return (
                ErrorKind::Auth,
                with_message(text, sas_time_frame(&reply.body)),
            );
        }
        "AuthorizationFailure" => NETWORK_RULES,
        "AuthorizationPermissionMismatch" | "InsufficientAccountPermissions" => {
            "the credential does not allow this; it needs to read and write blobs (the role \
             Storage Blob Data Contributor on the container, or a SAS with `rcw`); a new role \
             takes some minutes to count"
        }
        "AuthorizationResourceTypeMismatch" => {
            "the SAS is for other types of resources; create one with `srt=co`, or one for the \
             container"
        }
        "AuthorizationServiceMismatch" => {
            "the SAS is for another service; create one for blobs (`ss=b`), or one for the container"
        }
        "AuthorizationProtocolMismatch" => {
            "the SAS is for https only (`spr`), and the endpoint is http"
        }
        "AuthorizationSourceIPMismatch" => {
            "the SAS is for other IP addresses (`sip`); behind a proxy or NAT, that one's counts"
        }
        "KeyBasedAuthenticationNotPermitted" => {
            "the account does not allow access with its key, nor with a SAS that the key signed; \
             sign \
             in with Microsoft Entra ID instead, or use a user delegation SAS"
        }
        "AccountIsDisabled" => {
            "the storage account is disabled, as an unpaid or ended subscription's is; enable it, \
             or use another account"
        }
        "PublicAccessNotPermitted" => {
            "the account does not allow anonymous access, and the request had no credential that \
             counts"
        }
        code if code.starts_with("BlobImmutable") => {
            let text = "the container has an immutability policy or a legal hold, so that locks \
                        cannot be written; use a container without one";
            return refused(text.to_owned(), reply);
        }
        "InvalidBlobType" => {
            let text = "the blob is not one that azmutex made (it is a page blob or an append \
                        blob); use another name";
            return refused(text.to_owned(), reply);
        }
        "BlobArchived" | "BlobBeingRehydrated" => {
            let text = "the blob is in the archive tier; move it to hot, or use another name";
            return refused(text.to_owned(), reply);
        }
        "PathAlreadyExists" | "ResourceTypeMismatch" => {
            let text = "there is a directory of this name (hierarchical namespace); use another \
                        name";
            return refused(text.to_owned(), reply);
        }
        "NoAuthenticationInformation" | "InvalidAuthenticationInfo" => {
            let text = format!("the service does not accept the credential; {hint}");
            return (
                ErrorKind::Auth,
                with_message(text, error_message(&reply.body)),
            );
        }
        _ => {
            let message = error_message(&reply.body).unwrap_or_else(|| match code {
                Some(_) => String::new(),
                None => "the service gave no reason".to_owned(),
            });
            let kind = match reply.status {
                401 | 403 => ErrorKind::Auth,
                429 | 503 => ErrorKind::Throttled,
                408 | 500.. => ErrorKind::Service,
                _ => ErrorKind::Protocol,
            };
            let message = match refused_value(&reply.body) {
                Some(value) if message.is_empty() => value,
                Some(value) => format!("{message} ({value})"),
                None => message,
            };
            return (kind, message.into());
        }
    };
    let text = with_message(text.to_owned(), error_message(&reply.body));
    (ErrorKind::Auth, text)
}

/// A request that the service will not carry out, whatever the credential.
fn refused(text: String, reply: &Reply) -> (ErrorKind, Cow<'static, str>) {
    let message = error_message(&reply.body);
    (ErrorKind::Protocol, with_message(text, message))
}

/// `text`, followed by the service's own message.
fn with_message(text: String, message: Option<String>) -> Cow<'static, str> {
    match message {
        Some(message) => format!("{text}; the service says: {message}").into(),
        None => text.into(),
    }
}

const NETWORK_RULES: &str = "the account's network rules do not let this machine in, or the \
                             credential does not allow this; add this machine's address or network \
                             to the account's firewall, or reach it through a private endpoint";

/// What a code means to whoever sent a token, if that is not what it means to everybody.
fn token_refused(
    reply: &Reply,
    code: Option<&str>,
    sent: OffsetDateTime,
    identity: &TokenIdentity,
) -> Option<Cow<'static, str>> {
    let text = match code? {
        "AuthorizationPermissionMismatch" => format!(
            "{identity} may not do this: it needs the role Storage Blob Data Contributor on the \
             container, which Owner and Contributor do not include; a new role takes up to 10 \
             minutes to work"
        ),
        "AuthorizationFailure" => format!("{NETWORK_RULES} ({identity})"),
        "AuthenticationFailed" | "NoAuthenticationInformation" | "InvalidAuthenticationInfo" => {
            let challenge = reply.header("www-authenticate").map(Challenge::parse);
            let account = challenge.and_then(|challenge| challenge.tenant);
            let text = match (account, identity.tenant_id()) {
                (Some(account), Some(tenant)) if !tenant.eq_ignore_ascii_case(&account) => {
                    let advice = match identity.takes_tenant() {
                        true => "sign in to that one, with --tenant-id or Credential::tenant_id",
                        false => "use an identity of that one",
                    };
                    format!(
                        "the token is of tenant {tenant}, and the account belongs to tenant \
                         {account}: {advice} ({identity})"
                    )
                }
                _ => format!("the service does not accept the token of {identity}"),
            };
            // A token that is not valid yet, or no longer, may be so by this machine's clock.
            let skew = clock_difference(reply, sent).filter(|skew| skew.minutes > 0);
            let text = match skew {
                Some(skew) => format!("{text}; this machine's clock is {skew} the service's"),
                None => text,
            };
            return Some(with_message(text, token_detail(&reply.body)));
        }
        _ => return None,
    };
    Some(with_message(text, error_message(&reply.body)))
}

/// The service's own reason for refusing a token. Never the token, should it be quoted.
fn token_detail(body: &[u8]) -> Option<String> {
    let detail = error_element(body, "AuthenticationErrorDetail")?;
    let line = printable(detail.lines().next()?, 200);
    (!line.contains("eyJ")).then_some(line)
}

/// The detail that says that a SAS is not valid yet or has expired. Other details of a failed
/// authentication may quote the string that was signed, and are never shown.
fn sas_time_frame(body: &[u8]) -> Option<String> {
    let detail = error_element(body, "AuthenticationErrorDetail")?;
    let line = printable(detail.lines().next()?, 200);
    line.starts_with("Signature not valid in the specified time frame")
        .then_some(line)
}

/// The header or query parameter that the service refused, and its value; never a credential's.
fn refused_value(body: &[u8]) -> Option<String> {
    let (name, value) = match error_element(body, "HeaderName") {
        Some(name) => (name, error_element(body, "HeaderValue")),
        None => (
            error_element(body, "QueryParameterName")?,
            error_element(body, "QueryParameterValue"),
        ),
    };
    let name = printable(&name, 60);
    let is_secret = ["authorization", "sig"].contains(&name.to_ascii_lowercase().as_str());
    match value {
        Some(value) if !is_secret => Some(format!("{name}: {}", printable(&value, 60))),
        _ => Some(name),
    }
}

/// Signed requests are refused when the clocks differ by more than 15 minutes.
fn clock_skew(reply: &Reply, sent: OffsetDateTime) -> Option<String> {
    let skew = clock_difference(reply, sent).filter(|skew| skew.is_over_15_minutes)?;
    Some(format!(
        "this machine's clock is {skew} the service's, and at most 15 are allowed; set the clock"
    ))
}

/// How far this machine's clock is from the service's: `20 minutes ahead of`.
struct ClockDifference {
    minutes: u64,
    is_ahead: bool,
    is_over_15_minutes: bool,
}

fn clock_difference(reply: &Reply, sent: OffsetDateTime) -> Option<ClockDifference> {
    let difference = sent - dates::parse_http(reply.header("date")?)?;
    Some(ClockDifference {
        minutes: difference.whole_seconds().unsigned_abs() / 60,
        is_ahead: difference.is_positive(),
        is_over_15_minutes: difference.unsigned_abs() > Duration::from_secs(15 * 60),
    })
}

impl fmt::Display for ClockDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.is_ahead { "ahead of" } else { "behind" };
        let plural = if self.minutes == 1 { "" } else { "s" };
        write!(f, "{} minute{plural} {direction}", self.minutes)
    }
}

/// Whether it looks like one of the service's codes.
fn is_code(code: &str) -> bool {
    (1..=100).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Text from the reply, shortened and without what is invisible or a screen acts on.
fn printable(text: &str, longest: usize) -> String {
    text.trim()
        .chars()
        .filter(|c| !is_invisible(*c))
        .take(longest)
        .collect()
}

/// The first line of the message; the next ones hold the request ID and the time.
fn error_message(body: &[u8]) -> Option<String> {
    let message = error_element(body, "Message")?;
    let line = printable(message.lines().next()?, 300);
    (!line.is_empty()).then_some(line)
}

/// An element of an error body, which is XML with a `Code` and a `Message` after a byte order mark.
fn error_element(body: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let document = xml::parse(text).ok()?;
    let root = document.root_element();
    if !root.has_tag_name("Error") {
        return None;
    }
    Some(text_of(root, name).into_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entra::token::{AccessToken, Identity};
    use crate::http::message::tests::reply;

    fn wall() -> OffsetDateTime {
        dates::parse_http("Fri, 25 Oct 2019 18:13:24 GMT").unwrap()
    }

    fn error(status: u16, code: &str) -> Error {
        read_error(
            &reply(status, &[("x-ms-error-code", code)], ""),
            wall(),
            "check it",
        )
    }

    /// An error body as the service writes it.
    fn body(code: &str, message: &str, more: &str) -> String {
        format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code>\
             <Message>{message}\nRequestId:5c6c1d0c-001e-0014-555f-8b9b37000000\n\
             Time:2019-10-25T18:13:40.3556484Z</Message>{more}</Error>"
        )
    }

    /// What each code means to a client that wants, holds or looks at a lease.
    #[test]
    fn codes_have_their_meaning() {
        use ErrorKind::*;
        use LossReason::*;

        let rows = [
            (409, "LeaseAlreadyPresent", WouldBlock, None),
            (409, "LeaseIsBreakingAndCannotBeAcquired", WouldBlock, None),
            (
                409,
                "LeaseIdMismatchWithLeaseOperation",
                LeaseLost,
                Some(Taken),
            ),
            (
                412,
                "LeaseIdMismatchWithBlobOperation",
                LeaseLost,
                Some(Taken),
            ),
            (
                409,
                "LeaseNotPresentWithLeaseOperation",
                LeaseLost,
                Some(Taken),
            ),
            (
                412,
                "LeaseNotPresentWithBlobOperation",
                LeaseLost,
                Some(Taken),
            ),
            (412, "LeaseLost", LeaseLost, Some(Taken)),
            (
                409,
                "LeaseIsBrokenAndCannotBeRenewed",
                LeaseLost,
                Some(Broken),
            ),
            (
                409,
                "LeaseIsBreakingAndCannotBeChanged",
                LeaseLost,
                Some(Broken),
            ),
            (404, "BlobNotFound", NotFound, None),
            (404, "ContainerNotFound", NotFound, None),
            (404, "ResourceNotFound", NotFound, None),
            (409, "ContainerBeingDeleted", NotFound, None),
            (403, "AuthenticationFailed", Auth, None),
            (403, "AuthorizationFailure", Auth, None),
            (403, "AuthorizationPermissionMismatch", Auth, None),
            (403, "InsufficientAccountPermissions", Auth, None),
            (401, "NoAuthenticationInformation", Auth, None),
            (400, "InvalidAuthenticationInfo", Auth, None),
            (403, "AccountIsDisabled", Auth, None),
            (403, "SomethingNew", Auth, None),
            (503, "ServerBusy", Throttled, None),
            (429, "TooManyRequests", Throttled, None),
            (500, "OperationTimedOut", Service, None),
            (500, "InternalError", Service, None),
            (502, "SomethingNew", Service, None),
            (408, "SomethingNew", Service, None),
            (400, "InvalidHeaderValue", Protocol, None),
            (400, "MissingRequiredHeader", Protocol, None),
            (412, "ConditionNotMet", Protocol, None),
            (409, "SomethingNew", Protocol, None),
        ];
        for (status, code, kind, loss) in rows {
            let error = error(status, code);
            assert_eq!((error.kind(), error.loss_reason()), (kind, loss), "{code}");
            assert_eq!(
                (error.service_code(), error.status()),
                (Some(code), Some(status))
            );
            let refused = matches!(kind, Throttled | Service | Transport);
            assert_eq!(error.is_transient(), refused, "{code}");
        }
    }

    #[test]
    fn text_of_a_reply_is_shown_without_what_a_screen_acts_on() {
        let body = body("SomethingNew", "It did\u{202e} not\u{3164} work.", "");
        let error = read_error(&reply(418, &[], &body), wall(), "");
        assert_eq!(error.to_string(), "SomethingNew (418): It did not work.");
    }

    #[test]
    fn code_is_read_from_the_body_when_the_header_is_missing() {
        let body = body(
            "LeaseAlreadyPresent",
            "There is already a lease present.",
            "",
        );
        let error = read_error(&reply(409, &[], &body), wall(), "");
        assert_eq!(error.service_code(), Some("LeaseAlreadyPresent"));
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn unknown_code_keeps_the_first_line_of_its_message_and_what_was_refused() {
        let body = body(
            "SomethingNew",
            "It did not work.",
            "<HeaderName>x</HeaderName>",
        );
        let error = read_error(&reply(418, &[], &body), wall(), "");
        assert_eq!(
            error.to_string(),
            "SomethingNew (418): It did not work. (x)"
        );
    }

    #[test]
    fn service_detail_is_kept_if_it_says_more() {
        let refused = |status, code, message, more| {
            let body = body(code, message, more);
            read_error(&reply(status, &[], &body), wall(), "check it").to_string()
        };
        let header = "<HeaderName>x-ms-lease-duration</HeaderName><HeaderValue>10</HeaderValue>";
        assert_eq!(
            refused(400, "InvalidHeaderValue", "It is not valid.", header),
            "InvalidHeaderValue (400): It is not valid. (x-ms-lease-duration: 10)"
        );
        let header = "<HeaderName>Authorization</HeaderName><HeaderValue>s3cret</HeaderValue>";
        assert_eq!(
            refused(400, "InvalidHeaderValue", "It is not valid.", header),
            "InvalidHeaderValue (400): It is not valid. (Authorization)"
        );
        let text = refused(
            403,
            "InsufficientAccountPermissions",
            "Not this account.",
            "",
        );
        assert!(
            text.ends_with("; the service says: Not this account."),
            "{text}"
        );
        let frame = "Signature not valid in the specified time frame: Start [Fri, 25 Oct 2019 \
                     19:00:00 GMT] - Expiry [Sat, 26 Oct 2019 19:00:00 GMT] - Current [Fri, 25 Oct \
                     2019 18:13:24 GMT]";
        let detail = format!("<AuthenticationErrorDetail>{frame}</AuthenticationErrorDetail>");
        assert_eq!(
            refused(403, "AuthenticationFailed", "Failed.", &detail),
            format!(
                "AuthenticationFailed (403): the service does not accept the credential; check it; \
                 the service says: {frame}"
            )
        );
    }

    /// In the form of the service's replies: with its header and a body, with the body alone as from
    /// older versions, and with the header alone as on HEAD.
    #[test]
    fn refusals_say_what_to_do_and_keep_what_the_service_says() {
        use ErrorKind::{Auth, NotFound, Protocol};

        let rows = [
            (403, "AuthorizationFailure", Auth, "the account's firewall"),
            (
                403,
                "AuthorizationPermissionMismatch",
                Auth,
                "Storage Blob Data Contributor",
            ),
            (
                403,
                "InsufficientAccountPermissions",
                Auth,
                "Storage Blob Data Contributor",
            ),
            (
                403,
                "AuthorizationResourceTypeMismatch",
                Auth,
                "create one with `srt=co`",
            ),
            (
                403,
                "AuthorizationServiceMismatch",
                Auth,
                "create one for blobs (`ss=b`)",
            ),
            (
                403,
                "AuthorizationProtocolMismatch",
                Auth,
                "for https only (`spr`)",
            ),
            (
                403,
                "AuthorizationSourceIPMismatch",
                Auth,
                "other IP addresses (`sip`)",
            ),
            (
                403,
                "KeyBasedAuthenticationNotPermitted",
                Auth,
                "sign in with Microsoft Entra ID",
            ),
            (
                403,
                "AccountIsDisabled",
                Auth,
                "the storage account is disabled",
            ),
            (
                409,
                "PublicAccessNotPermitted",
                Auth,
                "does not allow anonymous access",
            ),
            (401, "NoAuthenticationInformation", Auth, "check it"),
            (400, "InvalidAuthenticationInfo", Auth, "check it"),
            (403, "SomethingNew", Auth, "Its own words."),
            (409, "ContainerBeingDeleted", NotFound, "wait a minute"),
            (
                409,
                "BlobImmutableDueToPolicy",
                Protocol,
                "immutability policy or a legal hold",
            ),
            (
                409,
                "InvalidBlobType",
                Protocol,
                "not one that azmutex made",
            ),
            (409, "BlobArchived", Protocol, "archive tier"),
            (409, "BlobBeingRehydrated", Protocol, "archive tier"),
            (
                409,
                "PathAlreadyExists",
                Protocol,
                "a directory of this name",
            ),
            (
                409,
                "ResourceTypeMismatch",
                Protocol,
                "a directory of this name",
            ),
            (400, "InvalidHeaderValue", Protocol, "Its own words."),
            (
                400,
                "InvalidQueryParameterValue",
                Protocol,
                "Its own words.",
            ),
            (400, "OutOfRangeInput", Protocol, "Its own words."),
        ];
        for (status, code, kind, wanted) in rows {
            let body = body(code, "Its own words.", "");
            let header = [("x-ms-error-code", code)];
            for reply in [reply(status, &header, &body), reply(status, &[], &body)] {
                let error = read_error(&reply, wall(), "check it");
                let text = error.to_string();
                assert_eq!(error.kind(), kind, "{code}");
                assert!(text.starts_with(&format!("{code} ({status}): ")), "{text}");
                assert!(text.contains(wanted), "{text}");
                let is_waited_for = code == "ContainerBeingDeleted";
                assert!(is_waited_for || text.ends_with("Its own words."), "{text}");
            }
            let error = read_error(&reply(status, &header, ""), wall(), "check it");
            assert_eq!(error.kind(), kind, "{code}");
            assert!(!error.to_string().contains("Its own words"), "{code}");
        }
    }

    #[test]
    fn signature_in_the_body_is_never_shown() {
        let more = "<AuthenticationErrorDetail>The MAC signature found in the HTTP request \
                    's3cret=' is not the same</AuthenticationErrorDetail>";
        let body = body(
            "AuthenticationFailed",
            "Server failed to authenticate.",
            more,
        );
        let error = read_error(
            &reply(403, &[], &body),
            wall(),
            "check the account name and key",
        );
        assert_eq!(
            error.to_string(),
            "AuthenticationFailed (403): the service does not accept the credential; check the \
             account name and key"
        );
        assert!(!format!("{error:?}").contains("s3cret"));
    }

    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

    fn identity(tenant: &str) -> Identity {
        Identity {
            kind: "managed identity",
            client_id: Some("1f2e".to_owned()),
            tenant_id: Some(tenant.to_owned()),
            takes_tenant: false,
        }
    }

    /// The text of a refusal to whoever sent a token of `tenant`, `ahead` of the service's clock.
    fn to_token(status: u16, code: &str, more: &str, tenant: &str, ahead: i64) -> String {
        to_identity(identity(tenant), status, code, more, ahead)
    }

    fn to_identity(identity: Identity, status: u16, code: &str, more: &str, ahead: i64) -> String {
        let token = AccessToken::new("s3cret", wall().into()).unwrap();
        let identity = TokenIdentity::of(identity, &token, "audience");
        let challenge = format!(
            "Bearer authorization_uri=https://login.microsoftonline.com/{TENANT}/oauth2/authorize \
             resource_id=https://storage.azure.com"
        );
        let date = dates::http(wall() - time::Duration::seconds(ahead));
        let headers = [
            ("x-ms-error-code", code),
            ("www-authenticate", &*challenge),
            ("date", &*date),
        ];
        let used = Used {
            hint: "".into(),
            identity: Some(&identity),
        };
        let body = body(code, "", more);
        let error = read_error(&reply(status, &headers, &body), wall(), used);
        assert_eq!(error.kind(), ErrorKind::Auth);
        error.to_string()
    }

    #[test]
    fn whoever_sent_a_token_is_told_what_is_wrong_with_it() {
        let code = "InvalidAuthenticationInfo";
        let detail =
            |text: &str| format!("<AuthenticationErrorDetail>{text}</AuthenticationErrorDetail>");
        let expired = detail("Lifetime validation failed. The token is expired.");
        assert_eq!(
            to_token(401, code, &expired, &TENANT.to_uppercase(), 0),
            format!(
                "InvalidAuthenticationInfo (401): the service does not accept the token of managed \
                 identity, client 1f2e, tenant {}; the service says: Lifetime validation failed. \
                 The token is expired.",
                TENANT.to_uppercase()
            )
        );
        let slow = to_token(401, code, &expired, TENANT, -61);
        assert!(
            slow.contains("; this machine's clock is 1 minute behind the service's; the service"),
            "{slow}"
        );
        let issuer = detail("Issuer validation failed. Issuer did not match.");
        let wrong_tenant = |takes_tenant: bool| {
            let identity = Identity {
                takes_tenant,
                ..identity("9a3c")
            };
            to_identity(identity, 401, code, &issuer, 0)
        };
        let text = |advice: &str| {
            format!(
                "InvalidAuthenticationInfo (401): the token is of tenant 9a3c, and the account \
                 belongs to tenant {TENANT}: {advice} (managed identity, client 1f2e, tenant \
                 9a3c); the service says: Issuer validation failed. Issuer did not match."
            )
        };
        let advice = "sign in to that one, with --tenant-id or Credential::tenant_id";
        assert_eq!(wrong_tenant(true), text(advice));
        assert_eq!(wrong_tenant(false), text("use an identity of that one"));
        // Should the service quote what it was sent.
        let quoted = detail("Signature validation failed: eyJ0.eyJh.c2ln");
        let text = to_token(403, "AuthenticationFailed", &quoted, TENANT, 0);
        assert!(text.ends_with(&format!("tenant {TENANT}")), "{text}");
    }

    #[test]
    fn whoever_sent_a_token_and_has_no_role_is_told_which() {
        let text = to_token(403, "AuthorizationPermissionMismatch", "", "9a3c", 0);
        assert_eq!(
            text,
            "AuthorizationPermissionMismatch (403): managed identity, client 1f2e, tenant 9a3c may \
             not do this: it needs the role Storage Blob Data Contributor on the container, which \
             Owner and Contributor do not include; a new role takes up to 10 minutes to work"
        );
        let text = to_token(403, "AuthorizationFailure", "", "9a3c", 0);
        assert!(
            text.contains("network rules") && text.ends_with("client 1f2e, tenant 9a3c)"),
            "{text}"
        );
    }

    #[test]
    fn only_a_refused_token_is_replaced() {
        let rows = [
            (401, "InvalidAuthenticationInfo", true),
            (401, "NoAuthenticationInformation", true),
            (401, "", true),
            (403, "AuthenticationFailed", true),
            (400, "InvalidAuthenticationInfo", false),
            (403, "AuthorizationPermissionMismatch", false),
            (403, "AuthorizationFailure", false),
            (404, "BlobNotFound", false),
            (201, "", false),
        ];
        for (status, code, refused) in rows {
            let reply = reply(status, &[("x-ms-error-code", code)], "");
            assert_eq!(is_token_refused(&reply), refused, "{status} {code}");
        }
    }

    #[test]
    fn body_of_something_else_is_not_taken_for_a_code() {
        for body in [
            "<html>no</html>",
            "<Error><Code>a b</Code></Error>",
            "\u{feff}",
            "<Error>",
        ] {
            let error = read_error(&reply(502, &[], body), wall(), "");
            assert_eq!(error.service_code(), None, "{body}");
            assert_eq!(error.kind(), ErrorKind::Service);
        }
        let error = read_error(&reply(502, &[], ""), wall(), "");
        assert_eq!(error.to_string(), "the service gave no reason (status 502)");
    }

    #[test]
    fn header_of_something_else_is_not_taken_for_a_code() {
        for code in ["", "Lease Lost", "<b>", "a\tb", &"a".repeat(101)] {
            let error = error(409, code);
            let kind = (error.kind(), error.service_code());
            assert_eq!(kind, (ErrorKind::Protocol, None));
            assert!(
                code.is_empty() || !error.to_string().contains(code),
                "{error}"
            );
        }
    }

    #[test]
    fn clock_skew_is_told_with_its_size_and_direction() {
        let at = |date| {
            let headers = [("x-ms-error-code", "AuthenticationFailed"), ("date", date)];
            read_error(&reply(403, &headers, ""), wall(), "check it").to_string()
        };
        let ahead = at("Fri, 25 Oct 2019 17:53:24 GMT");
        assert!(
            ahead.contains("clock is 20 minutes ahead of the service's"),
            "{ahead}"
        );
        let behind = at("Fri, 25 Oct 2019 18:28:25 GMT");
        assert!(
            behind.contains("clock is 15 minutes behind the service's"),
            "{behind}"
        );
        let near = at("Fri, 25 Oct 2019 18:28:24 GMT");
        assert!(near.ends_with("check it"), "{near}");
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let asked = |text| {
            let headers = [("x-ms-error-code", "ServerBusy"), ("retry-after", text)];
            read_error(&reply(503, &headers, ""), wall(), "").retry_after()
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            asked("Fri, 25 Oct 2019 18:13:34 GMT"),
            Some(Duration::from_secs(10))
        );
        assert_eq!(asked("Fri, 25 Oct 2019 18:13:14 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("soon"), None);
    }

    #[test]
    fn reply_that_is_not_the_service_s_is_refused_whatever_its_status() {
        use crate::error::Delivery::{Refused, Unknown};
        use ErrorKind::*;

        let not_azure = "this is not Azure Blob Storage: the reply has no x-ms headers (Server: \
                         nginx); check endpoint and proxy";
        let answered_instead =
            "something between this machine and Azure answered instead (Server: nginx)";
        let redirect = "this is not Azure Blob Storage: the reply is a redirect (Server: nginx), \
                        which is not followed, to protect the credential; check endpoint and proxy";
        let rows = [
            (200, Protocol, Refused, not_azure),
            (201, Protocol, Refused, not_azure),
            (204, Protocol, Refused, not_azure),
            (302, Protocol, Refused, redirect),
            (307, Protocol, Refused, redirect),
            (400, Protocol, Refused, not_azure),
            (401, Protocol, Refused, answered_instead),
            (403, Protocol, Refused, answered_instead),
            (404, Protocol, Refused, not_azure),
            (405, Protocol, Refused, not_azure),
            (409, Protocol, Refused, not_azure),
            (412, Protocol, Refused, not_azure),
            (408, Service, Unknown, answered_instead),
            (429, Throttled, Unknown, answered_instead),
            (500, Service, Unknown, answered_instead),
            (501, Protocol, Refused, not_azure),
            (502, Service, Unknown, answered_instead),
            (503, Throttled, Unknown, answered_instead),
            (504, Service, Unknown, answered_instead),
            (511, Protocol, Refused, answered_instead),
            (522, Service, Unknown, answered_instead),
        ];
        for (status, kind, delivery, text) in rows {
            let headers = [("server", "nginx"), ("etag", "\"5\""), ("retry-after", "7")];
            let reply = reply(status, &headers, "<html>Log in to the network</html>");
            let error = check_is_service(&reply, wall()).unwrap_err();
            assert_eq!(
                (error.kind(), error.delivery()),
                (kind, delivery),
                "{status}"
            );
            assert_eq!(error.to_string(), format!("{text} (status {status})"));
            // Who knows what it let through.
            let may_be_done = !matches!(status, 300..=399);
            assert_eq!(error.is_ambiguous(), may_be_done, "{status}");
            assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        }
        let error = check_is_service(&reply(407, &[], ""), wall()).unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (Transport, Refused));
        assert!(
            error.to_string().contains("the proxy asks for credentials"),
            "{error}"
        );
        let error = check_is_service(&reply(200, &[], ""), wall()).unwrap_err();
        assert!(
            error.to_string().contains("has no x-ms headers; check"),
            "{error}"
        );
    }

    #[test]
    fn one_header_of_the_service_s_is_enough() {
        // The service's front end and emulators leave some of them out.
        for name in ["x-ms-request-id", "x-ms-version", "x-ms-error-code"] {
            for status in [200, 400, 403, 503] {
                check_is_service(&reply(status, &[(name, "x")], ""), wall()).unwrap();
            }
        }
    }
}
