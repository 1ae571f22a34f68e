//! The table that the demo prints.

use std::io::IsTerminal;

use super::Report;
use super::measure::Row;
use super::method::Method;
use crate::output::{Align, grouped, table};

const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// All rows, grouped by cut and bit width; the smallest of each group carries a star, and stands in
/// bold on a terminal.
pub fn draw(report: &Report) -> String {
    let mut drawn = table(&[
        ("cut", Align::Left),
        ("Q", Align::Right),
        ("method", Align::Left),
        ("bytes/image", Align::Right),
        ("ratio", Align::Right),
        ("encode µs", Align::Right),
        ("decode µs", Align::Right),
        ("link ms", Align::Right),
        ("top-1 %", Align::Right),
        ("diff. points", Align::Right),
    ]);
    let mut is_smallest = Vec::new();
    for (cut, rows) in report.by_cut() {
        if !is_smallest.is_empty() {
            is_smallest.push(false);
            drawn.add_row([""]);
        }
        let mut titles = [cut.name.clone(), cut.shape.clone()].into_iter();
        for group in rows.chunk_by(|a, b| a.q == b.q) {
            let smallest = group.iter().map(|row| row.bytes_per_image).fold(f64::INFINITY, f64::min);
            for (index, row) in group.iter().enumerate() {
                let star = group.len() > 1 && row.bytes_per_image == smallest;
                is_smallest.push(star);
                drawn.add_row([
                    titles.next().unwrap_or_default(),
                    if index == 0 { row.q.to_string() } else { String::new() },
                    format!("{}{}", row.method.name(), if star { " *" } else { "" }),
                    grouped(row.bytes_per_image.round() as u64),
                    format!("{:.2}", row.ratio),
                    format!("{:.0}", row.encode_us),
                    format!("{:.0}", row.decode_us),
                    format!("{:.1}", row.link_ms),
                    format!("{:.1}", row.top1),
                    format!("{:+.1}", row.top1_delta),
                ]);
            }
        }
    }
    // No cell has a line break, so every row is a line; the heading is the first.
    let bold = std::iter::once(false).chain(is_smallest);
    let is_terminal = std::io::stdout().is_terminal();
    let text = drawn.to_string();
    let lines = text.lines().map(str::trim_end).zip(bold).map(|(line, bold)| {
        if bold && is_terminal { format!("{BOLD}{line}{PLAIN}") } else { line.to_owned() }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The figures in one sentence: what the default needs of the reference method's bytes.
pub fn take_away(report: &Report) -> String {
    let mut shares = Vec::new();
    for (cut, rows) in report.by_cut() {
        let of = |method| rows.iter().filter(move |row: &&Row| row.method == method);
        let pairs = of(Method::Default).zip(of(Method::Reference));
        let percent = pairs.map(|(ours, theirs)| 100.0 * ours.bytes_per_image / theirs.bytes_per_image);
        let (least, most) = percent.fold((f64::INFINITY, 0.0), |(least, most): (f64, f64), share| {
            (least.min(share), most.max(share))
        });
        shares.push(format!("{least:.0} to {most:.0} % at {}", cut.name));
    }
    format!(
        "\n* smallest of its group. The same symbols, hence the same top-1, in a part of the reference method's \
         bytes: {}.",
        shares.join(", ")
    )
}
