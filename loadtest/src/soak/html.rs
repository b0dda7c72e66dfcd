//! A run as one HTML page that needs nothing else: the table, the lanes beside each other over the same time, and what
//! was done to them. And two pictures of it for a README.
//!
//! Pictures of one kind have one scale in all lanes, so that a glance compares them; where they don't, it is said.

mod bins;
mod chart;
mod picture;
mod table;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use self::bins::Bin;
use self::chart::{Picture, Scale, Series, Shape, clock, escape, megabytes, millis, plain};
use super::record::{Lane, MarkKind, Run};
use crate::stats::amount;
pub(crate) use picture::pictures;

/// Rows of a list: more can be read in the JSON file.
const ROWS: usize = 200;

const STYLE: &str = include_str!("html/page.css");

/// What a kind of picture shows of a step.
struct Curve {
    name: &'static str,
    class: &'static str,
    shape: Shape,
    of: fn(&Bin) -> Option<f64>,
}

/// A kind of picture: one a lane.
struct Kind {
    title: &'static str,
    note: &'static str,
    log: bool,
    /// One scale for all lanes.
    shared: bool,
    value: fn(f64) -> String,
    curves: &'static [Curve],
}

const fn curve(name: &'static str, class: &'static str, shape: Shape, of: fn(&Bin) -> Option<f64>) -> Curve {
    Curve { name, class, shape, of }
}

const KINDS: [Kind; 8] = [
    Kind {
        title: "Dropped connections",
        note: "closed sockets; expected are those whose own server was stopped",
        log: false,
        shared: true,
        value: plain,
        curves: &[
            curve("unexpected", "bad", Shape::Bar, |bin| Some(amount(bin.unexpected))),
            curve("expected", "calm", Shape::Bar, |bin| Some(amount(bin.expected))),
        ],
    },
    Kind {
        title: "From a new server to its first 200",
        note: "from the write of its file; each step's median and slowest",
        log: true,
        shared: true,
        value: millis,
        curves: &[
            curve("slowest", "two", Shape::Dot, |bin| bin.new_ms.last().copied()),
            curve("median", "one", Shape::Dot, |bin| {
                bin.new_ms.get(bin.new_ms.len().saturating_sub(1) / 2).copied()
            }),
        ],
    },
    Kind {
        title: "Round trip of a message",
        note: "of each step the worst second",
        log: true,
        shared: true,
        value: millis,
        curves: &[
            curve("99th percentile", "two", Shape::Line, |bin| bin.p99_ms),
            curve("median", "one", Shape::Line, |bin| bin.p50_ms),
        ],
    },
    Kind {
        title: "Memory",
        note: "of the front and its control plane, shared pages counted once (PSS)",
        log: false,
        shared: true,
        value: megabytes,
        curves: &[curve("memory", "three", Shape::Line, |bin| bin.memory_mb)],
    },
    Kind {
        title: "Workers",
        note: "that carry connections; of nginx also those that a reload replaced and that have not ended",
        log: false,
        shared: true,
        value: plain,
        curves: &[curve("workers", "four", Shape::Line, |bin| bin.workers)],
    },
    Kind {
        title: "Pushes or reloads",
        note: "responses to Envoy, or reloads of nginx; each lane has its own scale",
        log: false,
        shared: false,
        value: plain,
        curves: &[curve("pushes or reloads", "one", Shape::Bar, |bin| Some(amount(bin.pushes)))],
    },
    Kind {
        title: "Players and servers",
        note: "players connected, and game servers that should be routed",
        log: false,
        shared: true,
        value: plain,
        curves: &[
            curve("players", "one", Shape::Line, |bin| bin.players),
            curve("servers", "three", Shape::Line, |bin| bin.servers),
        ],
    },
    Kind {
        title: "Changes of the fleet",
        note: "what the schedule did: waves, edits, moves, drains, restarts, bad objects",
        log: false,
        shared: true,
        value: plain,
        curves: &[curve("changes", "calm", Shape::Bar, |bin| Some(amount(bin.churn)))],
    },
];

/// The page.
pub(crate) fn page(run: &Run) -> String {
    let span_ms = bins::span_ms(&run.lanes);
    let step_ms = bins::step_ms(span_ms);
    let lanes: Vec<_> = run.lanes.iter().map(|lane| (lane, bins::of(lane, step_ms))).collect();
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Soak, seed {seed}</title>\n<style>\n{STYLE}</style>\n<main>\n<h1>Players who stay while the fleet changes</h1>\n",
        seed = run.seed
    );
    table::write(&mut page, run);
    _ = writeln!(
        page,
        "<p class=\"note\">Pictures are in steps of {} s; point at one to read its numbers. \
         <span class=\"key broken\"></span>a step in which something was broken on purpose.</p>",
        step_ms / 1_000
    );
    for kind in &KINDS {
        section(&mut page, kind, &lanes, span_ms);
    }
    for (lane, _) in &lanes {
        lists(&mut page, lane);
    }
    page += "</main>\n</html>\n";
    page
}

