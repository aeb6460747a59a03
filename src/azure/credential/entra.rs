//! Credentials that sign in to Microsoft Entra ID.

use std::error::Error as StdError;

use super::{Credential, Scheme};
use crate::entra::env::Env;
use crate::entra::provider::TokenProvider;
use crate::entra::sign_in::SignIn;
use crate::entra::token::{AccessToken, TokenRequest};
use crate::error::Error;

/// Signing in with Microsoft Entra ID: see [the guide](crate::guide::signing_in).
///
/// Nothing is asked before the first request needs a token, so none of these says whether the
/// identity exists or may do what it is for.
impl Credential {
    /// Whichever identity the environment has, or else whoever is signed in to a developer tool.
    ///
    /// The first of these that is configured is used, and if it fails, no other is tried:
    ///
    /// 1. service principal: `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, and `AZURE_CLIENT_SECRET` or
    ///    `AZURE_CLIENT_CERTIFICATE_PATH`
    /// 2. workload identity (AKS): `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`,
    ///    `AZURE_FEDERATED_TOKEN_FILE`
    /// 3. GitHub Actions: `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `ACTIONS_ID_TOKEN_REQUEST_URL` and
    ///    `ACTIONS_ID_TOKEN_REQUEST_TOKEN`
    /// 4. Azure Pipelines: the tenant, the client and the service connection, which the task
    ///    `AzureCLI` sets, with `SYSTEM_OIDCREQUESTURI` and `SYSTEM_ACCESSTOKEN`
    /// 5. managed identity: the platform's variables, or else an endpoint that answers within a second
    /// 6. Azure CLI (`az`), then Azure Developer CLI (`azd`): the next is tried if it fails
    ///
    /// `AZURE_TOKEN_CREDENTIALS` leaves out some of them: `prod` (1 to 5), `dev` (6), or the name of
    /// one, such as `ManagedIdentityCredential`. `AZURE_CLIENT_ID` also says which of several managed
    /// identities.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `AZURE_TOKEN_CREDENTIALS` has another value.
    pub fn entra_from_env() -> Result<Self, Error> {
        SignIn::from_env(&Env::system()).map(Self::entra)
    }

    /// The managed identity of the machine or platform: a virtual machine or scale set, Container
    /// Instances, App Service, Functions, Container Apps, a server with Azure Arc.
    ///
    /// Without a choice ([`client_id`](Self::client_id), [`object_id`](Self::object_id),
    /// [`resource_id`](Self::resource_id)) it is the system-assigned one; on a virtual machine it is
    /// the only one there is.
    #[must_use]
    pub fn managed_identity() -> Self {
        Self::entra(SignIn::managed_identity(&Env::system()))
    }

    /// The workload identity of a pod in AKS: `AZURE_TENANT_ID`, `AZURE_CLIENT_ID` and
    /// `AZURE_FEDERATED_TOKEN_FILE`, which are set in pods with the label
    /// `azure.workload.identity/use: "true"`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there is no such file's name.
    pub fn workload_identity() -> Result<Self, Error> {
        SignIn::workload_identity(&Env::system()).map(Self::entra)
    }

    /// An application (service principal) and a client secret of it.
    ///
    /// `tenant`, `client_id`: IDs, as the portal shows them. `secret`: the secret's *value*, not its
    /// ID; a newline at its end is removed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a value has characters that it cannot have.
    pub fn client_secret(tenant: &str, client_id: &str, secret: &str) -> Result<Self, Error> {
        SignIn::client_secret(&Env::system(), tenant, client_id, secret).map(Self::entra)
    }

    /// An application (service principal) and a certificate of it, with its private key.
    ///
    /// `pem`: the certificate and an RSA key of 2,048 bits or more, not encrypted, in any order. For a
    /// `.pfx` file: `openssl pkcs12 -in it.pfx -out it.pem -nodes`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `pem` holds something else, an ID has
    /// characters that it cannot have, or the feature `client-certificate` is off.
    pub fn client_certificate(tenant: &str, client_id: &str, pem: &[u8]) -> Result<Self, Error> {
        SignIn::client_certificate(&Env::system(), tenant, client_id, pem).map(Self::entra)
    }

