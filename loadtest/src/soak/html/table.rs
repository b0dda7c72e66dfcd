//! The table on top of the page: a row a figure, a column a lane.

use std::fmt::Write;

use super::chart::{escape, megabytes, millis, plain};
use crate::soak::record::{Lane, MarkKind, Run, Sample};
use crate::stats::{Summary, amount, number};

pub(super) fn write(page: &mut String, run: &Run) {
    // Writing to a String does not fail.
    page.push_str("<div class=\"wide\">\n<table>\n<thead><tr><th>figure</th>");
    for lane in &run.lanes {
        _ = write!(page, "<th>{}</th>", escape(&lane.name));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for (name, judged, of) in ROWS {
        let class = if judged { " class=\"first\"" } else { "" };
        _ = write!(page, "<tr{class}><th>{}</th>", escape(name));
        for lane in &run.lanes {
            let text = of(lane);
            let class = match (judged, text == "0") {
                (true, true) => " class=\"good\"",
                (true, false) => " class=\"bad\"",
                (false, _) => "",
            };
            _ = write!(page, "<td{class}>{}</td>", escape(&text));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n</div>\n");
    facts(page, run);
}

/// What the figures depend on.
fn facts(page: &mut String, run: &Run) {
    let machine = &run.machine;
    _ = write!(
        page,
        "<p class=\"note\">{}, {} cores, {} MB, Linux {}, load before {}. Seed {}",
        escape(&machine.model),
        machine.cores,
        plain(amount(machine.memory_mb)),
        escape(&machine.kernel),
        escape(&machine.load_before),
        run.seed
    );
    for (name, value) in &run.settings {
        _ = write!(page, "; {} {}", escape(name), escape(value));
    }
    page.push_str(".</p>\n");
    for lane in run.lanes.iter().filter(|lane| !lane.facts.is_empty()) {
        let facts: Vec<_> =
            lane.facts.iter().map(|(name, value)| format!("{} {}", escape(name), escape(value))).collect();
        _ = writeln!(page, "<p class=\"note\"><b>{}</b>: {}.</p>", escape(&lane.name), facts.join("; "));
    }
}

/// A figure's name, whether it must be 0, and what it is of a lane.
type Row = (&'static str, bool, fn(&Lane) -> String);

const ROWS: [Row; 24] = [
    ("unexpected drops", true, |lane| sum(lane, |sample| sample.unexpected_drops)),
    ("messages lost, repeated, out of order or answered by another", true, |lane| {
        sum(lane, |sample| sample.lost)
    }),
    ("expected drops: their own server was stopped", false, |lane| sum(lane, |sample| sample.expected_drops)),
    ("new servers", false, |lane| plain(number(lane.new_servers.len()))),
    ("… without an answer before they went or the run ended", false, |lane| {
        plain(number(lane.new_servers.iter().filter(|new| new.took_ms.is_none()).count()))
    }),
    ("new server to first 200, median", false, |lane| of(lane.new_server_ms, |all| millis(all.p50))),
    ("… 99th percentile", false, |lane| of(lane.new_server_ms, |all| millis(all.p99))),
    ("… slowest", false, |lane| of(lane.new_server_ms, |all| millis(all.most))),
    ("round trip, quiet, median", false, |lane| of(lane.rtt_quiet_us, |all| millis(all.p50 / 1e3))),
    ("… 99th percentile", false, |lane| of(lane.rtt_quiet_us, |all| millis(all.p99 / 1e3))),
    ("round trip under churn, median", false, |lane| of(lane.rtt_churn_us, |all| millis(all.p50 / 1e3))),
    ("… 99th percentile", false, |lane| of(lane.rtt_churn_us, |all| millis(all.p99 / 1e3))),
    ("… slowest", false, |lane| of(lane.rtt_churn_us, |all| millis(all.most / 1e3))),
    ("99th percentile, churn to quiet", false, |lane| times(lane.rtt_quiet_us, lane.rtt_churn_us)),
    ("… with no front between, quiet", false, |lane| of(lane.direct_quiet_us, |all| millis(all.p99 / 1e3))),
    ("… with no front between, churn", false, |lane| of(lane.direct_churn_us, |all| millis(all.p99 / 1e3))),
    ("… with no front between, churn to quiet", false, |lane| {
        times(lane.direct_quiet_us, lane.direct_churn_us)
    }),
    ("messages answered", false, |lane| {
        plain(amount(lane.samples.iter().map(|sample| sample.messages).sum()))
    }),
    ("players, most", false, |lane| most(lane, |sample| f64::from(sample.players), plain)),
    ("changes of the fleet", false, |lane| marks(lane, MarkKind::Churn)),
    ("faults, and their ends", false, |lane| marks(lane, MarkKind::Fault)),
    ("pushes to Envoy, or reloads", false, |lane| sum(lane, |sample| sample.pushes)),
    ("memory, first and most", false, |lane| match lane.samples.first() {
        Some(first) => {
            format!("{}, {}", megabytes(first.rss_mb), most(lane, |sample| sample.rss_mb, megabytes))
        }
        None => NOTHING.to_owned(),
    }),
    ("workers, most", false, |lane| most(lane, |sample| f64::from(sample.workers), plain)),
];

/// In place of a figure that was not seen.
const NOTHING: &str = "–";

fn sum(lane: &Lane, of: fn(&Sample) -> u32) -> String {
    plain(amount(lane.samples.iter().map(|sample| u64::from(of(sample))).sum()))
}

fn most(lane: &Lane, of: fn(&Sample) -> f64, text: fn(f64) -> String) -> String {
    lane.samples.iter().map(of).reduce(f64::max).map_or_else(|| NOTHING.to_owned(), text)
}

fn of(summary: Option<Summary>, text: fn(Summary) -> String) -> String {
    summary.map_or_else(|| NOTHING.to_owned(), text)
}

/// How many times the second 99th percentile is the first.
fn times(quiet: Option<Summary>, churn: Option<Summary>) -> String {
    match (quiet, churn) {
        (Some(quiet), Some(churn)) if quiet.p99 > 0.0 => format!("{} ×", plain(churn.p99 / quiet.p99)),
        _ => NOTHING.to_owned(),
    }
}

fn marks(lane: &Lane, kind: MarkKind) -> String {
    plain(number(lane.marks.iter().filter(|mark| mark.kind == kind).count()))
}
