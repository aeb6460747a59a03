//! Who signs in, and how.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::address::Address;
use super::application::{Application, Proof, check_secret};
use super::arc;
use super::certificate::Certificate;
use super::chain::{Chain, Link, Trial};
use super::cloud::{self, Cloud};
use super::env::Env;
use super::federation::{Issuer, PIPELINES_TOKEN, PIPELINES_URL};
use super::managed::{Choice, ManagedIdentity, Place};
use super::plan::{self, Candidate, Given};
use super::token::{AccessToken, Identity, Source, TokenRequest};
use super::tools::{DeveloperTool, Tool};
use crate::error::Error;
use crate::text::quoted;

/// Who signs in to Entra ID, and how. Nothing is asked before a [`source`](Self::source) of it is.
#[derive(Clone)]
pub(crate) struct SignIn {
    kind: Kind,
    options: Options,
    env: Env,
    /// Certificates to trust besides the usual ones, in DER.
    roots: Vec<Vec<u8>>,
}

#[derive(Clone)]
enum Kind {
    ManagedIdentity,
    WorkloadIdentity,
    ClientSecret(Zeroizing<String>),
    ClientCertificate(Certificate),
    GitHubActions,
    AzurePipelines { connection: String },
    Tool(Tool),
    Environment,
}

/// What the caller chose; the environment says the rest.
#[derive(Debug, Clone, Default)]
struct Options {
    client_id: Option<String>,
    object_id: Option<String>,
    resource_id: Option<String>,
    tenant_id: Option<String>,
    authority: Option<Address>,
    audience: Option<String>,
}

impl SignIn {
    fn new(env: &Env, kind: Kind) -> Self {
        Self {
            kind,
            options: Options::default(),
            env: env.clone(),
            roots: Vec::new(),
        }
    }

    /// The same, which trusts these certificates, in DER, besides the usual ones.
    pub(crate) fn trusting(mut self, roots: &[Vec<u8>]) -> Self {
        self.roots = roots.to_vec();
        self
    }

    /// The identity of the machine or platform; the system-assigned one if it has several.
    pub(crate) fn managed_identity(env: &Env) -> Self {
        Self::new(env, Kind::ManagedIdentity)
    }

    /// The identity of a pod in Kubernetes, as its variables describe it.
    pub(crate) fn workload_identity(env: &Env) -> Result<Self, Error> {
        if !env.has(plan::TOKEN_FILE) {
            return Err(Error::config(format!(
                "no workload identity: {} is not set; does the pod have the label \
                 `azure.workload.identity/use: \"true\"`?",
                plan::TOKEN_FILE
            )));
        }
        Ok(Self::new(env, Kind::WorkloadIdentity))
    }

    /// An application and its secret.
    pub(crate) fn client_secret(
        env: &Env,
        tenant: &str,
        client: &str,
        secret: &str,
    ) -> Result<Self, Error> {
        Self::new(env, Kind::ClientSecret(check_secret(secret)?))
            .tenant_id(tenant)?
            .client_id(client)
    }

    /// An application and its certificate: PEM, with the private key.
    pub(crate) fn client_certificate(
        env: &Env,
        tenant: &str,
        client: &str,
        pem: &[u8],
    ) -> Result<Self, Error> {
        let kind = Kind::ClientCertificate(Certificate::read(pem, false)?);
        Self::new(env, kind).tenant_id(tenant)?.client_id(client)
    }

    /// The federated identity of a job in GitHub Actions.
    pub(crate) fn github_actions(env: &Env) -> Result<Self, Error> {
        let given = Given {
            client_id: true,
            tenant_id: true,
        };
        match Candidate::GitHubActions.missing(env, given) {
            Some(missing) => Err(Error::config(format!(
                "this job may not request a token: {missing}"
            ))),
            None => Ok(Self::new(env, Kind::GitHubActions)),
        }
    }

    /// The federated identity of a service connection in Azure Pipelines.
    pub(crate) fn azure_pipelines(env: &Env, connection: &str) -> Result<Self, Error> {
        for name in [PIPELINES_URL, PIPELINES_TOKEN] {
            if !env.has(name) {
                return Err(Error::config(format!(
                    "this job may not request a token: {name} is not set; \
                     `SYSTEM_ACCESSTOKEN: $(System.AccessToken)` has to be in the step's `env`"
                )));
            }
        }
        let connection = check_id("service connection ID", connection)?;
        Ok(Self::new(env, Kind::AzurePipelines { connection }))
    }

