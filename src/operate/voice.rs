//! What an operator sees: a line a change, and of a switch a bar on a terminal, or a line a step.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::cli::Output;
use crate::plan::{Change, Member, Rollout, Selector, Step, Switch};

/// How a command speaks: to people or to programs.
pub(super) struct Voice {
    output: Output,
    is_dry: bool,
    /// Drawn only for people at a terminal.
    bar: ProgressBar,
}

impl Voice {
    pub(super) fn new(output: Output, is_dry: bool) -> Self {
        let bar = ProgressBar::new(100);
        let is_drawn = output == Output::Table && !is_dry && io::stderr().is_terminal();
        bar.set_draw_target(if is_drawn {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        });
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos:>3} % {msg}") {
            bar.set_style(style);
        }
        Self { output, is_dry, bar }
    }

    /// A line for people, or an object for programs. A reader that has seen enough, such as `head`, is no error.
    fn say(&self, text: &str, object: impl FnOnce() -> Value) {
        let line = match self.output {
            Output::Table => text.to_owned(),
            Output::Json => object().to_string(),
        };
        self.bar.suspend(|| _ = writeln!(io::stdout(), "{line}"));
    }

    pub(super) fn problems(&self, problems: &[String]) {
        for problem in problems {
            self.bar.suspend(|| _ = writeln!(io::stderr(), "tidegate: not read: {problem}"));
        }
    }

    pub(super) fn note(&self, note: &str) {
        self.say(&format!("note: {note}"), || json!({ "note": note }));
    }

    pub(super) fn change(&self, member: &Member, change: &Change, place: Option<&str>) {
        self.change_of_step(member, change, place, None);
    }

    /// One annotation of one object: where it stands, what it was, and what it is.
    pub(super) fn change_of_step(
        &self,
        member: &Member,
        change: &Change,
        place: Option<&str>,
        percents: Option<&[u8]>,
    ) {
        let Change { annotation, old, new, .. } = change;
        let shown =
            |value: &Option<String>| value.as_ref().map_or("none".to_owned(), |text| format!("{text:?}"));
        let at = place.map(|place| format!("{place}: ")).unwrap_or_default();
        let step = percents.map(|percents| format!("[{}] ", whole(percents))).unwrap_or_default();
        let text = format!("{step}{at}{} {annotation}: {} -> {}", member.title(), shown(old), shown(new));
        self.say(&text, || {
            let mut object = json!({
                "kind": member.kind,
                "namespace": member.namespace,
                "name": member.name,
                "annotation": annotation,
                "old": old,
                "new": new,
                "written": !self.is_dry,
            });
            if let Some(place) = place {
                object["at"] = place.into();
            }
            if let Some(percents) = percents {
                object["percent"] = json!(percents.iter().min());
            }
            object
        });
    }

    /// How many things were changed.
    pub(super) fn sum(&self, changes: usize, targets: usize) {
        let servers = if targets == 1 { "1 server".to_owned() } else { format!("{targets} servers") };
        let text = match (changes, self.is_dry) {
            (0, _) => format!("{servers}: all is so already"),
            (_, true) => format!("{servers}: {changes} to change; nothing was written"),
            (_, false) => format!("{servers}: {changes} changed"),
        };
        if self.output == Output::Table {
            self.say(&text, || Value::Null);
        }
    }

    /// What a switch found.
    pub(super) fn begin(&self, switch: &Switch, members: &[Member], to: &Selector) {
        let uneven: Vec<_> = switch.uneven(members).into_iter().map(title).collect();
        for (rollout, present) in switch.rollouts.iter().zip(switch.present(members)) {
            let title = title(rollout);
            let (to_count, all) = (rollout.to.len(), rollout.from.len() + rollout.to.len());
            let was_cut = uneven.contains(&title);
            let why = if was_cut {
                ". Its weights are those of no whole step: one was cut off, or they were set by hand; this goes on from here"
            } else {
                ""
            };
            let text = format!(
                "share {title}: {} % of new players go to {to} ({to_count} of {all} servers){why}",
                rounded(present)
            );
            self.say(&text, || {
                json!({ "share": title, "present": present, "to": to.to_string(),
                    "servers": all, "matching": to_count, "uneven": was_cut })
            });
        }
        self.bar.set_position(percent(&switch.present(members)));
    }

    /// A step that was written.
    pub(super) fn step(
        &self,
        switch: &Switch,
        members: &[Member],
        to: &Selector,
        step: &Step,
        written: usize,
    ) {
        let presents = switch.present(members);
        self.bar.set_message(format!("of new players go to {to}"));
        self.bar.set_position(percent(&presents));
        let verb = if self.is_dry { "to change" } else { "written" };
        for ((rollout, present), percent) in switch.rollouts.iter().zip(presents).zip(&step.percents) {
            let title = title(rollout);
            let text =
                format!("share {title}: {} % of new players go to {to}; {verb}: {written}", rounded(present));
            if self.output == Output::Table && !self.bar.is_hidden() {
                continue;
            }
            self.say(&text, || {
                json!({ "share": title, "step": percent, "present": present, "changes": written,
                    "written": !self.is_dry })
            });
        }
    }

    /// There is nothing left to do.
    pub(super) fn done(&self, switch: &Switch, members: &[Member], to: &Selector, goal: u8) {
        self.bar.finish_and_clear();
        let presents = switch.present(members);
        let dry = if self.is_dry { "; nothing was written" } else { "" };
        self.say(
            &format!("done: {goal} % of new players go to {to}{dry}"),
            || json!({ "done": goal, "present": presents, "written": !self.is_dry }),
        );
    }

    /// It was interrupted between two steps.
    pub(super) fn stopped(&self, switch: &Switch, members: &[Member], on: &str, back: Option<&str>) {
        self.bar.finish_and_clear();
        let presents = switch.present(members);
        let by_hand = "name the other group's labels by --to";
        let text = format!(
            "stopped: {} % of new players go there, as the objects say; nothing else remembers it\n  to go on:   {on}\n  to go back: {}",
            rounded(presents.iter().copied().fold(f64::INFINITY, f64::min)),
            back.unwrap_or(by_hand)
        );
        self.say(&text, || json!({ "stopped": presents, "on": on, "back": back }));
    }
}

fn title(rollout: &Rollout) -> String {
    format!("{}/{}", rollout.share.namespace, rollout.share.name)
}

/// With one digit behind the point, if that is not 0.
fn rounded(percent: f64) -> String {
    let text = format!("{percent:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn whole(percents: &[u8]) -> String {
    percents.iter().map(|percent| format!("{percent} %")).collect::<Vec<_>>().join(", ")
}

/// That of the share that is least far.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // from 0 to 100
fn percent(presents: &[f64]) -> u64 {
    presents.iter().copied().fold(100.0, f64::min).round() as u64
}
