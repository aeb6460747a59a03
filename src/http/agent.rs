//! The only code that knows `ureq`: an agent per process, one `send`, and what its errors mean.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use ureq::Agent;
use ureq::config::Config;
use ureq::http::{HeaderMap, Method, Request as HttpRequest, Uri};
// Not covered by ureq's semver promise, hence the `~` in the manifest.
use ureq::unversioned::resolver::{self, DefaultResolver, ResolvedSocketAddrs};
use ureq::unversioned::transport::{
    self, Buffers, ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout, TcpConnector,
};

use super::message::{self, Reply, Request};
use super::process::PerProcess;
use super::progress::{self, Progress};
use super::resolver::{Lookup, Resolver};
use crate::error::{Error, Phase};

/// Limits on replies. Headers hold up to 8 KiB of a blob's metadata and must fit into each
/// connection's buffer; error bodies are small, a page of a list is not.
const MAX_HEADERS: usize = 16 * 1024;
const MAX_BODY: u64 = 64 * 1024;
pub(crate) const MAX_PAGE: u64 = 8 * 1024 * 1024;

/// The most addresses used for one host; ureq's list has room for 16.
const MAX_ADDRESSES: usize = 16;

/// The most idle connections. There are never more than were in use at once: about 20 with 1,000
/// guards, and a few in most programs. With a lower limit, connections would only be made again.
const MAX_IDLE: usize = 32;

/// Connections to one service, shared by all threads of a process.
pub(crate) struct Transport {
    connections: PerProcess<Connections>,
    config: Config,
    lookup: Arc<Lookup>,
    /// Scheme, host and port.
    origin: String,
    /// Host and port, as errors show them.
    host: String,
}

impl Transport {
    /// `origin`: such as `https://account.blob.core.windows.net`. `loopback`: whether its host is
    /// this machine, which is never reached through a proxy.
    pub(crate) fn new(origin: String, loopback: bool) -> Self {
        let proxy = proxy(loopback, ureq::Proxy::try_from_env);
        Self::with(origin, proxy, Resolver::system())
    }

