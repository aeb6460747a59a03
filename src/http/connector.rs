//! How connections are made: ureq's own connectors, with each step recorded, and what TLS trusts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ureq::config::Config;
// Not covered by ureq's semver promise, hence the `~` in the manifest.
use ureq::ProxyProtocol;
use ureq::unversioned::transport::{
    self, Buffers, ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout,
    SocksConnector, TcpConnector,
};

use super::failures;
use super::progress;
use crate::error::Phase;

/// All headers of a reply must fit; one byte over the limit shows that they are too large.
pub(super) const MAX_HEADERS: usize = 16 * 1024;
pub(super) const INPUT_BUFFER: usize = MAX_HEADERS + 1;
pub(super) const OUTPUT_BUFFER: usize = 16 * 1024;

/// Configurations that differ in the certificates that they trust. A server's certificate must go
/// with one of them.
#[derive(Clone)]
pub(super) struct Roots(pub(super) Vec<Config>);

impl Roots {
    #[cfg(not(any(feature = "rustls", feature = "native-tls")))]
    pub(super) fn new(_: &[Vec<u8>]) -> Self {
        Self(vec![Config::default()])
    }

    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    pub(super) fn new(certificates: &[Vec<u8>]) -> Self {
        Self::of(
            certificates,
            match cfg!(feature = "rustls") {
                true => ureq::tls::TlsProvider::Rustls,
                false => ureq::tls::TlsProvider::NativeTls,
            },
        )
    }

    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    pub(super) fn of(certificates: &[Vec<u8>], provider: ureq::tls::TlsProvider) -> Self {
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
            Config::builder()
                .tls_config(tls.build())
                .input_buffer_size(INPUT_BUFFER)
                .output_buffer_size(OUTPUT_BUFFER)
                .build()
        };
        Self(sets.into_iter().map(config).collect())
    }
}

/// ureq's own connectors, with each step recorded. Successive agents share them, so that TLS
/// sessions can be resumed.
#[derive(Debug, Clone)]
pub(super) struct SharedConnector(Arc<Chains>);

#[derive(Debug)]
struct Chains {
    /// One for each set of trusted certificates; there is no telling in advance which of them a
    /// server's certificate goes with.
    chains: Vec<Box<dyn Connector<(), Out = Connection>>>,
    /// The one that connected last.
    last: AtomicUsize,
}

impl SharedConnector {
    pub(super) fn new(roots: &Roots) -> Self {
        Self(Arc::new(Chains {
            chains: roots.0.iter().map(chain).collect(),
            last: AtomicUsize::new(0),
        }))
    }
}

/// Connectors that trust what `tls` says.
#[cfg_attr(
    not(any(feature = "rustls", feature = "native-tls")),
    allow(unused_variables)
)]
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
                    Some(before) if !failures::is_unknown_issuer(before) => {}
                    _ => refusal = Some(error),
                },
            }
        }
        Err(refusal.unwrap_or(ureq::Error::ConnectionFailed))
    }
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
pub(super) struct Connection(Box<dyn transport::Transport>);

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
