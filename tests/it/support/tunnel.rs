//! Proxies that tunnel, and a server with a certificate of a private CA.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// A proxy for tunnels. All of them lead to one place, whatever is asked for.
pub(crate) struct Tunnel {
    pub(crate) addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    /// One that is asked by `CONNECT`.
    pub(crate) fn http(to: SocketAddr) -> Self {
        Self::start(move |stream| {
            let head = read_head(stream)?;
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            Ok((head, Some(to)))
        })
    }

    /// One that answers every `CONNECT` with this status.
    pub(crate) fn refusing(status: &'static str) -> Self {
        Self::start(move |stream| {
            let head = read_head(stream)?;
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")?;
            Ok((head, None))
        })
    }

    /// One that speaks SOCKS5 and asks for no credentials.
    pub(crate) fn socks5(to: SocketAddr) -> Self {
        Self::start(move |stream| {
            let mut greeting = [0; 3];
            stream.read_exact(&mut greeting)?;
            stream.write_all(&[5, 0])?;
            // Version, connect, reserved, "a name follows", its length.
            let mut request = [0; 5];
            stream.read_exact(&mut request)?;
            assert_eq!(request[..4], [5, 1, 0, 3], "a name is asked for");
            let mut name = vec![0; usize::from(request[4]) + 2];
            stream.read_exact(&mut name)?;
            stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
            let name = String::from_utf8_lossy(&name[..name.len() - 2]).into_owned();
            Ok((name, Some(to)))
        })
    }

    fn start(
        meet: impl Fn(&mut TcpStream) -> io::Result<(String, Option<SocketAddr>)>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (heard, meet) = (Arc::clone(&asked), Arc::new(meet));
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (heard, meet) = (Arc::clone(&heard), Arc::clone(&meet));
                thread::spawn(move || {
                    let Ok((head, to)) = meet(&mut stream) else {
                        return;
                    };
                    heard.lock().push(head);
                    if let Some(to) = to {
                        relay(&stream, &TcpStream::connect(to).unwrap());
                    }
                });
            }
        });
        Self { addr, asked }
    }

    /// What it was asked for, one for each connection: the head of a `CONNECT`, or a name.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock())
    }
}

fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn relay(a: &TcpStream, b: &TcpStream) {
    thread::scope(|scope| {
        for (mut from, mut to) in [(a, b), (b, a)] {
            scope.spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    });
}

/// The configuration of a server with this certificate.
pub(crate) fn server_config(
    certificate: &CertificateDer<'static>,
    key: &KeyPair,
) -> Arc<ServerConfig> {
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    Arc::new(config)
}

/// A server with a certificate for `name` that a private CA issued. It gives every request the same
/// answer, and then closes the connection.
pub(crate) struct PrivateServer {
    pub(crate) addr: SocketAddr,
    /// The CA's certificate, in PEM.
    pub(crate) ca: String,
}

impl PrivateServer {
    pub(crate) fn start(name: &str, answer: &'static [u8]) -> Self {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.distinguished_name
            .push(DnType::CommonName, "a private CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = ca.self_signed(&ca_key).unwrap().der().to_vec();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key));
        let config = server_config(leaf.unwrap().der(), &key);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = rustls::Stream::new(&mut session, &mut stream);
                if matches!(stream.read(&mut [0; 16 * 1024]), Ok(1..)) {
                    let _ = stream.write_all(answer);
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            }
        });
        Self {
            addr,
            ca: format!(
                "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                STANDARD.encode(der)
            ),
        }
    }
}
