//! What README and guide quote from `benches/peers/results.md` is what was measured.
//!
//! A table of theirs is found by the first cell of its header. Its rows and columns are some of those
//! of the table in the results with the same first cell.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

/// The pages, each with the tables that it quotes from.
const PAGES: [(&str, &[&str]); 2] = [
    (
        "README.md",
        &[
            "azmutex alone",
            "times as much as azmutex",
            "a program and its lock",
        ],
    ),
    (
        "src/guide/coming_from.md",
        &["waiting for holds of a minute", "times as much as azmutex"],
    ),
];
const RESULTS: &str = "benches/peers/results.md";

/// Results to compare with instead of those in the repository: another run's. Its medians lie within
/// what is quoted; its extremes are its own.
const OTHER_RESULTS: &str = "AZMUTEX_RESULTS";

/// Cells by table, row and column.
type Cells = BTreeMap<[String; 3], String>;

fn cells(page: &str) -> Cells {
    let mut cells = Cells::new();
    let mut header: Vec<String> = Vec::new();
    for line in page.lines() {
        let Some(row) = line.strip_prefix("| ") else {
            if !line.starts_with('|') {
                header.clear();
            }
            continue;
        };
        let row = row.trim_end_matches('|').replace("**", "");
        let row: Vec<_> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
        if header.is_empty() {
            header = row;
            continue;
        }
        for (column, cell) in header.iter().zip(&row).skip(1) {
            let place = [&header[0], &row[0], column].map(String::clone);
            cells.insert(place, cell.clone());
        }
    }
    cells
}

/// The numbers in a cell, each with the unit of its last digit.
fn numbers(cell: &str) -> Vec<(f64, f64)> {
    let words = cell.split(|c: char| !(c.is_ascii_digit() || c == '.'));
    let numbers = words.filter_map(|word| {
        let decimals = word.split_once('.').map_or(0, |(_, after)| after.len());
        let unit = 0.1_f64.powi(i32::try_from(decimals).ok()?);
        Some((word.parse().ok()?, unit))
    });
    numbers.collect()
}

/// What is wrong with a quotation, `a` or `a to b`, of what was measured, `median (least to most)`.
fn fault(quoted: &str, measured: &str, is_same_run: bool) -> Option<String> {
    let is_right = match (&numbers(quoted)[..], &numbers(measured)[..]) {
        ([], []) => quoted == measured,
        (quoted @ [low, ..], [median, extremes @ ..]) => {
            let high = quoted.last().unwrap_or(low);
            let (below, above) = (low.0 - low.1 / 2.0, high.0 + high.1 / 2.0);
            let holds_median = below <= median.0 && median.0 <= above;
            // Extremes are rounded outwards.
            let is_within = match extremes {
                [least, most] if is_same_run => low.0 + low.1 > least.0 && high.0 - high.1 < most.0,
                _ => true,
            };
            holds_median && is_within
        }
        _ => false,
    };
    (!is_right).then(|| format!("{quoted}, but it was {measured}"))
}

#[test]
fn figures_of_other_programs_are_quoted_as_they_were_measured() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let other = env::var_os(OTHER_RESULTS);
    let results = other
        .as_ref()
        .map_or_else(|| root.join(RESULTS), |path| Path::new(path).to_owned());
    let measured = cells(&fs::read_to_string(results).unwrap());
    let mut faults = Vec::new();
    for (page, tables) in PAGES {
        let quoted = cells(&fs::read_to_string(root.join(page)).unwrap());
        for table in tables {
            let is_quoted = quoted.keys().any(|[of, ..]| of == table);
            assert!(is_quoted, "{page} has no table `{table}`");
        }
        for (place, quoted) in quoted {
            if !tables.contains(&place[0].as_str()) {
                continue;
            }
            let fault = match measured.get(&place) {
                Some(measured) => fault(&quoted, measured, other.is_none()),
                None => Some("not measured".to_owned()),
            };
            faults.extend(fault.map(|fault| format!("{page}: {}: {fault}", place.join(", "))));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn figures_out_of_what_was_measured_are_noticed() {
    let measured = "2.04 (1.71 to 2.66)";
    for right in ["1.7 to 2.7", "1.9 to 2.2", "2", "2.0", "2 to 2.5 times"] {
        assert_eq!(fault(right, measured, true), None, "{right}");
    }
    for wrong in [
        "1.6 to 2.7",
        "1.7 to 4",
        "2.1 to 2.5",
        "1",
        "2.2",
        "1.6 to 2.2",
    ] {
        assert!(fault(wrong, measured, true).is_some(), "{wrong}");
    }
    // Another run's extremes may be closer.
    assert_eq!(fault("1.5 to 2.9", measured, false), None);
    assert!(fault("2.2 to 2.9", measured, false).is_some());
    assert!(fault("53", "52", true).is_some() && fault("–", "52", true).is_some());
}
