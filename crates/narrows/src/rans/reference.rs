//! The specification of the rANS stream in code: scalar, safe, plain. Every other path gives the same
//! words and the same symbols.
//!
//! A state `x` in `[2^16, 2^32)` holds symbols like digits of a number in a mixed base. With `f` and `c` the
//! symbol's frequency and cumulative frequency, of `2^b` together:
//!
//! ```text
//! encode  x' = (x / f) * 2^b + c + x % f      (after moving the low 16 bits out while x >= f * 2^(32-b))
//! decode  slot = x' % 2^b, s by c[s] <= slot < c[s+1], x = f * (x' / 2^b) + slot - c
//!                                             (then moving 16 bits in if x < 2^16)
//! ```
//!
//! One word at most moves per symbol, since `b <= 16`. The encoder runs backward, so that the
//! decoder runs forward; within a row the decoder takes words in ascending lane order.

use std::ops::Range;

use super::{LOWER_BOUND, MAX_LANES, Symbol};
use crate::layout::Rows;
use crate::model::Model;

/// Encode the symbols of rows `chunk` (`coded` holds just these), appending words in the order in which
/// the decoder reads them; returns the states it starts from, one for each lane of the chunk's first row.
pub(crate) fn encode_chunk<S: Symbol>(
    coded: &[S],
    rows: &Rows,
    chunk: &Range<usize>,
    model: &Model,
    words: &mut Vec<u16>,
) -> [u32; MAX_LANES] {
    let mut states = [LOWER_BOUND; MAX_LANES];
    let mut context = [0; MAX_LANES];
    let base = rows.start(chunk.start);
    let first_word = words.len();
    for row in chunk.clone().rev() {
        let (start, lanes) = (rows.start(row) - base, rows.width(row));
        model.context.of_row(rows, row, chunk.start, coded, &mut context[..lanes]);
        for lane in (0..lanes).rev() {
            let table = &model.tables()[context[lane] as usize];
            let symbol = coded[start + lane].index();
            let (f, c) = (u32::from(table.frequencies()[symbol]), u32::from(table.cumulative()[symbol]));
            let x = &mut states[lane];
            if *x >= f << (32 - table.bits()) {
                words.push(*x as u16);
                *x >>= 16;
            }
            *x = ((*x / f) << table.bits()) + c + *x % f;
        }
    }
    words[first_word..].reverse();
    states
}

/// For each table, the symbol of each slot.
#[derive(Default)]
pub(crate) struct Slots(Vec<u16>);

impl Slots {
    /// Fill in the slots of every table of `model`.
    pub(crate) fn set(&mut self, model: &Model) {
        self.0.clear();
        for table in model.tables() {
            for (symbol, &f) in table.frequencies().iter().enumerate() {
                self.0.extend(std::iter::repeat_n(symbol as u16, f as usize));
            }
        }
    }
}

/// Decode rows `chunk` into `coded` (just as long as their symbols), starting from `states`, one for each
/// lane of the chunk's first row, and reading `words`, two bytes each.
///
/// Safe on any input; says what does not hold if the states or the words are not an encoder's.
pub(crate) fn decode_chunk<S: Symbol>(
    coded: &mut [S],
    rows: &Rows,
    chunk: &Range<usize>,
    model: &Model,
    slots: &Slots,
    mut states: [u32; MAX_LANES],
    words: &[u8],
) -> Result<(), &'static str> {
    let mut words = words.chunks_exact(2).map(|word| u32::from(u16::from_le_bytes([word[0], word[1]])));
    let mut context = [0; MAX_LANES];
    let base = rows.start(chunk.start);
    let used = rows.width(chunk.start);
    if states[..used].iter().any(|&x| x < LOWER_BOUND) {
        return Err("a lane's first state is below 2^16");
    }
    for row in chunk.clone() {
        let (start, lanes) = (rows.start(row) - base, rows.width(row));
        model.context.of_row(rows, row, chunk.start, coded, &mut context[..lanes]);
        for lane in 0..lanes {
            let table = &model.tables()[context[lane] as usize];
            let bits = table.bits();
            let x = &mut states[lane];
            let slot = *x & ((1 << bits) - 1);
            let symbol = slots.0[((context[lane] as usize) << bits) + slot as usize] as usize;
            let (f, c) = (u32::from(table.frequencies()[symbol]), u32::from(table.cumulative()[symbol]));
            *x = f * (*x >> bits) + slot - c;
            if *x < LOWER_BOUND {
                let word = words.next().ok_or("the words end before the symbols do")?;
                *x = *x << 16 | word;
            }
            coded[start + lane] = S::from_index(symbol);
        }
    }
    if words.next().is_some() {
        return Err("words are left over");
    }
    if states[..used].iter().any(|&x| x != LOWER_BOUND) {
        return Err("a lane does not end at state 2^16");
    }
    Ok(())
}
