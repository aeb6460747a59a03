//! What all guards of a locker share.

use std::time::Duration;

use super::abandoned::AbandonedLeases;
use super::event::Events;
use super::stop::StopToken;
use crate::lease::ids::LeaseDuration;
use crate::lease::terms::Terms;
use crate::mutex::azure_mutex::AzureMutex;
use crate::mutex::recorder::Recorder;

/// The settings of a locker, checked.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) mutex: AzureMutex,
    pub(crate) key: String,
    pub(crate) duration: LeaseDuration,
    pub(crate) terms: Terms,
    pub(crate) recorder: Recorder,
    pub(crate) events: Events,
    pub(crate) stop: Option<StopToken>,
    /// For how long this process hands the lock over before it lets others in. Zero if it does not.
    pub(crate) hand_over_for: Duration,
    pub(crate) abandoned: AbandonedLeases,
    /// The size of a lease thread's stack, in bytes.
    pub(crate) stack: usize,
}

impl Settings {
    /// Enough for what observers and loggers do; only what is touched is memory.
    pub(crate) const STACK: usize = 2 * 1024 * 1024;
}
