//! A plan for one stream: its model and arrangement, and what it will cost, before a symbol is coded.

use super::options::{CoderChoice, Target};
use crate::bits::width_of;
use crate::cpu::Path;
use crate::frame::stream::{Coder, Order, write_directory, write_form, write_model};
use crate::frame::varint_length;
use crate::layout::{Planes, Rows};
use crate::model::bins::BinCounter;
use crate::model::coding::{self, Scale};
use crate::model::lengths::Lengths;
use crate::model::neighbours::Neighbours;
use crate::model::{Classes, Context, Model, histogram};
use crate::rans;
use crate::tans;

/// Bytes that a lane adds to its chunk on average: a first state of 4 bytes, of which 8 bits are
/// information (a state is spread over `2^16..2^32` evenly in its logarithm).
const BYTES_PER_LANE: f64 = 3.0;
/// Bytes that a bit stream of tANS adds: half a byte of padding, and about 2 bytes of length.
const BYTES_PER_STREAM: f64 = 2.5;
/// Chunks that a processor decodes side by side, and rows that make one worth its bytes, for [`Target::Speed`].
const SIDE_BY_SIDE: usize = 4;
const SPEEDY_ROWS: usize = 32;
/// tANS states for [`Target::Speed`], log2: as many as registers hold on every path.
const SPEEDY_STATE_BITS: u32 = 6;
/// How many times the bytes of rANS they may take.
const SPEEDY_BYTES: f64 = 1.12;
/// Probability bits of [coarse](Plan) tables.
const COARSE_BITS: u32 = 12;
/// Bits of a table entry, for deciding which classes to merge before tables exist.
const BITS_PER_ENTRY: f64 = 4.5;
/// Symbols of a sample, at least, for [`Target::Speed`].
const SAMPLE: usize = 1 << 14;
/// A sample is at least one symbol in this many.
const RAREST: usize = 16;
/// About how many bins of a neighbours' sum a sample tells apart, for large alphabets: merging goes by the table entry.
const SAMPLED_BINS: usize = 16;
/// Alphabets beyond this have their bins told apart less finely.
const FEW_SYMBOLS: usize = 32;
/// Bits that a table entry seems to save in each symbol of a sample, where there is nothing to save: `log2(e) / 2`.
const BITS_OF_CHANCE: f64 = 0.72;
/// How much larger a payload may be than a sample led to expect, at most: relative, and bytes. Tables fit the sample they come
/// from better than the rest: 1 to 8.5 % on features whose exact tables would not have taken fewer bytes.
const SURPRISE: (f64, f64) = (1.10, 64.0);

/// Which symbols are looked at for tables and contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counting {
    /// All.
    Exact,
    /// A sample, where there are many.
    Sampled,
}

impl Counting {
    /// What suits a target.
    pub(crate) fn of(target: Target) -> Self {
        if target == Target::Speed { Self::Sampled } else { Self::Exact }
    }

    /// One symbol in how many is counted.
    pub(crate) fn every(self, symbols: usize) -> usize {
        if self == Self::Sampled { (symbols / SAMPLE).clamp(1, RAREST) } else { 1 }
    }
}

/// How one stream will be coded.
pub(crate) struct Plan {
    pub(crate) coder: Coder,
    pub(crate) order: Order,
    pub(crate) alphabet: usize,
    pub(crate) rows: Rows,
    pub(crate) chunk_rows: usize,
    pub(crate) model: Model,
    /// The model as it goes into the frame; empty if it comes from a profile.
    pub(crate) model_bytes: Vec<u8>,
    pub(crate) from_profile: bool,
    /// The one symbol of [`Coder::Constant`].
    pub(crate) symbol: usize,
    /// What the model expects the symbols to cost.
    pub(crate) symbol_bits: f64,
    /// Whether that is an estimate, from a sample of the symbols.
    sampled: bool,
    /// Whether frequencies are multiples of four, which makes decoding of many kinds of symbols faster.
    coarse: bool,
    /// Symbols counted by table.
    counts: Vec<u32>,
    bins: BinCounter,
    edges: Vec<u8>,
    weights: Vec<u32>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            coder: Coder::Packed,
            order: Order::Natural(0),
            alphabet: 2,
            rows: Rows::natural(0, 1),
            chunk_rows: 1,
            model: Model::default(),
            model_bytes: Vec::new(),
            from_profile: false,
            symbol: 0,
            symbol_bits: 0.0,
            sampled: false,
            coarse: false,
            counts: Vec::new(),
            bins: BinCounter::default(),
            edges: Vec::new(),
            weights: Vec::new(),
        }
    }
}

