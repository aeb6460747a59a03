use std::error::Error as _;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;
use std::thread;

use zeroize::Zeroizing;

use super::super::test_server::{Answer, Server, reply};
use super::*;
use crate::error::{Delivery, ErrorKind};

/// How long a failing test may take.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

fn to(addr: SocketAddr) -> Transport {
    Transport::new(format!("http://{addr}"), None, &[]).unwrap()
}

/// A transport to a name that no system knows, with its own lookup.
fn by_name(
    scheme: &str,
    lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
) -> Transport {
    let origin = format!("{scheme}://acct.blob.invalid");
    Transport::with(origin, None, Roots::new(&[]), Arc::new(lookup)).unwrap()
}

fn get(transport: &Transport, timeout: Duration) -> Result<Reply, Error> {
    let request = Request::new(message::Method::Get, "/".to_owned());
    transport.send(&request, None, timeout)
}

fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[track_caller]
fn expect(error: &Error, phase: Phase, delivery: Delivery, text: &str) {
    assert_eq!(error.kind(), ErrorKind::Transport, "{error}");
    assert_eq!(
        (error.phase(), error.delivery()),
        (Some(phase), delivery),
        "{error}"
    );
    assert_eq!(error.to_string(), text);
}

#[test]
fn failure_tells_the_step_the_host_and_what_may_have_been_done() {
    let error = get(
        &by_name("http", |_| Err(io::Error::other("no such name"))),
        LONG,
    );
    let error = error.unwrap_err();
    let text = "the host was not found (acct.blob.invalid:80, while looking up its name)";
    expect(&error, Phase::Resolve, Delivery::NotDone, text);
    assert_eq!(error.source().unwrap().to_string(), "no such name");

    let (hung, release) = std::sync::mpsc::channel::<()>();
    let release = parking_lot::Mutex::new(release);
    let hanging = by_name("http", move |_| {
        let _ = release.lock().recv();
        Ok(Vec::new())
    });
    let text = "timed out (acct.blob.invalid:80, while looking up its name)";
    let error = get(&hanging, SHORT).unwrap_err();
    expect(&error, Phase::Resolve, Delivery::NotDone, text);
    drop(hung);

    let addr = closed_port();
    let closed = by_name("http", move |_| Ok(vec![addr]));
    let error = get(&closed, LONG).unwrap_err();
    let text = "the connection was refused (acct.blob.invalid:80, while connecting)";
    expect(&error, Phase::Connect, Delivery::NotDone, text);

    let server = Server::start(|_, _| Answer::Close);
    let error = get(&to(server.addr), LONG).unwrap_err();
    let text = format!(
        "the connection was closed before the reply ({}, while waiting for the reply)",
        server.addr
    );
    expect(&error, Phase::Reply, Delivery::Unknown, &text);

    let server = Server::start(|_, _| Answer::Silence);
    let error = get(&to(server.addr), SHORT).unwrap_err();
    let text = format!("timed out ({}, while waiting for the reply)", server.addr);
    expect(&error, Phase::Reply, Delivery::Unknown, &text);

    let server = Server::start(|_, _| reply("200 OK", "", &"x".repeat(70_000)));
    let error = get(&to(server.addr), LONG).unwrap_err();
    assert_eq!(
        error.delivery(),
        Delivery::Refused,
        "it would be too large again: {error}"
    );
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
#[test]
fn failure_of_the_tls_handshake_means_that_nothing_was_sent() {
    // The system accepts the connection, but nobody ever reads from it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let transport = by_name("https", move |_| Ok(vec![addr]));
    let error = get(&transport, SHORT).unwrap_err();
    let text = "timed out (acct.blob.invalid:443, in the TLS handshake)";
    expect(&error, Phase::Tls, Delivery::NotDone, text);
}

#[test]
fn port_of_this_machine_where_nobody_listens_is_told_from_one_that_was_reached() {
    let hint = "the connection was refused; is Azurite (or `azmutex emulator`) running?";
    let addr = closed_port();
    let error = get(&to(addr), LONG).unwrap_err();
    let text = format!("{hint} ({addr}, while connecting)");
    expect(&error, Phase::Connect, Delivery::Unheard, &text);

    let server = Server::start(|_, _| reply("200 OK", "", ""));
    let transport = to(server.addr);
    get(&transport, LONG).unwrap();
    // The client closes first: under Wine, a read goes on although its own side shut the socket down.
    transport.reconnect();
    drop(server);
    let error = get(&transport, LONG).unwrap_err();
    assert_eq!(error.delivery(), Delivery::NotDone, "{error}");
    assert!(error.to_string().starts_with(hint), "{error}");

    // Another machine's port, the usual one of emulators.
    let origin = "http://azurite.invalid:10000".to_owned();
    let lookup: Arc<Lookup> = Arc::new(move |_| Ok(vec![addr]));
    let transport = Transport::with(origin, None, Roots::new(&[]), lookup).unwrap();
    let error = get(&transport, LONG).unwrap_err();
    let text = format!("{hint} (azurite.invalid:10000, while connecting)");
    expect(&error, Phase::Connect, Delivery::NotDone, &text);
}

#[test]
fn timeout_of_zero_is_over_at_once() {
    let server = Server::start(|_, _| Answer::Silence);
    let error = get(&to(server.addr), Duration::ZERO).unwrap_err();
    assert_eq!(error.delivery(), Delivery::NotDone, "{error}");
    assert!(error.to_string().starts_with("timed out"), "{error}");
    assert_eq!(server.connections(), 0);
}

fn through(scheme: &'static str, addr: SocketAddr, credentials: bool) -> Transport {
    let text = |text: &str| Zeroizing::new(text.to_owned());
    let proxy = Proxy {
        scheme,
        host: addr.ip().to_string(),
        port: addr.port(),
        credentials: credentials.then(|| (text("user"), text("s3cret%@:/"))),
        variable: "HTTPS_PROXY",
    };
    let origin = "http://acct.blob.invalid".to_owned();
    Transport::new(origin, Some(proxy), &[]).unwrap()
}

#[test]
fn failure_of_a_proxy_names_the_proxy_and_its_variable_and_means_that_nothing_was_sent() {
    for scheme in ["http", "socks5h"] {
        let addr = closed_port();
        let error = get(&through(scheme, addr, true), LONG).unwrap_err();
        let text =
            format!("the connection was refused (proxy {addr} from HTTPS_PROXY, while connecting)");
        expect(&error, Phase::Connect, Delivery::NotDone, &text);

        let server = Server::start(|_, _| Answer::Silence);
        let error = get(&through(scheme, server.addr, true), SHORT).unwrap_err();
        let text = format!(
            "timed out (proxy {} from HTTPS_PROXY, while connecting)",
            server.addr
        );
        expect(&error, Phase::Connect, Delivery::NotDone, &text);
    }

    let proxy = through("http", "127.0.0.1:9".parse().unwrap(), false);
    let unknown = Proxy {
        host: "proxy.invalid".to_owned(),
        ..proxy.proxy.unwrap()
    };
    let lookup: Arc<Lookup> = Arc::new(|_| Err(io::Error::other("no such name")));
    let roots = Roots::new(&[]);
    let transport = Transport::with(proxy.origin, Some(unknown), roots, lookup).unwrap();
    let error = get(&transport, LONG).unwrap_err();
    let text = "the host was not found (proxy proxy.invalid:9 from HTTPS_PROXY, while looking \
                up its name)";
    expect(&error, Phase::Resolve, Delivery::NotDone, text);

    for status in ["403 Forbidden", "502 Bad Gateway"] {
        let server = Server::start(move |_, _| reply(status, "", ""));
        let error = get(&through("http", server.addr, true), LONG).unwrap_err();
        let text = format!(
            "the proxy did not make the connection: it answered {} (proxy {} from \
             HTTPS_PROXY, while connecting)",
            &status[..3],
            server.addr
        );
        expect(&error, Phase::Connect, Delivery::NotDone, &text);
    }
}

#[test]
fn proxy_that_refuses_its_credentials_is_final_and_names_them() {
    let server = Server::start(|_, _| reply("407 Proxy Authentication Required", "", ""));
    for (given, text) in [
        (
            true,
            "the proxy does not accept its credentials (407); check user and password in \
             HTTPS_PROXY; it must take Basic authentication",
        ),
        (
            false,
            "the proxy asks for credentials (407); put them into HTTPS_PROXY, as in \
             http://USER:PASSWORD@HOST:PORT",
        ),
    ] {
        let error = get(&through("http", server.addr, given), LONG).unwrap_err();
        let text = format!(
            "{text} (proxy {} from HTTPS_PROXY, while connecting)",
            server.addr
        );
        expect(&error, Phase::Connect, Delivery::Refused, &text);
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
}

#[test]
fn credentials_reach_the_proxy_as_they_were_written() {
    let heads = Arc::new(parking_lot::Mutex::new(String::new()));
    let server = Server::start({
        let heads = Arc::clone(&heads);
        move |_, head| {
            heads.lock().push_str(head);
            reply("502 Bad Gateway", "", "")
        }
    });
    get(&through("http", server.addr, true), LONG).unwrap_err();
    // user:s3cret%@:/
    let header = "Proxy-Authorization: Basic dXNlcjpzM2NyZXQlQDov\r\n";
    let heads = heads.lock();
    assert!(heads.contains(header), "{heads}");
    assert!(
        heads.starts_with("CONNECT acct.blob.invalid:80 "),
        "{heads}"
    );
}

/// A SOCKS proxy that answers a connection's first bytes, and the next, with these.
fn socks(answers: &'static [&'static [u8]]) -> SocketAddr {
    use std::io::{Read as _, Write as _};

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 1024];
        for answer in answers {
            if !matches!(stream.read(&mut asked), Ok(1..)) {
                break;
            }
            stream.write_all(answer).unwrap();
        }
    });
    addr
}

