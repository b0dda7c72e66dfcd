//! How far a run is, on standard error: a bar for a person, lines for a log.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A part of a run.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Says what is measured now, in how many steps.
    pub(crate) fn of(what: &str, steps: usize) -> Self {
        if !std::io::stderr().is_terminal() {
            eprintln!("{what}");
            return Self { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::new(steps as u64);
        if let Ok(style) = ProgressStyle::with_template("{msg:48} {bar:30} {pos}/{len} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    pub(crate) fn step(&self) {
        self.bar.inc(1);
    }

    /// Whether a person looks on.
    pub(crate) fn is_seen(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Says how it stands: beside the bar, or as a line of a log.
    pub(crate) fn say(&self, how: &str) {
        if self.bar.is_hidden() {
            eprintln!("  {how}");
        } else {
            self.bar.set_message(how.to_owned());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
