//! Authorization: by Shared Key, by a SAS that the key has signed, or by a bearer token that the
//! emulator was told to expect.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use time::OffsetDateTime;

use super::bearer::BearerTokens;
use super::failure::{self, Failure};
use super::operation::Operation;
use super::request::{Request, Target};
use super::sas::{self, Origin};
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
    allows_key: bool,
    pub(super) bearers: BearerTokens,
}

/// How an authorized request goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Authorized {
    /// Whether it carries a SAS.
    pub(super) by_sas: bool,
    pub(super) may_overwrite: bool,
}

impl Authorizer {
    /// `allows_key`: whether the account key is accepted, and what it has signed.
    pub(super) fn new(allows_key: bool) -> Self {
        Self {
            key: STANDARD.decode(KEY).expect("the key is base64"),
            allows_key,
            bearers: BearerTokens::default(),
        }
    }

    /// A SAS for everything that the emulator implements.
    pub(super) fn sas(&self, expiry: OffsetDateTime) -> String {
        sas::account_sas(ACCOUNT, &self.key, &dates::utc(expiry))
    }

    /// `target` and `operation`: `None` if the request is refused once it is authorized.
    pub(super) fn check(
        &self,
        request: &Request<'_>,
        target: Option<&Target<'_>>,
        operation: Option<Operation>,
        caller: IpAddr,
        now: Moment,
    ) -> Result<Authorized, Failure> {
        let mut authorized = Authorized {
            by_sas: false,
            may_overwrite: true,
        };
        let Some(authorization) = request.header("authorization") else {
            if request.parameter("sig").is_empty() {
                return Err(if request.is_read() {
                    failure::RESOURCE_NOT_FOUND
                } else {
                    failure::NO_AUTHENTICATION_INFORMATION
                });
            }
            let from = Origin {
                caller,
                wall: now.wall,
            };
            authorized.by_sas = true;
            authorized.may_overwrite =
                sas::check(ACCOUNT, &self.key, request, target, operation, from)?;
            self.check_key_access()?;
            return Ok(authorized);
        };
        if let Some(token) = authorization.strip_prefix("Bearer ") {
            self.bearers.check(token.trim(), request, now.tick)?;
            return Ok(authorized);
        }
        self.check_shared_key(request, authorization, now.wall)?;
        self.check_key_access()?;
        Ok(authorized)
    }

    fn check_shared_key(
        &self,
        request: &Request<'_>,
        authorization: &str,
        wall: OffsetDateTime,
    ) -> Result<(), Failure> {
        let (account, signature) = authorization
            .strip_prefix("SharedKey ")
            .and_then(|rest| rest.split_once(':'))
            .ok_or(Failure::invalid_authentication_info())?;
        check_date(request, wall)?;
        let signed = sign::string_to_sign(
            ACCOUNT,
            request.method,
            request.path,
            request.query(),
            request.headers(),
        );
        if account == ACCOUNT && sign::signature(&self.key, &signed) == signature {
            return Ok(());
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
