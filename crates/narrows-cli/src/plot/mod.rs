//! Drawings, as SVG.

mod bars;
mod chart;
mod reshape;
mod scale;

pub use bars::{Bar, StackedBars};
pub use chart::{Chart, Line, Mark, Note, Series};
pub use reshape::ReshapeCurve;
pub use scale::{Axis, Scale, plain};

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub type Paint = RGBColor;
type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T> = Result<T, DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>>;

const FONT: &str = "sans-serif";
pub const INK: Paint = RGBColor(40, 40, 40);
pub const FAINT: Paint = RGBColor(225, 225, 225);
pub const GREY: Paint = RGBColor(150, 150, 150);
// Okabe and Ito's palette, which the colour-blind can tell apart.
pub const BLUE: Paint = RGBColor(0, 114, 178);
pub const SKY: Paint = RGBColor(86, 180, 233);
pub const VERMILION: Paint = RGBColor(213, 94, 0);
pub const ORANGE: Paint = RGBColor(230, 159, 0);
pub const GREEN: Paint = RGBColor(0, 158, 115);
pub const PURPLE: Paint = RGBColor(204, 121, 167);
/// One after the other for what has no colour of its own.
pub const PALETTE: [Paint; 7] = [BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GREY];

/// There are no font metrics here; a letter is about this wide for each pixel of its size.
const LETTER: f64 = 0.56;
/// Height of one line of a legend, in pixels.
const LEGEND_LINE: i32 = 22;
const LEFT: i32 = 20;

/// Text of this size in pixels.
fn text(size: i32, color: Paint) -> TextStyle<'static> {
    (FONT, size).into_font().color(&color)
}

fn placed(size: i32, color: Paint, side: HPos, height: VPos) -> TextStyle<'static> {
    text(size, color).pos(Pos::new(side, height))
}

/// Draw on a white canvas of this many pixels.
fn svg(size: (u32, u32), draw: impl FnOnce(&Canvas<'_>) -> Drawn<()>) -> String {
    let mut svg = String::new();
    let canvas = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    canvas.fill(&WHITE).and_then(|()| draw(&canvas)).expect("a string takes all that is written");
    drop(canvas);
    svg
}

/// Drawings of one size beside and below each other, in one.
pub fn grid(drawings: &[String], columns: usize, (width, height): (u32, u32)) -> String {
    let columns = columns.clamp(1, drawings.len().max(1)) as u32;
    let rows = (drawings.len() as u32).div_ceil(columns);
    let (whole_width, whole_height) = (columns * width, rows * height);
    let mut svg = format!(
        "<svg width=\"{whole_width}\" height=\"{whole_height}\" viewBox=\"0 0 {whole_width} {whole_height}\" \
         xmlns=\"http://www.w3.org/2000/svg\">\n"
    );
    for (index, drawing) in drawings.iter().enumerate() {
        let (x, y) = (index as u32 % columns * width, index as u32 / columns * height);
        svg += &drawing.replacen("<svg ", &format!("<svg x=\"{x}\" y=\"{y}\" "), 1);
    }
    svg + "</svg>\n"
}

/// Title, subtitle and legend at the top of a drawing.
struct Head<'a> {
    title: &'a str,
    subtitle: &'a str,
    legend: Vec<(&'a str, Paint, Symbol)>,
}

/// What stands for a series in the legend.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Symbol {
    Line,
    Dashes,
    Dot,
    LineAndDot,
    Square,
}

impl Head<'_> {
    /// Where each entry of the legend goes, in a drawing this wide, and the height of all.
    fn places(&self, width: u32) -> (Vec<(i32, i32)>, u32) {
        let top = if self.subtitle.is_empty() { 50 } else { 74 };
        let (mut x, mut y) = (LEFT, top);
        let mut places = Vec::new();
        for (name, ..) in &self.legend {
            let needed = 34 + (name.chars().count() as f64 * 13.0 * LETTER) as i32 + 22;
            if x > LEFT && x + needed > width as i32 {
                (x, y) = (LEFT, y + LEGEND_LINE);
            }
            places.push((x, y));
            x += needed;
        }
        let bottom = if self.legend.is_empty() { top - 14 } else { y + 14 };
        (places, bottom as u32)
    }

    fn draw(&self, canvas: &Canvas<'_>, width: u32) -> Drawn<()> {
        canvas.draw(&Text::new(self.title, (LEFT, 12), text(18, INK)))?;
        canvas.draw(&Text::new(self.subtitle, (LEFT, 38), text(13, INK)))?;
        let (places, _) = self.places(width);
        for (&(name, color, symbol), (x, y)) in self.legend.iter().zip(places) {
            match symbol {
                Symbol::Line | Symbol::LineAndDot => {
                    canvas.draw(&PathElement::new([(x, y), (x + 26, y)], color.stroke_width(3)))?;
                }
                Symbol::Dashes => {
                    for dash in 0..3 {
                        let from = x + 10 * dash;
                        canvas.draw(&PathElement::new([(from, y), (from + 6, y)], color.stroke_width(2)))?;
                    }
                }
                Symbol::Square => {
                    canvas.draw(&Rectangle::new([(x + 8, y - 6), (x + 22, y + 6)], color.filled()))?;
                }
                Symbol::Dot => {}
            }
            if matches!(symbol, Symbol::Dot | Symbol::LineAndDot) {
                canvas.draw(&Circle::new((x + 13, y), 4, color.filled()))?;
            }
            canvas.draw(&Text::new(name, (x + 34, y), placed(13, INK, HPos::Left, VPos::Center)))?;
        }
        Ok(())
    }
}
