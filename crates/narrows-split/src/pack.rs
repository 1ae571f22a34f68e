//! Side tensors as few bytes.
//!
//! Masks are mostly ones, positions count up, token numbers are small. Layout (integers little-endian):
//!
//! | bytes | field |
//! |---|---|
//! | 1 | element type: 0 `int64`, 1 `bool` |
//! | 1 | rank, 0 to 8 |
//! | 4 x rank | dimensions, unsigned |
//! | 1 | width `w`, 0 to 64 |
//! | 8 | base, signed |
//! | 8 | step, signed; 0 unless `w` is 0 |
//! | (elements x `w` + 7) / 8 | differences from the base, `w` bits each, the first in the lowest bits |
//!
//! With width 0, element `i` is base + step x `i`.

use crate::value::{Data, Value};
use crate::{Error, Result};

const MAX_RANK: usize = 8;
/// Bytes before and after the dimensions.
const HEAD: usize = 2;
const PARAMETERS: usize = 17;

impl Value {
    /// The tensor in few bytes, for integers and truth values; `None` for `float32`, which is what frames are for.
    pub fn pack(&self) -> Option<Vec<u8>> {
        let (kind, values): (u8, Vec<i64>) = match self.data() {
            Data::F32(_) => return None,
            Data::I64(values) => (0, values.clone()),
            Data::Bool(values) => (1, values.iter().map(|&value| value.into()).collect()),
        };
        if self.shape().len() > MAX_RANK || self.shape().iter().any(|&dim| u32::try_from(dim).is_err()) {
            return None;
        }
        let mut bytes = vec![kind, self.shape().len() as u8];
        self.shape().iter().for_each(|&dim| bytes.extend((dim as u32).to_le_bytes()));
        let first = values.first().copied().unwrap_or(0);
        let step = values.get(1).map_or(0, |second| second.wrapping_sub(first));
        let is_line = values.iter().zip(0_i64..).all(|(&value, at)| value == line(first, step, at));
        let least = values.iter().copied().min().unwrap_or(0);
        // Differences fit 64 bits without a sign, whatever the numbers are.
        let offsets = values.iter().map(|&value| value.wrapping_sub(least) as u64);
        let width = if is_line { 0 } else { 64 - offsets.clone().max().unwrap_or(0).leading_zeros() };
        bytes.push(width as u8);
        let (base, step) = if is_line { (first, step) } else { (least, 0) };
        bytes.extend(base.to_le_bytes());
        bytes.extend(step.to_le_bytes());
        if !is_line {
            append(&mut bytes, offsets, width);
        }
        Some(bytes)
    }

    /// The tensor that [`pack`](Self::pack) made few bytes of, with at most `limit` elements.
    ///
    /// # Errors
    /// [`Error::Packed`] with the rule that the bytes break, [`Error::LimitExceeded`] before memory is taken for more
    /// elements.
    pub fn unpack(bytes: &[u8], limit: usize) -> Result<Self> {
        let broken = |rule: &str| Error::Packed { rule: rule.into() };
        let (&[kind, rank], rest) =
            bytes.split_first_chunk().ok_or_else(|| broken("it must have a head of 2 bytes"))?;
        if kind > 1 || usize::from(rank) > MAX_RANK {
            return Err(broken("its type must be 0 or 1 and its rank at most 8"));
        }
        let (dims, rest) = rest
            .split_at_checked(usize::from(rank) * 4)
            .ok_or_else(|| broken("it must have its dimensions"))?;
        let shape: Vec<usize> = dims
            .chunks_exact(4)
            .map(|dim| u32::from_le_bytes([dim[0], dim[1], dim[2], dim[3]]) as usize)
            .collect();
        let elements = shape.iter().fold(1_u64, |product, &dim| product.saturating_mul(dim as u64));
        if elements > limit as u64 {
            return Err(Error::LimitExceeded { name: "side tensor".into(), elements, limit: limit as u64 });
        }
        let (parameters, packed) =
            rest.split_at_checked(PARAMETERS).ok_or_else(|| broken("it must have width, base and step"))?;
        let (width, numbers) = (u32::from(parameters[0]), parameters[1..].as_chunks::<8>().0);
        let [base, step] = [numbers[0], numbers[1]].map(i64::from_le_bytes);
        let expected = (elements * u64::from(width)).div_ceil(8);
        if width > 64 || packed.len() as u64 != expected || (width > 0 && step != 0) {
            return Err(broken(
                "its width must be at most 64, without a step, and its bytes as many as it asks for",
            ));
        }
        let values: Vec<i64> = if width == 0 {
            (0..elements as i64).map(|at| line(base, step, at)).collect()
        } else {
            (0..elements as usize).map(|at| base.wrapping_add(bits(packed, at, width) as i64)).collect()
        };
        match kind {
            0 => Self::new(shape, values),
            _ if values.iter().all(|value| matches!(value, 0 | 1)) => {
                Self::new(shape, values.into_iter().map(|value| value == 1).collect::<Vec<bool>>())
            }
            _ => Err(broken("its truth values must be 0 or 1")),
        }
    }