#[test]
fn socks_proxy_is_used_and_its_refusal_is_told() {
    const CONNECTED: &[u8] = &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    get(
        &through("socks5h", socks(&[&[5, 0], CONNECTED, OK]), false),
        LONG,
    )
    .unwrap();
    let signed_in: &[&[u8]] = &[&[5, 2], &[1, 0], CONNECTED, OK];
    get(&through("socks5h", socks(signed_in), true), LONG).unwrap();
    get(
        &through("socks4a", socks(&[&[0, 90, 0, 0, 0, 0, 0, 0], OK]), false),
        LONG,
    )
    .unwrap();

    let rows: [(&[&[u8]], bool, Delivery, &str); 5] = [
        (
            &[&[5, 0xff]],
            false,
            Delivery::Refused,
            "the proxy asks for credentials (no acceptable auth methods); put them into \
             HTTPS_PROXY, as in socks5h://USER:PASSWORD@HOST:PORT",
        ),
        (
            &[&[5, 2], &[1, 1]],
            true,
            Delivery::Refused,
            "the proxy does not accept its credentials (password authentication failed); check \
             user and password in HTTPS_PROXY",
        ),
        (
            &[&[5, 0], &[5, 2, 0, 1, 0, 0, 0, 0, 0, 0]],
            false,
            Delivery::NotDone,
            "the proxy did not make the connection: connection not allowed by ruleset",
        ),
        (
            &[&[5, 0], &[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]],
            false,
            Delivery::NotDone,
            "the proxy did not make the connection: connection refused",
        ),
        (
            &[b"HTTP/1.1 400 Bad Request\r\n\r\n"],
            false,
            Delivery::NotDone,
            "the proxy did not make the connection: invalid response version",
        ),
    ];
    for (answers, credentials, delivery, text) in rows {
        let addr = socks(answers);
        let error = get(&through("socks5h", addr, credentials), LONG).unwrap_err();
        let text = format!("{text} (proxy {addr} from HTTPS_PROXY, while connecting)");
        expect(&error, Phase::Connect, delivery, &text);
    }
}

