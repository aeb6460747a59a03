//! The chart.
pub fn chart() -> String { String::new() }
