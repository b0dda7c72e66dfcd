//! Figures: each with its floor and its target beside it, as a table for people and JSON for programs.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::machine::Machine;
use crate::stats::{Samples, Summary};

/// One thing that was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// Which part of the harness measured it.
    pub(crate) scenario: &'static str,
    /// How many servers there were.
    pub(crate) servers: usize,
    /// The layout, where it matters.
    pub(crate) layout: Option<&'static str>,
    /// How many streams, where it matters.
    pub(crate) streams: Option<usize>,
    /// What it is.
    pub(crate) name: String,
    /// The unit of all its numbers.
    pub(crate) unit: &'static str,
    #[serde(flatten)]
    pub(crate) value: Summary,
    /// What the same costs with nothing else around it, in the same run.
    pub(crate) floor: Option<Summary>,
    pub(crate) target: Option<Target>,
}

/// What a figure is held against.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Target {
    text: String,
    /// None where it is not judged: in a debug build or a smoke run.
    met: Option<bool>,
}

impl Figure {
    pub(crate) fn floor(mut self, floor: &Samples) -> Self {
        self.floor = floor.summary();
        self
    }

    pub(crate) fn streams(mut self, streams: usize) -> Self {
        self.streams = Some(streams);
        self
    }

    /// Holds it against a target: its words, and whether value and floor meet it.
    pub(crate) fn target(
        mut self,
        text: impl Into<String>,
        met: impl Fn(&Summary, Option<&Summary>) -> bool,
    ) -> Self {
        let met = met(&self.value, self.floor.as_ref());
        self.target = Some(Target { text: text.into(), met: Some(met) });
        self
    }
}

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    command: String,
    version: &'static str,
    build: &'static str,
    /// Too few samples and servers to say anything of time.
    smoke: bool,
    machine: Machine,
    /// What was left out, and why.
    notes: Vec<String>,
    pub(crate) figures: Vec<Figure>,
}

impl Report {
    pub(crate) fn new(smoke: bool) -> Self {
        let mut words = std::env::args();
        let program = words.next().unwrap_or_default();
        let program = Path::new(&program).file_name().map(|name| name.to_string_lossy().into_owned());
        let words: Vec<_> = program.into_iter().chain(words).collect();
        Self {
            command: words.join(" "),
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            smoke,
            machine: Machine::this(),
            notes: Vec::new(),
            figures: Vec::new(),
        }
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub(crate) fn add(&mut self, figure: Option<Figure>) {
        let Some(mut figure) = figure else { return };
        if (self.smoke || cfg!(debug_assertions))
            && let Some(target) = &mut figure.target
        {
            target.met = None;
        }
        // In a log a run shows what it has found so far: one of an hour may be cut short.
        if !std::io::stderr().is_terminal() {
            let Figure { scenario, servers, layout, streams, name, value, unit, .. } = &figure;
            let place =
                layout.map(str::to_owned).or(streams.map(|count| count.to_string())).unwrap_or_default();
            eprintln!(
                "  {scenario} {servers} {place}: {name}: {} {unit}, p99 {}",
                short(value.p50),
                short(value.p99)
            );
        }
        self.figures.push(figure);
    }

    /// Prints the table, and writes the file if one was asked for, with its folder.
    pub(crate) fn finish(&self, json: Option<&Path>) -> anyhow::Result<()> {
        println!("{}", self.text());
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(self)?;
            write(path, &(text + "\n")).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    fn text(&self) -> String {
        let Machine { model, cores, memory_mb, kernel, load_before } = &self.machine;
        let mut text = format!(
            "{}\n{model}, {cores} cores, {memory_mb} MB, Linux {kernel}, load before {load_before}; tidegate {}, {} build{}\n",
            self.command,
            self.version,
            self.build,
            if self.smoke { "; a smoke run: its times say nothing" } else { "" }
        );
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header([
            "scenario",
            "servers",
            "layout",
            "streams",
            "figure",
            "n",
            "p50",
            "p99",
            "floor p50",
            "floor p99",
            "unit",
            "target",
            "",
        ]);
        for figure in &self.figures {
            let floor = |of: fn(&Summary) -> f64| {
                figure.floor.as_ref().map(|floor| short(of(floor))).unwrap_or_default()
            };
            let (target, met) = match &figure.target {
                None => (String::new(), ""),
                Some(Target { text, met }) => (
                    text.clone(),
                    match met {
                        Some(true) => "met",
                        Some(false) => "NOT MET",
                        None => "not judged",
                    },
                ),
            };
            table.add_row([
                figure.scenario.to_owned(),
                figure.servers.to_string(),
                figure.layout.unwrap_or_default().to_owned(),
                figure.streams.map(|streams| streams.to_string()).unwrap_or_default(),
                figure.name.clone(),
                figure.value.count.to_string(),
                short(figure.value.p50),
                short(figure.value.p99),
                floor(|floor| floor.p50),
                floor(|floor| floor.p99),
                figure.unit.to_owned(),
                target,
                met.to_owned(),
            ]);
        }
        for column in [1, 3, 5, 6, 7, 8, 9] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        text += &table.to_string();
        for note in &self.notes {
            text += "\nnote: ";
            text += note;
        }
        text
    }
}

/// Where figures are measured: what they have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) scenario: &'static str,
    pub(crate) servers: usize,
    pub(crate) layout: Option<&'static str>,
}

impl Place {
    /// `None` where nothing was seen.
    pub(crate) fn figure(
        self,
        name: impl Into<String>,
        unit: &'static str,
        values: &Samples,
    ) -> Option<Figure> {
        let Self { scenario, servers, layout } = self;
        let value = values.summary()?;
        Some(Figure {
            scenario,
            servers,
            layout,
            streams: None,
            name: name.into(),
            unit,
            value,
            floor: None,
            target: None,
        })
    }
}

/// Writes a file where there may be no folder for it yet.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text)
}

/// Three digits that count.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        small if small < 1.0 => 3,
        small if small < 10.0 => 2,
        middle if middle < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_judged_by_value_and_floor() {
        let place = Place { scenario: "test", servers: 1, layout: None };
        let judged = |value: f64, floor: f64| {
            let figure = place.figure("x", "ms", &value.into()).unwrap().floor(&floor.into());
            let figure = figure.target("p50 ≤ floor + 1 ms", |value, floor| {
                floor.is_some_and(|floor| value.p50 <= floor.p50 + 1.0)
            });
            figure.target.unwrap().met
        };
        assert_eq!(judged(2.0, 1.5), Some(true));
        assert_eq!(judged(2.6, 1.5), Some(false));
    }

    #[test]
    fn a_report_makes_the_folder_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results/today/delta.json");
        Report::new(true).finish(Some(&path)).unwrap();
        assert!(std::fs::read_to_string(path).unwrap().contains("\"smoke\": true"));
        let here = Path::new("delta.json").parent().unwrap();
        assert!(std::fs::create_dir_all(here).is_ok(), "a bare name has the folder that is there");
    }

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!([0.0, 0.1234, 1.234, 12.34, 1234.5].map(short), ["0", "0.123", "1.23", "12.3", "1234"]);
    }
}
