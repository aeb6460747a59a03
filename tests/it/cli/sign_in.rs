//! Signing in with Microsoft Entra ID.

use std::fs;
use std::path::PathBuf;

use azmutex::emulator::Emulator;

use super::schema::assert_valid;
use super::tool::{Done, bare, finish};
use crate::support::issuer::{Issuer, TOKEN};
use crate::support::tunnel::PrivateServer;

/// An account that takes tokens of an issuer, and neither key nor SAS.
struct Account {
    emulator: Emulator,
    issuer: Issuer,
}

impl Account {
    fn new() -> Self {
        let builder = Emulator::builder().bearer(TOKEN);
        Self {
            emulator: builder.allow_shared_key_access(false).start().unwrap(),
            issuer: Issuer::start(),
        }
    }

    fn run(&self, args: &[&str], variables: &[(&str, &str)]) -> Done {
        let mut command = bare(args);
        command
            .env("AZURE_STORAGE_ACCOUNT", self.emulator.account())
            .env("AZMUTEX_ENDPOINT", self.emulator.endpoint())
            .envs(variables.iter().copied());
        finish(command)
    }

    /// On a machine with a managed identity.
    fn run_on_machine(&self, args: &[&str], variables: &[(&str, &str)]) -> Done {
        let url = self.issuer.url();
        let machine = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", &*url)];
        self.run(args, &[&machine[..], variables].concat())
    }
}

#[test]
#[cfg_attr(windows, ignore = "`run` is not supported on Windows yet")]
fn lock_is_held_by_the_identity_of_the_machine() {
    let account = Account::new();
    let named = ["--auth", "managed-identity", "--client-id", "6731-de"];
    account
        .run_on_machine(&[&["run", "a"], &named[..], &["true"]].concat(), &[])
        .exits(0);
    assert!(account.issuer.asked()[0].contains("client_id=6731-de"));
    // With an account and nothing else, an identity is looked for.
    account.run_on_machine(&["run", "a", "true"], &[]).exits(0);
    account
        .run_on_machine(&["list", "--auth", "login"], &[])
        .exits(0)
        .prints("a");
    // One request for each, since none of them lasts for long.
    let asked = account.issuer.asked();
    let tokens = asked.iter().filter(|request| request.contains("resource="));
    assert_eq!(tokens.count(), 3, "{asked:#?}");
}

#[test]
fn key_that_the_account_does_not_allow_is_left_aside_if_the_mode_is_login() {
    let account = Account::new();
    let key = ("AZURE_STORAGE_KEY", account.emulator.key());
    account
        .run_on_machine(&["acquire", "-n", "a"], &[key])
        .exits(77)
        .says("sign in with Microsoft Entra ID instead")
        .says("hint: --auth entra");
    let login = ("AZURE_STORAGE_AUTH_MODE", "login");
    account
        .run_on_machine(&["acquire", "-n", "a"], &[key, login])
        .exits(0);
    let by_key = ("AZURE_STORAGE_AUTH_MODE", "key");
    account
        .run_on_machine(&["status", "a"], &[by_key])
        .exits(78)
        .says("no credential for Azure Storage");
}

#[test]
#[cfg_attr(windows, ignore = "`run` is not supported on Windows yet")]
fn command_under_a_lock_is_told_nothing_of_the_token() {
    let account = Account::new();
    let before = account
        .run_on_machine(&["run", "-n", "a", "env"], &[])
        .exits(0);
    assert!(
        !before.out.contains("s3cret") && !before.out.contains("e30."),
        "{before:?}"
    );
    for line in before.out.lines() {
        let name = line.split('=').next().unwrap();
        let is_known = !name.starts_with("AZ") || {
            let known = ["AZURE_STORAGE_ACCOUNT", "AZURE_POD_IDENTITY_AUTHORITY_HOST"];
            known.contains(&name) || name.starts_with("AZMUTEX_")
        };
        assert!(is_known, "{line}");
    }
}

#[test]
fn doctor_shows_who_is_signed_in_and_for_how_long() {
    let account = Account::new();
    let done = account.run_on_machine(&["doctor"], &[]).exits(0);
    for line in [
        "ok    credential          environment, from the environment",
        "ok    identity            managed identity, client 6731-de, tenant 72f9-8b, object 11-22",
        "ok    token               for https://storage.azure.com, in ",
        " ms, good for 59",
        "ok    authority           the token is issued by sts.windows.net",
    ] {
        assert!(done.out.contains(line), "no {line:?} in {}", done.out);
    }
    let object = account
        .run_on_machine(&["doctor", "--json"], &[])
        .exits(0)
        .json();
    assert_eq!(assert_valid(&object), "doctor");
    assert_eq!(object["identity"]["client_id"], "6731-de");
    assert_eq!(object["token"]["audience"], "https://storage.azure.com");
    assert!(!object.to_string().contains("s3cret"));
}

