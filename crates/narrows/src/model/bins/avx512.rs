//! Counting by sums with AVX-512: what is zero among zeros, half of what a ReLU leaves, is counted by
//! the bits of a mask and squeezed out; only the rest is counted one by one.

use std::arch::x86_64::{
    __m512i, _mm_cvtsi32_si128, _mm512_add_epi16, _mm512_castsi512_si256, _mm512_cvtepu8_epi16,
    _mm512_extracti64x4_epi64, _mm512_mask_mov_epi8, _mm512_maskz_compress_epi16, _mm512_maskz_mov_epi8,
    _mm512_mullo_epi16, _mm512_set1_epi8, _mm512_set1_epi16, _mm512_srl_epi16, _mm512_test_epi8_mask,
    _mm512_test_epi16_mask,
};

use super::{BLOCK, Index, SMALL, TABLES, increment};
use crate::model::neighbours::{NO_ABOVE, NO_LEFT, Run};
use crate::simd::avx512::{load_part, store};

/// Symbols of a step.
const STEP: usize = 64;

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2")]
pub(super) fn small(tables: &mut [[u32; SMALL]; TABLES], run: Run<'_>, index: Index) {
    let shift = _mm_cvtsi32_si128(index.shift as i32);
    let alphabet = _mm512_set1_epi16(index.alphabet as i16);
    // A step appends 64 indices at most, of which the last vector may be all zeros.
    let mut indices = [0_u16; BLOCK + STEP];
    let (mut filled, mut zeros) = (0, 0);
    for start in (0..run.symbols.len()).step_by(STEP) {
        let part = start..run.symbols.len().min(start + STEP);
        let (left, above) = neighbours(&run.part(part.clone()));
        let symbols = load_part(&run.symbols[part.clone()]);
        zeros += part.len() as u32;
        for half in 0..2 {
            let wide = |v: __m512i| {
                _mm512_cvtepu8_epi16(match half {
                    0 => _mm512_castsi512_si256(v),
                    _ => _mm512_extracti64x4_epi64::<1>(v),
                })
            };
            let bins = _mm512_srl_epi16(_mm512_add_epi16(wide(left), wide(above)), shift);
            let index = _mm512_add_epi16(_mm512_mullo_epi16(bins, alphabet), wide(symbols));
            let kept = _mm512_test_epi16_mask(index, index);
            let out = bytemuck::cast_slice_mut(&mut indices[filled..filled + 32]);
            store(out.try_into().expect("32 indices"), _mm512_maskz_compress_epi16(kept, index));
            filled += kept.count_ones() as usize;
            zeros -= kept.count_ones();
        }
        if filled >= BLOCK - STEP {
            increment(tables, &indices[..filled]);
            filled = 0;
        }
    }
    increment(tables, &indices[..filled]);
    tables[0][0] += zeros;
}

/// What counts for the left and the upper neighbour of up to 64 symbols.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2")]
pub(in crate::model) fn neighbours(run: &Run<'_>) -> (__m512i, __m512i) {
    let (left, above) = (load_part(run.left), load_part(run.above));
    if run.edges.is_empty() {
        return (left, above);
    }
    let edges = load_part(run.edges);
    let no_left = _mm512_test_epi8_mask(edges, _mm512_set1_epi8(NO_LEFT as i8));
    let no_above = _mm512_test_epi8_mask(edges, _mm512_set1_epi8(NO_ABOVE as i8));
    // Where both are missing, neither counts.
    let one = !(no_left & no_above);
    (
        _mm512_maskz_mov_epi8(one, _mm512_mask_mov_epi8(left, no_left, above)),
        _mm512_maskz_mov_epi8(one, _mm512_mask_mov_epi8(above, no_above, left)),
    )
}
