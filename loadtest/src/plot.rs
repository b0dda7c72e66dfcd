//! Lines over two logarithmic axes, as SVG: a flat line is a cost that does not grow.

use std::path::Path;

use anyhow::{Context, anyhow};
use plotters::prelude::*;

/// A line: its name, and its points.
pub(crate) type Series = (String, Vec<(f64, f64)>);

const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(127, 127, 127),
    RGBColor(23, 190, 207),
];

/// Draws the lines that have two points or more; without one there is no picture.
pub(crate) fn lines(
    path: &Path,
    title: &str,
    across: &str,
    upward: &str,
    series: &[Series],
) -> anyhow::Result<bool> {
    let series: Vec<_> = series.iter().filter(|(_, points)| points.len() > 1).collect();
    let points = || series.iter().flat_map(|(_, points)| points).copied();
    if points().next().is_none() {
        return Ok(false);
    }
    let range = |of: fn((f64, f64)) -> f64| {
        points().map(of).fold((f64::MAX, f64::MIN), |(least, most), x| (least.min(x), most.max(x)))
    };
    let ((left, right), (low, high)) = (range(|point| point.0), range(|point| point.1));
    let mark = |value: &f64| if *value < 1.0 { value.to_string() } else { format!("{value:.0}") };
    let drawn = || -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::new(path, (760, 420)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .margin_right(40)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d((left..right).log_scale(), (low / 2.0..high * 2.0).log_scale())?;
        chart
            .configure_mesh()
            .x_desc(across)
            .y_desc(upward)
            .light_line_style(WHITE)
            .x_label_formatter(&mark)
            .y_label_formatter(&mark)
            .draw()?;
        for (number, (name, points)) in series.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(4);
            chart
                .draw_series(line)?
                .label(name.clone())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .draw()?;
        area.present()?;
        Ok(())
    };
    drawn().map_err(|error| anyhow!("{error}")).with_context(|| path.display().to_string())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_needs_a_line_of_two_points() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.svg");
        let dot = ("dot".to_owned(), vec![(1.0, 1.0)]);
        assert!(!lines(&path, "t", "x", "y", std::slice::from_ref(&dot)).unwrap());
        let line = ("a line".to_owned(), vec![(1e3, 1.0), (1e5, 2.0)]);
        assert!(lines(&path, "t", "x", "y", &[dot, line]).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("<svg") && text.contains("a line") && !text.contains("dot"), "{text}");
    }
}
