//! Counting by sums with AVX-512: what is zero among zeros, half of what a ReLU leaves, is counted by
//! the bits of a mask and squeezed out; only the rest is counted one by one.

use std::arch::x86_64::{
    __m512i, _mm_cvtsi32_si128, _mm512_add_epi8, _mm512_add_epi16, _mm512_and_si512, _mm512_castsi512_si256,
    _mm512_cvtepu8_epi16, _mm512_extracti64x4_epi64, _mm512_mask_mov_epi8, _mm512_maskz_compress_epi8,
    _mm512_maskz_compress_epi16, _mm512_maskz_mov_epi8, _mm512_mullo_epi16, _mm512_or_si512,
    _mm512_permutexvar_epi64, _mm512_set1_epi8, _mm512_set1_epi16, _mm512_setr_epi64, _mm512_slli_epi16,
    _mm512_srl_epi16, _mm512_srli_epi16, _mm512_ternarylogic_epi64, _mm512_test_epi8_mask,
    _mm512_test_epi16_mask, _mm512_unpackhi_epi8, _mm512_unpacklo_epi8,
};

use super::{BLOCK, Index, SMALL, SPACE, STEP, Sample, TABLES, increment};
use crate::model::neighbours::{NO_ABOVE, NO_LEFT, Run};
use crate::simd::avx512::{load_part, store};

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2")]
pub(super) fn small(tables: &mut [[u32; SMALL]; TABLES], run: Run<'_>, index: Index, sample: Sample) {
    if index.alphabet == SPACE {
        return spaced(tables, run, sample);
    }
    let shift = _mm_cvtsi32_si128(index.shift as i32);
    let alphabet = _mm512_set1_epi16(index.alphabet as i16);
    // A step appends 64 indices at most, of which the last vector may be all zeros.
    let mut indices = [0_u16; BLOCK + STEP];
    let (mut filled, mut zeros) = (0, 0);
    for part in sample.steps(run.symbols.len()) {
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

/// For up to [`SPACE`] symbols, whose sums are bins: an index is a byte, `16 * sum + symbol`, and the bit beyond it;
/// both are squeezed as bytes and only then become 16 bits wide.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2")]
fn spaced(tables: &mut [[u32; SMALL]; TABLES], run: Run<'_>, sample: Sample) {
    let low = _mm512_set1_epi8(0x0f);
    // Interleaving works within quarters of a vector: this makes what it gives one piece.
    let order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    let mut indices = [0_u16; BLOCK + STEP];
    let (mut filled, mut zeros) = (0, 0);
    for step in sample.steps(run.symbols.len()) {
        let part = run.part(step);
        let (left, above) = neighbours(&part);
        let symbols = load_part(part.symbols);
        let sums = _mm512_add_epi8(left, above);
        // Bits of `low` choose the symbol's, others the sum's.
        let bytes = _mm512_ternarylogic_epi64::<0xe2>(symbols, low, _mm512_slli_epi16::<4>(sums));
        let beyond = _mm512_and_si512(_mm512_srli_epi16::<4>(sums), low);
        let either = _mm512_or_si512(sums, symbols);
        let kept = _mm512_test_epi8_mask(either, either);
        let squeeze = |v| _mm512_permutexvar_epi64(order, _mm512_maskz_compress_epi8(kept, v));
        let (bytes, beyond) = (squeeze(bytes), squeeze(beyond));
        let out = bytemuck::cast_slice_mut::<_, u8>(&mut indices[filled..filled + STEP]);
        let (first, second) = out.split_at_mut(64);
        store(first.try_into().expect("32 indices"), _mm512_unpacklo_epi8(bytes, beyond));
        store(second.try_into().expect("32 indices"), _mm512_unpackhi_epi8(bytes, beyond));
        filled += kept.count_ones() as usize;
        zeros += part.symbols.len() as u32 - kept.count_ones();
        if filled >= BLOCK {
            increment(tables, &indices[..BLOCK]);
            indices.copy_within(BLOCK.., 0);
            filled -= BLOCK;
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
