//! The command itself, run as a process against an emulator in the test's process.

mod admin;
mod config;
mod doctor;
mod generate;
mod hold;
mod lease;
mod secrets;
mod tool;
mod usage;
