//! Arrays of symbols through every coder.

use std::rc::Rc;

use crate::coders::{self, Coder, Failure};
use crate::data::Data;
use crate::measure::{Budget, Work, measure, median_and_best};
use crate::results::{Missing, Row};

struct OnSymbols {
    coder: Box<dyn Coder>,
    symbols: Rc<[u8]>,
    stream: Vec<u8>,
    back: Vec<u8>,
}

impl OnSymbols {
    /// There and back; gives the stream's length.
    fn verify(&mut self) -> Result<usize, Failure> {
        self.coder.prepare();
        self.coder.encode(&self.symbols, &mut self.stream)?;
        self.coder.decode(&self.stream, &mut self.back)?;
        if self.back == *self.symbols { Ok(self.stream.len()) } else { Err("other symbols came back".into()) }
    }
}

impl Work for OnSymbols {
    fn prepare(&mut self) {
        self.coder.prepare();
    }

    fn encode(&mut self) {
        self.coder.encode(&self.symbols, &mut self.stream).expect("it encoded these before");
    }

    fn decode(&mut self) {
        self.coder.decode(&self.stream, &mut self.back).expect("it decoded these before");
    }
}

/// Measure every coder on `data`; one that does not give the symbols back goes to `missing`.
pub fn rows(data: &Data, budget: Budget, missing: &mut Vec<Missing>) -> Vec<Row> {
    let n = data.symbols.len();
    let (mut works, mut rows) = (Vec::<Box<dyn Work>>::new(), Vec::new());
    for entry in coders::all(data) {
        let symbols = Rc::clone(&data.symbols);
        let mut work = OnSymbols { coder: entry.of, symbols, stream: Vec::new(), back: vec![0; n] };
        match work.verify() {
            Ok(bytes) => {
                works.push(Box::new(work));
                let names = [entry.coder, entry.path];
                rows.push(Row::untimed(&data.name, &data.symbols, data.alphabet, names, bytes));
            }
            Err(error) => {
                let coder = format!("{} ({})", entry.coder, entry.path);
                missing.push(Missing { coder, reason: format!("{}, {n} symbols: {error}", data.name) });
            }
        }
    }
    fill(&mut rows, &mut works, budget);
    rows
}

/// Measure the works and put the times into their rows.
pub fn fill(rows: &mut [Row], works: &mut [Box<dyn Work>], budget: Budget) {
    for (row, times) in rows.iter_mut().zip(measure(works, budget)) {
        (row.encode_ns, row.encode_best_ns) = median_and_best(&times.encode);
        (row.decode_ns, row.decode_best_ns) = median_and_best(&times.decode);
        row.repeats = times.encode.len();
    }
}
