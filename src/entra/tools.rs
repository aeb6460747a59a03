//! Tokens from developer tools that are signed in on this machine.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::{Mutex, const_mutex};
use time::OffsetDateTime;

use super::child::{self, Failure, Output};
use super::env::Env;
use super::refusal::{aadsts, first_line, meaning};
use super::reply::{self, Object};
use super::token::{AccessToken, Identity, Source, TokenRequest};
use crate::error::{Error, ErrorKind};

/// How long a tool may take: `az` needs more than ten seconds on some machines.
const LIMIT: Duration = Duration::from_secs(30);

/// Tools are run one at a time: they share files.
static ONE_AT_A_TIME: Mutex<()> = const_mutex(());

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `az`.
    AzureCli,
    /// `azd`.
    AzureDeveloperCli,
}

impl Tool {
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::AzureCli => "Azure CLI",
            Self::AzureDeveloperCli => "Azure Developer CLI",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::AzureCli => "az",
            Self::AzureDeveloperCli => "azd",
        }
    }

    fn files(self) -> &'static [&'static str] {
        match (self, cfg!(windows)) {
            (Self::AzureCli, false) => &["az"],
            (Self::AzureCli, true) => &["az.cmd", "az.exe"],
            (Self::AzureDeveloperCli, false) => &["azd"],
            (Self::AzureDeveloperCli, true) => &["azd.exe", "azd.cmd"],
        }
    }

    fn login(self) -> &'static str {
        match self {
            Self::AzureCli => "az login",
            Self::AzureDeveloperCli => "azd auth login",
        }
    }

    fn arguments(self, audience: &str, tenant: Option<&str>) -> Vec<String> {
        let mut arguments: Vec<String> = match self {
            Self::AzureCli => [
                "account",
                "get-access-token",
                "--output",
                "json",
                "--resource",
            ]
            .map(str::to_owned)
            .into(),
            Self::AzureDeveloperCli => ["auth", "token", "-o", "json", "--no-prompt", "--scope"]
                .map(str::to_owned)
                .into(),
        };
        let (resource, option) = match self {
            // With a slash at its end, `az` would make two of it.
            Self::AzureCli => (audience.to_owned(), "--tenant"),
            Self::AzureDeveloperCli => (format!("{audience}/.default"), "--tenant-id"),
        };
        arguments.push(resource);
        if let Some(tenant) = tenant {
            arguments.extend([option.to_owned(), tenant.to_owned()]);
        }
        arguments
    }

    /// Reads what the tool printed at `now`.
    pub(crate) fn read(self, stdout: &[u8], now: OffsetDateTime) -> Result<AccessToken, Error> {
        let name = self.name();
        let unreadable = |what: &str| {
            let text = format!("cannot read what `{name}` printed: {what}");
            Error::new(ErrorKind::Protocol, text).permanent()
        };
        let object = Object::read(stdout).ok_or_else(|| unreadable("it is not JSON"))?;
        let (token, expires) = match self {
            Self::AzureCli => {
                let on = object.number("expires_on").and_then(reply::from_epoch);
                if on.is_none() && object.text("expiresOn").is_some() {
                    // That is local time without a zone.
                    return Err(Error::config(
                        "this `az` does not say clearly when the token expires; update it to \
                         version 2.54 or later",
                    ));
                }
                (object.text("accessToken"), on)
            }
            Self::AzureDeveloperCli => (
                object.text("token"),
                object.text("expiresOn").and_then(reply::read_date),
            ),
        };
        let token = token.ok_or_else(|| unreadable("it has no token"))?;
        let expires =
            expires.ok_or_else(|| unreadable("it does not say when the token expires"))?;
        if expires <= now {
            return Err(unreadable(
                "its token has expired; is this machine's clock right?",
            ));
        }
        reply::token_until(token, expires).map_err(|_| unreadable("its token is none"))
    }

    /// What it means that the tool failed.
    pub(crate) fn failure(self, stderr: &[u8]) -> Error {
        let (name, login) = (self.name(), self.login());
        let stderr = String::from_utf8_lossy(stderr);
        let said = match self {
            Self::AzureCli => {
                // Warnings may come first.
                let error = stderr.lines().find_map(|line| line.strip_prefix("ERROR: "));
                first_line(error.unwrap_or(&stderr))
            }
            Self::AzureDeveloperCli => azd_message(&stderr),
        };
        if let Some(code) = aadsts(&stderr) {
            let what = meaning(code).map_or(said, str::to_owned);
            let text = format!("`{name}` got no token: {what} (AADSTS{code}); run `{login}`");
            return Error::new(ErrorKind::Auth, text);
        }
        if ["az login", "az account set", "azd auth login"]
            .iter()
            .any(|hint| stderr.contains(hint))
        {
            let text = format!("`{name}` is not signed in; run `{login}`");
            return Error::new(ErrorKind::Auth, text);
        }
        let said = if said.is_empty() {
            "it gives no reason".to_owned()
        } else {
            said
        };
        Error::new(ErrorKind::Service, format!("`{name}` failed: {said}"))
    }
}

