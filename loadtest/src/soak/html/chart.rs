//! One picture over time, as inline SVG whose colours are the page's: bars, lines and dots, and a line from top to bottom
//! where something broke. What is pointed at says its numbers by `<title>`.

use std::fmt::Write;

use crate::stats::amount;

/// All pictures are of one size, in units that a page on a telephone shows almost as they are.
pub(super) const WIDTH: f64 = 470.0;
pub(super) const HEIGHT: f64 = 170.0;
/// `10,000 MB` stands before it.
const LEFT: f64 = 62.0;
/// Half of the last time on the axis has room behind it.
const RIGHT: f64 = 448.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 146.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    /// On top of the bars of the series before.
    Bar,
    Line,
    Dot,
}

/// Values of one kind, each from a moment to the next, in milliseconds.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    /// The class that has its colour.
    pub(super) class: String,
    pub(super) shape: Shape,
    pub(super) points: Vec<(u64, u64, Option<f64>)>,
}

/// From a value to a height.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// From 0 to this.
    Linear(f64),
    /// From one power of ten to another.
    Log(i32, i32),
}

impl Scale {
    pub(super) fn linear(most: f64) -> Self {
        let power = 10_f64.powf(most.max(1.0).log10().floor());
        let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
        let top = steps.into_iter().map(|step| step * power).find(|top| *top >= most);
        Self::Linear(top.unwrap_or(10.0 * power))
    }

    /// Over values above nothing; a decade where there are none.
    #[allow(clippy::cast_possible_truncation)] // powers of ten of an f64 are below 400
    pub(super) fn log(least: f64, most: f64) -> Self {
        if least <= 0.0 || most < least {
            return Self::Log(0, 1);
        }
        let low = least.log10().floor() as i32;
        Self::Log(low, (most.log10().ceil() as i32).max(low + 1))
    }

    fn height(self, value: f64) -> f64 {
        let part = match self {
            Self::Linear(top) => value / top,
            Self::Log(low, high) => {
                (value.max(f64::MIN_POSITIVE).log10() - f64::from(low)) / f64::from(high - low)
            }
        };
        BOTTOM - part.clamp(0.0, 1.0) * (BOTTOM - TOP)
    }

    fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear(top) => {
                // What a top of 1, 2, 4, 5, 8 or 10 times a power of ten is cut into without breaking numbers.
                let parts = match top / 10_f64.powf(top.log10().floor()) {
                    _ if top < 2.0 => 1,
                    _ if top < 4.0 => 2,
                    lead if lead < 1.5 || (4.5..5.5).contains(&lead) => 5,
                    _ => 4,
                };
                (0..=parts).map(|part| top * f64::from(part) / f64::from(parts)).collect()
            }
            Self::Log(low, high) => (low..=high).map(|power| 10_f64.powi(power)).collect(),
        }
    }
}

/// A picture.
pub(super) struct Picture<'a> {
    /// What it shows, for who does not see it.
    pub(super) label: String,
    pub(super) span_ms: u64,
    pub(super) scale: Scale,
    /// A value of the upward axis, in words.
    pub(super) value: fn(f64) -> String,
    pub(super) series: &'a [Series],
    /// When something broke.
    pub(super) faults: &'a [u64],
    /// What is said of a time when it is pointed at.
    pub(super) tips: Vec<(u64, u64, String)>,
}

