//! The command itself, run as a process against an emulator in the test's process.

mod admin;
mod config;
mod doctor;
#[cfg(unix)]
mod emulator;
mod generate;
#[cfg(unix)]
mod guide;
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
mod sign_in;
#[cfg(target_os = "linux")]
mod terminal;
mod tool;
mod usage;
mod variables;

pub(crate) use self::schema::assert_valid;