    fn with(origin: String, proxy: Option<ureq::Proxy>, lookup: Arc<Lookup>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .user_agent(concat!("azmutex/", env!("CARGO_PKG_VERSION")))
            .accept("*/*")
            .max_response_header_size(MAX_HEADERS)
            // All headers must fit; one byte over the limit shows that they are too large.
            .input_buffer_size(MAX_HEADERS + 1)
            .output_buffer_size(16 * 1024)
            // Renewals are 20 seconds apart, and should find their connection still open.
            .max_idle_age(Duration::from_secs(90))
            .max_idle_connections(MAX_IDLE)
            .max_idle_connections_per_host(MAX_IDLE);
        let config = tls(config).build();
        Self {
            connections: PerProcess::new(Connections::new(&config, &lookup)),
            host: origin
                .parse()
                .as_ref()
                .map(progress::host_of)
                .unwrap_or_default(),
            config,
            lookup,
            origin,
        }
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// The endpoint's host and port.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Sends `request` and reads the whole reply within `timeout`, which includes name resolution
    /// and connecting.
    ///
    /// If it fails on an established connection, all idle connections are closed, since what breaks
    /// one (a NAT table, a VPN, a failover) breaks all of them at once: the next attempt makes a new
    /// one. Connections in use are left alone.
    pub(crate) fn send(
        &self,
        request: &Request<'_>,
        max_body: Option<u64>,
        timeout: Duration,
    ) -> Result<Reply, Error> {
        let connections = self.connections();
        let pool = connections.pool.read().clone();
        let agent = if request.needs_new_connection {
            connections.new_pool(&self.config).agent
        } else {
            pool.agent.clone()
        };
        progress::start();
        // ureq is not known to panic; if it does, a guard must survive that.
        catch_unwind(AssertUnwindSafe(|| {
            self.send_on(&agent, request, max_body, timeout)
        }))
        .unwrap_or_else(|_| Err(ureq::Error::Other("it panicked".into()).into()))
        .map_err(|failure| {
            connections.resolver.expire_cached();
            let progress = progress::current();
            if progress.phase >= Phase::Send {
                connections.close_idle(&pool, &self.config);
            }
            failure.into_error(progress, &self.host)
        })
    }

    fn send_on(
        &self,
        agent: &Agent,
        request: &Request<'_>,
        max_body: Option<u64>,
        timeout: Duration,
    ) -> Result<Reply, Failure> {
        let uri = format!("{}{}", self.origin, *request.target());
        let mut http = HttpRequest::builder()
            .uri(uri)
            .method(match request.method {
                message::Method::Get => Method::GET,
                message::Method::Head => Method::HEAD,
                message::Method::Post => Method::POST,
                message::Method::Put => Method::PUT,
            });
        for (name, value) in &request.headers {
            http = http.header(&**name, value);
        }
        // A timeout of zero would mean none.
        let timeout = timeout.max(Duration::from_millis(1));
        let result = if matches!(request.method, message::Method::Post | message::Method::Put) {
            let http = http.body(request.body).map_err(ureq::Error::from)?;
            let http = agent
                .configure_request(http)
                .timeout_global(Some(timeout))
                .build();
            agent.run(http)
        } else {
            let http = http.body(()).map_err(ureq::Error::from)?;
            let http = agent
                .configure_request(http)
                .timeout_global(Some(timeout))
                .build();
            agent.run(http)
        };
        let mut response = result?;
        let headers = read_headers(response.headers());
        let status = response.status().as_u16();
        let body = if request.method == message::Method::Head {
            Vec::new()
        } else {
            let limit = max_body.unwrap_or(MAX_BODY);
            let body = response.body_mut().with_config().limit(limit).read_to_vec();
            body.map_err(|error| Failure {
                // The body would be as large the next time, and reading changes nothing.
                permanent: matches!(error, ureq::Error::BodyExceedsLimit(_))
                    && request.method == message::Method::Get,
                error,
            })?
        };
        Ok(Reply {
            status,
            headers,
            body,
        })
    }

    /// Closes all idle connections.
    pub(crate) fn reconnect(&self) {
        let connections = self.connections();
        *connections.pool.write() = connections.new_pool(&self.config);
    }

    fn connections(&self) -> &Connections {
        self.connections
            .get(|| Connections::new(&self.config, &self.lookup))
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// The proxy to use. None for this machine: what a proxy calls `localhost` is the proxy's own
/// machine.
fn proxy(
    loopback: bool,
    from_environment: impl FnOnce() -> Option<ureq::Proxy>,
) -> Option<ureq::Proxy> {
    if loopback { None } else { from_environment() }
}

/// One process's connections of a [`Transport`].
struct Connections {
    pool: RwLock<Pool>,
    connector: SharedConnector,
    resolver: Arc<Resolver>,
}

/// An agent and the idle connections that it keeps. They are closed when the last clone is dropped.
#[derive(Clone)]
struct Pool {
    agent: Agent,
    /// Distinguishes one pool from the next.
    identity: Arc<()>,
}

impl Connections {
    fn new(config: &Config, lookup: &Arc<Lookup>) -> Self {
        let connector = SharedConnector::new();
        let resolver = Arc::new(Resolver::new(Arc::clone(lookup)));
        Self {
            pool: RwLock::new(new_pool(config, &connector, &resolver)),
            connector,
            resolver,
        }
    }

    fn new_pool(&self, config: &Config) -> Pool {
        new_pool(config, &self.connector, &self.resolver)
    }

    /// Closes the idle connections of `failed`, unless another request that failed has done so.
    fn close_idle(&self, failed: &Pool, config: &Config) {
        let mut pool = self.pool.write();
        if Arc::ptr_eq(&pool.identity, &failed.identity) {
            *pool = self.new_pool(config);
        }
    }
}

fn new_pool(config: &Config, connector: &SharedConnector, resolver: &Arc<Resolver>) -> Pool {
    let resolver = SharedResolver(Arc::clone(resolver));
    Pool {
        agent: Agent::with_parts(config.clone(), connector.clone(), resolver),
        identity: Arc::new(()),
    }
}

#[derive(Debug)]
struct SharedResolver(Arc<Resolver>);

impl resolver::Resolver for SharedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        progress::resolving(uri, || {
            let host = match (uri.scheme(), uri.authority()) {
                (Some(scheme), Some(authority)) => {
                    DefaultResolver::host_and_port(scheme, authority)
                }
                _ => None,
            };
            let host = host.ok_or(ureq::Error::HostNotFound)?;
            let addresses = match host.parse() {
                Ok(address) => vec![address],
                Err(_) => match self.0.resolve(&host, *timeout.after) {
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                        return Err(ureq::Error::Timeout(ureq::Timeout::Resolve));
                    }
                    result => result?,
                },
            };
            let mut out = resolver::Resolver::empty(self);
            for address in addresses.into_iter().take(MAX_ADDRESSES) {
                out.push(address);
            }
            Ok(out)
        })
    }
}

/// ureq's own connectors, with each step recorded. Successive agents share them, so that TLS
/// sessions can be resumed.
#[derive(Debug, Clone)]
struct SharedConnector(Arc<dyn Connector<(), Out = Connection>>);

