//! The processes of this machine, as Linux lists them. On other systems none are listed.

use std::ffi::CStr;
use std::io::Write as _;

use self::listing::of_path;
pub(crate) use self::listing::{children_are_listed, for_each, for_each_child};

/// The name of a guardian. Not azmutex, so that `pkill azmutex` does not kill both.
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    allow(dead_code, reason = "only there a process can be renamed")
)]
pub(crate) const GUARDIAN: &CStr = c"lease-guardian";

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    /// It has ended, and its status was not collected yet. A process whose first thread has ended
    /// while others run is not a zombie.
    pub(crate) is_zombie: bool,
    pub(crate) is_stopped: bool,
    /// It is an azmutex or a guardian, which ends what it started itself.
    pub(crate) is_azmutex: bool,
    /// When it was started, in ticks since boot. Together with the ID this identifies it.
    pub(crate) started: u64,
}

impl Process {
    /// Whether it has not ended, and its ID was not reused.
    pub(crate) fn still_runs(&self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

/// When the process `pid` was started, in ticks since boot, if it runs and the system tells.
pub(crate) fn started(pid: i32) -> Option<u64> {
    of(pid)
        .filter(|process| !process.is_zombie)
        .map(|process| process.started)
}

/// The time now, as [`Process::started`] counts it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn ticks() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // A hundred a second on every platform, as user space sees them.
    now.tv_sec.cast_unsigned() * 100 + now.tv_nsec.cast_unsigned() / 10_000_000
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn ticks() -> u64 {
    0
}

/// All processes; none where they cannot be listed.
pub(crate) fn all() -> Vec<Process> {
    let mut found = Vec::new();
    if are_listed() {
        for_each(|process| found.push(process));
    }
    found
}

/// Whether processes can be listed, with the IDs that this process knows them by.
pub(crate) fn are_listed() -> bool {
    // In a PID namespace of its own it may see the list of another namespace.
    of_path(c"/proc/self/stat").is_some_and(|own| own.pid == std::process::id() as i32)
}

/// The process `pid`, if it exists and can be seen. Allocates nothing.
pub(crate) fn of(pid: i32) -> Option<Process> {
    of_path(path(&mut [0; PATH], format_args!("/proc/{pid}/stat"))?)
}

/// Room for the longest path here.
const PATH: usize = 64;

fn path<'a>(space: &'a mut [u8; PATH], text: std::fmt::Arguments<'_>) -> Option<&'a CStr> {
    space[..].as_mut().write_fmt(text).ok()?;
    CStr::from_bytes_until_nul(space).ok()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod listing {
    use std::ffi::CStr;
    use std::mem::MaybeUninit;

    use rustix::fs::{Access, Mode, OFlags, RawDir, access, open};
    use rustix::io::read;

    use super::{PATH, Process, path};

    /// Calls `look` with each process. Allocates nothing.
    pub(crate) fn for_each(mut look: impl FnMut(Process)) {
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

    /// Whether the kernel lists the children of a process.
    pub(crate) fn children_are_listed() -> bool {
        access(c"/proc/thread-self/children", Access::EXISTS).is_ok()
    }

    /// Calls `look` with each child of the process `pid`, where the kernel lists them: so it takes no
    /// longer on a machine with many processes. Allocates nothing.
    pub(crate) fn for_each_child(pid: i32, mut look: impl FnMut(Process)) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut space = [0; PATH];
        let Some(tasks) = path(&mut space, format_args!("/proc/{pid}/task")) else {
            return;
        };
        let Ok(directory) = open(tasks, flags, Mode::empty()) else {
            return;
        };
        let mut space = [MaybeUninit::uninit(); 2048];
        let mut entries = RawDir::new(directory, &mut space);
        while let Some(Ok(entry)) = entries.next() {
            let task: Option<i32> = entry.file_name().to_str().ok().and_then(|t| t.parse().ok());
            if let Some(task) = task {
                for_each_child_of(pid, task, &mut look);
            }
        }
    }

    /// The same of one of its threads.
    fn for_each_child_of(pid: i32, task: i32, look: &mut impl FnMut(Process)) {
        let mut space = [0; PATH];
        let Some(list) = path(&mut space, format_args!("/proc/{pid}/task/{task}/children")) else {
            return;
        };
        let Ok(file) = open(list, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
            return;
        };
        let mut look_at = |child: i32| {
            if let Some(child) = super::of(child).filter(|child| child.parent == pid) {
                look(child);
            }
        };
        let mut child = 0;
        let mut text = [0; 1024];
        while let Ok(length @ 1..) = read(&file, &mut text) {
            for byte in &text[..length] {
                match byte {
                    b'0'..=b'9' => child = child * 10 + i32::from(byte - b'0'),
                    _ => look_at(std::mem::take(&mut child)),
                }
            }
        }
        look_at(child);
    }

    pub(super) fn of_path(path: &CStr) -> Option<Process> {
        let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        // The fields that are read come first, and take less.
        let mut stat = [0; 512];
        let length = read(&file, &mut stat).ok()?;
        super::parse(&stat[..length])
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod listing {
    use std::ffi::CStr;

    use super::Process;

    pub(crate) fn for_each(_: impl FnMut(Process)) {}

    pub(crate) fn children_are_listed() -> bool {
        false
    }

    pub(crate) fn for_each_child(_: i32, _: impl FnMut(Process)) {}

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
    // The name is in parentheses, and may contain any byte.
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
    let (parent, group, session) = (number()?, number()?, number()?);
    // The 20th field; six were read.
    let threads: i32 = fields.nth(13)?.parse().ok()?;
    Some(Process {
        pid: pid.parse().ok()?,
        parent,
        group,
        session,
        is_zombie: matches!(state, "Z" | "X" | "x") && threads <= 1,
        is_stopped: matches!(state, "T" | "t"),
        is_azmutex: name == b"azmutex" || name == GUARDIAN.to_bytes(),
        started: fields.nth(1)?.parse().ok()?,
    })
}

/// The children of `pid` that run.
pub(crate) fn children(pid: i32) -> Vec<Process> {
    let is_child = |process: &Process| process.parent == pid && !process.is_zombie;
    if !children_are_listed() {
        return all().into_iter().filter(is_child).collect();
    }
    let mut children = Vec::new();
    for_each_child(pid, |child| children.push(child));
    children.retain(is_child);
    children
}

/// What descends from `root`, without `root`, `others` and what descends from these.
pub(crate) fn below(root: i32, others: &[i32]) -> Vec<Process> {
    if !are_listed() {
        return Vec::new();
    }
    if !children_are_listed() {
        return descendants(&all(), root, others);
    }
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for_each_child(parent, |child| {
            let is_new = !found.iter().any(|known| known.pid == child.pid);
            if is_new && child.pid != root && !others.contains(&child.pid) {
                found.push(child);
                parents.push(child.pid);
            }
        });
    }
    found
}

/// Those of `all` that descend from `root`, without `root`, `others` and what descends from these.
pub(crate) fn descendants(all: &[Process], root: i32, others: &[i32]) -> Vec<Process> {
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
pub(crate) fn descends(pid: i32, ancestor: i32) -> bool {
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

/// Whether the process group of `pid` is an orphaned one, which nobody continues once it is
/// stopped: no member has a parent in another group of the same session.
pub(crate) fn is_orphaned(pid: i32) -> bool {
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
        let rest = "7 41 40 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 123456 9 9";
        let line = [b"42 (a) b (c\xff) S ", rest.as_bytes()].concat();
        let process = parse(&line).unwrap();
        assert_eq!(
            (process.pid, process.parent, process.group, process.session),
            (42, 7, 41, 40)
        );
        assert_eq!((process.is_zombie, process.started), (false, 123_456));
        let zombie = parse(format!("42 (x) Z {rest}").as_bytes()).unwrap();
        assert!(zombie.is_zombie);
        let threads = rest.replace(" 20 0 1 ", " 20 0 3 ");
        let process = parse(format!("42 (x) Z {threads}").as_bytes()).unwrap();
        assert!(!process.is_zombie);
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
            started: 0,
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
