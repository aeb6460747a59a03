//! Tokens for an application, which proves who it is to Entra ID itself.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::address::Address;
use super::certificate::Certificate;
use super::exchange::{Endpoint, form};
use super::federation::Issuer;
use super::refusal::{self, Refusal};
use super::reply;
use super::token::{AccessToken, Identity, Source, TokenRequest};
use crate::error::Error;
use crate::http::message::{Method, Request};
use crate::text::quoted;

/// By what an application proves who it is.
#[derive(Clone)]
pub(crate) enum Proof {
    Secret(Zeroizing<String>),
    Certificate(Certificate),
    /// A PEM file, read at each request: it may be replaced.
    CertificateFile {
        path: PathBuf,
        send_chain: bool,
    },
    /// A token of another issuer, fetched for each request.
    Federated(Issuer),
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "client secret",
            Self::Certificate(_) | Self::CertificateFile { .. } => "client certificate",
            Self::Federated(_) => "federated token",
        })
    }
}

/// An application of a tenant, or a managed identity with a federated credential.
#[derive(Debug)]
pub(crate) struct Application {
    kind: &'static str,
    tenant: String,
    client_id: String,
    authority: Endpoint,
    proof: Proof,
    /// Certificates to trust besides the usual ones, in DER.
    roots: Vec<Vec<u8>>,
}

impl Application {
    pub(crate) fn new(
        kind: &'static str,
        authority: &Address,
        tenant: String,
        client_id: String,
        proof: Proof,
        roots: &[Vec<u8>],
    ) -> Self {
        let mut authority = Endpoint::remote(authority, roots);
        authority.target = format!("/{tenant}/oauth2/v2.0/token");
        Self {
            kind,
            tenant,
            client_id,
            authority,
            proof,
            roots: roots.to_vec(),
        }
    }

    fn exchange(&self, token: &TokenRequest) -> Result<AccessToken, Error> {
        let field = match &self.proof {
            Proof::Secret(secret) => Proven::Secret(secret.clone()),
            Proof::Certificate(certificate) => self.assertion(certificate, token)?,
            Proof::CertificateFile { path, send_chain } => {
                let pem = fs::read(path).map(Zeroizing::new).map_err(|error| {
                    let shown = quoted(&path.to_string_lossy());
                    Error::config(format!("cannot read the client certificate {shown}"))
                        .with_source(error)
                })?;
                self.assertion(&Certificate::read(&pem, *send_chain)?, token)?
            }
            Proof::Federated(issuer) => {
                Proven::Assertion(issuer.token(token, self.authority.origin(), &self.roots)?)
            }
        };
        let scope = format!("{}/.default", token.audience);
        let mut fields = vec![
            ("client_id", &*self.client_id),
            ("scope", &*scope),
            ("grant_type", "client_credentials"),
        ];
        match &field {
            Proven::Secret(secret) => fields.push(("client_secret", secret)),
            Proven::Assertion(jwt) => {
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                fields.extend([("client_assertion_type", kind), ("client_assertion", jwt)]);
            }
        }
        if let Some(claims) = &token.claims {
            fields.push(("claims", claims));
        }
        let body = form(&fields);
        let request = || {
            let mut request = Request::new(Method::Post, self.authority.target.clone())
                .header("content-type", "application/x-www-form-urlencoded")
                .header("accept", "application/json");
            request.body = body.as_bytes();
            Ok(request)
        };
        self.authority
            .ask(token, request, |reply, sent| match reply.status {
                200 => reply::read_token(&reply.body, sent),
                _ => {
                    let refusal = Refusal::read(&reply.body);
                    let detail = self.meaning(&refusal);
                    Err(refusal.into_error(reply, sent, &detail))
                }
            })
    }

    fn assertion(&self, certificate: &Certificate, token: &TokenRequest) -> Result<Proven, Error> {
        let audience = format!("{}{}", self.authority.origin(), self.authority.target);
        let now = token.clock.wall().unix_timestamp();
        certificate
            .assertion(&audience, &self.client_id, now)
            .map(Proven::Assertion)
    }

    /// What a refusal means, with nothing in it that is secret.
    fn meaning(&self, refusal: &Refusal) -> String {
        let is_binding = matches!(refusal.code, Some(700_211 | 700_212));
        if is_binding && refusal.text.contains("AKSIdentityBinding") {
            return "this pod uses identity bindings, which are not supported; use workload \
                    identity with a federated credential"
                .to_owned();
        }
        match (refusal.code.and_then(refusal::meaning), &self.proof) {
            (Some(meaning), _) => meaning.to_owned(),
            (None, Proof::Secret(secret)) => refusal.words().replace(&**secret, "REDACTED"),
            (None, _) => refusal.words(),
        }
    }
}

impl Source for Application {
    fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, Error> {
        match self.exchange(request) {
            // The foreign token was too old; by now there may be a newer one.
            Err(error)
                if error.service_code() == Some("AADSTS700024")
                    && matches!(self.proof, Proof::Federated(_)) =>
            {
                self.exchange(request)
            }
            result => result,
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            kind: self.kind,
            client_id: Some(self.client_id.clone()),
            tenant_id: Some(self.tenant.clone()),
            takes_tenant: true,
        }
    }
}

enum Proven {
    Secret(Zeroizing<String>),
    Assertion(Zeroizing<String>),
}

/// Checks a client secret: printable ASCII. A newline at its end, as `echo` leaves it, is removed.
pub(crate) fn check_secret(secret: &str) -> Result<Zeroizing<String>, Error> {
    let secret = secret.trim_end_matches(['\r', '\n']);
    let wrong = |rule: &str| Err(Error::config(format!("invalid client secret: {rule}")));
    if secret.is_empty() {
        return wrong("it is empty");
    }
    match secret.chars().find(|c| !matches!(c, ' '..='~')) {
        Some(c) if c.is_control() => wrong(&format!(
            "it has a control character, U+{:04X}",
            u32::from(c)
        )),
        Some(_) => wrong("it has a character that is not ASCII"),
        None => Ok(Zeroizing::new(secret.to_owned())),
    }
}
