//! `azmutex run`: a command under the lock.

use std::process::ExitCode;

use crate::args::{Global, RunArgs};
use crate::exit::Code;
use crate::output::Failure;

pub(crate) fn run(args: &RunArgs, global: &Global) -> ExitCode {
    let _ = args;
    Failure::new(Code::Failed, "run is not there yet").report(global);
    Code::Failed.into()
}
