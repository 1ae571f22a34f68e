//! Encoding 64 lanes at once, for machines of up to 256 states and alphabets of up to 64 symbols, whose tables
//! vector registers hold.
//!
//! With `S` states, state `y` stands for `x = S + y`. Symbol `s` puts out `n = k` bits, or one less if `y < t`, `t`
//! being `(f << k) - S`; then it moves to the state `of_symbol[(y >> n) + (S >> n) + c - f]`, of which all but `y >> n`
//! is known of the symbol and either `n`. Eight lanes' bits are put together in 64, and these before those of the rows after,
//! since the encoder runs backward. Whole bytes are written after two or four rows, as many as most likely fit a word: asking after each
//! whether the next one fits is a branch that nothing predicts.

use super::backward::{self, Backward, MARGIN};
use super::chunk::Runs;
use super::lanes::{Lanes, each_word};
use super::rows::{HALVES, LOWER_HALVES, UPPER_HALVES};
use super::spec::Machine;
use super::{LANES_PER_STREAM, MAX_LANES, MAX_STREAMS};

/// The largest alphabet.
pub(crate) const MAX_ALPHABET: usize = 64;

/// A machine in registers, for encoding.
struct Tables<L: Lanes> {
    thresholds: L::Table,
    counts: L::Table,
    /// What is added to `y >> n` from the threshold on, and below it.
    above: L::Table,
    below: L::Table,
    of_symbol: L::Table,
}

impl<L: Lanes> Tables<L> {
    #[inline(always)]
    fn new(lanes: L, machine: &Machine) -> Self {
        let states = 1_u32 << machine.bits;
        let mut bytes = [[0; 256]; 5];
        for (symbol, step) in machine.steps.iter().enumerate().filter(|(_, step)| step.more > 0) {
            // `more` is (k << 16) - (f << k), and f << k is at most 2^13.
            let k = (step.more >> 16) + 1;
            let threshold = (k << 16) - step.more - states;
            bytes[0][symbol] = threshold as u8;
            bytes[1][symbol] = k.min(machine.most_bits) as u8;
            bytes[2][symbol] = (states >> k).wrapping_add(step.offset) as u8;
            bytes[3][symbol] = (states >> (k - 1)).wrapping_add(step.offset) as u8;
        }
        for (byte, &state) in bytes[4].iter_mut().zip(&machine.of_symbol) {
            *byte = state as u8;
        }
        let [thresholds, counts, above, below, of_symbol] = bytes.map(|bytes| lanes.table(&bytes));
        Self { thresholds, counts, above, below, of_symbol }
    }
}

/// Bits of a stream that are put out at once, at most: they fit a word with those of a byte that is not whole.
const MOST_AT_ONCE: u64 = 56;

/// What a row puts out.
#[derive(Clone, Copy)]
struct Row<L: Lanes> {
    /// The bits of four lanes in each half of a word, from its lowest bit on.
    halves: L::Bytes,
    /// Bits of each lane.
    counts: L::Bytes,
    /// Bits of each word.
    taken: L::Bytes,
}

impl<L: Lanes> Row<L> {
    #[inline(always)]
    fn lower(self, lanes: L) -> L::Bytes {
        lanes.and(self.halves, lanes.load(&LOWER_HALVES))
    }

    #[inline(always)]
    fn upper(self, lanes: L) -> L::Bytes {
        lanes.funnel::<63>(self.halves, lanes.load(&[0; MAX_LANES]), lanes.load(&HALVES))
    }

    #[inline(always)]
    fn lower_counts(self, lanes: L) -> L::Bytes {
        lanes.totals(lanes.and(self.counts, lanes.load(&LOWER_HALVES)))
    }

    /// The bits of all eight lanes of each stream.
    #[inline(always)]
    fn word(self, lanes: L) -> L::Bytes {
        lanes.or(self.lower(lanes), lanes.shift_left_words(self.upper(lanes), self.lower_counts(lanes)))
    }
}

/// 64 lanes on their way back through a chunk.
struct Strip<L: Lanes, const BITS: u32, const SYMBOL_BITS: u32> {
    states: L::Bytes,
    /// The first bits of each stream so far that are not written yet, and how many.
    pending: L::Bytes,
    counts: L::Bytes,
    /// Where each stream's written bytes begin.
    at: [usize; MAX_STREAMS],
}

impl<L: Lanes, const BITS: u32, const SYMBOL_BITS: u32> Strip<L, BITS, SYMBOL_BITS> {
    /// Encode a run of full rows, the last one first, `ROWS` at once as long as there are so many.
    #[inline(always)]
    fn run<const ROWS: usize>(
        &mut self,
        lanes: L,
        tables: &Tables<L>,
        rows: &[[u8; MAX_LANES]],
        bytes: &mut [u8],
    ) {
        let (first, groups) = rows.as_rchunks::<ROWS>();
        for rows in groups.iter().rev() {
            self.rows(lanes, tables, rows, bytes);
        }
        for row in first.iter().rev() {
            let row = self.row(lanes, tables, lanes.load(row), None);
            self.put(lanes, row, bytes);
        }
    }

