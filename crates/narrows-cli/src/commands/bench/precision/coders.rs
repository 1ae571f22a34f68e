//! What coders and models make of the weights of a checkpoint.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;

use narrows::{CoderChoice, Dtype, Shape, SymbolEncoder, SymbolLayout, Target};
use narrows_train::{entropy, table_bits};
use narrows_weights::{Checkpoint, Matrix, PackOptions, Quantized, Settings, States, grids, pack, quantize};
use serde::Serialize;

use crate::failure::{Failure, Result};

/// Sizes of tANS machines that are compared, as powers of two.
const STATE_BITS: [u32; 4] = [6, 7, 8, 10];
/// A state of a machine that decodes: symbol, bits to read, base.
const STATE_BYTES: usize = 4;

/// All tables.
#[derive(Debug, Serialize)]
pub struct Comparison {
    file: String,
    weights: usize,
    /// Order-0 entropy of each tensor's bins, bits a weight over all.
    entropy: f64,
    coders: Vec<Row>,
    models: Vec<Model>,
}

/// One coder.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// Streams alone, bits a weight; none if it is not told apart.
    payload: Option<f64>,
    /// Payload over entropy, less one, in percent.
    loss_percent: Option<f64>,
    /// With tables, directories, headers.
    total: f64,
    /// The largest table that a decoder has in memory.
    table_bytes: Option<usize>,
}

/// One way to predict weights, coded ideally.
#[derive(Debug, Serialize)]
struct Model {
    name: &'static str,
    /// Bits a weight, without and with tables.
    entropy: f64,
    total: f64,
    tables: usize,
}

/// Bins of one tensor.
struct Layer {
    name: String,
    shape: Vec<usize>,
    quantized: Quantized,
}

/// Measure the weights of a checkpoint that a trainer left on their grids; `deepcabac` is the size of another coder's stream
/// of the same weights.
pub fn measure(file: &Path, deepcabac: Option<usize>) -> Result<Comparison> {
    let failed =
        |error: narrows_weights::Error| Failure::weights(format!("cannot use {}", file.display()), &error);
    let checkpoint = Checkpoint::open(file).map_err(failed)?;
    let steps = checkpoint.steps().map_err(failed)?;
    let grids = grids(&checkpoint, &Settings { least_weights: usize::MAX, ..Settings::default() }, None);
    let mut layers = Vec::new();
    for (name, grid) in grids.map_err(failed)?.into_iter().filter(|(name, _)| steps.contains_key(name)) {
        let tensor = &checkpoint.tensors()[&name];
        let quantized = quantize(&name, tensor, &grid, 0.0, None).map_err(failed)?;
        layers.push(Layer { shape: tensor.shape.clone(), name, quantized });
    }
    if layers.is_empty() {
        let failure = Failure::data(format!("{} has no weights on a grid", file.display()));
        return Err(failure.hint("name a checkpoint of `narrows train`"));
    }
    let weights: usize = layers.iter().map(|layer| layer.quantized.values.len()).sum();
    let bound = ideal(layers.iter().map(|layer| vec![layer.quantized.counts()])).0;
    let row = |name: String, payload: Option<f64>, total: f64, table_bytes| Row {
        name,
        payload: payload.map(|bits| bits / weights as f64),
        loss_percent: payload.map(|bits| 100.0 * (bits / bound - 1.0)),
        total: total / weights as f64,
        table_bytes,
    };
    let mut coders = Vec::new();
    for bits in STATE_BITS {
        let options = PackOptions { states: States::Exactly(bits), ..PackOptions::default() };
        let (payload, total) = packed(&layers, &options).map_err(failed)?;
        coders.push(row(
            format!("tANS, {} states", 1 << bits),
            Some(payload),
            total,
            Some(STATE_BYTES << bits),
        ));
    }
    let (payload, total) = packed(&layers, &PackOptions::default()).map_err(failed)?;
    coders.push(row("tANS, states by tensor".to_owned(), Some(payload), total, Some(STATE_BYTES << 8)));
    let streams = rans(&layers).map_err(|error| Failure::codec("cannot encode", &error))?;
    coders.push(row("rANS, 32 lanes".to_owned(), None, streams, None));
    let (payload, tables) = huffman(&layers);
    coders.push(row("Huffman".to_owned(), Some(payload), payload + tables, None));
    if let Some(bytes) = deepcabac {
        coders.push(row("DeepCABAC".to_owned(), None, 8.0 * bytes as f64, None));
    }
    let model = |name, (bits, tables, table_bits): (f64, usize, f64)| Model {
        name,
        entropy: bits / weights as f64,
        total: (bits + table_bits) / weights as f64,
        tables,
    };
    let models = vec![
        model("a table for each layer", ideal(layers.iter().map(|layer| vec![layer.quantized.counts()]))),
        model("a table for each output channel", ideal(layers.iter().map(channels))),
        model(
            "two tables for each layer: the weight before is zero, or not",
            ideal(layers.iter().map(contexts)),
        ),
    ];
    Ok(Comparison {
        file: file.display().to_string(),
        weights,
        entropy: bound / weights as f64,
        coders,
        models,
    })
}

