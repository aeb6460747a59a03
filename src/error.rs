use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

/// Why an operation failed.
///
/// One opaque type for the whole crate: [`kind`](Self::kind) says what the caller can do about it,
/// and the other accessors return what the service said, for logs and support requests.
///
/// `Display` is one line: the operation, the lock, the reason and, where it helps, the host, the
/// step that failed, the number of attempts and the time they took. The underlying cause, if there
/// is one, is in [`source`](StdError::source) and not repeated in that line. `Debug` is the same
/// line followed by every cause and the request ID, so a `main` that returns this error prints
/// something a person can read; `{:#?}` puts each on its own line. No error ever shows a key, a SAS
/// signature or a token.
///
/// Cloning is cheap: clones share the same details.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone, Default)]
struct Inner {
    kind: Option<ErrorKind>,
    action: Option<(&'static str, String)>,
    detail: String,
    code: Option<String>,
    status: Option<u16>,
    request_id: Option<String>,
    retry_after: Option<Duration>,
    loss: Option<LossReason>,
    permanent: bool,
    foreign: bool,
    /// The request was not sent, for want of something that was to go with it.
    unsent: bool,
    unheard: bool,
    host: Option<String>,
    phase: Option<Phase>,
    attempts: u32,
    elapsed: Duration,
    /// The ID of a lease that may have been granted.
    lease: Option<u128>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The step of a request that failed. In all but the last, the request had not been sent
/// completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    /// Looking up the host's name.
    Resolve,
    /// Connecting to the host, or through a proxy.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Sending the request. The service acts on whole requests only.
    Send,
    /// The request was sent; waiting for the reply or reading it.
    Reply,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "while looking up its name",
            Self::Connect => "while connecting",
            Self::Tls => "in the TLS handshake",
            Self::Send => "while sending",
            Self::Reply => "while waiting for the reply",
        })
    }
}

/// What a failed request may have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Delivery {
    /// Nothing: it was not sent completely, or the service was too busy to start on it. It may be
    /// sent again.
    NotDone,
    /// Nothing, and nobody has ever listened on that port of this machine. It may be sent again, but
    /// there is little hope.
    Unheard,
    /// Unknown: it was sent, but no answer says what happened. It may be sent again if doing it
    /// twice does no harm.
    Unknown,
    /// The service answered, and would answer the same request in the same way again.
    Refused,
}

/// What an [`Error`] means to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The service refused the credential: a wrong key or SAS, a missing role, a firewall rule, or
    /// a clock that is off by more than 15 minutes. The text says which and what to do.
    Auth,
    /// A value from the caller or the environment breaks a rule; nothing was sent. Fix the value
    /// named in the text.
    Config,
    /// The lease is gone for good: broken, taken, deleted or already released. Stop the work.
    LeaseLost,
    /// No renewal was confirmed in time, so the lease may have been lost, but is not known to be.
    /// Pause the work: the lease may turn out to be held again.
    LeaseUnproven,
    /// The container, the blob, or the lease to break does not exist.
    NotFound,
    /// The reply is not from Azure Blob Storage or makes no sense, or the service refused the
    /// request in a way this version does not know. Check the endpoint and the proxy; the service's
    /// own code, if there is one, is in [`Error::service_code`].
    Protocol,
    /// The service, or a gateway in front of it, failed (5xx, 408). The request may have been
    /// carried out. Try again later.
    Service,
    /// A [`StopToken`](crate::StopToken) ended the wait.
    Stopped,
    /// The operating system refused something, such as a new thread.
    System,
    /// The service, or a gateway in front of it, is overloaded (503, 429). Try again later, less
    /// often.
    Throttled,
    /// There was no usable reply: name resolution, the connection, a proxy or TLS failed, or the
    /// request timed out. If it had been sent, it may have been carried out.
    Transport,
    /// Another client holds the lease. Not a failure: wait, or try again later.
    WouldBlock,
}

