//! The kind of stdin, and waiting for its end.

use std::io::{self, IsTerminal as _, Read as _};

/// The kind of stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stdin {
    Terminal,
    /// The null device, as in the background of a script.
    Null,
    Other,
}

impl Stdin {
    pub(crate) fn look() -> Self {
        if io::stdin().is_terminal() {
            Self::Terminal
        } else if is_null() {
            Self::Null
        } else {
            Self::Other
        }
    }
}

/// Reads to the end, and ignores what it reads.
pub(crate) fn drain() {
    let mut input = io::stdin().lock();
    let mut bytes = [0; 1024];
    loop {
        match input.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(unix)]
fn is_null() -> bool {
    use std::fs::{File, metadata};
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

    // A closed one is opened as /dev/null before main.
    let Ok(stdin) = io::stdin().as_fd().try_clone_to_owned() else {
        return true;
    };
    match (File::from(stdin).metadata(), metadata("/dev/null")) {
        (Ok(stdin), Ok(null)) => stdin.file_type().is_char_device() && stdin.rdev() == null.rdev(),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_null() -> bool {
    false
}
