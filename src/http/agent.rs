//! Requests to one service: a `ureq` agent per process, and one `send`. How it connects and what its
//! errors mean is in the files beside; no other folder knows `ureq`'s client.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use ureq::config::Config;
use ureq::http::{HeaderMap, Method, Request as HttpRequest, Uri};
// Not covered by ureq's semver promise, hence the `~` in the manifest.
use ureq::unversioned::resolver::{self, DefaultResolver, ResolvedSocketAddrs};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Agent, AsSendBody as _, ProxyProtocol};

use super::connector::{INPUT_BUFFER, MAX_HEADERS, OUTPUT_BUFFER, Roots, SharedConnector};
use super::failures::{self, Failure};
use super::message::{self, Reply, Request};
use super::process::PerProcess;
use super::progress::{self, Progress};
use super::proxy::Proxy;
use super::resolver::{Lookup, Resolver, is_loopback};
use crate::error::{Error, Phase};

/// Limits on the bodies of replies: errors are small, a page of a list is not.
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
            .input_buffer_size(INPUT_BUFFER)
            .output_buffer_size(OUTPUT_BUFFER)
            // Renewals are 20 seconds apart, and should find their connection still open.
            .max_idle_age(Duration::from_secs(90))
            .max_idle_connections(MAX_IDLE)
            .max_idle_connections_per_host(MAX_IDLE)
            .build();
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
        .unwrap_or_else(|_| Err(ureq::Error::Other("it panicked".into())))
        .inspect(|_| self.reached.store(true, Ordering::Relaxed))
        .map_err(|error| {
            connections.resolver.expire_cached();
            let progress = progress::current();
            if progress.phase >= Phase::Send {
                connections.close_idle(&pool, &self.config);
            }
            self.failed(request, error, progress)
        })
    }

    fn send_on(
        &self,
        agent: &Agent,
        request: &Request<'_>,
        max_body: Option<u64>,
        timeout: Duration,
    ) -> Result<Reply, ureq::Error> {
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
        let (mut bytes, mut nothing) = (request.body, ());
        let body = match request.method {
            message::Method::Put => bytes.as_body(),
            _ => nothing.as_body(),
        };
        let http = agent
            .configure_request(http.body(body)?)
            .timeout_global(Some(timeout))
            .build();
        let mut response = agent.run(http)?;
        let headers = read_headers(response.headers());
        let status = response.status().as_u16();
        let body = if request.method == message::Method::Head {
            Vec::new()
        } else {
            let limit = max_body.unwrap_or(MAX_BODY);
            response
                .body_mut()
                .with_config()
                .limit(limit)
                .read_to_vec()?
        };
        Ok(Reply {
            status,
            headers,
            body,
        })
    }

    fn failed(&self, request: &Request<'_>, error: ureq::Error, progress: Progress) -> Error {
        if matches!(error, ureq::Error::BadUri(_) | ureq::Error::Http(_)) {
            // Their text may quote the URL.
            return Error::config("the endpoint, container and key do not form a valid URL");
        }
        let proxy = self.proxy.as_ref();
        let failure = Failure::new(&error, &progress, proxy);
        let (phase, is_proxy) = (progress.phase, progress.is_proxy);
        let is_refused = failures::is_refused(&error) && phase == Phase::Connect && !is_proxy;
        // The body would be as large the next time, and reading changes nothing.
        let is_permanent = failure.is_permanent
            || matches!(error, ureq::Error::BodyExceedsLimit(_))
                && request.method == message::Method::Get;
        let host = match proxy.filter(|_| is_proxy) {
            Some(proxy) => format!("proxy {} from {}", progress.host, proxy.variable),
            None if progress.host.is_empty() => self.host.clone(),
            None => progress.host,
        };
        let mut out = Error::transport(failure.text, phase).with_host(host);
        if failure.has_cause {
            out = out.with_source(error.into_io());
        }
        if is_refused && self.may_be_emulator() {
            out = out.with_advice("is Azurite (or `azmutex emulator`) running?");
        }
        if is_refused && self.is_here() && !self.reached.load(Ordering::Relaxed) {
            out = out.unheard();
        }
        if is_permanent {
            out = out.permanent();
        }
        out
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

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
