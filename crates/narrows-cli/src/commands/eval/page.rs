//! The report as one HTML page that needs nothing else.

use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};
use serde::Serialize;

use super::method::Method;
use super::state::Point;
use super::subject::Subject;
use super::{Crossing, Evaluated, charts};
use crate::evaluate::rate_in_words;
use crate::failure::{Failure, Result};
use crate::output::grouped;
use crate::plot::plain;

const TEMPLATE: &str = include_str!("report.html");
/// The bit width of the drawings that show one.
const SHOWN_BITS: u8 = 4;
/// Points of top-1 that may be lost when methods are compared at the same accuracy.
const SAME: f64 = 0.5;

#[derive(Serialize)]
struct Section {
    cut: String,
    shape: String,
    raw_bytes: String,
    head_ms: String,
    /// At the same accuracy: the smallest of narrows and of the reference method, and what they are to each other.
    ours: Option<Choice>,
    theirs: Option<Choice>,
    ratio: Option<String>,
    rows: Vec<Row>,
    rate_accuracy: String,
    latency: String,
    reshape: String,
    features: String,
    symbols: String,
}

#[derive(Serialize)]
struct Choice {
    bytes: String,
    how: String,
    drop: String,
}

#[derive(Serialize)]
struct Row {
    method: &'static str,
    key: &'static str,
    bits: u8,
    bytes: String,
    high: String,
    rate: String,
    top1: String,
    drop: String,
    encode: String,
    link: String,
    decode: String,
    tail: String,
    total: String,
}

pub fn render(subject: &Subject, evaluated: &[Evaluated], crossing: Crossing) -> Result<String> {
    let sections: Vec<Section> =
        evaluated.iter().map(|evaluated| section(evaluated, subject, crossing)).collect::<Result<_>>()?;
    let failed = |error: minijinja::Error| Failure::data("cannot write the report").because(error);
    let mut environment = Environment::new();
    environment.add_template("report.html", TEMPLATE).map_err(failed)?;
    let template = environment.get_template("report.html").map_err(failed)?;
    let page = context! {
        model => subject.name.clone(),
        inputs => grouped(subject.inputs() as u64),
        labelled => subject.labelled,
        top1 => format!("{:.2}", subject.top1()),
        rate => rate_in_words(crossing.rate),
        round_trip => plain(crossing.round_trip * 1e3),
        same => SAME,
        version => env!("CARGO_PKG_VERSION"),
        sections => Value::from(Serde(&sections)),
    };
    template.render(page).map_err(failed)
}

fn section(evaluated: &Evaluated, subject: &Subject, crossing: Crossing) -> Result<Section> {
    let Evaluated { at, points } = evaluated;
    let top1 = subject.top1();
    let bits = points.iter().filter(|point| point.bits <= 8).map(|point| point.bits);
    let shown = bits.min_by_key(|bits| bits.abs_diff(SHOWN_BITS)).unwrap_or(SHOWN_BITS);
    let smallest = |methods: &[Method]| {
        let same = points
            .iter()
            .filter(|point| methods.contains(&point.method) && top1 - point.top1_percent <= SAME + 1e-9);
        same.min_by(|a, b| a.bytes_mean.total_cmp(&b.bytes_mean))
    };
    let (ours, theirs) = (smallest(&[Method::Profile, Method::Contexts]), smallest(&[Method::Reference]));
    let ratio = ours.zip(theirs).map(|(ours, theirs)| format!("{:.2}", ours.bytes_mean / theirs.bytes_mean));
    let choice = |point: &Point| Choice {
        bytes: grouped(point.bytes_mean.round() as u64),
        how: format!("{}, Q = {}", point.method.title(), point.bits),
        drop: format!("{:+.2}", point.top1_percent - top1),
    };
    let [features, symbols] = charts::histograms(at, shown)?;
    Ok(Section {
        cut: at.name.clone(),
        shape: at.dims().iter().map(ToString::to_string).collect::<Vec<_>>().join(" × "),
        raw_bytes: grouped(4 * at.elements() as u64),
        head_ms: format!("{:.2}", at.head_us / 1e3),
        ours: ours.map(choice),
        theirs: theirs.map(choice),
        ratio,
        rows: points.iter().map(|point| row(point, at.head_us, top1, crossing)).collect(),
        rate_accuracy: charts::rate_accuracy(evaluated, top1),
        latency: charts::latency(evaluated, shown, crossing),
        reshape: charts::reshape(at, shown)?,
        features,
        symbols,
    })
}

fn row(point: &Point, head_us: f64, top1: f64, crossing: Crossing) -> Row {
    let link = crossing.milliseconds(point.bytes_mean);
    let total = link + (head_us + point.encode_us + point.decode_us + point.tail_us) / 1e3;
    Row {
        method: point.method.title(),
        key: point.method.name(),
        bits: point.bits,
        bytes: grouped(point.bytes_mean.round() as u64),
        high: grouped(u64::from(point.bytes_high)),
        rate: format!("{:.3}", point.bits_per_element),
        top1: format!("{:.2}", point.top1_percent),
        drop: format!("{:+.2}", point.top1_percent - top1),
        encode: format!("{:.0}", point.encode_us),
        link: format!("{link:.1}"),
        decode: format!("{:.0}", point.decode_us),
        tail: format!("{:.0}", point.tail_us),
        total: format!("{total:.1}"),
    }
}
