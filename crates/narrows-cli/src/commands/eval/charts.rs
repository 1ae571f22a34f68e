//! The drawings of the report.

use narrows::{Csr, ReshapeSearch, SymbolEncoder, SymbolLayout, best_reshape};

use super::method::{Kind, Method};
use super::state::Point;
use super::subject::AtCut;
use super::{Crossing, Evaluated};
use crate::failure::{Failure, Result};
use crate::output::grouped;
use crate::plot::{
    Axis, BLUE, Bar, Chart, GREEN, GREY, INK, Line, Mark, Note, ORANGE, SKY, Scale, Series, StackedBars,
    VERMILION,
};

const SIZE: (u32, u32) = (760, 430);
/// Points far below the best would press the others together.
const SHOWN_DROP: f64 = 12.0;
/// The largest alphabet of a bare stream.
const MAX_ALPHABET: usize = 256;

/// Accuracy against rate, a line for each method.
pub fn rate_accuracy(evaluated: &Evaluated, top1: f64) -> String {
    let Evaluated { at, points } = evaluated;
    let floor = points.iter().map(|point| point.top1_percent).fold(top1, f64::max) - SHOWN_DROP;
    let shown =
        || points.iter().filter(|point| point.top1_percent >= floor && point.method.kind() != Kind::Exact);
    let x = Axis::around("bits per element", Scale::Log, shown().map(|point| point.bits_per_element));
    let y = Axis::around("top-1 %", Scale::Linear, shown().map(|point| point.top1_percent).chain([top1]));
    let mut series = vec![Series {
        name: "without compression".to_owned(),
        color: INK,
        line: Line::Dashed,
        mark: Mark::Absent,
        points: vec![(x.range.start, top1), (x.range.end, top1)],
    }];
    for &method in Method::ALL.iter().rev().filter(|method| method.kind() != Kind::Exact) {
        let of = shown().filter(|point| point.method == method);
        let places: Vec<_> = of.map(|point| (point.bits_per_element, point.top1_percent)).collect();
        if !places.is_empty() {
            let wide = matches!(method, Method::Profile | Method::Contexts);
            series.push(Series {
                name: method.title().to_owned(),
                color: method.color(),
                line: Line::Solid(if wide { 3 } else { 2 }),
                mark: Mark::Dot(4),
                points: places,
            });
        }
    }
    let best = shown().filter(|point| point.method == Method::Contexts);
    let notes = best.map(|point| Note {
        at: (point.bits_per_element, point.top1_percent),
        offset: (4, 14),
        text: format!("Q={}", point.bits),
        color: Method::Contexts.color(),
    });
    Chart {
        title: format!("Accuracy against rate at {}", at.name),
        subtitle: String::new(),
        size: SIZE,
        x,
        y,
        series,
        notes: notes.collect(),
    }
    .draw()
}

/// Where the time goes, a bar for each method.
pub fn latency(evaluated: &Evaluated, bits: u8, crossing: Crossing) -> String {
    let Evaluated { at, points } = evaluated;
    // Raw elements take so long that nothing else could be seen.
    let shown = points.iter().filter(|point| point.bits == bits && point.method.kind().only_bits().is_none());
    let bar = |point: &Point| Bar {
        name: point.method.title().to_owned(),
        parts: vec![
            at.head_us / 1e3,
            point.encode_us / 1e3,
            crossing.milliseconds(point.bytes_mean),
            point.decode_us / 1e3,
            point.tail_us / 1e3,
        ],
    };
    let names = [("head", GREY), ("encode", ORANGE), ("link", SKY), ("decode", GREEN), ("tail", BLUE)];
    StackedBars {
        title: format!("From input to answer at {}, Q = {bits}", at.name),
        subtitle: "medians on this machine; the link by its model".to_owned(),
        width: SIZE.0,
        unit: "ms".to_owned(),
        parts: names.map(|(name, color)| (name.to_owned(), color)).to_vec(),
        bars: shown.map(bar).collect(),
    }
    .draw()
}

