//! What quantised weights take when they are stored.

use serde::{Deserialize, Serialize};

use narrows_weights::net::Network;

/// Bits of a stored network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Weights that are counted.
    pub weights: u64,
    /// Entropy of their bins, one table for each layer.
    pub entropy_bits: f64,
    /// The tables.
    pub table_bits: f64,
    /// Steps and biases.
    pub scale_bits: f64,
    /// Names, shapes and places of the tensors.
    pub header_bits: f64,
}

/// Steps of a layer lie within two or three octaves: bfloat16 numbers, of which what they share is stored once.
const STEP_BITS: f64 = 9.0;
/// Biases are stored as float16.
const BIAS_BITS: f64 = 16.0;
/// What a safetensors header says of a tensor besides its name: element type, shape and place, in bytes; two more
/// tensors hold a layer's stream and its table.
const HEADER_BYTES: usize = 60;
const TENSORS_OF_LAYER: usize = 3;

impl Rate {
    /// The rate of a network whose layers have these histograms.
    pub fn of(network: &Network, histograms: &[Vec<u64>]) -> Self {
        let mut rate = Self { weights: network.weights() as u64, ..Self::default() };
        for (layer, counts) in network.layers().iter().zip(histograms) {
            rate.entropy_bits += entropy(counts) * counts.iter().sum::<u64>() as f64;
            rate.table_bits += table_bits(counts);
            // A step and a bias for each output channel.
            rate.scale_bits += (STEP_BITS + BIAS_BITS) * layer.outputs() as f64;
            let names = TENSORS_OF_LAYER * (layer.name.len() + HEADER_BYTES);
            rate.header_bits += 8.0 * names as f64;
        }
        rate
    }

    /// Everything, in bits.
    pub fn total_bits(&self) -> f64 {
        self.entropy_bits + self.table_bits + self.scale_bits + self.header_bits
    }

    /// Everything, in bits per weight.
    pub fn bits_per_weight(&self) -> f64 {
        self.total_bits() / self.weights as f64
    }

    /// Steps, biases and names, in bits per weight: what no weight's bin changes.
    pub fn fixed_per_weight(&self) -> f64 {
        (self.scale_bits + self.header_bits) / self.weights as f64
    }

    /// The entropy of the bins alone, in bits per weight.
    pub fn entropy_per_weight(&self) -> f64 {
        self.entropy_bits / self.weights as f64
    }
}

/// Order-0 entropy of symbols that were counted, in bits a symbol.
pub fn entropy(counts: &[u64]) -> f64 {
    let total = counts.iter().sum::<u64>() as f64;
    let bits = |&count: &u64| if count == 0 { 0.0 } else { -(count as f64) * (count as f64 / total).log2() };
    if total == 0.0 { 0.0 } else { counts.iter().map(bits).sum::<f64>() / total }
}

/// Bits of a table of normalised frequencies: a float16 for each bin from the first in use to the last, and two
/// bytes that say which those are. Real tables are smaller; this is what a reader could check by hand.
pub fn table_bits(counts: &[u64]) -> f64 {
    let used = |count: &u64| *count > 0;
    let (first, last) = (counts.iter().position(used), counts.iter().rposition(used));
    let span = first.zip(last).map_or(0, |(first, last)| last + 1 - first);
    16.0 * (span as f64 + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_of_known_counts() {
        assert_eq!(entropy(&[5, 5, 0]), 1.0);
        assert_eq!(entropy(&[7]), 0.0);
        assert_eq!(entropy(&[]), 0.0);
        assert!((entropy(&[1, 1, 2]) - 1.5).abs() < 1e-12);
    }

    #[test]
    fn tables_cost_what_lies_between_their_ends() {
        assert_eq!(table_bits(&[0, 3, 0, 9, 0]), 64.0);
        assert_eq!(table_bits(&[0, 0]), 16.0);
    }
}
