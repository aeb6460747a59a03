//! Shared access signatures, made with the account key by any client.
//!
//! Sources: <https://learn.microsoft.com/rest/api/storageservices/create-service-sas>,
//! <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>

use std::net::IpAddr;

use time::OffsetDateTime;

use super::failure::{self, Failure};
use super::operation::{Operation, is_version};
use super::request::{Request, Target};
use crate::azure::sign;
use crate::http::message::encode_query;
use crate::time::dates;

/// The versions from which the string-to-sign has a further field.
const WITH_RESOURCE: &str = "2018-11-09";
const WITH_ENCRYPTION_SCOPE: &str = "2020-12-06";
/// The first version whose SAS has addresses and protocols.
const FIRST_VERSION: &str = "2015-04-05";

/// User delegation, stored access policies, encryption scopes, directories, and headers of replies.
const UNIMPLEMENTED: [&str; 9] = [
    "skoid", "si", "ses", "sdd", "rscc", "rscd", "rsce", "rscl", "rsct",
];

/// Where a request comes from, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) caller: IpAddr,
    pub(super) wall: OffsetDateTime,
}

/// An account SAS that allows everything that the emulator implements.
pub(super) fn account_sas(account: &str, key: &[u8], expiry: &str) -> String {
    let (version, services, types, permissions) = ("2021-12-02", "b", "sco", "rwdlc");
    let text =
        format!("{account}\n{permissions}\n{services}\n{types}\n\n{expiry}\n\n\n{version}\n\n");
    let signature = sign::signature(key, &text);
    format!(
        "sv={version}&ss={services}&srt={types}&sp={permissions}&se={}&sig={}",
        encode_query(expiry),
        encode_query(&signature)
    )
}

/// Checks the signature in the query, its time, origin and permissions. Returns whether what is
/// there may be overwritten.
pub(super) fn check(
    account: &str,
    key: &[u8],
    request: &Request<'_>,
    target: Option<&Target<'_>>,
    operation: Option<Operation>,
    from: Origin,
) -> Result<bool, Failure> {
    let refused = |reason: &str| Err(Failure::authentication(reason));
    let value = |name| request.parameter(name);
    let version = value("sv");
    if !is_version(version) || version < FIRST_VERSION {
        return refused("sv is not a version of shared access signatures that is known here.");
    }
    if let Some(name) = UNIMPLEMENTED.iter().find(|name| !value(name).is_empty()) {
        return refused(&format!(
            "The emulator does not implement {name} of shared access signatures."
        ));
    }
    let is_account = !value("ss").is_empty();
    let signed = if is_account {
        account_string_to_sign(account, request, version)
    } else {
        match service_string_to_sign(account, request, target, version) {
            Some(signed) => signed,
            None => return refused("sr is neither c nor b, or does not fit the resource."),
        }
    };
    if sign::signature(key, &signed) != value("sig") {
        return refused(&format!(
            "Signature did not match. String to sign used was {signed}"
        ));
    }
    check_time(request, from.wall)?;
    check_origin(request, from.caller)?;
    let Some(operation) = operation else {
        return Ok(true); // It is refused anyway.
    };
    let needed = operation.permission(request);
    if is_account && !value("ss").contains('b') {
        return Err(failure::AUTHORIZATION_SERVICE_MISMATCH);
    }
    if is_account && !value("srt").contains(needed.resource_type) {
        return Err(failure::AUTHORIZATION_RESOURCE_TYPE_MISMATCH);
    }
    let has_any = value("sp").contains(|letter| needed.any_of.contains(letter));
    if !has_any || !is_account && !needed.by_service_sas {
        return Err(failure::AUTHORIZATION_PERMISSION_MISMATCH);
    }
    Ok(value("sp").contains('w'))
}

/// The fields that come one to a line.
fn lines<'a>(fields: impl IntoIterator<Item = &'a str>) -> String {
    let fields: Vec<_> = fields.into_iter().collect();
    fields.join("\n")
}

fn account_string_to_sign(account: &str, request: &Request<'_>, version: &str) -> String {
    let names = ["sp", "ss", "srt", "st", "se", "sip", "spr", "sv"];
    let fields = names.iter().map(|name| request.parameter(name));
    let scope = (version >= WITH_ENCRYPTION_SCOPE).then_some("");
    lines([account].into_iter().chain(fields).chain(scope)) + "\n"
}

/// `None` if the resource is of another kind than `sr` says.
fn service_string_to_sign(
    account: &str,
    request: &Request<'_>,
    target: Option<&Target<'_>>,
    version: &str,
) -> Option<String> {
    let resource = match (request.parameter("sr"), target) {
        ("c", Some(Target::Container(container) | Target::Blob(container, _))) => {
            format!("/blob/{account}/{container}")
        }
        ("b", Some(Target::Blob(container, name))) => format!("/blob/{account}/{container}/{name}"),
        _ => return None,
    };
    let value = |name| request.parameter(name);
    let mut fields = vec![value("sp"), value("st"), value("se"), &resource, ""];
    fields.extend([value("sip"), value("spr"), version]);
    if version >= WITH_RESOURCE {
        fields.extend([value("sr"), ""]);
    }
    if version >= WITH_ENCRYPTION_SCOPE {
        fields.push("");
    }
    fields.extend([""; 5]); // The headers that it can set in replies.
    Some(lines(fields))
}

fn check_time(request: &Request<'_>, wall: OffsetDateTime) -> Result<(), Failure> {
    let (start, expiry) = (request.parameter("st"), request.parameter("se"));
    let end = dates::parse_utc(expiry);
    let is_started = start.is_empty() || dates::parse_utc(start).is_some_and(|at| at <= wall);
    if is_started && end.is_some_and(|at| wall < at) {
        return Ok(());
    }
    let shown = |text| dates::parse_utc(text).map_or(text.to_owned(), dates::http);
    Err(Failure::authentication(&format!(
        "Signature not valid in the specified time frame: Start [{}] - Expiry [{}] - Current [{}]",
        shown(start),
        shown(expiry),
        dates::http(wall)
    )))
}

fn check_origin(request: &Request<'_>, caller: IpAddr) -> Result<(), Failure> {
    // The emulator speaks plain HTTP.
    let protocols = request.parameter("spr");
    if !protocols.is_empty() && !protocols.split(',').any(|protocol| protocol == "http") {
        return Err(failure::AUTHORIZATION_PROTOCOL_MISMATCH);
    }
    let range = request.parameter("sip");
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let is_in = || Some((first.parse::<IpAddr>().ok()?..=last.parse().ok()?).contains(&caller));
    if !range.is_empty() && is_in() != Some(true) {
        return Err(failure::AUTHORIZATION_SOURCE_IP_MISMATCH);
    }
    Ok(())
}
