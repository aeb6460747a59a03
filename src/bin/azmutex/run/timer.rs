//! Time that goes on while the machine sleeps, and waiting for it together with other things.

use std::io;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::AsFd as _;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

/// The time since boot, suspend included where the system counts it.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(CLOCK);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// How many descriptors can be waited for.
const MOST: usize = 4;

/// Waits for descriptors or for a time, whichever comes first.
pub(super) struct Timer {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fd: std::os::fd::OwnedFd,
}

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            fd: {
                use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
                timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?
            },
        })
    }

    /// Waits until one of `fds`, at most [`MOST`], can be read, for at most `wait`; for ever without.
    /// A signal may end it early, and on some systems so may nothing at all. Allocates nothing.
    pub(super) fn wait(&self, fds: &[BorrowedFd<'_>], wait: Option<Duration>) {
        let is_over = wait.is_some_and(|wait| wait.is_zero());
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            let armed = !is_over && wait.is_some_and(|wait| self.arm(wait).is_ok());
            let mut polled: [_; MOST + 1] = std::array::from_fn(|at| {
                let fd = fds.get(at).copied().unwrap_or(self.fd.as_fd());
                PollFd::from_borrowed_fd(fd, PollFlags::IN)
            });
            let polled = &mut polled[..fds.len().min(MOST) + usize::from(armed)];
            let end = match wait {
                _ if is_over => Some(Timespec::default()),
                Some(wait) if !armed => Some(timespec(wait)),
                _ => None,
            };
            let _ = poll(polled, end.as_ref());
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        {
            let mut polled: [_; MOST] = std::array::from_fn(|at| {
                PollFd::from_borrowed_fd(*fds.get(at).unwrap_or(&fds[0]), PollFlags::IN)
            });
            let end = match wait {
                _ if is_over => Some(Timespec::default()),
                // Its clock may stand still in suspend, so look up now and then.
                Some(wait) => Some(timespec(wait.min(Duration::from_secs(1)))),
                None => None,
            };
            let _ = poll(&mut polled[..fds.len().min(MOST)], end.as_ref());
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn arm(&self, wait: Duration) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, timerfd_settime};
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: timespec(wait),
        };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

pub(super) fn timespec(wait: Duration) -> Timespec {
    // A day at most: nothing here waits longer without looking.
    let wait = wait.min(Duration::from_secs(86_400));
    Timespec {
        tv_sec: wait.as_secs() as _,
        tv_nsec: wait.subsec_nanos() as _,
    }
}
