/// One way to use the core wrongly, or a core that is wrong in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// A lease counts from the reply to its acquire.
    DeadlineFromReply,
    /// A lease counts from the reply to its renewal.
    RenewalFromReply,
    /// A lease counts from the send that was answered, not from the first of its ID.
    DeadlineFromResend,
    /// The lease is claimed to the last, by a clock that may run slow.
    NoMargin,
    /// Renews by acquiring again with the same ID.
    AcquireAsRenew,
    /// Acquires again with the ID that was given up.
    IdReused,
    /// A renewal that names another ID counts.
    OtherIdTrusted,
    /// A renewal that was not answered counts.
    FailureAsSuccess,
    /// What a renewal says still counts after the release.
    OutcomeAfterRelease,
    /// The renewal thread does not stop at the release.
    RenewsAfterRelease,
    /// The renewal thread ends once the user has the guard.
    NeverRenews,
    /// Held is what was found last, not what the clock says.
    HeldIsRemembered,
    /// Held until the service says otherwise.
    UnprovenIsHeld,
    /// Makes room by breaking whatever lease there is, when an acquire was not answered.
    BreaksWhenInDoubt,
    /// The next token follows the one that was read before the lease was acquired.
    TokenReadBeforeLease,
    /// A lock counts as acquired however long storing its token took.
    LateTokenHandedOut,
    /// After a slow store the lease is proven again, however long that takes.
    ProvenOnce,
    /// A token is taken as stored when the service did not answer.
    UnansweredTokenHandedOut,
    /// Guarded writes go without the lease ID.
    WriteWithoutId,
    /// A release counts as done when the service says that the lease is gone.
    GoneIsReleased,
    /// The same, when an attempt before was not answered, however long the lease was unproven then.
    UnansweredIsReleased,
    /// What a late grant brings to a client that has given up is left to run out.
    LateGrantForgotten,
    /// The next user in a process gets a lease whose ID got out.
    SameIdHandedOver,
    /// The lease goes on from user to user in a process, for however long.
    UnboundedHandOvers,
    /// A change of the ID counts as a renewal.
    ChangeIsRenewal,
    /// The next user in a process gets a lease that nobody can vouch for.
    UnprovenHandedOver,
}