    /// Whoever is signed in to `az`.
    pub(crate) fn azure_cli(env: &Env) -> Self {
        Self::new(env, Kind::Tool(Tool::AzureCli))
    }

    /// Whoever the environment says, or else whoever is signed in to a developer tool.
    pub(crate) fn from_env(env: &Env) -> Result<Self, Error> {
        plan::candidates(env)?;
        Ok(Self::new(env, Kind::Environment))
    }

    /// The application, or which of several managed identities.
    pub(crate) fn client_id(mut self, id: &str) -> Result<Self, Error> {
        self.refuse("client ID", matches!(self.kind, Kind::Tool(_)))?;
        self.options.client_id = Some(check_id("client ID", id)?);
        self.check_choice()
    }

    /// Which of several managed identities, by the ID of its service principal.
    pub(crate) fn object_id(mut self, id: &str) -> Result<Self, Error> {
        self.refuse("object ID", !matches!(self.kind, Kind::ManagedIdentity))?;
        self.options.object_id = Some(check_id("object ID", id)?);
        self.check_choice()
    }

    /// Which of several managed identities, by its path in Azure: `/subscriptions/…`.
    pub(crate) fn resource_id(mut self, id: &str) -> Result<Self, Error> {
        self.refuse("resource ID", !matches!(self.kind, Kind::ManagedIdentity))?;
        let id = id.trim();
        if !id.to_ascii_lowercase().starts_with("/subscriptions/")
            || !id.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        {
            return Err(Error::config(format!(
                "invalid resource ID {}: it begins with /subscriptions/",
                quoted(id)
            )));
        }
        self.options.resource_id = Some(id.to_owned());
        self.check_choice()
    }

    /// The tenant to sign in to.
    pub(crate) fn tenant_id(mut self, id: &str) -> Result<Self, Error> {
        self.refuse("tenant ID", matches!(self.kind, Kind::ManagedIdentity))?;
        self.options.tenant_id = Some(check_id("tenant ID", id)?);
        Ok(self)
    }

    /// Who issues the tokens. Defaults to `AZURE_AUTHORITY_HOST`, or else to the authority of the
    /// endpoint's cloud.
    pub(crate) fn authority_host(mut self, url: &str) -> Result<Self, Error> {
        let asks_another = matches!(self.kind, Kind::ManagedIdentity | Kind::Tool(_));
        self.refuse("authority", asks_another)?;
        self.options.authority = Some(cloud::authority("authority host", url)?);
        Ok(self)
    }

    /// What the tokens are for. Defaults to `https://storage.azure.com`.
    pub(crate) fn audience(mut self, url: &str) -> Result<Self, Error> {
        self.options.audience = Some(cloud::audience(url)?);
        Ok(self)
    }

    /// What the tokens are for, as a request names it.
    pub(crate) fn token_audience(&self) -> &str {
        self.options.audience.as_deref().unwrap_or(cloud::AUDIENCE)
    }

    fn refuse(&self, what: &str, meaningless: bool) -> Result<(), Error> {
        match meaningless {
            true => Err(Error::config(format!(
                "signing in by {} takes no {what}",
                self.name()
            ))),
            false => Ok(()),
        }
    }

    fn check_choice(self) -> Result<Self, Error> {
        let Options {
            client_id,
            object_id,
            resource_id,
            ..
        } = &self.options;
        let chosen = [client_id, object_id, resource_id];
        match chosen.iter().filter(|id| id.is_some()).count() {
            0 | 1 => Ok(self),
            _ => Err(Error::config(
                "a managed identity is named by its client ID, its object ID or its resource ID: \
                 use one of them",
            )),
        }
    }

