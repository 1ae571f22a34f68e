//! Compact coding of frequency tables.
//!
//! A weight is written as a small floating-point number: an exponent (0 for an absent symbol, else one
//! more than `floor(log2 w)`) as the difference to its predecessor's in a Rice code, and as many
//! mantissa bits as the tensor's size can pay for. With `m` mantissa bits a frequency is off by at most
//! `2^-(m+1)` of itself, which costs about `4^-m / 33` bits a symbol; an entry costs `m` bits.

use super::table::Table;
use crate::bits::{BitReader, BitWriter, width_of};

const MANTISSA_WIDTH: u32 = 4;
const RICE_WIDTH: u32 = 2;
/// Mantissa bits are stored in [`MANTISSA_WIDTH`] bits; above 14 every weight is exact.
const MAX_MANTISSA: u32 = 14;
const EXPONENT_LIMIT: u32 = 15;

/// Mantissa bits that pay for themselves: `4^-m * n / 33` bits are lost for `n` symbols and `m * entries`
/// spent, which is least where `4^m = n / (24 * entries)`, about.
pub fn mantissa_bits(symbols: usize, entries: usize) -> u32 {
    let ratio = symbols as f64 / (24.0 * entries.max(1) as f64);
    if ratio <= 1.0 { 0 } else { ((ratio.log2() / 2.0).round() as u32).min(MAX_MANTISSA) }
}

/// What weights are scaled to, and how finely they are kept.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// log2 of the sum of a table's frequencies.
    pub bits: u32,
    /// Bits kept below a weight's leading one.
    pub mantissa: u32,
}

/// `count` out of `total`, scaled to `2^bits` and rounded to `mantissa` bits; positive if `count` is.
pub fn weight(count: u32, total: u64, Scale { bits, mantissa }: Scale) -> u32 {
    if count == 0 {
        return 0;
    }
    // Scaled in 16 more bits than it is kept in, so that rounding happens once.
    // At most 32 + 14 + 16 bits.
    let scaled = (u64::from(count) << (bits + 16)) / total;
    if scaled < 1 << 16 {
        return 1;
    }
    let exponent = scaled.ilog2() - 16;
    let dropped = 16 + exponent.saturating_sub(mantissa);
    ((((scaled >> (dropped - 1)) + 1) >> 1) << (dropped - 16)) as u32
}

/// Weights of about `room` in all, for as many symbols at most: 1 for those that would have less, the rest in
/// proportion.
pub(crate) fn coarse_weights(counts: &[u32], room: u64, weights: &mut Vec<u32>) {
    let total: u64 = counts.iter().map(|&n| u64::from(n)).sum();
    let is_rare = |n: u32| u64::from(n) * room < total;
    let rare = counts.iter().filter(|&&n| n > 0 && is_rare(n)).count() as u64;
    let common: u64 = counts.iter().filter(|&&n| !is_rare(n)).map(|&n| u64::from(n)).sum();
    let weight = |n: u32| match n {
        0 => 0,
        n if is_rare(n) => 1,
        n => ((u64::from(n) * (room - rare) + common / 2) / common).max(1) as u32,
    };
    weights.extend(counts.iter().map(|&n| weight(n)));
}

/// Write the weights of `tables` tables (`weights` holds one after the other), made by [`weight`] with
/// the same scale.
pub fn write(weights: &[u32], tables: usize, scale: Scale, bits: &mut BitWriter<'_>) {
    let alphabet = weights.len() / tables;
    let Scale { bits: probability_bits, mantissa } = scale;
    let length = |&rice: &u32| exponents_length(weights, alphabet, probability_bits, rice);
    let rice = (0..1 << RICE_WIDTH).min_by_key(length).unwrap_or(0);
    bits.put(mantissa, MANTISSA_WIDTH);
    bits.put(rice, RICE_WIDTH);
    for table in weights.chunks_exact(alphabet) {
        let last = table.iter().rposition(|&w| w > 0).unwrap_or(0);
        bits.put(last as u32, width_of(alphabet));
        let mut before = probability_bits;
        for &w in &table[..=last] {
            let exponent = exponent_of(w);
            let difference = zigzag(exponent as i32 - before as i32);
            for _ in 0..difference >> rice {
                bits.put(1, 1);
            }
            bits.put(0, 1);
            bits.put(difference & ((1 << rice) - 1), rice);
            let kept = mantissa.min(exponent.saturating_sub(1));
            if kept > 0 {
                let below = w & ((1 << (exponent - 1)) - 1);
                bits.put(below >> (exponent - 1 - kept), kept);
            }
            before = exponent;
        }
    }
}

/// Read what [`write`] wrote and make tables of it; an error names the table and what is wrong with it.
pub(crate) fn read(
    bits: &mut BitReader<'_>,
    tables: &mut [Table],
    alphabet: usize,
    probability_bits: u32,
    weights: &mut Vec<u32>,
) -> Result<(), (usize, &'static str)> {
    let count = tables.len();
    read_weights(bits, count, alphabet, probability_bits, weights)?;
    for (index, (table, weights)) in tables.iter_mut().zip(weights.chunks_exact(alphabet)).enumerate() {
        table.normalize(weights, probability_bits).map_err(|what| (index, what))?;
    }
    Ok(())
}