#[cfg(feature = "rustls")]
mod trust {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
    use ureq::tls::TlsProvider;

    use super::*;

    /// A server that shows this certificate and answers once on each connection. It makes no
    /// tunnels.
    fn serve(certificate: &CertificateDer<'static>, key: &KeyPair) -> SocketAddr {
        use std::io::{Read as _, Write as _};

        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = stream.unwrap();
                let mut stream = rustls::Stream::new(&mut session, &mut stream);
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut bytes = [0; 1024];
                    match stream.read(&mut bytes) {
                        Ok(read @ 1..) => head.extend_from_slice(&bytes[..read]),
                        _ => break,
                    }
                }
                if !head.is_empty() {
                    let status = match head.starts_with(b"CONNECT") {
                        true => "502 Bad Gateway",
                        false => "200 OK",
                    };
                    let rest = "Connection: close\r\nContent-Length: 0\r\n\r\n";
                    write!(stream, "HTTP/1.1 {status}\r\n{rest}").unwrap();
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            }
        });
        addr
    }

    fn params(name: &str, ca: IsCa) -> CertificateParams {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = ca;
        params
    }

    fn trusting(provider: TlsProvider, roots: &[Vec<u8>], addr: SocketAddr) -> Transport {
        let lookup: Arc<Lookup> = Arc::new(move |_| Ok(vec![addr]));
        let origin = "https://acct.blob.invalid".to_owned();
        Transport::with(origin, None, Roots::of(roots, provider), lookup).unwrap()
    }

    const PROVIDERS: &[TlsProvider] = &[
        TlsProvider::Rustls,
        #[cfg(feature = "native-tls")]
        TlsProvider::NativeTls,
    ];

    /// A server whose certificate a private CA issued, and that CA's certificate behind another one.
    fn serve_by_private_ca() -> (SocketAddr, [Vec<u8>; 2]) {
        let ca_key = KeyPair::generate().unwrap();
        let ca = params("ca.invalid", IsCa::Ca(BasicConstraints::Unconstrained));
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = params("acct.blob.invalid", IsCa::NoCa)
            .signed_by(&key, &Issuer::from_params(&ca, &ca_key))
            .unwrap();
        let other = params("other.invalid", IsCa::Ca(BasicConstraints::Unconstrained))
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap();
        let roots = [other.der().to_vec(), ca_certificate.der().to_vec()];
        (serve(leaf.der(), &key), roots)
    }

    #[test]
    fn certificate_of_a_private_ca_is_accepted_if_the_ca_is_given() {
        let (addr, roots) = serve_by_private_ca();
        for &provider in PROVIDERS {
            let transport = trusting(provider, &roots, addr);
            get(&transport, LONG).unwrap_or_else(|error| panic!("{provider:?}: {error:?}"));
            get(&transport, LONG).unwrap_or_else(|error| panic!("{provider:?}: {error:?}"));
        }
    }

    #[test]
    #[cfg_attr(
        windows,
        ignore = "Wine says that revocation could not be checked where Windows says CERT_E_CHAINING"
    )]
    fn certificate_of_a_private_ca_is_refused_with_the_ways_to_trust_the_ca() {
        let (addr, roots) = serve_by_private_ca();
        for &provider in PROVIDERS {
            for roots in [&roots[..0], &roots[..1]] {
                let error = get(&trusting(provider, roots, addr), LONG).unwrap_err();
                assert_eq!(error.delivery(), Delivery::Refused, "{error:?}");
                assert_eq!(error.phase(), Some(Phase::Tls), "{error:?}");
                for way in [
                    "--ca-file",
                    "AZMUTEX_CA_FILE",
                    "MutexOptions::ca_certificates",
                ] {
                    let text = error.to_string();
                    assert!(text.contains(way), "{provider:?}: no {way} in {text}");
                }
            }
        }
    }

    #[test]
    fn certificates_that_are_trusted_anyway_stay_so() {
        // What is trusted anyway stands second: of two sets, either one is enough.
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let leaf = params("acct.blob.invalid", IsCa::NoCa)
            .self_signed(&key)
            .unwrap();
        let given = params("x.invalid", IsCa::NoCa).self_signed(&other).unwrap();
        let addr = serve(leaf.der(), &key);
        let set = |der: &[u8]| Roots::of(&[der.to_vec()], TlsProvider::Rustls).0.remove(0);
        let roots = Roots(vec![set(given.der()), set(leaf.der())]);
        let lookup: Arc<Lookup> = Arc::new(move |_| Ok(vec![addr]));
        let origin = "https://acct.blob.invalid".to_owned();
        let transport = Transport::with(origin, None, roots, lookup).unwrap();
        get(&transport, LONG).unwrap();
        get(&transport, LONG).unwrap();
    }

    #[test]
    fn server_s_own_certificate_can_be_trusted_unless_it_is_a_ca_s() {
        let key = KeyPair::generate().unwrap();
        let own = params("acct.blob.invalid", IsCa::ExplicitNoCa)
            .self_signed(&key)
            .unwrap();
        let addr = serve(own.der(), &key);
        for &provider in PROVIDERS {
            let transport = trusting(provider, &[own.der().to_vec()], addr);
            get(&transport, LONG).unwrap_or_else(|error| panic!("{provider:?}: {error:?}"));
        }
        // As `openssl req -x509` makes it.
        let ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params("acct.blob.invalid", ca).self_signed(&key).unwrap();
        let addr = serve(own.der(), &key);
        let mut sets = vec![vec![own.der().to_vec()]];
        // Windows would accept it if the system trusted it, so there its issuer is unknown.
        if !cfg!(windows) {
            sets.push(vec![]);
        }
        for roots in sets {
            let transport = trusting(TlsProvider::Rustls, &roots, addr);
            let error = get(&transport, LONG).unwrap_err();
            assert_eq!(error.delivery(), Delivery::Refused, "{error:?}");
            assert_eq!(
                error.to_string(),
                "the server's certificate was refused: it is a CA's own (self-signed, with \
                 CA:TRUE), which is not accepted as a server's even if it is trusted; make it \
                 with basicConstraints CA:FALSE, or let a CA issue it and trust the CA \
                 (acct.blob.invalid:443, in the TLS handshake)"
            );
        }
    }

    #[test]
    fn proxy_with_https_is_met_by_tls() {
        let key = KeyPair::generate().unwrap();
        let own = params("127.0.0.1", IsCa::NoCa).self_signed(&key).unwrap();
        let addr = serve(own.der(), &key);
        let through = |roots: &[Vec<u8>]| {
            let proxy = through("https", addr, false).proxy;
            let roots = Roots::of(roots, TlsProvider::Rustls);
            let origin = "http://acct.blob.invalid".to_owned();
            Transport::with(origin, proxy, roots, Resolver::system()).unwrap()
        };
        let error = get(&through(&[own.der().to_vec()]), LONG).unwrap_err();
        let text = format!(
            "the proxy did not make the connection: it answered 502 (proxy {addr} from \
             HTTPS_PROXY, while connecting)"
        );
        expect(&error, Phase::Connect, Delivery::NotDone, &text);
        let error = get(&through(&[]), LONG).unwrap_err();
        let place = format!("(proxy {addr} from HTTPS_PROXY, in the TLS handshake)");
        assert!(error.to_string().ends_with(&place), "{error:?}");
    }

    #[test]
    fn certificate_for_another_name_is_not_called_one_of_an_unknown_ca() {
        let key = KeyPair::generate().unwrap();
        let own = params("other.invalid", IsCa::NoCa)
            .self_signed(&key)
            .unwrap();
        let addr = serve(own.der(), &key);
        let set = |der: &[u8]| Roots::of(&[der.to_vec()], TlsProvider::Rustls).0.remove(0);
        let unrelated = params("x.invalid", IsCa::NoCa)
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap();
        for sets in [[own.der(), unrelated.der()], [unrelated.der(), own.der()]] {
            let lookup: Arc<Lookup> = Arc::new(move |_| Ok(vec![addr]));
            let origin = "https://acct.blob.invalid".to_owned();
            let roots = Roots(sets.map(|der| set(der)).to_vec());
            let transport = Transport::with(origin, None, roots, lookup).unwrap();
            let error = get(&transport, LONG).unwrap_err();
            let text = error.to_string();
            assert!(
                text.starts_with("the server's certificate was refused (acct"),
                "{text}"
            );
            let cause = error.source().unwrap().to_string();
            assert!(cause.contains("not valid for name"), "{cause}");
        }
    }
}

