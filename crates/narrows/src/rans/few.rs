//! Chunks of a few lanes, as small tensors have: a vector would wait for its own row to end, while a scalar
//! processor runs 2, 4 or 8 lanes side by side as well. Without vectors, rows of any power of two.

use std::hint::select_unpredictable;

use super::decoding;
use super::encoding;
use super::simd::{MOST_BITS, Pairs, Slots, WIDE_CLASS_BITS, WIDE_SYMBOL_BITS, WINDOW};

use super::tables::{Basis, DecodeTables, Divisors, EncodeTables};
use super::walk::Walk;
use super::{LOWER_BOUND, MAX_LANES};

/// Whether rows of this many lanes are decoded and encoded here.
pub(super) fn covers(lanes: usize) -> bool {
    lanes.is_power_of_two() && lanes <= MAX_LANES
}

/// The function for this many lanes, with contexts or without.
macro_rules! of_lanes {
    ($function:ident, $lanes:expr, $contexts:expr) => {
        match ($lanes, $contexts) {
            (1, false) => $function::<1, false>,
            (2, false) => $function::<2, false>,
            (4, false) => $function::<4, false>,
            (8, false) => $function::<8, false>,
            (16, false) => $function::<16, false>,
            (_, false) => $function::<MAX_LANES, false>,
            (1, true) => $function::<1, true>,
            (2, true) => $function::<2, true>,
            (4, true) => $function::<4, true>,
            (8, true) => $function::<8, true>,
            (16, true) => $function::<16, true>,
            (_, true) => $function::<MAX_LANES, true>,
        }
    };
}

/// As [`decoding::decode_rows`], for rows that are [covered](covers) and tables in memory.
pub(super) fn decode_rows(tables: &DecodeTables, chunk: &mut decoding::Chunk<'_>, rows: usize) -> bool {
    let (Some(slots), Some(pairs)) = (&tables.slots, &tables.pairs) else { return false };
    let contexts = tables.basis.has_classes();
    let mut left = rows;
    loop {
        let decode = of_lanes!(decode, chunk.walk.width, contexts);
        left -= decode(&tables.basis, (slots, pairs), chunk, left);
        if left == 0 {
            return true;
        }
        if !chunk.words.fits_or_turns() {
            return false;
        }
    }
}

/// As many rows as there are windows of words for; gives their number.
fn decode<const LANES: usize, const CONTEXTS: bool>(
    basis: &Basis,
    (slots, pairs): (&Slots, &Pairs),
    chunk: &mut decoding::Chunk<'_>,
    rows: usize,
) -> usize {
    let decoding::Chunk { coded, words, low, high, walk } = chunk;
    let bits = basis.bits.min(MOST_BITS);
    let mask = (1 << bits) - 1;
    let mut states = [0_u32; LANES];
    for (lane, state) in states.iter_mut().enumerate() {
        *state = u32::from(high[lane]) << 16 | u32::from(low[lane]);
    }
    let mut left = walk.left().map_or([0; LANES], |start| row(coded, start));
    let (bytes, mut taken) = (words.in_use(), words.taken);
    let mut place = *walk;
    let mut done = 0;
    while done < rows {
        let Some(window) = bytes.get(taken..).and_then(<[u8]>::first_chunk::<WINDOW>) else { break };
        let (mut count, mut symbols) = (0, [0; LANES]);
        let classes = if CONTEXTS { classes(basis, &place, coded, |_| left) } else { [0; LANES] };
        for lane in 0..LANES {
            let (x, class) = (states[lane], classes[lane]);
            let slot = x & mask;
            let symbol = usize::from(slots[class << bits | slot as usize]);
            let pair = pairs[class << WIDE_SYMBOL_BITS | symbol];
            // `scaled * (x - slot) >> 16` is `f * (x >> b)`: see `decoding.rs`.
            let (scaled, c) = (u64::from(pair & 0xffff), pair >> 16);
            let x = ((scaled * u64::from(x - slot)) >> 16) as u32 + (slot - c);
            let at = 2 * (count % MAX_LANES);
            let word = u32::from(u16::from_le_bytes([window[at], window[at + 1]]));
            let take = x < LOWER_BOUND;
            states[lane] = select_unpredictable(take, x << 16 | word, x);
            count += usize::from(take);
            symbols[lane] = symbol;
        }
        let place_of_row: &mut [u8; LANES] = coded[place.start..].first_chunk_mut().expect("a row");
        *place_of_row = symbols.map(|symbol| symbol as u8);
        left = symbols;
        taken += 2 * count;
        place.advance();
        done += 1;
    }
    for (lane, state) in states.into_iter().enumerate() {
        (low[lane], high[lane]) = (state as u16, (state >> 16) as u16);
    }
    (*walk, words.taken) = (place, taken);
    done
}