impl Plan {
    fn start(&mut self, coder: Coder, order: Order, alphabet: usize) {
        self.coder = coder;
        self.order = order;
        self.alphabet = alphabet;
        self.rows = order.rows(1);
        self.chunk_rows = self.rows.count().max(1);
        self.model_bytes.clear();
        self.from_profile = false;
        (self.sampled, self.coarse) = (false, false);
    }

    /// All symbols are `symbol`.
    pub(crate) fn set_constant(&mut self, order: Order, alphabet: usize, symbol: usize) {
        self.start(Coder::Constant, order, alphabet);
        self.symbol = symbol;
        self.symbol_bits = 0.0;
    }

    /// A fixed number of bits for each symbol.
    pub(crate) fn set_packed(&mut self, order: Order, alphabet: usize) {
        self.start(Coder::Packed, order, alphabet);
        self.symbol_bits = order.symbols() as f64 * f64::from(width_of(alphabet));
    }

    /// One table for all symbols, which `counts` counts.
    pub(crate) fn set_order_0(
        &mut self,
        coder: Coder,
        order: Order,
        counts: &[u32],
        (target, counting): (Target, Counting),
    ) {
        self.start(coder, order, counts.len());
        self.sampled = counting.every(order.symbols()) > 1;
        self.coarse = target == Target::Speed
            && coder == Coder::Rans
            && coder.probability_bits(counts.len()) == COARSE_BITS + 2
            && order.symbols() >= rans::COARSE_FROM;
        self.model.context = Context::None;
        self.counts.clear();
        self.counts.extend_from_slice(counts);
        self.fit_tables();
        self.arrange(target);
    }

    /// One table for all symbols, and the coder that suits the target: rANS, or for [`Target::Speed`] tANS unless that costs
    /// [much](SPEEDY_BYTES). Its row is two or three look-ups, and decodes about twice as fast on every path.
    pub(crate) fn set_free_order_0(&mut self, order: Order, counts: &[u32], how: (Target, Counting)) {
        self.set_order_0(Coder::Rans, order, counts, how);
        let tans = CoderChoice::tans(SPEEDY_STATE_BITS, counts);
        if how.0 != Target::Speed || tans != (Coder::Tans { state_bits: SPEEDY_STATE_BITS }) {
            return;
        }
        let most = SPEEDY_BYTES * self.bytes();
        self.set_order_0(tans, order, counts, how);
        if self.bytes() > most {
            self.set_order_0(Coder::Rans, order, counts, how);
        }
    }

