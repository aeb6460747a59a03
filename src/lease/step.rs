//! PURE: what a lease asks for, and what it is told.

use std::time::Duration;

use crate::error::{Error, LossReason};
use crate::time::tick::Moment;

/// What to do next for a lease.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send this, let it take no longer than `timeout`, and report what became of it.
    Send { request: Request, timeout: Duration },
    /// Nothing, until one of the two clocks shows this.
    Wait(Moment),
    /// Tell those who listen.
    Announce(Notice),
    /// The lease is held, and all is done that has to be done before its user may have it.
    HandOver { token: Option<i64> },
    /// The lease was not acquired. What the service may have granted all the same is released next.
    Fail(Error),
    /// The lease was lost before anyone had it. Go on with a new ID.
    Restart,
    /// Nothing, ever.
    End,
}

/// A request on behalf of one lease ID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Request {
    Acquire,
    CreateContainer,
    CreateBlob,
    /// Look who holds the lease that is waited for.
    ReadHolder,
    /// Read the lock blob's metadata under the lease.
    ReadMetadata,
    /// Write the fencing token, and the holder with it, over the metadata with this ETag.
    WriteToken {
        token: i64,
        if_match: String,
    },
    /// Write the holder over the metadata with this ETag.
    WriteHolder {
        if_match: String,
    },
    /// Change the lease from the ID that its user before had to this one.
    Change,
    Renew,
    /// Write that the holder released.
    WriteReleased,
    /// Release the ID that the user before had.
    ReleaseFormer,
    Release,
}

/// What a successful request brought.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    /// The lease is granted. `metadata`: what the blob's ETag says of its metadata, if it is an ETag
    /// that is known.
    Granted { metadata: Option<Metadata> },
    /// Whether another client holds the lease, and whether that is another one than last time.
    Looked { held: bool, changed: bool },
    /// The blob's metadata.
    Metadata(Metadata),
    /// Metadata was written, and the blob has this ETag now.
    Written { etag: String },
    /// It was done.
    Done,
}

/// What a lease has to know of its blob's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Metadata {
    pub(crate) etag: String,
    /// The last fencing token that was handed out.
    pub(crate) token: Option<i64>,
    /// The wall clock when the metadata was read, in milliseconds since 1970.
    pub(crate) wall: i64,
}

/// What happened, for those who listen.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    /// Others in this process are served before.
    InLine {
        elapsed: Duration,
    },
    /// Another client holds the lease, or still does.
    HeldByAnother {
        attempt: u32,
        elapsed: Duration,
    },
    /// An attempt to acquire failed in a way that may pass.
    AcquireFailed {
        attempt: u32,
        error: Error,
        /// Whether it is time to say so again to whoever reads logs.
        report: bool,
    },
    Acquired {
        elapsed: Duration,
    },
    Renewed,
    RenewalFailed {
        error: Error,
        remaining: Duration,
    },
    /// The holder, or that it released, could not be written.
    RecordFailed {
        error: Error,
    },
    Unproven,
    HeldAgain,
    Lost(LossReason),
    /// The next user in this process has the lease.
    HandedOver {
        hand_overs: u32,
        held: Duration,
    },
    Released,
}