/// Bits of symbols under the tables of their own counts, the number of tables, and their bits.
fn ideal(layers: impl Iterator<Item = Vec<Vec<u64>>>) -> (f64, usize, f64) {
    let (mut bits, mut tables, mut of_tables) = (0.0, 0, 0.0);
    for counts in layers.flatten() {
        bits += entropy(&counts) * counts.iter().sum::<u64>() as f64;
        of_tables += table_bits(&counts);
        tables += 1;
    }
    (bits, tables, of_tables)
}

fn channels(layer: &Layer) -> Vec<Vec<u64>> {
    let Quantized { values, columns, grid, .. } = &layer.quantized;
    values.chunks_exact(*columns).map(|row| counted(row.iter().copied(), grid.half())).collect()
}

fn contexts(layer: &Layer) -> Vec<Vec<u64>> {
    let Quantized { values, columns, grid, .. } = &layer.quantized;
    let after = |zero: bool| {
        let rows = values.chunks_exact(*columns);
        // Before the first of a row comes a zero.
        let pairs = rows.flat_map(|row| std::iter::once(&0).chain(row).zip(row));
        counted(
            pairs.filter(move |(before, _)| (**before == 0) == zero).map(|(_, &value)| value),
            grid.half(),
        )
    };
    vec![after(true), after(false)]
}

fn counted(values: impl Iterator<Item = i8>, half: u8) -> Vec<u64> {
    let mut counts = vec![0; 2 * usize::from(half) + 1];
    values.for_each(|value| counts[(i16::from(value) + i16::from(half)) as usize] += 1);
    counts
}

/// Bits of streams and lists of outliers, and of everything.
fn packed(layers: &[Layer], options: &PackOptions) -> narrows_weights::Result<(f64, f64)> {
    let (mut payload, mut total) = (0, 0);
    for layer in layers {
        let in_tensor = |error: narrows_weights::Error| error.in_tensor(&layer.name);
        let shape = Shape::new(&layer.shape)?;
        let bytes = pack(&layer.quantized, Dtype::F32, &shape, options).map_err(in_tensor)?;
        total += bytes.len();
        let layout = Matrix::read(bytes).map_err(in_tensor)?.layout();
        payload += layout.payload_bytes + layout.outlier_bytes;
    }
    Ok((8.0 * payload as f64, 8.0 * total as f64))
}

/// Bits of the codec's rANS streams, tables included.
fn rans(layers: &[Layer]) -> narrows::Result<f64> {
    let mut encoder = SymbolEncoder::new(Target::Size).with_coder(CoderChoice::Rans)?;
    let mut bytes = 0;
    for Layer { quantized, .. } in layers {
        let half = i16::from(quantized.grid.half());
        let symbols: Vec<u8> =
            quantized.values.iter().map(|&value| (i16::from(value) + half) as u8).collect();
        let layout = SymbolLayout::natural(symbols.len(), quantized.grid.bins())?;
        let mut stream = Vec::new();
        encoder.encode_into(&symbols, &layout, &mut stream)?;
        bytes += stream.len();
    }
    Ok(8.0 * bytes as f64)
}

/// Bits of a Huffman code for each layer, and of its lengths, four bits each.
fn huffman(layers: &[Layer]) -> (f64, f64) {
    let (mut bits, mut tables) = (0, 0);
    for layer in layers {
        let counts = layer.quantized.counts();
        bits += huffman_bits(&counts);
        tables += 4 * counts.len();
    }
    (bits as f64, tables as f64)
}

/// The sum of all inner nodes' counts is the length of the coded symbols.
fn huffman_bits(counts: &[u64]) -> u64 {
    let mut heap: BinaryHeap<Reverse<u64>> =
        counts.iter().filter(|&&count| count > 0).map(|&count| Reverse(count)).collect();
    let mut bits = 0;
    while heap.len() > 1 {
        let [a, b] = [(); 2].map(|()| heap.pop().map_or(0, |Reverse(count)| count));
        bits += a + b;
        heap.push(Reverse(a + b));
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huffman_code_of_known_counts() {
        // Lengths 1, 2, 3, 3.
        assert_eq!(huffman_bits(&[0, 8, 4, 2, 2, 0]), 8 + 8 + 6 + 6);
        assert_eq!(huffman_bits(&[5]), 0);
    }
}