#[test]
fn service_principal_signs_in_by_the_secret_in_a_file() {
    let account = Account::new();
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("client-secret-{}", std::process::id()));
    fs::write(&path, "p4ssw0rd~.\n").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let file = path.to_str().unwrap();
    let authority = account.issuer.url();
    let args = [
        "list",
        "--client-secret-file",
        file,
        "--authority-host",
        &authority,
    ];
    let variables = [
        ("AZURE_TENANT_ID", "72f9-8b"),
        ("AZMUTEX_CLIENT_ID", "6731-de"),
    ];
    let done = account.run(&args, &variables).exits(3);
    assert!(!format!("{done:?}").contains("p4ssw0rd"));
    let asked = &account.issuer.asked()[0];
    assert!(
        asked.starts_with("POST /72f9-8b/oauth2/v2.0/token "),
        "{asked}"
    );
    assert!(asked.contains("client_secret=p4ssw0rd"), "{asked}");
    account
        .run(&args, &variables[..1])
        .exits(78)
        .says("--auth service-principal needs --client-id\n  hint: set AZURE_CLIENT_ID");
    fs::remove_file(&path).unwrap();
}

#[test]
fn kind_of_identity_that_lacks_something_says_what() {
    let account = Account::new();
    let rows: [(&[&str], &str); 5] = [
        (
            &["--auth", "workload-identity"],
            "AZURE_FEDERATED_TOKEN_FILE is not set",
        ),
        (
            &["--auth", "github"],
            "ACTIONS_ID_TOKEN_REQUEST_URL is not set",
        ),
        (&["--auth", "azure-pipelines"], "needs --service-connection"),
        (
            &["--auth", "azure-cli", "--client-id", "a"],
            "takes no client ID",
        ),
        (
            &["--auth", "entra", "--audience", "a b"],
            "invalid audience",
        ),
    ];
    for (args, text) in rows {
        account
            .run(&[&["status", "a"], args].concat(), &[])
            .exits(78)
            .says(text);
    }
    assert!(account.issuer.asked().is_empty());
}

/// What the authority, GitHub and Azure Pipelines say, all in one; the token is [`TOKEN`].
const ANSWER: &str =
    r#"{"value":"foreign","oidcToken":"foreign","expires_in":3599,"access_token":""#;

#[test]
#[cfg_attr(
    windows,
    ignore = "Wine says that revocation could not be checked where Windows says CERT_E_CHAINING"
)]
fn issuers_with_certificates_of_a_private_ca_are_trusted_if_the_ca_is_given() {
    let account = Account::new();
    let body = format!("{ANSWER}{TOKEN}\"}}");
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let server = PrivateServer::start("localhost", answer.leak().as_bytes());
    let url = format!("https://localhost:{}", server.addr.port());
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("issuers-ca-{}", std::process::id()));
    fs::write(&path, &server.ca).unwrap();
    let ca = ["--ca-file", path.to_str().unwrap()];
    let ids = [
        ("AZURE_TENANT_ID", "72f9-8b"),
        ("AZURE_CLIENT_ID", "6731-de"),
        ("AZMUTEX_REQUEST_TIMEOUT", "5s"),
    ];
    let authority = ("AZURE_AUTHORITY_HOST", &*url);
    let jobs: [&[(&str, &str)]; 3] = [
        &[authority, ("AZURE_CLIENT_SECRET", "p4ssw0rd")],
        &[
            authority,
            ("ACTIONS_ID_TOKEN_REQUEST_URL", &url),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "job"),
        ],
        &[
            authority,
            ("SYSTEM_OIDCREQUESTURI", &url),
            ("SYSTEM_ACCESSTOKEN", "job"),
            ("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID", "5e1f"),
        ],
    ];
    for job in jobs {
        let variables = [&ids[..], job].concat();
        let trusting = [&["list"], &ca[..]].concat();
        account.run(&trusting, &variables).exits(3);
        account
            .run(&["list"], &variables)
            .exits(69)
            .says("--ca-file");
    }
    fs::remove_file(&path).unwrap();
}

#[test]
fn options_without_effect_are_named() {
    let account = Account::new();
    let key = ("AZURE_STORAGE_KEY", "a2V5");
    for (args, variables, says) in [
        (
            &["--auth", "managed-identity", "--service-connection", "5e1f"][..],
            &[][..],
            "no effect with the credential of --auth managed-identity: --service-connection",
        ),
        (
            &["--client-id", "6731-de", "--tenant-id", "72f9-8b"],
            &[key],
            "no effect with the credential of AZURE_STORAGE_KEY: --client-id, --tenant-id",
        ),
    ] {
        let args = [args, &["status", "a"]].concat();
        account.run_on_machine(&args, variables).says(says);
    }
}
