//! Look-ups of 16-bit values with AVX-512: the low and the high bytes of 64 values by a permutation each.

use std::arch::x86_64::{
    __m512i, _mm512_mask_mov_epi8, _mm512_movepi8_mask, _mm512_permutex2var_epi8, _mm512_permutexvar_epi8,
    _mm512_permutexvar_epi64, _mm512_set_epi64, _mm512_unpackhi_epi8, _mm512_unpacklo_epi8,
};

use super::{LANES, in_blocks};
use crate::simd::avx512::{load, store};

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn look_up(table: &[u16; 256], levels: usize, symbols: &[u8], out: &mut [u16]) {
    let bytes = |shift: u32| {
        let bytes: [u8; 256] = table.map(|value| (value >> shift) as u8);
        let (quarters, _) = bytes.as_chunks();
        [0, 1, 2, 3].map(|k| load(&quarters[k]))
    };
    let (low, high) = (bytes(0), bytes(8));
    if levels <= 64 {
        let of = |symbols, bytes: &[__m512i; 4]| _mm512_permutexvar_epi8(symbols, bytes[0]);
        write(table, symbols, out, |symbols| (of(symbols, &low), of(symbols, &high)));
    } else {
        let of = |symbols, bytes: &[__m512i; 4]| {
            let lower = _mm512_permutex2var_epi8(bytes[0], symbols, bytes[1]);
            let upper = _mm512_permutex2var_epi8(bytes[2], symbols, bytes[3]);
            _mm512_mask_mov_epi8(lower, _mm512_movepi8_mask(symbols), upper)
        };
        write(table, symbols, out, |symbols| (of(symbols, &low), of(symbols, &high)));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn write(
    table: &[u16; 256],
    symbols: &[u8],
    out: &mut [u16],
    bytes_of: impl Fn(__m512i) -> (__m512i, __m512i),
) {
    // Eights of symbols so that interleaving, which works within quarters, leaves them in order.
    let order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
    let block = |symbols: &[u8; LANES], out: &mut [u16; LANES]| {
        let (low, high) = bytes_of(_mm512_permutexvar_epi64(order, load(symbols)));
        let (halves, _) = bytemuck::cast_mut::<_, [u8; 2 * LANES]>(out).as_chunks_mut();
        store(&mut halves[0], _mm512_unpacklo_epi8(low, high));
        store(&mut halves[1], _mm512_unpackhi_epi8(low, high));
    };
    in_blocks(symbols, out, block, |symbol| table[symbol as usize]);
}
