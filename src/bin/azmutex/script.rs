//! The script that a lock is held for: its process, and those that it has started.
//!
//! `hold` is not their parent, so it has to look for them again and again: once the script has
//! ended, nothing tells whose children they were.

use std::io;

use crate::process::{self, Process};
use crate::processes::{self, Process as Listed};

/// The process `pid`, if it is listed and has not ended.
fn running(pid: i32) -> Option<Listed> {
    processes::of(pid).filter(|process| !process.is_zombie)
}

/// The script's processes, as far as the system lists them: on Linux.
pub(crate) struct Script {
    process: Process,
    /// What it has started and runs, as far as it was seen when its parents did.
    found: Vec<Listed>,
    /// What belongs to `hold` itself: it, and what is between it and the script.
    own: Vec<i32>,
    group: Option<i32>,
    /// When it was last looked, as the start of processes is counted.
    looked: u64,
    /// Nothing counts any more but what was found and what that starts.
    closed: bool,
}

impl Script {
    pub(crate) fn new(process: Process) -> Self {
        let mut own = vec![std::process::id().cast_signed()];
        let parents = |pid: i32| running(pid).map(|listed| listed.parent);
        let above: Vec<_> = std::iter::successors(parents(own[0]), |pid| parents(*pid))
            .take_while(|pid| *pid > 0)
            .collect();
        if let Some(between) = above.iter().position(|pid| *pid == process.id()) {
            own.extend(&above[..between]);
        }
        let mut this = Self {
            group: running(process.id()).map(|listed| listed.group),
            process,
            found: Vec::new(),
            own,
            looked: 0,
            closed: false,
        };
        this.look();
        this
    }

    pub(crate) fn id(&self) -> i32 {
        self.process.id()
    }

    /// Looks for the processes that run now. To be called often.
    pub(crate) fn look(&mut self) {
        let now = processes::ticks();
        // What was found stays the script's, whoever its parent is by now.
        self.found.retain(Listed::still_runs);
        let mut parents: Vec<_> = self.found.iter().map(|known| known.pid).collect();
        if self.closed {
            self.add_children_of(parents);
            return;
        }
        parents.push(self.id());
        self.add_children_of(parents);
        if self.process.is_gone() {
            // Whose children they were can be told no more.
            self.closed = true;
            self.add_new_orphans();
            self.look();
        } else {
            self.looked = now;
        }
    }

    fn add_children_of(&mut self, mut parents: Vec<i32>) {
        while let Some(parent) = parents.pop() {
            for child in processes::children(parent) {
                if !self.own.contains(&child.pid) && !self.knows(child.pid) {
                    self.found.push(child);
                    parents.push(child.pid);
                }
            }
        }
    }

    /// What the script started between the last look and its end: it is in the script's group, and
    /// nobody's there.
    fn add_new_orphans(&mut self) {
        let (group, looked) = (self.group, self.looked);
        let is_new = |process: &Listed| {
            let orphaned = || {
                let parent = running(process.parent);
                parent.is_none_or(|parent| parent.group != process.group)
            };
            let in_group = Some(process.group) == group && !process.is_zombie;
            in_group && process.started + 1 >= looked && orphaned()
        };
        for process in processes::all().into_iter().filter(is_new) {
            if !self.own.contains(&process.pid) && !self.knows(process.pid) {
                self.found.push(process);
            }
        }
    }

    fn knows(&self, pid: i32) -> bool {
        self.found.iter().any(|known| known.pid == pid)
    }

    /// What the script itself starts from here on does not count.
    pub(crate) fn close(&mut self) {
        self.look();
        self.closed = true;
    }

    /// The processes that the script has started, and that run.
    pub(crate) fn running(&self) -> Vec<i32> {
        self.found.iter().map(|known| known.pid).collect()
    }

    /// Whether nothing of it runs any more, the script included.
    pub(crate) fn is_gone(&self) -> bool {
        self.found.is_empty() && self.process.is_gone()
    }

    /// Sends `signal` to the script, and to all that it has started. Returns what became of it at the
    /// script itself.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        // First, or a shell would go on to its next command when the one before has ended.
        let sent = self.process.signal(signal);
        for known in &self.found {
            let _ = process::send(signal, known);
        }
        sent
    }
}
