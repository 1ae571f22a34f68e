//! The tables that a run prints.

use crate::results::{Promise, Results, Row, Way};

/// What ratios are of: its fastest path on the same data.
const REFERENCE: &str = "htscodecs order-0";

/// Everything, as text.
pub fn print(results: &Results) {
    let machine = &results.machine;
    let (cpu, rustc, cc, date) = (&machine.cpu, machine.rustc, machine.cc, &machine.date);
    println!("{cpu}, one core of {}, {rustc}, {cc}, {date}", machine.cores);
    let mut rest = results.rows.as_slice();
    while let Some(first) = rest.first() {
        let here = rest.iter().take_while(|row| row.same_array(first)).count();
        if first.coder.ends_with("frame") {
            frames(rest);
            break;
        }
        array(&rest[..here]);
        rest = &rest[here..];
    }
    must_hold(&results.must_hold);
    for missing in &results.missing {
        println!("missing: {}: {}", missing.coder, missing.reason);
    }
}

fn fastest(rows: &[Row], way: Way) -> Option<f64> {
    rows.iter()
        .filter(|row| row.coder == REFERENCE && !row.stored())
        .map(|row| row.median(way))
        .reduce(f64::min)
}

fn array(rows: &[Row]) {
    let Row { data, n, entropy_bytes, .. } = &rows[0];
    println!("\n{data}: {n} symbols, entropy {entropy_bytes:.0} bytes");
    println!(
        "  {:<25} {:<14} {:>9} {:>9}  {:>8} {:>8}  {:>7} {:>7}  {:>7}",
        "coder", "path", "bytes", "/entropy", "enc GB/s", "dec GB/s", "enc x", "dec x", "repeats"
    );
    for row in rows {
        let speed = |way| *n as f64 / row.median(way);
        let ratio =
            |way| fastest(rows, way).map_or("-".into(), |time| format!("{:.2}", time / row.median(way)));
        println!(
            "  {:<25} {:<14} {:>9} {:>9.4}  {:>8.3} {:>8.3}  {:>7} {:>7}  {:>7}",
            row.coder,
            row.path,
            row.bytes,
            row.bytes as f64 / entropy_bytes,
            speed(Way::Encode),
            speed(Way::Decode),
            ratio(Way::Encode),
            ratio(Way::Decode),
            row.repeats
        );
    }
    println!("  (x: times as fast as the fastest path of {REFERENCE})");
}

fn frames(rows: &[Row]) {
    println!("\nwhole tensors, microseconds: median (best)");
    let heading = ["tensor", "path", "bytes", "/entropy", "encode", "decode"];
    let [tensor, path, bytes, entropy, encode, decode] = heading;
    println!("  {tensor:<36} {path:<10} {bytes:>8} {entropy:>9}  {encode:>18}  {decode:>18}");
    for row in rows {
        let cell = |way| format!("{:.2} ({:.2})", row.median(way) / 1e3, row.best(way) / 1e3);
        println!(
            "  {:<36} {:<10} {:>8} {:>9.4}  {:>18}  {:>18}",
            row.data,
            row.path,
            row.bytes,
            row.bytes as f64 / row.entropy_bytes,
            cell(Way::Encode),
            cell(Way::Decode)
        );
    }
}

fn must_hold(lines: &[Promise]) {
    println!("\nmust hold (the worst of its arrays)");
    let heading = ["", "bound", "median", "best"];
    println!("  {:<76} {:>6} {:>8} {:>8}", heading[0], heading[1], heading[2], heading[3]);
    for line in lines {
        let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
        let verdict = match line.met {
            Some(true) => "met",
            Some(false) => "NOT met",
            None => "not measured",
        };
        let on = if line.worst_on.is_empty() { String::new() } else { format!(" ({})", line.worst_on) };
        let beside = line.beside.iter().map(|(what, value)| format!("; {what}: {value:.2}"));
        let beside = beside.collect::<String>();
        println!(
            "  {:<76} {:>6} {:>8} {:>8}  {verdict}{on}{beside}",
            line.work,
            line.bound,
            number(line.measured),
            number(line.measured_best)
        );
    }
}
