//! Rate against accuracy, drawn: a panel for each cut, a line for each method.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::measure::Row;
use super::method::Method;
use super::{CutSize, Report};
use crate::output::grouped;

/// Pixels.
const PANEL: (u32, u32) = (380, 360);
const HEAD_HEIGHT: u32 = 76;
const LEGEND_WIDTH: u32 = 800;
const MARGIN: u32 = 12;
/// Percentage points that a panel spans at least: less would make much of a single image.
const LEAST_RANGE: f64 = 2.0;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(225, 225, 225);

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T> = Result<T, DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>>;

/// Line colour (from Okabe and Ito's palette, which the colour-blind can tell apart), width and name.
fn style(method: Method) -> (RGBColor, u32, &'static str) {
    match method {
        Method::Raw => (INK, 1, "network in one piece"),
        Method::Packed => (RGBColor(150, 150, 150), 2, "bit packing"),
        Method::Reference => (RGBColor(213, 94, 0), 2, "reference method"),
        Method::Order0 => (RGBColor(86, 180, 233), 2, "order-0 rANS"),
        Method::Default => (RGBColor(0, 114, 178), 3, "narrows default"),
    }
}

/// The drawing as SVG.
pub fn draw(report: &Report) -> String {
    let mut svg = String::new();
    let width = (PANEL.0 * report.cuts.len() as u32).max(LEGEND_WIDTH);
    let size = (width + 2 * MARGIN, HEAD_HEIGHT + PANEL.1 + MARGIN);
    let canvas = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    draw_on(&canvas, report).expect("a string takes all that is written");
    drop(canvas);
    svg
}

fn draw_on(canvas: &Canvas<'_>, report: &Report) -> Drawn<()> {
    canvas.fill(&WHITE)?;
    let (head, body) = canvas.split_vertically(HEAD_HEIGHT);
    draw_head(&head, report)?;
    let body = body.margin(0, MARGIN, MARGIN, MARGIN);
    let rates = report.by_cut().flat_map(|(cut, rows)| {
        rows.iter().filter(|row| row.method != Method::Raw).map(|row| log_rate(row, cut))
    });
    let (slowest, fastest) = span(rates);
    let widths = (slowest - 0.3)..(fastest + 0.3);
    for ((cut, rows), panel) in report.by_cut().zip(body.split_evenly((1, report.cuts.len()))) {
        draw_panel(&panel, report, (cut, rows), widths.clone())?;
    }
    Ok(())
}

fn span(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), x| (least.min(x), most.max(x)))
}

/// log2 of the bits per element.
fn log_rate(row: &Row, cut: &CutSize) -> f64 {
    (8.0 * row.bytes_per_image / cut.elements as f64).log2()
}

/// Title and legend.
fn draw_head(head: &Canvas<'_>, report: &Report) -> Drawn<()> {
    let left = MARGIN as i32 + 8;
    let title = format!(
        "Top-1 against rate: {}, {} image{}",
        report.model,
        grouped(report.images as u64),
        if report.images == 1 { "" } else { "s" }
    );
    head.draw(&Text::new(title, (left, 12), (FONT, 18).into_font().color(&INK)))?;
    let mut x = left;
    for method in [Method::Default, Method::Order0, Method::Reference, Method::Packed, Method::Raw] {
        let (color, width, name) = style(method);
        let y = 56;
        if method == Method::Raw {
            for dash in 0..3 {
                let dash = x + 10 * dash;
                head.draw(&PathElement::new([(dash, y), (dash + 5, y)], color.stroke_width(width)))?;
            }
        } else {
            head.draw(&PathElement::new([(x, y), (x + 24, y)], color.stroke_width(width)))?;
            head.draw(&Circle::new((x + 12, y), 4, color.filled()))?;
        }
        let label = (FONT, 13).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
        head.draw(&Text::new(name, (x + 32, y), label))?;
        // There are no font metrics here; a letter is about 7 pixels wide.
        x += 32 + 7 * name.len() as i32 + 24;
    }
    Ok(())
}

fn draw_panel(
    panel: &Canvas<'_>,
    report: &Report,
    (cut, rows): (&CutSize, &[Row]),
    widths: std::ops::Range<f64>,
) -> Drawn<()> {
    let quantised = || rows.iter().filter(|row| row.method != Method::Raw);
    let (least, most) = span(quantised().map(|row| row.top1).chain([report.unsplit_top1]));
    let range = (most - least).max(LEAST_RANGE);
    // Below the points there is a line of text.
    let heights = (most - 1.14 * range)..(most + 0.06 * range);
    let label = |size: i32| (FONT, size).into_font().color(&INK);
    let height = heights.end - heights.start;
    let decimals = usize::from(height < 4.0);
    let text_line = heights.start + 0.06 * height;
    let mut chart = ChartBuilder::on(panel)
        .caption(format!("{} ({})", cut.name, cut.shape), label(15))
        .margin(6)
        .x_label_area_size(44)
        .y_label_area_size(46)
        .build_cartesian_2d(widths.clone(), heights)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .x_labels((widths.end - widths.start).ceil() as usize)
        .y_labels(8)
        .x_label_formatter(&|log2| format!("{}", log2.exp2()))
        .y_label_formatter(&|percent| format!("{percent:.decimals$}"))
        .x_desc("bits per element")
        .y_desc("top-1 %")
        .label_style(label(12))
        .axis_desc_style(label(13))
        .draw()?;
    let (color, width, _) = style(Method::Raw);
    let unsplit = [(widths.start, report.unsplit_top1), (widths.end, report.unsplit_top1)];
    chart.draw_series(DashedLineSeries::new(unsplit, 5, 5, color.stroke_width(width)))?;
    // The default last, so that it lies on top.
    for method in Method::QUANTISED {
        let (color, width, _) = style(method);
        let of_method = rows.iter().filter(|row| row.method == method);
        let points: Vec<_> = of_method.map(|row| (log_rate(row, cut), row.top1, row.q)).collect();
        let line = points.iter().map(|&(rate, top1, _)| (rate, top1));
        chart.draw_series(LineSeries::new(line.clone(), color.stroke_width(width)))?;
        chart.draw_series(line.map(|point| Circle::new(point, 4, color.filled())))?;
    }
    // The bit widths of the default's points, in a line of their own where nothing else is drawn.
    let (color, ..) = style(Method::Default);
    let below = (FONT, 12).into_font().color(&color).pos(Pos::new(HPos::Center, VPos::Top));
    for row in rows.iter().filter(|row| row.method == Method::Default) {
        let rate = log_rate(row, cut);
        chart.draw_series(DashedLineSeries::new(
            [(rate, row.top1), (rate, text_line)],
            1,
            3,
            color.stroke_width(1),
        ))?;
        let text = if row.q == 2 { "Q=2".to_owned() } else { row.q.to_string() };
        chart.draw_series([Text::new(text, (rate, text_line), below.clone())])?;
    }
    Ok(())
}
