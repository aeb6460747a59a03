//! One leader at a time, and who it is.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::{ControlFlow, Deref};
use std::time::{Duration, Instant};

use crate::azure::status::LeaseStatus;
#[allow(unused_imports, reason = "for the documentation")]
use crate::error::ErrorKind;
use crate::error::{Error, TryLockError};
use crate::holder::record::Holder;
use crate::lease::ids::LeaseId;
use crate::lock::builder::LockerBuilder;
use crate::lock::guard::LeaseGuard;
use crate::lock::locker::Locker;
use crate::lock::settings::Settings;
use crate::lock::stop::{StopToken, pause};
use crate::mutex::azure_mutex::AzureMutex;
use crate::time::backoff::Pace;
use crate::time::clock::Clock;
use crate::time::jitter::Jitter;
use crate::time::retry::Retry;
use crate::time::tick::Tick;

/// The shortest interval at which an observer asks.
const LEAST_POLL: Duration = Duration::from_millis(10);

/// One leader at a time among any number of candidates: a [`Locker`] whose holder has a term, and which
/// others can watch.
///
/// A candidate that wins is the leader until it [resigns](Leader::resign), loses its lease, or gives
/// no [sign of life](LockerBuilder::health) for too long. Each leader has a [term](Leader::term), which
/// is greater than those of all before it: a resource that refuses smaller terms refuses the work of a
/// leader that was paused and has been replaced since. All that is said of [`LeaseGuard`] holds for a
/// [`Leader`] too.
///
/// A leader that crashes is replaced within its [lease](LockerBuilder::lease_duration) and one
/// [`poll_interval`](LockerBuilder::poll_interval), one that resigns within a poll interval, and one
/// whose work hangs within [`health`](LockerBuilder::health) and a lease, if that is set.
///
/// Cheap to clone; clones are the same election with the same settings.
///
/// # Costs
///
/// A candidate that waits sends one request in each poll interval, as for a lock, and a leader one
/// renewal in each renewal interval. A change of leader takes up to five requests more, for the lease
/// and the term. Watching takes no lease: see [`observe`](Self::observe).
///
/// # Examples
///
/// ```
/// use std::ops::ControlFlow;
///
/// use azmutex::{AzureMutex, Election};
///
/// # let emulator = azmutex::emulator::Emulator::start()?;
/// # let mutex = AzureMutex::new(emulator.options("locks")?)?;
/// let election = Election::new(mutex, "scheduler")?;
/// election.lead(|leader| {
///     println!("leading, in term {}", leader.term());
///     for _job in 0..3 {
///         if leader.check().is_err() {
///             return ControlFlow::Continue(()); // replaced: stand again
///         }
///         leader.alive();
///     }
///     ControlFlow::Break(()) // done for good
/// })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Election(Locker);

impl Election {
    /// An election with the default settings. Sends nothing.
    ///
    /// `key`: a blob name, 1 to 1024 characters. Use it for nothing else: whoever locks it without
    /// [`fencing`](LockerBuilder::fencing) keeps leaders out and has no term.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if `key` is no blob name.
    pub fn new(mutex: AzureMutex, key: &str) -> Result<Self, Error> {
        Locker::builder(mutex, key).build_election()
    }

    /// Stands for election, and waits until this candidate is the leader.
    ///
    /// Blocks the calling thread, as [`Locker::lock`] does: a [`StopToken`] ends the
    /// wait, and failures are retried for [`fault_wait`](LockerBuilder::fault_wait). Whoever resigns and
    /// stands again at once usually wins again; [`lead`](Self::lead) gives others their turn.
    ///
    /// # Errors
    ///
    /// As for [`Locker::lock`].
    pub fn campaign(&self) -> Result<Leader, Error> {
        self.0.lock().map(Leader)
    }

    /// Becomes the leader if there is none. Does not wait.
    ///
    /// # Errors
    ///
    /// [`TryLockError::WouldBlock`] if there is a leader; others as for [`Locker::try_lock`].
    pub fn try_campaign(&self) -> Result<Leader, TryLockError> {
        self.0.try_lock().map(Leader)
    }

    /// Stands for election for at most `timeout`. With zero, the same as
    /// [`try_campaign`](Self::try_campaign).
    ///
    /// # Errors
    ///
    /// [`TryLockError::WouldBlock`] if others led until then, as far as is known; others as for
    /// [`Locker::try_lock_for`].
    pub fn try_campaign_for(&self, timeout: Duration) -> Result<Leader, TryLockError> {
        self.0.try_lock_for(timeout).map(Leader)
    }

    /// Stands for election until `deadline` at most. With one in the past, the same as
    /// [`try_campaign`](Self::try_campaign).
    ///
    /// # Errors
    ///
    /// As for [`try_campaign_for`](Self::try_campaign_for).
    pub fn try_campaign_until(&self, deadline: Instant) -> Result<Leader, TryLockError> {
        self.0.try_lock_until(deadline).map(Leader)
    }

