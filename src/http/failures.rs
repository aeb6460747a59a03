//! What ureq's errors mean.

use std::borrow::Cow;
use std::io;

use super::progress::Progress;
use super::proxy::Proxy;
use crate::error::Phase;

/// What went wrong, without the URL, which may hold a SAS.
pub(super) struct Failure {
    pub(super) text: Cow<'static, str>,
    /// Whether it would fail in the same way again.
    pub(super) is_permanent: bool,
    /// Whether ureq's error says more.
    pub(super) has_cause: bool,
}

fn transient(text: impl Into<Cow<'static, str>>) -> Failure {
    Failure {
        text: text.into(),
        is_permanent: false,
        has_cause: false,
    }
}

fn permanent(text: impl Into<Cow<'static, str>>) -> Failure {
    Failure {
        is_permanent: true,
        ..transient(text)
    }
}

impl Failure {
    /// Of a request that had come so far. `proxy`: the one that is used.
    pub(super) fn new(error: &ureq::Error, progress: &Progress, proxy: Option<&Proxy>) -> Self {
        use ureq::Error as E;

        match error {
            E::Timeout(_) => transient("timed out"),
            E::HostNotFound => transient("the host was not found"),
            E::Io(error) if progress.phase == Phase::Tls && is_not_tls(error) => {
                transient(match proxy {
                    None => "what answered is not TLS; is this the port of https?".to_owned(),
                    Some(proxy) => format!(
                        "what answered is not TLS; is {proxy} the right proxy, and does it show a \
                         page in place of what it blocks?"
                    ),
                })
                .with_cause()
            }
            E::Io(error) => {
                let proxy = proxy.filter(|_| progress.is_proxy && progress.phase == Phase::Connect);
                match proxy.and_then(|proxy| socks_refusal(error, proxy)) {
                    Some(refusal) => refusal,
                    None => io_failure(error, progress.phase).with_cause(),
                }
            }
            E::ConnectProxyFailed(reason) => proxy_refusal(reason, proxy),
            E::LargeResponseHeader(..) => transient("the reply's headers are too large"),
            E::BodyExceedsLimit(_) => transient("the reply is too large"),
            E::Protocol(_) if progress.phase == Phase::Connect => {
                transient("the proxy's reply is not HTTP").with_cause()
            }
            E::Protocol(_) => transient("the reply is not HTTP").with_cause(),
            E::TlsRequired => {
                permanent("`https` needs one of the features `rustls` and `native-tls`")
            }
            #[cfg(feature = "rustls")]
            E::Rustls(error) if error.to_string().contains("No CA certificates") => {
                permanent(NO_ROOTS)
            }
            #[cfg(feature = "rustls")]
            E::Rustls(_) => permanent("TLS failed").with_cause(),
            #[cfg(feature = "native-tls")]
            E::NativeTls(error) => match certificate_refusal(&error.to_string()) {
                Some(text) => permanent(text).with_cause(),
                None => transient("TLS failed").with_cause(),
            },
            E::Tls(_) => permanent("TLS failed").with_cause(),
            E::Other(_) => transient("the HTTP client failed").with_cause(),
            _ => transient("the request failed").with_cause(),
        }
    }

    fn with_cause(self) -> Self {
        Self {
            has_cause: true,
            ..self
        }
    }
}

