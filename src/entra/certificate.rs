//! A client's certificate and its private key.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::assertion::{self, Claims};
use crate::error::{Error, ErrorKind};

/// A certificate, its RSA key, and the certificates that came with it.
#[derive(Clone)]
pub(crate) struct Certificate {
    key: Arc<Key>,
    /// DER; the key's own certificate first.
    chain: Arc<Vec<Vec<u8>>>,
    /// Whether the assertion carries the chain, for trust by subject name and issuer.
    send_chain: bool,
}

impl Certificate {
    /// Reads a PEM file with a certificate and an RSA key, in any order.
    pub(crate) fn read(pem: &[u8], send_chain: bool) -> Result<Self, Error> {
        check_form(pem)?;
        let (key, chain) = read_pem(pem)?;
        Ok(Self {
            key: Arc::new(key),
            chain: Arc::new(chain),
            send_chain,
        })
    }

    /// Writes an assertion, valid from `now` on, in seconds since 1970.
    pub(crate) fn assertion(
        &self,
        audience: &str,
        client_id: &str,
        now: i64,
    ) -> Result<Zeroizing<String>, Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| {
            let text = "cannot sign an assertion: the system gives no random numbers";
            Error::new(ErrorKind::System, text).with_source(error)
        })?;
        let claims = Claims {
            audience,
            client_id,
            id: uuid::Builder::from_random_bytes(bytes).into_uuid(),
            now,
        };
        let chain = if self.send_chain { &**self.chain } else { &[] };
        let own = self.chain.first().map_or(&[][..], Vec::as_slice);
        assertion::write(&claims, own, chain, |message| sign(&self.key, message))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

fn wrong(rule: impl fmt::Display) -> Error {
    Error::config(format!("invalid client certificate: {rule}"))
}

/// Refuses what is known not to be read, and says how to convert it.
fn check_form(pem: &[u8]) -> Result<(), Error> {
    let has = |text: &str| pem.windows(text.len()).any(|part| part == text.as_bytes());
    if pem.first() == Some(&0x30) {
        return Err(wrong(
            "it is binary (PKCS#12 or DER); convert it with `openssl pkcs12 -in FILE.pfx -out \
             FILE.pem -nodes`",
        ));
    }
    if has("-----BEGIN ENCRYPTED PRIVATE KEY-----") || has("Proc-Type: 4,ENCRYPTED") {
        return Err(wrong(
            "its private key is encrypted, which is not supported; decrypt it with `openssl pkey \
             -in FILE.pem -out KEY.pem`, and put the certificate into that file too",
        ));
    }
    if has("-----BEGIN EC PRIVATE KEY-----") {
        return Err(wrong(NOT_RSA));
    }
    Ok(())
}

const NOT_RSA: &str =
    "its private key is not for RSA; Entra ID takes RSA keys of 2048 bits or more";

#[cfg(feature = "client-certificate")]
type Key = ring::signature::RsaKeyPair;

#[cfg(feature = "client-certificate")]
fn read_pem(pem: &[u8]) -> Result<(Key, Vec<Vec<u8>>), Error> {
    use ring::signature::{KeyPair as _, RsaKeyPair};
    use rustls_pki_types::pem::{PemObject as _, SectionKind};

    let mut keys = Vec::new();
    let mut chain: Vec<Vec<u8>> = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        match section.map_err(|_| wrong("its PEM is damaged; copy the whole file"))? {
            (SectionKind::Certificate, der) => chain.push(der),
            (kind @ (SectionKind::PrivateKey | SectionKind::RsaPrivateKey), der) => {
                keys.push((kind, Zeroizing::new(der)));
            }
            _ => {}
        }
    }
    let (kind, key) = match &*keys {
        [key] => key,
        [] if chain.is_empty() => {
            return Err(wrong("it is no PEM: it has neither certificate nor key"));
        }
        [] => {
            return Err(wrong(
                "it has no private key; put the key into the same file",
            ));
        }
        _ => return Err(wrong("it has several private keys; leave one")),
    };
    let key = match kind {
        SectionKind::RsaPrivateKey => RsaKeyPair::from_der(key),
        _ => RsaKeyPair::from_pkcs8(key),
    }
    .map_err(|error| match error.to_string().as_str() {
        "WrongAlgorithm" => wrong(NOT_RSA),
        "TooSmall" => wrong("its RSA key is too short; use one of 2048 bits or more"),
        "TooLarge" => wrong("its RSA key is too long; use one of at most 4096 bits"),
        reason => wrong(format_args!("its private key cannot be read ({reason})")),
    })?;
    if chain.is_empty() {
        return Err(wrong(
            "it has no certificate; put the certificate into the same file",
        ));
    }
    // A certificate holds its public key in exactly this form.
    let public = key.public_key().as_ref();
    let own = chain
        .iter()
        .position(|der| der.windows(public.len()).any(|part| part == public));
    let own = own.ok_or_else(|| wrong("its private key belongs to none of its certificates"))?;
    chain[..=own].rotate_right(1);
    Ok((key, chain))
}

#[cfg(feature = "client-certificate")]
fn sign(key: &Key, message: &[u8]) -> Result<Vec<u8>, Error> {
    let mut signature = vec![0; key.public().modulus_len()];
    let random = ring::rand::SystemRandom::new();
    key.sign(
        &ring::signature::RSA_PSS_SHA256,
        &random,
        message,
        &mut signature,
    )
    .map_err(|_| Error::new(ErrorKind::System, "cannot sign with the client certificate"))?;
    Ok(signature)
}

#[cfg(not(feature = "client-certificate"))]
enum Key {}

#[cfg(not(feature = "client-certificate"))]
fn read_pem(_: &[u8]) -> Result<(Key, Vec<Vec<u8>>), Error> {
    Err(Error::config(
        "cannot use a client certificate: azmutex was built without its feature \
         `client-certificate`",
    ))
}

#[cfg(not(feature = "client-certificate"))]
fn sign(key: &Key, _: &[u8]) -> Result<Vec<u8>, Error> {
    match *key {}
}

#[cfg(all(test, feature = "client-certificate"))]
#[path = "certificate_tests.rs"]
mod tests;
