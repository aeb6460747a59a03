//! The command itself, run as a process against an emulator in the test's process.

mod admin;
mod config;
mod doctor;
#[cfg(unix)]
mod emulator;
mod generate;
mod hold;
mod lease;
#[cfg(unix)]
mod limits;
#[cfg(unix)]
mod nested;
mod network;
mod schema;
#[cfg(unix)]
mod scripts;
mod secrets;
#[cfg(target_os = "linux")]
mod terminal;
mod tool;
mod usage;

pub(crate) use self::schema::assert_valid;
