//! Which file a command is, and why it cannot be executed.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::exit::Code;
use crate::output::{Failure, clean};

/// Where commands are looked for if `PATH` is not set.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// A command: its file, and its arguments with its name first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) file: PathBuf,
    pub(super) args: Vec<OsString>,
}

impl Program {
    /// Finds the file, so that a mistake is known before the lock is taken.
    pub(super) fn resolve(command: &[OsString], shell: Option<&Path>) -> Result<Self, Failure> {
        let args: Vec<OsString> = match (shell, command) {
            (None, _) => command.to_vec(),
            (Some(shell), [text]) => vec![shell.into(), "-c".into(), text.clone()],
            (Some(_), _) => {
                return Err(
                    Failure::usage("--shell: it takes the command as one argument")
                        .hint("quote it: azmutex run LOCK -c 'make && make install'"),
                );
            }
        };
        let Some(name) = args.first() else {
            return Err(Failure::usage("there is no command to run"));
        };
        let file = find(name, std::env::var_os("PATH").as_deref())
            .map_err(|reason| cannot_start(name, &reason))?;
        Ok(Self { file, args })
    }

    /// The name that was given, without its directory: what others may know.
    pub(super) fn name(&self) -> String {
        let name = self.args.first().map(Path::new).and_then(Path::file_name);
        name.unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Why `exec` failed, although the file was there.
    pub(super) fn not_started(&self, error: &io::Error) -> Failure {
        let name = self
            .args
            .first()
            .map_or(OsStr::new(""), OsString::as_os_str);
        if error.kind() == io::ErrorKind::NotFound && self.file.exists() {
            let text = format!(
                "{}: the interpreter that it names was not found",
                shown(name)
            );
            return Failure::new(Code::CommandNotFound, text);
        }
        cannot_start(name, error)
    }
}

/// The exit codes of `env` and `nohup`: 127 if it is not there, 126 if it cannot be executed.
fn cannot_start(name: &OsStr, error: &io::Error) -> Failure {
    let (code, why) = match error.raw_os_error() {
        _ if error.kind() == io::ErrorKind::NotFound => {
            (Code::CommandNotFound, "command not found".to_owned())
        }
        Some(libc::ENOTDIR) => (Code::CommandNotFound, "command not found".to_owned()),
        Some(libc::EACCES) => (Code::CannotExecute, "permission denied".to_owned()),
        Some(libc::EISDIR) => (Code::CannotExecute, "it is a directory".to_owned()),
        Some(libc::ENOEXEC) => (
            Code::CannotExecute,
            "the system cannot execute a file of this format (is a `#!` line missing?)".to_owned(),
        ),
        _ => (Code::CannotExecute, error.to_string()),
    };
    Failure::new(code, format!("{}: {why}", shown(name)))
}

fn shown(name: &OsStr) -> String {
    match clean(&name.to_string_lossy()) {
        empty if empty.is_empty() => "\"\"".to_owned(),
        name => name,
    }
}

/// As `execvp` looks for it, but without falling back on a shell.
fn find(name: &OsStr, path: Option<&OsStr>) -> io::Result<PathBuf> {
    let not_found = || io::Error::from(io::ErrorKind::NotFound);
    if name.is_empty() {
        return Err(not_found());
    }
    if name.as_bytes().contains(&b'/') {
        return check(Path::new(name)).map(|()| name.into());
    }
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let mut reason = not_found();
    for directory in std::env::split_paths(path) {
        // An empty entry is the current directory.
        let directory = if directory.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &directory
        };
        let file = directory.join(name);
        match check(&file) {
            Ok(()) => return Ok(file),
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => reason = error,
            Err(_) => {}
        }
    }
    Err(reason)
}

fn check(file: &Path) -> io::Result<()> {
    if file.metadata()?.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    match accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS) {
        Err(rustix::io::Errno::ACCESS) => Err(io::Error::from_raw_os_error(libc::EACCES)),
        // Whatever else: the exec itself will tell.
        _ => Ok(()),
    }
}

/// Text for a system call. What comes from the command line and the environment has no NUL.
pub(super) fn c_string(text: impl AsRef<OsStr>) -> CString {
    CString::new(text.as_ref().as_bytes()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(command: &[&str]) -> Code {
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        Program::resolve(&command, None).unwrap_err().code
    }

    #[test]
    fn commands_are_found_on_the_path_or_by_their_own() {
        let path = OsStr::new("/nowhere:/bin");
        assert_eq!(
            find(OsStr::new("sh"), Some(path)).unwrap(),
            Path::new("/bin/sh")
        );
        assert_eq!(find(OsStr::new("sh"), None).unwrap(), Path::new("/bin/sh"));
        assert_eq!(
            find(OsStr::new("/bin/sh"), Some(path)).unwrap(),
            Path::new("/bin/sh")
        );
    }

    #[test]
    fn what_cannot_be_executed_is_told_from_what_is_not_there() {
        assert_eq!(code(&["no-such-command-here"]), Code::CommandNotFound);
        assert_eq!(code(&["/no/such/file"]), Code::CommandNotFound);
        assert_eq!(code(&[""]), Code::CommandNotFound);
        assert_eq!(code(&["/etc/passwd/x"]), Code::CommandNotFound);
        assert_eq!(code(&["/"]), Code::CannotExecute);
        assert_eq!(code(&["/etc/passwd"]), Code::CannotExecute);
    }

    #[test]
    fn shell_takes_one_string() {
        let of = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            Program::resolve(&words, Some(Path::new("/bin/sh")))
        };
        assert_eq!(of(&["a; b"]).unwrap().args, ["/bin/sh", "-c", "a; b"]);
        assert!(of(&["a", "b"]).unwrap_err().text.contains("--shell"));
    }
}
