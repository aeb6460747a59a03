//! Output: errors, JSON, and names from elsewhere.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use azmutex::{Error, ErrorKind, Holder, LeaseStatus};

use crate::args::{Global, LogFormat, When};
use crate::exit::Code;
pub(crate) use crate::text::clean;
use crate::text::{is_invisible, shorten};
use crate::times::{overwrite_rfc3339_millis, rfc3339, rfc3339_millis};
use crate::writer::{Writer, soon};

/// Why a command failed.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// The exit code that somebody asked for in place of that.
    pub(crate) exit: Option<u8>,
    /// One line: what, and why.
    pub(crate) text: String,
    pub(crate) hints: Vec<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) service_code: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            exit: None,
            text: text.into(),
            hints: Vec::new(),
            request_id: None,
            service_code: None,
        }
    }

    /// An argument or value that is invalid.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Code::Usage, text)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Writes the error and its hints to stderr, and with `--json` an object to stdout.
    pub(crate) fn report(&self, global: &Global) {
        if global.json {
            print_line(&self.object().to_string());
        }
        self.say(global);
    }

    /// Writes the error and its hints to stderr. What somebody wants to be a success is none, and
    /// is only written with `-v`.
    pub(crate) fn say(&self, global: &Global) {
        if self.exit() == 0 {
            if global.verbose > 0 {
                note(global, &self.text);
            }
            return;
        }
        if global.log_format == LogFormat::Json {
            return say_object(&self.object());
        }
        let mut text = format!("{}: {}", paint(global, "error", "1;31"), self.text);
        if global.verbose > 0
            && let Some(id) = &self.request_id
        {
            let _ = write!(text, " (request id {})", clean(id));
        }
        for hint in &self.hints {
            let _ = write!(text, "\n  hint: {hint}");
        }
        say(&text);
    }

    /// The code to exit with.
    pub(crate) fn exit(&self) -> u8 {
        self.exit.unwrap_or(self.code as u8)
    }

    pub(crate) fn object(&self) -> Object {
        message("error", "error", &self.text, &self.hints)
            .maybe("service_code", self.service_code.as_deref())
            .maybe("request_id", self.request_id.as_deref())
            .number("exit", self.exit())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            ErrorKind::Auth => Code::Denied,
            ErrorKind::Config => Code::Config,
            ErrorKind::LeaseLost => Code::NotHolder,
            ErrorKind::LeaseUnproven => Code::Lost,
            ErrorKind::NotFound => Code::NoSuchLock,
            ErrorKind::Service | ErrorKind::Throttled | ErrorKind::Transport => Code::Unavailable,
            ErrorKind::WouldBlock | ErrorKind::Stopped => Code::NotAcquired,
            _ => Code::Bug,
        };
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(source) = cause {
            let _ = write!(text, ": {source}");
            cause = source.source();
        }
        let failure = Self {
            code,
            exit: None,
            text: clean(&text),
            hints: Vec::new(),
            request_id: error.request_id().map(str::to_owned),
            service_code: error.service_code().map(str::to_owned),
        };
        match error.kind() {
            ErrorKind::Auth
                if error.service_code() == Some("KeyBasedAuthenticationNotPermitted") =>
            {
                failure.hint("--auth entra signs in without a key")
            }
            ErrorKind::Auth => {
                failure.hint("azmutex doctor shows which credential is used, and what it permits")
            }
            ErrorKind::Transport => {
                failure.hint("azmutex doctor shows how far the connection gets")
            }
            _ => failure,
        }
    }
}

/// A line for stderr.
enum Line {
    Text(String),
    /// Without a line end, replaced by the next line. An empty one only erases the last.
    Drawn(String),
}

static STDERR: Writer<Line> = Writer::new(write);

/// Whether a thread writes to stderr.
static WRITES_FROM_THREAD: AtomicBool = AtomicBool::new(false);

/// From here on, no message waits until somebody reads it, since a lock must be kept meanwhile.
/// Call [`flush`] before the end.
pub(crate) fn never_wait_for_stderr() {
    WRITES_FROM_THREAD.store(true, Ordering::Relaxed);
}

/// Waits until everything is written to stderr, or until `end`.
pub(crate) fn flush(end: Instant) {
    STDERR.flush(end);
}

fn put(line: Line) {
    if WRITES_FROM_THREAD.load(Ordering::Relaxed) {
        STDERR.push(line);
    } else {
        write(line);
    }
}

/// Ignores failures: if stderr does not work, nobody can be told.
fn write(line: Line) {
    let mut err = io::stderr().lock();
    let drawn = matches!(&line, Line::Drawn(text) if !text.is_empty());
    let erase = if DRAWN.swap(drawn, Ordering::Relaxed) || drawn {
        ERASE
    } else {
        ""
    };
    let (Line::Text(text) | Line::Drawn(text)) = line;
    let _ = err.write_all(format!("{erase}{text}").as_bytes());
}

/// Writes `azmutex: TEXT` to stderr, in one piece.
pub(crate) fn say(text: &str) {
    put(Line::Text(format!("azmutex: {}\n", redact(text))));
}