    /// Bytes that [`pack`](Self::pack) takes beside elements and dimensions.
    pub const PACKED_OVERHEAD: usize = HEAD + PARAMETERS;
}

fn line(base: i64, step: i64, at: i64) -> i64 {
    base.wrapping_add(step.wrapping_mul(at))
}

/// Append numbers of `width` bits each.
fn append(bytes: &mut Vec<u8>, numbers: impl Iterator<Item = u64>, width: u32) {
    let (mut waiting, mut filled) = (0_u128, 0);
    for number in numbers {
        waiting |= u128::from(number) << filled;
        filled += width;
        while filled >= 8 {
            bytes.push(waiting as u8);
            waiting >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        bytes.push(waiting as u8);
    }
}

/// A number of `width` bits out of many.
fn bits(bytes: &[u8], at: usize, width: u32) -> u64 {
    let first = at * width as usize;
    let window =
        bytes[first / 8..].iter().take(9).rev().fold(0_u128, |window, &byte| window << 8 | u128::from(byte));
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    (window >> (first % 8)) as u64 & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(values: Vec<i64>) -> usize {
        let value = Value::new([1, values.len()], values).unwrap();
        let bytes = value.pack().unwrap();
        assert_eq!(Value::unpack(&bytes, 1 << 20).unwrap(), value);
        bytes.len() - Value::PACKED_OVERHEAD - 8
    }

    #[test]
    fn masks_and_positions_cost_nothing_but_the_header() {
        assert_eq!(packed(vec![1; 512]), 0);
        assert_eq!(packed((37..549).collect()), 0);
        assert_eq!(packed(vec![]), 0);
    }

    #[test]
    fn other_numbers_cost_the_bits_of_their_range() {
        assert_eq!(packed(vec![0, 1, 1, 0, 1, 1, 1, 1, 0]), 2);
        assert_eq!(packed(vec![30_522, 7, 12_000]), 6); // 15 bits each
        assert_eq!(packed(vec![i64::MIN, i64::MAX, 0, -1]), 32);
    }

    #[test]
    fn truth_values_survive() {
        let value = Value::new([3], vec![true, false, true]).unwrap();
        assert_eq!(Value::unpack(&value.pack().unwrap(), 3).unwrap(), value);
    }

    #[test]
    fn floats_are_not_packed() {
        assert_eq!(Value::new([1], vec![0.5_f32]).unwrap().pack(), None);
    }

    #[test]
    fn more_elements_than_the_limit_are_refused_before_they_are_made() {
        let mut bytes = Value::new([4], vec![1_i64; 4]).unwrap().pack().unwrap();
        bytes[2..6].fill(0xff);
        assert!(matches!(Value::unpack(&bytes, 1 << 20), Err(Error::LimitExceeded { .. })));
    }

    #[test]
    fn truncated_and_damaged_bytes_are_an_error_or_a_tensor() {
        let value = Value::new([2, 5], vec![3_i64, 1, 4, 1, 5, 9, 2, 6, 5, 3]).unwrap();
        let bytes = value.pack().unwrap();
        for length in 0..bytes.len() {
            assert!(Value::unpack(&bytes[..length], 64).is_err(), "{length}");
        }
        for position in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[position / 8] ^= 1 << (position % 8);
            let _ = Value::unpack(&damaged, 64);
        }
    }
}
