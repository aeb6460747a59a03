//! The only code that knows `ureq`: one agent, one send, and what its errors mean.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use ureq::Agent;
use ureq::config::Config;
use ureq::http::{HeaderMap, Method, Request as HttpRequest, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::message::{self, Reply, Request};
use super::resolver::Names;
use crate::error::Error;

/// What a service may send. Headers hold a blob's metadata, up to 8 KiB, and have to fit into a buffer
/// that each connection has; error bodies are small, a list page is not.
const MAX_HEADERS: usize = 16 * 1024;
const MAX_BODY: u64 = 64 * 1024;
pub(crate) const MAX_PAGE: u64 = 8 * 1024 * 1024;

/// Connections to one service, shared by all threads.
pub(crate) struct Transport {
    /// Replaced as a whole when a connection gave another request's reply.
    agent: RwLock<Agent>,
    names: Arc<Names>,
    config: Config,
    /// Scheme, host and port.
    origin: String,
}

impl Transport {
    /// `origin`: such as `https://account.blob.core.windows.net`. `loopback`: whether its host is
    /// this machine, which is never reached through a proxy.
    pub(crate) fn new(origin: String, loopback: bool) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(if loopback {
                None
            } else {
                ureq::Proxy::try_from_env()
            })
            .user_agent(concat!("azmutex/", env!("CARGO_PKG_VERSION")))
            .accept("*/*")
            .max_response_header_size(MAX_HEADERS)
            // Headers have to fit in whole; more than the limit shows that they are too large.
            .input_buffer_size(MAX_HEADERS + 1)
            .output_buffer_size(16 * 1024)
            // Renewals are 20 seconds apart, and should find their connection still there.
            .max_idle_age(Duration::from_secs(90))
            .max_idle_connections_per_host(8);
        let config = tls(config).build();
        let names = Arc::default();
        Self {
            agent: RwLock::new(new_agent(&config, &names)),
            names,
            config,
            origin,
        }
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// Sends `request` and reads the reply whole, both within `timeout`, name resolution and
    /// connecting included.
    pub(crate) fn send(
        &self,
        request: &Request<'_>,
        max_body: Option<u64>,
        timeout: Duration,
    ) -> Result<Reply, Error> {
        // It is not known to panic; if it does, a guard has to outlive that.
        catch_unwind(AssertUnwindSafe(|| {
            self.send_inner(request, max_body, timeout)
        }))
        .unwrap_or_else(|_| Err(Error::transport("the HTTP client panicked", None)))
        .inspect_err(|_| self.names.doubt())
    }

    fn send_inner(
        &self,
        request: &Request<'_>,
        max_body: Option<u64>,
        timeout: Duration,
    ) -> Result<Reply, Error> {
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
        let agent = self.agent.read().clone();
        // A timeout of zero would mean none.
        let timeout = timeout.max(Duration::from_millis(1));
        let result = if request.method == message::Method::Put {
            let http = http
                .body(request.body)
                .map_err(|error| failed(error.into()))?;
            let http = agent
                .configure_request(http)
                .timeout_global(Some(timeout))
                .build();
            agent.run(http)
        } else {
            let http = http.body(()).map_err(|error| failed(error.into()))?;
            let http = agent
                .configure_request(http)
                .timeout_global(Some(timeout))
                .build();
            agent.run(http)
        };
        let mut response = result.map_err(failed)?;
        let headers = read_headers(response.headers())?;
        let status = response.status().as_u16();
        let body = if request.method == message::Method::Head {
            Vec::new()
        } else {
            let limit = max_body.unwrap_or(MAX_BODY);
            response
                .body_mut()
                .with_config()
                .limit(limit)
                .read_to_vec()
                .map_err(|error| match (&error, request.method) {
                    // It will not be smaller the next time, and reading leaves nothing open.
                    (ureq::Error::BodyExceedsLimit(_), message::Method::Get) => {
                        failed(error).permanent()
                    }
                    _ => failed(error),
                })?
        };
        Ok(Reply {
            status,
            headers,
            body,
        })
    }

    /// Drops all idle connections.
    pub(crate) fn reconnect(&self) {
        *self.agent.write() = new_agent(&self.config, &self.names);
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

fn new_agent(config: &Config, names: &Arc<Names>) -> Agent {
    let names = SharedNames(Arc::clone(names));
    Agent::with_parts(config.clone(), DefaultConnector::new(), names)
}

#[derive(Debug)]
struct SharedNames(Arc<Names>);

impl Resolver for SharedNames {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.0.resolve(uri, config, timeout)
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
    // The platform's TLS library goes by the platform's certificates.
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

fn read_headers(headers: &HeaderMap) -> Result<Vec<(String, String)>, Error> {
    let mut out = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        // Names are in lower case already. Values are text, or of no interest.
        if let Ok(value) = value.to_str() {
            out.push((name.as_str().to_owned(), value.to_owned()));
        }
    }
    Ok(out)
}

/// What went wrong on the way, without the URL, which may hold a SAS.
fn failed(error: ureq::Error) -> Error {
    use ureq::Error as E;

    let (detail, permanent): (&str, bool) = match &error {
        E::Timeout(ureq::Timeout::Resolve) => ("the host's name was not resolved in time", false),
        E::Timeout(ureq::Timeout::Connect) => ("no connection in time", false),
        E::Timeout(_) => ("no reply in time", false),
        E::HostNotFound => ("the host's name does not resolve", false),
        E::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => ("the connection was refused", false),
            io::ErrorKind::ConnectionReset => ("the connection was reset", false),
            io::ErrorKind::UnexpectedEof => ("the connection was closed before the reply", false),
            // What rustls says of every certificate that it refuses.
            io::ErrorKind::InvalidData if error.to_string().contains("peer certificate") => {
                ("the server's certificate was refused", true)
            }
            io::ErrorKind::InvalidData => ("TLS failed", false),
            _ => ("the connection failed", false),
        },
        E::LargeResponseHeader(..) => ("the reply's headers are too large", false),
        E::BodyExceedsLimit(_) => ("the reply is too large", false),
        E::Protocol(_) => ("the reply is not HTTP", false),
        E::ConnectProxyFailed(_) => ("the proxy refused the connection", false),
        E::TlsRequired => (
            "`https` needs one of the features `rustls` and `native-tls`",
            true,
        ),
        #[cfg(feature = "rustls")]
        E::Rustls(_) => ("TLS failed", true),
        #[cfg(feature = "native-tls")]
        E::NativeTls(_) => ("TLS failed", false),
        E::Tls(_) => ("TLS failed", true),
        E::BadUri(_) | E::Http(_) => {
            // Their text may quote the URL.
            return Error::config("the endpoint and the names do not make a URL");
        }
        _ => ("the request failed", false),
    };
    let error = Error::transport(detail, Some(Box::new(error.into_io())));
    if permanent { error.permanent() } else { error }
}
