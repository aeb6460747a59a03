//! Authorization: Shared Key, or a SAS or bearer token that the emulator was told to accept.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use time::OffsetDateTime;

use super::bearer::BearerTokens;
use super::failure::{self, Failure};
use super::request::Request;
use super::store::Moment;
use crate::azure::sign;
use crate::time::dates;

/// The account that every emulator of the service has.
pub(super) const ACCOUNT: &str = "devstoreaccount1";
/// Its key, which is published and not a secret.
pub(super) const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// How far the date of a request may differ from the service's clock.
const DATE_TOLERANCE: Duration = Duration::from_secs(15 * 60);

/// Checks whether a request is authorized.
pub(super) struct Authorizer {
    key: Vec<u8>,
    sas: Vec<Sas>,
    allows_key: bool,
    pub(super) bearers: BearerTokens,
}

impl Authorizer {
    /// `allows_key`: whether the account key is accepted, and what it has signed.
    pub(super) fn new(sas: Vec<Sas>, allows_key: bool) -> Self {
        Self {
            key: STANDARD.decode(KEY).expect("the key is base64"),
            sas,
            allows_key,
            bearers: BearerTokens::default(),
        }
    }

    pub(super) fn check(&self, request: &Request<'_>, now: Moment) -> Result<(), Failure> {
        let wall = now.wall;
        let Some(authorization) = request.header("authorization") else {
            return self.check_sas(request, wall);
        };
        if let Some(token) = authorization.strip_prefix("Bearer ") {
            return self.bearers.check(token.trim(), request, now.tick);
        }
        let Some((account, signature)) = authorization
            .strip_prefix("SharedKey ")
            .and_then(|rest| rest.split_once(':'))
        else {
            return Err(Failure::invalid_authentication_info());
        };
        check_date(request, wall)?;
        let path = request.path;
        let signed = sign::string_to_sign(
            ACCOUNT,
            request.method,
            path,
            request.query(),
            request.headers(),
        );
        if account == ACCOUNT && sign::signature(&self.key, &signed) == signature {
            return self.check_key_access();
        }
        Err(Failure::authentication(&format!(
            "The MAC signature found in the HTTP request '{signature}' is not the same as any \
             computed signature. Server used following string to sign: '{signed}'."
        )))
    }

    fn check_key_access(&self) -> Result<(), Failure> {
        if self.allows_key {
            Ok(())
        } else {
            Err(failure::KEY_BASED_AUTHENTICATION_NOT_PERMITTED)
        }
    }

    fn check_sas(&self, request: &Request<'_>, wall: OffsetDateTime) -> Result<(), Failure> {
        if request.parameter("sig").is_empty() {
            return Err(if request.is_read() {
                failure::RESOURCE_NOT_FOUND
            } else {
                failure::NO_AUTHENTICATION_INFORMATION
            });
        }
        let Some(sas) = self.sas.iter().find(|sas| sas.is_in(request)) else {
            return Err(Failure::authentication(
                "Signature did not match. String to sign used was not that of this token.",
            ));
        };
        if sas.is_valid_at(wall) {
            return self.check_key_access();
        }
        let shown = |at: Option<OffsetDateTime>| at.map(dates::http).unwrap_or_default();
        Err(Failure::authentication(&format!(
            "Signature not valid in the specified time frame: Start [{}] - Expiry [{}] - \
             Current [{}]",
            shown(sas.start),
            shown(sas.expiry),
            dates::http(wall)
        )))
    }
}

fn check_date(request: &Request<'_>, wall: OffsetDateTime) -> Result<(), Failure> {
    let text = request.header("x-ms-date").or(request.header("date"));
    let text = text.unwrap_or_default();
    match dates::parse_http(text) {
        Some(date) if (wall - date).unsigned_abs() <= DATE_TOLERANCE => Ok(()),
        // The service says this of dates in the future, too.
        Some(_) => Err(Failure::authentication(&format!(
            "Request date header too old: '{text}'"
        ))),
        None => Err(Failure::authentication(&format!(
            "Request date header not specified or in a wrong format: '{text}'"
        ))),
    }
}

/// A token that the emulator accepts without checking its permissions.
#[derive(Clone)]
pub(super) struct Sas {
    parameters: Vec<(String, String)>,
    start: Option<OffsetDateTime>,
    expiry: Option<OffsetDateTime>,
}

impl Sas {
    /// `None` if it has no signature or a malformed date.
    pub(super) fn parse(token: &str) -> Option<Self> {
        let decode = |text| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
        let pairs = token.trim_start_matches('?').split('&');
        let parameters: Vec<_> = pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=')?;
                Some((decode(name)?, decode(value)?))
            })
            .collect::<Option<_>>()?;
        let value = |wanted| {
            let found = parameters.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.as_str())
        };
        let date = |name| match value(name) {
            Some(text) => dates::parse_utc(text).map(Some),
            None => Some(None),
        };
        value("sig").filter(|sig| !sig.is_empty())?;
        Some(Self {
            start: date("st")?,
            expiry: date("se")?,
            parameters,
        })
    }

    fn is_in(&self, request: &Request<'_>) -> bool {
        let has = |(name, value): &(String, String)| request.parameter(name) == value;
        self.parameters.iter().all(has)
    }

    fn is_valid_at(&self, wall: OffsetDateTime) -> bool {
        self.start.is_none_or(|start| start <= wall)
            && self.expiry.is_none_or(|expiry| wall < expiry)
    }
}
