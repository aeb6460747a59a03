//! The services that a test of the contract runs against, one container for each test.

use std::net::SocketAddr;
use std::time::Duration;

use azmutex::emulator::{Clock, Emulator};
use azmutex::{AzureMutex, Credential, MutexOptions};
use uuid::Uuid;

use super::account::Account;
use super::azurite::Azurite;
use super::proxy::FaultProxy;

/// A Blob service, and a container of it that no other test uses and that does not exist yet.
pub(crate) struct Backend {
    service: Service,
    connection_string: String,
    account: Account,
    container: String,
    sas: String,
    sas_of_container: String,
}

enum Service {
    Emulator(Emulator),
    Azurite(&'static Azurite),
    /// A real account.
    Real,
}

impl Backend {
    /// An embedded emulator of the test's own.
    pub(crate) fn emulator() -> Self {
        Self::emulator_by(Clock::new())
    }

    /// An embedded emulator that goes by this clock, as its clients do.
    pub(crate) fn emulator_by(clock: Clock) -> Self {
        let emulator = Emulator::builder().clock(clock).start();
        let emulator = emulator.expect("the emulator starts");
        let account = Account::parse(&emulator.connection_string());
        let container = unused_container();
        let (sas, sas_of_container) = both_sas(&account, &container);
        Self {
            connection_string: emulator.connection_string(),
            account,
            service: Service::Emulator(emulator),
            container,
            sas,
            sas_of_container,
        }
    }

    /// The Azurite that all tests share; `None` without one.
    pub(crate) fn azurite() -> Option<Self> {
        let azurite = Azurite::shared()?;
        let service = Service::Azurite(azurite);
        Some(Self::elsewhere(service, azurite.connection_string()))
    }

    /// The account that the environment names.
    pub(crate) fn real() -> Self {
        let named = std::env::var("AZMUTEX_TEST_CONNECTION_STRING");
        Self::elsewhere(Service::Real, named.expect("the variable names an account"))
    }

    fn elsewhere(service: Service, connection_string: String) -> Self {
        let account = Account::parse(&connection_string);
        let container = unused_container();
        let (sas, sas_of_container) = both_sas(&account, &container);
        Self {
            service,
            connection_string,
            account,
            container,
            sas,
            sas_of_container,
        }
    }

    /// The same kind of service, and another container.
    pub(crate) fn another(&self) -> Self {
        match self.service {
            Service::Emulator(_) => Self::emulator(),
            Service::Azurite(azurite) => {
                Self::elsewhere(Service::Azurite(azurite), self.connection_string.clone())
            }
            Service::Real => Self::elsewhere(Service::Real, self.connection_string.clone()),
        }
    }

    /// Options for a client of the container, by the service's own clock if that can be advanced.
    pub(crate) fn options(&self) -> MutexOptions {
        self.options_for(&self.container)
    }

    /// As [`Backend::options`], for another container.
    pub(crate) fn options_for(&self, container: &str) -> MutexOptions {
        match &self.service {
            Service::Emulator(emulator) => emulator.options(container),
            _ => MutexOptions::from_connection_string(&self.connection_string, container),
        }
        .expect("the connection string is well-formed")
    }

    pub(crate) fn mutex(&self) -> AzureMutex {
        AzureMutex::new(self.options()).expect("the options are well-formed")
    }

    /// A client that has a shared access signature and no key.
    pub(crate) fn mutex_by_sas(&self, sas: &str) -> AzureMutex {
        let credential = Credential::sas(sas).expect("the SAS is well-formed");
        MutexOptions::with_credential(self.account.name(), credential, &self.container)
            .and_then(|options| options.endpoint(self.account.endpoint()))
            .and_then(AzureMutex::new)
            .expect("the options are well-formed")
    }

    /// A proxy before the service and a client through it; `None` if the service speaks TLS.
    pub(crate) fn through_proxy(&self) -> Option<(FaultProxy, AzureMutex)> {
        self.through_proxy_within(Duration::from_secs(10))
    }

    /// The same, with a client that waits for no longer than this for an operation to be answered.
    pub(crate) fn through_proxy_within(&self, time: Duration) -> Option<(FaultProxy, AzureMutex)> {
        let proxy = FaultProxy::start(self.addr()?);
        let mutex = self
            .options()
            .request_timeout(time)
            .endpoint(&proxy.endpoint())
            .and_then(AzureMutex::new)
            .expect("the options are well-formed");
        Some((proxy, mutex))
    }

    /// Where it listens, unless it speaks TLS.
    pub(crate) fn addr(&self) -> Option<SocketAddr> {
        match &self.service {
            Service::Emulator(emulator) => Some(super::addr_of(emulator)),
            Service::Azurite(azurite) => Some(azurite.addr()),
            Service::Real => None,
        }
    }

    /// The embedded emulator, if it is one.
    pub(crate) fn embedded(&self) -> Option<&Emulator> {
        match &self.service {
            Service::Emulator(emulator) => Some(emulator),
            _ => None,
        }
    }

    /// For a client in another process, which goes by the system's clock.
    pub(crate) fn connection_string(&self) -> &str {
        &self.connection_string
    }

    /// The account, for what the library does not do.
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    pub(crate) fn container(&self) -> &str {
        &self.container
    }

    /// Where a blob is in the account.
    pub(crate) fn path(&self, key: &str) -> String {
        format!("{}/{key}", self.container)
    }

    /// An account SAS for everything that the library asks for.
    pub(crate) fn sas(&self) -> &str {
        &self.sas
    }

    /// A service SAS for what is in the container alone.
    pub(crate) fn sas_of_container(&self) -> &str {
        &self.sas_of_container
    }

    /// Lets `time` pass at once on a service whose clock can be advanced. On others it passes while
    /// the caller waits for what it brings.
    pub(crate) fn pass(&self, time: Duration) {
        if let Service::Emulator(emulator) = &self.service {
            emulator.clock().advance(time);
        }
    }

    /// Whether [`Backend::pass`] does something.
    pub(crate) fn can_pass(&self) -> bool {
        matches!(self.service, Service::Emulator(_))
    }

    pub(crate) fn is_azurite(&self) -> bool {
        matches!(self.service, Service::Azurite(_))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if matches!(self.service, Service::Real) {
            self.account.delete_container(&self.container);
        }
    }
}

fn both_sas(account: &Account, container: &str) -> (String, String) {
    const HOUR: Duration = Duration::from_secs(3600);
    (account.sas(HOUR), account.sas_of_container(container, HOUR))
}

fn unused_container() -> String {
    format!("azmutex-test-{}", Uuid::new_v4().as_simple())
}
