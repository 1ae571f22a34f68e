//! Dense matrix-vector products that packed weights are measured against: f32, bf16, int8, and int4 and 2 bits packed.
//!
//! Each reads its weights once, four rows at a time, and is bound by memory where the matrix is larger than the caches.
//! They need AVX-512 with VNNI and BF16, and are no part of the library's interface.
#![allow(clippy::wildcard_imports, reason = "intrinsics")]
#![allow(unsafe_code, reason = "intrinsics; `Dense` is a proof that the processor has them")]
#![allow(missing_docs, reason = "for measurements only")]

use std::arch::x86_64::*;

/// Rows that share their loads of inputs.
const ROWS: usize = 4;

/// Proof that the processor has AVX-512 F, BW, VNNI and BF16.
#[derive(Clone, Copy)]
pub struct Dense(());

impl Dense {
    pub fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx512bf16");
        has.then_some(Self(()))
    }

    /// `y = W x`; columns a multiple of 32, rows of 4.
    pub fn f32(self, weights: &[f32], x: &[f32], y: &mut [f32]) {
        assert!(
            x.len().is_multiple_of(32) && y.len().is_multiple_of(ROWS) && weights.len() == x.len() * y.len()
        );
        // SAFETY: `self` is the proof of the instructions.
        unsafe { f32_with(weights, x, y) }
    }

    /// The same in bf16, as bits.
    pub fn bf16(self, weights: &[u16], x: &[u16], y: &mut [f32]) {
        assert!(
            x.len().is_multiple_of(64) && y.len().is_multiple_of(ROWS) && weights.len() == x.len() * y.len()
        );
        // SAFETY: `self` is the proof of the instructions.
        unsafe { bf16_with(weights, x, y) }
    }

    /// The same in bytes: weights with a sign, inputs without.
    pub fn int8(self, weights: &[i8], x: &[u8], y: &mut [i32]) {
        assert!(
            x.len().is_multiple_of(128) && y.len().is_multiple_of(ROWS) && weights.len() == x.len() * y.len()
        );
        // SAFETY: `self` is the proof of the instructions.
        unsafe { int8_with::<8>(bytemuck::cast_slice(weights), x, y) }
    }

    /// The same with weights of -8 to 7 in 4 bits: of 128 columns byte `i` has `i` low and `i + 64` high.
    pub fn int4(self, weights: &[u8], x: &[u8], y: &mut [i32]) {
        assert!(
            x.len().is_multiple_of(128)
                && y.len().is_multiple_of(ROWS)
                && weights.len() * 2 == x.len() * y.len()
        );
        // SAFETY: `self` is the proof of the instructions.
        unsafe { int8_with::<4>(weights, x, y) }
    }

    /// The same with weights of -1 to 2 in 2 bits: of 256 columns byte `i` has `i`, `i + 64`, `i + 128`, `i + 192`.
    pub fn int2(self, weights: &[u8], x: &[u8], y: &mut [i32]) {
        assert!(
            x.len().is_multiple_of(256)
                && y.len().is_multiple_of(ROWS)
                && weights.len() * 4 == x.len() * y.len()
        );
        // SAFETY: `self` is the proof of the instructions.
        unsafe { int8_with::<2>(weights, x, y) }
    }
}