impl Picture<'_> {
    pub(super) fn svg(&self) -> String {
        let mut svg = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#,
            escape(&self.label)
        );
        // Writing to a String does not fail.
        for tick in self.scale.ticks() {
            let y = self.scale.height(tick);
            _ = write!(
                svg,
                r#"<path class="grid" d="M{LEFT} {y:.1}H{RIGHT}"/><text class="tick end" x="{:.1}" y="{:.1}">{}</text>"#,
                LEFT - 5.0,
                y + 3.5,
                escape(&(self.value)(tick))
            );
        }
        for at in self.times() {
            let x = self.across(at);
            _ = write!(
                svg,
                r#"<text class="tick middle" x="{x:.1}" y="{:.1}">{}</text>"#,
                BOTTOM + 15.0,
                clock(at)
            );
        }
        for at in self.faults {
            _ = write!(svg, r#"<path class="fault" d="M{:.1} {TOP}V{BOTTOM}"/>"#, self.across(*at));
        }
        self.bars(&mut svg);
        for series in self.series {
            match series.shape {
                Shape::Bar => {}
                Shape::Line => self.line(&mut svg, series),
                Shape::Dot => self.dots(&mut svg, series),
            }
        }
        for (from, to, text) in &self.tips {
            let (left, right) = (self.across(*from), self.across(*to));
            _ = write!(
                svg,
                r#"<rect class="tip" x="{left:.1}" y="{TOP}" width="{:.1}" height="{:.1}"><title>{}</title></rect>"#,
                (right - left).max(1.0),
                BOTTOM - TOP,
                escape(text)
            );
        }
        svg += "</svg>";
        svg
    }

    fn across(&self, at_ms: u64) -> f64 {
        LEFT + (amount(at_ms) / amount(self.span_ms)).min(1.0) * (RIGHT - LEFT)
    }

    /// Where the time is written: round times, seven at most.
    fn times(&self) -> impl Iterator<Item = u64> {
        let steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600];
        let fits = |step: &u64| self.span_ms / (step * 1_000) <= 6;
        let step = 1_000 * steps.into_iter().find(fits).unwrap_or(86_400);
        (0..=(self.span_ms / step).min(24)).map(move |number| number * step)
    }

    fn bars(&self, svg: &mut String) {
        let bars: Vec<_> = self.series.iter().filter(|series| series.shape == Shape::Bar).collect();
        let count = bars.first().map_or(0, |series| series.points.len());
        for number in 0..count {
            let mut below = 0.0;
            for series in &bars {
                let Some(&(from, to, Some(value))) = series.points.get(number) else { continue };
                if value <= 0.0 {
                    continue;
                }
                let (bottom, top) = (self.scale.height(below), self.scale.height(below + value));
                below += value;
                let (left, right) = (self.across(from), self.across(to));
                // What is there is seen, however little it is beside the rest.
                let tall = (bottom - top).max(1.0);
                _ = write!(
                    svg,
                    r#"<rect class="fill {}" x="{left:.1}" y="{:.1}" width="{:.1}" height="{tall:.1}"/>"#,
                    series.class,
                    bottom - tall,
                    (right - left - 0.5).max(0.8)
                );
            }
        }
    }

    fn line(&self, svg: &mut String, series: &Series) {
        let mut path = String::new();
        let mut begins = true;
        for (from, to, value) in &series.points {
            let Some(value) = value else {
                begins = true;
                continue;
            };
            let x = self.across(u64::midpoint(*from, *to));
            let pen = if begins { 'M' } else { 'L' };
            _ = write!(path, "{pen}{x:.1} {:.1}", self.scale.height(*value));
            begins = false;
        }
        if !path.is_empty() {
            _ = write!(svg, r#"<path class="line {}" d="{path}"/>"#, series.class);
        }
    }

    fn dots(&self, svg: &mut String, series: &Series) {
        for (from, to, value) in &series.points {
            if let Some(value) = value {
                let x = self.across(u64::midpoint(*from, *to));
                let y = self.scale.height(*value);
                _ = write!(svg, r#"<circle class="fill {}" cx="{x:.1}" cy="{y:.1}" r="2.2"/>"#, series.class);
            }
        }
    }
}

/// `1:05`, and `1:00:00` from an hour on.
pub(super) fn clock(at_ms: u64) -> String {
    let seconds = at_ms / 1_000;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// A number as people write it: three digits that count, and commas.
pub(super) fn plain(value: f64) -> String {
    let digits = match value.abs() {
        whole if whole.fract() == 0.0 => 0,
        small if small < 1.0 => 3,
        small if small < 10.0 => 2,
        middle if middle < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (number, digit) in whole.chars().enumerate() {
        if number > 0 && (whole.len() - number).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

/// Milliseconds, in the unit that keeps them short.
pub(super) fn millis(value: f64) -> String {
    match value {
        long if long >= 1_000.0 => format!("{} s", plain(long / 1_000.0)),
        short if short < 1.0 => format!("{} µs", plain(short * 1_000.0)),
        _ => format!("{} ms", plain(value)),
    }
}

pub(super) fn megabytes(value: f64) -> String {
    format!("{} MB", plain(value))
}

/// Text that stands in HTML, SVG or their attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            // XML has no way to write the others.
            letter if letter.is_control() && letter != '\n' => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(
            [0.0, 0.1234, 1.234, 12.34, 123.4, 1_234.0, 1_234_567.8, -1_234.0, 999.96].map(plain),
            ["0", "0.123", "1.23", "12.3", "123", "1,234", "1,234,568", "-1,234", "1,000"]
        );
        assert_eq!([0.25, 25.0, 3_330.0].map(millis), ["250 µs", "25 ms", "3.33 s"]);
        assert_eq!([5_000, 65_000, 3_661_000].map(clock), ["0:05", "1:05", "1:01:01"]);
    }

    #[test]
    fn scales_hold_what_they_are_made_for() {
        for most in [0.0, 0.3, 1.0, 2.5, 7.0, 8.5, 99.0, 100.0, 12_345.0] {
            let Scale::Linear(top) = Scale::linear(most) else { panic!("linear") };
            assert!(top >= most && top <= most.max(0.5) * 2.5, "{most}: {top}");
        }
        assert_eq!(Scale::log(0.4, 3_300.0), Scale::Log(-1, 4));
        assert_eq!([Scale::log(10.0, 10.0), Scale::log(0.0, 0.0)], [Scale::Log(1, 2), Scale::Log(0, 1)]);
        let (low, high) = (Scale::Log(0, 2).height(1.0), Scale::Log(0, 2).height(100.0));
        assert!((low - BOTTOM).abs() < 1e-9 && (high - TOP).abs() < 1e-9);
        // What is outside stays in the picture.
        assert!((Scale::Linear(1.0).height(5.0) - TOP).abs() < 1e-9);
    }

    #[test]
    fn marks_on_a_scale_are_round() {
        let ticks = |most| Scale::linear(most).ticks();
        assert_eq!(ticks(1.0), [0.0, 1.0]);
        assert_eq!(ticks(2.0), [0.0, 1.0, 2.0]);
        assert_eq!(ticks(45.0), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert_eq!(ticks(710.0), [0.0, 200.0, 400.0, 600.0, 800.0]);
        assert_eq!(ticks(99.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(Scale::log(0.4, 33.0).ticks(), [0.1, 1.0, 10.0, 100.0]);
    }

    #[test]
    fn what_it_is_told_cannot_leave_its_place() {
        assert_eq!(escape("<a b=\"c\" d='e'>&\u{1}"), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;\u{fffd}");
    }
}
