//! Bars made of parts: where time goes.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::scale::{Axis, Scale};
use super::{Canvas, Drawn, FAINT, Head, INK, Paint, Symbol, placed, svg};

/// One bar, from left to right.
#[derive(Clone, Debug)]
pub struct Bar {
    pub name: String,
    /// As long as the names of the parts, in the same order.
    pub parts: Vec<f64>,
}

/// Horizontal bars of the same parts, below each other.
pub struct StackedBars {
    pub title: String,
    pub subtitle: String,
    /// Pixels.
    pub width: u32,
    /// What the lengths are.
    pub unit: String,
    pub parts: Vec<(String, Paint)>,
    pub bars: Vec<Bar>,
}

const BAR: i32 = 16;
const PITCH: i32 = 24;
const NAMES: i32 = 190;
const TOTALS: i32 = 76;

impl StackedBars {
    /// The drawing as SVG.
    pub fn draw(&self) -> String {
        let legend = self.parts.iter().map(|(name, color)| (name.as_str(), *color, Symbol::Square)).collect();
        let head = Head { title: &self.title, subtitle: &self.subtitle, legend };
        let (_, top) = head.places(self.width);
        let height = top + 14 + (PITCH * self.bars.len() as i32) as u32 + 48;
        svg((self.width, height), |canvas| {
            head.draw(canvas, self.width)?;
            self.draw_bars(canvas, top as i32 + 14)
        })
    }

    fn draw_bars(&self, canvas: &Canvas<'_>, top: i32) -> Drawn<()> {
        let longest = self.bars.iter().map(Bar::total).fold(0.0, f64::max).max(1e-12);
        let axis = Axis::around(&self.unit, Scale::Linear, [0.0, longest]).over(0.0..longest);
        let pixels = f64::from(self.width as i32 - NAMES - TOTALS) / longest;
        let bottom = top + PITCH * self.bars.len() as i32;
        for tick in axis.ticks(7) {
            let x = NAMES + (tick * pixels) as i32;
            canvas.draw(&PathElement::new([(x, top - 6), (x, bottom)], FAINT))?;
            let style = placed(12, INK, HPos::Center, VPos::Top);
            canvas.draw(&Text::new((axis.format)(tick), (x, bottom + 5), style))?;
        }
        let middle = (NAMES + self.width as i32 - TOTALS) / 2;
        let style = placed(13, INK, HPos::Center, VPos::Top);
        canvas.draw(&Text::new(self.unit.as_str(), (middle, bottom + 24), style))?;
        for (index, bar) in self.bars.iter().enumerate() {
            let y = top + PITCH * index as i32;
            let style = placed(12, INK, HPos::Right, VPos::Center);
            canvas.draw(&Text::new(bar.name.as_str(), (NAMES - 8, y + BAR / 2), style))?;
            let mut sum = 0.0;
            for (part, (_, color)) in bar.parts.iter().zip(&self.parts) {
                let (from, to) = (sum * pixels, (sum + part) * pixels);
                let corners = [(NAMES + from as i32, y), (NAMES + to as i32, y + BAR)];
                canvas.draw(&Rectangle::new(corners, color.filled()))?;
                sum += part;
            }
            let style = placed(12, INK, HPos::Left, VPos::Center);
            let end = (NAMES + (sum * pixels) as i32 + 6, y + BAR / 2);
            canvas.draw(&Text::new(format!("{sum:.1}"), end, style))?;
        }
        Ok(())
    }
}

impl Bar {
    fn total(&self) -> f64 {
        self.parts.iter().sum()
    }
}