/// Why a lease was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LossReason {
    /// Somebody broke the lease.
    Broken,
    /// The lease has another ID now, or none: it ran out and another client acquired it or wrote
    /// to the blob, or somebody released or changed it by its ID.
    Taken,
    /// The blob or its container was deleted.
    Deleted,
    /// The guard was held for longer than [`max_hold`](crate::LockerBuilder::max_hold), so it was
    /// no longer renewed and ran out.
    MaxHold,
    /// The work gave no sign of life for as long as [`health`](crate::LockerBuilder::health) says, so
    /// the lease was no longer renewed and ran out.
    Unhealthy,
    /// The guard released it.
    Released,
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "the lease was broken by another client",
            Self::Taken => "the lease ID is no longer the blob's: the lease ran out, or was broken or taken over",
            Self::Deleted => "the lock blob was deleted",
            Self::MaxHold => "the lock was held for longer than max_hold and no longer renewed",
            Self::Unhealthy => {
                "the work gave no sign of life, so the lease was not renewed and ran out"
            }
            Self::Released => "the lock was released",
        })
    }
}

impl Error {
    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind.unwrap_or(ErrorKind::Protocol)
    }

    /// The service's own code (`x-ms-error-code`), verbatim, such as `LeaseAlreadyPresent`.
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes>
    #[must_use]
    pub fn service_code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The HTTP status of the reply, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The service's ID of the failed request (`x-ms-request-id`), which Azure support asks for.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// Why the lease was lost, for [`ErrorKind::LeaseLost`].
    #[must_use]
    pub fn loss_reason(&self) -> Option<LossReason> {
        self.0.loss
    }

    /// How long the service asked the client to wait (`Retry-After`).
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The ID of a lease that may have been granted although the operation failed.
    pub(crate) fn lease(&self) -> Option<u128> {
        self.0.lease
    }

    /// The step that failed, if there was no usable reply.
    #[cfg(test)]
    pub(crate) fn phase(&self) -> Option<Phase> {
        self.0.phase
    }

    /// What a failed request may have done, which decides whether it may be sent again.
    pub(crate) fn delivery(&self) -> Delivery {
        match (self.is_transient(), self.is_ambiguous()) {
            (false, _) => Delivery::Refused,
            (true, true) => Delivery::Unknown,
            (true, false) if self.0.unheard => Delivery::Unheard,
            (true, false) => Delivery::NotDone,
        }
    }

    /// Whether there was no reply at all.
    pub(crate) fn is_silence(&self) -> bool {
        self.kind() == ErrorKind::Transport && self.0.status.is_none() && !self.0.unsent
    }

    /// Whether the service, or a gateway in front of it, has too much to do.
    pub(crate) fn is_overload(&self) -> bool {
        !self.0.unsent
            && (self.kind() == ErrorKind::Throttled
                || matches!(self.0.status, Some(408 | 504))
                || self.service_code() == Some("OperationTimedOut"))
    }

    /// Whether the service itself, and nothing in front of it, refused the request because there are
    /// too many.
    pub(crate) fn is_throttling(&self) -> bool {
        self.kind() == ErrorKind::Throttled && self.service_code().is_some() && !self.0.unsent
    }

    /// Whether there was a reply.
    pub(crate) fn is_answer(&self) -> bool {
        self.0.status.is_some() && !self.0.unsent
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub(crate) fn is_transient(&self) -> bool {
        match self.kind() {
            _ if self.0.permanent => false,
            ErrorKind::Transport | ErrorKind::Throttled | ErrorKind::Service => true,
            // A success that could not be read may be readable next time; a refusal is final.
            ErrorKind::Protocol => self.0.status.is_none_or(|status| status < 300),
            _ => false,
        }
    }

    /// Whether the service may have carried out the request without saying so. That can be true
    /// even if sending it again is pointless, as when a web filter replaces the reply.
    pub(crate) fn is_ambiguous(&self) -> bool {
        if self.0.unsent {
            return false;
        }
        if self.0.foreign {
            return true;
        }
        match self.kind() {
            ErrorKind::Transport => self.0.phase.is_none_or(|phase| phase == Phase::Reply),
            // The service's own 503 means that it was too busy to start. A 503 without the
            // service's code may come from something in between that lost the answer.
            ErrorKind::Throttled => {
                self.0.status != Some(429) && self.service_code() != Some("ServerBusy")
            }
            ErrorKind::Service => true,
            ErrorKind::Protocol => self.0.status.is_none_or(|status| status < 300),
            _ => false,
        }
    }

    pub(crate) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind: Some(kind),
            detail: detail.into(),
            ..Inner::default()
        }))
    }

    /// A value that breaks a rule.
    #[cold]
    pub(crate) fn config(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, detail)
    }

    /// No usable reply.
    #[cold]
    pub(crate) fn transport(detail: impl Into<String>, phase: Phase) -> Self {
        Self::new(ErrorKind::Transport, detail).edit(|inner| inner.phase = Some(phase))
    }

    #[cold]
    pub(crate) fn lost(reason: LossReason) -> Self {
        Self::new(ErrorKind::LeaseLost, reason.to_string()).edit(|inner| inner.loss = Some(reason))
    }

    /// Adds the operation, as in "failed to renew lease", and the blob.
    pub(crate) fn during(self, verb: &'static str, target: &str) -> Self {
        if self.0.action.is_some() {
            return self;
        }
        self.edit(|inner| inner.action = Some((verb, target.to_owned())))
    }

    /// Adds what the service said.
    pub(crate) fn with_reply(
        self,
        status: u16,
        code: Option<String>,
        request_id: Option<String>,
        retry_after: Option<Duration>,
    ) -> Self {
        self.edit(|inner| {
            inner.status = Some(status);
            inner.code = code;
            inner.request_id = request_id;
            inner.retry_after = retry_after;
        })
    }

    pub(crate) fn with_source(self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.with_cause(Arc::new(source))
    }

    pub(crate) fn with_cause(self, source: Arc<dyn StdError + Send + Sync>) -> Self {
        self.edit(|inner| inner.source = Some(source))
    }

    /// Adds the host and port that failed or answered (the endpoint's, or the proxy's), unless
    /// already set. Never a URL, which may hold a SAS.
    pub(crate) fn with_host(self, host: impl Into<String>) -> Self {
        if self.0.host.is_some() || self.0.unsent {
            return self;
        }
        self.edit(|inner| inner.host = Some(host.into()))
    }

    /// Adds how often the request was sent, and the time from the first attempt to the end of the
    /// last.
    pub(crate) fn spent(self, attempts: u32, elapsed: Duration) -> Self {
        self.edit(|inner| {
            inner.attempts = attempts;
            inner.elapsed = elapsed;
        })
    }

    /// Names a lease that may have been granted although the operation failed.
    pub(crate) fn with_lease(self, id: u128) -> Self {
        self.edit(|inner| inner.lease = Some(id))
    }

    /// Marks an answer that is not the service's own: the service may have acted all the same.
    pub(crate) fn marked_foreign(self) -> Self {
        self.edit(|inner| inner.foreign = true)
    }

    /// Marks what kept a request from being sent, such as a token that could not be had: the service
    /// has not acted, and any reply came from elsewhere, as do a delay and a lease that it names.
    pub(crate) fn marked_unsent(self) -> Self {
        self.edit(|inner| {
            inner.unsent = true;
            inner.retry_after = None;
            inner.lease = None;
        })
    }

    /// Marks a connection that was refused by this machine, on a port where nobody ever listened.
    pub(crate) fn unheard(self) -> Self {
        self.edit(|inner| inner.unheard = true)
    }

    /// The same failure, as the lease's holder sees it.
    pub(crate) fn into_loss(self, reason: LossReason) -> Self {
        self.edit(|inner| {
            inner.kind = Some(ErrorKind::LeaseLost);
            inner.loss = Some(reason);
        })
    }

    /// The same refusal, as a client that wants the lease sees it.
    pub(crate) fn into_busy(self) -> Self {
        self.edit(|inner| {
            inner.kind = Some(ErrorKind::WouldBlock);
            inner.loss = None;
            inner.detail = "another client holds it".to_owned();
        })
    }

    /// The same refusal, as a client that wants to break the lease sees it.
    pub(crate) fn into_no_lease(self) -> Self {
        self.edit(|inner| {
            inner.kind = Some(ErrorKind::NotFound);
            inner.loss = None;
            inner.detail = "there is no lease to break".to_owned();
        })
    }

    /// The same refusal, of a request whose condition on the blob's ETag did not hold.
    pub(crate) fn into_changed(self, detail: &str) -> Self {
        self.edit(|inner| {
            inner.kind = Some(ErrorKind::WouldBlock);
            inner.detail = detail.to_owned();
        })
    }

    /// Adds what to do about it.
    pub(crate) fn with_advice(self, advice: &str) -> Self {
        self.edit(|inner| {
            let separator = match inner.detail.chars().last() {
                None => "",
                Some('?') => " ",
                Some(_) => "; ",
            };
            inner.detail = format!("{}{separator}{advice}", inner.detail);
        })
    }

    /// Marks a failure that retrying cannot fix, such as an untrusted certificate.
    pub(crate) fn permanent(self) -> Self {
        self.edit(|inner| inner.permanent = true)
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// The text in the parentheses at the end: the host, the step, the attempts and their time. If
    /// another client holds the lease, or it was lost, host and step do not matter and are left
    /// out.
    fn circumstances(&self) -> String {
        let inner = &*self.0;
        let shown = !matches!(
            self.kind(),
            ErrorKind::WouldBlock | ErrorKind::LeaseLost | ErrorKind::LeaseUnproven
        );
        let status = match (inner.status, &inner.code) {
            (Some(status), None) => format!("status {status}"),
            _ => String::new(),
        };
        let place = match (&inner.host, inner.phase) {
            (Some(host), Some(phase)) if shown => format!("{host}, {phase}"),
            (Some(host), None) if shown => host.clone(),
            _ => String::new(),
        };
        let effort = match (inner.attempts, inner.elapsed) {
            (0..=1, elapsed) if elapsed < Duration::from_secs(1) => String::new(),
            (0..=1, elapsed) => format!("after {:.1} s", elapsed.as_secs_f64()),
            (attempts, elapsed) => {
                format!("{attempts} attempts in {:.1} s", elapsed.as_secs_f64())
            }
        };
        let parts = [status, place, effort];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("; ")
    }

    /// Every cause below this error, the nearest first.
    fn causes(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        std::iter::successors(self.source(), |&cause| cause.source())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            action,
            detail,
            code,
            status,
            ..
        } = &*self.0;
        if let Some((verb, target)) = action {
            write!(f, "failed to {verb} `{target}`: ")?;
        }
        if let (Some(code), Some(status)) = (code, status) {
            write!(f, "{code} ({status})")?;
            if !detail.is_empty() {
                f.write_str(": ")?;
            }
        }
        f.write_str(detail)?;
        match self.circumstances() {
            parts if parts.is_empty() => Ok(()),
            parts => write!(f, " ({parts})"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let next = if f.alternate() { "\n  " } else { "; " };
        write!(f, "{self}")?;
        for cause in self.causes() {
            write!(f, "{next}caused by: {cause}")?;
        }
        if let Some(id) = self.0.lease {
            let id = Uuid::from_u128(id);
            write!(f, "{next}may have been granted: lease {id}")?;
        }
        if let Some(id) = &self.0.request_id {
            write!(f, "{next}request ID: {id}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_ref()
            .map(|source| &**source as &(dyn StdError + 'static))
    }
}

/// Why [`Locker::try_lock`](crate::Locker::try_lock) or one of its timed forms returned no guard.
///
/// Like [`std::fs::TryLockError`], it keeps contention apart from failure. `Debug` is made for people
/// too, as that of [`Error`] is: `main` shows it when it returns this.
#[derive(Clone)]
#[allow(clippy::exhaustive_enums)] // as in std: there is no third outcome
pub enum TryLockError {
    /// The attempt failed; whether somebody holds the lock is not known.
    Error(Error),
    /// Somebody else holds the lock, another thread of this process included, or held it until the
    /// time limit.
    WouldBlock,
}

impl fmt::Display for TryLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::WouldBlock => f.write_str("somebody else holds the lock"),
        }
    }
}

impl fmt::Debug for TryLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => fmt::Debug::fmt(error, f),
            Self::WouldBlock => fmt::Display::fmt(self, f),
        }
    }
}