#[test]
fn failure_behind_a_proxy_names_the_endpoint() {
    let server = Server::start(|_, head| match head.starts_with("CONNECT") {
        true => Answer::Reply("HTTP/1.1 200 OK\r\n\r\n".to_owned()),
        false => Answer::Close,
    });
    let error = get(&through("http", server.addr, false), LONG).unwrap_err();
    let text = "the connection was closed before the reply (acct.blob.invalid:80, while waiting \
                for the reply)";
    expect(&error, Phase::Reply, Delivery::Unknown, text);
}

#[test]
fn connections_that_died_together_are_closed_together() {
    const CONNECTIONS: usize = 8;
    let all_in = Barrier::new(CONNECTIONS);
    let dead = Arc::new(AtomicBool::new(false));
    let server = Server::start({
        let dead = Arc::clone(&dead);
        move |connection, _| match (dead.load(Ordering::SeqCst), connection) {
            (false, _) => {
                all_in.wait();
                reply("200 OK", "", "")
            }
            (true, 0..CONNECTIONS) => Answer::Silence,
            (true, _) => reply("200 OK", "", ""),
        }
    });
    let transport = to(server.addr);
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| get(&transport, LONG).unwrap());
        }
    });
    assert_eq!(server.connections(), CONNECTIONS);
    dead.store(true, Ordering::SeqCst);
    get(&transport, SHORT).unwrap_err();
    get(&transport, LONG).unwrap();
    // This connection works, and is used again.
    get(&transport, LONG).unwrap();
    assert_eq!(server.connections(), CONNECTIONS + 1);
}

