//! Files that the user names. They may be named pipes, which may take forever to open and read.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

/// Opens a file to read. Does not wait for somebody to write to a named pipe.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    }
    options.open(path)
}

/// Reads a file that [`open`] opened, up to `most` bytes, for at most `limit`.
#[cfg(unix)]
pub(crate) fn read(file: &File, most: u64, limit: Duration) -> io::Result<Zeroizing<Vec<u8>>> {
    use std::io::Read as _;
    use std::os::unix::fs::FileTypeExt as _;
    use std::time::Instant;

    let is_pipe = file.metadata()?.file_type().is_fifo();
    let end = Instant::now() + limit;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(most).unwrap_or(0)));
    loop {
        let left = most - bytes.len() as u64;
        let read = match file.take(left).read_to_end(&mut bytes) {
            // Until somebody opens it for writing, a pipe looks as if it had ended.
            Ok(_) if is_pipe && bytes.is_empty() => false,
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => return Err(error),
        };
        if read {
            return Ok(bytes);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(nobody("has written to this pipe", limit));
        }
        wait(file, left);
    }
}

#[cfg(not(unix))]
pub(crate) fn read(file: &File, most: u64, _: Duration) -> io::Result<Zeroizing<Vec<u8>>> {
    use std::io::Read as _;

    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(most).unwrap_or(0)));
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file to append to, for at most `limit`: a named pipe must have a reader.
#[cfg(unix)]
pub(crate) fn open_to_append(path: &Path, limit: Duration) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::time::Instant;

    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    let end = Instant::now() + limit;
    loop {
        let mut options = File::options();
        options.append(true).create(true);
        options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        match options.open(path) {
            Ok(file) => {
                let flags = fcntl_getfl(&file)?;
                fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
                return Ok(file);
            }
            Err(error) if error.raw_os_error() != Some(libc::ENXIO) => return Err(error),
            Err(_) if Instant::now() >= end => {
                return Err(nobody("reads from this pipe", limit));
            }
            // The system does not report that a reader has come, so try again.
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

#[cfg(unix)]
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until there may be something to read. A pipe that nobody has opened yet reports nothing.
#[cfg(unix)]
fn wait(file: &File, left: Duration) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let mut fds = [PollFd::new(file, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: left.as_secs().min(60) as _,
        tv_nsec: left.subsec_nanos() as _,
    };
    let ready = poll(&mut fds, Some(&timeout));
    if ready.is_err() || !fds[0].revents().contains(PollFlags::IN) {
        std::thread::sleep(PAUSE.min(left));
    }
}

#[cfg(unix)]
fn nobody(what: &str, limit: Duration) -> io::Error {
    let text = format!("nobody {what} within {}", crate::times::short(limit));
    io::Error::new(io::ErrorKind::TimedOut, text)
}
