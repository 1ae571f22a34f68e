//! Quantisation with AVX-512, 64 elements at a time.
//!
//! The processor's own conversion rounds to the nearest integer, ties to even; narrowing to 16 and to 8 bits
//! saturates, which leaves only the upper end to clamp. 15 operations for 64 f32.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_adds_epi16, _mm512_and_si512, _mm512_castsi512_ps, _mm512_castsi512_si256,
    _mm512_cvtph_ps, _mm512_cvtps_epi32, _mm512_extracti64x4_epi64, _mm512_min_epu8, _mm512_mul_ps,
    _mm512_packs_epi32, _mm512_packus_epi16, _mm512_permutexvar_epi8, _mm512_set1_epi8, _mm512_set1_epi16,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_slli_epi32,
};

use super::{LANES, Map};
use crate::simd::avx512::{load, store};
use crate::simd::to_line;

/// Bytes of 16-bit elements that fill a vector, as [`load`] takes them.
type Bytes = [u8; 64];

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn quantize_f32(map: Map, elements: &[f32], symbols: &mut [u8]) {
    let values = |block: &[f32; LANES]| {
        let (vectors, _) = bytemuck::cast_ref::<_, [u8; 4 * LANES]>(block).as_chunks::<64>();
        [0, 1, 2, 3].map(|k| _mm512_castsi512_ps(load(&vectors[k])))
    };
    // The narrowed vectors take turns in every quarter, four symbols each.
    let order = order(|symbol| symbol % 16 / 4 * 16 + symbol / 16 * 4 + symbol % 4);
    quantize(map, elements, symbols, order, values, super::kernel_f32);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn quantize_f16(map: Map, elements: &[u16], symbols: &mut [u8]) {
    let values = |block: &[u16; LANES]| {
        let [low, high] = vectors(block).map(|bytes| load(bytes));
        let wide = |v: __m512i| {
            let upper = _mm512_extracti64x4_epi64::<1>(v);
            [_mm512_cvtph_ps(_mm512_castsi512_si256(v)), _mm512_cvtph_ps(upper)]
        };
        let ([a, b], [c, d]) = (wide(low), wide(high));
        [a, b, c, d]
    };
    let order = order(|symbol| symbol % 16 / 4 * 16 + symbol / 16 * 4 + symbol % 4);
    quantize(map, elements, symbols, order, values, super::kernel_f16);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn quantize_bf16(map: Map, elements: &[u16], symbols: &mut [u8]) {
    // Even elements are shifted to where they are f32, odd ones only freed of their neighbours.
    let odd = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    let values = |block: &[u16; LANES]| {
        let [low, high] = vectors(block).map(|bytes| load(bytes));
        [
            _mm512_slli_epi32::<16>(low),
            _mm512_and_si512(low, odd),
            _mm512_slli_epi32::<16>(high),
            _mm512_and_si512(high, odd),
        ]
        .map(|v| _mm512_castsi512_ps(v))
    };
    // Element `i` of a half is in its even or odd vector at `i / 2`.
    let order = order(|symbol| {
        let (half, pair) = (symbol / 32, symbol % 32 / 2);
        pair / 4 * 16 + (2 * half + symbol % 2) * 4 + pair % 4
    });
    quantize(map, elements, symbols, order, values, super::kernel_bf16);
}

fn vectors(block: &[u16; LANES]) -> [&Bytes; 2] {
    let (vectors, _) = bytemuck::cast_ref::<_, [u8; 2 * LANES]>(block).as_chunks::<64>();
    [&vectors[0], &vectors[1]]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn order(place: impl Fn(usize) -> usize) -> __m512i {
    load(&std::array::from_fn(|symbol| place(symbol) as u8))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn quantize<E: Copy>(
    map: Map,
    elements: &[E],
    symbols: &mut [u8],
    order: __m512i,
    values: impl Fn(&[E; LANES]) -> [__m512; 4],
    rest: fn(Map, &[E], &mut [u8]),
) {
    let reciprocal = _mm512_set1_ps(map.reciprocal);
    let zero = _mm512_set1_epi16(-map.low as i16);
    let top = _mm512_set1_epi8((map.high - map.low) as u8 as i8);
    let all = |block: &[E; LANES], out: &mut [u8; LANES]| {
        let [a, b, c, d] = values(block).map(|x| _mm512_cvtps_epi32(_mm512_mul_ps(x, reciprocal)));
        let low = _mm512_adds_epi16(_mm512_packs_epi32(a, b), zero);
        let high = _mm512_adds_epi16(_mm512_packs_epi32(c, d), zero);
        let narrow = _mm512_min_epu8(_mm512_packus_epi16(low, high), top);
        store(out, _mm512_permutexvar_epi8(order, narrow));
    };
    let head = to_line(elements, LANES);
    if head > 0
        && let (Some(block), Some(out)) = (elements.first_chunk(), symbols.first_chunk_mut())
    {
        all(block, out);
    }
    let (blocks, last) = elements[head..].as_chunks::<LANES>();
    let (out_blocks, out_last) = symbols[head..].as_chunks_mut::<LANES>();
    blocks.iter().zip(out_blocks).for_each(|(block, out)| all(block, out));
    rest(map, last, out_last);
}
