//! The processes of this machine, as far as the system shows them without a library: on Linux.

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
    pub(super) is_azmutex: bool,
}

/// All processes; none where they cannot be listed.
pub(super) fn all() -> Vec<Process> {
    if !are_listed() {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(of)
        .collect()
}

/// Whether processes can be listed, by the numbers that they have for this one.
pub(super) fn are_listed() -> bool {
    // In a namespace of its own it may see the list of another one.
    let own = std::fs::read_link("/proc/self");
    cfg!(any(target_os = "linux", target_os = "android"))
        && own.is_ok_and(|own| own.as_os_str() == &*std::process::id().to_string())
}

/// The process `pid`, if it exists and can be seen.
pub(super) fn of(pid: i32) -> Option<Process> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(' ')?;
    // The name is in parentheses, and may hold any character itself.
    let (name, rest) = rest.rsplit_once(')')?;
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
        is_azmutex: name == "(azmutex",
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
        let process = parse("42 (a) b (c) S 7 41 40 0 -1").unwrap();
        assert_eq!(
            (process.pid, process.parent, process.group, process.session),
            (42, 7, 41, 40)
        );
        assert!(!process.is_zombie);
        assert!(parse("42 (x) Z 7 41 40").unwrap().is_zombie);
        assert_eq!(parse("42 (x"), None);
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
