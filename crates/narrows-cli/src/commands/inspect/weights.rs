//! `narrows inspect` of packed weights: bits, zeros and entropy of each layer.

use std::path::Path;

use narrows_weights::{Layout, PackedFile, Tensor};
use serde::Serialize;

use crate::destination::{Destination, Existing};
use crate::failure::{Failure, Result};
use crate::output::{Align, Output, grouped, table};
use crate::plot::{BLUE, Bar, GREY, ORANGE, StackedBars};

#[derive(Serialize)]
pub struct Report {
    file: String,
    bytes: usize,
    header_bytes: usize,
    elements: usize,
    bits_per_element: f64,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    /// `"packed"`, `"lossless"` or `"plain"`.
    kind: &'static str,
    dtype: String,
    shape: Vec<usize>,
    elements: usize,
    bytes: usize,
    bits_per_element: f64,
    /// What is known of packed weights.
    packed: Option<Inside>,
}

#[derive(Serialize)]
struct Inside {
    bins: u16,
    steps: usize,
    smallest_step: f32,
    largest_step: f32,
    /// Order-0 entropy of the bins, which no code without contexts goes below.
    entropy_bits: f64,
    zeros: f64,
    #[serde(flatten)]
    layout: Layout,
}

impl Report {
    pub fn of(path: &Path, output: &Output) -> Result<Self> {
        let failed = |error: narrows_weights::Error| {
            Failure::weights(format!("cannot inspect {}", path.display()), &error)
        };
        let file = PackedFile::open(path).map_err(failed)?;
        let (bytes, header_bytes) = file.bytes();
        let names = file.names();
        let progress = output.progress(names.len() as u64, "tensors");
        let layers = names.iter().map(|name| {
            progress.inc(1);
            Layer::of(&file, name).map_err(failed)
        });
        let layers: Vec<Layer> = layers.collect::<Result<_>>()?;
        progress.finish_and_clear();
        let elements: usize = layers.iter().map(|layer| layer.elements).sum();
        let bits_per_element = 8.0 * bytes as f64 / elements.max(1) as f64;
        Ok(Self { file: path.display().to_string(), bytes, header_bytes, elements, bits_per_element, layers })
    }

    pub fn text(&self) -> String {
        let right = Align::Right;
        let mut drawn = table(&[
            ("tensor", Align::Left),
            ("shape", Align::Left),
            ("coder", Align::Left),
            ("bins", right),
            ("bytes", right),
            ("bits", right),
            ("entropy", right),
            ("zeros", right),
            ("", Align::Left),
        ]);
        let most =
            self.layers.iter().filter(|layer| layer.packed.is_some()).map(|layer| layer.bits_per_element);
        let most = most.fold(1e-9, f64::max);
        for layer in &self.layers {
            let shape: Vec<String> = layer.shape.iter().map(usize::to_string).collect();
            let (coder, bins, entropy, zeros, bar) = layer.packed.as_ref().map_or_else(
                || (layer.kind.to_owned(), String::new(), String::new(), String::new(), String::new()),
                |inside| {
                    let states = inside.layout.states.map_or_else(String::new, |states| format!(":{states}"));
                    (
                        format!("{}{states}", inside.layout.coder),
                        inside.bins.to_string(),
                        format!("{:.3}", inside.entropy_bits),
                        format!("{:.1} %", 100.0 * inside.zeros),
                        super::bar(layer.bits_per_element / most / 2.0),
                    )
                },
            );
            let bits = format!("{:.3}", layer.bits_per_element);
            let bytes = grouped(layer.bytes as u64);
            drawn.add_row([
                layer.name.clone(),
                shape.join("x"),
                coder,
                bins,
                bytes,
                bits,
                entropy,
                zeros,
                bar,
            ]);
        }
        let (bytes, elements) = (grouped(self.bytes as u64), grouped(self.elements as u64));
        format!(
            "{}\n  {elements} elements in {bytes} bytes ({} of them header): {:.3} bits/element; all checksums are right\n\n{drawn}",
            self.file,
            grouped(self.header_bytes as u64),
            self.bits_per_element
        )
    }

    /// Bits a weight of each packed layer, in parts.
    pub fn draw(&self, path: &Path) -> Result<()> {
        let bars = self.layers.iter().filter_map(|layer| {
            let inside = layer.packed.as_ref()?;
            let bits = |bytes: usize| 8.0 * bytes as f64 / layer.elements as f64;
            let entropy =
                inside.entropy_bits.min(bits(inside.layout.payload_bytes + inside.layout.outlier_bytes));
            let above = bits(inside.layout.payload_bytes + inside.layout.outlier_bytes) - entropy;
            Some(Bar {
                name: layer.name.clone(),
                parts: vec![entropy, above, bits(inside.layout.header_bytes)],
            })
        });
        let chart = StackedBars {
            title: format!("{:.3} bits a weight, everything counted", self.bits_per_element),
            subtitle: format!(
                "{} elements in {} bytes",
                grouped(self.elements as u64),
                grouped(self.bytes as u64)
            ),
            width: 860,
            unit: "bits a weight".to_owned(),
            parts: vec![
                ("entropy".to_owned(), BLUE),
                ("above it".to_owned(), ORANGE),
                ("header, table, steps".to_owned(), GREY),
            ],
            bars: bars.collect(),
        };
        let destination = Destination::File(path.to_owned());
        destination.check(Existing::Replace)?;
        destination.write(chart.draw().as_bytes())
    }
}

impl Layer {
    fn of(file: &PackedFile, name: &str) -> narrows_weights::Result<Self> {
        let bytes = file.stored(name)?.len();
        let tensor = file.tensor(name)?;
        let (dtype, shape) = tensor.unpacked()?;
        let elements: usize = shape.iter().product();
        let (kind, packed) = match &tensor {
            Tensor::Packed(matrix) => ("packed", Some(Inside::of(matrix)?)),
            Tensor::Lossless(_) => ("lossless", None),
            Tensor::Plain(_) => ("plain", None),
        };
        Ok(Self {
            name: name.to_owned(),
            kind,
            dtype: dtype.to_string(),
            shape,
            elements,
            bytes,
            bits_per_element: 8.0 * bytes as f64 / elements.max(1) as f64,
            packed,
        })
    }
}

impl Inside {
    fn of(matrix: &narrows_weights::Matrix) -> narrows_weights::Result<Self> {
        let layout = matrix.layout();
        let mut counts = vec![0_u64; usize::from(matrix.grid().bins())];
        let half = i32::from(matrix.grid().half());
        // A chunk at a time: the whole may not fit.
        for start in (0..matrix.rows()).step_by(layout.chunk_rows) {
            let values = matrix.values(start..(start + layout.chunk_rows).min(matrix.rows()))?;
            values.iter().for_each(|&value| counts[(i32::from(value) + half) as usize] += 1);
        }
        let steps = matrix.grid().steps();
        Ok(Self {
            bins: matrix.grid().bins(),
            steps: steps.len(),
            smallest_step: steps.iter().copied().fold(f32::INFINITY, f32::min),
            largest_step: steps.iter().copied().fold(0.0, f32::max),
            entropy_bits: narrows_weights::entropy(&counts),
            zeros: counts[half as usize] as f64 / (matrix.rows() * matrix.columns()) as f64,
            layout,
        })
    }
}
