//! What is said while the command runs. Written from a thread, since a terminal or a pipe that
//! nobody reads blocks the one who writes, and the supervisor must not be held up.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use crate::args::{Global, LogFormat};
use crate::output::{Object, redact};

/// How many lines may wait to be written; more are dropped.
const QUEUE: usize = 256;

/// How long the end waits for the last lines.
const LAST_WORDS: Duration = Duration::from_secs(1);

enum Line {
    Stderr(String),
    Event(String),
    End(mpsc::Sender<()>),
}

/// Says things on stderr and writes events, without ever blocking.
pub(super) struct Voice {
    events: Option<File>,
    quiet: bool,
    /// Whether what is said is written as objects.
    json: bool,
    writer: Option<SyncSender<Line>>,
    /// Whether stderr shows a line that is to be overwritten.
    drawn: bool,
}

impl Voice {
    pub(super) fn new(events: Option<File>, global: &Global) -> Self {
        Self {
            events,
            quiet: global.quiet,
            json: global.log_format == LogFormat::Json,
            writer: None,
            drawn: false,
        }
    }

    /// Whether somebody hears events.
    pub(super) fn has_events(&self) -> bool {
        self.events.is_some()
    }

    /// Says `azmutex: TEXT`, unless `-q`.
    pub(super) fn note(&mut self, text: &str) {
        if !self.quiet {
            self.say("info", text);
        }
    }

    /// Says `azmutex: warning: TEXT`, unless `-q`.
    pub(super) fn warn(&mut self, text: &str) {
        if !self.quiet {
            self.say("warning", text);
        }
    }

    /// Says `azmutex: error: TEXT`.
    pub(super) fn error(&mut self, text: &str) {
        self.say("error", text);
    }

    /// Draws a line that the next one replaces.
    pub(super) fn draw(&mut self, text: &str) {
        self.drawn = true;
        self.write(Line::Stderr(format!("\r\x1b[K{text}")));
    }

    /// Takes away what was drawn.
    pub(super) fn clear(&mut self) {
        if self.drawn {
            self.drawn = false;
            self.write(Line::Stderr("\r\x1b[K".to_owned()));
        }
    }

    /// Writes an event, if there is where to.
    pub(super) fn event(&mut self, object: &Object) {
        if self.has_events() {
            self.write(Line::Event(format!("{object}\n")));
        }
    }

    /// Waits until everything is written, for a moment at most.
    pub(super) fn flush(&mut self) {
        self.clear();
        if let Some(writer) = self.writer.take() {
            let (done, wait) = mpsc::channel();
            // Full: the writer is held up, and the rest is dropped.
            if writer.try_send(Line::End(done)).is_ok() {
                let _ = wait.recv_timeout(LAST_WORDS);
            }
        }
    }

    fn say(&mut self, level: &str, text: &str) {
        self.clear();
        let line = if self.json {
            Object::schema()
                .text("level", level)
                .text("message", text)
                .to_string()
        } else {
            let level = if level == "info" {
                String::new()
            } else {
                format!("{level}: ")
            };
            format!("azmutex: {level}{}", redact(text))
        };
        self.write(Line::Stderr(format!("{line}\n")));
    }

    fn write(&mut self, line: Line) {
        if self.writer.is_none() {
            self.writer = self.start();
        }
        let Some(writer) = &self.writer else { return };
        if let Err(TrySendError::Disconnected(_)) = writer.try_send(line) {
            self.writer = None;
        }
    }

    fn start(&self) -> Option<SyncSender<Line>> {
        let events = match &self.events {
            Some(file) => Some(file.try_clone().ok()?),
            None => None,
        };
        let (sender, lines) = mpsc::sync_channel(QUEUE);
        thread::Builder::new()
            .name("azmutex:voice".to_owned())
            .spawn(move || {
                for line in lines {
                    // Nobody reads it: then there is nobody to tell either.
                    let _ = match line {
                        Line::Stderr(text) => io::stderr().lock().write_all(text.as_bytes()),
                        Line::Event(text) => events
                            .as_ref()
                            .map_or(Ok(()), |mut file| file.write_all(text.as_bytes())),
                        Line::End(done) => {
                            let _ = done.send(());
                            return;
                        }
                    };
                }
            })
            .ok()?;
        Some(sender)
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.flush();
    }
}
