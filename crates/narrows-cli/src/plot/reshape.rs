//! The cost of the reshape dimension, drawn: `T_tot(N)` of the modified CSR against dense layouts.

use std::ops::Range;

use narrows::Visit;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{BLUE, Canvas, Drawn, FAINT, FONT, GREY, INK, Paint, SKY, VERMILION, svg};
use crate::output::grouped;

/// Pixels.
const SIZE: (u32, u32) = (900, 560);
const BAND: Paint = RGBColor(252, 234, 219);
const CURVE: Paint = RGBColor(110, 110, 110);
const ALGORITHM_1: Paint = VERMILION;
const LEVELS: [Paint; 3] = [BLUE, SKY, GREY];

/// What the curve of one tensor shows.
pub struct ReshapeCurve<'a> {
    pub title: String,
    pub subtitle: String,
    /// Every divisor, in descending order of `N`.
    pub every_divisor: &'a [Visit],
    /// What Algorithm 1 looked at, and what it took.
    pub algorithm_1: &'a [Visit],
    pub chosen: Option<Visit>,
    /// Sizes to compare with: a name, and bytes.
    pub levels: Vec<(&'static str, f64)>,
}

impl ReshapeCurve<'_> {
    /// The drawing as SVG.
    pub fn draw(&self) -> String {
        svg(SIZE, |canvas| self.draw_on(canvas))
    }

    fn draw_on(&self, canvas: &Canvas<'_>) -> Drawn<()> {
        let (head, body) = canvas.split_vertically(92);
        self.draw_head(&head)?;
        let (widths, heights) = self.ranges();
        let label = |size: i32| (FONT, size).into_font().color(&INK);
        let mut chart = ChartBuilder::on(&body)
            .margin(8)
            .margin_right(28)
            .x_label_area_size(56)
            .y_label_area_size(78)
            .build_cartesian_2d(widths.clone().log_scale(), heights.clone())?;
        if let (Some(first), Some(last)) = (self.algorithm_1.first(), self.algorithm_1.last()) {
            // Half a step of the log axis beside the outermost points.
            let (from, to) = (last.rows as f64 / 1.12, (first.rows as f64 * 1.12).min(widths.end));
            let corners = [(from, heights.start), (to, heights.end)];
            chart.draw_series([Rectangle::new(corners, BAND.filled())])?;
        }
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(INK)
            .x_labels(8)
            .y_labels(8)
            .x_label_formatter(&|rows| grouped(*rows as u64))
            .y_label_formatter(&|kilobytes| tick(*kilobytes, heights.end))
            .x_desc("N, rows of the reshaped tensor (K = T / N columns)")
            .y_desc("size, kB (1,000 bytes)")
            .label_style(label(14))
            .axis_desc_style(label(15))
            .draw()?;
        // Names side by side, so that lines that lie close do not write over each other.
        for (index, ((name, bytes), color)) in self.levels.iter().zip(LEVELS).enumerate() {
            let size = bytes / 1000.0;
            let line = [(widths.start, size), (widths.end, size)];
            chart.draw_series(DashedLineSeries::new(line, 7, 4, color.stroke_width(2)))?;
            let style = label(13).pos(Pos::new(HPos::Left, VPos::Bottom));
            let offset = (6 + 262 * index as i32, -5);
            let text = Text::new(format!("{name}: {}", kilobytes(*bytes)), offset, style);
            chart.draw_series([EmptyElement::at((widths.start, size)) + text])?;
        }
        let inside = |visits: &[Visit]| -> Vec<(f64, f64)> {
            visits.iter().map(point).filter(|(_, size)| *size <= heights.end).collect()
        };
        let curve = inside(self.every_divisor);
        chart.draw_series(LineSeries::new(curve.iter().copied(), CURVE.stroke_width(2)))?;
        chart.draw_series(curve.iter().map(|&point| Circle::new(point, 3, CURVE.filled())))?;
        let visited = inside(self.algorithm_1);
        chart.draw_series(LineSeries::new(visited.iter().copied(), ALGORITHM_1.stroke_width(3)))?;
        chart.draw_series(visited.iter().map(|&point| Circle::new(point, 4, ALGORITHM_1.filled())))?;
        if let Some(chosen) = &self.chosen {
            // Above the curve, which rises to both sides, and within the drawing.
            let (side, x) = if chosen.columns < 4 { (HPos::Right, 16) } else { (HPos::Center, 0) };
            let style = (FONT, 14).into_font().color(&ALGORITHM_1).pos(Pos::new(side, VPos::Bottom));
            let name = format!("N = {}: {}", grouped(chosen.rows as u64), kilobytes(chosen.total_bits / 8.0));
            let ring = Circle::new((0, 0), 8, ALGORITHM_1.stroke_width(2));
            chart.draw_series([EmptyElement::at(point(chosen)) + ring + Text::new(name, (x, -28), style)])?;
        }
        Ok(())
    }

    /// Title and legend.
    fn draw_head(&self, head: &Canvas<'_>) -> Drawn<()> {
        let label = |size: i32| (FONT, size).into_font().color(&INK);
        head.draw(&Text::new(self.title.as_str(), (20, 14), label(19)))?;
        head.draw(&Text::new(self.subtitle.as_str(), (20, 40), label(14)))?;
        let beside = label(14).pos(Pos::new(HPos::Left, VPos::Center));
        let (mut x, y) = (20, 76);
        for (color, width, name) in [
            (CURVE, 2, "T_tot(N) of every divisor N of T"),
            (ALGORITHM_1, 3, "visited by Algorithm 1, its choice ringed"),
        ] {
            head.draw(&PathElement::new([(x, y), (x + 26, y)], color.stroke_width(width)))?;
            head.draw(&Circle::new((x + 13, y), 4, color.filled()))?;
            head.draw(&Text::new(name, (x + 34, y), beside.clone()))?;
            // There are no font metrics here; a letter is about 7 pixels wide.
            x += 34 + 7 * name.len() as i32 + 26;
        }
        Ok(())
    }

    /// Of both axes: all `N`, and sizes up to a little above what there is to compare.
    fn ranges(&self) -> (Range<f64>, Range<f64>) {
        let rows = |visit: Option<&Visit>| visit.map_or(1.0, |visit| visit.rows as f64);
        let widths = rows(self.every_divisor.last())..rows(self.every_divisor.first()).max(2.0) * 1.15;
        let largest = self.every_divisor.iter().map(|visit| point(visit).1).fold(0.0, f64::max);
        let levels = self.levels.iter().map(|(_, bytes)| bytes / 1000.0).fold(0.0, f64::max);
        (widths, 0.0..1.1 * largest.max(levels).max(1e-3))
    }
}

/// `N` and `T_tot(N)` in kilobytes.
fn point(visit: &Visit) -> (f64, f64) {
    (visit.rows as f64, visit.total_bits / 8000.0)
}

fn kilobytes(bytes: f64) -> String {
    let digits = if bytes < 10_000.0 { 2 } else { 1 };
    format!("{:.digits$} kB", bytes / 1000.0)
}

/// A label of an axis that ends at `end`.
fn tick(value: f64, end: f64) -> String {
    let digits = match end {
        ..0.5 => 3,
        ..5.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}