fn section(page: &mut String, kind: &Kind, lanes: &[(&Lane, Vec<Bin>)], span_ms: u64) {
    _ = write!(page, "<section>\n<h2>{}</h2>\n<p class=\"note\">{}", escape(kind.title), escape(kind.note));
    for curve in kind.curves {
        _ = write!(page, " <span class=\"key {}\"></span>{}", curve.class, escape(curve.name));
    }
    page.push_str("</p>\n<div class=\"lanes\">\n");
    let every: Vec<_> = lanes.iter().flat_map(|(_, bins)| bins).collect();
    let common = scale(kind, &every);
    for (lane, bins) in lanes {
        let series: Vec<_> = kind.curves.iter().map(|curve| curve.series(bins)).collect();
        let scale = if kind.shared { common } else { scale(kind, &bins.iter().collect::<Vec<_>>()) };
        let tips = bins.iter().map(|bin| (bin.from_ms, bin.to_ms, tip(kind, bin))).collect();
        // One a step: an hour has more of them than a picture has room for.
        let broken = bins.iter().filter(|bin| !bin.faults.is_empty());
        let faults: Vec<_> = broken.map(|bin| u64::midpoint(bin.from_ms, bin.to_ms)).collect();
        let label = format!("{}, {}", kind.title, lane.name);
        let picture =
            Picture { label, span_ms, scale, value: kind.value, series: &series, faults: &faults, tips };
        _ = writeln!(
            page,
            "<figure><figcaption>{}</figcaption>{}</figure>",
            escape(&lane.name),
            picture.svg()
        );
    }
    *page += "</div>\n</section>\n";
}

impl Curve {
    fn series(&self, bins: &[Bin]) -> Series {
        Series {
            name: self.name.to_owned(),
            class: self.class.to_owned(),
            shape: self.shape,
            points: bins.iter().map(|bin| (bin.from_ms, bin.to_ms, (self.of)(bin))).collect(),
        }
    }
}

/// What holds all of these steps: bars stand on each other.
fn scale(kind: &Kind, bins: &[&Bin]) -> Scale {
    let values = |bin: &&Bin| kind.curves.iter().filter_map(|curve| (curve.of)(bin)).collect::<Vec<_>>();
    if kind.log {
        let all: Vec<f64> = bins.iter().flat_map(values).filter(|value| *value > 0.0).collect();
        return Scale::log(
            all.iter().copied().fold(f64::INFINITY, f64::min),
            all.iter().copied().fold(0.0, f64::max),
        );
    }
    let stacked = kind.curves.iter().all(|curve| curve.shape == Shape::Bar);
    let of = |bin: &&Bin| {
        let values = values(bin);
        if stacked { values.iter().sum() } else { values.iter().copied().fold(0.0, f64::max) }
    };
    Scale::linear(bins.iter().map(of).fold(0.0, f64::max))
}

/// The numbers of a step, and what was done in it.
fn tip(kind: &Kind, bin: &Bin) -> String {
    let mut text = format!("{} to {}", clock(bin.from_ms), clock(bin.to_ms));
    for curve in kind.curves {
        if let Some(value) = (curve.of)(bin) {
            _ = write!(text, "\n{}: {}", curve.name, (kind.value)(value));
        }
    }
    if kind.log && bin.unanswered > 0 && bin.p50_ms.is_none() {
        _ = write!(text, "\nnever answered: {}", bin.unanswered);
    }
    for (fault, count) in &bin.faults {
        let times = if *count > 1 { format!("{count} × ") } else { String::new() };
        _ = write!(text, "\n{times}{fault}");
    }
    text
}

/// What broke, and who was dropped for no reason of his server's, in words.
fn lists(page: &mut String, lane: &Lane) {
    let name = escape(&lane.name);
    let marks: Vec<_> = lane.marks.iter().filter(|mark| mark.kind != MarkKind::Churn).collect();
    if !marks.is_empty() {
        _ = writeln!(
            page,
            "<details><summary>{name}: phases and faults, {}</summary>\n<ol>",
            plain(crate::stats::number(marks.len()))
        );
        // The phases are few, and the last of them is not left out for what broke before it.
        let mut faults = 0;
        for mark in marks {
            faults += usize::from(mark.kind == MarkKind::Fault);
            if mark.kind == MarkKind::Phase || faults <= ROWS {
                _ = writeln!(page, "<li>{} {}</li>", clock(mark.at_ms), escape(&mark.what));
            }
        }
        *page += "</ol>\n";
        more(page, faults);
        *page += "</details>\n";
    }
    let drops: Vec<_> = lane.drops.iter().filter(|drop| !drop.expected).collect();
    if !drops.is_empty() {
        _ = writeln!(
            page,
            "<details><summary>{name}: unexpected drops, {}</summary>\n<ol>",
            plain(crate::stats::number(drops.len()))
        );
        for drop in drops.iter().take(ROWS) {
            _ = writeln!(
                page,
                "<li>{} player {} of {}: {}</li>",
                clock(drop.at_ms),
                drop.player,
                escape(&drop.server),
                escape(&drop.why)
            );
        }
        *page += "</ol>\n";
        more(page, drops.len());
        *page += "</details>\n";
    }
}

fn more(page: &mut String, count: usize) {
    if count > ROWS {
        let left = plain(crate::stats::number(count - ROWS));
        _ = writeln!(page, "<p class=\"note\">and {left} more: they are in the JSON file</p>");
    }
}