    /// Encode rows, the last one first, whose bits are likely to fit one word.
    #[inline(always)]
    fn rows<const ROWS: usize>(
        &mut self,
        lanes: L,
        tables: &Tables<L>,
        rows: &[[u8; MAX_LANES]; ROWS],
        bytes: &mut [u8],
    ) {
        let last = self.row(lanes, tables, lanes.load(&rows[ROWS - 1]), None);
        let (mut all, mut word, mut taken) = ([last; ROWS], last.word(lanes), last.taken);
        for (row, symbols) in all[1..].iter_mut().zip(rows.iter().rev().skip(1)) {
            *row = self.row(lanes, tables, lanes.load(symbols), None);
            word = lanes.or(row.word(lanes), lanes.shift_left_words(word, row.taken));
            taken = lanes.add(taken, row.taken);
        }
        if lanes.any_above(taken, MOST_AT_ONCE) {
            for row in all {
                self.put(lanes, row, bytes);
            }
            return;
        }
        self.push(lanes, word, taken);
        self.flush(lanes, bytes);
    }

    /// What a row puts out; lanes whose bytes in `used` are 0 put nothing out and stay as they are.
    #[inline(always)]
    fn row(&mut self, lanes: L, tables: &Tables<L>, symbols: L::Bytes, used: Option<L::Bytes>) -> Row<L> {
        let below = lanes.less(self.states, lanes.look_up::<SYMBOL_BITS>(&tables.thresholds, symbols));
        let most = lanes.look_up::<SYMBOL_BITS>(&tables.counts, symbols);
        let less = lanes.add_bytes(most, lanes.load(&[255; MAX_LANES]));
        let mut counts = lanes.choose(below, less, most);
        let offsets = lanes.choose(
            below,
            lanes.look_up::<SYMBOL_BITS>(&tables.below, symbols),
            lanes.look_up::<SYMBOL_BITS>(&tables.above, symbols),
        );
        let index = lanes.add_bytes(offsets, lanes.shift_right(self.states, counts));
        let mut next = lanes.look_up::<BITS>(&tables.of_symbol, index);
        if let Some(used) = used {
            counts = lanes.and(counts, used);
            next = lanes.select(used, next, self.states);
        }
        let bits = lanes.and(self.states, lanes.low_bits(counts));
        self.states = next;
        Row { halves: lanes.gather_halves(bits, counts), counts, taken: lanes.totals(counts) }
    }

    /// Put a row's bits before those pending, and write whole bytes.
    #[inline(always)]
    fn put(&mut self, lanes: L, row: Row<L>, bytes: &mut [u8]) {
        if BITS == 8 && lanes.any_above(row.taken, MOST_AT_ONCE) {
            let upper_counts = lanes.totals(lanes.and(row.counts, lanes.load(&UPPER_HALVES)));
            self.push(lanes, row.upper(lanes), upper_counts);
            self.flush(lanes, bytes);
            self.push(lanes, row.lower(lanes), row.lower_counts(lanes));
        } else {
            self.push(lanes, row.word(lanes), row.taken);
        }
        self.flush(lanes, bytes);
    }

    #[inline(always)]
    fn push(&mut self, lanes: L, bits: L::Bytes, counts: L::Bytes) {
        self.pending = lanes.or(bits, lanes.shift_left_words(self.pending, counts));
        self.counts = lanes.add(self.counts, counts);
    }

    /// Write the whole bytes of what is pending.
    #[inline(always)]
    fn flush(&mut self, lanes: L, bytes: &mut [u8]) {
        let zero = lanes.load(&[0; MAX_LANES]);
        // The last bit on top: up by 63 less the count (its bits turned round), and one more.
        let missing = lanes.select(self.counts, zero, lanes.load(&MOST_PENDING));
        let aligned = lanes.shift_left_words(self.pending, missing);
        let aligned = words(lanes, lanes.add(aligned, aligned));
        for (at, word) in self.at.iter().zip(aligned) {
            bytes[at - 8..*at].copy_from_slice(&word.to_le_bytes());
        }
        let whole = words(lanes, lanes.funnel::<63>(self.counts, zero, lanes.load(&BITS_OF_BYTES)));
        self.at.iter_mut().zip(whole).for_each(|(at, whole)| *at -= whole as usize);
        self.counts = lanes.and(self.counts, lanes.load(&BITS_LEFT));
    }
}

/// In each word: the most bits that are pending, log2 of the bits of a byte, and the bits left when whole bytes are written.
const MOST_PENDING: [u8; MAX_LANES] = each_word([63, 0, 0, 0, 0, 0, 0, 0]);
const BITS_OF_BYTES: [u8; MAX_LANES] = each_word([3, 0, 0, 0, 0, 0, 0, 0]);
const BITS_LEFT: [u8; MAX_LANES] = each_word([7, 0, 0, 0, 0, 0, 0, 0]);

