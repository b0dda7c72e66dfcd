//! A run for people: a column a lane, and below it what should not have happened.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use super::Judged;
use super::record::{Lane, Phase, Run};
use crate::machine::Machine;
use crate::stats::{Samples, Summary, amount};

/// So many of each kind are told of.
const TOLD: usize = 20;
/// And of a lane that is only compared with, where they are no failure.
const TOLD_BESIDE: usize = 2;
/// What RTTs may become while everything changes: so many times what they were.
const RATIO: f64 = 1.5;

pub(super) fn text(run: &Run, judged: &[Judged]) -> String {
    let Machine { model, cores, memory_mb, kernel, load_before } = &run.machine;
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let settings: Vec<_> = run.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let mut text = format!(
        "loadtest soak --seed {} {}\n{model}, {cores} cores, {memory_mb} MB, Linux {kernel}, load before {load_before}; {build} build\n",
        run.seed,
        settings.join(" ")
    );
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let names = run.lanes.iter().map(|lane| lane.name.clone());
    table.set_header(std::iter::once(String::new()).chain(names).chain(["target".to_owned()]));
    let columns: Vec<_> = run.lanes.iter().zip(judged).map(|(lane, judged)| rows(lane, judged)).collect();
    for (number, (what, target, _)) in columns.first().into_iter().flatten().enumerate() {
        let values =
            columns.iter().map(|rows| rows.get(number).map_or_else(String::new, |row| row.2.clone()));
        table.add_row(std::iter::once((*what).to_owned()).chain(values).chain([(*target).to_owned()]));
    }
    for number in 1..=run.lanes.len() {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    text += &table.to_string();
    for (lane, judged) in run.lanes.iter().zip(judged) {
        text += &phases(lane);
        for (what, value) in &lane.facts {
            // Writing to a String does not fail.
            _ = write!(text, "\n{}: {what}: {value}", lane.name);
        }
        text += &wrongs(lane, judged);
    }
    text
}

/// A row: what, its target, its value.
type Row = (&'static str, &'static str, String);

fn rows(lane: &Lane, judged: &Judged) -> Vec<Row> {
    let of = |summary: Option<Summary>, value: fn(&Summary) -> f64| {
        summary.as_ref().map_or_else(|| "–".to_owned(), |summary| millis(value(summary)))
    };
    let (quiet, churn) = (lane.rtt_quiet_us.map(thousandth), lane.rtt_churn_us.map(thousandth));
    let (bare_quiet, bare_churn) =
        (lane.direct_quiet_us.map(thousandth), lane.direct_churn_us.map(thousandth));
    let (ratio, bare_ratio) = (p99_ratio(quiet, churn), p99_ratio(bare_quiet, bare_churn));
    let counts = &judged.counts;
    let most = |of: fn(&super::record::Sample) -> f64| lane.samples.iter().map(of).fold(0.0, f64::max);
    let pushes: u64 = lane.samples.iter().map(|sample| u64::from(sample.pushes)).sum();
    vec![
        ("changes of the fleet", "", counts.changes.to_string()),
        ("faults, and their ends", "", counts.faults.to_string()),
        ("messages answered", "", counts.messages.to_string()),
        ("players' connections", "", counts.joins.to_string()),
        ("refused, and let in elsewhere", "", counts.refused.to_string()),
        ("drops with their own server", "", counts.expected.to_string()),
        ("drops without a reason", "0", counts.unexpected.to_string()),
        ("lost, repeated, out of order, misled", "0", counts.wrong.to_string()),
        ("RTT p50, quiet, ms", "", of(quiet, |s| s.p50)),
        ("RTT p50, churn, ms", "", of(churn, |s| s.p50)),
        ("RTT p99, quiet, ms", "", of(quiet, |s| s.p99)),
        ("RTT p99, churn, ms", "", of(churn, |s| s.p99)),
        (
            "RTT p99, churn / quiet",
            "≤ 1.5",
            ratio.map_or_else(
                || "–".to_owned(),
                |ratio| format!("{ratio:.2}{}", if judges() && ratio > RATIO { " NOT MET" } else { "" }),
            ),
        ),
        ("floor, no front: RTT p99, quiet, ms", "", of(bare_quiet, |s| s.p99)),
        ("floor, no front: RTT p99, churn, ms", "", of(bare_churn, |s| s.p99)),
        (
            "floor, no front: RTT p99, churn / quiet",
            "",
            bare_ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")),
        ),
        (
            "RTT p99 of the median second, churn / quiet",
            "",
            second_ratio(lane).map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")),
        ),
        ("new server to first 200, p50, ms", "", of(lane.new_server_ms, |s| s.p50)),
        ("new server to first 200, p99, ms", "", of(lane.new_server_ms, |s| s.p99)),
        ("responses to Envoy, or reloads", "", pushes.to_string()),
        ("memory at most, MB", "", format!("{:.0}", most(|sample| sample.rss_mb))),
        ("workers at most", "", format!("{:.0}", most(|sample| f64::from(sample.workers)))),
    ]
}

fn p99_ratio(quiet: Option<Summary>, churn: Option<Summary>) -> Option<f64> {
    let both = quiet.zip(churn).filter(|(quiet, _)| quiet.p99 > 0.0);
    both.map(|(quiet, churn)| churn.p99 / quiet.p99)
}

/// The same by the median of the seconds' p99: where other work shares the machine, a second of it says nothing.
fn second_ratio(lane: &Lane) -> Option<f64> {
    let median = |phase| {
        let seconds = lane.samples.iter().filter(|sample| sample.phase == phase);
        let p99s: Samples = seconds.filter_map(|sample| sample.rtt_p99_us).map(amount).collect();
        p99s.summary().map(|summary| summary.p50)
    };
    let (quiet, churn) = (median(Phase::Quiet)?, median(Phase::Churn)?);
    (quiet > 0.0).then(|| churn / quiet)
}

/// Times of a debug build say nothing.
fn judges() -> bool {
    !cfg!(debug_assertions)
}

fn thousandth(summary: Summary) -> Summary {
    let Summary { count, least, p50, p99, most } = summary;
    Summary { count, least: least / 1e3, p50: p50 / 1e3, p99: p99 / 1e3, most: most / 1e3 }
}

fn millis(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") }
}

/// New servers by what broke shortly before they came, or while they were waited for.
fn phases(lane: &Lane) -> String {
    let mut phases: BTreeMap<&str, Samples> = BTreeMap::new();
    for new in &lane.new_servers {
        if let Some(took) = new.took_ms {
            phases.entry(&new.phase).or_default().push(took);
        }
    }
    let mut text = String::new();
    for (phase, samples) in phases {
        let Some(Summary { count, p50, p99, most, .. }) = samples.summary() else { continue };
        _ = write!(
            text,
            "\n{}: new server to first 200, {phase}: {count} of them, p50 {} ms, p99 {} ms, most {} ms",
            lane.name,
            millis(p50),
            millis(p99),
            millis(most)
        );
    }
    text
}

fn wrongs(lane: &Lane, judged: &Judged) -> String {
    let mut text = String::new();
    let most = if judged.is_held { TOLD } else { TOLD_BESIDE };
    let drops: Vec<_> = lane.drops.iter().filter(|drop| !drop.expected).collect();
    for drop in drops.iter().take(most) {
        let (at, player, server, why) = (drop.at_ms, drop.player, &drop.server, &drop.why);
        _ = write!(text, "\nDROP at {at} ms: player {player} on {server}: {why}");
    }
    for found in judged.findings.iter().take(most) {
        let (at, player, server) = (found.at_ms, found.player, &found.server);
        _ = write!(text, "\n{} at {at} ms: player {player} on {server}: {}", found.wrong, found.detail);
    }
    let all = drops.len() + judged.findings.len();
    let told = drops.len().min(most) + judged.findings.len().min(most);
    if all > told {
        _ = write!(text, "\n… and {} more", all - told);
    }
    text
}
