//! PURE: certificates of certificate authorities, from PEM.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::Error;
use crate::text::quoted;

const BEGIN: &str = "-----BEGIN ";

/// The certificates in a PEM file, each in DER. What stands around them is ignored, as comments and
/// keys are.
pub(crate) fn parse(pem: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    read(pem).map_err(|why| Error::config(format!("invalid CA certificates: {why}")))
}

fn read(pem: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    if matches!(pem, [0x30, 0x80..=0xff, ..]) {
        return Err(
            "this is DER, not PEM; convert it with `openssl x509 -inform der -in FILE`".to_owned(),
        );
    }
    let text = String::from_utf8_lossy(pem);
    let (mut found, mut other) = (Vec::new(), None);
    let mut rest = &*text;
    while let Some((_, begun)) = rest.split_once(BEGIN) {
        let number = found.len() + 1;
        let cut_off = || format!("certificate {number} is cut off; copy the whole file");
        let (label, body) = begun.split_once("-----").ok_or_else(cut_off)?;
        let end = format!("-----END {label}-----");
        let (body, after) = body.split_once(&*end).ok_or_else(cut_off)?;
        rest = after;
        if label != "CERTIFICATE" {
            other = other.or(Some(label));
            continue;
        }
        if body.contains(BEGIN) {
            return Err(cut_off());
        }
        let body: String = body.split_whitespace().collect();
        let der = STANDARD
            .decode(body)
            .map_err(|_| format!("certificate {number} is damaged: it is not base64"))?;
        if !is_whole(&der) {
            return Err(format!(
                "certificate {number} is damaged: it is not as long as it says"
            ));
        }
        found.push(der);
    }
    match other {
        _ if !found.is_empty() => Ok(found),
        Some(label) if label.contains("PRIVATE KEY") => Err(
            "this is a private key, which does not belong here; give the CA's certificate"
                .to_owned(),
        ),
        Some(label) => Err(format!("it holds {} and no CERTIFICATE", quoted(label))),
        None if pem.trim_ascii().is_empty() => Err("it is empty".to_owned()),
        None => Err(format!(
            "it has no certificate: there is no line {BEGIN}CERTIFICATE-----"
        )),
    }
}

/// Whether this is one DER sequence, of the size that a certificate has, and nothing else.
fn is_whole(der: &[u8]) -> bool {
    let (length, rest) = match der {
        [0x30, 0x81, n, rest @ ..] => ([0, 0, *n], rest),
        [0x30, 0x82, a, b, rest @ ..] => ([0, *a, *b], rest),
        [0x30, 0x83, a, b, c, rest @ ..] => ([*a, *b, *c], rest),
        _ => return false,
    };
    let length = length
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    rest.len() == length
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::error::ErrorKind;

    fn pem(label: &str, der: &[u8]) -> String {
        let text = STANDARD.encode(der);
        let lines: Vec<_> = text
            .as_bytes()
            .chunks(64)
            .map(String::from_utf8_lossy)
            .collect();
        let lines = lines.join("\n");
        format!("-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n")
    }

    /// A certificate in PEM and in DER, and its key.
    fn certificate(name: &str) -> (String, Vec<u8>, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let key = pem("PRIVATE KEY", &key.serialize_der());
        (pem("CERTIFICATE", &der), der, key)
    }

    #[test]
    fn certificates_are_found_whatever_stands_around_them() {
        let ((a, a_der, key), (b, b_der, _)) = (certificate("a"), certificate("b"));
        let both = vec![a_der.clone(), b_der];
        for (pem, expected) in [
            (a.clone(), vec![a_der.clone()]),
            (format!("{a}{b}"), both.clone()),
            (format!("{a}{b}").replace('\n', "\r\n"), both.clone()),
            (
                format!("\u{feff}# the proxy's\n{a}\nSubject: b\n{b}\n"),
                both,
            ),
            (format!("{key}{a}"), vec![a_der]),
        ] {
            assert_eq!(parse(pem.as_bytes()).expect(&pem), expected, "{pem}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused_with_the_reason() {
        let ((a, der, key), (b, ..)) = (certificate("a"), certificate("b"));
        let middle = a.len() / 2;
        let shorter = STANDARD.encode(&der[..der.len() - 3]);
        let rows = [
            (String::new().into_bytes(), "it is empty"),
            (b" \n".to_vec(), "it is empty"),
            (
                b"proxy.pem".to_vec(),
                "it has no certificate: there is no line -----BEGIN",
            ),
            (key.into_bytes(), "this is a private key"),
            (der, "this is DER, not PEM"),
            (
                b"-----BEGIN PKCS7-----\nAAAA\n-----END PKCS7-----\n".to_vec(),
                "it holds `PKCS7` and no CERTIFICATE",
            ),
            (a.as_bytes()[..middle].to_vec(), "certificate 1 is cut off"),
            (b"-----BEGIN CERT".to_vec(), "certificate 1 is cut off"),
            (
                format!("{a}{}", &b[..middle]).into_bytes(),
                "certificate 2 is cut off",
            ),
            (
                format!("{}{b}", &a[..middle]).into_bytes(),
                "certificate 1 is cut off",
            ),
            (
                a.replace('M', "!").into_bytes(),
                "certificate 1 is damaged: it is not base64",
            ),
            (
                format!("-----BEGIN CERTIFICATE-----\n{shorter}\n-----END CERTIFICATE-----")
                    .into_bytes(),
                "certificate 1 is damaged: it is not as long as it says",
            ),
            (
                b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----".to_vec(),
                "certificate 1 is damaged",
            ),
        ];
        for (pem, rule) in rows {
            let error = parse(&pem).expect_err(rule);
            assert_eq!(error.kind(), ErrorKind::Config);
            let text = error.to_string();
            assert!(text.starts_with("invalid CA certificates: "), "{text}");
            assert!(text.contains(rule), "no {rule:?} in {text}");
        }
    }
}