impl SharedConnector {
    fn new() -> Self {
        let chain =
            ().chain(ConnectProxyConnector::default())
                .chain(TcpConnector::default())
                .chain(Handshaking);
        #[cfg(feature = "rustls")]
        let chain = chain.chain(transport::RustlsConnector::default());
        #[cfg(feature = "native-tls")]
        let chain = chain.chain(transport::NativeTlsConnector::default());
        Self(Arc::new(chain.chain(Connected)))
    }
}

impl Connector for SharedConnector {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<Connection>, ureq::Error> {
        progress::connecting(details.uri, || self.0.connect(details, chained))
    }
}

/// Records that a TLS handshake begins.
#[derive(Debug)]
struct Handshaking;

impl<In: transport::Transport> Connector<In> for Handshaking {
    type Out = In;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<In>, ureq::Error> {
        if details.needs_tls() {
            progress::handshaking(details.uri);
        }
        Ok(chained)
    }
}

/// Wraps the transport of the connectors before it in a [`Connection`].
#[derive(Debug)]
struct Connected;

impl<In: transport::Transport> Connector<In> for Connected {
    type Out = Connection;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Connection>, ureq::Error> {
        Ok(chained.map(|transport| Connection(Box::new(transport))))
    }
}

/// A connection that records when something is sent.
#[derive(Debug)]
struct Connection(Box<dyn transport::Transport>);

impl transport::Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if amount == 0 {
            return self.0.transmit_output(amount, timeout);
        }
        progress::sending(|| self.0.transmit_output(amount, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

#[cfg(not(any(feature = "rustls", feature = "native-tls")))]
fn tls(
    config: ureq::config::ConfigBuilder<ureq::typestate::AgentScope>,
) -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    config
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn tls(
    config: ureq::config::ConfigBuilder<ureq::typestate::AgentScope>,
) -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

    let provider = if cfg!(feature = "rustls") {
        TlsProvider::Rustls
    } else {
        TlsProvider::NativeTls
    };
    // The platform's TLS library uses the platform's certificates.
    let roots = if cfg!(any(feature = "platform-verifier", not(feature = "rustls"))) {
        RootCerts::PlatformVerifier
    } else {
        RootCerts::WebPki
    };
    config.tls_config(
        TlsConfig::builder()
            .provider(provider)
            .root_certs(roots)
            .build(),
    )
}

fn read_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut out = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        // Names are already in lower case. Values that are not text are not needed.
        if let Ok(value) = value.to_str() {
            out.push((name.as_str().to_owned(), value.to_owned()));
        }
    }
    out
}

/// A request that failed.
struct Failure {
    error: ureq::Error,
    /// Whether sending it again is pointless.
    permanent: bool,
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Self {
        Self {
            error,
            permanent: false,
        }
    }
}

impl Failure {
    /// What went wrong, without the URL, which may hold a SAS.
    fn into_error(self, progress: Progress, endpoint: &str) -> Error {
        use ureq::Error as E;

        let phase = progress.phase;
        let (detail, permanent, has_details) = match &self.error {
            E::BadUri(_) | E::Http(_) => {
                // Their text may quote the URL.
                return Error::config("the endpoint, container and key do not form a valid URL");
            }
            E::Timeout(_) => ("timed out".into(), false, false),
            E::HostNotFound => ("the host was not found".into(), false, false),
            E::Io(error) => {
                let (detail, permanent) = io_failure(error, phase);
                (detail.into(), permanent, true)
            }
            E::ConnectProxyFailed(reason) => {
                let (detail, permanent) = proxy_refusal(reason);
                (detail, permanent, false)
            }
            E::LargeResponseHeader(..) => {
                ("the reply's headers are too large".into(), false, false)
            }
            E::BodyExceedsLimit(_) => ("the reply is too large".into(), false, false),
            E::Protocol(_) if phase == Phase::Connect => {
                ("the proxy's reply is not HTTP".into(), false, true)
            }
            E::Protocol(_) => ("the reply is not HTTP".into(), false, true),
            E::TlsRequired => {
                let text = "`https` needs one of the features `rustls` and `native-tls`";
                (text.into(), true, false)
            }
            #[cfg(feature = "rustls")]
            E::Rustls(_) => ("TLS failed".into(), true, true),
            #[cfg(feature = "native-tls")]
            E::NativeTls(_) => ("TLS failed".into(), false, true),
            E::Tls(_) => ("TLS failed".into(), true, true),
            E::Other(_) => ("the HTTP client failed".into(), false, true),
            _ => (Cow::from("the request failed"), false, true),
        };
        let error = Error::transport(detail, phase).with_host(match progress.host.as_str() {
            "" => endpoint.to_owned(),
            host => host.to_owned(),
        });
        let error = match has_details {
            true => error.with_source(self.error.into_io()),
            false => error,
        };
        match self.permanent || permanent {
            true => error.permanent(),
            false => error,
        }
    }
}

