//! The challenge of Azure Arc's agent: it names a file that only some users of the machine may read.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::refusal::first_line;
use super::token::checked;
use crate::error::{Error, ErrorKind};
use crate::text::quoted;

/// The longest key file, in bytes.
const MAX_KEY: u64 = 4096;

/// Where the agent puts its key files. `None` where there is no agent.
pub(crate) fn key_folder() -> Option<PathBuf> {
    if cfg!(target_os = "linux") {
        Some("/var/opt/azcmagent/tokens".into())
    } else if cfg!(windows) {
        let data = std::env::var_os("ProgramData")?;
        Some(
            Path::new(&data)
                .join("AzureConnectedMachineAgent")
                .join("Tokens"),
        )
    } else {
        None
    }
}

pub(crate) fn is_installed() -> bool {
    if cfg!(target_os = "linux") {
        Path::new("/opt/azcmagent/bin/himds").exists()
    } else if cfg!(windows) {
        std::env::var_os("ProgramFiles").is_some_and(|programs| {
            let agent = Path::new(&programs).join("AzureConnectedMachineAgent");
            agent.join("himds.exe").exists()
        })
    } else {
        false
    }
}

/// The file that the challenge names: nothing but a key file in `folder`.
pub(crate) fn key_path(challenge: &str, folder: &Path) -> Result<PathBuf, Error> {
    let wrong = |what: &str| {
        let text = format!(
            "the challenge of what answers as Azure Arc's agent {what}; it is not followed, to \
             protect this machine's files"
        );
        Error::new(ErrorKind::Auth, text)
    };
    let (scheme, realm) = challenge.split_once(' ').unwrap_or((challenge, ""));
    let path = realm
        .trim()
        .strip_prefix("realm=")
        .map(|path| path.trim_matches('"'));
    let Some(path) = path.filter(|_| scheme.eq_ignore_ascii_case("Basic")) else {
        return Err(wrong("names no file"));
    };
    let path = Path::new(path);
    match (path.parent(), path.file_name(), path.extension()) {
        (Some(parent), Some(name), Some(extension)) if parent == folder && extension == "key" => {
            Ok(folder.join(name))
        }
        _ => Err(wrong(&format!(
            "names {}, which is no `.key` file in {}",
            quoted(&first_line(&path.to_string_lossy())),
            folder.display()
        ))),
    }
}

/// Reads the key that a challenge asks for.
pub(crate) fn read_key(path: &Path, folder: &Path) -> Result<Zeroizing<String>, Error> {
    let shown = quoted(&path.to_string_lossy());
    let failed = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "; the program has to run as root, as administrator, or in the group `himds`"
            }
            _ => "",
        };
        Error::config(format!("cannot read Azure Arc's key {shown}{hint}")).with_source(error)
    };
    let wrong = |what: &str| Error::new(ErrorKind::Auth, format!("Azure Arc's key {shown} {what}"));
    let real = fs::canonicalize(path).map_err(failed)?;
    let folder = fs::canonicalize(folder).map_err(failed)?;
    if Some(&*real) != path.file_name().map(|name| folder.join(name)).as_deref() {
        return Err(wrong("is a link to somewhere else"));
    }
    let file = File::open(&real).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() || about.len() > MAX_KEY {
        return Err(wrong("is no file of at most 4096 bytes"));
    }
    let mut key = Zeroizing::new(String::new());
    file.take(MAX_KEY)
        .read_to_string(&mut key)
        .map_err(failed)?;
    checked(&key).ok_or_else(|| wrong("holds no key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn only_a_key_file_in_the_agents_folder_is_followed() {
        let folder = Path::new("/var/opt/azcmagent/tokens");
        let path = |challenge| key_path(challenge, folder);
        for challenge in [
            "Basic realm=/var/opt/azcmagent/tokens/0a-1b.key",
            "basic realm=\"/var/opt/azcmagent/tokens/0a-1b.key\"",
            "Basic  realm=/var/opt/azcmagent/tokens//0a-1b.key ",
        ] {
            assert_eq!(
                path(challenge).unwrap(),
                folder.join("0a-1b.key"),
                "{challenge}"
            );
        }
        for challenge in [
            "",
            "Basic",
            "Basic realm=",
            "Bearer realm=/var/opt/azcmagent/tokens/a.key",
            "Basic realm=/etc/a.key",
            "Basic realm=/var/opt/azcmagent/tokens/a.txt",
            "Basic realm=/var/opt/azcmagent/tokens/.key",
            "Basic realm=/var/opt/azcmagent/tokens/a.key/b",
            "Basic realm=/var/opt/azcmagent/tokens/../tokens/a.key",
            "Basic realm=/var/opt/azcmagent/tokens/b/a.key",
            "Basic realm=/var/opt/azcmagent/tokens",
            "Basic realm=a.key",
        ] {
            let error = path(challenge).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Auth, "{challenge}");
        }
    }

    #[cfg(windows)]
    #[test]
    fn only_a_key_file_in_the_agents_folder_is_followed() {
        let folder = Path::new(r"C:\ProgramData\AzureConnectedMachineAgent\Tokens");
        for name in [r"\0a-1b.key", "/0a-1b.key", r"\\0a-1b.key"] {
            let challenge = format!("Basic realm={}{name}", folder.display());
            let path = key_path(&challenge, folder).unwrap();
            assert_eq!(path, folder.join("0a-1b.key"), "{name}");
        }
        for name in [
            "",
            r"\.key",
            r"\a.txt",
            r"\a.key\b",
            r"\..\Tokens\a.key",
            r"\b\a.key",
            r"\a.key::$DATA",
            r"\a.txt:b.key\c",
        ] {
            let challenge = format!("Basic realm={}{name}", folder.display());
            let error = key_path(&challenge, folder).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Auth, "{name}");
        }
        for other in [r"D:\a.key", r"\\server\share\a.key", "a.key", "C:a.key"] {
            let challenge = format!("Basic realm={other}");
            let error = key_path(&challenge, folder).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Auth, "{other}");
        }
    }
}
