//! Lengths with AVX-512: classes, and the low and high bytes of lengths, by permutations, 64 symbols at a time.

use std::arch::x86_64::{
    _mm512_add_epi8, _mm512_add_epi64, _mm512_maskz_permutex2var_epi8, _mm512_or_si512,
    _mm512_permutexvar_epi8, _mm512_reduce_add_epi64, _mm512_sad_epu8, _mm512_setzero_si512,
    _mm512_slli_epi16,
};

use super::{ALPHABET, Lengths, Run};
use crate::model::bins::neighbours;
use crate::simd::avx512::{first, load, load_part};

/// Symbols of a step.
const STEP: usize = 64;

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2")]
pub(super) fn add_up(lengths: &Lengths, run: Run<'_>) -> u64 {
    if lengths.alphabet > ALPHABET {
        return super::plain(lengths, run);
    }
    let [low, high] = lengths.bytes.map(|halves| halves.map(|half| load(&half)));
    let classes = load(lengths.classes.of_bins());
    let zero = _mm512_setzero_si512();
    let (mut low_sum, mut high_sum) = (zero, zero);
    for start in (0..run.symbols.len()).step_by(STEP) {
        let part = run.part(start..run.symbols.len().min(start + STEP));
        let (left, above) = neighbours(&part);
        // Sums of up to 30 are bins themselves, and classes are below 8.
        let class = _mm512_permutexvar_epi8(_mm512_add_epi8(left, above), classes);
        let at = _mm512_or_si512(_mm512_slli_epi16::<4>(class), load_part(part.symbols));
        let used = first(part.symbols.len());
        let of = |[a, b]: [_; 2]| _mm512_sad_epu8(_mm512_maskz_permutex2var_epi8(used, a, at, b), zero);
        low_sum = _mm512_add_epi64(low_sum, of(low));
        high_sum = _mm512_add_epi64(high_sum, of(high));
    }
    (_mm512_reduce_add_epi64(low_sum) + (_mm512_reduce_add_epi64(high_sum) << 8)) as u64
}
