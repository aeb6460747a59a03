//! Signing in with Microsoft Entra ID: a credential from flags, files and variables.

use std::path::Path;

use azmutex::{Credential, Error};
use zeroize::Zeroizing;

use crate::args::{Auth, Global};
use crate::exit::Code;
use crate::output::{Failure, clean};
use crate::variables::variable;

/// Where Azure Pipelines has the ID of the service connection, by who sets it.
const CONNECTIONS: [&str; 3] = [
    "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID",
    "ARM_ADO_PIPELINE_SERVICE_CONNECTION_ID",
    "ARM_OIDC_AZURE_SERVICE_CONNECTION_ID",
];

/// The options that name a kind of identity without `--auth`.
pub(crate) fn named_by_options(global: &Global) -> Option<Auth> {
    if global.client_secret_file.is_some() || global.client_certificate.is_some() {
        Some(Auth::ServicePrincipal)
    } else if global.service_connection.is_some() {
        Some(Auth::AzurePipelines)
    } else {
        None
    }
}

/// The options that are given and have no effect with this kind of identity, or with a secret of the
/// account (`None`).
pub(crate) fn without_effect(auth: Option<Auth>, global: &Global) -> Vec<&'static str> {
    let (signs_in, is) = (auth.is_some(), |kind| auth == Some(kind));
    let principal = is(Auth::ServicePrincipal);
    let text = |value: &Option<String>| value.as_ref().is_some_and(|value| !value.is_empty());
    let options = [
        (
            "--client-secret-file",
            global.client_secret_file.is_some(),
            principal,
        ),
        (
            "--client-certificate",
            global.client_certificate.is_some(),
            principal,
        ),
        (
            "--service-connection",
            text(&global.service_connection),
            is(Auth::AzurePipelines),
        ),
        ("--client-id", text(&global.client_id), signs_in),
        ("--tenant-id", text(&global.tenant_id), signs_in),
        ("--authority-host", text(&global.authority_host), signs_in),
        ("--audience", text(&global.audience), signs_in),
    ];
    let unused = options
        .into_iter()
        .filter(|(_, is_given, has_effect)| *is_given && !has_effect);
    unused.map(|(option, ..)| option).collect()
}

/// The credential of this kind of identity. `secret` reads a file with a secret; `variable` reads a
/// variable that is set.
pub(crate) fn credential(
    auth: Auth,
    global: &Global,
    secret: impl Fn(&str, &Path) -> Result<Zeroizing<String>, Failure>,
    variable: impl Fn(&str) -> Result<Option<String>, Failure>,
) -> Result<Credential, Failure> {
    let named = |given: &Option<String>, names: &[&str]| {
        let given = given.clone().filter(|value| !value.is_empty());
        names.iter().try_fold(given, |found, name| match found {
            Some(value) => Ok(Some(value)),
            None => variable(name),
        })
    };
    let needed = |given: &Option<String>, option: &str, names: &[&str]| {
        named(given, names)?.ok_or_else(|| {
            let shown = shown(auth);
            Failure::new(Code::Config, format!("--auth {shown} needs {option}"))
                .hint(format!("set {}, or pass {option}", names[0]))
        })
    };
    let credential = match auth {
        Auth::ManagedIdentity => {
            let credential = Credential::managed_identity();
            match named(&global.client_id, &["AZURE_CLIENT_ID"])? {
                Some(client) => credential.client_id(&client).map_err(refused)?,
                None => credential,
            }
        }
        Auth::WorkloadIdentity => Credential::workload_identity().map_err(refused)?,
        Auth::Github => Credential::github_actions().map_err(refused)?,
        Auth::AzurePipelines => {
            let option = "--service-connection";
            let connection = needed(&global.service_connection, option, &CONNECTIONS)?;
            Credential::azure_pipelines(&connection).map_err(refused)?
        }
        Auth::AzureCli => Credential::azure_cli(),
        Auth::ServicePrincipal => {
            let tenant = needed(&global.tenant_id, "--tenant-id", &["AZURE_TENANT_ID"])?;
            let client = needed(&global.client_id, "--client-id", &["AZURE_CLIENT_ID"])?;
            let by_secret = |secret: &str| Credential::client_secret(&tenant, &client, secret);
            let by_certificate = |path: &Path| {
                let pem = secret("--client-certificate", path).map_err(|failure| {
                    let is_pkcs12 = |end: &std::ffi::OsStr| end == "pfx" || end == "p12";
                    match path.extension().is_some_and(is_pkcs12) {
                        true => failure.hint("openssl pkcs12 -in it.pfx -out it.pem -nodes"),
                        false => failure,
                    }
                })?;
                let made = Credential::client_certificate(&tenant, &client, pem.as_bytes());
                made.map_err(refused)
            };
            if let Some(path) = &global.client_secret_file {
                if global.client_certificate.is_some() {
                    let text = "--client-secret-file and --client-certificate: use one";
                    return Err(Failure::usage(text));
                }
                by_secret(&secret("--client-secret-file", path)?).map_err(refused)?
            } else if let Some(path) = &global.client_certificate {
                by_certificate(path)?
            } else if let Some(secret) = variable("AZURE_CLIENT_SECRET")?.map(Zeroizing::new) {
                by_secret(&secret).map_err(refused)?
            } else if let Some(path) = variable("AZURE_CLIENT_CERTIFICATE_PATH")? {
                by_certificate(Path::new(&path))?
            } else {
                let text = "--auth service-principal: there is no secret and no certificate";
                return Err(Failure::new(Code::Config, text).hint(
                    "pass --client-secret-file or --client-certificate, or set \
                     AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH",
                ));
            }
        }
        _ => Credential::entra_from_env().map_err(refused)?,
    };
    type Choose = fn(Credential, &str) -> Result<Credential, Error>;
    let is_set = matches!(auth, Auth::ServicePrincipal);
    let client_is_set = is_set || auth == Auth::ManagedIdentity;
    let choices: [(&Option<String>, bool, Choose); 4] = [
        (&global.client_id, client_is_set, Credential::client_id),
        (&global.tenant_id, is_set, Credential::tenant_id),
        (&global.authority_host, false, Credential::authority_host),
        (&global.audience, false, Credential::audience),
    ];
    choices
        .into_iter()
        .filter(|(value, is_set, _)| !is_set && value.as_ref().is_some_and(|v| !v.is_empty()))
        .try_fold(credential, |credential, (value, _, choose)| {
            choose(credential, value.as_deref().unwrap_or_default()).map_err(refused)
        })
}

/// The client ID of the identity, if it is set and this kind has one.
pub(crate) fn client_id(auth: Auth, global: &Global) -> Result<Option<String>, Failure> {
    let given = global.client_id.clone().filter(|id| !id.is_empty());
    let names: &[&str] = match auth {
        Auth::AzurePipelines => &["AZURE_CLIENT_ID", "AZURESUBSCRIPTION_CLIENT_ID"],
        _ => &["AZURE_CLIENT_ID"],
    };
    names.iter().try_fold(given, |found, name| match found {
        Some(id) => Ok(Some(id)),
        None => variable(name),
    })
}

/// The kind as `--auth` has it.
pub(crate) fn shown(auth: Auth) -> String {
    use clap::ValueEnum as _;

    let value = auth.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn refused(error: Error) -> Failure {
    Failure::new(Code::Config, clean(&error.to_string()))
}