/// Draws a line on the terminal that the next one, or the next message, replaces. It is cut to the
/// terminal's width; an empty one erases it.
pub(crate) fn draw(line: &str) {
    put(Line::Drawn(shorten(&redact(line), columns() - 1)));
}

/// Whether the terminal shows a line to be replaced.
static DRAWN: AtomicBool = AtomicBool::new(false);

const ERASE: &str = "\r\x1b[K";

/// The width of the terminal of stderr; 80 if that is unknown.
pub(crate) fn columns() -> usize {
    #[cfg(unix)]
    if let Ok(size) = rustix::termios::tcgetwinsize(io::stderr())
        && size.ws_col > 1
    {
        return size.ws_col.into();
    }
    80
}

/// Writes an object to stderr, as a line.
pub(crate) fn say_object(object: &Object) {
    put(Line::Text(format!("{object}\n")));
}

/// A message as an object: the event `error` for a failure, `message` for others.
fn message(event: &str, level: &str, text: &str, hints: &[impl AsRef<str>]) -> Object {
    Object::event(event)
        .text("level", level)
        .text("message", text)
        .list("hints", hints)
}

/// A message that is not a failure: a line of the log, a warning.
pub(crate) fn message_object(level: &str, text: &str) -> Object {
    message("message", level, text, &[] as &[&str])
}

/// If `line` is an object with an event, sets its time to now. Allocates nothing.
#[cfg_attr(not(unix), allow(dead_code, reason = "for run"))]
pub(crate) fn renew_time(line: &mut [u8]) {
    const START: &[u8] = br#"{"schema":1,"time":""#;
    if line.starts_with(START)
        && let Some(time) = line.get_mut(START.len()..START.len() + 24)
    {
        overwrite_rfc3339_millis(time, SystemTime::now());
    }
}

/// Writes a message to stderr, unless `-q`.
pub(crate) fn note(global: &Global, text: &str) {
    match global.log_format {
        _ if global.quiet => {}
        LogFormat::Text => say(text),
        LogFormat::Json => say_object(&message_object("info", text)),
    }
}

/// Warns on stderr, unless `-q`.
pub(crate) fn warn(global: &Global, text: &str) {
    if global.quiet {
        return;
    }
    match global.log_format {
        LogFormat::Text => say(&format!("{}: {text}", paint(global, "warning", "1;33"))),
        LogFormat::Json => {
            say_object(&message_object("warning", text));
        }
    }
}

/// Writes a line to stdout. If the reader has gone, ends the process quietly and with success.
pub(crate) fn print_line(line: &str) {
    print(&format!("{line}\n"));
}

/// Writes to stdout; see [`print_line`].
pub(crate) fn print(text: &str) {
    match try_print(text) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit(0),
        Err(error) => {
            say(&format!("error: cannot write to stdout: {error}"));
            exit(Code::Bug as i32);
        }
    }
}

fn exit(code: i32) -> ! {
    flush(soon());
    std::process::exit(code)
}

/// Writes to stdout, for callers that have something to undo if it fails.
pub(crate) fn try_print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Whether stderr gets colours.
fn colour(global: &Global) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match global.color {
        When::Always => true,
        When::Never => false,
        When::Auto if set("NO_COLOR") => false,
        When::Auto if set("CLICOLOR_FORCE") => true,
        When::Auto => {
            io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
        }
    }
}

fn paint(global: &Global, word: &str, code: &str) -> String {
    if colour(global) {
        format!("\x1b[{code}m{word}\x1b[0m")
    } else {
        word.to_owned()
    }
}

/// Masks anything that looks like a secret.
pub(crate) fn redact(text: &str) -> String {
    const MARKS: [&str; 3] = ["sig=", "accountkey=", "sharedaccesssignature="];
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let lower = rest.to_ascii_lowercase();
        let found = MARKS
            .iter()
            .filter_map(|mark| lower.find(mark).map(|at| at + mark.len()))
            .min();
        let Some(start) = found else {
            out.push_str(rest);
            return out;
        };
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest
            .find(|c: char| c.is_whitespace() || matches!(c, '&' | ';' | '\'' | '"' | '`'))
            .unwrap_or(rest.len());
        // Punctuation of the sentence around it.
        let end = rest[..end]
            .trim_end_matches(|c| ")]}>,.:!?".contains(c))
            .len();
        if end > 0 {
            out.push_str("REDACTED");
        }
        rest = &rest[end..];
    }
}

