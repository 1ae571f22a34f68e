//! A training over time: loss, accuracy, bits and step of each layer.

use narrows_train::{Curve, Point};

use crate::plot::{Axis, BLUE, Chart, GREY, Line, Mark, PALETTE, Paint, Scale, Series, VERMILION, grid};

const PANEL: (u32, u32) = (620, 400);

/// Four panels; `original` is the accuracy of the network before training, in percent.
pub fn draw(curve: &Curve, original: f64) -> String {
    let points = &curve.points;
    let loss = line("", BLUE, points.iter().map(|point| (point.epoch, point.loss)));
    let accuracy = points.iter().filter_map(|point| Some((point.epoch, point.accuracy?)));
    let accuracy = Series { mark: Mark::Dot(4), ..line("held out", BLUE, accuracy) };
    let span = [0.0, points.last().map_or(1.0, |point| point.epoch)].map(|epoch| (epoch, original));
    let before = Series { line: Line::Dashed, ..line("before training, test images", GREY, span) };
    let mut panels = vec![
        panel("Loss", "mean since the point before", Scale::Linear, vec![loss]),
        panel("Accuracy", "%", Scale::Linear, vec![accuracy, before]),
    ];
    if points.iter().any(|point| point.rate.is_some()) {
        let whole = points.iter().filter_map(|point| Some((point.epoch, point.rate?.bits_per_weight())));
        let whole = Series { line: Line::Solid(4), ..line("everything", VERMILION, whole) };
        let bits = layers(points, |layer| layer.bits).chain([whole]).collect();
        panels.push(panel("Rate", "bits a weight", Scale::Log, bits));
        panels.push(panel("Step", "", Scale::Log, layers(points, |layer| f64::from(layer.step)).collect()));
    }
    grid(&panels, 2, PANEL)
}

fn layers(
    points: &[Point],
    value: impl Fn(&narrows_train::LayerPoint) -> f64,
) -> impl Iterator<Item = Series> {
    let count = points.iter().map(|point| point.layers.len()).max().unwrap_or(0);
    (0..count).map(move |layer| {
        let found = points.iter().filter_map(|point| Some((point.epoch, point.layers.get(layer)?)));
        let found: Vec<_> = found.collect();
        let name = found.first().map_or("", |(_, layer)| layer.name.as_str());
        line(name, PALETTE[layer % PALETTE.len()], found.iter().map(|(epoch, layer)| (*epoch, value(layer))))
    })
}

fn line(name: &str, color: Paint, points: impl IntoIterator<Item = (f64, f64)>) -> Series {
    let points = points.into_iter().collect();
    Series { name: name.to_owned(), color, line: Line::Solid(2), mark: Mark::Absent, points }
}

fn panel(title: &str, unit: &str, scale: Scale, series: Vec<Series>) -> String {
    let all = || series.iter().flat_map(|series| series.points.iter().copied());
    Chart {
        title: title.to_owned(),
        subtitle: String::new(),
        size: PANEL,
        x: Axis::around("epoch", Scale::Linear, all().map(|point| point.0)),
        y: Axis::around(unit, scale, all().map(|point| point.1)),
        series,
        notes: Vec::new(),
    }
    .draw()
}
