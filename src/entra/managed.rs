//! Tokens for a managed identity: from an endpoint of the machine or platform that it belongs to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::address::Address;
use super::arc;
use super::env::Env;
use super::exchange::{Endpoint, add};
use super::refusal::{self, Refusal};
use super::reply::{self, Object};
use super::token::{AccessToken, Identity, Source, TokenRequest, checked};
use crate::error::{Error, ErrorKind};
use crate::http::message::{Method, Reply, Request};

const IMDS: &str = "http://169.254.169.254";
const IMDS_PATH: &str = "/metadata/identity/oauth2/token";
const ARC: &str = "http://localhost:40342/metadata/identity/oauth2/token";

/// How long it takes to find out that there is no such endpoint.
const PROBE: Duration = Duration::from_secs(1);

/// Which of the identities of a machine; it may have several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The system-assigned one, or the only one.
    #[default]
    Any,
    ClientId(String),
    ObjectId(String),
    ResourceId(String),
}

impl Choice {
    /// The value, and the name of the parameter that takes it.
    fn parameter(&self, place: Place) -> Option<(&'static str, &str)> {
        let is_app = place == Place::AppService;
        match self {
            Self::Any => None,
            Self::ClientId(id) => Some(("client_id", id)),
            Self::ObjectId(id) => Some((if is_app { "principal_id" } else { "object_id" }, id)),
            // With the other one's name it would be ignored, and another identity would answer.
            Self::ResourceId(id) => Some((if is_app { "mi_res_id" } else { "msi_res_id" }, id)),
        }
    }
}

/// Where the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A virtual machine, a scale set, a container instance, a node of AKS, or none of Azure's.
    Imds,
    /// App Service, Functions, Container Apps, Automation.
    AppService,
    /// A machine elsewhere that Azure Arc manages.
    Arc,
}

impl Place {
    /// What the variables say. `has_agent`: whether Azure Arc's agent is installed.
    ///
    /// # Errors
    ///
    /// `Config` for an environment that is not supported.
    pub(crate) fn of(env: &Env, has_agent: bool) -> Result<Self, Error> {
        let refuse = |place: &str, advice: &str| {
            let text =
                format!("this is {place}, whose managed identity is not supported; {advice}");
            Err(Error::config(text))
        };
        let [endpoint, header, thumbprint, msi, secret, imds] = [
            "IDENTITY_ENDPOINT",
            "IDENTITY_HEADER",
            "IDENTITY_SERVER_THUMBPRINT",
            "MSI_ENDPOINT",
            "MSI_SECRET",
            "IMDS_ENDPOINT",
        ]
        .map(|name| env.has(name));
        if endpoint && header && thumbprint {
            return refuse("Service Fabric", "use a service principal");
        }
        if endpoint && header {
            return Ok(Self::AppService);
        }
        if msi && secret {
            return refuse(
                "Azure Machine Learning or an old App Service",
                "use a service principal",
            );
        }
        if msi {
            return refuse(
                "Azure Cloud Shell",
                "use the Azure CLI, which is signed in there",
            );
        }
        match (endpoint && imds) || has_agent {
            true => Ok(Self::Arc),
            false => Ok(Self::Imds),
        }
    }
}

/// A managed identity.
#[derive(Debug)]
pub(crate) struct ManagedIdentity {
    place: Place,
    endpoint: Endpoint,
    choice: Choice,
    env: Env,
    /// Where Azure Arc's agent puts the keys.
    keys: Option<PathBuf>,
}

impl ManagedIdentity {
    pub(crate) fn new(env: &Env, choice: Choice) -> Result<Self, Error> {
        let place = Place::of(env, arc::is_installed())?;
        Self::at(place, env, choice, arc::key_folder())
    }

    fn at(place: Place, env: &Env, choice: Choice, keys: Option<PathBuf>) -> Result<Self, Error> {
        let address = match place {
            Place::Imds => {
                // For tests and tunnels, as in Microsoft's libraries.
                let name = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
                let host = env.get(name)?.unwrap_or_else(|| IMDS.to_owned());
                let mut address = Address::parse(name, &host, true)?;
                address.target = IMDS_PATH.to_owned();
                address
            }
            Place::AppService | Place::Arc => {
                let name = "IDENTITY_ENDPOINT";
                let url = env.get(name)?.unwrap_or_else(|| ARC.to_owned());
                Address::parse(name, &url, true)?
            }
        };
        Ok(Self {
            place,
            endpoint: Endpoint::local(&address),
            choice,
            env: env.clone(),
            keys,
        })
    }

    /// Whether the variables name an endpoint; otherwise there may be none.
    pub(crate) fn is_named(&self) -> bool {
        self.place != Place::Imds && self.env.has("IDENTITY_ENDPOINT")
    }

    /// Whether a [`probe`](Self::probe) tells anything. Azure Arc's agent is known to be there, but
    /// gives tokens to some users of the machine only.
    pub(crate) fn can_be_probed(&self) -> bool {
        self.place == Place::Imds
    }

