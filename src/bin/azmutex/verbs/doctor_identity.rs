//! `azmutex doctor`: whose token requests carry, and until when.

use std::time::{Duration, Instant, SystemTime};

use azmutex::{AzureMutex, Error, TokenIdentity};

use crate::output::{Object, clean};
use crate::times::{rfc3339, span};

/// A token that was had, and how long that took.
pub(super) struct SignedIn {
    identity: TokenIdentity,
    took: Duration,
}

/// Signs in, unless the credential is a key or a SAS.
pub(super) fn sign_in(mutex: &AzureMutex) -> Result<Option<SignedIn>, Error> {
    let started = Instant::now();
    let identity = mutex.token_identity()?;
    let took = started.elapsed();
    Ok(identity.map(|identity| SignedIn { identity, took }))
}

impl SignedIn {
    /// What is well, by the name of the check.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let Self { identity, took } = self;
        let mut who = identity.to_string();
        if let Some(object) = identity.object_id() {
            who = format!("{who}, object {object}");
        }
        let left = identity.expires().duration_since(SystemTime::now());
        let life = match left {
            Ok(left) => format!("good for {}", span(left)),
            Err(_) => "expired, by this machine's clock".to_owned(),
        };
        let token = format!(
            "for {}, in {} ms, {life}",
            clean(identity.audience()),
            took.as_millis()
        );
        let mut lines = vec![("identity", who), ("token", token)];
        if let Some(issuer) = identity.issuer() {
            lines.push(("authority", format!("the token is issued by {issuer}")));
        }
        lines
    }

    /// The same, as part of an object.
    pub(super) fn add_to(&self, object: Object) -> Object {
        let Self { identity, took } = self;
        let who = Object::new()
            .text("kind", identity.kind())
            .maybe("client_id", identity.client_id())
            .maybe("tenant_id", identity.tenant_id())
            .maybe("object_id", identity.object_id());
        let token = Object::new()
            .text("audience", identity.audience())
            .maybe("issuer", identity.issuer())
            .text("expires_at", &rfc3339(identity.expires()))
            .seconds("took_s", *took);
        object.object("identity", who).object("token", token)
    }
}
