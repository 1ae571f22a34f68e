//! The short table of the README: each coder's fastest path on some arrays of about 100,000 symbols.

use std::fmt::Write as _;

use crate::frames;
use crate::results::{Results, Row, Way};

/// Arrays shown.
const SHOWN: [&str; 4] = ["features layer1 Q4", "weights 7 bins", "laplace 16", "laplace 256"];
const LENGTHS: std::ops::Range<usize> = 50_000..200_000;

/// For each array shown one row for each coder: that of its path which decodes fastest.
pub fn arrays(rows: &[Row]) -> Vec<Vec<&Row>> {
    let of_array = |data: &&str| {
        let mut fastest: Vec<&Row> = Vec::new();
        for row in rows.iter().filter(|row| row.data == *data && LENGTHS.contains(&row.n)) {
            match fastest.iter_mut().find(|found| found.coder == row.coder) {
                Some(found) if row.decode_ns < found.decode_ns => *found = row,
                Some(_) => {}
                None => fastest.push(row),
            }
        }
        fastest
    };
    SHOWN.iter().map(of_array).filter(|array| !array.is_empty()).collect()
}

/// Speeds and sizes, and whole tensors below, in Markdown.
pub fn markdown(results: &Results) -> String {
    let machine = &results.machine;
    let mut out = format!(
        "Measured by `bench/run` on one core of an {}{}, {}, {}, {}. Gsymbols/s to encode / to decode (medians) \
         and size over order-0 entropy, each on the path that decodes fastest.\n\n",
        machine.cpu,
        if machine.virtual_machine { " (virtual machine)" } else { "" },
        machine.rustc,
        machine.cc,
        machine.date
    );
    let arrays = arrays(&results.rows);
    let _ = write!(out, "| coder |");
    arrays.iter().for_each(|array| _ = write!(out, " {} |", array[0].data));
    let _ = writeln!(out, "\n|---|{}", "---|".repeat(arrays.len()));
    let mut coders: Vec<&str> = Vec::new();
    for row in arrays.iter().flatten() {
        if !coders.contains(&row.coder.as_str()) {
            coders.push(&row.coder);
        }
    }
    for coder in coders {
        let _ = write!(out, "| {coder} |");
        for array in &arrays {
            let cell = array.iter().find(|row| row.coder == coder).map_or("-".into(), |row| cell(row));
            let _ = write!(out, " {cell} |");
        }
        out.push('\n');
    }
    let best = |row: &&Row| row.coder == frames::CODER && row.path == narrows::Path::best().name();
    let _ = writeln!(out, "\n| whole tensor | bytes | encode us | decode us |\n|---|---|---|---|");
    for row in results.rows.iter().filter(best) {
        let (encode, decode) = (row.median(Way::Encode) / 1e3, row.median(Way::Decode) / 1e3);
        let _ = writeln!(out, "| {} | {} | {encode:.1} | {decode:.1} |", row.data, row.bytes);
    }
    out
}

fn cell(row: &Row) -> String {
    if row.stored() {
        return "stored".into();
    }
    let speed = |way| row.n as f64 / row.median(way);
    let size = row.bytes as f64 / row.entropy_bytes;
    format!("{:.2} / {:.2}, {size:.3}", speed(Way::Encode), speed(Way::Decode))
}
