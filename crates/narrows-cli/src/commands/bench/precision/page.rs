//! The tables as one HTML page that needs nothing else.

use std::collections::BTreeMap;

use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};
use serde::Serialize;

use super::coders::Comparison;
use super::runs::{BINS, Family, Result as Row, Results};
use crate::failure::{Failure, Result};
use crate::plot::{Axis, BLUE, Chart, GREEN, GREY, Line, Mark, Paint, Scale, Series, VERMILION};

const TEMPLATE: &str = include_str!("report.html");
const SIZE: (u32, u32) = (900, 520);

/// Runs that differ by their seed.
#[derive(Serialize)]
struct Kind {
    title: String,
    runs: usize,
    bits: Option<Cell>,
    entropy: Option<Cell>,
    accuracy: Option<Cell>,
    /// Points from float32 of the same seeds.
    drop: Option<String>,
}

/// A mean, and between what it lies if there is more than one value.
#[derive(Serialize)]
struct Cell {
    mean: String,
    range: Option<String>,
}

/// Mean, least and greatest.
#[derive(Clone, Copy)]
struct Spread {
    mean: f64,
    low: f64,
    high: f64,
}

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let low = values.iter().copied().reduce(f64::min)?;
        Some(Self { mean, low, high: values.iter().copied().reduce(f64::max)? })
    }

    fn cell(self, decimals: usize) -> Cell {
        let Self { mean, low, high } = self;
        let [mean, low, high] = [mean, low, high].map(|value| format!("{value:.decimals$}"));
        // What is the same in print is no range.
        let range = (low != high).then(|| format!("{low}–{high}"));
        Cell { mean, range }
    }
}

pub fn render(results: &Results, coders: Option<&Comparison>) -> Result<String> {
    let failed = |error: minijinja::Error| Failure::data("cannot write the report").because(error);
    let mut environment = Environment::new();
    environment.add_template("report.html", TEMPLATE).map_err(failed)?;
    let kinds = |family| kinds(results, family);
    let bins: Vec<_> = BINS
        .iter()
        .map(|&bins| {
            let of = |family| kinds_of(results, family, f64::from(bins));
            (bins, of(Family::Fixed), of(Family::Priced))
        })
        .collect();
    let allocated: Vec<Kind> =
        [Family::Float, Family::Fisher, Family::Entropy].into_iter().flat_map(kinds).collect();
    let page = context! {
        epochs => results.epochs,
        images => results.images,
        bins => Value::from(Serde(&bins)),
        allocated => Value::from(Serde(&allocated)),
        chart => chart(results),
        coders => Value::from(Serde(&coders)),
        version => env!("CARGO_PKG_VERSION"),
    };
    environment.get_template("report.html").and_then(|template| template.render(page)).map_err(failed)
}

fn kinds(results: &Results, family: Family) -> Vec<Kind> {
    let mut values: Vec<f64> = of(results, family).map(|row| row.run.value).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    values.into_iter().filter_map(|value| kinds_of(results, family, value)).collect()
}

fn of(results: &Results, family: Family) -> impl Iterator<Item = &Row> {
    results.rows.iter().filter(move |row| row.run.family == family)
}

fn kinds_of(results: &Results, family: Family, value: f64) -> Option<Kind> {
    let rows: Vec<&Row> = of(results, family).filter(|row| row.run.value == value).collect();
    let floats: BTreeMap<u64, f64> =
        of(results, Family::Float).map(|row| (row.run.seed, row.accuracy_percent)).collect();
    let drops = rows.iter().filter_map(|row| Some(row.accuracy_percent - floats.get(&row.run.seed)?));
    let drop = Spread::of(drops).filter(|_| family != Family::Float);
    let cell = |values: Option<Spread>, decimals| values.map(|spread| spread.cell(decimals));
    Some(Kind {
        title: rows.first()?.run.title(),
        runs: rows.len(),
        bits: cell(Spread::of(rows.iter().filter_map(|row| row.bits_per_weight)), 3),
        entropy: cell(Spread::of(rows.iter().filter_map(|row| row.entropy_per_weight)), 3),
        accuracy: cell(Spread::of(rows.iter().map(|row| row.accuracy_percent)), 2),
        drop: drop.map(|drop| format!("{:+.2}", drop.mean)),
    })
}

/// Accuracy against bits a weight; every run is a dot.
fn chart(results: &Results) -> String {
    let points = |family| -> Vec<(f64, f64)> {
        let found = of(results, family).filter_map(|row| Some((row.bits_per_weight?, row.accuracy_percent)));
        let mut found: Vec<_> = found.collect();
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        found
    };
    let dots = |name: &str, color: Paint, family| Series {
        name: name.to_owned(),
        color,
        line: Line::Absent,
        mark: Mark::Dot(4),
        points: points(family),
    };
    let mut series = vec![
        dots("fixed bins", GREY, Family::Fixed),
        dots("Fisher, not trained", GREEN, Family::Fisher),
        dots("trained to a rate", BLUE, Family::Entropy),
    ];
    let all: Vec<(f64, f64)> = series.iter().flat_map(|series| series.points.clone()).collect();
    let float = Spread::of(of(results, Family::Float).map(|row| row.accuracy_percent));
    // Networks that no longer work would press the others together.
    let floor = float.map_or(0.0, |float| float.mean - 10.0);
    let heights =
        all.iter().map(|point| point.1).chain(float.map(|float| float.mean)).filter(|&y| y >= floor);
    let x = Axis::around("bits a weight, everything counted", Scale::Log, all.iter().map(|point| point.0));
    let y = Axis::around("top-1, %", Scale::Linear, heights);
    if let Some(float) = float {
        let points = [x.range.start, x.range.end].map(|bits| (bits, float.mean)).to_vec();
        let name = "float32, trained as long".to_owned();
        series.push(Series { name, color: VERMILION, line: Line::Dashed, mark: Mark::Absent, points });
    }
    series.iter_mut().for_each(|series| series.points.retain(|point| point.1 >= floor));
    let title = "Accuracy against rate".to_owned();
    Chart { title, subtitle: "a dot for each run".to_owned(), size: SIZE, x, y, series, notes: Vec::new() }
        .draw()
}
