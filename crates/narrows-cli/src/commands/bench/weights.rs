//! `narrows bench weights`: packed weights against dense ones, in the same run.

use std::hint::black_box;
use std::time::Instant;

use narrows::{CoderChoice, Dtype, Shape, SymbolDecoder, SymbolEncoder, SymbolLayout, Target};
use narrows_weights::{Grid, Matrix, PackOptions, Quantized, dense::Dense, pack};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::{Align, Output, table};

#[derive(clap::Args)]
pub struct Args {
    /// Rows of the matrix; with the columns they should make it larger than the last-level cache
    #[arg(long, value_name = "N", default_value_t = 4096)]
    rows: usize,
    /// Columns of the matrix, a multiple of 4,096
    #[arg(long, value_name = "N", default_value_t = 16384)]
    columns: usize,
    /// Passes over the matrix
    #[arg(long, value_name = "N", default_value_t = 12)]
    passes: usize,
}

/// Matrix rows of a measurement: kernels take turns after so many.
const TURN: usize = 64;
/// Columns of matrices that are decoded into memory that stays in the caches: 256 KiB.
const TILE: usize = 4096;

#[derive(Serialize)]
struct Row {
    name: String,
    /// Bits that a weight takes in memory.
    bits: f64,
    /// 10^9 weights a second: median, and the fastest fifth.
    gweights: f64,
    gweights_fast: f64,
    /// Median of the turns' times of dense f32, over this one's.
    over_f32: f64,
    over_bf16: f64,
}

/// A kernel: does its part of the work for one turn.
struct Subject<'a> {
    name: String,
    bits: f64,
    turn: Box<dyn FnMut(usize) + 'a>,
    seconds: Vec<f64>,
}