#[target_feature(enable = "avx512f")]
fn f32_with(weights: &[f32], x: &[f32], y: &mut [f32]) {
    for (rows, y) in weights.chunks_exact(ROWS * x.len()).zip(y.chunks_exact_mut(ROWS)) {
        let mut sums = [_mm512_setzero_ps(); 2 * ROWS];
        for (at, x) in x.as_chunks::<32>().0.iter().enumerate() {
            for half in 0..2 {
                // SAFETY: 16 floats of the 32.
                let inputs = unsafe { _mm512_loadu_ps(x.as_ptr().add(16 * half)) };
                for row in 0..ROWS {
                    let from = &rows[row * (rows.len() / ROWS) + 32 * at + 16 * half..][..16];
                    // SAFETY: 16 floats, as the slice has.
                    let weights = unsafe { _mm512_loadu_ps(from.as_ptr()) };
                    sums[2 * row + half] = _mm512_fmadd_ps(weights, inputs, sums[2 * row + half]);
                }
            }
        }
        for (row, y) in y.iter_mut().enumerate() {
            *y = _mm512_reduce_add_ps(_mm512_add_ps(sums[2 * row], sums[2 * row + 1]));
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn bf16_with(weights: &[u16], x: &[u16], y: &mut [f32]) {
    for (rows, y) in weights.chunks_exact(ROWS * x.len()).zip(y.chunks_exact_mut(ROWS)) {
        let mut sums = [_mm512_setzero_ps(); 2 * ROWS];
        for (at, x) in x.as_chunks::<64>().0.iter().enumerate() {
            for half in 0..2 {
                // SAFETY: 32 elements of the 64.
                let inputs = unsafe { _mm512_loadu_si512(x.as_ptr().add(32 * half).cast()) };
                for row in 0..ROWS {
                    let from = &rows[row * (rows.len() / ROWS) + 64 * at + 32 * half..][..32];
                    // SAFETY: 32 elements, as the slice has; both types are 512 bits of anything.
                    let (weights, inputs): (__m512bh, __m512bh) = unsafe {
                        (
                            std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(
                                from.as_ptr().cast(),
                            )),
                            std::mem::transmute::<__m512i, __m512bh>(inputs),
                        )
                    };
                    sums[2 * row + half] = _mm512_dpbf16_ps(sums[2 * row + half], weights, inputs);
                }
            }
        }
        for (row, y) in y.iter_mut().enumerate() {
            *y = _mm512_reduce_add_ps(_mm512_add_ps(sums[2 * row], sums[2 * row + 1]));
        }
    }
}

/// Weights of `BITS` bits, unpacked by a look-up.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn int8_with<const BITS: usize>(weights: &[u8], x: &[u8], y: &mut [i32]) {
    let entries = _mm512_broadcast_i32x4(if BITS == 4 {
        _mm_setr_epi8(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7)
    } else {
        _mm_setr_epi8(-1, 0, 1, 2, -1, 0, 1, 2, -1, 0, 1, 2, -1, 0, 1, 2)
    });
    let mask = _mm512_set1_epi8((1 << (BITS % 8)) - 1);
    let parts = 8 / BITS;
    let row_bytes = x.len() / parts;
    for (rows, y) in weights.chunks_exact(ROWS * row_bytes).zip(y.chunks_exact_mut(ROWS)) {
        let mut sums = [_mm512_setzero_si512(); 2 * ROWS];
        for (at, x) in x.chunks_exact(64 * parts).enumerate() {
            for row in 0..ROWS {
                let from = &rows[row * row_bytes + 64 * at..][..64];
                // SAFETY: 64 bytes, as the slice has.
                let packed = unsafe { _mm512_loadu_si512(from.as_ptr().cast()) };
                for part in 0..parts {
                    // SAFETY: 64 bytes of the `64 * parts`.
                    let inputs = unsafe { _mm512_loadu_si512(x.as_ptr().add(64 * part).cast()) };
                    let weights = match (BITS, part) {
                        (8, _) => packed,
                        (_, 0) => _mm512_shuffle_epi8(entries, _mm512_and_si512(packed, mask)),
                        (_, part) => {
                            let shifted = _mm512_srl_epi16(packed, _mm_cvtsi32_si128((part * BITS) as i32));
                            _mm512_shuffle_epi8(entries, _mm512_and_si512(shifted, mask))
                        }
                    };
                    let sum = &mut sums[2 * row + (at + part) % 2];
                    *sum = _mm512_dpbusd_epi32(*sum, inputs, weights);
                }
            }
        }
        for (row, y) in y.iter_mut().enumerate() {
            *y = _mm512_reduce_add_epi32(_mm512_add_epi32(sums[2 * row], sums[2 * row + 1]));
        }
    }
}