/// The message in what `azd` prints on stderr: lines of JSON, or of text.
fn azd_message(stderr: &str) -> String {
    let message = |line: &str| {
        let object = Object::read(line.as_bytes())?;
        let data = object
            .get("data")
            .and_then(|data| data.get("message")?.as_str());
        object.text("error").or(data).map(first_line)
    };
    stderr
        .lines()
        .find_map(message)
        .unwrap_or_else(|| first_line(stderr))
}

/// A developer tool, and the tenant to ask it for.
#[derive(Debug)]
pub(crate) struct DeveloperTool {
    tool: Tool,
    tenant: Option<String>,
    env: Env,
}

impl DeveloperTool {
    pub(crate) fn new(tool: Tool, tenant: Option<String>, env: &Env) -> Self {
        let env = env.clone();
        Self { tool, tenant, env }
    }

    fn run(&self, request: &TokenRequest) -> Result<Output, Error> {
        let name = self.tool.name();
        let limit = LIMIT.min(request.deadline.since(request.clock.now()));
        let late = |limit: Duration| {
            let text = format!(
                "`{name}` did not answer within {} s",
                limit.as_secs_f64().round()
            );
            Error::new(ErrorKind::Transport, text)
        };
        let path = self.env.os("PATH").unwrap_or_default();
        let Some(program) = child::find(self.tool.files(), &path) else {
            return Err(Error::config(format!(
                "`{name}` is not installed, or not in PATH"
            )));
        };
        let start = Instant::now();
        let turn = ONE_AT_A_TIME
            .try_lock_for(limit)
            .ok_or_else(|| late(limit))?;
        let arguments = self
            .tool
            .arguments(&request.audience, self.tenant.as_deref());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let left = limit.saturating_sub(start.elapsed());
        let output = child::run(&program, &arguments, left).map_err(|failure| match failure {
            Failure::Start(error) => {
                Error::config(format!("cannot run `{}`", program.display())).with_source(error)
            }
            Failure::TimeLimit => late(limit),
            Failure::Flood => {
                let text = format!("cannot read what `{name}` printed: it is too much");
                Error::new(ErrorKind::Protocol, text).permanent()
            }
        })?;
        drop(turn);
        Ok(output)
    }
}

impl Source for DeveloperTool {
    fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, Error> {
        if let Some(claims) = &request.claims {
            let text = match self.tool {
                Tool::AzureCli => format!(
                    "the service asks for a new sign-in; run `az login --claims-challenge {}`",
                    STANDARD.encode(claims)
                ),
                Tool::AzureDeveloperCli => {
                    "the service asks for a new sign-in; run `azd auth login`".to_owned()
                }
            };
            return Err(Error::new(ErrorKind::Auth, text));
        }
        let output = self.run(request)?;
        match output.status.success() {
            true => self.tool.read(&output.stdout, request.clock.wall()),
            false => Err(self.tool.failure(&output.stderr)),
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            kind: self.tool.kind(),
            client_id: None,
            tenant_id: self.tenant.clone(),
            takes_tenant: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tool: Tool, text: &str) -> Result<AccessToken, Error> {
        tool.read(text.as_bytes(), reply::from_epoch(1_767_780_000).unwrap())
    }

    #[test]
    fn output_of_az_and_azd_is_read() {
        let az = r#"{"accessToken":"abc.def","expiresOn":"2026-01-07 12:00:00.000000",
            "expires_on":1767787200,"subscription":"s","tenant":"t","tokenType":"Bearer"}"#;
        let azd = r#"{"token":"abc.def","expiresOn":"2026-01-07T12:00:00Z"}"#;
        for (tool, text) in [(Tool::AzureCli, az), (Tool::AzureDeveloperCli, azd)] {
            let token = read(tool, text).unwrap();
            assert_eq!(token.secret(), "abc.def");
            assert_eq!(
                format!("{token:?}"),
                "AccessToken(until 2026-01-07T12:00:00Z)"
            );
        }
    }

