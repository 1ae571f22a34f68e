//! tANS alone, for `benches/tans.rs`; not part of the library.

use super::spec::Machine;
use super::{Scratch, decode, encode};
use crate::codec::Target;
use crate::codec::plan::{Counting, Plan};
use crate::cpu::Path;
use crate::frame::stream::{Coder, Order};
use crate::layout::Rows;
use crate::model::{Table, histogram};

/// Symbols with the table and the arrangement that an encoder would choose, or any other.
pub struct Tans {
    symbols: Vec<u8>,
    table: Table,
    rows: Rows,
    chunk_rows: usize,
    machine: Machine,
    scratch: Scratch,
    payload: Vec<u8>,
    lengths: Vec<u32>,
    decoded: Vec<u8>,
}

impl Tans {
    /// `symbols` of `alphabet` kinds, on `2^state_bits` states, in the encoder's choice of lanes and chunks.
    pub fn new(symbols: Vec<u8>, alphabet: usize, state_bits: u32, target: Target) -> Self {
        let (mut plan, mut counts) = (Plan::default(), Vec::new());
        histogram::count(Path::best(), &symbols, alphabet, &mut counts);
        let how = (target, Counting::Exact);
        plan.set_order_0(Coder::Tans { state_bits }, Order::Natural(symbols.len()), &counts, how);
        Self {
            decoded: vec![0; symbols.len()],
            symbols,
            table: plan.model.tables()[0].clone(),
            rows: plan.rows,
            chunk_rows: plan.chunk_rows,
            machine: Machine::default(),
            scratch: Scratch::default(),
            payload: Vec::new(),
            lengths: Vec::new(),
        }
    }

    /// The same in `lanes` lanes and chunks of `chunk_rows` rows.
    #[must_use]
    pub fn arranged(mut self, lanes: usize, chunk_rows: usize) -> Self {
        self.rows = Rows::natural(self.symbols.len(), lanes);
        self.chunk_rows = chunk_rows.min(self.rows.count());
        self
    }

    /// Lanes and chunks.
    pub fn arrangement(&self) -> (usize, usize) {
        (self.rows.lanes(), self.rows.count().div_ceil(self.chunk_rows))
    }

    /// Build the machine.
    pub fn build(&mut self) {
        self.machine.set(&self.table);
    }

    /// Symbols to bit streams; returns their bytes, first states included.
    pub fn encode(&mut self, path: Path) -> usize {
        self.payload.clear();
        self.lengths.clear();
        let Self { symbols, table, rows, chunk_rows, machine, scratch, payload, lengths, .. } = self;
        encode(path, symbols, (rows, *chunk_rows), (table, machine), scratch, payload, lengths);
        self.payload.len()
    }

    /// Bit streams to symbols.
    ///
    /// # Panics
    /// If they are not those that were encoded.
    pub fn decode(&mut self, path: Path) {
        let Self { rows, chunk_rows, machine, payload, lengths, decoded, .. } = self;
        decode(path, decoded, (rows, *chunk_rows), machine, payload, lengths).expect("a stream");
    }

    /// Whether what was decoded last is what was encoded.
    pub fn is_decoded(&self) -> bool {
        self.decoded == self.symbols
    }
}