    /// The federated identity of a job in GitHub Actions, which needs `permissions: id-token: write`.
    ///
    /// The application and its tenant are named by `AZURE_CLIENT_ID` and `AZURE_TENANT_ID`, or by
    /// [`client_id`](Self::client_id) and [`tenant_id`](Self::tenant_id).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if this is no such job.
    pub fn github_actions() -> Result<Self, Error> {
        SignIn::github_actions(&Env::system()).map(Self::entra)
    }

    /// The federated identity of a service connection in Azure Pipelines.
    ///
    /// `service_connection`: its ID. The step has to map `SYSTEM_ACCESSTOKEN: $(System.AccessToken)`
    /// in its `env`. The application and its tenant are named by `AZURE_CLIENT_ID` and
    /// `AZURE_TENANT_ID`, or by [`client_id`](Self::client_id) and [`tenant_id`](Self::tenant_id).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the ID has characters that it cannot have.
    pub fn azure_pipelines(service_connection: &str) -> Result<Self, Error> {
        SignIn::azure_pipelines(&Env::system(), service_connection).map(Self::entra)
    }

    /// Whoever is signed in to the Azure CLI (`az login`), version 2.54 or later.
    ///
    /// The program `az` is started for each token, which takes some seconds.
    #[must_use]
    pub fn azure_cli() -> Self {
        Self::entra(SignIn::azure_cli(&Env::system()))
    }

    /// Access tokens that the caller's own code gets, for what the other credentials do not cover.
    ///
    /// `provide` is called on a thread named `azmutex:token`, one call at a time for each
    /// [`AzureMutex`](crate::AzureMutex) and its clones: when the first token is needed, and then
    /// ahead of the end of each while a lock is held or waited for (at half its life if it lives for
    /// two hours or more, otherwise 5 minutes before its end). It must ask for a new token each time
    /// and keep none. It may block; it should return an error after a minute or so, since as long as
    /// it does not return, it is not called again. A renewal never waits for it and uses the last
    /// token until that expires.
    ///
    /// An [`Error`] of this crate is taken as it is, unless it is about a lease or a blob, such as
    /// that of a lock that `provide` takes itself. Any other is taken for a failure that may pass:
    /// `provide` is called again, after a second at first and after half a minute in the end.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// use azmutex::{AccessToken, Credential};
    ///
    /// # fn get_token_for(audience: &str) -> std::io::Result<String> { Ok(audience.to_owned()) }
    /// let credential = Credential::token_provider(|request| {
    ///     let token = get_token_for(request.audience())?;
    ///     let expires = SystemTime::now() + Duration::from_secs(3600);
    ///     Ok(AccessToken::new(token, expires)?)
    /// });
    /// ```
    pub fn token_provider<F>(provide: F) -> Self
    where
        F: Fn(&TokenRequest) -> Result<AccessToken, Box<dyn StdError + Send + Sync>>
            + Send
            + Sync
            + 'static,
    {
        Self(Scheme::Provider(TokenProvider::new(provide)))
    }

    /// The application, or which of several managed identities.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `id` has characters that it cannot have, or
    /// this kind of credential has no such choice.
    pub fn client_id(self, id: &str) -> Result<Self, Error> {
        self.choose("client ID", |sign_in| sign_in.client_id(id))
    }

    /// Which of several managed identities, by its object ID (principal ID).
    ///
    /// # Errors
    ///
    /// As for [`client_id`](Self::client_id).
    pub fn object_id(self, id: &str) -> Result<Self, Error> {
        self.choose("object ID", |sign_in| sign_in.object_id(id))
    }

