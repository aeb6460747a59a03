//! `azmutex doctor --setup`: the commands of the Azure CLI that make what is missing. Sends nothing.

use std::time::{Duration, SystemTime};

use super::Outcome;
use super::doctor::is_loopback;
use crate::args::{Auth, Global};
use crate::config::{Config, check_container};
use crate::exit::Code;
use crate::output::{Failure, Object, print};
use crate::sign_in;
use crate::source;
use crate::text::shell_word;
use crate::times::rfc3339;
use crate::variables::{ACCOUNT, first_of};

/// How long a SAS lives.
const SAS_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Makes `az` print an ID, and nothing else.
const ID: &str = "--query id -o tsv";

pub(super) fn setup(global: &Global) -> Outcome {
    check_container(&global.container)?;
    let nothing = || {
        Err(
            Failure::new(Code::Config, "--setup: an emulator has nothing to set up")
                .hint("leave out --emulator, or the endpoint on this machine"),
        )
    };
    #[cfg(feature = "emulator")]
    if global.emulator {
        return nothing();
    }
    let way = source::kind(global)?;
    // Without a credential, which may be what is missing, the names are known all the same.
    let (mut account, mut endpoint) = (global.account.clone(), global.endpoint.clone());
    if way == Auth::ConnectionString {
        if let Ok(config) = Config::load(global)
            && let Ok(mutex) = config.mutex()
        {
            account = Some(mutex.account().to_owned());
            endpoint = config.endpoint().ok();
        }
    } else if account.is_none() {
        account = first_of(&ACCOUNT)?.map(|(name, _)| name);
    }
    if endpoint.as_deref().is_some_and(is_loopback) {
        return nothing();
    }
    let client = sign_in::client_id(way, global)?;
    let word = |value: Option<String>, placeholder: &str| {
        let value = value.filter(|value| !value.trim().is_empty());
        shell_word(value.as_deref().map_or(placeholder, str::trim))
    };
    let script = Script {
        way,
        account: word(account, "ACCOUNT"),
        client: client.map(|id| shell_word(&id)),
        container: shell_word(&global.container),
        doctor: doctor(global),
    };
    let text = script.text(SystemTime::now() + SAS_LIFE);
    if global.json {
        let object = Object::event("setup").exact("script", &text);
        print(&format!("{object}\n"));
    } else {
        print(&text);
    }
    Ok(Code::Done)
}

/// The call that then checks it, with the options that were given.
fn doctor(global: &Global) -> String {
    let mut call = "azmutex doctor".to_owned();
    if global.auth != Auth::Auto {
        call = format!("{call} --auth {}", sign_in::shown(global.auth));
    }
    if let Some(endpoint) = global.endpoint.as_deref().filter(|url| !url.is_empty()) {
        call = format!("{call} --endpoint {}", shell_word(endpoint));
    }
    if global.container != "locks" {
        call = format!("{call} --container {}", shell_word(&global.container));
    }
    call
}

/// What the commands are made of: words for a shell.
struct Script {
    way: Auth,
    account: String,
    client: Option<String>,
    container: String,
    doctor: String,
}

impl Script {
    /// Comments have no quotes: a shell that is typed to may not take them for comments.
    fn text(&self, expiry: SystemTime) -> String {
        let Self {
            account, container, ..
        } = self;
        let key_access = if self.signs_in() {
            " --allow-shared-key-access false"
        } else {
            ""
        };
        format!(
            "# An account for locks alone, unless it is there already\n\
             az storage account show --name {account} {ID} 2>/dev/null ||\n  \
             az storage account create --name {account} --resource-group GROUP --sku Standard_LRS \\\n    \
             --min-tls-version TLS1_2 --allow-blob-public-access false{key_access}\n\
             # The container\n\
             az storage container-rm create --storage-account {account} --name {container}\n\
             {}\
             # Whether it works\n\
             {}\n",
            self.rights(expiry),
            self.doctor
        )
    }

    fn signs_in(&self) -> bool {
        !matches!(self.way, Auth::Key | Auth::Sas | Auth::ConnectionString)
    }

    fn rights(&self, expiry: SystemTime) -> String {
        let Self {
            account, container, ..
        } = self;
        let set_account = format!("export AZURE_STORAGE_ACCOUNT={account}\n");
        match self.way {
            Auth::Key => format!(
                "# The account key, which may do everything in the account\n\
                 {set_account}\
                 export AZURE_STORAGE_KEY=\"$(az storage account keys list \\\n  \
                 --account-name {account} --query '[0].value' -o tsv)\"\n"
            ),
            Auth::ConnectionString => format!(
                "# A connection string, with the account key, which may do everything in the account\n\
                 export AZURE_STORAGE_CONNECTION_STRING=\"$(az storage account show-connection-string \\\n  \
                 --name {account} --query connectionString -o tsv)\"\n"
            ),
            Auth::Sas => {
                // To the minute.
                let expiry = rfc3339(expiry);
                let expiry = expiry.get(..16).unwrap_or(&expiry);
                format!(
                    "# A SAS for this container alone: read, create, write, and list for azmutex list\n\
                     {set_account}\
                     export AZURE_STORAGE_SAS_TOKEN=\"$(az storage container generate-sas \\\n  \
                     --account-name {account} --name {container} --permissions rcwl --https-only \\\n  \
                     --expiry {expiry}Z --auth-mode key -o tsv)\"\n"
                )
            }
            _ => {
                let (object, whose) = self.principal();
                format!(
                    "{whose}\
                     account=\"$(az storage account show --name {account} {ID})\"\n\
                     az role assignment create --role \"Storage Blob Data Contributor\" \\\n  \
                     {object} \\\n  \
                     --scope \"$account\"/blobServices/default/containers/{container}\n\
                     {set_account}"
                )
            }
        }
    }

    /// Who is given the role, and a comment.
    fn principal(&self) -> (String, &'static str) {
        let of_application = |client: &str| {
            format!(
                "--assignee-object-id \"$(az ad sp show --id {client} {ID})\" \\\n  \
                 --assignee-principal-type ServicePrincipal"
            )
        };
        const ROLE: &str = "# The smallest built-in role that may lease a blob\n";
        match (&self.client, self.way) {
            (Some(client), way) if way != Auth::AzureCli => (of_application(client), ROLE),
            (None, Auth::ManagedIdentity) => (
                "--assignee-object-id OBJECT_ID --assignee-principal-type ServicePrincipal"
                    .to_owned(),
                "# OBJECT_ID is what this prints; for an app, what az webapp, functionapp or containerapp\n\
                 # identity assign prints with --query principalId\n\
                 az vm identity assign --resource-group GROUP --name MACHINE \
                 --query systemAssignedIdentity -o tsv\n\
                 # The smallest built-in role that may lease a blob\n",
            ),
            (_, Auth::Auto | Auth::Entra | Auth::AzureCli) => (
                format!(
                    "--assignee-object-id \"$(az ad signed-in-user show {ID})\" \\\n  \
                     --assignee-principal-type User"
                ),
                "# The smallest built-in role that may lease a blob, for whoever is signed in to az\n",
            ),
            _ => (of_application("CLIENT_ID"), ROLE),
        }
    }
}