    /// Neighbour contexts over plane order; `symbols` are in row-major order, and `all` counts them, as far as they
    /// [are counted](Counting).
    pub(crate) fn set_neighbours(
        &mut self,
        path: Path,
        (symbols, all): (&[u8], &[u32]),
        planes: &Planes,
        (target, counting): (Target, Counting),
    ) {
        let (order, alphabet) = (Order::Planes(*planes), all.len());
        self.start(Coder::Rans, order, alphabet);
        let rows = order.rows(rans::MAX_LANES);
        let every = counting.every(symbols.len());
        let symbols = Neighbours { natural: symbols, planes, rows: &rows };
        if every > 1 {
            return self.sample_neighbours(path, &symbols, (every, all), target);
        }
        self.bins.count(path, &symbols, alphabet, &mut self.counts);
        if counting == Counting::Sampled {
            self.join_bins();
        }
        let classes = Classes::merge(alphabet, &mut self.counts, BITS_PER_ENTRY);
        self.model.context = Context::Neighbours(classes);
        self.fit_tables();
        self.arrange(target);
        if self.chunks_cut_planes() {
            let symbols = Neighbours { rows: &self.rows, ..symbols };
            let Context::Neighbours(classes) = &self.model.context else { unreachable!("it was just set") };
            self.bins.cut(path, &symbols, self.chunk_rows, (classes, alphabet), &mut self.counts);
            self.fit_tables();
        }
    }

    /// As [`Plan::set_neighbours`], of one symbol in `every`, where `all` says which symbols there are.
    fn sample_neighbours(
        &mut self,
        path: Path,
        symbols: &Neighbours<'_>,
        (every, all): (usize, &[u32]),
        target: Target,
    ) {
        self.sampled = true;
        self.bins.sample(path, symbols, self.alphabet, every, &mut self.counts);
        self.counts.iter_mut().for_each(|n| *n *= every as u32);
        self.join_bins();
        let bits_per_entry = BITS_PER_ENTRY + BITS_OF_CHANCE * every as f64;
        let classes = Classes::merge(self.alphabet, &mut self.counts, bits_per_entry);
        self.model.context = Context::Neighbours(classes);
        for counts in self.counts.chunks_exact_mut(self.alphabet) {
            counts.iter_mut().zip(all).filter(|(n, all)| **n == 0 && **all > 0).for_each(|(n, _)| *n = 1);
        }
        self.fit_tables();
        self.arrange(target);
    }

    /// Add up neighbouring bins of large alphabets, whose merging would take longer than coding.
    fn join_bins(&mut self) {
        if self.alphabet > FEW_SYMBOLS {
            let together = Classes::bins(self.alphabet) / SAMPLED_BINS * self.alphabet;
            // Bins left empty join the one before them.
            for bins in self.counts.chunks_mut(together) {
                let (first, others) = bins.split_at_mut(self.alphabet);
                for bin in others.chunks_exact_mut(self.alphabet) {
                    first.iter_mut().zip(&mut *bin).for_each(|(sum, n)| *sum += std::mem::take(n));
                }
            }
        }
    }

    /// Whether a payload of `bytes` is so much larger than expected that the sample was a bad one.
    pub(crate) fn is_surprised(&self, bytes: usize) -> bool {
        let lanes = self.bytes_per_lane() * self.lanes_in_all_chunks() as f64;
        self.sampled && bytes as f64 > SURPRISE.0 * (self.symbol_bits / 8.0 + lanes) + SURPRISE.1
    }

    /// Tables by segment; `coded` holds the symbols.
    pub(crate) fn set_segments(&mut self, coded: &[u16], order: Order, alphabet: usize, target: Target) {
        self.start(Coder::Rans, order, alphabet);
        let Order::Segments(_, ends) = order else { unreachable!("segments are an order of their own") };
        self.model.context = Context::Segments { ends };
        let (rows, chunk_rows) = (self.rows, self.chunk_rows);
        self.model.context.count(coded, &rows, chunk_rows, alphabet, &mut self.counts);
        self.fit_tables();
        self.arrange(target);
    }

    /// A profile's model, whose symbols have these lengths; `symbols` are in row-major order.
    pub(crate) fn set_profile(
        &mut self,
        path: Path,
        symbols: &[u8],
        (lengths, alphabet): (&Lengths, usize),
        planes: &Planes,
        target: Target,
    ) {
        let order = Order::Planes(*planes);
        self.start(Coder::Rans, order, alphabet);
        self.from_profile = true;
        let rows = order.rows(rans::MAX_LANES);
        let symbols = Neighbours { natural: symbols, planes, rows: &rows };
        self.symbol_bits = lengths.bits(path, &symbols, &mut self.edges);
        self.arrange(target);
    }

