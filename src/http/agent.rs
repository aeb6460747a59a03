//! The only code that knows `ureq`: an agent per process, one `send`, and what its errors mean.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use ureq::Agent;
use ureq::ProxyProtocol;
use ureq::config::Config;
use ureq::http::{HeaderMap, Method, Request as HttpRequest, Uri};
// Not covered by ureq's semver promise, hence the `~` in the manifest.
use ureq::unversioned::resolver::{self, DefaultResolver, ResolvedSocketAddrs};
use ureq::unversioned::transport::{
    self, Buffers, ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout,
    SocksConnector, TcpConnector,
};

use super::message::{self, Reply, Request};
use super::process::PerProcess;
use super::progress::{self, Progress};
use super::proxy::Proxy;
use super::resolver::{Lookup, Resolver, is_loopback};
use crate::error::{Error, Phase};

/// Limits on replies. Headers hold up to 8 KiB of a blob's metadata and must fit into each
/// connection's buffer; error bodies are small, a page of a list is not.
const MAX_HEADERS: usize = 16 * 1024;
const MAX_BODY: u64 = 64 * 1024;
pub(crate) const MAX_PAGE: u64 = 8 * 1024 * 1024;

const OUTPUT_BUFFER: usize = 16 * 1024;

/// The most addresses used for one host; ureq's list has room for 16.
const MAX_ADDRESSES: usize = 16;

/// The most idle connections. There are never more than were in use at once: about 20 with 1,000
/// guards, and a few in most programs. With a lower limit, connections would only be made again.
const MAX_IDLE: usize = 32;

/// Connections to one service, shared by all threads of a process.
pub(crate) struct Transport {
    connections: PerProcess<Connections>,
    config: Config,
    roots: Roots,
    lookup: Arc<Lookup>,
    proxy: Option<Proxy>,
    /// Scheme, host and port.
    origin: String,
    /// Host and port, as errors show them.
    host: String,
    /// Whether there was ever a reply.
    reached: AtomicBool,
}

impl Transport {
    /// `origin`: such as `https://account.blob.core.windows.net`. `proxy`: the one to reach it
    /// through; the environment is not read here. `roots`: the certificates to trust, in DER, besides
    /// those that the TLS library trusts.
    pub(crate) fn new(
        origin: String,
        proxy: Option<Proxy>,
        roots: &[Vec<u8>],
    ) -> Result<Self, Error> {
        Self::with(origin, proxy, Roots::new(roots), Resolver::system())
    }

