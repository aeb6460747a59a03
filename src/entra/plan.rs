//! PURE: which kinds of identity the environment may have, and in which order they are tried.

use super::env::Env;
use super::federation::{GITHUB_TOKEN, GITHUB_URL, PIPELINES_TOKEN, PIPELINES_URL};
use crate::error::Error;
use crate::text::quoted;

pub(crate) const CLIENT_ID: &str = "AZURE_CLIENT_ID";
pub(crate) const TENANT_ID: &str = "AZURE_TENANT_ID";
pub(crate) const SECRET: &str = "AZURE_CLIENT_SECRET";
pub(crate) const CERTIFICATE: &str = "AZURE_CLIENT_CERTIFICATE_PATH";
pub(crate) const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";

/// Where the ID of a service connection may be; the first is that of the Azure CLI's task.
pub(crate) const CONNECTIONS: [&str; 3] = [
    "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID",
    "ARM_ADO_PIPELINE_SERVICE_CONNECTION_ID",
    "ARM_OIDC_AZURE_SERVICE_CONNECTION_ID",
];

/// Where the client and tenant IDs may be in a pipeline.
pub(crate) const PIPELINE_CLIENT_IDS: [&str; 2] = [CLIENT_ID, "AZURESUBSCRIPTION_CLIENT_ID"];
pub(crate) const PIPELINE_TENANT_IDS: [&str; 2] = [TENANT_ID, "AZURESUBSCRIPTION_TENANT_ID"];

/// What the caller set, which then need not be in the environment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Given {
    pub(crate) client_id: bool,
    pub(crate) tenant_id: bool,
}

/// A kind of identity that the environment may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Candidate {
    ServicePrincipal,
    WorkloadIdentity,
    GitHubActions,
    AzurePipelines,
    ManagedIdentity,
    AzureCli,
    AzureDeveloperCli,
}

use Candidate::*;

/// All of them, in the order in which they are tried.
const ORDER: [Candidate; 7] = [
    ServicePrincipal,
    WorkloadIdentity,
    GitHubActions,
    AzurePipelines,
    ManagedIdentity,
    AzureCli,
    AzureDeveloperCli,
];

impl Candidate {
    pub(crate) fn name(self) -> &'static str {
        match self {
            ServicePrincipal => "service principal",
            WorkloadIdentity => "workload identity",
            GitHubActions => "GitHub Actions",
            AzurePipelines => "Azure Pipelines",
            ManagedIdentity => "managed identity",
            AzureCli => "Azure CLI",
            AzureDeveloperCli => "Azure Developer CLI",
        }
    }

    /// What is missing in the environment for it, if anything.
    pub(crate) fn missing(self, env: &Env, given: Given) -> Option<String> {
        let unset = |names: &[&'static str]| match names.iter().any(|name| env.has(name)) {
            true => None,
            false => Some(format!("{} is not set", names[0])),
        };
        let ids = |clients: &[&'static str], tenants: &[&'static str]| {
            let client = if given.client_id {
                None
            } else {
                unset(clients)
            };
            let tenant = || {
                if given.tenant_id {
                    None
                } else {
                    unset(tenants)
                }
            };
            client.or_else(tenant)
        };
        let own_ids = || ids(&[CLIENT_ID], &[TENANT_ID]);
        match self {
            ServicePrincipal => {
                own_ids().or_else(|| match env.has(SECRET) || env.has(CERTIFICATE) {
                    true => None,
                    false => Some(format!("neither {SECRET} nor {CERTIFICATE} is set")),
                })
            }
            WorkloadIdentity => unset(&[TOKEN_FILE]).or_else(own_ids),
            GitHubActions => unset(&[GITHUB_URL])
                .or_else(|| unset(&[GITHUB_TOKEN]))
                .map(|missing| match env.has("GITHUB_ACTIONS") {
                    true => format!("{missing}: the job needs `permissions: id-token: write`"),
                    false => missing,
                })
                .or_else(own_ids),
            AzurePipelines => unset(&[PIPELINES_URL])
                .or_else(|| unset(&[PIPELINES_TOKEN]))
                .or_else(|| unset(&CONNECTIONS))
                .or_else(|| ids(&PIPELINE_CLIENT_IDS, &PIPELINE_TENANT_IDS)),
            ManagedIdentity | AzureCli | AzureDeveloperCli => None,
        }
    }
}