    /// A plan somebody else has made: rANS in plane order with this context, these rows and chunks, and
    /// symbols counted by table; without counts the tables are a profile's.
    pub(crate) fn set_given(
        &mut self,
        (order, lanes, chunk_rows): (Order, usize, usize),
        alphabet: usize,
        context: Context,
        counts: Option<&[u32]>,
    ) {
        self.start(Coder::Rans, order, alphabet);
        self.rows = order.rows(lanes);
        self.chunk_rows = chunk_rows;
        self.model.context = context;
        self.from_profile = counts.is_none();
        if let Some(counts) = counts {
            self.counts.clear();
            self.counts.extend_from_slice(counts);
            self.fit_tables();
        }
    }

    /// Count the symbols of a plan with a profile by its tables, for their entropy.
    pub(crate) fn count_profile(&mut self, path: Path, symbols: &[u8], planes: &Planes, model: &Model) {
        let symbols = Neighbours { natural: symbols, planes, rows: &self.rows };
        self.bins.count(path, &symbols, self.alphabet, &mut self.counts);
        if let Context::Neighbours(classes) = &model.context {
            classes.fold(&mut self.counts);
        }
    }

    /// Whether a chunk starts within a plane, so that symbols there have other contexts than was counted.
    const fn chunks_cut_planes(&self) -> bool {
        self.chunk_rows < self.rows.count() && !self.chunk_rows.is_multiple_of(self.rows.positions())
    }

    fn fit_tables(&mut self) {
        let bits = self.coder.probability_bits(self.alphabet);
        let entries = self.counts.iter().filter(|&&n| n > 0).count();
        let mantissa =
            if self.coarse { COARSE_BITS } else { coding::mantissa_bits(self.order.symbols(), entries) };
        let scale = Scale { bits, mantissa };
        self.weights.clear();
        for counts in self.counts.chunks_exact(self.alphabet) {
            let total = counts.iter().map(|&n| u64::from(n)).sum::<u64>();
            let first = self.weights.len();
            if self.coarse {
                coding::coarse_weights(counts, 1 << COARSE_BITS, &mut self.weights);
            } else {
                self.weights.extend(counts.iter().map(|&n| coding::weight(n, total.max(1), scale)));
            }
            if total == 0 {
                self.weights[first] = 1;
            }
        }
        let tables = self.model.tables_mut().iter_mut();
        for (table, weights) in tables.zip(self.weights.chunks_exact_mut(self.alphabet)) {
            if self.coarse {
                // Weights that add up to a quarter of the frequencies' sum make frequencies four times as large.
                table.normalize(weights, COARSE_BITS).expect("alphabets are no larger than tables");
                weights.iter_mut().zip(table.frequencies()).for_each(|(w, &f)| *w = f.into());
            }
            table.normalize(weights, bits).expect("alphabets are no larger than tables");
        }
        self.symbol_bits = self.model.cost_bits(&self.counts);
        self.model_bytes.clear();
        write_model(&self.model.context, &self.weights, scale, &mut self.model_bytes);
    }