    #[test]
    fn output_that_is_no_token_is_refused_and_not_shown() {
        use Tool::{AzureCli, AzureDeveloperCli};

        let rows = [
            (AzureCli, "", "not JSON"),
            (AzureCli, "WARNING: x\n{}", "not JSON"),
            (AzureCli, "{}", "no token"),
            (
                AzureCli,
                r#"{"accessToken":"abc.def"}"#,
                "when the token expires",
            ),
            (
                AzureCli,
                r#"{"accessToken":"abc.def","expiresOn":"2026-01-07 12:00:00.0"}"#,
                "version 2.54",
            ),
            (
                AzureCli,
                r#"{"accessToken":"abc.def","expires_on":1767700000}"#,
                "has expired",
            ),
            (
                AzureCli,
                r#"{"accessToken":"abc def","expires_on":1767787200}"#,
                "its token is none",
            ),
            (
                AzureDeveloperCli,
                r#"{"token":"abc.def","expiresOn":"soon"}"#,
                "when the token expires",
            ),
        ];
        for (tool, text, rule) in rows {
            let error = read(tool, text).unwrap_err();
            assert!(error.to_string().contains(rule), "{error}");
            assert!(
                !error.is_transient() && !format!("{error:?}").contains("abc"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn failure_of_a_tool_says_what_to_do() {
        use Tool::{AzureCli, AzureDeveloperCli};

        let rows = [
            (
                AzureCli,
                "ERROR: Please run 'az login' to setup account.",
                ErrorKind::Auth,
                "`az` is not signed in; run `az login`",
            ),
            (
                AzureCli,
                "Please run 'az account set'",
                ErrorKind::Auth,
                "`az` is not signed in; run `az login`",
            ),
            (
                AzureCli,
                "ERROR: AADSTS700082: The refresh token has expired.\nInteractive authentication is needed. Please run:\naz login --tenant t",
                ErrorKind::Auth,
                "`az` got no token: the sign-in has expired; sign in again (AADSTS700082); run `az login`",
            ),
            (
                AzureCli,
                "ERROR: AADSTS99: strange\nmore",
                ErrorKind::Auth,
                "`az` got no token: AADSTS99: strange (AADSTS99); run `az login`",
            ),
            (
                AzureCli,
                "ERROR: no network eyJhbGci.eyJhdWQi.x\nmore",
                ErrorKind::Service,
                "`az` failed: no network REDACTED",
            ),
            (
                AzureCli,
                "WARNING: You have 2 update(s) available.\nERROR: no network\n",
                ErrorKind::Service,
                "`az` failed: no network",
            ),
            (
                AzureCli,
                "",
                ErrorKind::Service,
                "`az` failed: it gives no reason",
            ),
            (
                AzureDeveloperCli,
                r#"{"type":"consoleMessage","data":{"message":"\nERROR: not logged in, run `azd auth login`"}}"#,
                ErrorKind::Auth,
                "`azd` is not signed in; run `azd auth login`",
            ),
            (
                AzureDeveloperCli,
                "{\"error\":\"bad\"}\n",
                ErrorKind::Service,
                "`azd` failed: bad",
            ),
        ];
        for (tool, stderr, kind, text) in rows {
            let error = tool.failure(stderr.as_bytes());
            assert_eq!((error.kind(), &*error.to_string()), (kind, text));
        }
    }

    #[test]
    fn arguments_name_the_audience_and_the_tenant() {
        let audience = "https://storage.azure.com";
        assert_eq!(
            Tool::AzureCli.arguments(audience, Some("t")).join(" "),
            "account get-access-token --output json --resource https://storage.azure.com --tenant t"
        );
        assert_eq!(
            Tool::AzureDeveloperCli.arguments(audience, None).join(" "),
            "auth token -o json --no-prompt --scope https://storage.azure.com/.default"
        );
    }
}
