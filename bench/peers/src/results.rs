//! What a run finds, as `bench/results/cpu.json` holds it.

use serde::Serialize;

use crate::data::entropy_bytes;
use crate::machine::Machine;

/// Everything in the file.
pub struct Results {
    /// Where it ran.
    pub machine: Machine,
    /// What could not take part.
    pub missing: Vec<Missing>,
    /// One for each coder on each data.
    pub rows: Vec<Row>,
    /// The promises, measured.
    pub must_hold: Vec<Promise>,
}

impl Results {
    /// The file: a row a line, so that two runs compare line by line.
    pub fn json(&self) -> String {
        let lines = |parts: Vec<String>| format!("[\n{}\n]", parts.join(",\n"));
        let rows = self.rows.iter().map(json).collect();
        let must_hold = self.must_hold.iter().map(json).collect();
        format!(
            "{{\"machine\": {},\n\"missing\": {},\n\"must_hold\": {},\n\"rows\": {}}}\n",
            json(&self.machine),
            json(&self.missing),
            lines(must_hold),
            lines(rows)
        )
    }
}

/// A peer that could not be built or did not give its input back, or data that were not there.
#[derive(Serialize)]
pub struct Missing {
    /// Its name.
    pub coder: String,
    /// Why.
    pub reason: String,
}

/// One coder on one array.
#[derive(Clone, Serialize)]
pub struct Row {
    /// The array's name.
    pub data: String,
    /// Symbols.
    pub n: usize,
    /// Kinds of symbols.
    pub alphabet: u16,
    /// Library and method.
    pub coder: String,
    /// Instruction set; `native` for whatever the library picks by itself.
    pub path: String,
    /// Encoded size, tables and all.
    pub bytes: usize,
    /// Order-0 entropy of the symbols.
    pub entropy_bytes: f64,
    /// Nanoseconds to encode the array, median of the repeats.
    pub encode_ns: f64,
    /// Nanoseconds to decode it, median of the repeats.
    pub decode_ns: f64,
    /// The best repeat.
    pub encode_best_ns: f64,
    /// The best repeat.
    pub decode_best_ns: f64,
    /// Interleaved repeats.
    pub repeats: usize,
}

fn json(part: &impl Serialize) -> String {
    serde_json::to_string(part).expect("numbers and names")
}

/// To a tenth: no clock here is better.
pub fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Encode,
    Decode,
}

impl Row {
    /// A row that waits for its times.
    pub fn untimed(data: &str, symbols: &[u8], alphabet: u16, names: [String; 2], bytes: usize) -> Self {
        let [coder, path] = names;
        Self {
            data: data.to_owned(),
            n: symbols.len(),
            alphabet,
            coder,
            path,
            bytes,
            entropy_bytes: rounded(entropy_bytes(symbols)),
            encode_ns: 0.0,
            decode_ns: 0.0,
            encode_best_ns: 0.0,
            decode_best_ns: 0.0,
            repeats: 0,
        }
    }

    /// Whether it is about the same array.
    pub fn same_array(&self, other: &Self) -> bool {
        (&self.data, self.n) == (&other.data, other.n)
    }

    /// Whether the coder gave up and copied the symbols, which is no decoding to compare with.
    pub fn stored(&self) -> bool {
        self.bytes >= self.n
    }

    /// Median nanoseconds of one way.
    pub fn median(&self, way: Way) -> f64 {
        if way == Way::Encode { self.encode_ns } else { self.decode_ns }
    }

    /// Nanoseconds of the best repeat of one way.
    pub fn best(&self, way: Way) -> f64 {
        if way == Way::Encode { self.encode_best_ns } else { self.decode_best_ns }
    }
}

/// A line of the table of what must hold.
#[derive(Serialize)]
pub struct Promise {
    /// What is promised.
    pub work: String,
    /// The bound: a ratio that must be reached, or microseconds that must not be exceeded.
    pub bound: f64,
    /// The worst median over the data it is about; `None` if nothing was measured.
    pub measured: Option<f64>,
    /// The same of the best repeats.
    pub measured_best: Option<f64>,
    /// The data with the worst.
    pub worst_on: String,
    /// The same promise held against something else (medians), for comparison.
    pub beside: Vec<(String, f64)>,
    /// Whether it holds (by the medians); `None` if nothing was measured.
    pub met: Option<bool>,
}
