//! The log, on stderr: the library's messages, and never the HTTP client's, whose most detailed
//! level shows credentials.

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::args::{Global, LogFormat};
use crate::output::{clean, message_object, say, say_object};

struct Logger {
    level: LevelFilter,
    format: LogFormat,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let ours = target == "azmutex" || target.starts_with("azmutex::");
        ours && metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        };
        let text = clean(&record.args().to_string());
        match self.format {
            LogFormat::Text => say(&format!("{level}: {text}")),
            LogFormat::Json => say_object(&message_object(level, &text)),
        }
    }

    fn flush(&self) {}
}

/// Turns the log on, as `-v` and `-q` ask. Once per process.
pub(crate) fn start(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::Error,
        (false, 0) => LevelFilter::Warn,
        (false, 1) => LevelFilter::Info,
        (false, 2) => LevelFilter::Debug,
        (false, _) => LevelFilter::Trace,
    };
    let format = global.log_format;
    if log::set_boxed_logger(Box::new(Logger { level, format })).is_ok() {
        log::set_max_level(level);
    }
}
