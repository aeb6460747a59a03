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
pub(crate) fn read_error(reply: &Reply, sent: OffsetDateTime, used: &Used<'_>) -> Error {
    let code = reply_code(reply);
    let request_id = reply.header("x-ms-request-id").map(str::to_owned);
    let retry_after = reply.retry_after(sent);
    let (kind, detail) = meaning(reply, code.as_deref(), sent, used);
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
             sign in with Microsoft Entra ID instead, or use a user delegation SAS"
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
    authentication_detail(body).filter(|line| !line.contains("eyJ"))
}

/// The detail that says that a SAS is not valid yet or has expired. Other details of a failed
/// authentication may quote the string that was signed, and are never shown.
fn sas_time_frame(body: &[u8]) -> Option<String> {
    let frame = "Signature not valid in the specified time frame";
    authentication_detail(body).filter(|line| line.starts_with(frame))
}

fn authentication_detail(body: &[u8]) -> Option<String> {
    let detail = error_element(body, "AuthenticationErrorDetail")?;
    Some(printable(detail.lines().next()?, 200))
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
#[path = "errors_tests.rs"]
mod tests;
