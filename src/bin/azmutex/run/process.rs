//! The processes of this machine, as far as the system shows them without a library: on Linux.

use std::ffi::CStr;
use std::io::Write as _;

pub(super) use self::listing::for_each;
use self::listing::of_path;

/// What a guardian is called. Not azmutex, for `pkill azmutex` not to take both.
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    allow(dead_code, reason = "only there a process can be renamed")
)]
pub(super) const GUARDIAN: &CStr = c"lease-guardian";

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    /// It has ended, and nobody has asked for its status yet.
    pub(super) is_zombie: bool,
    pub(super) is_stopped: bool,
    /// It ends what it started by itself.
    pub(super) is_azmutex: bool,
}

/// All processes; none where they cannot be listed.
pub(super) fn all() -> Vec<Process> {
    let mut found = Vec::new();
    if are_listed() {
        for_each(|process| found.push(process));
    }
    found
}

/// Whether processes can be listed, by the numbers that they have for this one.
pub(super) fn are_listed() -> bool {
    // In a namespace of its own it may see the list of another one.
    of_path(c"/proc/self/stat").is_some_and(|own| own.pid == std::process::id() as i32)
}

/// The process `pid`, if it exists and can be seen. Allocates nothing.
pub(super) fn of(pid: i32) -> Option<Process> {
    let mut path = [0; 32];
    let mut rest = &mut path[..];
    write!(rest, "/proc/{pid}/stat").ok()?;
    of_path(CStr::from_bytes_until_nul(&path).ok()?)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod listing {
    use std::ffi::CStr;
    use std::mem::MaybeUninit;

    use rustix::fs::{Mode, OFlags, RawDir, open};
    use rustix::io::read;

    use super::Process;

    /// Calls `look` with each process. Allocates nothing.
    pub(in crate::run) fn for_each(mut look: impl FnMut(Process)) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(directory) = open(c"/proc", flags, Mode::empty()) else {
            return;
        };
        let mut space = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(directory, &mut space);
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name().to_str();
            if let Some(process) = name.ok().and_then(|name| super::of(name.parse().ok()?)) {
                look(process);
            }
        }
    }

    pub(super) fn of_path(path: &CStr) -> Option<Process> {
        let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        // What is read here comes first, and takes far less.
        let mut stat = [0; 512];
        let length = read(&file, &mut stat).ok()?;
        super::parse(&stat[..length])
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod listing {
    use std::ffi::CStr;

    use super::Process;

    pub(in crate::run) fn for_each(_: impl FnMut(Process)) {}

    pub(super) fn of_path(_: &CStr) -> Option<Process> {
        None
    }
}

/// The process that a line of `/proc/PID/stat` describes.
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    allow(dead_code, reason = "only there processes are listed")
)]
fn parse(stat: &[u8]) -> Option<Process> {
    // The name is in parentheses, and may hold any byte itself.
    let (from, to) = (
        stat.iter().position(|&byte| byte == b'(')?,
        stat.iter().rposition(|&byte| byte == b')')?,
    );
    let pid = str::from_utf8(&stat[..from]).ok()?.trim_ascii_end();
    let name = stat.get(from + 1..to)?;
    let rest = str::from_utf8(&stat[to + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse().ok();
    Some(Process {
        pid: pid.parse().ok()?,
        parent: number()?,
        group: number()?,
        session: number()?,
        is_zombie: matches!(state, "Z" | "X" | "x"),
        is_stopped: matches!(state, "T" | "t"),
        is_azmutex: name == b"azmutex" || name == GUARDIAN.to_bytes(),
    })
}

/// Those of `all` that descend from `root`, without it, and without `others` and what descends from
/// them.
pub(super) fn descendants(all: &[Process], root: i32, others: &[i32]) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|process| process.parent == parent) {
            let is_new = !found.iter().any(|known| known.pid == process.pid);
            if is_new && process.pid != root && !others.contains(&process.pid) {
                found.push(*process);
                parents.push(process.pid);
            }
        }
    }
    found
}

/// Whether `pid` is `ancestor` or descends from it.
pub(super) fn descends(pid: i32, ancestor: i32) -> bool {
    let mut at = pid;
    for _ in 0..1024 {
        if at == ancestor {
            return true;
        }
        match of(at) {
            Some(process) if process.parent > 0 => at = process.parent,
            _ => return false,
        }
    }
    false
}

/// Whether nobody is there to continue the process group of `pid` once it is stopped: none of its
/// members has a parent in another group of the same session.
pub(super) fn is_orphaned(pid: i32) -> bool {
    let Some(own) = of(pid) else { return false };
    let mut at = own;
    for _ in 0..1024 {
        match of(at.parent) {
            Some(parent) if parent.session != own.session => return true,
            Some(parent) if parent.group != own.group => return false,
            Some(parent) => at = parent,
            None => return true,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let process = parse(b"42 (a) b (c\xff) S 7 41 40 0 -1").unwrap();
        assert_eq!(
            (process.pid, process.parent, process.group, process.session),
            (42, 7, 41, 40)
        );
        assert!(!process.is_zombie);
        assert!(parse(b"42 (x) Z 7 41 40").unwrap().is_zombie);
        assert_eq!(parse(b"42 (x"), None);
    }

    #[test]
    fn descendants_are_those_of_all_generations() {
        let process = |pid, parent| Process {
            pid,
            parent,
            group: 1,
            session: 1,
            is_zombie: false,
            is_stopped: false,
            is_azmutex: false,
        };
        let all = [process(2, 1), process(3, 2), process(4, 3), process(5, 1)];
        let pids = |root, others: &[i32]| {
            let found = descendants(&all, root, others);
            let mut pids: Vec<_> = found.iter().map(|process| process.pid).collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!(pids(2, &[]), [3, 4]);
        assert_eq!(pids(1, &[3]), [2, 5]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_descends_from_its_parent() {
        let own = std::process::id() as i32;
        let parent = of(own).unwrap().parent;
        assert!(descends(own, parent) && !descends(parent, own));
        assert!(all().iter().any(|process| process.pid == own));
    }
}
