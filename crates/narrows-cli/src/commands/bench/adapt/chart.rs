//! Misses against accuracy for each kind of link, and one link as the controller took it.

use super::OnTrace;
use super::candidates::Candidates;
use crate::evaluate::adaptation::Record;
use crate::plot::{Axis, BLUE, Chart, GREEN, GREY, Line, Mark, Scale, Series, VERMILION, grid};

const PANEL: (u32, u32) = (560, 360);
/// Seconds of a link that are shown.
const SHOWN: f64 = 60.0;

pub fn draw(results: &[OnTrace], candidates: &Candidates) -> String {
    let panels = results.iter().flat_map(|result| [scatter(result), over_time(result, candidates)]);
    grid(&panels.collect::<Vec<_>>(), 2, PANEL)
}

fn scatter(result: &OnTrace) -> String {
    let place = |compared: &super::Compared| (compared.misses_percent, compared.accuracy_percent);
    let mut fixed: Vec<_> = result.fixed.iter().map(|fixed| place(&fixed.outcome)).collect();
    fixed.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (controller, foresight) = (place(&result.controller), place(&result.foresight));
    let all = || fixed.iter().copied().chain([controller, foresight]);
    // Settings that are far off would press the others together.
    let floor = controller.1.min(foresight.1) - 8.0;
    let x = Axis::around("missed deadlines, %", Scale::Linear, all().map(|point| point.0).chain([0.0]));
    let y = Axis::around(
        "accuracy of the answers in time, %",
        Scale::Linear,
        all().map(|p| p.1).filter(|&y| y > floor),
    );
    fixed.retain(|point| point.1 > floor);
    let series = |name: &str, color, mark, points| Series {
        name: name.to_owned(),
        color,
        line: Line::Absent,
        mark,
        points,
    };
    Chart {
        title: result.link.clone(),
        subtitle: String::new(),
        size: PANEL,
        x,
        y,
        series: vec![
            series("fixed settings", GREY, Mark::Dot(4), fixed),
            series("foresight", GREEN, Mark::Ring(6), vec![foresight]),
            series("controller", BLUE, Mark::Dot(6), vec![controller]),
        ],
        notes: Vec::new(),
    }
    .draw()
}

fn over_time(result: &OnTrace, candidates: &Candidates) -> String {
    let (trace, records) = &result.shown;
    let records: Vec<&Record> = records.iter().take_while(|record| record.at < SHOWN).collect();
    let kilobits = |rate: f64| rate / 1e3;
    // An outage is drawn at the bottom.
    let lowest =
        trace.points().map(|(_, rate)| rate).filter(|&rate| rate > 0.0).fold(f64::INFINITY, f64::min);
    let rates: Vec<_> = (trace.points().take_while(|(at, _)| *at < SHOWN))
        .map(|(at, rate)| (at, kilobits(rate.max(lowest / 3.0))))
        .collect();
    let believed: Vec<_> =
        records.iter().filter_map(|record| Some((record.at, kilobits(record.believed?)))).collect();
    let bytes = |record: &&Record| {
        record.point.map(|point| (record.at, candidates.workload.points[point].bytes / 10.0))
    };
    let sent: Vec<_> = records.iter().filter_map(bytes).collect();
    let floor = kilobits(lowest / 3.0);
    let missed: Vec<_> =
        records.iter().filter(|record| !record.in_time).map(|record| (record.at, floor)).collect();
    let x = Axis::around("seconds", Scale::Linear, [0.0, SHOWN]).over(0.0..SHOWN);
    let heights = rates.iter().chain(&believed).map(|point| point.1).filter(|&y| y >= floor);
    let y = Axis::around("kbit/s", Scale::Log, heights);
    let series =
        |name: &str, color, line, mark, points| Series { name: name.to_owned(), color, line, mark, points };
    Chart {
        title: format!("{}, one link", result.link),
        subtitle: String::new(),
        size: PANEL,
        x,
        y,
        series: vec![
            series("rate", GREY, Line::Steps(1), Mark::Absent, rates),
            series("believed", GREEN, Line::Solid(1), Mark::Absent, believed),
            series("sent, in units of 10 bytes", BLUE, Line::Absent, Mark::Dot(1), sent),
            series("missed", VERMILION, Line::Absent, Mark::Dot(2), missed),
        ],
        notes: Vec::new(),
    }
    .draw()
}
