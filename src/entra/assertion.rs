//! PURE: the assertion by which a client proves that it has a certificate's private key.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::error::Error;

/// How long an assertion is valid, in seconds.
const LIFE: i64 = 600;

/// What an assertion says.
#[derive(Debug)]
pub(crate) struct Claims<'a> {
    /// The very URL that it is sent to.
    pub(crate) audience: &'a str,
    pub(crate) client_id: &'a str,
    /// An ID that no other assertion has.
    pub(crate) id: uuid::Uuid,
    /// Seconds since 1970.
    pub(crate) now: i64,
}

/// Writes the assertion as a signed JWT. `certificate`: its DER. `chain`: the DER of all
/// certificates to send along, if any. `sign`: makes a PS256 signature.
///
/// Source: <https://learn.microsoft.com/entra/identity-platform/certificate-credentials>
pub(crate) fn write(
    claims: &Claims<'_>,
    certificate: &[u8],
    chain: &[Vec<u8>],
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, Error>,
) -> Result<Zeroizing<String>, Error> {
    let mut header = Map::new();
    header.insert("alg".to_owned(), "PS256".into());
    header.insert("typ".to_owned(), "JWT".into());
    let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(certificate));
    header.insert("x5t#S256".to_owned(), thumbprint.into());
    if !chain.is_empty() {
        let chain: Vec<Value> = chain
            .iter()
            .map(|der| STANDARD.encode(der).into())
            .collect();
        header.insert("x5c".to_owned(), chain.into());
    }
    let mut body = Map::new();
    body.insert("aud".to_owned(), claims.audience.into());
    body.insert("iss".to_owned(), claims.client_id.into());
    body.insert("sub".to_owned(), claims.client_id.into());
    body.insert("jti".to_owned(), claims.id.to_string().into());
    body.insert("nbf".to_owned(), claims.now.into());
    body.insert("iat".to_owned(), claims.now.into());
    body.insert("exp".to_owned(), (claims.now + LIFE).into());
    let part =
        |members: Map<String, Value>| URL_SAFE_NO_PAD.encode(Value::from(members).to_string());
    let signed = format!("{}.{}", part(header), part(body));
    let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes())?);
    Ok(Zeroizing::new(format!("{signed}.{signature}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assertion_says_who_asks_whom_and_until_when() {
        let claims = Claims {
            audience: "https://login.example/t/oauth2/v2.0/token",
            client_id: "1f2e",
            id: uuid::Uuid::from_u128(7),
            now: 1_767_780_000,
        };
        let jwt = write(
            &claims,
            b"der",
            &[b"der".to_vec(), b"ca".to_vec()],
            |signed| {
                assert_eq!(signed.iter().filter(|byte| **byte == b'.').count(), 1);
                Ok(b"signature".to_vec())
            },
        )
        .unwrap();
        let parts: Vec<_> = jwt
            .split('.')
            .map(|part| URL_SAFE_NO_PAD.decode(part).unwrap())
            .collect();
        let json = |part: &[u8]| serde_json::from_slice::<Value>(part).unwrap();
        assert_eq!(
            json(&parts[0]),
            serde_json::json!({
                "alg": "PS256", "typ": "JWT",
                "x5t#S256": "UFDYDSLs1HHqVd9wNAQsHgQTQf9AZuf2_zjiC3IN-Oo",
                "x5c": ["ZGVy", "Y2E="],
            })
        );
        assert_eq!(
            json(&parts[1]),
            serde_json::json!({
                "aud": "https://login.example/t/oauth2/v2.0/token", "iss": "1f2e", "sub": "1f2e",
                "jti": "00000000-0000-0000-0000-000000000007",
                "nbf": 1_767_780_000, "iat": 1_767_780_000, "exp": 1_767_780_600,
            })
        );
        assert_eq!(parts[2], b"signature");
        let alone = write(&claims, b"der", &[], |_| Ok(Vec::new())).unwrap();
        let header = URL_SAFE_NO_PAD
            .decode(alone.split('.').next().unwrap())
            .unwrap();
        assert!(json(&header).get("x5c").is_none());
    }
}
