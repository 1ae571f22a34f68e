//! `narrows calibrate --labels`: every operating point of a cut, measured.

use std::fs;
use std::path::Path;

use narrows::Tensor;

use super::Args;
use crate::destination::{Destination, Existing};
use crate::evaluate::{Coding, Half, Outcome, Table, measure_operating_points, read_labels};
use crate::failure::{Failure, Result};
use crate::output::{Align, Output, counted, grouped, table};
use crate::plot::{Axis, BLUE, Chart, GREY, INK, Line, Mark, Paint, SKY, Scale, Series};

/// The files of the folder, beside the profiles.
const TABLE: &str = "operating-points.json";
const DRAWING: &str = "rate-accuracy.svg";

/// Measure, write the folder, and say what is in it.
pub fn run(args: &Args, labels: &Path, tail: &Half, features: &[Tensor], output: &Output) -> Result<()> {
    let folder = args.output.as_path();
    if folder.is_file() || folder == Path::new("-") {
        let failure = Failure::usage(format!("{} is not a folder", folder.display()));
        return Err(failure.hint("with --labels, -o names the folder for the table and its profiles"));
    }
    let file = |name: &str| Destination::File(folder.join(name));
    file(TABLE).check(Existing::replace_if(args.force))?;
    let labels = read_labels(labels)?;
    let progress = output.progress(1, "measuring");
    let outcome = measure_operating_points(tail, features, &labels, args.axis, &progress)?;
    progress.finish_and_clear();
    fs::create_dir_all(folder).map_err(|error| Failure::output("make the folder", folder, &error))?;
    for (index, _) in outcome.table.pareto() {
        if let Some(profile) = &outcome.details[index].profile {
            file(&format!("{}.nrp", profile.id())).write(&profile.to_bytes())?;
        }
    }
    file(DRAWING).write(draw(&outcome.table).as_bytes())?;
    // The table last: where it is, everything it names is.
    file(TABLE).write(&outcome.table.to_json())?;
    if output.is_json() {
        return output.print_json(&outcome.table);
    }
    print(&outcome, folder, output)
}

fn print(outcome: &Outcome, folder: &Path, output: &Output) -> Result<()> {
    let points = &outcome.table;
    let right = Align::Right;
    let mut drawn = table(&[
        ("levels", right),
        ("range", Align::Left),
        ("coding", Align::Left),
        ("bytes", right),
        ("95 % below", right),
        ("top-1 %", right),
        ("same answer %", right),
        ("encode µs", right),
        ("decode µs", right),
        ("profile", Align::Left),
    ]);
    for (_, row) in points.pareto() {
        drawn.add_row([
            row.levels.to_string(),
            row.clip.clone(),
            row.coding.name().to_owned(),
            grouped(row.bytes_mean.round() as u64),
            grouped(u64::from(row.bytes_high)),
            format!("{:.2}", row.top1_percent),
            format!("{:.2}", row.agreement_percent),
            format!("{:.0}", row.encode_us),
            format!("{:.0}", row.decode_us),
            row.profile.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    output.print(drawn)?;
    output.print(format!(
        "\n{}: top-1 {:.2} % without compression ({} bytes as float32)\n\
         fitted to {}, measured on {} others; {} points, the {} above have none smaller and as accurate",
        points.cut,
        points.top1_percent,
        grouped(points.raw_bytes as u64),
        counted(points.samples_fitted, "sample"),
        grouped(points.samples_measured as u64),
        points.points.len(),
        points.pareto().count(),
    ))?;
    output.note(format!("{}: {TABLE}, {DRAWING} and the profiles", folder.display()));
    Ok(())
}

fn draw(points: &Table) -> String {
    let of = |coding: Coding| points.points.iter().filter(move |row| row.coding == coding);
    let place = |row: &crate::evaluate::Row| (row.bytes_mean, row.top1_percent);
    let dots = |name: &str, coding, color: Paint| Series {
        name: name.to_owned(),
        color,
        line: Line::Absent,
        mark: Mark::Dot(4),
        points: of(coding).map(place).collect(),
    };
    let sizes = points.points.iter().map(|row| row.bytes_mean);
    let x = Axis::around("mean bytes of a frame", Scale::Log, sizes);
    // What is far below is of no use to anybody, and would press the rest together.
    let front: Vec<(f64, f64)> = points.pareto().map(|(_, row)| place(row)).collect();
    let lowest = front.first().map_or(0.0, |point| point.1);
    let all = points.points.iter().map(|row| row.top1_percent).filter(|&top1| top1 >= lowest - 2.0);
    let y = Axis::around("top-1 %", Scale::Linear, all.chain([points.top1_percent]));
    let level = |y: f64| vec![(x.range.start, y), (x.range.end, y)];
    let unsplit = Series {
        name: "without compression".to_owned(),
        color: INK,
        line: Line::Dashed,
        mark: Mark::Absent,
        points: level(points.top1_percent),
    };
    let pareto = Series {
        name: "Pareto front".to_owned(),
        color: BLUE,
        line: Line::Steps(2),
        mark: Mark::Ring(7),
        points: front,
    };
    let mut series = vec![
        dots("order 0, tables in the frame", Coding::Order0, GREY),
        dots("contexts, tables in the frame", Coding::Contexts, SKY),
        dots("contexts, tables in a profile", Coding::Profile, BLUE),
        pareto,
        unsplit,
    ];
    series.iter_mut().for_each(|series| series.points.retain(|&(_, top1)| top1 >= y.range.start));
    let dims = points.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
    Chart {
        title: format!("Operating points at {}", points.cut),
        subtitle: format!(
            "{dims}, {} bytes as float32; {} samples",
            grouped(points.raw_bytes as u64),
            grouped(points.samples_measured as u64)
        ),
        size: (900, 520),
        x,
        y,
        series,
        notes: Vec::new(),
    }
    .draw()
}
