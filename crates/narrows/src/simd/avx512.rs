//! Memory to AVX-512 vectors and back, through references that are long enough.
#![allow(unsafe_code, reason = "loads and stores take pointers")]

use std::arch::x86_64::{
    __m128i, __m512i, _mm_loadu_si128, _mm_mask_storeu_epi8, _mm_maskz_loadu_epi8, _mm_setzero_si128,
    _mm_storeu_si128, _mm512_castsi128_si512, _mm512_castsi512_si128, _mm512_extracti32x4_epi32,
    _mm512_inserti32x4, _mm512_loadu_si512, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8,
    _mm512_setzero_si512, _mm512_storeu_si512,
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

/// As many of the first 16 bytes as the slice holds.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
pub(crate) fn store_16_part(bytes: &mut [u8], vector: __m128i) {
    if let Some(bytes) = bytes.first_chunk_mut::<16>() {
        // SAFETY: the reference is valid for the 16 bytes that are written, at any alignment.
        return unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), vector) };
    }
    let mask = first(bytes.len()) as u16;
    // SAFETY: the mask has as many bits as the slice has bytes, at most 16; others are not written.
    unsafe { _mm_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask, vector) }
}

/// Rows of a tile: quarter `q` of vector `k` is the 16 bytes that row `16 * q + k` starts with, rows
/// `stride` bytes apart.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn load_rows(rows: &[u8], stride: usize) -> [__m512i; 16] {
    assert!(rows.len() >= 63 * stride + 16, "64 rows, the last one of 16 bytes");
    let quarter = |row: usize| {
        // SAFETY: `row` is below 64, so its 16 bytes lie in the slice, as was just checked.
        unsafe { _mm_loadu_si128(rows.as_ptr().add(row * stride).cast()) }
    };
    let mut tile = [_mm512_setzero_si512(); 16];
    for (k, vector) in tile.iter_mut().enumerate() {
        let first = _mm512_castsi128_si512(quarter(k));
        let half = _mm512_inserti32x4::<1>(first, quarter(16 + k));
        *vector = _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(half, quarter(32 + k)), quarter(48 + k));
    }
    tile
}

/// The inverse of [`load_rows`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn store_rows(rows: &mut [u8], stride: usize, tile: &[__m512i; 16]) {
    assert!(rows.len() >= 63 * stride + 16, "64 rows, the last one of 16 bytes");
    let mut store = |row: usize, quarter: __m128i| {
        // SAFETY: `row` is below 64, so its 16 bytes lie in the slice, as was just checked.
        unsafe { _mm_storeu_si128(rows.as_mut_ptr().add(row * stride).cast(), quarter) }
    };
    for (k, &vector) in tile.iter().enumerate() {
        store(k, _mm512_castsi512_si128(vector));
        store(16 + k, _mm512_extracti32x4_epi32::<1>(vector));
        store(32 + k, _mm512_extracti32x4_epi32::<2>(vector));
        store(48 + k, _mm512_extracti32x4_epi32::<3>(vector));
    }
}

/// A mask of the first `count` bytes, at most 64.
#[inline]
#[target_feature(enable = "bmi2")]
pub(crate) fn first(count: usize) -> u64 {
    std::arch::x86_64::_bzhi_u64(u64::MAX, count.min(64) as u32)
}