#[inline(always)]
fn words<L: Lanes>(lanes: L, vector: L::Bytes) -> [u64; MAX_STREAMS] {
    let mut bytes = [0; MAX_LANES];
    lanes.store(vector, &mut bytes);
    let (chunks, _) = bytes.as_chunks();
    let mut words = [0; MAX_STREAMS];
    for (word, &bytes) in words.iter_mut().zip(chunks) {
        *word = u64::from_le_bytes(bytes);
    }
    words
}

/// Encode every row of a chunk: appends its bit streams to `payload` and their lengths to `lengths`, and
/// returns the lanes' first states.
#[inline(always)]
pub(crate) fn encode<L: Lanes>(
    lanes: L,
    coded: &[u8],
    runs: &Runs,
    machine: &Machine,
    backward: &mut Backward,
    payload: &mut Vec<u8>,
    lengths: &mut Vec<u32>,
) -> [u16; MAX_LANES] {
    match (machine.bits, machine.steps.len()) {
        (6, 0..=16) => encode_chunk::<L, 6, 4>(lanes, coded, runs, machine, backward, payload, lengths),
        (7, 0..=16) => encode_chunk::<L, 7, 4>(lanes, coded, runs, machine, backward, payload, lengths),
        (8, 0..=16) => encode_chunk::<L, 8, 4>(lanes, coded, runs, machine, backward, payload, lengths),
        (6, 17..=MAX_ALPHABET) => {
            encode_chunk::<L, 6, 6>(lanes, coded, runs, machine, backward, payload, lengths)
        }
        (7, 17..=MAX_ALPHABET) => {
            encode_chunk::<L, 7, 6>(lanes, coded, runs, machine, backward, payload, lengths)
        }
        (8, 17..=MAX_ALPHABET) => {
            encode_chunk::<L, 8, 6>(lanes, coded, runs, machine, backward, payload, lengths)
        }
        _ => unreachable!("states fit into bytes and symbols into registers"),
    }
}

/// Whether four rows' bits most likely make [`MOST_AT_ONCE`] at most: eight symbols take as many each as the states do on
/// average.
fn four_rows_fit(machine: &Machine) -> bool {
    let bits: u32 = machine.states.iter().map(|state| state.bits()).sum();
    let row = f64::from(bits) / machine.states.len() as f64 * LANES_PER_STREAM as f64;
    4.0 * row <= LIKELY_TO_FIT
}

/// Bits of some rows on average, so that their sum rarely exceeds [`MOST_AT_ONCE`] in any of eight streams.
const LIKELY_TO_FIT: f64 = 44.0;

#[inline(always)]
fn encode_chunk<L: Lanes, const BITS: u32, const SYMBOL_BITS: u32>(
    lanes: L,
    coded: &[u8],
    runs: &Runs,
    machine: &Machine,
    backward: &mut Backward,
    payload: &mut Vec<u8>,
    lengths: &mut Vec<u32>,
) -> [u16; MAX_LANES] {
    let tables = Tables::new(lanes, machine);
    let four_at_once = four_rows_fit(machine);
    let row_bits = LANES_PER_STREAM * machine.most_bits as usize;
    let (bytes, room) = backward.side_by_side(MAX_STREAMS, runs.rows() * row_bits);
    let zero = lanes.load(&[0; MAX_LANES]);
    let mut at = [0; MAX_STREAMS];
    at.iter_mut().enumerate().for_each(|(stream, at)| *at = (stream + 1) * room - MARGIN);
    let mut strip = Strip::<L, BITS, SYMBOL_BITS> { states: zero, pending: zero, counts: zero, at };
    for (run, range) in runs.iter().rev() {
        let symbols = &coded[range];
        if run.width == MAX_LANES {
            let rows = symbols.as_chunks().0;
            if four_at_once {
                strip.run::<4>(lanes, &tables, rows, bytes);
            } else {
                strip.run::<2>(lanes, &tables, rows, bytes);
            }
            continue;
        }
        let mut used = [0; MAX_LANES];
        used[..run.width].fill(255);
        let used = lanes.load(&used);
        for row in (0..run.rows).rev() {
            let from = row * run.width;
            let row = if let Some(row) = symbols[from..].first_chunk() {
                lanes.load(row)
            } else {
                let mut bytes = [0; MAX_LANES];
                bytes[..run.width].copy_from_slice(&symbols[from..from + run.width]);
                lanes.load(&bytes)
            };
            let row = strip.row(lanes, &tables, row, Some(used));
            strip.put(lanes, row, bytes);
        }
    }
    strip.flush(lanes, bytes);
    let (pending, counts) = (words(lanes, strip.pending), words(lanes, strip.counts));
    for (stream, bytes) in bytes.chunks_exact_mut(room).enumerate().take(runs.streams()) {
        let at = strip.at[stream] - stream * room;
        let length = backward::finish(bytes, at, pending[stream], counts[stream] as u32, payload);
        lengths.push(length as u32);
    }
    let (mut bytes, mut states) = ([0; MAX_LANES], [0; MAX_LANES]);
    lanes.store(strip.states, &mut bytes);
    states.iter_mut().zip(bytes).for_each(|(state, byte)| *state = u16::from(byte));
    states
}