/// Two-sided exponential weights, cut off at `half`, of about this entropy.
fn symbols(count: usize, half: i32, theta: f64, seed: u64) -> Vec<i8> {
    // P(0) = 1 - sqrt(theta), P(+-i) falls by theta from one to the next.
    let zero = 1.0 - theta.sqrt();
    let mut table = Vec::with_capacity(1 << 16);
    let of =
        |i: i32| if i == 0 { zero } else { theta.sqrt() * (1.0 - theta) * theta.powi(i.abs() - 1) / 2.0 };
    let total: f64 = (-half..=half).map(of).sum();
    let mut sum = 0.0;
    for i in -half..=half {
        sum += of(i) / total;
        table.resize((sum * 65536.0).round() as usize, i as i8);
    }
    table.resize(1 << 16, 0);
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as usize & 0xffff
    };
    (0..count).map(|_| table[next()]).collect()
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let Some(dense) = Dense::new() else {
        let failure = Failure::usage("the dense kernels need AVX-512 with VNNI and BF16");
        return Err(failure.hint("run it on a processor that has them"));
    };
    let (rows, columns) = (args.rows / TURN * TURN, args.columns);
    if rows == 0 || columns == 0 || columns % TILE != 0 {
        return Err(Failure::usage("rows must be 64 at least, and columns a multiple of 4,096"));
    }
    let count = rows * columns;
    let x8 = symbols(columns, 127, 0.99, 5).iter().map(|&x| (i16::from(x) + 128) as u8).collect::<Vec<_>>();
    let x: Vec<f32> = x8.iter().map(|&x| f32::from(x)).collect();
    let x16: Vec<u16> = x.iter().map(|x| (x.to_bits() >> 16) as u16).collect();
    let ternary = symbols(count, 1, 0.12, 3);
    let w32: Vec<f32> = ternary.iter().map(|&w| f32::from(w)).collect();
    let w16: Vec<u16> = w32.iter().map(|w| (w.to_bits() >> 16) as u16).collect();
    let w4 = vec![0x97_u8; count / 2];
    let w2 = vec![0x61_u8; count / 4];
    // 0.85 bit in three bins; then 2 and 3 bits.
    let packed = [(1, 0.0321), (3, 0.29), (7, 0.6)].map(|(half, theta)| -> Result<Coded> {
        let part = |width| Part::new(rows / TURN, columns, width, half, theta);
        Ok(Coded { whole: part(columns)?, tiles: part(TILE)? })
    });
    let packed = packed.into_iter().collect::<Result<Vec<_>>>()?;
    let mut subjects = vec![
        subject("f32, dense", 32.0, {
            let (w, x) = (&w32, &x);
            let mut y = vec![0.0; TURN];
            move |turn| {
                dense.f32(&w[turn * TURN * columns..][..TURN * columns], x, &mut y);
                black_box(&mut y);
            }
        }),
        subject("bf16, dense", 16.0, {
            let (w, x) = (&w16, &x16);
            let mut y = vec![0.0; TURN];
            move |turn| {
                dense.bf16(&w[turn * TURN * columns..][..TURN * columns], x, &mut y);
                black_box(&mut y);
            }
        }),
        subject("int8, dense", 8.0, ints(&ternary, &x8, 1, columns, move |w, x, y| dense.int8(w, x, y))),
        subject("int4, packed", 4.0, ints(&w4, &x8, 2, columns, move |w, x, y| dense.int4(w, x, y))),
        subject("2 bits, packed", 2.0, ints(&w2, &x8, 4, columns, move |w, x, y| dense.int2(w, x, y))),
    ];
    for coded in &packed {
        let (whole, bits) = (&coded.whole, coded.whole.bits);
        let states = whole.turns[0][0].layout().states.unwrap_or(0);
        let mut y8 = vec![0_i32; TURN];
        let mut y = vec![0.0_f32; TURN];
        let (x8, x) = (&x8, &x);
        let name = |what: &str| format!("ours, {bits:.2} bits, {states} states: {what}");
        subjects.push(subject(&name("times int8"), bits, move |turn| {
            whole.turns[turn][0].product_int8(x8, 0, &mut y8).expect("our own");
            black_box(&mut y8);
        }));
        subjects.push(subject(&name("times f32"), bits, move |turn| {
            whole.turns[turn][0].product(x, &mut y).expect("our own");
            black_box(&mut y);
        }));
        for (part, what) in [(whole, "1 MiB at a time"), (&coded.tiles, "256 KiB at a time")] {
            let mut values = Vec::new();
            subjects.push(subject(&name(&format!("decoded, {what}")), part.bits, move |turn| {
                for matrix in &part.turns[turn] {
                    matrix.values_into(0..TURN, &mut values).expect("our own");
                    black_box(&mut values);
                }
            }));
            let layout = SymbolLayout::natural(TURN * part.columns, 16).expect("an alphabet");
            let (mut decoder, mut symbols) = (SymbolDecoder::default(), Vec::new());
            let rans = format!("rANS, 12 bits, {bits:.2} bits: decoded, {what}");
            subjects.push(subject(&rans, part.bits, move |turn| {
                for stream in &part.streams[turn] {
                    decoder.decode_into(stream, &layout, &mut symbols).expect("our own");
                    black_box(&mut symbols);
                }
            }));
        }
    }
    let progress = output.progress(args.passes as u64, "passes");
    for _ in 0..args.passes {
        for turn in 0..rows / TURN {
            for (index, subject) in subjects.iter_mut().enumerate() {
                // No two take the same rows after each other.
                let turn = (turn + 7 * index) % (rows / TURN);
                let start = Instant::now();
                (subject.turn)(turn);
                subject.seconds.push(start.elapsed().as_secs_f64());
            }
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    report(&subjects, (rows, columns), output)
}

fn subject<'a>(name: &str, bits: f64, turn: impl FnMut(usize) + 'a) -> Subject<'a> {
    Subject { name: name.to_owned(), bits, turn: Box::new(turn), seconds: Vec::new() }
}

/// A turn of a product with bytes, `per_element` weights in each element.
fn ints<'a, T>(
    weights: &'a [T],
    x: &'a [u8],
    per_element: usize,
    columns: usize,
    product: impl Fn(&[T], &[u8], &mut [i32]) + 'a,
) -> impl FnMut(usize) + 'a {
    let mut y = vec![0; TURN];
    let size = TURN * columns / per_element;
    move |turn| {
        product(&weights[turn * size..][..size], x, &mut y);
        black_box(&mut y);
    }
}

/// The same distribution as matrices of all columns, and of as few as fit into caches.
struct Coded {
    whole: Part,
    tiles: Part,
}