    /// Which of several managed identities, by its resource ID: `/subscriptions/…`.
    ///
    /// # Errors
    ///
    /// As for [`client_id`](Self::client_id).
    pub fn resource_id(self, id: &str) -> Result<Self, Error> {
        self.choose("resource ID", |sign_in| sign_in.resource_id(id))
    }

    /// The tenant to sign in to. Defaults to `AZURE_TENANT_ID`; for developer tools, to theirs.
    ///
    /// # Errors
    ///
    /// As for [`client_id`](Self::client_id).
    pub fn tenant_id(self, id: &str) -> Result<Self, Error> {
        self.choose("tenant ID", |sign_in| sign_in.tenant_id(id))
    }

    /// The host that issues the tokens, by https. Defaults to `AZURE_AUTHORITY_HOST`, or else to that
    /// of the cloud that the blob endpoint is in: `https://login.microsoftonline.com` for
    /// `blob.core.windows.net`, and those of Azure Government and Azure China for theirs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `url` is not such a URL, or this kind of
    /// credential asks somebody else.
    pub fn authority_host(self, url: &str) -> Result<Self, Error> {
        self.choose("authority", |sign_in| sign_in.authority_host(url))
    }

    /// What the tokens are for. Defaults to `https://storage.azure.com`, in all clouds. The URL of the
    /// account's blob endpoint gets tokens that are good for this account only.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `url` is not such a URL, or the credential is
    /// a key or a SAS.
    pub fn audience(self, url: &str) -> Result<Self, Error> {
        match self.0 {
            Scheme::Provider(provider) => Ok(Self(Scheme::Provider(provider.for_audience(url)?))),
            _ => self.choose("audience", |sign_in| sign_in.audience(url)),
        }
    }

    fn entra(sign_in: SignIn) -> Self {
        Self(Scheme::Entra(Box::new(sign_in)))
    }

    fn choose(
        self,
        what: &str,
        choose: impl FnOnce(SignIn) -> Result<SignIn, Error>,
    ) -> Result<Self, Error> {
        let name = match self.0 {
            Scheme::Entra(sign_in) => return choose(*sign_in).map(Self::entra),
            Scheme::SharedKey(_) => "an account key",
            Scheme::Sas(_) => "a SAS",
            Scheme::Provider(_) => "a token provider",
        };
        Err(Error::config(format!("{name} takes no {what}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn choices_are_refused_where_they_mean_nothing() {
        let key = || Credential::shared_key("c2VjcmV0").unwrap();
        let provider = || Credential::token_provider(|_| Err("none".into()));
        let refused = [
            (key().client_id("a"), "an account key takes no client ID"),
            (
                key().audience("https://a"),
                "an account key takes no audience",
            ),
            (
                Credential::sas("sig=a").unwrap().tenant_id("a"),
                "a SAS takes no tenant ID",
            ),
            (
                provider().client_id("a"),
                "a token provider takes no client ID",
            ),
            (
                Credential::managed_identity().tenant_id("a"),
                "signing in by managed identity takes no tenant ID",
            ),
            (
                Credential::azure_cli().client_id("a"),
                "signing in by Azure CLI takes no client ID",
            ),
        ];
        for (result, text) in refused {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert_eq!(error.to_string(), text);
        }
        assert!(
            provider()
                .audience("https://acct.blob.core.windows.net/")
                .is_ok()
        );
        assert!(provider().audience("a b").is_err());
    }

    #[test]
    fn debug_shows_who_signs_in_and_no_secret() {
        let secret = Credential::client_secret("9a3c", "1f2e", "s3cret").unwrap();
        assert_eq!(
            format!("{secret:?}"),
            "Credential(client secret, client 1f2e, tenant 9a3c)"
        );
        let identity = Credential::managed_identity().client_id("1f2e").unwrap();
        assert_eq!(
            format!("{identity:?}"),
            "Credential(managed identity, client 1f2e)"
        );
    }
}
