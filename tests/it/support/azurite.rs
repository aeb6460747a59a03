//! Installs, starts and stops Azurite, the reference emulator.
//!
//! The version is pinned in `tests/azurite` with its lock file: 3.35.0 is the last whose manifest
//! accepts Node 20. It is installed once for each pin, below cargo's target directory.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

const ACCOUNT: &str = "devstoreaccount1";
/// The key of every emulator; Microsoft publishes it.
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

const PACKAGE: &str = include_str!("../../azurite/package.json");
const LOCK: &str = include_str!("../../azurite/package-lock.json");

/// Runs Azurite's own main module, and ends with the test process however that ends: the test
/// process holds the other end of stdin, which the system closes also after a kill or an exit
/// that runs no destructor.
const RUN_UNTIL_STDIN_ENDS: &str = "
    const stop = () => process.exit();
    process.stdin.on('end', stop).on('error', stop).resume();
    require(process.argv[1]);
";

/// Generous, for a loaded machine: it takes about a second.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running Azurite blob service; dropping it ends it at once.
#[derive(Debug)]
pub(crate) struct Azurite {
    child: Child,
    /// What it reported, such as `http://127.0.0.1:41234`.
    origin: String,
    addr: SocketAddr,
    complaints: Arc<Mutex<String>>,
}

impl Azurite {
    /// The instance that the tests of this process share, started by the first that asks.
    ///
    /// `None` if it cannot be had, which is said once on stderr.
    ///
    /// # Panics
    ///
    /// If it cannot be had and `AZMUTEX_REQUIRE_AZURITE` is `1`.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Result<Azurite, String>> = OnceLock::new();
        match SHARED.get_or_init(|| Self::start(&[])) {
            Ok(azurite) => Some(azurite),
            Err(reason) => unavailable(reason),
        }
    }

    /// Starts an instance of the caller's own with further arguments.
    ///
    /// # Panics
    ///
    /// As [`Azurite::shared`].
    pub(crate) fn start_with(args: &[&str]) -> Option<Self> {
        Self::start(args).map_or_else(|reason| unavailable(&reason), Some)
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The blob endpoint, path style, without a trailing slash.
    pub(crate) fn endpoint(&self) -> String {
        format!("{}/{ACCOUNT}", self.origin)
    }

    /// The connection string of the emulators' account at this endpoint.
    pub(crate) fn connection_string(&self) -> String {
        connection_string(&self.endpoint())
    }

    /// How it ended by itself and what it said, if it did.
    #[allow(dead_code, reason = "for the storm")]
    pub(crate) fn end(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("{status}: {}", self.complaints().trim()))
    }

    /// What it wrote to stderr.
    fn complaints(&self) -> String {
        let text = self.complaints.lock();
        text.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn start(args: &[&str]) -> Result<Self, String> {
        let installation = installation()?;
        let mut child = Command::new("node")
            .current_dir(installation)
            .args(["-e", RUN_UNTIL_STDIN_ENDS, "--"])
            .arg(installation.join("node_modules/azurite/dist/src/blob/main.js"))
            .args(["--silent", "--inMemoryPersistence", "--disableTelemetry"])
            .args(["--skipApiVersionCheck"])
            .args(["--blobHost", "127.0.0.1", "--blobPort", "0"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| not_run("node", &error))?;

        let complaints = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("stderr is piped");
        let to = Arc::clone(&complaints);
        thread::spawn(move || {
            each_line(stderr, |line| {
                let mut text = to.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(line);
                text.push('\n');
            });
        });

        // Port 0 takes a free port, and this line, which `--silent` leaves on, tells which; it
        // is printed once the server listens. The thread reads on: a full pipe would stop it.
        let (listening, origin) = mpsc::channel();
        let stdout = child.stdout.take().expect("stdout is piped");
        thread::spawn(move || {
            each_line(stdout, |line| {
                if let Some((_, origin)) = line.split_once("successfully listens on ") {
                    let _ = listening.send(origin.trim().to_owned());
                }
            });
        });

        // From here on its Drop ends the process on every path.
        let mut azurite = Self {
            child,
            origin: String::new(),
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            complaints,
        };
        azurite.origin = origin.recv_timeout(START_TIMEOUT).map_err(|error| {
            let what = match error {
                RecvTimeoutError::Timeout => "did not start in time",
                RecvTimeoutError::Disconnected => "ended before it listened",
            };
            format!("azurite {what}: {}", azurite.complaints().trim())
        })?;
        azurite.addr = azurite
            .origin
            .split_once("://")
            .and_then(|(_, addr)| addr.parse().ok())
            .ok_or_else(|| format!("azurite reported no address: {}", azurite.origin))?;
        Ok(azurite)
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The connection string of the emulators' account at `endpoint`.
pub(crate) fn connection_string(endpoint: &str) -> String {
    format!("AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};")
}

/// The directory with a complete installation of the pinned version.
fn installation() -> Result<&'static Path, String> {
    static INSTALLATION: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let installation = INSTALLATION.get_or_init(|| {
        let mut pin = DefaultHasher::new();
        (PACKAGE, LOCK).hash(&mut pin);
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let dir = tmp.join(format!("azurite-{:016x}", pin.finish()));
        install(&dir)?;
        Ok(dir)
    });
    installation.as_deref().map_err(Clone::clone)
}

fn install(dir: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", dir.display());
    fs::create_dir_all(dir).map_err(failed)?;
    // Another test process may be at it. The lock goes with the process that holds it, and the
    // marker is written last, so an installation that was cut short is made anew.
    let lock = File::create(dir.join("lock")).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let marker = dir.join("complete");
    if marker.exists() {
        return Ok(());
    }
    say(&format!("installing azurite into {}", dir.display()));
    fs::write(dir.join("package.json"), PACKAGE).map_err(failed)?;
    fs::write(dir.join("package-lock.json"), LOCK).map_err(failed)?;
    let output = Command::new(if cfg!(windows) { "npm.cmd" } else { "npm" })
        .current_dir(dir)
        .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_run("npm", &error))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("npm ci: {}: {}", output.status, text.trim()));
    }
    File::create(marker).map(drop).map_err(failed)
}

fn each_line(from: impl Read, mut with: impl FnMut(&str)) {
    for line in BufReader::new(from).split(b'\n') {
        let Ok(line) = line else { return };
        with(&String::from_utf8_lossy(&line));
    }
}

fn not_run(program: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{program} not found"),
        _ => format!("{program}: {error}"),
    }
}

fn unavailable<T>(reason: &str) -> Option<T> {
    static SAID: OnceLock<()> = OnceLock::new();
    assert!(
        std::env::var("AZMUTEX_REQUIRE_AZURITE").as_deref() != Ok("1"),
        "AZMUTEX_REQUIRE_AZURITE is 1, but azurite cannot be had: {reason}"
    );
    SAID.get_or_init(|| say(&format!("azurite tests were not run: {reason}")));
    None
}

/// Writes a line to stderr itself: what a passing test prints by macro is not shown.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
