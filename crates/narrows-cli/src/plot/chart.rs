//! Lines and points over two axes.

use plotters::chart::ChartContext;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::scale::{Axis, Scale};
use super::{Canvas, Drawn, FAINT, Head, INK, Paint, Symbol, placed, svg};

type Plane<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// How the points of a series are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Absent,
    /// Of this many pixels.
    Solid(u32),
    Dashed,
    /// Level between points, as a value that holds until the next.
    Steps(u32),
}

/// What marks the points of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Absent,
    Dot(u32),
    Ring(u32),
}

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend; none if empty.
    pub name: String,
    pub color: Paint,
    pub line: Line,
    pub mark: Mark,
    pub points: Vec<(f64, f64)>,
}

/// A few words at a point.
#[derive(Clone, Debug)]
pub struct Note {
    pub at: (f64, f64),
    /// Pixels to the right and down from there.
    pub offset: (i32, i32),
    pub text: String,
    pub color: Paint,
}

/// A drawing of series over two axes.
pub struct Chart {
    pub title: String,
    pub subtitle: String,
    /// Pixels.
    pub size: (u32, u32),
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    pub notes: Vec<Note>,
}

impl Chart {
    /// The drawing as SVG.
    pub fn draw(&self) -> String {
        svg(self.size, |canvas| self.draw_on(canvas))
    }

    fn head(&self) -> Head<'_> {
        let named = self.series.iter().filter(|series| !series.name.is_empty());
        let legend = named.map(|series| (series.name.as_str(), series.color, series.symbol()));
        Head { title: &self.title, subtitle: &self.subtitle, legend: legend.collect() }
    }

    fn draw_on(&self, canvas: &Canvas<'_>) -> Drawn<()> {
        let head = self.head();
        let (_, height) = head.places(self.size.0);
        let (above, body) = canvas.split_vertically(height);
        head.draw(&above, self.size.0)?;
        let mut plane = ChartBuilder::on(&body)
            .margin(8)
            .margin_right(26)
            .x_label_area_size(50)
            .y_label_area_size(72)
            .build_cartesian_2d(self.x.span(), self.y.span())?;
        self.draw_axes(&mut plane, body.dim_in_pixel())?;
        for series in &self.series {
            self.draw_series(&mut plane, series)?;
        }
        for note in &self.notes {
            let place = (self.x.place(note.at.0), self.y.place(note.at.1));
            let side = if note.offset.0 < 0 { HPos::Right } else { HPos::Left };
            let style = placed(12, note.color, side, VPos::Center);
            let words = EmptyElement::at(place) + Text::new(note.text.clone(), note.offset, style);
            plane.draw_series([words])?;
        }
        Ok(())
    }

    /// Grid, ticks and names. The library's own ticks know no round numbers on a logarithmic axis.
    fn draw_axes(&self, plane: &mut Plane<'_, '_>, (width, height): (u32, u32)) -> Drawn<()> {
        plane
            .configure_mesh()
            .disable_mesh()
            .axis_style(INK)
            .x_labels(0)
            .y_labels(0)
            .x_desc(self.x.name.as_str())
            .y_desc(self.y.name.as_str())
            .axis_desc_style(placed(14, INK, HPos::Center, VPos::Center))
            .draw()?;
        let (xs, ys) = (self.x.span(), self.y.span());
        for tick in self.x.ticks((width / 90) as usize) {
            let at = self.x.place(tick);
            plane.draw_series([PathElement::new([(at, ys.start), (at, ys.end)], FAINT)])?;
            let label = Text::new((self.x.format)(tick), (0, 8), placed(12, INK, HPos::Center, VPos::Top));
            plane.plotting_area().draw(&(EmptyElement::at((at, ys.start)) + label))?;
        }
        for tick in self.y.ticks((height / 50) as usize) {
            let at = self.y.place(tick);
            plane.draw_series([PathElement::new([(xs.start, at), (xs.end, at)], FAINT)])?;
            let label = Text::new((self.y.format)(tick), (-8, 0), placed(12, INK, HPos::Right, VPos::Center));
            plane.plotting_area().draw(&(EmptyElement::at((xs.start, at)) + label))?;
        }
        Ok(())
    }

    fn draw_series(&self, plane: &mut Plane<'_, '_>, series: &Series) -> Drawn<()> {
        let color = series.color;
        let inside = |&&(x, y): &&(f64, f64)| {
            let positive =
                (self.x.scale == Scale::Linear || x > 0.0) && (self.y.scale == Scale::Linear || y > 0.0);
            x.is_finite() && y.is_finite() && positive
        };
        let points: Vec<_> = series.points.iter().filter(inside).collect();
        let points: Vec<_> = points.into_iter().map(|&(x, y)| (self.x.place(x), self.y.place(y))).collect();
        match series.line {
            Line::Absent => {}
            Line::Solid(width) => {
                plane.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(width)))?;
            }
            Line::Dashed => {
                let style = color.stroke_width(2);
                plane.draw_series(DashedLineSeries::new(points.iter().copied(), 6, 4, style))?;
            }
            Line::Steps(width) => {
                let corners = points.windows(2).flat_map(|pair| [pair[0], (pair[1].0, pair[0].1)]);
                let corners = corners.chain(points.last().copied());
                plane.draw_series(LineSeries::new(corners, color.stroke_width(width)))?;
            }
        }
        let (radius, style) = match series.mark {
            Mark::Absent => return Ok(()),
            Mark::Dot(radius) => (radius, color.filled()),
            Mark::Ring(radius) => (radius, color.stroke_width(2)),
        };
        plane.draw_series(points.iter().map(|&point| Circle::new(point, radius, style)))?;
        Ok(())
    }
}

impl Series {
    fn symbol(&self) -> Symbol {
        match (self.line, self.mark) {
            (Line::Absent, _) => Symbol::Dot,
            (Line::Dashed, _) => Symbol::Dashes,
            (_, Mark::Absent) => Symbol::Line,
            _ => Symbol::LineAndDot,
        }
    }
}