    fn name(&self) -> &'static str {
        match &self.kind {
            Kind::ManagedIdentity => Candidate::ManagedIdentity.name(),
            Kind::WorkloadIdentity => Candidate::WorkloadIdentity.name(),
            Kind::ClientSecret(_) => "client secret",
            Kind::ClientCertificate(_) => "client certificate",
            Kind::GitHubActions => Candidate::GitHubActions.name(),
            Kind::AzurePipelines { .. } => Candidate::AzurePipelines.name(),
            Kind::Tool(tool) => tool.kind(),
            Kind::Environment => "environment",
        }
    }

    /// Where the tokens come from, for a blob endpoint on `host`.
    ///
    /// # Errors
    ///
    /// `Config` if an ID is missing, or a variable that is needed is wrong.
    pub(crate) fn source(&self, host: &str) -> Result<Arc<dyn Source>, Error> {
        let source: Arc<dyn Source> = match &self.kind {
            Kind::ManagedIdentity => Arc::new(ManagedIdentity::new(&self.env, self.choice(None))?),
            Kind::WorkloadIdentity => self.workload(host)?,
            Kind::ClientSecret(secret) => self.principal(host, Proof::Secret(secret.clone()))?,
            Kind::ClientCertificate(certificate) => {
                self.principal(host, Proof::Certificate(certificate.clone()))?
            }
            Kind::GitHubActions => self.github(host)?,
            Kind::AzurePipelines { connection } => self.pipelines(host, connection.clone())?,
            Kind::Tool(tool) => self.tool(*tool)?,
            Kind::Environment => self.chain(host)?,
        };
        Ok(Arc::new(Named(source)))
    }

    fn principal(&self, host: &str, proof: Proof) -> Result<Arc<dyn Source>, Error> {
        self.application(host, Candidate::ServicePrincipal, proof)
    }

    fn workload(&self, host: &str) -> Result<Arc<dyn Source>, Error> {
        let file = self.env.os(plan::TOKEN_FILE).unwrap_or_default();
        let issuer = Issuer::File(file.into());
        self.application(host, Candidate::WorkloadIdentity, Proof::Federated(issuer))
    }

    fn github(&self, host: &str) -> Result<Arc<dyn Source>, Error> {
        let issuer = Issuer::GitHub(self.env.clone());
        self.application(host, Candidate::GitHubActions, Proof::Federated(issuer))
    }

    fn pipelines(&self, host: &str, connection: String) -> Result<Arc<dyn Source>, Error> {
        let env = self.env.clone();
        let issuer = Issuer::AzurePipelines { env, connection };
        self.application(host, Candidate::AzurePipelines, Proof::Federated(issuer))
    }

    fn tool(&self, tool: Tool) -> Result<Arc<dyn Source>, Error> {
        let tenant = self.options.tenant_id.clone();
        Ok(Arc::new(DeveloperTool::new(tool, tenant, &self.env)))
    }

    fn application(
        &self,
        host: &str,
        candidate: Candidate,
        proof: Proof,
    ) -> Result<Arc<dyn Source>, Error> {
        let (clients, tenants) = match candidate {
            Candidate::AzurePipelines => (
                &plan::PIPELINE_CLIENT_IDS[..],
                &plan::PIPELINE_TENANT_IDS[..],
            ),
            _ => (
                &plan::PIPELINE_CLIENT_IDS[..1],
                &plan::PIPELINE_TENANT_IDS[..1],
            ),
        };
        let client = self.id("client ID", self.options.client_id.as_ref(), clients)?;
        let tenant = self.id("tenant ID", self.options.tenant_id.as_ref(), tenants)?;
        let authority = self.authority(host)?;
        Ok(Arc::new(Application::new(
            candidate.name(),
            &authority,
            tenant,
            client,
            proof,
            &self.roots,
        )))
    }

    fn id(&self, what: &str, chosen: Option<&String>, names: &[&str]) -> Result<String, Error> {
        match (chosen, self.env.first(names)?) {
            (Some(id), _) => Ok(id.clone()),
            (None, Some(id)) => check_id(names[0], &id),
            (None, None) => Err(Error::config(format!(
                "signing in by {} needs a {what}: set {}",
                self.name(),
                names[0]
            ))),
        }
    }

    fn authority(&self, host: &str) -> Result<Address, Error> {
        let name = "AZURE_AUTHORITY_HOST";
        match (&self.options.authority, self.env.get(name)?) {
            (Some(address), _) => Ok(address.clone()),
            (None, Some(url)) => cloud::authority(name, &url),
            (None, None) => cloud::authority(name, Cloud::of_endpoint(host).authority),
        }
    }

    /// Which managed identity; `default` is a client ID.
    fn choice(&self, default: Option<String>) -> Choice {
        let Options {
            client_id,
            object_id,
            resource_id,
            ..
        } = self.options.clone();
        let client_id = client_id.or(default).map(Choice::ClientId);
        client_id
            .or(object_id.map(Choice::ObjectId))
            .or(resource_id.map(Choice::ResourceId))
            .unwrap_or_default()
    }

    fn chain(&self, host: &str) -> Result<Arc<dyn Source>, Error> {
        let candidates = plan::candidates(&self.env)?;
        let given = Given {
            client_id: self.options.client_id.is_some(),
            tenant_id: self.options.tenant_id.is_some(),
        };
        let is_only = candidates.len() == 1;
        let link = |candidate: Candidate| {
            let trial = match candidate.missing(&self.env, given) {
                Some(missing) => Trial::Impossible(missing),
                None => self.trial(host, candidate, is_only)?,
            };
            Ok(Link {
                name: candidate.name(),
                trial,
            })
        };
        let links: Result<Vec<_>, Error> = candidates.into_iter().map(link).collect();
        Ok(Arc::new(Chain::new(links?)))
    }

    fn trial(&self, host: &str, candidate: Candidate, is_only: bool) -> Result<Trial, Error> {
        Ok(match candidate {
            Candidate::ServicePrincipal => {
                Trial::Configured(self.principal(host, self.proof_of_env()?)?)
            }
            Candidate::WorkloadIdentity => Trial::Configured(self.workload(host)?),
            Candidate::GitHubActions => Trial::Configured(self.github(host)?),
            Candidate::AzurePipelines => {
                let connection = self.env.first(&plan::CONNECTIONS)?.unwrap_or_default();
                let connection = check_id(plan::CONNECTIONS[0], &connection)?;
                Trial::Configured(self.pipelines(host, connection)?)
            }
            Candidate::ManagedIdentity => {
                if let Err(unsupported) = Place::of(&self.env, arc::is_installed()) {
                    return Ok(Trial::Impossible(unsupported.to_string()));
                }
                let client = self.env.get(plan::CLIENT_ID)?;
                let client = client
                    .map(|id| check_id(plan::CLIENT_ID, &id))
                    .transpose()?;
                let identity = Arc::new(ManagedIdentity::new(&self.env, self.choice(client))?);
                if is_only || identity.is_named() {
                    Trial::Configured(identity)
                } else if identity.can_be_probed() {
                    Trial::Probed(identity)
                } else {
                    Trial::Optional(identity)
                }
            }
            Candidate::AzureCli => Trial::Optional(self.tool(Tool::AzureCli)?),
            Candidate::AzureDeveloperCli => Trial::Optional(self.tool(Tool::AzureDeveloperCli)?),
        })
    }

    /// A secret comes before a certificate, as in Microsoft's libraries.
    fn proof_of_env(&self) -> Result<Proof, Error> {
        if let Some(secret) = self.env.get(plan::SECRET)?.map(Zeroizing::new) {
            return check_secret(&secret).map(Proof::Secret);
        }
        let name = "AZURE_CLIENT_CERTIFICATE_PASSWORD";
        if self.env.has(name) {
            return Err(Error::config(format!(
                "{name} is set, but encrypted certificates are not supported; decrypt it with \
                 `openssl pkey`, and unset the variable"
            )));
        }
        let send_chain = self.env.get("AZURE_CLIENT_SEND_CERTIFICATE_CHAIN")?;
        Ok(Proof::CertificateFile {
            path: self.env.os(plan::CERTIFICATE).unwrap_or_default().into(),
            send_chain: send_chain
                .is_some_and(|text| text == "1" || text.eq_ignore_ascii_case("true")),
        })
    }
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let Options {
            client_id,
            object_id,
            resource_id,
            tenant_id,
            ..
        } = &self.options;
        let parts = [
            ("client", client_id),
            ("object", object_id),
            ("resource", resource_id),
            ("tenant", tenant_id),
        ];
        for (name, value) in parts {
            if let Some(value) = value {
                write!(f, ", {name} {value}")?;
            }
        }
        Ok(())
    }
}

/// Checks an ID that becomes part of a URL or an argument.
fn check_id(what: &str, id: &str) -> Result<String, Error> {
    let id = id.trim();
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    if id.bytes().all(is_allowed) && id.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Ok(id.to_owned());
    }
    let shown = quoted(id);
    Err(Error::config(format!(
        "invalid {what} {shown}: use letters, digits, `-` and `.`"
    )))
}

/// A source whose errors say what failed.
#[derive(Debug)]
struct Named(Arc<dyn Source>);

impl Source for Named {
    fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, Error> {
        let named = |error: Error| error.during("get a token by", &self.identity().to_string());
        self.0.fetch(request).map_err(named)
    }

    fn identity(&self) -> Identity {
        self.0.identity()
    }
}

#[cfg(test)]
#[path = "sign_in_tests.rs"]
mod tests;