/// Why a connection failed, and whether it would fail in the same way again.
fn io_failure(error: &io::Error, phase: Phase) -> (&'static str, bool) {
    use io::ErrorKind as K;

    let text = match (error.kind(), phase) {
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
        (K::InvalidData, _) => {
            let message = error.to_string();
            // rustls says this of every certificate that it refuses.
            if !message.contains("peer certificate") {
                return ("TLS failed", false);
            }
            if message.contains("UnknownIssuer") && !cfg!(feature = "platform-verifier") {
                let text = "the server's certificate was refused; if your organization issued it, \
                            build with the feature `platform-verifier`, which trusts what the \
                            system trusts";
                return (text, true);
            }
            return ("the server's certificate was refused", true);
        }
        _ => "the connection failed",
    };
    (text, false)
}

/// Why a proxy did not connect, and whether it would answer the same again.
fn proxy_refusal(reason: &str) -> (Cow<'static, str>, bool) {
    let mut numbers = reason.split(|c: char| !c.is_ascii_digit());
    match numbers.find(|number| !number.is_empty()) {
        Some("407") => {
            let text = "the proxy asks for credentials (407); put them into the proxy's URL, as in \
                        http://USER:PASSWORD@HOST:PORT";
            (text.into(), true)
        }
        Some(status) => {
            let text = format!("the proxy did not make the connection: it answered {status}");
            (text.into(), false)
        }
        None => ("the proxy did not answer".into(), false),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::net::{SocketAddr, TcpListener};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;

    use super::super::test_server::{Answer, Server, reply};
    use super::*;
    use crate::error::{Delivery, ErrorKind};

    /// How long a failing test may take.
    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    fn to(addr: SocketAddr) -> Transport {
        Transport::with(format!("http://{addr}"), None, Resolver::system())
    }

    /// A transport to a name that no system knows, with its own lookup.
    fn by_name(
        scheme: &str,
        lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Transport {
        let origin = format!("{scheme}://acct.blob.invalid");
        Transport::with(origin, None, Arc::new(lookup))
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
        let error = get(&to(addr), LONG).unwrap_err();
        let text = format!("the connection was refused ({addr}, while connecting)");
        expect(&error, Phase::Connect, Delivery::NotDone, &text);

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

    fn through(proxy: SocketAddr) -> Transport {
        let proxy = ureq::Proxy::new(&format!("http://user:s3cret@{proxy}")).unwrap();
        let origin = "http://acct.blob.invalid".to_owned();
        Transport::with(origin, Some(proxy), Resolver::system())
    }

    #[test]
    fn failure_of_a_proxy_names_the_proxy_and_means_that_nothing_was_sent() {
        let addr = closed_port();
        let error = get(&through(addr), LONG).unwrap_err();
        let text = format!("the connection was refused (proxy {addr}, while connecting)");
        expect(&error, Phase::Connect, Delivery::NotDone, &text);

        let server = Server::start(|_, _| reply("502 Bad Gateway", "", ""));
        let error = get(&through(server.addr), LONG).unwrap_err();
        let text = format!(
            "the proxy did not make the connection: it answered 502 (proxy {}, while connecting)",
            server.addr
        );
        expect(&error, Phase::Connect, Delivery::NotDone, &text);

        let server = Server::start(|_, _| Answer::Silence);
        let error = get(&through(server.addr), SHORT).unwrap_err();
        let text = format!("timed out (proxy {}, while connecting)", server.addr);
        expect(&error, Phase::Connect, Delivery::NotDone, &text);

        let server = Server::start(|_, _| reply("407 Proxy Authentication Required", "", ""));
        let error = get(&through(server.addr), LONG).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("the proxy asks for credentials (407)"),
            "{error}"
        );
        assert_eq!(error.delivery(), Delivery::Refused);
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }

    #[test]
    fn failure_behind_a_proxy_names_the_endpoint() {
        let server = Server::start(|_, head| match head.starts_with("CONNECT") {
            true => Answer::Reply("HTTP/1.1 200 OK\r\n\r\n".to_owned()),
            false => Answer::Close,
        });
        let error = get(&through(server.addr), LONG).unwrap_err();
        let text = "the connection was closed before the reply (acct.blob.invalid:80, while waiting \
                    for the reply)";
        expect(&error, Phase::Reply, Delivery::Unknown, text);
    }

    #[test]
    fn proxy_of_the_environment_is_not_used_for_this_machine() {
        let environment = || ureq::Proxy::new("http://127.0.0.1:9").ok();
        assert!(proxy(true, environment).is_none());
        assert!(proxy(false, environment).is_some());
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
}