/// Those that `AZURE_TOKEN_CREDENTIALS` allows, in the order in which they are tried.
pub(crate) fn candidates(env: &Env) -> Result<Vec<Candidate>, Error> {
    let Some(text) = env.get("AZURE_TOKEN_CREDENTIALS")? else {
        return Ok(ORDER.to_vec());
    };
    let production = ORDER.len() - 2;
    Ok(match text.trim().to_ascii_lowercase().as_str() {
        "prod" => ORDER[..production].to_vec(),
        "dev" => ORDER[production..].to_vec(),
        "environmentcredential" => vec![ServicePrincipal],
        "workloadidentitycredential" => vec![WorkloadIdentity],
        "azurepipelinescredential" => vec![AzurePipelines],
        "managedidentitycredential" => vec![ManagedIdentity],
        "azureclicredential" => vec![AzureCli],
        "azuredeveloperclicredential" => vec![AzureDeveloperCli],
        _ => {
            return Err(Error::config(format!(
                "invalid AZURE_TOKEN_CREDENTIALS {}: use dev, prod, EnvironmentCredential, \
                 WorkloadIdentityCredential, AzurePipelinesCredential, \
                 ManagedIdentityCredential, AzureCLICredential or AzureDeveloperCLICredential",
                quoted(&text)
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_those_that_the_variable_allows() {
        let named = |text: &'static str| candidates(&Env::of([("AZURE_TOKEN_CREDENTIALS", text)]));
        let all = candidates(&Env::of::<&str>([])).unwrap();
        assert_eq!(all, ORDER);
        assert_eq!(named("").unwrap(), ORDER, "empty is not set");
        assert_eq!(named("dev").unwrap(), [AzureCli, AzureDeveloperCli]);
        assert_eq!(
            named(" PROD\n").unwrap(),
            [
                ServicePrincipal,
                WorkloadIdentity,
                GitHubActions,
                AzurePipelines,
                ManagedIdentity
            ]
        );
        for (text, one) in [
            ("EnvironmentCredential", ServicePrincipal),
            ("WorkloadIdentityCredential", WorkloadIdentity),
            ("AzurePipelinesCredential", AzurePipelines),
            ("managedidentitycredential", ManagedIdentity),
            ("AzureCliCredential", AzureCli),
            ("AzureCLICredential", AzureCli),
            ("AzureDeveloperCLICredential", AzureDeveloperCli),
        ] {
            assert_eq!(named(text).unwrap(), [one]);
        }
        let error = named("AzurePowerShellCredential").unwrap_err().to_string();
        assert!(
            error.contains("`AzurePowerShellCredential`") && error.contains("dev, prod"),
            "{error}"
        );
    }

    #[test]
    fn candidate_counts_if_its_variables_are_there() {
        let ids = [(CLIENT_ID, "c"), (TENANT_ID, "t")];
        type Row<'a> = (
            Candidate,
            &'a [(&'static str, &'static str)],
            Option<&'a str>,
        );
        let rows: [Row<'_>; 17] = [
            (ServicePrincipal, &[], Some("AZURE_CLIENT_ID is not set")),
            (
                ServicePrincipal,
                &[ids[0]],
                Some("AZURE_TENANT_ID is not set"),
            ),
            (
                ServicePrincipal,
                &ids,
                Some("neither AZURE_CLIENT_SECRET nor AZURE_CLIENT_CERTIFICATE_PATH is set"),
            ),
            (ServicePrincipal, &[ids[0], ids[1], (SECRET, "s")], None),
            (
                ServicePrincipal,
                &[ids[0], ids[1], (CERTIFICATE, "c.pem")],
                None,
            ),
            (
                WorkloadIdentity,
                &ids,
                Some("AZURE_FEDERATED_TOKEN_FILE is not set"),
            ),
            (
                WorkloadIdentity,
                &[(TOKEN_FILE, "f")],
                Some("AZURE_CLIENT_ID is not set"),
            ),
            (WorkloadIdentity, &[ids[0], ids[1], (TOKEN_FILE, "f")], None),
            (
                GitHubActions,
                &ids,
                Some("ACTIONS_ID_TOKEN_REQUEST_URL is not set"),
            ),
            (
                GitHubActions,
                &[ids[0], ids[1], ("GITHUB_ACTIONS", "true")],
                Some(
                    "ACTIONS_ID_TOKEN_REQUEST_URL is not set: the job needs `permissions: id-token: \
                     write`",
                ),
            ),
            (
                GitHubActions,
                &[(GITHUB_URL, "u"), (GITHUB_TOKEN, "t")],
                Some("AZURE_CLIENT_ID is not set"),
            ),
            (
                GitHubActions,
                &[ids[0], ids[1], (GITHUB_URL, "u"), (GITHUB_TOKEN, "t")],
                None,
            ),
            (
                AzurePipelines,
                &ids,
                Some("SYSTEM_OIDCREQUESTURI is not set"),
            ),
            (
                AzurePipelines,
                &[(PIPELINES_URL, "u"), (PIPELINES_TOKEN, "t"), ids[0], ids[1]],
                Some("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID is not set"),
            ),
            (
                AzurePipelines,
                &[
                    (PIPELINES_URL, "u"),
                    (PIPELINES_TOKEN, "t"),
                    ("ARM_OIDC_AZURE_SERVICE_CONNECTION_ID", "s"),
                    ("AZURESUBSCRIPTION_CLIENT_ID", "c"),
                    ("AZURESUBSCRIPTION_TENANT_ID", "t"),
                ],
                None,
            ),
            (ManagedIdentity, &[], None),
            (AzureCli, &[], None),
        ];
        for (candidate, variables, missing) in rows {
            let env = Env::of(variables.iter().copied());
            let found = candidate.missing(&env, Given::default());
            assert_eq!(found.as_deref(), missing, "{candidate:?} {variables:?}");
        }
        let given = Given {
            client_id: true,
            tenant_id: true,
        };
        let env = Env::of([(SECRET, "s")]);
        assert_eq!(ServicePrincipal.missing(&env, given), None);
    }
}