impl StdError for TryLockError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Error(error) => error.source(),
            Self::WouldBlock => None,
        }
    }
}

impl From<Error> for TryLockError {
    fn from(error: Error) -> Self {
        if error.kind() == ErrorKind::WouldBlock {
            Self::WouldBlock
        } else {
            Self::Error(error)
        }
    }
}

impl From<TryLockError> for Error {
    fn from(error: TryLockError) -> Self {
        match error {
            TryLockError::Error(error) => error,
            TryLockError::WouldBlock => Self::new(ErrorKind::WouldBlock, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = "acct/locks/nightly";

    #[test]
    fn main_that_returns_that_the_lock_is_held_says_so_in_words() {
        let held = TryLockError::WouldBlock;
        assert_eq!(format!("{held:?}"), "somebody else holds the lock");
        let failed = TryLockError::Error(refused_connection());
        assert_eq!(format!("{failed:?}"), format!("{:?}", refused_connection()));
    }

    fn refused_connection() -> Error {
        let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        Error::transport("the connection was refused", Phase::Connect)
            .with_host("127.0.0.1:10000")
            .with_source(source)
            .during("renew lease on", TARGET)
    }

    fn service_error(kind: ErrorKind, status: u16, code: &str, detail: &str) -> Error {
        Error::new(kind, detail)
            .with_reply(
                status,
                Some(code.to_owned()),
                Some("5c6c-1".to_owned()),
                None,
            )
            .with_host("acct.blob.core.windows.net:443")
            .during("acquire lease on", TARGET)
    }

    #[test]
    fn text_of_each_kind_says_what_where_and_why() {
        use ErrorKind::*;

        let secs = Duration::from_secs;
        let rows = [
            (
                refused_connection(),
                "failed to renew lease on `acct/locks/nightly`: the connection was refused \
                 (127.0.0.1:10000, while connecting)",
            ),
            (
                refused_connection().spent(3, Duration::from_millis(4210)),
                "failed to renew lease on `acct/locks/nightly`: the connection was refused \
                 (127.0.0.1:10000, while connecting; 3 attempts in 4.2 s)",
            ),
            (
                refused_connection().spent(1, secs(5)),
                "failed to renew lease on `acct/locks/nightly`: the connection was refused \
                 (127.0.0.1:10000, while connecting; after 5.0 s)",
            ),
            (
                refused_connection().spent(1, Duration::from_millis(999)),
                "failed to renew lease on `acct/locks/nightly`: the connection was refused \
                 (127.0.0.1:10000, while connecting)",
            ),
            (
                service_error(Auth, 403, "AuthorizationFailure", "the firewall").spent(1, secs(0)),
                "failed to acquire lease on `acct/locks/nightly`: AuthorizationFailure (403): the \
                 firewall (acct.blob.core.windows.net:443)",
            ),
            (
                service_error(Throttled, 503, "ServerBusy", "the service is overloaded")
                    .spent(2, secs(10)),
                "failed to acquire lease on `acct/locks/nightly`: ServerBusy (503): the service is \
                 overloaded (acct.blob.core.windows.net:443; 2 attempts in 10.0 s)",
            ),
            (
                service_error(
                    WouldBlock,
                    409,
                    "LeaseAlreadyPresent",
                    "another client holds it",
                ),
                "failed to acquire lease on `acct/locks/nightly`: LeaseAlreadyPresent (409): \
                 another client holds it",
            ),
            (
                service_error(LeaseLost, 409, "LeaseIdMismatchWithLeaseOperation", ""),
                "failed to acquire lease on `acct/locks/nightly`: \
                 LeaseIdMismatchWithLeaseOperation (409)",
            ),
            (
                Error::new(Service, "the service gave no reason")
                    .with_reply(502, None, None, None)
                    .with_host("127.0.0.1:10000"),
                "the service gave no reason (status 502; 127.0.0.1:10000)",
            ),
            (
                Error::config("a container may not be empty"),
                "a container may not be empty",
            ),
            (
                Error::lost(LossReason::Broken).with_host("127.0.0.1:10000"),
                "the lease was broken by another client",
            ),
            (
                Error::new(LeaseUnproven, "no renewal was confirmed in time"),
                "no renewal was confirmed in time",
            ),
            (
                Error::new(Stopped, "waiting was stopped").during("acquire lease on", TARGET),
                "failed to acquire lease on `acct/locks/nightly`: waiting was stopped",
            ),
        ];
        for (error, text) in rows {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn debug_output_is_readable_when_main_returns_it() {
        let error = refused_connection();
        assert_eq!(
            format!("{error:?}"),
            "failed to renew lease on `acct/locks/nightly`: the connection was refused \
             (127.0.0.1:10000, while connecting); caused by: connection refused"
        );
        let error = service_error(ErrorKind::Auth, 403, "AuthorizationFailure", "the firewall")
            .with_lease(0x936d_a01f_9abd_4d9d_80c7_02af_85c8_22a8)
            .with_source(refused_connection());
        let lines = [
            "failed to acquire lease on `acct/locks/nightly`: AuthorizationFailure (403): the \
             firewall (acct.blob.core.windows.net:443)",
            "caused by: failed to renew lease on `acct/locks/nightly`: the connection was refused \
             (127.0.0.1:10000, while connecting)",
            "caused by: connection refused",
            "may have been granted: lease 936da01f-9abd-4d9d-80c7-02af85c822a8",
            "request ID: 5c6c-1",
        ];
        assert_eq!(format!("{error:?}"), lines.join("; "));
        assert_eq!(format!("{error:#?}"), lines.join("\n  "));
        // Within something else.
        let wrapped = format!("{:?}", Some(Error::config("no key")));
        assert_eq!(wrapped, "Some(no key)");
    }

    #[test]
    fn edits_of_a_shared_error_are_kept_and_do_not_show_in_its_clones() {
        let shared = Error::config("no key");
        let edited = shared
            .clone()
            .with_lease(7)
            .during("acquire lease on", TARGET)
            .with_source(refused_connection());
        assert_eq!((edited.lease(), shared.lease()), (Some(7), None));
        assert_eq!(shared.to_string(), "no key");
        assert_eq!(
            edited.to_string(),
            "failed to acquire lease on `acct/locks/nightly`: no key"
        );
        assert!(edited.source().is_some() && shared.source().is_none());
        assert!(edited.clone().source().is_some());
    }

    #[test]
    fn delivery_says_what_may_have_been_done() {
        use Delivery::*;

        let answered = |kind, status, code: Option<&str>| {
            Error::new(kind, "").with_reply(status, code.map(str::to_owned), None, None)
        };
        let rows = [
            (Error::transport("", Phase::Resolve), NotDone, false),
            (Error::transport("", Phase::Connect), NotDone, false),
            (Error::transport("", Phase::Tls), NotDone, false),
            (Error::transport("", Phase::Send), NotDone, false),
            (
                Error::transport("", Phase::Connect).unheard(),
                Unheard,
                false,
            ),
            (Error::transport("", Phase::Reply), Unknown, true),
            (Error::transport("", Phase::Tls).permanent(), Refused, false),
            (
                answered(ErrorKind::Throttled, 503, Some("ServerBusy")),
                NotDone,
                false,
            ),
            (answered(ErrorKind::Throttled, 429, None), NotDone, false),
            (answered(ErrorKind::Throttled, 503, None), Unknown, true),
            (
                answered(ErrorKind::Throttled, 429, None).marked_foreign(),
                Unknown,
                true,
            ),
            (
                answered(ErrorKind::Service, 500, Some("InternalError")),
                Unknown,
                true,
            ),
            (
                answered(ErrorKind::Service, 502, None).marked_foreign(),
                Unknown,
                true,
            ),
            (answered(ErrorKind::Protocol, 200, None), Unknown, true),
            (
                answered(ErrorKind::Protocol, 400, Some("InvalidHeaderValue")),
                Refused,
                false,
            ),
            // The answer is final, but a web filter may have let the request through.
            (
                answered(ErrorKind::Protocol, 200, None)
                    .marked_foreign()
                    .permanent(),
                Refused,
                true,
            ),
            (
                answered(ErrorKind::Auth, 403, Some("AuthenticationFailed")),
                Refused,
                false,
            ),
            (
                answered(ErrorKind::WouldBlock, 409, Some("LeaseAlreadyPresent")),
                Refused,
                false,
            ),
            (Error::lost(LossReason::Taken), Refused, false),
            (Error::config("no key"), Refused, false),
        ];
        for (number, (error, delivery, ambiguous)) in rows.into_iter().enumerate() {
            let found = (error.delivery(), error.is_ambiguous());
            assert_eq!(found, (delivery, ambiguous), "row {number}: {error}");
        }
    }
}