    /// Choose lanes and chunks for a payload of this size.
    fn arrange(&mut self, target: Target) {
        let payload = self.symbol_bits / 8.0;
        let affordable = (payload * target.overhead() / self.bytes_per_lane()) as usize;
        let least = match payload as usize {
            0..100 => 1,
            100..400 => 2,
            _ => 4,
        };
        let most = match self.coder {
            Coder::Tans { .. } => tans::MAX_LANES,
            _ => rans::MAX_LANES,
        };
        let columns = match self.order {
            Order::Planes(planes) => planes.count(),
            _ => self.order.symbols(),
        };
        let least = if target == Target::Speed { most } else { least };
        let lanes = affordable.clamp(least, most).min(columns).max(1);
        self.rows = self.order.rows(1 << lanes.ilog2());
        let side_by_side = match target {
            Target::Speed => (self.rows.count() / SPEEDY_ROWS).clamp(1, SIDE_BY_SIDE),
            Target::Size | Target::Latency => 1,
        };
        let chunks = (affordable / most).max(side_by_side);
        // Beyond one set of chunks decoded side by side, whole sets.
        let chunks = if chunks > SIDE_BY_SIDE { chunks / SIDE_BY_SIDE * SIDE_BY_SIDE } else { chunks };
        let (count, positions, line) = (self.rows.count(), self.rows.positions(), self.rows.line());
        let groups = count.div_ceil(positions.max(1));
        self.chunk_rows = if chunks <= groups {
            groups.div_ceil(chunks) * positions
        } else {
            (positions / line).div_ceil(chunks.div_ceil(groups)) * line
        }
        .clamp(1, count.max(1));
    }

    fn bytes_per_lane(&self) -> f64 {
        match self.coder {
            Coder::Tans { state_bits } => {
                f64::from(state_bits) / 8.0 + BYTES_PER_STREAM / tans::LANES_PER_STREAM as f64
            }
            _ => BYTES_PER_LANE,
        }
    }

    /// Chunks.
    pub(crate) const fn chunks(&self) -> usize {
        self.rows.count().div_ceil(self.chunk_rows)
    }

    /// Estimated bytes of the stream.
    pub(crate) fn bytes(&self) -> f64 {
        let payload = self.symbol_bits / 8.0;
        match self.coder {
            Coder::Constant => 1.0 + varint_length(self.symbol as u64) as f64,
            Coder::Packed => 1.0 + payload.ceil(),
            Coder::Rans => {
                let chunks = self.chunks() as f64;
                let words_each = (payload / 2.0 / chunks).max(1.0) as u64;
                let mut directory = chunks * varint_length(words_each) as f64;
                if chunks > 1.0 {
                    directory += varint_length(self.chunk_rows as u64) as f64;
                }
                let lanes = BYTES_PER_LANE * self.lanes_in_all_chunks() as f64;
                1.0 + self.model_bytes.len() as f64 + directory + payload + lanes
            }
            Coder::Tans { state_bits } => {
                let lanes = self.lanes_in_all_chunks() as f64;
                let streams = (lanes / tans::LANES_PER_STREAM as f64).ceil();
                // A lane's first state, of which the last bit or so is information.
                let states = lanes * f64::from(state_bits) / 8.0;
                2.0 + self.model_bytes.len() as f64 + payload + states + BYTES_PER_STREAM * streams
            }
        }
    }

    /// Lanes of all chunks together.
    pub(crate) fn lanes_in_all_chunks(&self) -> usize {
        let chunks = crate::model::chunks(&self.rows, self.chunk_rows);
        chunks.map(|chunk| self.rows.width(chunk.start)).sum()
    }

    /// What an ideal coder with ideal tables would need for the symbols, given the contexts.
    pub(crate) fn entropy_bits(&self) -> f64 {
        self.counts.chunks_exact(self.alphabet).map(|n| histogram::entropy_bits(n.iter().copied())).sum()
    }

    /// Append the stream's header, model and directory.
    pub(crate) fn write_header(&self, lengths: &[u32], out: &mut Vec<u8>) {
        write_form(self.coder, &self.rows, self.chunk_rows, self.from_profile, out);
        match self.coder {
            Coder::Constant => crate::frame::put_varint(out, self.symbol as u64),
            Coder::Packed => {}
            Coder::Rans | Coder::Tans { .. } => {
                out.extend_from_slice(&self.model_bytes);
                write_directory(&self.rows, self.chunk_rows, lengths, out);
            }
        }
    }
}
