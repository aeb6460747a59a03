//! The chart: what a policy costs, and how soon a lock that is released is noticed.

use std::fmt::Write as _;
use std::time::Duration;

use crate::report::{POLICIES, cell, run};
use crate::world::{Figures, Policy, Scene};

const INTERVALS: [u64; 9] = [100, 200, 350, 625, 1_000, 2_000, 5_000, 15_000, 60_000];

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
/// The first and the last value on each axis.
const RATES: (f64, f64) = (0.8, 700.0);
const LATENCIES: (f64, f64) = (0.03, 80.0);
/// The plot's edges.
const LEFT: f64 = 64.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = HEIGHT - 56.0;

/// One waiter, holds of a minute: hand-off latency against requests, in SVG.
///
/// Text has the colour of the page's text, so it reads well on light and on dark pages.
pub fn chart() -> String {
    let scene = |policy| Scene {
        hand_overs: 1000,
        ..cell(policy, 1, Duration::from_secs(60))
    };
    let shipped = INTERVALS.map(|millis| Policy::Shipped(Duration::from_millis(millis)));
    let rivals = &POLICIES[1..];
    let policies = shipped
        .into_iter()
        .chain(rivals.iter().map(|(_, policy)| *policy));
    let scenes: Vec<_> = policies.map(scene).collect();
    let figures = run(&scenes);
    let (shipped, others) = figures.split_at(INTERVALS.len());

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"currentColor\">\n\
         <title>How soon a waiter notices that a lock was released, against requests</title>\n"
    );
    axes(&mut svg);
    for (percentile, dash) in [(50, ""), (99, " stroke-dasharray=\"5 4\"")] {
        let points: Vec<_> = shipped.iter().map(|each| place(each, percentile)).collect();
        let path: Vec<_> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"#2f81f7\" stroke-width=\"2\"{dash}/>",
            path.join(" ")
        );
    }
    // Beside the lines, and the names beside each other.
    for ((name, _), figures) in rivals.iter().zip(others) {
        let at = match *name {
            "0.1.0" | "Go" => (-1.0, 1),
            _ => (1.0, 0),
        };
        mark(&mut svg, figures, "#d4761f", name, at);
    }
    for (millis, figures) in INTERVALS.iter().zip(shipped) {
        if *millis == 625 {
            mark(&mut svg, figures, "#2f81f7", "azmutex, 0.625 s", (-1.0, 2));
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn axes(svg: &mut String) {
    for (value, name) in [(1.0, "1"), (10.0, "10"), (100.0, "100")] {
        let at = x(value);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {TOP}V{BOTTOM}\" stroke=\"currentColor\" stroke-opacity=\"0.2\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
            BOTTOM + 18.0
        );
    }
    for (value, name) in [
        (0.1, "0.1 s"),
        (1.0, "1 s"),
        (10.0, "10 s"),
        (60.0, "1 min"),
    ] {
        let at = y(value);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" stroke=\"currentColor\" stroke-opacity=\"0.2\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            LEFT - 8.0,
            at + 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">requests per waiter and minute</text>\n\
         <text x=\"{LEFT}\" y=\"20\">from the release to the next holder, one waiter, holds of a \
         minute: ● median, ○ 99 of 100</text>\n\
         <text x=\"{LEFT}\" y=\"37\">the line: azmutex with poll intervals from \
         0.1 s to 1 min</text>",
        (LEFT + RIGHT) / 2.0,
        HEIGHT - 16.0
    );
}

/// The median and the 99th percentile of one policy, the name beside them: above, or so many lines
/// below.
fn mark(svg: &mut String, figures: &Figures, colour: &str, name: &str, (side, below): (f64, u32)) {
    let ((x, median), (_, late)) = (place(figures, 50), place(figures, 99));
    let anchor = if side < 0.0 { "end" } else { "start" };
    let _ = writeln!(
        svg,
        "<path d=\"M{x:.1} {median:.1}V{late:.1}\" stroke=\"{colour}\" stroke-opacity=\"0.6\"/>\
         <circle cx=\"{x:.1}\" cy=\"{median:.1}\" r=\"5\" fill=\"{colour}\"/>\
         <circle cx=\"{x:.1}\" cy=\"{late:.1}\" r=\"4\" fill=\"none\" stroke=\"{colour}\" \
         stroke-width=\"2\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{name}</text>",
        x + side * 10.0,
        match below {
            0 => late - 6.0,
            lines => median + 18.0 * f64::from(lines),
        }
    );
}

fn place(figures: &Figures, percentile: usize) -> (f64, f64) {
    (
        x(figures.rate()),
        y(figures.latency(percentile).as_secs_f64()),
    )
}

fn x(rate: f64) -> f64 {
    LEFT + along(rate, RATES) * (RIGHT - LEFT)
}

fn y(latency: f64) -> f64 {
    BOTTOM - along(latency, LATENCIES) * (BOTTOM - TOP)
}

/// Where a value is between two, by its logarithm.
fn along(value: f64, (first, last): (f64, f64)) -> f64 {
    (value / first).ln() / (last / first).ln()
}