    /// Stands for election, works as the leader, resigns, and stands again, until `work` breaks.
    ///
    /// Blocks the calling thread for as long as that takes. `work` runs on it, once for each time that
    /// this candidate is elected, and returns when it is done or no longer the leader:
    /// [`ControlFlow::Continue`] to stand again, [`ControlFlow::Break`] to end. Only after it has
    /// returned does the leader resign, so threads that it has started must have ended by then. Nothing
    /// here can end work that does not look: it calls [`check`](LeaseGuard::check) before each step that
    /// no other leader may take too, and threads of it use a [`watch`](LeaseGuard::watch).
    ///
    /// Before it stands again it waits for one and a quarter of a poll interval, so that others have
    /// their turn. A [`StopToken`] ends the waits, and not `work`.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::LeaseLost`] if `work` breaks after this candidate was replaced, and the others
    ///   of [`LeaseGuard::release`] if it breaks and the service did not confirm the resignation.
    /// - As for [`campaign`](Self::campaign), also after a loss: with a longer
    ///   [`fault_wait`](LockerBuilder::fault_wait) a candidate sits out longer failures of the service.
    pub fn lead(&self, mut work: impl FnMut(&Leader) -> ControlFlow<()>) -> Result<(), Error> {
        loop {
            let leader = self.campaign()?;
            match work(&leader) {
                ControlFlow::Break(()) => return leader.resign(),
                // A loss or a failure is logged.
                ControlFlow::Continue(()) => drop(leader),
            }
            let poll = self.settings().terms.poll_interval;
            pause(self.settings().stop.as_ref(), poll.saturating_add(poll / 4));
        }
    }

    /// Who leads now, as the service tells. `None` if nobody does.
    ///
    /// Sends one request, and blocks for at most the
    /// [`request_timeout`](crate::MutexOptions::request_timeout). A leader that crashed is told until its
    /// lease has run out; and one that crashed and was replaced, until its successor has written its
    /// term, which it does before it leads.
    ///
    /// # Errors
    ///
    /// As for [`AzureMutex::status`]; but there is no leader where there is no blob or no container.
    pub fn leader(&self) -> Result<Option<LeaderInfo>, Error> {
        leader_of(self.0.mutex().status(self.key()))
    }

    /// Watches who leads: the current state first, and then each change.
    ///
    /// `poll`: the mean time between two requests, at least 10 milliseconds; each delay is up to 15 %
    /// shorter or longer, at random. Each poll is one billed request (Get Blob Properties) and takes no
    /// lease: 5 seconds is right for most, and two changes between two polls count as one. If the service is
    /// overloaded, the interval grows.
    pub fn observe(&self, poll: Duration) -> Observer {
        let poll = poll.max(LEAST_POLL);
        let settings = self.settings();
        Observer {
            election: self.clone(),
            pace: Pace::new(poll),
            retry: Retry::new(settings.terms.fault_wait),
            jitter: Jitter::new(LeaseId::random().map_or(0, |id| id.bits())),
            due: Tick::default(),
            told: None,
            before: None,
        }
    }

    /// The key: the blob's name.
    #[must_use]
    pub fn key(&self) -> &str {
        self.0.key()
    }

    fn settings(&self) -> &Settings {
        self.0.settings()
    }
}

impl fmt::Debug for Election {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Election").field(&self.0).finish()
    }
}

/// The leader of an [`Election`]: a [`LeaseGuard`] with a term. Dropping it resigns.
///
/// Keep it until the work has ended, and only then resign or drop it: the next leader begins at once.
#[must_use = "if unused it resigns immediately"]
#[clippy::has_significant_drop]
pub struct Leader(LeaseGuard);

impl Leader {
    /// The term: a number greater than those of all leaders before. It is the
    /// [fencing token](LeaseGuard::fencing_token).
    #[must_use]
    pub fn term(&self) -> i64 {
        // An election always has fencing on.
        self.0.fencing_token().unwrap_or_default()
    }

    /// Resigns, so that another candidate leads within its poll interval.
    ///
    /// Blocks as [`LeaseGuard::release`] does. The work must have ended before.
    ///
    /// # Errors
    ///
    /// As for [`LeaseGuard::release`]: [`ErrorKind::LeaseLost`] if it was replaced before.
    pub fn resign(self) -> Result<(), Error> {
        self.0.release()
    }
}

impl Deref for Leader {
    type Target = LeaseGuard;

    fn deref(&self) -> &LeaseGuard {
        &self.0
    }
}

impl fmt::Debug for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leader")
            .field("term", &self.term())
            .field("guard", &self.0)
            .finish()
    }
}

/// Who leads an [`Election`]. See [`Election::leader`] and [`Election::observe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderInfo {
    term: i64,
    holder: Option<Holder>,
}

impl LeaderInfo {
    /// Its [term](Leader::term).
    #[must_use]
    pub fn term(&self) -> i64 {
        self.term
    }