/// Whether a port refused the connection.
pub(super) fn is_refused(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Whether nobody who is trusted issued the server's certificate.
pub(super) fn is_unknown_issuer(error: &ureq::Error) -> bool {
    certificate_refusal(&error.to_string()) == Some(UNKNOWN_ISSUER)
}

/// Whether rustls read something else than TLS.
fn is_not_tls(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData && error.to_string().contains("InvalidContentType")
}

/// Why a connection failed.
fn io_failure(error: &io::Error, phase: Phase) -> Failure {
    use io::ErrorKind as K;

    transient(match (error.kind(), phase) {
        (_, Phase::Resolve) => "the host was not found",
        (K::ConnectionRefused, _) => "the connection was refused",
        (K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe, _) => {
            "the connection was reset"
        }
        (K::UnexpectedEof, Phase::Reply) => "the connection was closed before the reply",
        (K::UnexpectedEof, _) => "the connection was closed",
        (K::HostUnreachable | K::NetworkUnreachable | K::NetworkDown, _) => {
            "the host is unreachable"
        }
        (K::TimedOut, _) => "timed out",
        (K::InvalidData, _) => match certificate_refusal(&error.to_string()) {
            Some(text) => return permanent(text),
            None => "TLS failed",
        },
        _ => "the connection failed",
    })
}

/// Why a server's certificate was refused, if that is what rustls or the platform's TLS library says.
fn certificate_refusal(message: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    // rustls says "peer certificate" of every certificate that it refuses.
    if !says(&[
        "peer certificate",
        "certificate verify failed",
        "not trusted",
    ]) {
        return None;
    }
    Some(match () {
        () if says(&[
            "UnknownIssuer",
            "issuer",
            "self-signed",
            "not trusted",
            CERT_E_CHAINING,
        ]) =>
        {
            UNKNOWN_ISSUER
        }
        () if says(&["CaUsedAsEndEntity"]) => {
            "the server's certificate was refused: it is a CA's own (self-signed, with CA:TRUE), \
             which is not accepted as a server's even if it is trusted; make it with \
             basicConstraints CA:FALSE, or let a CA issue it and trust the CA"
        }
        () => "the server's certificate was refused",
    })
}

/// What Windows calls a certificate whose issuer it does not find. The words before the number are
/// in the user's language.
const CERT_E_CHAINING: &str = "(os error -2146762486)";

const UNKNOWN_ISSUER: &str = if cfg!(all(feature = "rustls", not(feature = "platform-verifier"))) {
    "the server's certificate was refused: no public CA issued it; if your organization did, build \
     with the feature `platform-verifier`, which trusts what the system trusts, or name the CA's \
     PEM file with --ca-file, AZMUTEX_CA_FILE or MutexOptions::ca_certificates"
} else {
    "the server's certificate was refused: nobody whom this system trusts issued it; add the CA to \
     the system's certificates, or name its PEM file with --ca-file, AZMUTEX_CA_FILE or \
     MutexOptions::ca_certificates"
};

#[cfg(feature = "rustls")]
const NO_ROOTS: &str = "this system has no CA certificates; install its package `ca-certificates`, \
                        or name a PEM file with SSL_CERT_FILE, --ca-file, AZMUTEX_CA_FILE or \
                        MutexOptions::ca_certificates";

/// Why a proxy did not connect. `reason`: what ureq says, with the status of the proxy's answer.
fn proxy_refusal(reason: &str, proxy: Option<&Proxy>) -> Failure {
    let mut numbers = reason.split(|c: char| !c.is_ascii_digit());
    match (numbers.find(|number| !number.is_empty()), proxy) {
        (Some("407"), Some(proxy)) => refused_credentials(proxy, "407"),
        (Some(status), _) => transient(format!(
            "the proxy did not make the connection: it answered {status}"
        )),
        (None, _) => transient("the proxy did not answer"),
    }
}

/// What a SOCKS proxy answered. `None` if it could not be reached.
fn socks_refusal(error: &io::Error, proxy: &Proxy) -> Option<Failure> {
    use io::ErrorKind as K;

    let is_answer = matches!(
        error.kind(),
        K::Other | K::PermissionDenied | K::InvalidData | K::InvalidInput
    );
    if !is_answer || error.raw_os_error().is_some() || !proxy.scheme.starts_with("socks") {
        return None;
    }
    let reason = error.to_string();
    let of_credentials = ["auth", "invalid username", "invalid password"];
    Some(
        if of_credentials.iter().any(|words| reason.contains(words)) {
            refused_credentials(proxy, &reason)
        } else {
            transient(format!("the proxy did not make the connection: {reason}"))
        },
    )
}

fn refused_credentials(proxy: &Proxy, reason: &str) -> Failure {
    let Proxy {
        scheme, variable, ..
    } = proxy;
    let also = match *scheme {
        "http" | "https" => "; it must take Basic authentication",
        _ => "",
    };
    permanent(match proxy.credentials {
        Some(_) => format!(
            "the proxy does not accept its credentials ({reason}); check user and password in \
             {variable}{also}"
        ),
        None => format!(
            "the proxy asks for credentials ({reason}); put them into {variable}, as in \
             {scheme}://USER:PASSWORD@HOST:PORT"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_of_an_unknown_issuer_is_told_from_others() {
        let other = "the server's certificate was refused";
        for (message, expected) in [
            ("UnknownIssuer", UNKNOWN_ISSUER),
            // What rustls passes on from Windows, in whatever language that speaks.
            (
                "Other(OtherError(\"CHAINING (os error -2146762486)\"))",
                UNKNOWN_ISSUER,
            ),
            (
                "Other(OtherError(\"POLICY (os error -2146762477)\"))",
                other,
            ),
            ("Expired", other),
        ] {
            let message = format!("invalid peer certificate: {message}");
            assert_eq!(certificate_refusal(&message), Some(expected), "{message}");
        }
        assert_eq!(certificate_refusal("unexpected EOF"), None);
    }
}
