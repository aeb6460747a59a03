//! Time that goes on while the machine sleeps, and waiting for it together with other things.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

/// The time since boot, suspend included where the system counts it.
pub(super) fn now() -> Duration {
    let now = clock_gettime(CLOCK);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

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

    /// Waits until one of `fds` can be read, for at most `wait`; for ever without. A signal may end
    /// it early, and on some systems so may nothing at all.
    pub(super) fn wait(&self, fds: &[BorrowedFd<'_>], wait: Option<Duration>) {
        let mut polled: Vec<_> = fds
            .iter()
            .map(|fd| PollFd::new(fd, PollFlags::IN))
            .collect();
        if wait.is_some_and(|wait| wait.is_zero()) {
            let _ = poll(&mut polled, Some(&Timespec::default()));
            return;
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            if let Some(wait) = wait {
                if self.arm(wait).is_ok() {
                    polled.push(PollFd::new(&self.fd, PollFlags::IN));
                    let _ = poll(&mut polled, None);
                    return;
                }
                self.poll_for(&mut polled, wait);
                return;
            }
            let _ = poll(&mut polled, None);
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        match wait {
            // Its clock may stand still in suspend, so look up now and then.
            Some(wait) => self.poll_for(&mut polled, wait.min(Duration::from_secs(1))),
            None => drop(poll(&mut polled, None)),
        }
    }

    fn poll_for(&self, polled: &mut [PollFd<'_>], wait: Duration) {
        let _ = poll(polled, Some(&timespec(wait)));
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

fn timespec(wait: Duration) -> Timespec {
    // A day at most: nothing here waits longer without looking.
    let wait = wait.min(Duration::from_secs(86_400));
    Timespec {
        tv_sec: wait.as_secs() as _,
        tv_nsec: wait.subsec_nanos() as _,
    }
}