    /// Who it is. `None` if it has [`holder_info`](LockerBuilder::holder_info) turned off.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }
}

impl fmt::Display for LeaderInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.holder {
            Some(holder) => write!(f, "{holder}, term {}", self.term),
            None => write!(f, "term {}", self.term),
        }
    }
}

fn leader_of(status: Result<LeaseStatus, Error>) -> Result<Option<LeaderInfo>, Error> {
    let status = match status {
        Ok(status) => status,
        Err(error)
            if matches!(
                error.service_code(),
                Some("BlobNotFound" | "ContainerNotFound")
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    // Whoever has just acquired the lease leads once it has written its term.
    let has_resigned = status.last_holder().is_some_and(Holder::released);
    let term = status.fencing_token();
    let term = term.filter(|_| !status.state().is_free() && !has_resigned);
    Ok(term.map(|term| LeaderInfo {
        term,
        holder: status.holder().cloned(),
    }))
}

/// Watches who leads an [`Election`]: a blocking iterator over the changes.
///
/// Made by [`Election::observe`]. `next` blocks until there is something new, and the first item comes at
/// once: who leads, or `None` if nobody does. It ends only by the
/// [`stop_token`](LockerBuilder::stop_token) of the election, at once while it waits, and otherwise
/// when the service has answered, within half of the
/// [`request_timeout`](crate::MutexOptions::request_timeout).
///
/// Failures that may pass are retried for [`fault_wait`](LockerBuilder::fault_wait); after that, and at
/// once if the service refuses the credential, an item is the error. Whoever goes on then has another try.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// # let emulator = azmutex::emulator::Emulator::start()?;
/// # let mutex = azmutex::AzureMutex::new(emulator.options("locks")?)?;
/// let election = azmutex::Election::new(mutex, "scheduler")?;
/// for leader in election.observe(Duration::from_secs(5)) {
///     match leader? {
///         Some(leader) => println!("{leader}"),
///         None => println!("no leader"),
///     }
///     # break;
/// }
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[must_use = "iterators are lazy: nothing is asked until `next`"]
pub struct Observer {
    election: Election,
    pace: Pace,
    retry: Retry,
    jitter: Jitter,
    /// When the service is asked next, by the system's clock.
    due: Tick,
    /// The term that was told last, and whether one was.
    told: Option<Option<i64>>,
    /// The failure before the last.
    before: Option<Error>,
}

impl Observer {
    /// Asks the service once.
    fn look(&mut self) -> Result<Option<LeaderInfo>, Error> {
        let operations = self.election.0.mutex().operations();
        let sent = Clock::System.now();
        let timeout = self.retry.attempt(sent, operations.request_timeout / 2);
        let result = operations.client.status(self.election.key(), timeout);
        if result.as_ref().map_or_else(Error::is_answer, |_| true) {
            operations.silence.answered(sent);
        }
        leader_of(result)
    }

    /// Takes note of a failure. Returns the error if it is not to be retried.
    fn failed(&mut self, error: Error) -> Option<Error> {
        let (now, random) = (Clock::System.now(), self.jitter.next());
        let (delivery, asked) = (error.delivery(), error.retry_after());
        if error.is_overload() {
            self.pace.overloaded(Duration::MAX);
        }
        match self.retry.failed(now, delivery, true, asked, random) {
            Some(due) => {
                // Never sooner than a service that is overloaded can bear.
                let pace = if error.is_overload() {
                    self.pace.delay(random)
                } else {
                    Duration::ZERO
                };
                self.due = due.max(now + pace);
                self.before = Some(error);
                None
            }
            None => {
                let error = self.retry.conclude(now, error, self.before.take());
                self.retry.reset();
                self.due = now + self.pace.delay(random);
                Some(error)
            }
        }
    }
}

impl Iterator for Observer {
    type Item = Result<Option<LeaderInfo>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let stop = self.election.settings().stop.as_ref();
            pause(stop, self.due.since(Clock::System.now()));
            if stop.is_some_and(StopToken::is_stopped) {
                return None;
            }
            let leader = match self.look() {
                Ok(leader) => leader,
                Err(error) => match self.failed(error) {
                    Some(error) => return Some(Err(error)),
                    None => continue,
                },
            };
            self.retry.reset();
            self.before = None;
            self.pace.answered();
            self.due = Clock::System.now() + self.pace.delay(self.jitter.next());
            let term = Some(leader.as_ref().map(LeaderInfo::term));
            if self.told != term {
                self.told = term;
                return Some(Ok(leader));
            }
        }
    }
}

impl FusedIterator for Observer {}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer")
            .field("election", &self.election)
            .finish_non_exhaustive()
    }
}

impl LockerBuilder {
    /// Checks the settings for an [`Election`] with this key. Sends nothing.
    ///
    /// [`fencing`](Self::fencing) is on, whatever was said of it: the token is the term.
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build).
    pub fn build_election(self) -> Result<Election, Error> {
        self.fencing(true).build().map(Election)
    }
}
