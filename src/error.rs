use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Why an operation failed.
///
/// One opaque type for the whole crate: [`kind`](Self::kind) says what a caller can do about it,
/// and the accessors hold what the service said, for logs and support requests. The text is the
/// operation, the blob and the reason; the cause below it, if any, is in
/// [`source`](StdError::source) and not repeated in the text. No error ever shows a key, a SAS
/// signature or a token.
///
/// Cloning is cheap: clones share the same details.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Default)]
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
    /// The ID of a lease that may have been granted.
    lease: Option<u128>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What a failed request may have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Delivery {
    /// Nothing: it was not sent, or the service was too busy to begin. It may be sent again.
    NotDone,
    /// Nobody knows: it was sent, and there is no answer that says. It may be sent again where doing
    /// it twice does no harm.
    Unknown,
    /// The service answered, and would answer the same again.
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
    /// that the text names.
    Config,
    /// The lease is gone for good: broken, taken, deleted or already released. Stop the work.
    LeaseLost,
    /// The lease can no longer be vouched for, but is not known to be lost: no renewal was
    /// confirmed in time. Pause the work; it may become held again.
    LeaseUnproven,
    /// The container, the blob, or the lease to break does not exist.
    NotFound,
    /// The reply made no sense, or the service refused the request in a way that this version does
    /// not know. The service's own code is in [`Error::service_code`].
    Protocol,
    /// The service failed (5xx). Try again later.
    Service,
    /// Waiting was ended by a [`StopToken`](crate::StopToken).
    Stopped,
    /// The operating system refused something, such as a thread.
    System,
    /// The service is overloaded (503, 429). Try again later, less often.
    Throttled,
    /// No reply: name resolution, connection, TLS or a timeout. What was asked may have been done.
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
    /// The guard released it.
    Released,
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "the lease was broken by another client",
            Self::Taken => "the lease ID is no longer the blob's: it ran out or was taken over",
            Self::Deleted => "the lock blob was deleted",
            Self::MaxHold => "the lock was held for longer than max_hold and not renewed any more",
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

    /// How long the service asked to be left alone (`Retry-After`).
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What a failed request may have done, which decides whether it may be sent again.
    pub(crate) fn delivery(&self) -> Delivery {
        match (self.is_transient(), self.is_ambiguous()) {
            (false, _) => Delivery::Refused,
            (true, true) => Delivery::Unknown,
            (true, false) => Delivery::NotDone,
        }
    }

    /// How often it was tried, and for how long.
    pub(crate) fn spent(self, _attempts: u32, _elapsed: Duration) -> Self {
        self
    }

    pub(crate) fn with_lease(self, id: u128) -> Self {
        self.edit(|inner| inner.lease = Some(id))
    }

    pub(crate) fn lease(&self) -> Option<u128> {
        self.0.lease
    }

    /// Whether there was no reply at all.
    pub(crate) fn is_silence(&self) -> bool {
        self.kind() == ErrorKind::Transport && self.0.status.is_none()
    }

    /// Whether the service said so, rather than nothing.
    pub(crate) fn is_answer(&self) -> bool {
        self.0.status.is_some()
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub(crate) fn is_transient(&self) -> bool {
        match self.kind() {
            _ if self.0.permanent => false,
            ErrorKind::Transport | ErrorKind::Throttled | ErrorKind::Service => true,
            // A reply that could not be read says nothing; one that refuses says enough.
            ErrorKind::Protocol => self.0.status.is_none_or(|status| status < 400),
            _ => false,
        }
    }

    /// Whether the service may have done what was asked although it did not say so.
    pub(crate) fn is_ambiguous(&self) -> bool {
        // A 503 of the service's own says that it was too busy to begin; one without its code may
        // be of something in between, which lost the answer.
        let refused = self.0.status == Some(429) || self.service_code() == Some("ServerBusy");
        self.is_transient() && !(self.kind() == ErrorKind::Throttled && refused)
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

    /// No reply, or none that could be used.
    #[cold]
    pub(crate) fn transport(
        detail: impl Into<String>,
        source: Option<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::new(ErrorKind::Transport, detail).edit(|inner| inner.source = source)
    }

    #[cold]
    pub(crate) fn lost(reason: LossReason) -> Self {
        Self::new(ErrorKind::LeaseLost, reason.to_string()).edit(|inner| inner.loss = Some(reason))
    }

    /// What was being done, as in "failed to renew lease", and to which blob.
    pub(crate) fn during(self, verb: &'static str, target: &str) -> Self {
        if self.0.action.is_some() {
            return self;
        }
        self.edit(|inner| inner.action = Some((verb, target.to_owned())))
    }

    /// What the service said.
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
        self.edit(|inner| inner.source = Some(Box::new(source)))
    }

    /// The same failure, seen by one who held the lease.
    pub(crate) fn into_loss(self, reason: LossReason) -> Self {
        self.edit(|inner| {
            inner.kind = Some(ErrorKind::LeaseLost);
            inner.loss = Some(reason);
        })
    }

    /// The same refusal, seen by one who wants the lease.
    pub(crate) fn into_busy(self) -> Self {
        self.edit(|inner| {
            inner.kind = Some(ErrorKind::WouldBlock);
            inner.loss = None;
            inner.detail = "another client holds it".to_owned();
        })
    }

    /// The same answer, to one who wanted to break whatever lease there is.
    pub(crate) fn into_no_lease(self) -> Self {
        self.edit(|inner| {
            inner.kind = Some(ErrorKind::NotFound);
            inner.loss = None;
            inner.detail = "there is no lease to break".to_owned();
        })
    }

    /// A condition on the blob's ETag that did not hold.
    pub(crate) fn into_changed(self, detail: &str) -> Self {
        self.edit(|inner| {
            inner.kind = Some(ErrorKind::WouldBlock);
            inner.detail = detail.to_owned();
        })
    }

    /// Marks a failure that no repetition mends, such as an untrusted certificate.
    pub(crate) fn permanent(self) -> Self {
        self.edit(|inner| inner.permanent = true)
    }

    /// Errors are edited while they are built, before anyone shares them.
    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            change(inner);
        }
        self
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
        match (code, status) {
            (Some(code), Some(status)) => {
                write!(f, "{code} ({status})")?;
                if !detail.is_empty() {
                    write!(f, ": {detail}")?;
                }
                Ok(())
            }
            (None, Some(status)) => write!(f, "{detail} (status {status})"),
            (_, None) => f.write_str(detail),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind())
            .field("message", &self.to_string())
            .field("request_id", &self.0.request_id)
            .field("source", &self.0.source)
            .finish()
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

/// Why [`Locker::try_lock`](crate::Locker::try_lock) and its timed forms gave no guard.
///
/// Made like [`std::fs::TryLockError`]: contention is apart from failure.
#[derive(Debug, Clone)]
#[allow(clippy::exhaustive_enums)] // as in std: there is no third outcome
pub enum TryLockError {
    /// The attempt failed; whether somebody holds the lock is not known.
    Error(Error),
    /// Another client holds the lock, now or until the time given was over.
    WouldBlock,
}

impl fmt::Display for TryLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::WouldBlock => f.write_str("another client holds the lock"),
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

/// Shows a rejected value, shortened so that an error stays readable.
pub(crate) fn quoted(value: &str) -> String {
    let mut out: String = value
        .chars()
        .take(64)
        .flat_map(char::escape_debug)
        .collect();
    if value.chars().nth(64).is_some() {
        out.push('…');
    }
    format!("`{out}`")
}