/// Read the weights of `tables` tables that [`write`] wrote, one table after the other.
///
/// # Errors
/// The table that is not one, and what is wrong with it.
pub fn read_weights(
    bits: &mut BitReader<'_>,
    tables: usize,
    alphabet: usize,
    probability_bits: u32,
    weights: &mut Vec<u32>,
) -> Result<(), (usize, &'static str)> {
    let ended = |table| (table, "its bits end early");
    let mantissa = bits.take(MANTISSA_WIDTH).ok_or(ended(0))?;
    let rice = bits.take(RICE_WIDTH).ok_or(ended(0))?;
    weights.clear();
    for index in 0..tables {
        let start = weights.len();
        weights.resize(start + alphabet, 0);
        let last = bits.take(width_of(alphabet)).ok_or(ended(index))? as usize;
        if last >= alphabet {
            return Err((index, "its last symbol is outside the alphabet"));
        }
        let mut before = probability_bits;
        for w in &mut weights[start..=start + last] {
            let mut difference = 0;
            while bits.take(1).ok_or(ended(index))? == 1 {
                difference += 1;
                if difference > 2 * EXPONENT_LIMIT {
                    return Err((index, "an exponent is out of bounds"));
                }
            }
            difference = difference << rice | bits.take(rice).ok_or(ended(index))?;
            let exponent = before as i32 + unzigzag(difference);
            if !(0..=EXPONENT_LIMIT as i32).contains(&exponent) {
                return Err((index, "an exponent is out of bounds"));
            }
            before = exponent as u32;
            if before > 0 {
                let kept = mantissa.min(before - 1);
                let below = bits.take(kept).ok_or(ended(index))?;
                *w = (1 << kept | below) << (before - 1 - kept);
            }
        }
    }
    Ok(())
}

const fn exponent_of(weight: u32) -> u32 {
    u32::BITS - weight.leading_zeros()
}

const fn zigzag(difference: i32) -> u32 {
    (difference << 1 ^ difference >> 31) as u32
}

const fn unzigzag(code: u32) -> i32 {
    (code >> 1) as i32 ^ -((code & 1) as i32)
}

fn exponents_length(weights: &[u32], alphabet: usize, probability_bits: u32, rice: u32) -> u32 {
    let table_length = |table: &[u32]| {
        let last = table.iter().rposition(|&w| w > 0).unwrap_or(0);
        let mut before = probability_bits as i32;
        let length = |&w: &u32| {
            let exponent = exponent_of(w) as i32;
            let code = zigzag(exponent - before);
            before = exponent;
            (code >> rice) + 1 + rice
        };
        table[..=last].iter().map(length).sum::<u32>()
    };
    weights.chunks_exact(alphabet).map(table_length).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tables_come_back_as_they_were_written(
            alphabet in prop::sample::select(vec![2_usize, 3, 16, 17, 64, 257]),
            tables in 1_usize..5,
            mantissa in 0_u32..=14,
            seed in any::<u64>(),
        ) {
            let bits = super::super::probability_bits(alphabet);
            let scale = Scale { bits, mantissa };
            let mut state = seed | 1;
            let mut counts: Vec<u32> = (0..alphabet * tables).map(|_| {
                state ^= state << 13; state ^= state >> 7; state ^= state << 17;
                if state % 3 == 0 { 0 } else { 1 << ((state >> 20) % 20) }
            }).collect();
            (0..tables).for_each(|k| counts[k * alphabet + 1] = 1000);
            let weights: Vec<u32> = counts.chunks_exact(alphabet).flat_map(|table| {
                let total = table.iter().map(|&n| u64::from(n)).sum();
                table.iter().map(move |&n| weight(n, total, scale)).collect::<Vec<_>>()
            }).collect();
            let mut bytes = Vec::new();
            let mut writer = BitWriter::new(&mut bytes);
            write(&weights, tables, scale, &mut writer);
            writer.finish();
            let mut read_back = vec![Table::default(); tables];
            let mut reader = BitReader::new(&bytes);
            read(&mut reader, &mut read_back, alphabet, bits, &mut Vec::new()).unwrap();
            prop_assert_eq!(reader.bytes_taken(), bytes.len());
            for (table, weights) in read_back.iter().zip(weights.chunks_exact(alphabet)) {
                let mut expected = Table::default();
                expected.normalize(weights, bits).unwrap();
                prop_assert_eq!(table, &expected);
            }
        }

        #[test]
        fn coarse_weights_make_frequencies_that_are_multiples(
            mut counts in prop::collection::vec(prop_oneof![Just(0_u32), 1..5_u32, 1..200_000_u32], 33..257),
        ) {
            counts[7] = counts[7].max(1);
            counts[8] = counts[8].max(1);
            let mut weights = Vec::new();
            coarse_weights(&counts, 1 << 12, &mut weights);
            prop_assert!(counts.iter().zip(&weights).all(|(&n, &w)| (n > 0) == (w > 0)));
            let mut table = Table::default();
            table.normalize(&weights, 12).unwrap();
            let quarter: Vec<u32> = table.frequencies().iter().map(|&f| f.into()).collect();
            table.normalize(&quarter, 14).unwrap();
            prop_assert!(quarter.iter().zip(table.frequencies()).all(|(&q, &f)| 4 * q == u32::from(f)));
        }

        #[test]
        fn any_bytes_give_tables_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for alphabet in [2, 16, 300, 4096] {
                let mut tables = vec![Table::default(); 3];
                let _ = read(&mut BitReader::new(&bytes), &mut tables, alphabet, 12, &mut Vec::new());
            }
        }
    }
}
