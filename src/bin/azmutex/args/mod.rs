//! The command line, from which `--help`, the completions and the man pages are made.

mod acquiring;
mod elect;
mod run;
mod verbs;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

pub(crate) use self::acquiring::{Create, Identity, Waiting};
pub(crate) use self::elect::{ElectArgs, Purpose, lacks_health_cmd, unknown as unknown_to_elect};
pub(crate) use self::run::{OnLost, OnSuspend, OnceArgs, ProcessGroup, RunArgs, Stragglers};
#[cfg(feature = "emulator")]
pub(crate) use self::verbs::EmulatorArgs;
pub(crate) use self::verbs::{
    AcquireArgs, BreakArgs, Check, CompletionsArgs, DoctorArgs, Format, HoldArgs, ListArgs,
    ManArgs, ReleaseArgs, RenewArgs, SchemaArgs, Sort, StatusArgs,
};
use crate::examples;
use crate::exit;
use crate::value;

/// Runs commands under a distributed lock: flock(1) across machines, on Azure Blob leases.
#[derive(Debug, Parser)]
#[command(
    name = "azmutex",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = examples::MAIN,
    after_long_help = format!("{}\n\n{}", examples::MAIN, exit::help(exit::rows(false))),
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The storage account [or AZURE_STORAGE_ACCOUNT]
    #[arg(long, value_name = "NAME", global = true, env = "AZMUTEX_ACCOUNT")]
    pub(crate) account: Option<String>,
    /// The blob endpoint, if it is not https://ACCOUNT.blob.core.windows.net
    #[arg(
        long,
        value_name = "URL",
        global = true,
        env = "AZMUTEX_ENDPOINT",
        hide_short_help = true
    )]
    pub(crate) endpoint: Option<String>,
    /// The container that holds the locks
    #[arg(
        long,
        value_name = "NAME",
        global = true,
        env = "AZMUTEX_CONTAINER",
        default_value = "locks"
    )]
    pub(crate) container: String,
    /// The kind of credential to use
    #[arg(
        long,
        value_name = "KIND",
        global = true,
        env = "AZMUTEX_AUTH", hide_short_help = true,
        value_enum,
        default_value_t = Auth::Auto
    )]
    pub(crate) auth: Auth,
    /// A file with the account key [else AZURE_STORAGE_KEY]
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        env = "AZMUTEX_KEY_FILE",
        hide_short_help = true
    )]
    pub(crate) key_file: Option<PathBuf>,
    /// A file with a SAS token [else AZURE_STORAGE_SAS_TOKEN]
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        env = "AZMUTEX_SAS_FILE",
        hide_short_help = true
    )]
    pub(crate) sas_file: Option<PathBuf>,
    /// A file with a connection string [else AZURE_STORAGE_CONNECTION_STRING]
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        env = "AZMUTEX_CONNECTION_STRING_FILE",
        hide_short_help = true
    )]
    pub(crate) connection_string_file: Option<PathBuf>,
    /// Use a file with a secret although everybody can read it, or others can write to it
    #[arg(
        long,
        global = true,
        env = "AZMUTEX_ALLOW_INSECURE_SECRET_FILE",
        hide_short_help = true,
        value_parser = value::truth
    )]
    pub(crate) allow_insecure_secret_file: bool,
    /// The client ID of the application or managed identity to sign in as [else AZURE_CLIENT_ID]
    #[arg(
        long,
        value_name = "ID",
        global = true,
        env = "AZMUTEX_CLIENT_ID",
        hide_short_help = true
    )]
    pub(crate) client_id: Option<String>,
    /// The tenant to sign in to [else AZURE_TENANT_ID]
    #[arg(
        long,
        value_name = "ID",
        global = true,
        env = "AZMUTEX_TENANT_ID",
        hide_short_help = true
    )]
    pub(crate) tenant_id: Option<String>,
    /// Who issues the tokens, if not the authority of the endpoint's cloud [else AZURE_AUTHORITY_HOST]
    #[arg(
        long,
        value_name = "URL",
        global = true,
        env = "AZMUTEX_AUTHORITY_HOST",
        hide_short_help = true
    )]
    pub(crate) authority_host: Option<String>,
    /// What the tokens are for, if not https://storage.azure.com
    #[arg(
        long,
        value_name = "URL",
        global = true,
        env = "AZMUTEX_AUDIENCE",
        hide_short_help = true
    )]
    pub(crate) audience: Option<String>,
    /// A file with the client secret of a service principal [else AZURE_CLIENT_SECRET]
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        env = "AZMUTEX_CLIENT_SECRET_FILE",
        hide_short_help = true
    )]
    pub(crate) client_secret_file: Option<PathBuf>,
    /// A PEM file with the certificate and key of a service principal [else AZURE_CLIENT_CERTIFICATE_PATH]
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        env = "AZMUTEX_CLIENT_CERTIFICATE",
        hide_short_help = true
    )]
    pub(crate) client_certificate: Option<PathBuf>,
    /// The ID of the service connection to sign in by, in Azure Pipelines
    #[arg(
        long,
        value_name = "ID",
        global = true,
        env = "AZMUTEX_SERVICE_CONNECTION",
        hide_short_help = true
    )]
    pub(crate) service_connection: Option<String>,
    /// How long one request to the service may take, with another try if it is not answered
    #[arg(
        long,
        value_name = "DURATION",
        global = true,
        env = "AZMUTEX_REQUEST_TIMEOUT",
        hide_short_help = true,
        default_value = "10s",
        value_parser = value::request_timeout
    )]
    pub(crate) request_timeout: Duration,
    /// A PEM file with certificate authorities to trust, besides those of the system
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        env = "AZMUTEX_CA_FILE",
        hide_short_help = true
    )]
    pub(crate) ca_file: Option<PathBuf>,
    /// Allow http:// to another machine: others on the network can read the locks, and answer for
    /// the service
    #[arg(
        long,
        global = true,
        env = "AZMUTEX_ALLOW_INSECURE_HTTP",
        hide_short_help = true,
        value_parser = value::truth
    )]
    pub(crate) allow_insecure_http: bool,
    /// Use an emulator inside this process: nothing to set up, and nothing left when the process
    /// ends
    #[cfg(feature = "emulator")]
    #[arg(
        long,
        global = true,
        env = "AZMUTEX_EMULATOR",
        value_parser = value::truth
    )]
    pub(crate) emulator: bool,
    /// Print JSON, one object per line
    #[arg(long, global = true, env = "AZMUTEX_JSON", value_parser = value::truth)]
    pub(crate) json: bool,
    /// Print more; twice to follow each step of the lock
    #[arg(short, long, global = true, env = "AZMUTEX_VERBOSE", action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Print errors only
    #[arg(
        short,
        long,
        global = true,
        env = "AZMUTEX_QUIET",
        value_parser = value::truth
    )]
    pub(crate) quiet: bool,
    /// The format of messages on stderr
    #[arg(
        long,
        value_name = "FORMAT",
        global = true,
        env = "AZMUTEX_LOG_FORMAT", hide_short_help = true,
        value_enum,
        default_value_t = LogFormat::Text
    )]
    pub(crate) log_format: LogFormat,
    /// Whether to colour stderr
    #[arg(
        long,
        value_name = "WHEN",
        global = true,
        env = "AZMUTEX_COLOR", hide_short_help = true,
        value_enum,
        default_value_t = When::Auto
    )]
    pub(crate) color: When,
    /// Whether to show waiting as one line that is redrawn
    #[arg(
        long,
        value_name = "WHEN",
        global = true,
        env = "AZMUTEX_PROGRESS", hide_short_help = true,
        value_enum,
        default_value_t = When::Auto
    )]
    pub(crate) progress: When,
    /// Never ask for input: fail if it is needed
    #[arg(long, global = true, env = "AZMUTEX_NO_INPUT", hide_short_help = true, value_parser = value::truth)]
    pub(crate) no_input: bool,
}