/// A JSON object that keeps the order of its members.
#[derive(Debug, Clone, Default)]
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// An object on its own line, as described in `schema.json`: with the version of that format,
    /// the time, and its event.
    pub(crate) fn event(name: &str) -> Self {
        Self::new()
            .number("schema", 1u8)
            .text("time", &rfc3339_millis(SystemTime::now()))
            .text("event", name)
    }

    /// Text of any origin; anything that looks like a secret is masked.
    pub(crate) fn text(self, name: &str, value: &str) -> Self {
        self.raw(name, &quoted(&redact(value)))
    }

    /// Text that must not be changed, such as the name of a lock.
    pub(crate) fn exact(self, name: &str, value: &str) -> Self {
        self.raw(name, &quoted(value))
    }

    /// Text, or null.
    pub(crate) fn maybe(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self.raw(name, "null"),
        }
    }

    pub(crate) fn number(self, name: &str, value: impl Into<u64>) -> Self {
        let value: u64 = value.into();
        self.raw(name, &value.to_string())
    }

    /// A number, or null.
    pub(crate) fn maybe_number(self, name: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.raw(name, &value.to_string()),
            None => self.raw(name, "null"),
        }
    }

    /// Seconds, with milliseconds as their fraction.
    pub(crate) fn seconds(self, name: &str, value: Duration) -> Self {
        let text = format!("{}.{:03}", value.as_secs(), value.subsec_millis());
        self.raw(name, &text)
    }

    pub(crate) fn bool(self, name: &str, value: bool) -> Self {
        self.raw(name, if value { "true" } else { "false" })
    }

    pub(crate) fn object(self, name: &str, value: Self) -> Self {
        self.raw(name, &value.to_string())
    }

    /// An object, or null.
    pub(crate) fn maybe_object(self, name: &str, value: Option<Self>) -> Self {
        match value {
            Some(value) => self.object(name, value),
            None => self.raw(name, "null"),
        }
    }

    /// A time in RFC 3339, or null.
    pub(crate) fn time(self, name: &str, value: Option<SystemTime>) -> Self {
        self.maybe(name, value.map(rfc3339).as_deref())
    }

    pub(crate) fn list(self, name: &str, values: &[impl AsRef<str>]) -> Self {
        let values: Vec<_> = values
            .iter()
            .map(|value| quoted(&redact(value.as_ref())))
            .collect();
        self.raw(name, &format!("[{}]", values.join(",")))
    }

    /// A list of objects.
    pub(crate) fn objects(self, name: &str, values: &[Self]) -> Self {
        let values: Vec<_> = values.iter().map(Self::to_string).collect();
        self.raw(name, &format!("[{}]", values.join(",")))
    }

    fn raw(mut self, name: &str, value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        let _ = write!(self.0, "{}:{value}", quoted(name));
        self
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.0)
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // JSON does not require all of this, but the line may be shown on a terminal.
            c if is_invisible(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The holder as an object.
pub(crate) fn holder_object(holder: &Holder) -> Object {
    Object::new()
        .maybe("owner", holder.owner())
        .maybe_number("pid", holder.pid().map(u64::from))
        .time("since", holder.since())
        .maybe("reason", holder.reason())
        .maybe_number(
            "lease_s",
            holder.lease_duration().map(|lease| lease.as_secs()),
        )
        .maybe("version", holder.version())
}

/// The event that somebody else holds the lock, from every command that waits for one.
pub(crate) fn waiting_event(lock: &str, status: Option<&LeaseStatus>, waited: Duration) -> Object {
    Object::event("waiting")
        .exact("lock", lock)
        .maybe_object(
            "holder",
            status.and_then(LeaseStatus::holder).map(holder_object),
        )
        .seconds("waited_s", waited)
}

/// An error with what caused it.
pub(crate) fn with_cause(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text.push_str(&format!(": {source}"));
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_json_in_the_order_of_their_members() {
        let object = Object::new()
            .number("schema", 1u8)
            .text("lock", "a\"b\\c\u{1b}\n")
            .maybe("reason", None)
            .seconds("waited_s", Duration::from_millis(1250))
            .objects("all", &[Object::new().bool("x", true)]);
        assert_eq!(
            object.to_string(),
            r#"{"schema":1,"lock":"a\"b\\c\u001b\n","reason":null,"waited_s":1.250,"all":[{"x":true}]}"#
        );
    }

    #[test]
    fn json_has_nothing_that_a_terminal_would_not_show() {
        let object = Object::new().exact("lock", "a\u{202e}b\u{200b}\u{61c}\u{e0041}鍵");
        assert_eq!(
            object.to_string(),
            r#"{"lock":"a\u202eb\u200b\u061c\udb40\udc41鍵"}"#
        );
    }

    #[test]
    fn anything_that_looks_like_a_secret_is_masked() {
        for (text, wanted) in [
            ("x?sv=1&sig=s3cret&se=2", "x?sv=1&sig=REDACTED&se=2"),
            (
                "AccountName=a;AccountKey=s3cret==;X=1",
                "AccountName=a;AccountKey=REDACTED;X=1",
            ),
            (
                "SharedAccessSignature=sv=1",
                "SharedAccessSignature=REDACTED",
            ),
            ("SIG=a sig=b", "SIG=REDACTED sig=REDACTED"),
            ("(at x?sig=s3cret)", "(at x?sig=REDACTED)"),
            ("[sig=s3cret], then", "[sig=REDACTED], then"),
            ("sig=s3)cret", "sig=REDACTED"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(redact(text), wanted);
        }
    }
}
