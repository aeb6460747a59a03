//! The guide: how to use azmutex well, one page for each subject.
//!
//! | You want to | read |
//! |---|---|
//! | take your first lock, from a program or from a shell | [`first_lock`] |
//! | sign in, with a key or without one | [`signing_in`] |
//! | know what the guarantee rests on | [`guarantee`] |
//! | be safe although a process can be paused | [`pauses`] |
//! | see who holds a lock | [`holders`] |
//! | know how waiting works, and what it costs | [`waiting`] |
//! | let N at a time go on, not one | [`semaphore`] |
//! | have a migration or a job done once | [`once`] |
//! | hold several locks, all of them or none | [`several_locks`] |
//! | have one leader at a time, and another when it fails | [`election`] |
//! | test your own program without an account | [`testing`] |
//! | run commands and scripts under a lock | [`command`] |
//! | see what it looks like in a terminal | [`terminal`] |
//! | look up an environment variable | [`variables`] |
//! | copy a recipe for cron, systemd, a pipeline, Kubernetes | [`recipes`] |
//! | use an account with versions, soft delete or replication | [`account_features`] |
//! | find out what an error means | [`troubleshooting`] |
//! | come from another lock | [`coming_from`] |

#[allow(unused_imports, reason = "the pages' links")]
use crate::azure::credential::Credential;

macro_rules! pages {
    ($($(#[$attribute:meta])* $name:ident)*) => {$(
        #[doc = include_str!(concat!(stringify!($name), ".md"))]
        $(#[$attribute])*
        pub mod $name {}
    )*};
}

pages! {
    first_lock
    #[doc = include_str!("signing_in_with_an_identity.md")]
    signing_in
    #[doc = include_str!("lease.svg")]
    guarantee
    pauses
    holders
    #[doc = include_str!("waiting.svg")]
    waiting
    semaphore
    once
    several_locks
    election
    testing
    command
    terminal
    variables
    recipes
    account_features
    troubleshooting
    coming_from
}