/// The kinds of credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Auth {
    /// Whichever is given: files before the environment, and connection string before key before
    /// SAS; without any, as entra
    Auto,
    /// The account key
    Key,
    /// A shared access signature
    Sas,
    /// A connection string
    ConnectionString,
    /// Microsoft Entra ID: the identity that the environment has, or that az or azd is signed in
    /// with
    #[value(alias = "login")]
    Entra,
    /// The identity of the virtual machine, container or app
    ManagedIdentity,
    /// The identity of a pod in AKS
    WorkloadIdentity,
    /// An application, with its secret or certificate
    ServicePrincipal,
    /// A job in GitHub Actions
    Github,
    /// A service connection in Azure Pipelines
    AzurePipelines,
    /// Whoever is signed in to the Azure CLI
    AzureCli,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(RunArgs),
    Elect(ElectArgs),
    Once(OnceArgs),
    Status(StatusArgs),
    List(ListArgs),
    Break(BreakArgs),
    Acquire(AcquireArgs),
    Renew(RenewArgs),
    Release(ReleaseArgs),
    Hold(HoldArgs),
    Doctor(DoctorArgs),
    #[cfg(feature = "emulator")]
    Emulator(EmulatorArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
    Schema(SchemaArgs),
}

/// Variables that do not belong to an option.
const VARIABLES: [(&str, &str); 14] = [
    (
        "AZURE_STORAGE_CONNECTION_STRING",
        "The account and its credential in one string",
    ),
    (
        "AZURE_STORAGE_ACCOUNT",
        "The storage account, unless --account is given; AZURE_STORAGE_ACCOUNT_NAME is the same",
    ),
    (
        "AZURE_STORAGE_KEY",
        "The account key; AZURE_STORAGE_ACCESS_KEY and AZURE_STORAGE_ACCOUNT_KEY are the same",
    ),
    (
        "AZURE_STORAGE_SAS_TOKEN",
        "A SAS token; AZURE_STORAGE_SAS is the same",
    ),
    (
        "AZURE_STORAGE_AUTH_MODE",
        "login to sign in to Microsoft Entra ID rather than use the account key, key not to sign in",
    ),
    (
        "AZURE_TENANT_ID, AZURE_CLIENT_ID",
        "The tenant and the identity to sign in as, unless --tenant-id and --client-id are given",
    ),
    (
        "AZURE_CLIENT_SECRET, AZURE_CLIENT_CERTIFICATE_PATH",
        "The secret or the certificate of a service principal",
    ),
    (
        "AZURE_TOKEN_CREDENTIALS",
        "Which kinds of identity --auth entra tries: prod, dev, or the name of one",
    ),
    (
        "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY",
        "The proxy to use, for https, http and both: http://, https://, socks4:// or socks5h://",
    ),
    ("NO_PROXY", "The hosts and networks to reach without it"),
    (
        "SSL_CERT_FILE, SSL_CERT_DIR",
        "Where the system's certificates are, on Linux",
    ),
    (
        "NO_COLOR, CLICOLOR_FORCE",
        "Whether to colour stderr, unless --color is given",
    ),
    ("TERM", "If it is dumb, nothing is coloured or redrawn"),
    (
        "AZMUTEX_HELD_LOCKS",
        "The locks already held by parent processes; set by azmutex run",
    ),
];

