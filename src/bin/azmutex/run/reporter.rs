//! What is said while the command runs: by threads, since the supervisor must not be held up by a
//! terminal or a pipe that nobody reads.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;

use crate::args::{Global, LogFormat};
use crate::output::{self, Object, message_object};
use crate::writer::{Writer, soon};

/// Apart from stderr, for events to be written also when nobody reads that.
static EVENTS: Writer<(Arc<File>, String)> = Writer::new(|(file, text)| {
    // Nobody reads it: then there is nobody to tell either.
    let _ = (&*file).write_all(text.as_bytes());
});

/// Says things on stderr and writes events, without ever blocking.
pub(super) struct Reporter {
    events: Option<Arc<File>>,
    quiet: bool,
    /// Whether what is said is written as objects.
    json: bool,
    /// Whether stderr may show a line that is to be overwritten.
    drawn: bool,
}

impl Reporter {
    pub(super) fn new(events: Option<File>, global: &Global) -> Self {
        Self {
            events: events.map(Arc::new),
            quiet: global.quiet,
            json: global.log_format == LogFormat::Json,
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
        output::draw(text);
    }

    /// Takes away what was drawn.
    pub(super) fn clear(&mut self) {
        if self.drawn {
            self.drawn = false;
            output::draw("");
        }
    }

    /// Writes an event, if there is where to.
    pub(super) fn event(&mut self, object: &Object) {
        if let Some(file) = &self.events {
            EVENTS.push((Arc::clone(file), format!("{object}\n")));
        }
    }

    /// Waits until everything is written, for a moment at most.
    pub(super) fn flush(&mut self) {
        self.clear();
        let end = soon();
        EVENTS.flush(end);
        output::flush(end);
    }

    /// An error as [`Reporter::error`] would write it, for another process to write.
    pub(super) fn error_line(&self, text: &str) -> String {
        if self.json {
            format!("{}\n", message_object("error", text))
        } else {
            format!("azmutex: error: {text}\n")
        }
    }

    fn say(&self, level: &str, text: &str) {
        if self.json {
            output::say_object(&message_object(level, text));
        } else if level == "info" {
            output::say(text);
        } else {
            output::say(&format!("{level}: {text}"));
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.flush();
    }
}