/// The reference layout's cost `T_tot(N)`, and what its symbols take when they are coded.
pub fn reshape(at: &AtCut, bits: u8) -> Result<String> {
    let failed = |error: narrows::Error| Failure::codec("cannot code the features", &error);
    let symbols = symbols(at, bits)?;
    let levels = 1_usize << bits;
    let mut search = ReshapeSearch::new(&symbols, levels);
    let (every, visited) = (search.every_divisor(), search.algorithm_1());
    let kilobytes = |bits: f64| bits / 8e3;
    let curve: Vec<_> =
        every.iter().filter(|v| v.rows > 1).map(|v| (v.rows as f64, kilobytes(v.total_bits))).collect();
    let path: Vec<_> = visited.iter().map(|v| (v.rows as f64, kilobytes(v.total_bits))).collect();
    let (mut csr, mut concatenated, mut stream) = (Csr::default(), Vec::new(), Vec::new());
    let mut measured = Vec::new();
    for visit in every.iter().filter(|visit| visit.columns < MAX_ALPHABET) {
        csr.set(&symbols, visit.rows);
        csr.concatenate(&mut concatenated);
        let alphabet = levels.max(visit.columns + 1);
        let bytes: Vec<u8> = concatenated.iter().map(|&symbol| symbol as u8).collect();
        let layout = SymbolLayout::natural(bytes.len(), alphabet as u16).map_err(failed)?;
        SymbolEncoder::default().encode_into(&bytes, &layout, &mut stream).map_err(failed)?;
        measured.push((visit.rows as f64, kilobytes(8.0 * stream.len() as f64)));
    }
    let contexts = {
        let mut codec = Method::Contexts.codec(bits, None)?;
        let mut frame = Vec::new();
        codec.encode(&at.drawn[0], &mut frame)?;
        kilobytes(8.0 * frame.len() as f64)
    };
    let x = Axis::around("N, rows of the reshaped tensor", Scale::Log, curve.iter().map(|point| point.0));
    let sizes = curve.iter().chain(&measured).map(|point| point.1);
    let y = Axis::around("kB", Scale::Linear, sizes.chain([contexts, 0.0]));
    let level = vec![(x.range.start, contexts), (x.range.end, contexts)];
    let best: Vec<_> =
        best_reshape(&visited).iter().map(|visit| (visit.rows as f64, kilobytes(visit.total_bits))).collect();
    let series =
        |name: &str, color, line, mark, points| Series { name: name.to_owned(), color, line, mark, points };
    Ok(Chart {
        title: format!("The reference layout's reshape dimension at {}, Q = {bits}", at.name),
        subtitle: format!("first input, T = {} elements", grouped(at.elements() as u64)),
        size: SIZE,
        x,
        y,
        series: vec![
            series("T_tot(N), estimated", GREY, Line::Solid(2), Mark::Absent, curve),
            series("coded, measured", INK, Line::Absent, Mark::Ring(4), measured),
            series("visited by Algorithm 1", VERMILION, Line::Solid(3), Mark::Dot(4), path),
            series("", VERMILION, Line::Absent, Mark::Ring(8), best),
            series("narrows, whole frame", BLUE, Line::Dashed, Mark::Absent, level),
        ],
        notes: Vec::new(),
    }
    .draw())
}

/// The symbols of the first input.
fn symbols(at: &AtCut, bits: u8) -> Result<Vec<u8>> {
    let failed = |error: narrows::Error| Failure::codec("cannot code the features", &error);
    let frame = narrows::encode(&at.drawn[0].view(), bits).map_err(failed)?;
    let mut decoder = narrows::Decoder::new();
    decoder.decode(&frame).map_err(failed)?;
    // A constant has no symbols: all of them are the first.
    let symbols = decoder.symbols().to_vec();
    Ok(if symbols.is_empty() { vec![0; at.elements()] } else { symbols })
}

/// How often each value, and each symbol, comes.
pub fn histograms(at: &AtCut, bits: u8) -> Result<[String; 2]> {
    const BINS: usize = 80;
    let values: Vec<f32> =
        at.drawn.iter().flat_map(narrows::Tensor::to_f32).filter(|x| x.is_finite()).collect();
    let (low, high) =
        values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), &x| (a.min(x), b.max(x)));
    let width = f64::from(high - low).max(1e-12) / BINS as f64;
    let mut bins = vec![0_u64; BINS];
    values.iter().for_each(|&x| bins[((f64::from(x - low) / width) as usize).min(BINS - 1)] += 1);
    let total = values.len().max(1) as f64;
    let share = |n: u64| 100.0 * n as f64 / total;
    let places = bins.iter().enumerate().filter(|(_, n)| **n > 0);
    let places: Vec<_> =
        places.map(|(bin, &n)| (f64::from(low) + (bin as f64 + 0.5) * width, share(n))).collect();
    let features = bars(format!("Features at {}", at.name), "value", &places, GREEN, width);
    let mut counts = vec![0_u64; 1 << bits];
    let symbols = symbols(at, bits)?;
    symbols.iter().for_each(|&symbol| counts[usize::from(symbol)] += 1);
    let total = symbols.len().max(1) as f64;
    let places = counts.iter().enumerate().filter(|(_, n)| **n > 0);
    let places: Vec<_> = places.map(|(symbol, &n)| (symbol as f64, 100.0 * n as f64 / total)).collect();
    let symbols = bars(format!("Symbols at {}, Q = {bits}", at.name), "symbol", &places, BLUE, 1.0);
    Ok([features, symbols])
}

/// Shares in percent as upright bars on a logarithmic axis.
fn bars(title: String, what: &str, places: &[(f64, f64)], color: crate::plot::Paint, width: f64) -> String {
    let ends = places.iter().flat_map(|(x, _)| [x - width, x + width]);
    let x = Axis::around(what, Scale::Linear, ends);
    let y = Axis::around("%", Scale::Log, places.iter().map(|place| place.1).chain([100.0]));
    let floor = y.range.start;
    let pixels =
        (f64::from(SIZE.0 / 2 - 110) * width / (x.range.end - x.range.start)).clamp(2.0, 30.0) as u32;
    let bar = |&(x, share): &(f64, f64)| Series {
        name: String::new(),
        color,
        line: Line::Solid(pixels.saturating_sub(1).max(1)),
        mark: Mark::Absent,
        points: vec![(x, floor), (x, share)],
    };
    let series = places.iter().map(bar).collect();
    let size = (SIZE.0 / 2, 300);
    Chart { title, subtitle: String::new(), size, x, y, series, notes: Vec::new() }.draw()
}
