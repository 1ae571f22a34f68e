//! Latency against rate, and where the best way changes.

use super::DRAWN_RATES;
use super::ways::{Segment, Way};
use crate::evaluate::rate_in_words;
use crate::plot::{Axis, Chart, GREY, INK, Line, Mark, Note, PALETTE, Scale, Series, plain};

/// Points of a line.
const POINTS: usize = 160;

pub fn draw(model: &str, ways: &[Way], segments: &[Segment], round_trip: f64, rate: f64) -> String {
    let corners: Vec<f64> = segments.iter().map(|segment| segment.from).filter(|&rate| rate > 0.0).collect();
    let low = corners.iter().copied().chain([rate]).fold(DRAWN_RATES.0 * 100.0, f64::min) / 10.0;
    let high = corners.iter().copied().chain([rate]).fold(DRAWN_RATES.1 / 100.0, f64::max) * 10.0;
    let (low, high) = (low.max(1.0), high.min(1e12));
    let rates: Vec<f64> = (0..=POINTS).map(|n| low * (high / low).powf(n as f64 / POINTS as f64)).collect();
    let line = |way: &Way| -> Vec<(f64, f64)> {
        rates.iter().map(|&rate| (rate, way.latency(rate, round_trip) * 1e3)).collect()
    };
    let best =
        |rate: f64| ways.iter().map(|way| way.latency(rate, round_trip)).fold(f64::INFINITY, f64::min) * 1e3;
    let x = Axis::around("rate of the link, bit/s", Scale::Log, rates.iter().copied()).over(low..high);
    let x = x.with_format(|rate| rate_in_words(rate).replace(".0 ", " "));
    let lowest = rates.iter().map(|&rate| best(rate)).fold(f64::INFINITY, f64::min);
    let top = best(low) * 4.0;
    let y = Axis::around("latency, ms", Scale::Log, [lowest * 0.8, top]).with_format(plain);
    let on_envelope = |index: usize| segments.iter().position(|segment| segment.way == index);
    let mut series = Vec::new();
    for (index, way) in ways.iter().enumerate().filter(|(index, _)| on_envelope(*index).is_none()) {
        let name = if index + 1 == ways.len() { "other ways" } else { "" };
        series.push(thin(name, &line(way), y.range.end));
    }
    if let Some(first) = series.first_mut() {
        "other ways".clone_into(&mut first.name);
        series.iter_mut().skip(1).for_each(|series| series.name.clear());
    }
    for (nth, segment) in segments.iter().enumerate() {
        let way = &ways[segment.way];
        let color = PALETTE[nth % PALETTE.len()];
        let all = line(way);
        series.push(Series { color, ..thin("", &all, y.range.end) });
        let held: Vec<(f64, f64)> = all.into_iter().filter(|(rate, _)| segment.holds(*rate)).collect();
        let ends = [segment.from, segment.to].into_iter().filter(|end| (low..high).contains(end));
        let mut points: Vec<_> = held.into_iter().chain(ends.map(|rate| (rate, best(rate)))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        series.push(Series { name: way.in_words(), color, line: Line::Solid(4), mark: Mark::Absent, points });
    }
    let here = vec![(rate, y.range.start), (rate, y.range.end)];
    series.push(Series {
        name: String::new(),
        color: INK,
        line: Line::Dashed,
        mark: Mark::Absent,
        points: here,
    });
    let mut notes: Vec<Note> = corners
        .iter()
        .map(|&corner| Note {
            at: (corner, best(corner)),
            offset: (8, -12),
            text: rate_in_words(corner),
            color: INK,
        })
        .collect();
    let text = format!("asked: {}", rate_in_words(rate));
    notes.push(Note { at: (rate, y.range.end), offset: (6, 12), text, color: INK });
    Chart {
        title: format!("Where to cut {model}"),
        subtitle: format!("round trip {} ms; thick: the fastest way at each rate", plain(round_trip * 1e3)),
        size: (960, 620),
        x,
        y,
        series,
        notes,
    }
    .draw()
}

/// What lies above the drawing is left out.
fn thin(name: &str, points: &[(f64, f64)], top: f64) -> Series {
    let points = points.iter().copied().filter(|(_, latency)| *latency <= top).collect();
    Series { name: name.to_owned(), color: GREY, line: Line::Solid(1), mark: Mark::Absent, points }
}
