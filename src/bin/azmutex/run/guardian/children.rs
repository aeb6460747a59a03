//! The guardian as the command's parent: it waits for the command and for its orphans, and tells
//! azmutex. Allocates nothing.

use std::io::PipeWriter;

use rustix::io::write;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, wait, waitid, waitpid};

use super::records::Report;
use crate::run::status::Status;
use crate::run::sys;

pub(super) struct Children {
    command: Pid,
    reports: PipeWriter,
    /// What the command's first process does, and what azmutex was told of that.
    state: Report,
    told: Report,
    /// Its status may be collected.
    reaps: bool,
    /// Whether there are children, and what azmutex was told of that.
    any: bool,
    told_any: Option<bool>,
}

impl Children {
    /// `reports` does not block.
    pub(super) fn new(command: Pid, reports: PipeWriter) -> Self {
        Self {
            command,
            reports,
            state: Report::Running,
            told: Report::Running,
            reaps: false,
            any: true,
            told_any: None,
        }
    }

    /// From here on the command's first process is collected like any other.
    pub(super) fn reap_all(&mut self) {
        self.reaps = true;
    }

    /// Whether there are any.
    pub(super) fn any(&self) -> bool {
        self.any
    }

    /// Looks at what the children did. While they are `frozen`, a stop of the command is not
    /// reported.
    pub(super) fn look(&mut self, frozen: bool) {
        if !matches!(self.state, Report::Ended(_)) {
            self.look_at_command(frozen);
        }
        if self.reaps {
            self.any = reap_all();
        } else {
            self.reap_others();
        }
    }

    fn look_at_command(&mut self, frozen: bool) {
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let command = WaitId::Pid(self.command);
        let status = waitid(command, ended).ok().flatten();
        if let Some(status) = status.and_then(|status| Status::of(&status)) {
            self.state = Report::Ended(status);
            return;
        }
        let moved = WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED | WaitIdOptions::NOHANG;
        let command = WaitId::Pid(self.command);
        if let Some(status) = waitid(command, moved).ok().flatten() {
            match status.stopping_signal() {
                Some(_) if frozen => {}
                Some(signal) => self.state = Report::Stopped(signal),
                None => self.state = Report::Running,
            }
        }
    }

    /// Collects the status of orphans that have ended.
    fn reap_others(&self) {
        while let Ok(Some(pid)) = sys::ended_child() {
            let command = self.command.as_raw_nonzero().get();
            if pid == command || waitpid(Pid::from_raw(pid), WaitOptions::NOHANG).is_err() {
                return;
            }
        }
    }

    /// Tells azmutex what is new. Returns whether that worked: azmutex may be stopped.
    pub(super) fn tell(&mut self) -> bool {
        if self.told != self.state {
            if write(&self.reports, &self.state.encode()).is_err() {
                return false;
            }
            self.told = self.state;
        }
        if self.reaps && self.told_any != Some(self.any) {
            if write(&self.reports, &Report::Others(self.any).encode()).is_err() {
                return false;
            }
            self.told_any = Some(self.any);
        }
        true
    }
}

/// Collects the status of all children that have ended. Returns whether others are left.
fn reap_all() -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