/// Matrices of a turn's rows side by side, and the same symbols in rANS.
struct Part {
    turns: Vec<Vec<Matrix>>,
    streams: Vec<Vec<Vec<u8>>>,
    /// Columns of a matrix.
    columns: usize,
    /// Bits a weight.
    bits: f64,
}

impl Part {
    /// `turns` times `columns / width` matrices of `width` columns.
    fn new(turns: usize, columns: usize, width: usize, half: i32, theta: f64) -> Result<Self> {
        let failed = |error: narrows_weights::Error| Failure::weights("cannot pack", &error);
        let codec = |error: narrows::Error| Failure::codec("cannot encode", &error);
        let mut encoder = SymbolEncoder::new(Target::Speed).with_coder(CoderChoice::Rans).map_err(codec)?;
        let mut part = Self { turns: Vec::new(), streams: Vec::new(), columns: width, bits: 0.0 };
        let (layout, shape) = (SymbolLayout::natural(TURN * width, 16), Shape::new(&[TURN, width]));
        let (layout, shape) = (layout.map_err(codec)?, shape.map_err(codec)?);
        // Strips of 16 rows, four side by side.
        let options = PackOptions { chunk_rows: Some(16), ..PackOptions::default() };
        let mut bytes = 0;
        for turn in 0..turns {
            let (mut matrices, mut streams) = (Vec::new(), Vec::new());
            for index in 0..columns / width {
                let seed = 77 + 2 * (turn * (columns / width) + index) as u64;
                let values = symbols(TURN * width, half, theta, seed);
                let symbols: Vec<u8> = values.iter().map(|&w| (i32::from(w) + half) as u8).collect();
                let mut stream = Vec::new();
                encoder.encode_into(&symbols, &layout, &mut stream).map_err(codec)?;
                streams.push(stream);
                let grid = Grid::new(vec![1.0], 2 * half as u16 + 1).map_err(failed)?;
                let quantized = Quantized { values, grid, rows: TURN, columns: width };
                let packed = pack(&quantized, Dtype::F32, &shape, &options).map_err(failed)?;
                bytes += packed.len();
                matrices.push(Matrix::read(packed).map_err(failed)?);
            }
            part.turns.push(matrices);
            part.streams.push(streams);
        }
        part.bits = 8.0 * bytes as f64 / (turns * TURN * columns) as f64;
        Ok(part)
    }
}

fn report(subjects: &[Subject<'_>], (rows, columns): (usize, usize), output: &Output) -> Result<()> {
    let quantile = |subject: &Subject<'_>, at: f64| {
        let mut seconds = subject.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        seconds[(seconds.len() as f64 * at) as usize]
    };
    let (f32s, bf16s) = (quantile(&subjects[0], 0.5), quantile(&subjects[1], 0.5));
    let weights = (TURN * columns) as f64;
    let measured: Vec<Row> = subjects
        .iter()
        .map(|subject| {
            let median = quantile(subject, 0.5);
            Row {
                name: subject.name.clone(),
                bits: subject.bits,
                gweights: weights / median / 1e9,
                gweights_fast: weights / quantile(subject, 0.2) / 1e9,
                over_f32: f32s / median,
                over_bf16: bf16s / median,
            }
        })
        .collect();
    if output.is_json() {
        let shape = [rows, columns];
        return output.print_json(&serde_json::json!({ "shape": shape, "threads": 1, "rows": measured }));
    }
    let right = Align::Right;
    let mut drawn = table(&[
        ("weights", Align::Left),
        ("bits", right),
        ("Gweights/s", right),
        ("fastest fifth", right),
        ("over f32", right),
        ("over bf16", right),
    ]);
    for row in &measured {
        drawn.add_row([
            row.name.clone(),
            format!("{:.2}", row.bits),
            format!("{:.2}", row.gweights),
            format!("{:.2}", row.gweights_fast),
            format!("{:.2}x", row.over_f32),
            format!("{:.2}x", row.over_bf16),
        ]);
    }
    output.print(drawn)?;
    output.print(format!(
        "\n{rows} x {columns} weights times a vector, one core; kernels take turns after {TURN} rows, medians."
    ))
}
