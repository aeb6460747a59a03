//! Access tokens over https, to Azurite with a certificate of a private CA.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use azmutex::{AccessToken, AzureMutex, Credential, LeaseDuration, Locker, MutexOptions};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::support::azurite::Azurite;

const SEC: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The certificate of a private CA, and one of its server's with the key, in PEM.
fn certificates() -> (String, String, String) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "azmutex test CA");
    let key = KeyPair::generate().expect("random numbers");
    let ca = params.self_signed(&key).expect("a certificate");
    let issuer = Issuer::new(params, key);
    let server_key = KeyPair::generate().expect("random numbers");
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])
        .and_then(|params| params.signed_by(&server_key, &issuer))
        .expect("a certificate");
    let pem = |label: &str, der: &[u8]| {
        let body = STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    };
    (
        pem("CERTIFICATE", ca.der()),
        pem("CERTIFICATE", server.der()),
        pem("PRIVATE KEY", &server_key.serialize_der()),
    )
}

/// A token as Azurite wants it, which does not look at its signature.
fn token_for_azurite(life: Duration) -> (String, SystemTime) {
    let now = SystemTime::now();
    let secs = |at: SystemTime| {
        let since = at.duration_since(SystemTime::UNIX_EPOCH);
        since.expect("later").as_secs()
    };
    let claims = format!(
        r#"{{"aud":"https://storage.azure.com","iss":"https://sts.windows.net/t/","iat":{now},
            "nbf":{before},"exp":{end}}}"#,
        now = secs(now),
        before = secs(now) - 60,
        end = secs(now + life)
    );
    let claims = URL_SAFE_NO_PAD.encode(claims);
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
    (format!("{header}.{claims}.c2ln"), now + life)
}

#[test]
fn azurite_takes_tokens_over_https_for_everything_that_a_lock_does() {
    let (ca, certificate, key) = certificates();
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("azurite-tls-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    let (certificate_file, key_file) = (dir.join("cert.pem"), dir.join("key.pem"));
    fs::write(&certificate_file, certificate).expect("written");
    fs::write(&key_file, key).expect("written");
    let azurite = Azurite::start_with(&[
        "--oauth",
        "basic",
        "--cert",
        certificate_file.to_str().expect("UTF-8"),
        "--key",
        key_file.to_str().expect("UTF-8"),
    ]);
    let Some(azurite) = azurite else { return };
    assert!(azurite.endpoint().starts_with("https://"));
    let issued = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&issued);
    // The first has expired, which Azurite says with 403.
    let credential = Credential::token_provider(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        let (token, expires) = token_for_azurite(if number == 0 { SEC } else { 60 * MINUTE });
        if number == 0 {
            thread::sleep(SEC + SEC / 10);
            return Ok(AccessToken::new(token, SystemTime::now() + MINUTE)?);
        }
        Ok(AccessToken::new(token, expires)?)
    });
    let mutex = MutexOptions::with_credential("devstoreaccount1", credential, "locks")
        .and_then(|options| options.endpoint(&azurite.endpoint()))
        .and_then(|options| options.ca_certificates(ca.as_bytes()))
        .and_then(AzureMutex::new)
        .expect("sound");
    let locker = Locker::new(mutex.clone(), "key").expect("sound");
    let guard = locker.lock().expect("free");
    assert_eq!(issued.load(Ordering::SeqCst), 2);
    guard.write(b"value").expect("held");
    assert!(locker.try_lock().is_err());
    guard.release().expect("held");
    let lease = mutex.acquire("key", LeaseDuration::MAX).expect("free");
    mutex.renew(&lease).expect("held");
    assert_eq!(mutex.list("").count(), 1);
    mutex
        .break_lease("key", Some(Duration::ZERO))
        .expect("held");
    mutex.release(&lease).expect("broken, and released");
    fs::remove_dir_all(&dir).expect("removed");
}
