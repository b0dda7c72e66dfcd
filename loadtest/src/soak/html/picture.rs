//! Two pictures for a README, each of all lanes: who was dropped, and how long a new server takes.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;

use super::bins::{self, Bin};
use super::chart::{HEIGHT, Picture, Scale, Series, Shape, WIDTH, escape, millis, plain};
use crate::soak::record::Run;
use crate::stats::amount;

/// One colour a lane; a page that shows no colours has the names beside the lines' ends.
const CLASSES: [&str; 4] = ["one", "bad", "two", "four"];

/// Writes `soak-drops.svg` and `soak-new-server.svg`.
pub(crate) fn pictures(run: &Run, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for (name, text) in [("soak-drops.svg", drops(run)), ("soak-new-server.svg", new_servers(run))] {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Unexpected drops so far.
pub(super) fn drops(run: &Run) -> String {
    let so_far = |bins: &[Bin]| -> Vec<f64> {
        let mut sum = 0;
        let add = |bin: &Bin| {
            sum += bin.unexpected;
            amount(sum)
        };
        bins.iter().map(add).collect()
    };
    let all = lanes(run, |bins| {
        let values = so_far(bins);
        (Shape::Line, values.into_iter().map(Some).collect())
    });
    let most = |series: &Series| series.points.iter().filter_map(|point| point.2).fold(0.0, f64::max);
    let ends: Vec<_> = all.iter().map(|series| plain(most(series))).collect();
    let scale = Scale::linear(all.iter().map(most).fold(0.0, f64::max));
    drawn(run, "WebSockets dropped though their server lives, so far", &ends, scale, plain, &all)
}

/// The slowest new server of each step: what people wait for.
pub(super) fn new_servers(run: &Run) -> String {
    let all = lanes(run, |bins| (Shape::Dot, bins.iter().map(|bin| bin.new_ms.last().copied()).collect()));
    let ends: Vec<_> = run
        .lanes
        .iter()
        .map(|lane| lane.new_server_ms.map_or_else(String::new, |all| format!("median {}", millis(all.p50))))
        .collect();
    let values: Vec<_> = all
        .iter()
        .flat_map(|series| &series.points)
        .filter_map(|point| point.2)
        .filter(|v| *v > 0.0)
        .collect();
    let scale = Scale::log(
        values.iter().copied().fold(f64::INFINITY, f64::min),
        values.iter().copied().fold(0.0, f64::max),
    );
    let step = bins::step_ms(bins::span_ms(&run.lanes)) / 1_000;
    let title = if step == 1 {
        "From a new server to its first 200: the slowest of each second".to_owned()
    } else {
        format!("From a new server to its first 200: the slowest of each {step} s")
    };
    drawn(run, &title, &ends, scale, millis, &all)
}

/// A series a lane.
fn lanes(run: &Run, of: impl Fn(&[Bin]) -> (Shape, Vec<Option<f64>>)) -> Vec<Series> {
    let step = bins::step_ms(bins::span_ms(&run.lanes));
    let series = |(number, lane): (usize, &crate::soak::record::Lane)| {
        let bins = bins::of(lane, step);
        let (shape, values) = of(&bins);
        let points = bins.iter().zip(values).map(|(bin, value)| (bin.from_ms, bin.to_ms, value)).collect();
        let class = CLASSES[number % CLASSES.len()].to_owned();
        Series { name: lane.name.clone(), class, shape, points }
    };
    run.lanes.iter().enumerate().map(series).collect()
}

/// Title, names with their figure, and the picture, in one file with colours of its own.
fn drawn(
    run: &Run,
    title: &str,
    ends: &[String],
    scale: Scale,
    value: fn(f64) -> String,
    series: &[Series],
) -> String {
    let span_ms = bins::span_ms(&run.lanes);
    let picture =
        Picture { label: title.to_owned(), span_ms, scale, value, series, faults: &[], tips: vec![] };
    // A lane's name stands in a line of its own: names and figures are of any length.
    let head = 30.0 + 15.0 * crate::stats::number(series.len());
    let tall = head + HEIGHT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {tall}\" width=\"705\" role=\"img\">\n\
         <style>{style}</style>\n<rect width=\"{WIDTH}\" height=\"{tall}\" style=\"fill: var(--paper)\"/>\n\
         <text class=\"title\" x=\"10\" y=\"19\">{}</text>\n",
        escape(title),
        style = style()
    );
    for (number, (series, end)) in series.iter().zip(ends).enumerate() {
        let y = 39.0 + 15.0 * crate::stats::number(number);
        // Writing to a String does not fail.
        _ = writeln!(
            svg,
            "<rect class=\"fill {}\" x=\"10\" y=\"{:.1}\" width=\"9\" height=\"9\" rx=\"2\"/>\
             <text class=\"tick name\" x=\"24\" y=\"{y:.1}\">{}</text>",
            series.class,
            y - 8.5,
            escape(&format!("{}: {end}", series.name))
        );
    }
    let sized = format!("<svg y=\"{head}\" width=\"{WIDTH}\" height=\"{HEIGHT}\"");
    svg += &picture.svg().replacen("<svg", &sized, 1);
    svg += "\n</svg>\n";
    svg
}

/// Colours of the page, light and dark, and what these pictures have besides.
fn style() -> String {
    let page = super::STYLE;
    let colours = page.split("body {").next().unwrap_or(page);
    let marks: String = page
        .lines()
        .filter(|line| MARKS.iter().any(|mark| line.starts_with(mark)))
        .collect::<Vec<_>>()
        .join("\n");
    format!(
        "\n{colours}{marks}\n.title {{ fill: var(--ink); font: 600 13px system-ui, sans-serif; }}\n\
         .tick.name {{ fill: var(--ink); font-size: 12px; }}\n"
    )
}

const MARKS: [&str; 8] = [".grid", ".tick", ".end", ".line", ".fill", ".fault", ".tip", ".middle"];