#[test]
fn failures_of_one_pool_do_not_close_the_connections_of_the_next() {
    let server = Server::start(|connection, _| match connection {
        0 | 1 => Answer::Silence,
        _ => reply("200 OK", "", ""),
    });
    let transport = to(server.addr);
    let connections = transport.connections();
    let failed = connections.pool.read().clone();
    connections.close_idle(&failed, &transport.config);
    let next = connections.pool.read().clone();
    connections.close_idle(&failed, &transport.config);
    assert!(Arc::ptr_eq(
        &connections.pool.read().identity,
        &next.identity
    ));
}

#[test]
fn failure_to_connect_leaves_idle_connections_alone() {
    let server = Server::start(|_, _| reply("200 OK", "", ""));
    let addr = server.addr;
    let fails = Arc::new(AtomicBool::new(false));
    let transport = by_name("http", {
        let fails = Arc::clone(&fails);
        move |_| match fails.load(Ordering::SeqCst) {
            false => Ok(vec![addr]),
            true => Ok(vec![closed_port()]),
        }
    });
    get(&transport, LONG).unwrap();
    let before = transport.connections().pool.read().clone();
    fails.store(true, Ordering::SeqCst);
    transport.connections().resolver.expire_cached();
    let mut request = Request::new(message::Method::Get, "/".to_owned());
    request.needs_new_connection = true;
    transport.send(&request, None, LONG).unwrap_err();
    assert!(Arc::ptr_eq(
        &transport.connections().pool.read().identity,
        &before.identity
    ));
    get(&transport, LONG).unwrap();
    assert_eq!(server.connections(), 1);
}

