//! The commands other than `run`.

use crate::args::{Command, Global};
use crate::exit::Code;
use crate::output::Failure;

/// What a command ends with.
pub(crate) type Outcome = Result<Code, Failure>;

pub(crate) fn dispatch(command: &Command, global: &Global) -> Outcome {
    let _ = global;
    match command {
        Command::Run(_) => unreachable!("`run` has a main of its own"),
        _ => Err(Failure::new(Code::Bug, "not there yet")),
    }
}