/// The definition of the command line, for parsing and for the help.
pub(crate) fn command() -> clap::Command {
    fn quiet(command: clap::Command) -> clap::Command {
        // Variables are named like their options, and the man pages list all of them.
        command
            .mut_args(|arg| arg.hide_env(true))
            .mut_subcommands(quiet)
    }
    let command = Cli::command().mut_subcommand("once", |once| {
        // It is one lock, and without a command that it is forgotten.
        once.mut_arg("command", |arg| {
            arg.required(false).required_unless_present("forget")
        })
        .mut_arg("slots", |arg| arg.hide(true).env(None::<&str>))
        .mut_arg("resize", |arg| arg.hide(true))
        .mut_arg("also", |arg| arg.hide(true))
    });
    quiet(command.mut_subcommand("elect", elect::adapt))
}

/// The definition to parse with: an empty variable counts as not set.
pub(crate) fn parser() -> clap::Command {
    without_empty(command())
}

/// The part of the definition that `azmutex run` needs, without the help: building the other
/// commands would take most of its start-up time.
pub(crate) fn parser_of_run() -> clap::Command {
    let run = RunArgs::augment_args(clap::Command::new("run"));
    without_empty(Global::augment_args(clap::Command::new("azmutex")).subcommand(run))
}

fn without_empty(command: clap::Command) -> clap::Command {
    fn set(arg: &clap::Arg) -> bool {
        let variable = arg.get_env().and_then(std::env::var_os);
        variable.is_none_or(|value| !value.is_empty())
    }
    command
        .mut_args(|arg| {
            if set(&arg) {
                arg
            } else {
                arg.env(None::<&str>)
            }
        })
        .mut_subcommands(without_empty)
}

/// The variables that a command reads, and their meaning.
pub(crate) fn variables(command: &clap::Command) -> Vec<(String, String)> {
    let options = command.get_arguments().filter_map(|arg| {
        let variable = arg.get_env()?.to_string_lossy().into_owned();
        let long = arg.get_long()?;
        Some((
            variable,
            format!("The value of --{long}, if that is not given"),
        ))
    });
    let others = VARIABLES.map(|(name, meaning)| (name.to_owned(), meaning.to_owned()));
    options.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    #[test]
    fn run_means_the_same_to_both_definitions() {
        for line in [
            "run deploy -- ./deploy.sh --force",
            "run -n deploy true",
            "run --json -v --container c deploy -c exit",
            "run -w 5m -E 3 --lease 30s --account=a deploy -- sh -c true",
            "run -vv --no-fencing --owner me --reason why -k 3s deploy env -i",
        ] {
            let read = |mut command: clap::Command| {
                let words = ["azmutex"].into_iter().chain(line.split(' '));
                let matches = command.try_get_matches_from_mut(words).unwrap();
                format!("{:?}", Cli::from_arg_matches(&matches).unwrap())
            };
            assert_eq!(read(parser_of_run()), read(parser()));
        }
    }
}
