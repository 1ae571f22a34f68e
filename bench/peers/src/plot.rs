//! The picture: speed of each coder's fastest path on some arrays, size beside it.

use std::fmt::Write as _;

use crate::results::{Results, Row, Way};
use crate::summary::arrays;

const LABELS: f64 = 190.0;
const BARS: f64 = 330.0;
const PANEL: f64 = LABELS + BARS + 110.0;
const LINE: f64 = 22.0;
const HEAD: f64 = 48.0;
const TOP: f64 = 64.0;
const COLOURS: [(Way, &str); 2] = [(Way::Encode, "#9bb8d3"), (Way::Decode, "#1f5a94")];

/// An SVG of the results.
pub fn svg(results: &Results) -> String {
    let panels = arrays(&results.rows);
    let height = |panel: &Vec<&Row>| HEAD + LINE * panel.len() as f64 + 16.0;
    let heights: Vec<f64> =
        panels.chunks(2).map(|pair| pair.iter().map(height).fold(0.0, f64::max)).collect();
    let (width, total) = (2.0 * PANEL + 30.0, TOP + heights.iter().sum::<f64>());
    let mut out = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{total}' viewBox='0 0 {width} {total}' \
         font-family='sans-serif' font-size='12'>\n<rect width='100%' height='100%' fill='white'/>\n"
    );
    let machine = &results.machine;
    text(
        &mut out,
        (16.0, 24.0),
        "font-size='16' font-weight='bold'",
        "Entropy coders, 100,000 symbols, one core",
    );
    let about = format!("{}, {}; Gsymbols/s (median); size / order-0 entropy", machine.cpu, machine.date);
    text(&mut out, (16.0, 44.0), "fill='#555'", &about);
    for (index, (_, colour)) in COLOURS.iter().enumerate() {
        let x = width - 180.0 + 85.0 * index as f64;
        let _ = writeln!(out, "<rect x='{x}' y='14' width='12' height='12' fill='{colour}'/>");
        text(&mut out, (x + 18.0, 24.0), "", ["encode", "decode"][index]);
    }
    let mut top = TOP;
    for (pair, height) in panels.chunks(2).zip(&heights) {
        for (index, panel) in pair.iter().enumerate() {
            draw(&mut out, panel, (16.0 + PANEL * index as f64, top));
        }
        top += height;
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, rows: &[&Row], (left, top): (f64, f64)) {
    text(out, (left, top + 22.0), "font-size='14' font-weight='bold'", &rows[0].data);
    let speed = |row: &Row, way| row.n as f64 / row.median(way);
    let rows: Vec<_> = rows.iter().filter(|row| !row.stored()).collect();
    let best = rows.iter().flat_map(|row| COLOURS.map(|(way, _)| speed(row, way))).fold(0.0, f64::max);
    for (index, row) in rows.iter().enumerate() {
        let y = top + HEAD + LINE * index as f64;
        let end = "text-anchor='end'";
        let weight = if row.coder.starts_with("narrows") { " font-weight='bold'" } else { "" };
        text(out, (left + LABELS - 8.0, y + 8.0), &format!("{end}{weight}"), &row.coder);
        for (bar, (way, colour)) in COLOURS.iter().enumerate() {
            let (y, length) = (y - 4.0 + 8.0 * bar as f64, (BARS * speed(row, *way) / best).max(1.0));
            let x = left + LABELS;
            let _ = writeln!(
                out,
                "<rect x='{x:.1}' y='{y:.1}' width='{length:.1}' height='7.5' fill='{colour}'/>"
            );
        }
        let after = left + LABELS + BARS * speed(row, Way::Decode).max(speed(row, Way::Encode)) / best + 6.0;
        let size = row.bytes as f64 / row.entropy_bytes;
        let speeds = format!("{:.2} / {:.2}", speed(row, Way::Encode), speed(row, Way::Decode));
        text(out, (after, y + 8.0), "font-size='11'", &format!("{speeds}  ({size:.3})"));
    }
}

fn text(out: &mut String, (x, y): (f64, f64), style: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, "<text x='{x:.1}' y='{y:.1}' {style}>{words}</text>");
}
