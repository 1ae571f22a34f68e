//! Memory to AVX-512 vectors and back, through references that are long enough.
#![allow(unsafe_code, reason = "loads and stores take pointers")]

use std::arch::x86_64::{
    __m128i, __m512i, _mm_loadu_si128, _mm_mask_storeu_epi8, _mm_maskz_loadu_epi8, _mm_setzero_si128,
    _mm_storeu_si128, _mm512_castsi128_si512, _mm512_inserti32x4, _mm512_loadu_si512,
    _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8, _mm512_storeu_si512,
};

/// 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the reference is valid for the 64 bytes that are read, at any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Up to 64 bytes, zeros after them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,bmi2")]
pub(crate) fn load_part(bytes: &[u8]) -> __m512i {
    // SAFETY: the mask has as many bits as the slice has bytes, at most 64; others are not read.
    unsafe { _mm512_maskz_loadu_epi8(first(bytes.len()), bytes.as_ptr().cast()) }
}

/// Up to 16 bytes in each quarter, zeros after them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
pub(crate) fn load_quarters(quarters: [&[u8]; 4]) -> __m512i {
    let [a, b, c, d] = quarters.map(|bytes| match bytes.first_chunk::<16>() {
        // SAFETY: the reference is valid for the 16 bytes that are read, at any alignment.
        Some(bytes) => unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) },
        // Loading nothing from where there is no memory is allowed, and very slow.
        None if bytes.is_empty() => _mm_setzero_si128(),
        // SAFETY: the mask has as many bits as the slice has bytes, fewer than 16; others are not read.
        None => unsafe { _mm_maskz_loadu_epi8(first(bytes.len()) as u16, bytes.as_ptr().cast()) },
    });
    let low = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(a), b);
    _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(low, c), d)
}

/// 64 bytes to memory.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn store(bytes: &mut [u8; 64], vector: __m512i) {
    // SAFETY: the reference is valid for the 64 bytes that are written, at any alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
}

/// As many of the first bytes as the slice holds.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,bmi2")]
pub(crate) fn store_part(bytes: &mut [u8], vector: __m512i) {
    // SAFETY: the mask has as many bits as the slice has bytes, at most 64; others are not written.
    unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), first(bytes.len()), vector) }
}

/// 16 bytes to memory.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn store_16(bytes: &mut [u8; 16], vector: __m128i) {
    // SAFETY: the reference is valid for the 16 bytes that are written, at any alignment.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), vector) }
}

/// As many of the first 16 bytes as the slice holds.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
pub(crate) fn store_16_part(bytes: &mut [u8], vector: __m128i) {
    let mask = first(bytes.len()) as u16;
    // SAFETY: the mask has as many bits as the slice has bytes, at most 16; others are not written.
    unsafe { _mm_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask, vector) }
}

/// A mask of the first `count` bytes, at most 64.
#[inline]
#[target_feature(enable = "bmi2")]
pub(crate) fn first(count: usize) -> u64 {
    std::arch::x86_64::_bzhi_u64(u64::MAX, count.min(64) as u32)
}