/// The symbols of a row.
#[inline(always)]
fn row<const LANES: usize>(coded: &[u8], start: usize) -> [usize; LANES] {
    let row: &[u8; LANES] = coded[start..].first_chunk().expect("a row");
    row.map(usize::from)
}

/// The class of each lane of a row, below 8; `left_at` gives the row before.
#[inline(always)]
fn classes<const LANES: usize>(
    basis: &Basis,
    walk: &Walk,
    coded: &[u8],
    left_at: impl Fn(usize) -> [usize; LANES],
) -> [usize; LANES] {
    let (a, b) = match (walk.left(), walk.upper()) {
        (Some(left), Some(upper)) => (left_at(left), row(coded, upper)),
        (Some(left), None) => (left_at(left), left_at(left)),
        (None, Some(upper)) => (row(coded, upper), row(coded, upper)),
        (None, None) => return [0; LANES],
    };
    let mut classes = [0; LANES];
    for lane in 0..LANES {
        let class = basis.class_of_bin[((a[lane] + b[lane]) >> basis.bin_shift) % 64];
        classes[lane] = usize::from(class % (1 << WIDE_CLASS_BITS));
    }
    classes
}

/// As [`encoding::encode_rows`], for rows that are [covered](covers) and tables in memory.
pub(super) fn encode_rows(tables: &EncodeTables, chunk: &mut encoding::Chunk<'_>, rows: usize) {
    let Some(divisors) = tables.divisors.as_deref() else { return };
    let contexts = tables.basis.has_classes();
    let encode = of_lanes!(encode, chunk.walk.width, contexts);
    encode(&tables.basis, divisors, chunk, rows);
}

fn encode<const LANES: usize, const CONTEXTS: bool>(
    basis: &Basis,
    divisors: &Divisors,
    chunk: &mut encoding::Chunk<'_>,
    rows: usize,
) {
    let encoding::Chunk { coded, words, put, low, high, walk } = chunk;
    // Vectors hold lanes in descending order.
    let place_of = |lane: usize| MAX_LANES - 1 - lane;
    let mut states = [0_u32; LANES];
    for (lane, state) in states.iter_mut().enumerate() {
        *state = u32::from(high[place_of(lane)]) << 16 | u32::from(low[place_of(lane)]);
    }
    for _ in 0..rows {
        let symbols: [_; LANES] = row(coded, walk.start);
        let classes =
            if CONTEXTS { classes(basis, walk, coded, |left| row(coded, left)) } else { [0; LANES] };
        let room: &mut [u16; LANES] = words[*put..].first_chunk_mut().expect("a row's room is left");
        let mut count = 0;
        for lane in (0..LANES).rev() {
            let divisor = &divisors[classes[lane] << WIDE_SYMBOL_BITS | symbols[lane]];
            let mut x = states[lane];
            room[count % LANES] = x as u16;
            let out = x >= divisor.limit;
            x = select_unpredictable(out, x >> 16, x);
            count += usize::from(out);
            // x + q * (2^b - f) + c is (q << b) + c + x % f.
            let quotient = divisor.quotient(x);
            states[lane] = x + quotient * u32::from(divisor.rest) + u32::from(divisor.cumulative);
        }
        *put += count;
        walk.retreat();
    }
    for (lane, state) in states.into_iter().enumerate() {
        (low[place_of(lane)], high[place_of(lane)]) = (state as u16, (state >> 16) as u16);
    }
}