    fn with(
        origin: String,
        proxy: Option<Proxy>,
        roots: Roots,
        lookup: Arc<Lookup>,
    ) -> Result<Self, Error> {
        let through = proxy.as_ref().map(for_ureq).transpose();
        let through = through.map_err(|_| Error::config("the proxy's URL is not valid"))?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(through)
            .user_agent(concat!("azmutex/", env!("CARGO_PKG_VERSION")))
            .accept("*/*")
            .max_response_header_size(MAX_HEADERS)
            // All headers must fit; one byte over the limit shows that they are too large.
            .input_buffer_size(MAX_HEADERS + 1)
            .output_buffer_size(OUTPUT_BUFFER)
            // Renewals are 20 seconds apart, and should find their connection still open.
            .max_idle_age(Duration::from_secs(90))
            .max_idle_connections(MAX_IDLE)
            .max_idle_connections_per_host(MAX_IDLE);
        let config = config.build();
        Ok(Self {
            connections: PerProcess::new(Connections::new(&config, &roots, &lookup)),
            host: origin
                .parse()
                .as_ref()
                .map(progress::host_of)
                .unwrap_or_default(),
            config,
            roots,
            lookup,
            proxy,
            origin,
            reached: AtomicBool::new(false),
        })
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// The endpoint's host and port.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The proxy that it is reached through.
    pub(crate) fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
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
        .inspect(|_| self.reached.store(true, Ordering::Relaxed))
        .map_err(|failure| {
            connections.resolver.expire_cached();
            let progress = progress::current();
            if progress.phase >= Phase::Send {
                connections.close_idle(&pool, &self.config);
            }
            failure.into_error(progress, self)
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
                message::Method::Put => Method::PUT,
            });
        for (name, value) in &request.headers {
            http = http.header(&**name, value);
        }
        let result = if request.method == message::Method::Put {
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

    /// Whether the endpoint is on this machine.
    fn is_here(&self) -> bool {
        let host = self.host.rsplit_once(':');
        host.is_some_and(|(host, _)| is_loopback(host))
    }

    /// Whether an emulator such as Azurite is meant: on this machine, or on its usual port.
    pub(crate) fn may_be_emulator(&self) -> bool {
        self.is_here() || self.host.ends_with(":10000")
    }

    fn connections(&self) -> &Connections {
        self.connections
            .get(|| Connections::new(&self.config, &self.roots, &self.lookup))
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

fn for_ureq(proxy: &Proxy) -> Result<ureq::Proxy, ureq::Error> {
    let builder = ureq::Proxy::builder(ProxyProtocol::try_from(proxy.scheme)?)
        .host(&proxy.host)
        .port(proxy.port);
    match &proxy.credentials {
        Some((user, password)) => builder.username(user).password(password).build(),
        None => builder.build(),
    }
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
    fn new(config: &Config, roots: &Roots, lookup: &Arc<Lookup>) -> Self {
        let connector = SharedConnector::new(roots);
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
struct SharedConnector(Arc<Chains>);

#[derive(Debug)]
struct Chains {
    /// One for each set of trusted certificates; there is no telling in advance which of them a
    /// server's certificate goes with.
    chains: Vec<Box<dyn Connector<(), Out = Connection>>>,
    /// The one that connected last.
    last: AtomicUsize,
}

impl SharedConnector {
    fn new(roots: &Roots) -> Self {
        Self(Arc::new(Chains {
            chains: roots.0.iter().map(chain).collect(),
            last: AtomicUsize::new(0),
        }))
    }
}

/// Connectors that trust what `tls` says.
fn chain(tls: &Config) -> Box<dyn Connector<(), Out = Connection>> {
    let chain =
        ().chain(ToSocksProxy(SocksConnector::default()))
            .chain(ConnectProxyConnector::default())
            .chain(TcpConnector::default())
            .chain(Handshaking);
    #[cfg(feature = "rustls")]
    let chain = chain.chain(Tls(transport::RustlsConnector::default(), tls.clone()));
    #[cfg(feature = "native-tls")]
    let chain = chain.chain(Tls(transport::NativeTlsConnector::default(), tls.clone()));
    let _ = tls;
    Box::new(chain.chain(Connected))
}

impl Connector for SharedConnector {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<Connection>, ureq::Error> {
        let Chains { chains, last } = &*self.0;
        let first = last.load(Ordering::Relaxed);
        let mut refusal = None;
        for index in (first..chains.len()).chain(0..first) {
            let connect = || chains[index].connect(details, chained);
            match progress::connecting(details.uri, connect) {
                Ok(connection) => {
                    last.store(index, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(error @ ureq::Error::Timeout(_)) => return Err(error),
                Err(error) if progress::current().phase != Phase::Tls => return Err(error),
                // Which of the sets lacks the issuer says the least.
                Err(error) => match &refusal {
                    Some(before) if !is_unknown_issuer(before) => {}
                    _ => refusal = Some(error),
                },
            }
        }
        Err(refusal.unwrap_or(ureq::Error::ConnectionFailed))
    }
}

fn is_unknown_issuer(error: &ureq::Error) -> bool {
    error.to_string().contains("UnknownIssuer")
}

/// Records that a SOCKS proxy is connected to.
#[derive(Debug)]
struct ToSocksProxy(SocksConnector);

impl<In: transport::Transport> Connector<In> for ToSocksProxy {
    type Out = <SocksConnector as Connector<In>>::Out;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let connect = || self.0.connect(details, chained);
        match details.config.proxy() {
            Some(proxy)
                if !matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) =>
            {
                progress::connecting(proxy.uri(), connect)
            }
            _ => connect(),
        }
    }
}

/// A connector that makes TLS from its own configuration instead of the request's: that is read
/// once, and not for every connection.
#[cfg(any(feature = "rustls", feature = "native-tls"))]
#[derive(Debug)]
struct Tls<C>(C, Config);

#[cfg(any(feature = "rustls", feature = "native-tls"))]
impl<In: transport::Transport, C: Connector<In>> Connector<In> for Tls<C> {
    type Out = C::Out;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<C::Out>, ureq::Error> {
        let details = ConnectionDetails {
            uri: details.uri,
            addrs: details.resolver.empty(),
            config: &self.1,
            request_level: false,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: Arc::clone(&details.current_time),
            run_connector: Arc::clone(&details.run_connector),
            register_shutdown: Arc::clone(&details.register_shutdown),
        };
        self.0.connect(&details, chained)
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

/// Configurations that differ in the certificates that they trust. A server's certificate must go
/// with one of them.
#[derive(Clone)]
struct Roots(Vec<Config>);

impl Roots {
    #[cfg(not(any(feature = "rustls", feature = "native-tls")))]
    fn new(_: &[Vec<u8>]) -> Self {
        Self(vec![Config::default()])
    }

    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    fn new(certificates: &[Vec<u8>]) -> Self {
        Self::of(
            certificates,
            match cfg!(feature = "rustls") {
                true => ureq::tls::TlsProvider::Rustls,
                false => ureq::tls::TlsProvider::NativeTls,
            },
        )
    }

    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    fn of(certificates: &[Vec<u8>], provider: ureq::tls::TlsProvider) -> Self {
        use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

        // The platform's TLS library uses the platform's certificates.
        let usual = if cfg!(feature = "platform-verifier") || provider == TlsProvider::NativeTls {
            RootCerts::PlatformVerifier
        } else {
            RootCerts::WebPki
        };
        let own = certificates
            .iter()
            .map(|der| Certificate::from_der(der).to_owned());
        let own: Vec<_> = own.collect();
        let sets = match own.is_empty() {
            true => vec![usual],
            false => vec![RootCerts::new_with_certs(&own), usual],
        };
        let config = |roots| {
            let tls = TlsConfig::builder().provider(provider).root_certs(roots);
            Agent::config_builder()
                .tls_config(tls.build())
                .input_buffer_size(MAX_HEADERS + 1)
                .output_buffer_size(OUTPUT_BUFFER)
                .build()
        };
        Self(sets.into_iter().map(config).collect())
    }
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
    fn into_error(self, progress: Progress, transport: &Transport) -> Error {
        use ureq::Error as E;

        let phase = progress.phase;
        let proxy = transport.proxy.as_ref();
        let mut unheard = false;
        let (detail, permanent, has_details) = match (&self.error, proxy) {
            (E::BadUri(_) | E::Http(_), _) => {
                // Their text may quote the URL.
                return Error::config("the endpoint, container and key do not form a valid URL");
            }
            (E::Timeout(_), _) => ("timed out".into(), false, false),
            (E::HostNotFound, _) => ("the host was not found".into(), false, false),
            (E::Io(error), Some(proxy))
                if progress.is_proxy && phase == Phase::Connect && is_answer_of_socks(error) =>
            {
                let (detail, permanent) = socks_refusal(error, proxy);
                (detail, permanent, false)
            }
            (E::Io(error), _)
                if error.kind() == io::ErrorKind::ConnectionRefused && !progress.is_proxy =>
            {
                unheard = transport.is_here() && !transport.reached.load(Ordering::Relaxed);
                let text = match transport.may_be_emulator() {
                    true => {
                        "the connection was refused; is Azurite (or `azmutex emulator`) running?"
                    }
                    false => "the connection was refused",
                };
                (text.into(), false, true)
            }
            (E::Io(error), _) => {
                let (detail, permanent) = io_failure(error, phase);
                (detail.into(), permanent, true)
            }
            (E::ConnectProxyFailed(reason), Some(proxy)) => {
                let (detail, permanent) = proxy_refusal(reason, proxy);
                (detail, permanent, false)
            }
            (E::LargeResponseHeader(..), _) => {
                ("the reply's headers are too large".into(), false, false)
            }
            (E::BodyExceedsLimit(_), _) => ("the reply is too large".into(), false, false),
            (E::Protocol(_), _) if phase == Phase::Connect => {
                ("the proxy's reply is not HTTP".into(), false, true)
            }
            (E::Protocol(_), _) => ("the reply is not HTTP".into(), false, true),
            (E::TlsRequired, _) => {
                let text = "`https` needs one of the features `rustls` and `native-tls`";
                (text.into(), true, false)
            }
            #[cfg(feature = "rustls")]
            (E::Rustls(error), _) => match error.to_string().contains("No CA certificates") {
                true => (NO_ROOTS.into(), true, false),
                false => ("TLS failed".into(), true, true),
            },
            #[cfg(feature = "native-tls")]
            (E::NativeTls(error), _) => match error.to_string().contains("certificate") {
                true => (UNKNOWN_ISSUER.into(), true, true),
                false => ("TLS failed".into(), false, true),
            },
            (E::Tls(_), _) => ("TLS failed".into(), true, true),
            (E::Other(_), _) => ("the HTTP client failed".into(), false, true),
            _ => (Cow::from("the request failed"), false, true),
        };
        let host = match proxy.filter(|_| progress.is_proxy) {
            Some(proxy) => format!("proxy {} from {}", progress.host, proxy.variable),
            None if progress.host.is_empty() => transport.host.clone(),
            None => progress.host,
        };
        let mut error = Error::transport(detail, phase).with_host(host);
        if has_details {
            error = error.with_source(self.error.into_io());
        }
        if unheard {
            error = error.unheard();
        }
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
            let text = match () {
                _ if message.contains("UnknownIssuer") => UNKNOWN_ISSUER,
                _ if message.contains("CaUsedAsEndEntity") => {
                    "the server's certificate was refused: it is a CA's own (self-signed, with \
                     CA:TRUE), which is not accepted as a server's even if it is trusted; make it \
                     with basicConstraints CA:FALSE, or let a CA issue it and trust the CA"
                }
                _ => "the server's certificate was refused",
            };
            return (text, true);
        }
        _ => "the connection failed",
    };
    (text, false)
}

const UNKNOWN_ISSUER: &str = match cfg!(any(feature = "platform-verifier", not(feature = "rustls")))
{
    true => {
        "the server's certificate was refused: nobody whom this system trusts issued it; add the \
         CA to the system's certificates, or name its PEM file with --ca-file, AZMUTEX_CA_FILE or \
         MutexOptions::ca_certificates"
    }
    false => {
        "the server's certificate was refused: no public CA issued it; if your organization did, \
         build with the feature `platform-verifier`, which trusts what the system trusts, or name \
         the CA's PEM file with --ca-file, AZMUTEX_CA_FILE or MutexOptions::ca_certificates"
    }
};

#[cfg(feature = "rustls")]
const NO_ROOTS: &str = "this system has no CA certificates; install its package `ca-certificates`, \
                        or name a PEM file with SSL_CERT_FILE, --ca-file, AZMUTEX_CA_FILE or \
                        MutexOptions::ca_certificates";

/// Why a proxy did not connect, and whether it would answer the same again.
fn proxy_refusal(reason: &str, proxy: &Proxy) -> (Cow<'static, str>, bool) {
    let mut numbers = reason.split(|c: char| !c.is_ascii_digit());
    match numbers.find(|number| !number.is_empty()) {
        Some("407") => (refused_credentials(proxy, "407").into(), true),
        Some(status) => {
            let text = format!("the proxy did not make the connection: it answered {status}");
            (text.into(), false)
        }
        None => ("the proxy did not answer".into(), false),
    }
}

/// Whether it is ureq's word for what a SOCKS proxy answered, and no failure to reach it.
fn is_answer_of_socks(error: &io::Error) -> bool {
    use io::ErrorKind as K;

    error.raw_os_error().is_none()
        && matches!(
            error.kind(),
            K::Other | K::PermissionDenied | K::InvalidData | K::InvalidInput
        )
}

fn socks_refusal(error: &io::Error, proxy: &Proxy) -> (Cow<'static, str>, bool) {
    let reason = error.to_string();
    if ["auth", "invalid username", "invalid password"]
        .iter()
        .any(|word| reason.contains(word))
    {
        return (refused_credentials(proxy, &reason).into(), true);
    }
    let text = format!("the proxy did not make the connection: {reason}");
    (text.into(), false)
}

fn refused_credentials(proxy: &Proxy, reason: &str) -> String {
    let Proxy {
        variable, scheme, ..
    } = proxy;
    match proxy.credentials {
        Some(_) => format!(
            "the proxy does not accept its credentials ({reason}); check user and password in \
             {variable}{}",
            match *scheme {
                "http" | "https" => "; it must take Basic authentication",
                _ => "",
            }
        ),
        None => format!(
            "the proxy asks for credentials ({reason}); put them into {variable}, as in \
             {scheme}://USER:PASSWORD@HOST:PORT"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::net::{SocketAddr, TcpListener};
    use std::sync::Barrier;
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
        drop(server);
        transport.reconnect();
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
            let text = format!(
                "the connection was refused (proxy {addr} from HTTPS_PROXY, while connecting)"
            );
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

        /// A server that shows this certificate and answers once on each connection.
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
                    if matches!(stream.read(&mut [0; 1024]), Ok(1..)) {
                        let reply = "HTTP/1.1 200 OK\r\nConnection: close\r\n\
                                     Content-Length: 0\r\n\r\n";
                        stream.write_all(reply.as_bytes()).unwrap();
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

        #[test]
        fn certificate_of_a_private_ca_is_accepted_if_the_ca_is_given() {
            let ca_key = KeyPair::generate().unwrap();
            let ca = params("ca.invalid", IsCa::Ca(BasicConstraints::Unconstrained));
            let ca_certificate = ca.self_signed(&ca_key).unwrap();
            let key = KeyPair::generate().unwrap();
            let leaf = params("acct.blob.invalid", IsCa::NoCa)
                .signed_by(&key, &Issuer::from_params(&ca, &ca_key))
                .unwrap();
            let addr = serve(leaf.der(), &key);
            let other = params("other.invalid", IsCa::Ca(BasicConstraints::Unconstrained))
                .self_signed(&KeyPair::generate().unwrap())
                .unwrap();
            let roots = [other.der().to_vec(), ca_certificate.der().to_vec()];
            for &provider in PROVIDERS {
                let transport = trusting(provider, &roots, addr);
                get(&transport, LONG).unwrap_or_else(|error| panic!("{provider:?}: {error:?}"));
                get(&transport, LONG).unwrap_or_else(|error| panic!("{provider:?}: {error:?}"));
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
            for roots in [vec![], vec![own.der().to_vec()]] {
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
        fn certificate_for_another_name_is_not_called_one_of_an_unknown_ca() {
            let key = KeyPair::generate().unwrap();
            let own = params("other.invalid", IsCa::NoCa)
                .self_signed(&key)
                .unwrap();
            let addr = serve(own.der(), &key);
            let transport = trusting(TlsProvider::Rustls, &[own.der().to_vec()], addr);
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
}
