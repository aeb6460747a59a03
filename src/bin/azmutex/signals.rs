//! Signals that end a command, as messages to a thread.

/// The signals that ask a program to end.
#[cfg(unix)]
mod system {
    use std::io;
    use std::thread;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::emulate_default_handler;

    use crate::output;
    use crate::writer::soon;

    /// Calls `then` with each signal that asks this process to end.
    ///
    /// Signals that were ignored when this process started stay ignored, as under nohup or in the
    /// background of a shell.
    pub(crate) fn watch(then: impl Fn(i32) + Send + 'static) -> io::Result<()> {
        let ignored = ignored();
        let wanted = [SIGHUP, SIGINT, SIGTERM];
        let wanted = wanted.iter().filter(|s| ignored & (1 << (**s - 1)) == 0);
        let mut signals = Signals::new(wanted)?;
        thread::Builder::new()
            .name("azmutex-signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    then(signal);
                }
            })
            .map(drop)
    }

    /// The signals that are ignored, a bit for each.
    fn ignored() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or(0)
    }

    /// Ends this process as `signal` would have, so that its parent sees the signal.
    pub(crate) fn die(signal: i32) -> ! {
        output::flush(soon());
        let _ = emulate_default_handler(signal);
        // Process 1 survives it.
        std::process::exit(128 + signal)
    }
}

#[cfg(not(unix))]
mod system {
    use std::io;

    use crate::output;
    use crate::writer::soon;

    /// The system ends the process, and the lease runs out.
    pub(crate) fn watch(_: impl Fn(i32) + Send + 'static) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn die(signal: i32) -> ! {
        output::flush(soon());
        std::process::exit(128 + signal)
    }
}

pub(crate) use self::system::{die, watch};