#[test]
fn request_that_needs_a_new_connection_gets_one() {
    let server = Server::start(|_, _| reply("200 OK", "", ""));
    let transport = to(server.addr);
    get(&transport, LONG).unwrap();
    let mut request = Request::new(message::Method::Put, "/".to_owned());
    request.needs_new_connection = true;
    transport.send(&request, None, LONG).unwrap();
    assert_eq!(server.connections(), 2);
    get(&transport, LONG).unwrap();
    assert_eq!(server.connections(), 2, "the idle one is still there");
}

#[test]
fn host_is_looked_up_again_after_a_failure() {
    let old = Server::start(|_, _| Answer::Close);
    let new = Server::start(|_, _| reply("200 OK", "", ""));
    let (addrs, asked) = ([old.addr, new.addr], AtomicUsize::new(0));
    let transport = by_name("http", move |_| {
        Ok(vec![addrs[asked.fetch_add(1, Ordering::SeqCst).min(1)]])
    });
    get(&transport, LONG).unwrap_err();
    // The failover of a name server: the old address never works again.
    get(&transport, LONG).unwrap();
    assert_eq!((old.connections(), new.connections()), (1, 1));
}

#[cfg(feature = "rustls")]
#[test]
fn answer_that_is_not_tls_is_told_with_the_proxy_that_it_came_through() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        [(); 2].map(|()| {
            let (mut stream, _) = listener.accept().unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\n\r\n<html></html>")
                .unwrap();
            stream
        })
    });
    let transport = by_name("https", move |_| Ok(vec![addr]));
    let error = get(&transport, LONG).unwrap_err();
    let text = "what answered is not TLS; is this the port of https? (acct.blob.invalid:443, in the \
                TLS handshake)";
    expect(&error, Phase::Tls, Delivery::NotDone, text);

    let proxy = through("http", addr, true).proxy.unwrap();
    let origin = "https://acct.blob.invalid".to_owned();
    let transport = Transport::new(origin, Some(proxy), &[]).unwrap();
    let error = get(&transport, LONG).unwrap_err();
    let text = format!(
        "what answered is not TLS; is http://{addr} (from HTTPS_PROXY) the right proxy, and does it \
         show a page in place of what it blocks? (acct.blob.invalid:443, in the TLS handshake)"
    );
    expect(&error, Phase::Tls, Delivery::NotDone, &text);
    server.join().unwrap();
}
