use super::*;
use crate::entra::token::{AccessToken, Identity};
use crate::http::message::tests::reply;

fn wall() -> OffsetDateTime {
    dates::parse_http("Fri, 25 Oct 2019 18:13:24 GMT").unwrap()
}

/// The error for a reply to a request that carried no token.
fn read_error(reply: &Reply, sent: OffsetDateTime, hint: &str) -> Error {
    let used = Used {
        hint: hint.into(),
        identity: None,
    };
    super::read_error(reply, sent, &used)
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
    let error = super::read_error(&reply(status, &headers, &body), wall(), &used);
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
