//! Files with a secret: who else may read or replace it, and the text in them.

use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::args::Global;
use crate::exit::Code;
use crate::files;
#[cfg(unix)]
use crate::output::warn;
use crate::output::{Failure, clean};
#[cfg(unix)]
use crate::text::shell_word;

/// The most that a file with a secret may hold.
const MAX_SECRET: u64 = 64 * 1024;

/// Reads a secret from a file that `option` names. Waits for a named pipe for at most `limit`.
pub(crate) fn read(
    option: &str,
    path: &Path,
    limit: Duration,
    global: &Global,
) -> Result<Zeroizing<String>, Failure> {
    let name = clean(&path.display().to_string());
    let failed = |why: &str| Failure::new(Code::Config, format!("{option} {name}: {why}"));
    let file = files::open(path).map_err(|error| failed(&error.to_string()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;

        // The file that was opened, not whatever has the name now.
        let metadata = file
            .metadata()
            .map_err(|error| failed(&error.to_string()))?;
        if metadata.is_dir() {
            return Err(failed("it is a directory"));
        }
        let mode = metadata.mode() & 0o777;
        let why = |what: &str| format!("others can {what} this secret (mode {mode:03o})");
        let hint = format!("chmod 600 {}", shell_word(&path.to_string_lossy()));
        let access = access(mode, || place(&file, path));
        let what = match access {
            Access::Writable => "write",
            _ => "read",
        };
        match access {
            Access::OwnerOnly => {}
            access if access == Access::Shared || global.allow_insecure_secret_file => {
                warn(global, &format!("{option} {name}: {}", why(what)));
            }
            _ => {
                return Err(failed(&why(what)).hint(hint).hint(
                    "or accept that: --allow-insecure-secret-file, or \
                     AZMUTEX_ALLOW_INSECURE_SECRET_FILE=1",
                ));
            }
        }
    }
    #[cfg(not(unix))]
    let _ = global;
    let bytes =
        files::read(&file, MAX_SECRET + 1, limit).map_err(|error| failed(&error.to_string()))?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err(failed("it is larger than 64 KiB"));
    }
    let text = decode(&bytes).map_err(failed)?;
    if text.trim().is_empty() {
        return Err(failed("it is empty"));
    }
    Ok(text)
}

/// Who else than its owner may use a file.
#[cfg(unix)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    OwnerOnly,
    /// Others may read it, as they may where secrets are mounted, or in its group.
    Shared,
    /// Everybody may read it.
    Readable,
    /// Others may replace what is in it.
    Writable,
}

/// What a place permits, whatever the modes of its files are.
#[cfg(unix)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nobody can write there, and who can read it was decided when it was mounted.
    ReadOnly,
    /// A platform mounts secrets there.
    Secrets,
    Other,
}

#[cfg(unix)]
fn access(mode: u32, place: impl FnOnce() -> Place) -> Access {
    let others = mode & 0o077;
    if others == 0 {
        return Access::OwnerOnly;
    }
    let place = place();
    if others & 0o022 != 0 && place != Place::ReadOnly {
        Access::Writable
    } else if others & 0o004 != 0 && place == Place::Other {
        Access::Readable
    } else {
        Access::Shared
    }
}

/// Where Docker, Podman, Kubernetes and systemd mount secrets for one container or service.
#[cfg(unix)]
const MOUNTS: [&str; 3] = ["/run/secrets", "/var/run/secrets", "/run/credentials"];

#[cfg(unix)]
fn place(file: &std::fs::File, path: &Path) -> Place {
    use rustix::fs::{StatVfsMountFlags, fstatvfs};

    if fstatvfs(file).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        return Place::ReadOnly;
    }
    match path.canonicalize() {
        Ok(real) if MOUNTS.iter().any(|mount| real.starts_with(mount)) => Place::Secrets,
        _ => Place::Other,
    }
}

/// The text: UTF-8, or UTF-16 with a byte order mark, as Windows writes it.
fn decode(bytes: &[u8]) -> Result<Zeroizing<String>, &'static str> {
    let utf16 = |unit: fn([u8; 2]) -> u16| {
        let units = Zeroizing::new(
            bytes[2..]
                .chunks_exact(2)
                .map(|two| unit([two[0], two[1]]))
                .collect::<Vec<_>>(),
        );
        String::from_utf16(&units).map_err(|_| "it is not valid UTF-16")
    };
    let text = match bytes {
        [0xff, 0xfe, ..] => utf16(u16::from_le_bytes)?,
        [0xfe, 0xff, ..] => utf16(u16::from_be_bytes)?,
        _ => str::from_utf8(bytes)
            .map_err(|_| "it is not text in UTF-8")?
            .to_owned(),
    };
    let text = Zeroizing::new(text);
    if text.contains('\0') {
        return Err(
            "it has NUL characters, as UTF-16 without a byte order mark has; save it as UTF-8",
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn modes_are_judged_by_who_may_read_and_write() {
        use Access::*;

        for (mode, other, secrets, read_only) in [
            (0o600, OwnerOnly, OwnerOnly, OwnerOnly),
            (0o400, OwnerOnly, OwnerOnly, OwnerOnly),
            (0o700, OwnerOnly, OwnerOnly, OwnerOnly),
            (0o640, Shared, Shared, Shared),
            (0o440, Shared, Shared, Shared),
            (0o444, Readable, Shared, Shared),
            (0o644, Readable, Shared, Shared),
            (0o604, Readable, Shared, Shared),
            (0o660, Writable, Writable, Shared),
            (0o620, Writable, Writable, Shared),
            (0o666, Writable, Writable, Shared),
            (0o602, Writable, Writable, Shared),
        ] {
            assert_eq!(access(mode, || Place::Other), other, "{mode:03o}");
            assert_eq!(access(mode, || Place::Secrets), secrets, "{mode:03o}");
            assert_eq!(access(mode, || Place::ReadOnly), read_only, "{mode:03o}");
        }
    }

    #[test]
    fn text_is_read_as_editors_and_shells_write_it() {
        for (bytes, wanted) in [
            (&b"a=="[..], Ok("a==")),
            (b"\xef\xbb\xbfa==\r\n", Ok("\u{feff}a==\r\n")),
            (b"\xff\xfea\0=\0", Ok("a=")),
            (b"\xfe\xff\0a\0=", Ok("a=")),
            (b"\xff\xfe\x00\xd8", Err("it is not valid UTF-16")),
            (b"\xff", Err("it is not text in UTF-8")),
            (b"a\0=\0", Err("NUL")),
            (b"", Ok("")),
        ] {
            let found = decode(bytes);
            match wanted {
                Ok(wanted) => assert_eq!(found.unwrap().as_str(), wanted),
                Err(wanted) => assert!(found.unwrap_err().contains(wanted)),
            }
        }
    }
}