    /// Whether anything answers at the endpoint, within a second or `limit`.
    pub(crate) fn probe(&self, limit: Duration) -> Result<(), Error> {
        // Without the header that a real request has, so it is refused at once.
        let request = Request::new(Method::Get, self.target(None));
        let reply = match self.endpoint.send(&request, PROBE.min(limit)) {
            Ok(reply) => reply,
            Err(error) => {
                let text = format!("nothing answers at {}", self.endpoint.host());
                return Err(Error::new(ErrorKind::Transport, text).with_source(error));
            }
        };
        let says_unreachable = || String::from_utf8_lossy(&reply.body).contains("unreachable");
        if Object::read(&reply.body).is_none() || reply.status == 403 && says_unreachable() {
            let text = format!("what answers at {} is something else", self.endpoint.host());
            return Err(Error::new(ErrorKind::Transport, text));
        }
        Ok(())
    }

    fn target(&self, resource: Option<&str>) -> String {
        let version = match self.place {
            Place::Imds => "2018-02-01",
            Place::AppService => "2019-08-01",
            Place::Arc => "2020-06-01",
        };
        let resource = resource.map(|resource| ("resource", resource));
        let parameters = [
            Some(("api-version", version)),
            resource,
            self.choice.parameter(self.place),
        ];
        let mut target = self.endpoint.target.clone();
        for (name, value) in parameters.into_iter().flatten() {
            add(&mut target, name, value);
        }
        target
    }

    fn request(&self, token: &TokenRequest) -> Result<Request<'static>, Error> {
        let request = Request::new(Method::Get, self.target(Some(&token.audience)));
        let request = request.header("metadata", "true");
        if self.place != Place::AppService {
            return Ok(request);
        }
        // The platform changes it now and then.
        let secret = Zeroizing::new(self.env.need("IDENTITY_HEADER")?);
        match checked(&secret) {
            Some(secret) => Ok(request.header("x-identity-header", &**secret)),
            None => Err(Error::config(
                "invalid IDENTITY_HEADER: it cannot be a header's value",
            )),
        }
    }

    fn read(&self, reply: &Reply, sent: OffsetDateTime) -> Result<AccessToken, Error> {
        if reply.status != 200 {
            return Err(self.refusal(reply, sent));
        }
        if self.place == Place::Arc
            && let Some((name, wanted)) = self.choice.parameter(self.place)
        {
            let object = Object::read(&reply.body).unwrap_or_default();
            if !object
                .text(name)
                .is_some_and(|id| id.eq_ignore_ascii_case(wanted))
            {
                let text = "Azure Arc's agent gave a token of another identity than the one named; \
                            update the agent, or leave the identity out";
                return Err(Error::new(ErrorKind::Auth, text));
            }
        }
        reply::read_token(&reply.body, sent)
    }

    fn refusal(&self, reply: &Reply, sent: OffsetDateTime) -> Error {
        let refusal = Refusal::read(&reply.body);
        let says = |text: &str| refusal.text.to_ascii_lowercase().contains(text);
        let is_chosen = self.choice != Choice::Any;
        let detail = match reply.status {
            // Only IMDS says so while it is being updated.
            404 | 410 if self.place == Place::Imds => {
                let error = Error::new(ErrorKind::Service, "the endpoint is being updated");
                let asked = reply.retry_after(sent);
                return error.with_reply(reply.status, None, None, asked);
            }
            400 if says("multiple user assigned") => {
                "this machine has several identities and none was named; name one by its client \
                 ID, for example in AZURE_CLIENT_ID"
            }
            400 if says("identity not found") && is_chosen => {
                "this machine has no such identity; check the ID, and that the identity is \
                 assigned to this machine"
            }
            400 if says("identity not found") => {
                "no identity is assigned to this machine; assign one, or sign in another way"
            }
            400 if self.place == Place::AppService && !is_chosen => {
                "the app has no system-assigned identity; name a user-assigned one by its client \
                 ID, for example in AZURE_CLIENT_ID"
            }
            _ => return refusal::read_error(reply, sent),
        };
        refusal.into_error(reply, sent, detail)
    }

    /// Azure Arc's agent proves that the program may read a file of its.
    fn answer_challenge(&self, token: &TokenRequest, folder: &Path) -> Result<AccessToken, Error> {
        let path = self.endpoint.ask(
            token,
            || self.request(token),
            |reply, sent| match (reply.status, reply.header("www-authenticate")) {
                (401, Some(challenge)) => arc::key_path(challenge, folder),
                (401, None) => Err(reply::unreadable("it has no challenge")),
                (200, _) => Err(reply::unreadable("it has a token without a challenge")),
                _ => Err(self.refusal(reply, sent)),
            },
        )?;
        let key = arc::read_key(&path, folder)?;
        let request = || {
            let request = self.request(token)?;
            Ok(request.header("authorization", format!("Basic {}", *key)))
        };
        self.endpoint
            .ask(token, request, |reply, sent| self.read(reply, sent))
    }
}

impl Source for ManagedIdentity {
    fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, Error> {
        if self.place != Place::Arc {
            let read = |reply: &Reply, sent| self.read(reply, sent);
            return self.endpoint.ask(request, || self.request(request), read);
        }
        match &self.keys {
            Some(folder) => self.answer_challenge(request, folder),
            None => Err(Error::config(
                "Azure Arc is supported on Linux and Windows only",
            )),
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            kind: match self.place {
                Place::Imds => "managed identity",
                Place::AppService => "managed identity (App Service)",
                Place::Arc => "managed identity (Azure Arc)",
            },
            client_id: match &self.choice {
                Choice::ClientId(id) => Some(id.clone()),
                _ => None,
            },
            tenant_id: None,
            takes_tenant: false,
        }
    }
}

#[cfg(test)]
#[path = "managed_tests.rs"]
mod tests;
