//! Several kinds of identity, tried in order until one gives a token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::managed::ManagedIdentity;
use super::token::{AccessToken, Identity, Source, TokenRequest};
use crate::error::{Error, ErrorKind};

/// One kind of identity in a [`Chain`].
pub(crate) struct Link {
    pub(crate) name: &'static str,
    pub(crate) trial: Trial,
}

pub(crate) enum Trial {
    /// It cannot be tried, for this reason.
    Impossible(String),
    /// The environment asks for it: if it fails, the chain ends.
    Configured(Arc<dyn Source>),
    /// It may not be there. If it is, but fails, the chain ends.
    Probed(Arc<ManagedIdentity>),
    /// If it fails, the next is tried.
    Optional(Arc<dyn Source>),
}

/// Kinds of identity to be tried in order. The first that gives a token is kept.
pub(crate) struct Chain {
    links: Vec<Link>,
    winner: Mutex<Option<Arc<dyn Source>>>,
}

impl Chain {
    pub(crate) fn new(links: Vec<Link>) -> Self {
        let winner = Mutex::default();
        Self { links, winner }
    }

    fn winner(&self) -> Option<Arc<dyn Source>> {
        self.winner.lock().clone()
    }

    fn try_all(&self, request: &TokenRequest) -> Result<AccessToken, Error> {
        let mut failures = Vec::new();
        let mut transient = None;
        for Link { name, trial } in &self.links {
            let start = request.clock.moment().real;
            let mut note = |reason: &dyn fmt::Display| {
                let took = request.clock.moment().real.since(start);
                let time = match took >= Duration::from_millis(100) {
                    true => format!(" ({:.1} s)", took.as_secs_f64()),
                    false => String::new(),
                };
                // A semicolon ends what is said of one kind.
                let reason = reason.to_string().replace(';', ",");
                failures.push(format!("{name}: {reason}{time}"));
            };
            let (source, is_certain) = match trial {
                Trial::Impossible(reason) => {
                    note(reason);
                    continue;
                }
                Trial::Configured(source) => (Arc::clone(source), true),
                Trial::Optional(source) => (Arc::clone(source), false),
                Trial::Probed(identity) => {
                    let left = request.deadline.since(request.clock.now());
                    if let Err(error) = identity.probe(left) {
                        note(&error);
                        continue;
                    }
                    (Arc::clone(identity) as Arc<dyn Source>, true)
                }
            };
            match source.fetch(request) {
                Ok(token) => {
                    log::debug!("signing in by {}", source.identity());
                    *self.winner.lock() = Some(source);
                    return Ok(token);
                }
                Err(error) if is_certain => {
                    return Err(error.during("get a token by", &source.identity().to_string()));
                }
                Err(error) => {
                    note(&error);
                    if error.is_transient() {
                        transient = Some(error.kind());
                    }
                }
            }
        }
        let text = format!(
            "there is no identity to do it with. Run `az login`, set the variables of one of these, \
             or use an account key. Tried: {}",
            failures.join("; ")
        );
        let kind = transient.unwrap_or(ErrorKind::Auth);
        Err(Error::new(kind, text).during("sign in to", "Azure Storage"))
    }
}

impl Source for Chain {
    fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, Error> {
        match self.winner() {
            Some(winner) => winner.fetch(request),
            None => self.try_all(request),
        }
    }

    fn identity(&self) -> Identity {
        match self.winner() {
            Some(winner) => winner.identity(),
            None => Identity {
                kind: "identity of the environment",
                client_id: None,
                tenant_id: None,
                takes_tenant: true,
            },
        }
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.links.iter().map(|link| link.name))
            .finish()
    }
}
