//! The commands other than `run`.

mod acquire;
mod breaking;
mod doctor;
mod doctor_identity;
mod elect;
#[cfg(feature = "emulator")]
mod emulator;
mod forget;
mod generate;
mod give_back;
mod hold;
mod list;
mod renew;
mod setup;
mod status;

use crate::args::{Command, Global};
use crate::exit::Code;
use crate::output::Failure;

/// The result of a command.
pub(crate) type Outcome = Result<Code, Failure>;

pub(crate) fn dispatch(command: &Command, global: &Global) -> Outcome {
    match command {
        Command::Run(_) => unreachable!("`run` is not dispatched here"),
        Command::Elect(args) => elect::look(args, global),
        Command::Once(args) => forget::forget(args, global),
        Command::Status(args) => status::status(args, global),
        Command::List(args) => list::list(args, global),
        Command::Break(args) => breaking::break_lease(args, global),
        Command::Acquire(args) => acquire::acquire(args, global),
        Command::Renew(args) => renew::renew(args, global),
        Command::Release(args) => renew::release(args, global),
        Command::Hold(args) => hold::hold(args, global),
        Command::Doctor(args) if args.setup => setup::setup(global),
        Command::Doctor(args) => doctor::doctor(args, global),
        #[cfg(feature = "emulator")]
        Command::Emulator(args) => emulator::emulator(args, global),
        Command::Completions(args) => generate::completions(args),
        Command::Man(args) => generate::man(args),
        Command::Schema(_) => generate::schema(),
    }
}
