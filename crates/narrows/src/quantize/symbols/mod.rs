//! Elements to symbols, and counted, in one reading.
//!
//! With `v = fl(x * fl(1 / step))` the symbol is `clamp(rne(v) + zero, 0, top)`. Where the zero point is small
//! enough for all of it to be exact, that is `rne(clamp(v, -zero, top - zero)) + zero`, and adding
//! `1.5 * 2^23` rounds to the nearest integer, ties to even, and leaves it in the sum's low bits: five cheap
//! operations, none of them a conversion.

#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::cpu::Path;
use crate::model::tally::Tally;
use crate::simd::{for_paths, to_line};
use crate::tensor::{Element, Elements};

use super::Affine;

/// Elements quantised, then counted while they are in the first-level cache.
const BLOCK: usize = 4096;
/// Elements of an inner loop of fixed length.
const LANES: usize = 64;

/// Zero points up to this magnitude: 16 bits hold `rne(v) + zero` of all symbols, and f32 is far from rounding.
const SMALL_ZERO: u32 = 1 << 14;
/// Below this, `v` fits an `i32`.
const LARGE: f32 = (1 << 30) as f32;

/// `1.5 * 2^23`: numbers near it are integers, and as even as what was added to it.
const ROUNDER: f32 = 12_582_912.0;

/// What the inner loop needs of an [`Affine`].
#[derive(Clone, Copy)]
struct Map {
    reciprocal: f32,
    low: f32,
    high: f32,
    zero: u8,
}

/// Quantise `elements`, none of them larger in magnitude than `largest`, into `symbols` (as many) and
/// count them too, if there is a tally.
pub(super) fn quantize<T: Element>(
    path: Path,
    affine: &Affine,
    largest: f32,
    elements: &[T],
    symbols: &mut [u8],
    mut tally: Option<&mut Tally>,
) {
    let mut count = |symbols: &[u8]| {
        if let Some(tally) = &mut tally {
            tally.add(path, symbols);
        }
    };
    let reciprocal = 1.0 / affine.step();
    let plain = affine.zero().unsigned_abs() <= SMALL_ZERO && largest * reciprocal < LARGE;
    if path == Path::Reference || !plain || elements.len() < 8 {
        let quantize = affine.quantizer();
        elements.iter().zip(symbols.iter_mut()).for_each(|(x, symbol)| *symbol = quantize(x.to_f32()));
        return count(symbols);
    }
    let (zero, top) = (affine.zero(), i32::from(affine.levels()) - 1);
    let map = Map { reciprocal, low: -zero as f32, high: (top - zero) as f32, zero: zero as u8 };
    // Blocks start where cache lines do, but for the first, which is longer.
    let (mut elements, mut symbols, mut next) = (elements, symbols, BLOCK + to_line(elements, LANES));
    while !elements.is_empty() {
        let length = next.min(elements.len());
        let (block, rest) = elements.split_at(length);
        let (out, out_rest) = std::mem::take(&mut symbols).split_at_mut(length);
        match T::view(block) {
            Elements::F32(block) => quantize_f32(path, map, block, out),
            Elements::F16(block) => quantize_f16(path, map, bytemuck::cast_slice(block), out),
            Elements::Bf16(block) => quantize_bf16(path, map, bytemuck::cast_slice(block), out),
        }
        count(out);
        (elements, symbols, next) = (rest, out_rest, BLOCK);
    }
}

for_paths! {
    fn quantize_f32(map: Map, elements: &[f32], symbols: &mut [u8]) = kernel_f32, avx512 avx512::quantize_f32
}
for_paths! {
    fn quantize_f16(map: Map, elements: &[u16], symbols: &mut [u8]) = kernel_f16, avx512 avx512::quantize_f16
}
for_paths! {
    fn quantize_bf16(map: Map, elements: &[u16], symbols: &mut [u8]) = kernel_bf16, avx512 avx512::quantize_bf16
}

#[inline(always)]
fn kernel_f32(map: Map, elements: &[f32], symbols: &mut [u8]) {
    kernel(map, elements, symbols, |x| x);
}

#[inline(always)]
fn kernel_bf16(map: Map, elements: &[u16], symbols: &mut [u8]) {
    kernel(map, elements, symbols, |bits| f32::from_bits(u32::from(bits) << 16));
}

#[inline(always)]
fn kernel_f16(map: Map, elements: &[u16], symbols: &mut [u8]) {
    kernel(map, elements, symbols, widen_f16);
}

/// A finite f16 as f32. Its exponent and mantissa, taken for those of an f32, are off by the difference
/// of the two biases, `2^112`; the product is exact, for subnormal numbers too.
#[inline(always)]
pub(super) fn widen_f16(bits: u16) -> f32 {
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(magnitude.to_bits() | u32::from(bits & 0x8000) << 16)
}

#[inline(always)]
fn kernel<E: Copy>(map: Map, elements: &[E], symbols: &mut [u8], widen: impl Fn(E) -> f32 + Copy) {
    let one = |x: E| {
        let v = widen(x) * map.reciprocal;
        let v = if v > map.low { v } else { map.low };
        let v = if v < map.high { v } else { map.high };
        ((v + ROUNDER).to_bits() as u8).wrapping_add(map.zero)
    };
    let all = |block: &[E; LANES], out: &mut [u8; LANES]| {
        for lane in 0..LANES {
            out[lane] = one(block[lane]);
        }
    };
    let head = to_line(elements, LANES);
    if head > 0
        && let (Some(block), Some(out)) = (elements.first_chunk(), symbols.first_chunk_mut())
    {
        all(block, out);
    }
    let (blocks, rest) = elements[head..].as_chunks::<LANES>();
    let (out_blocks, out_rest) = symbols[head..].as_chunks_mut::<LANES>();
    blocks.iter().zip(out_blocks).for_each(|(block, out)| all(block, out));
    rest.iter().zip(out_rest).for_each(|(&x, symbol)| *symbol = one(x));
}
