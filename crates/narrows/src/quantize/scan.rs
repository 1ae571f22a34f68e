//! The smallest and largest element, and whether all are finite, in one reading.
//!
//! f32 by comparisons in 64 lanes. f16 and bf16 never become f32: with the bits below the sign flipped in
//! negative numbers, bit patterns order like the numbers they stand for (infinities and NaN at both ends),
//! so that two 16-bit comparisons an element say everything.

use half::{bf16, f16};

use crate::cpu::Path;
use crate::simd::{for_paths, to_line};
use crate::tensor::{Element, Elements};

/// Lanes of the scan: enough for four vectors of 64 bytes, whose minima do not wait for each other.
const LANES: usize = 64;
const SHORT_LANES: usize = 128;

/// The smallest and the largest element; `None` if one is not finite, or there are none.
pub(super) fn extremes<T: Element>(path: Path, elements: &[T]) -> Option<(f32, f32)> {
    let (min, max) = match T::view(elements) {
        Elements::F32(elements) => extremes_f32(path, elements)?,
        Elements::F16(elements) => {
            let infinity = f16::INFINITY.to_bits() as i16;
            let (min, max) = finite(extremes_short(path, bytemuck::cast_slice(elements)), infinity)?;
            (f16::from_bits(min).to_f32(), f16::from_bits(max).to_f32())
        }
        Elements::Bf16(elements) => {
            let infinity = bf16::INFINITY.to_bits() as i16;
            let (min, max) = finite(extremes_short(path, bytemuck::cast_slice(elements)), infinity)?;
            (bf16::from_bits(min).to_f32(), bf16::from_bits(max).to_f32())
        }
    };
    // One zero, whichever signs were met.
    Some((min + 0.0, max + 0.0))
}

for_paths! {
    fn extremes_f32(elements: &[f32]) -> Option<(f32, f32)> = kernel_f32::<false>, avx512 kernel_f32::<true>
}

for_paths! {
    /// The least and the greatest key.
    fn extremes_short(bits: &[u16]) -> (i16, i16) = kernel_short
}

#[inline(always)]
fn kernel_f32<const FUSED: bool>(elements: &[f32]) -> Option<(f32, f32)> {
    let mut min = [f32::INFINITY; LANES];
    let mut max = [f32::NEG_INFINITY; LANES];
    // 0 as long as all are finite: infinity times 0 is NaN, and NaN stays. Where one instruction
    // multiplies and adds, that is one operation less.
    let mut poison = [0.0_f32; LANES];
    let mut take = |lane: usize, x: f32| {
        min[lane] = if x < min[lane] { x } else { min[lane] };
        max[lane] = if x > max[lane] { x } else { max[lane] };
        poison[lane] = if FUSED { x.mul_add(0.0, poison[lane]) } else { poison[lane] + x * 0.0 };
    };
    // The first block whole, then from a cache line's start on: some elements are looked at twice.
    let head = to_line(elements, LANES);
    if head > 0 {
        (0..LANES).for_each(|lane| take(lane, elements[lane]));
    }
    let (blocks, rest) = elements[head..].as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            take(lane, block[lane]);
        }
    }
    for (lane, &x) in rest.iter().enumerate() {
        take(lane, x);
    }
    let finite = poison.iter().sum::<f32>() == 0.0;
    let min = min.into_iter().fold(f32::INFINITY, f32::min);
    let max = max.into_iter().fold(f32::NEG_INFINITY, f32::max);
    (finite && min <= max).then_some((min, max))
}

/// Bit pattern to key and back.
#[inline(always)]
const fn key(bits: i16) -> i16 {
    bits ^ ((bits >> 15) & 0x7fff)
}

#[inline(always)]
fn kernel_short(bits: &[u16]) -> (i16, i16) {
    let mut min = [i16::MAX; SHORT_LANES];
    let mut max = [i16::MIN; SHORT_LANES];
    let mut take = |lane: usize, bits: u16| {
        let key = key(bits as i16);
        min[lane] = min[lane].min(key);
        max[lane] = max[lane].max(key);
    };
    let head = to_line(bits, SHORT_LANES);
    if head > 0 {
        (0..SHORT_LANES).for_each(|lane| take(lane, bits[lane]));
    }
    let (blocks, rest) = bits[head..].as_chunks::<SHORT_LANES>();
    for block in blocks {
        for lane in 0..SHORT_LANES {
            take(lane, block[lane]);
        }
    }
    for (lane, &x) in rest.iter().enumerate() {
        take(lane, x);
    }
    (min.into_iter().fold(i16::MAX, i16::min), max.into_iter().fold(i16::MIN, i16::max))
}

/// The bit patterns of these keys, if both lie between the infinities.
fn finite((min, max): (i16, i16), infinity: i16) -> Option<(u16, u16)> {
    let inside = min <= max && min > key(infinity | i16::MIN) && max < infinity;
    inside.then_some((key(min) as u16, key(max) as u16))
}
