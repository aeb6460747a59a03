//! PURE: what the service says about the token that it refused.
//!
//! Only the tenant's ID and the claims are taken from it. The host that it names is not: the reply
//! comes from whoever answers at the endpoint, and a secret sent to a host of theirs would be lost.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;
use uuid::Uuid;

/// A `WWW-Authenticate: Bearer …` header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// The tenant that the account belongs to.
    pub(crate) tenant: Option<String>,
    /// What the next token has to claim: JSON.
    pub(crate) claims: Option<String>,
}

impl Challenge {
    /// Reads the header. Values may be quoted or not, and separated by commas or blanks.
    pub(crate) fn parse(header: &str) -> Self {
        let mut found = Self::default();
        let Some((scheme, parameters)) = header.trim().split_once(' ') else {
            return found;
        };
        if !scheme.eq_ignore_ascii_case("bearer") {
            return found;
        }
        for parameter in parameters.split([' ', ',']) {
            let Some((name, value)) = parameter.split_once('=') else {
                continue;
            };
            let value = value.trim_matches('"');
            match name {
                "authorization_uri" | "authorization" => found.tenant = tenant(value),
                "claims" => found.claims = claims(value),
                _ => {}
            }
        }
        found
    }
}

/// The tenant's ID in a URL such as `https://HOST/TENANT/oauth2/authorize`.
fn tenant(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let id = rest.split('/').nth(1)?;
    let is_guid = id.len() == 36 && Uuid::try_parse(id).is_ok();
    is_guid.then(|| id.to_ascii_lowercase())
}

/// The JSON in base64, of either alphabet.
fn claims(text: &str) -> Option<String> {
    let text = text.trim_end_matches('=');
    let json = STANDARD_NO_PAD.decode(text);
    let json = json.or_else(|_| URL_SAFE_NO_PAD.decode(text)).ok()?;
    let json = String::from_utf8(json).ok()?;
    let value = serde_json::from_str(&json);
    value
        .is_ok_and(|value: Value| value.is_object())
        .then_some(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

    #[test]
    fn tenant_is_taken_from_the_challenge_and_nothing_else() {
        let plain = format!(
            "Bearer authorization_uri=https://login.microsoftonline.com/{TENANT}/oauth2/authorize \
             resource_id=https://storage.azure.com"
        );
        let upper = TENANT.to_uppercase();
        let rows = [
            (plain, Some(TENANT)),
            (
                format!("bearer authorization_uri=\"https://h/{TENANT}\", resource_id=\"x\""),
                Some(TENANT),
            ),
            (
                format!("Bearer authorization=https://h/{upper}/x"),
                Some(TENANT),
            ),
            (
                "Bearer authorization_uri=https://h/common/oauth2".into(),
                None,
            ),
            (format!("Bearer authorization_uri={TENANT}"), None),
            ("Bearer authorization_uri=https://h".into(), None),
            (format!("Basic realm=\"https://h/{TENANT}\""), None),
            (format!("Basic authorization_uri=https://h/{TENANT}"), None),
            ("Bearer".into(), None),
            (String::new(), None),
        ];
        for (header, tenant) in rows {
            let found = Challenge::parse(&header);
            assert_eq!(found.tenant.as_deref(), tenant, "{header}");
            assert_eq!(found.claims, None);
        }
    }

    #[test]
    fn claims_are_decoded_if_they_are_an_object() {
        let claims = r#"{"access_token":{"nbf":{"essential":true,"value":"1700000000"}}}"#;
        let rows = [
            (STANDARD_NO_PAD.encode(claims), Some(claims)),
            (format!("{}==", STANDARD_NO_PAD.encode("{}")), Some("{}")),
            (
                URL_SAFE_NO_PAD.encode(r#"{"a":"???>>>"}"#),
                Some(r#"{"a":"???>>>"}"#),
            ),
            (STANDARD_NO_PAD.encode("[1]"), None),
            (STANDARD_NO_PAD.encode("{"), None),
            ("%".to_owned(), None),
        ];
        for (text, expected) in rows {
            let header = format!(
                "Bearer realm=\"\", authorization_uri=\"https://h/{TENANT}/oauth2\", \
                 error=\"insufficient_claims\", claims=\"{text}\""
            );
            let found = Challenge::parse(&header);
            assert_eq!(found.claims.as_deref(), expected, "{header}");
            assert_eq!(found.tenant.as_deref(), Some(TENANT));
        }
    }
}
