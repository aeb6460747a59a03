//! Tokens of other issuers, by which an application proves who it is to Entra ID.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::address::Address;
use super::cloud::Cloud;
use super::env::Env;
use super::exchange::{Endpoint, add};
use super::refusal::Refusal;
use super::reply::{Object, unreadable};
use super::token::{TokenRequest, checked};
use crate::error::{Error, ErrorKind};
use crate::http::message::{Method, Request};
use crate::text::quoted;

/// The longest token file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Who issues the foreign token.
#[derive(Debug, Clone)]
pub(crate) enum Issuer {
    /// Kubernetes, which writes it to a file, and replaces it from time to time.
    File(PathBuf),
    GitHub(Env),
    AzurePipelines {
        env: Env,
        connection: String,
    },
}

pub(crate) const GITHUB_URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
pub(crate) const GITHUB_TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";
pub(crate) const PIPELINES_URL: &str = "SYSTEM_OIDCREQUESTURI";
pub(crate) const PIPELINES_TOKEN: &str = "SYSTEM_ACCESSTOKEN";

impl Issuer {
    /// The token as it is now, for `authority`. `roots`: as for [`Endpoint::remote`].
    pub(crate) fn token(
        &self,
        token: &TokenRequest,
        authority: &str,
        roots: &[Vec<u8>],
    ) -> Result<Zeroizing<String>, Error> {
        let audience = Cloud::of_authority(authority).federation;
        match self {
            Self::File(path) => read_file(path),
            Self::GitHub(env) => {
                let address = Address::parse(GITHUB_URL, &env.need(GITHUB_URL)?, false)?;
                let bearer = bearer(env, GITHUB_TOKEN)?;
                let mut target = address.target.clone();
                add(&mut target, "audience", audience);
                let request = || {
                    Request::new(Method::Get, target.clone())
                        .header("authorization", &*bearer)
                        .header("accept", "application/json")
                };
                let endpoint = Endpoint::remote(&address, roots);
                ask("GitHub", "value", token, &endpoint, request)
            }
            Self::AzurePipelines { env, connection } => {
                let address = Address::parse(PIPELINES_URL, &env.need(PIPELINES_URL)?, false)?;
                let bearer = bearer(env, PIPELINES_TOKEN)?;
                let mut target = address.target.clone();
                add(&mut target, "api-version", "7.1");
                add(&mut target, "serviceConnectionId", connection);
                add(&mut target, "audience", audience);
                let request = || {
                    Request::new(Method::Post, target.clone())
                        .header("authorization", &*bearer)
                        .header("accept", "application/json")
                        .header("content-type", "application/json")
                        // Otherwise a refusal is a redirect to a page.
                        .header("x-tfs-fedauthredirect", "Suppress")
                };
                let endpoint = Endpoint::remote(&address, roots);
                ask("Azure Pipelines", "oidcToken", token, &endpoint, request)
            }
        }
    }
}

fn bearer(env: &Env, name: &str) -> Result<Zeroizing<String>, Error> {
    let value = Zeroizing::new(env.need(name)?);
    match checked(&value) {
        Some(token) => Ok(Zeroizing::new(format!("Bearer {}", *token))),
        None => Err(Error::config(format!(
            "invalid {name}: it has characters that no token has, or is empty"
        ))),
    }
}

/// Asks `name`'s endpoint for a token, which is the text `member` of its reply.
fn ask<'a>(
    name: &str,
    member: &str,
    token: &TokenRequest,
    endpoint: &Endpoint,
    request: impl Fn() -> Request<'a>,
) -> Result<Zeroizing<String>, Error> {
    endpoint.ask(
        token,
        || Ok(request()),
        |reply, sent| {
            if reply.status != 200 {
                let hint = match (reply.status, name) {
                    (401 | 403, "GitHub") => "; does the job have `permissions: id-token: write`?",
                    (203 | 401, "Azure Pipelines") => {
                        "; is `SYSTEM_ACCESSTOKEN: $(System.AccessToken)` in the step's `env`?"
                    }
                    _ => "",
                };
                let refusal = Refusal::read(&reply.body);
                let detail = format!("{name} gave no token: {}{hint}", refusal.words());
                return Err(refusal.into_error(reply, sent, &detail));
            }
            let object = Object::read(&reply.body);
            let text = object.as_ref().and_then(|object| object.text(member));
            let text = text.ok_or_else(|| unreadable(&format!("{name}'s has no `{member}`")))?;
            checked(text).ok_or_else(|| unreadable(&format!("{name}'s token is none")))
        },
    )
}

fn read_file(path: &PathBuf) -> Result<Zeroizing<String>, Error> {
    let shown = quoted(&path.to_string_lossy());
    let mut text = Zeroizing::new(String::new());
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
    if let Err(error) = read {
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "; the program's user must be allowed to read it"
            }
            _ => "",
        };
        let text = format!("cannot read the federated token file {shown}{hint}");
        return Err(Error::config(text).with_source(error));
    }
    let wrong = |rule| {
        Error::new(
            ErrorKind::Config,
            format!("the federated token file {shown} {rule}"),
        )
    };
    if text.len() as u64 > MAX_FILE {
        return Err(wrong("is too large for a token"));
    }
    if text.trim().is_empty() {
        return Err(wrong("is empty"));
    }
    checked(&text).ok_or_else(|| wrong("holds no token"))
}
