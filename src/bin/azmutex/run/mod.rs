//! `azmutex run`: a command under the lock.

use std::process::ExitCode;

use crate::args::{Global, Purpose, RunArgs};

#[cfg_attr(not(unix), allow(dead_code, reason = "for run"))]
pub(crate) mod budget;
#[cfg(unix)]
mod channel;
#[cfg(unix)]
mod context;
#[cfg(unix)]
mod environment;
#[cfg(unix)]
mod events;
#[cfg_attr(not(unix), allow(dead_code, reason = "for run"))]
pub(crate) mod fence;
#[cfg(unix)]
mod guardian;
#[cfg(unix)]
mod health;
#[cfg(unix)]
mod held;
#[cfg(unix)]
mod job;
#[cfg(unix)]
mod program;
#[cfg(unix)]
mod reporter;
#[cfg(unix)]
mod session;
#[cfg(unix)]
mod signals;
#[cfg(unix)]
mod status;
#[cfg(unix)]
mod supervisor;
#[cfg(unix)]
mod sys;
#[cfg(unix)]
mod terminal;
#[cfg(unix)]
mod timer;
#[cfg(unix)]
mod waiting;
#[cfg(unix)]
mod worker;

#[cfg(unix)]
pub(crate) use self::health::serve as serve_health_checks;
#[cfg(unix)]
pub(crate) use self::timer::now;
#[cfg(not(unix))]
pub(crate) use crate::times::since_start as now;

/// Runs the command as `args` say, for this `purpose`, and returns its exit code.
#[cfg(unix)]
pub(crate) fn run(args: &RunArgs, purpose: Purpose<'_>, global: &Global) -> ExitCode {
    crate::output::never_wait_for_stderr();
    session::run(args, purpose, global)
}

/// Not supported yet: this platform has no signals, and ends processes in another way.
#[cfg(not(unix))]
pub(crate) fn run(args: &RunArgs, purpose: Purpose<'_>, global: &Global) -> ExitCode {
    use crate::exit::Code;
    use crate::output::Failure;

    let _ = (args, purpose);
    let code = Code::Failed;
    Failure::new(code, "run is not supported on this platform yet").report(global);
    code.into()
}
