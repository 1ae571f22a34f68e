//! AVX2 with FMA: the two registers of 64 lanes are widened eight values at a time.
//!
//! Products with bytes are made of 16 bits (`vpmaddwd`): `vpmaddubsw` would saturate.
#![allow(clippy::wildcard_imports, reason = "intrinsics")]
#![allow(unsafe_code, reason = "intrinsics; `Avx2` and `Fma` are proofs that the processor has them")]

use std::arch::x86_64::*;

use narrows::machine::Avx2;

use crate::frame::Place;
use crate::reference::PARTIALS;
use crate::strips::{self, Coded, Floats, Ints, Multiply, Store};

type Checked = Result<(), (usize, &'static str)>;

/// Proof that the processor has FMA.
#[derive(Clone, Copy)]
pub(crate) struct Fma(());

/// Both proofs, if they hold.
pub(crate) fn proofs() -> Option<(Avx2<2>, Fma)> {
    let fma = is_x86_feature_detected!("fma").then_some(Fma(()));
    Avx2::proof().zip(fma)
}

/// Run a consumer with the instructions enabled.
macro_rules! entry {
    ($name:ident, $inner:ident, $consumer:ty, $output:ty) => {
        pub(crate) fn $name(
            proofs: (Avx2<2>, Fma),
            coded: Coded<'_>,
            places: &[Place],
            rows: usize,
            consumer: &$consumer,
            output: &mut [$output],
        ) -> Checked {
            #[target_feature(enable = "avx2,bmi2,fma")]
            fn $inner(
                lanes: Avx2<2>,
                coded: Coded<'_>,
                places: &[Place],
                rows: usize,
                consumer: &$consumer,
                output: &mut [$output],
            ) -> Checked {
                strips::run(lanes, coded, places, rows, consumer, output)
            }
            // SAFETY: `proofs` says that the processor has these instructions.
            unsafe { $inner(proofs.0, coded, places, rows, consumer, output) }
        }
    };
}

entry!(floats, floats_with, Floats<'_, Fma, false>, f32);
entry!(few_floats, few_floats_with, Floats<'_, Fma, true>, f32);
entry!(ints, ints_with, Ints<'_, Fma>, i32);
entry!(store, store_with, Store, i8);

/// [`strips::multiply`] with the instructions enabled.
pub(crate) fn multiply(proofs: (Avx2<2>, Fma), weights: &[f32], x: &[f32], y: &mut [f32]) {
    #[target_feature(enable = "avx2,bmi2,fma")]
    fn with(proofs: (Avx2<2>, Fma), weights: &[f32], x: &[f32], y: &mut [f32]) {
        strips::multiply(proofs.0, proofs.1, weights, x, y);
    }
    // SAFETY: `proofs` says that the processor has these instructions.
    unsafe { with(proofs, weights, x, y) }
}

/// [`strips::dot`] with the instructions enabled.
pub(crate) fn dot(proofs: (Avx2<2>, Fma), values: &[i8], x: &[f32]) -> f32 {
    #[target_feature(enable = "avx2,bmi2,fma")]
    fn with(proofs: (Avx2<2>, Fma), values: &[i8], x: &[f32]) -> f32 {
        strips::dot(proofs.0, proofs.1, values, x)
    }
    // SAFETY: `proofs` says that the processor has these instructions.
    unsafe { with(proofs, values, x) }
}

impl Multiply for Avx2<2> {
    type Proof = Fma;
    type Sums = [__m256; 2];
    type Totals = __m256i;

    #[inline(always)]
    fn no_sums(self, _: Fma) -> [__m256; 2] {
        // SAFETY: `self` is the proof of the instructions.
        unsafe { [_mm256_setzero_ps(); 2] }
    }

    #[inline(always)]
    fn add_products(self, _: Fma, mut sums: [__m256; 2], values: [__m256i; 2], x: &[f32; 64]) -> [__m256; 2] {
        // SAFETY: `self` and the `Fma` are the proofs of the instructions; the loads are of 8 floats each, at most
        // from the 57th of the 64 of `x` on.
        unsafe {
            let product = |sums, eight, at: usize| {
                let values = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
                _mm256_fmadd_ps(values, _mm256_loadu_ps(x.as_ptr().add(at)), sums)
            };
            for (register, &values) in values.iter().enumerate() {
                let halves = [_mm256_castsi256_si128(values), _mm256_extracti128_si256::<1>(values)];
                for (half, &values) in halves.iter().enumerate() {
                    let at = 32 * register + 16 * half;
                    sums[0] = product(sums[0], values, at);
                    sums[1] = product(sums[1], _mm_unpackhi_epi64(values, values), at + 8);
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn add_floats(self, _: Fma, sums: [__m256; 2], weights: &[f32; 16], x: &[f32; 16]) -> [__m256; 2] {
        // SAFETY: `self` and the `Fma` are the proofs of the instructions; 8 floats are read at a time, 16 in all.
        unsafe {
            [0, 8].map(|at| {
                let (weights, x) =
                    (_mm256_loadu_ps(weights.as_ptr().add(at)), _mm256_loadu_ps(x.as_ptr().add(at)));
                _mm256_fmadd_ps(weights, x, sums[at / 8])
            })
        }
    }

    #[inline(always)]
    fn partials(self, _: Fma, sums: [__m256; 2]) -> [f32; PARTIALS] {
        let mut partials = [0.0; PARTIALS];
        let (halves, _) = partials.as_chunks_mut::<8>();
        for (half, sums) in halves.iter_mut().zip(sums) {
            // SAFETY: `self` is the proof of the instructions; 8 floats are written.
            unsafe { _mm256_storeu_ps(half.as_mut_ptr(), sums) };
        }
        partials
    }

    #[inline(always)]
    fn no_totals(self, _: Fma) -> __m256i {
        // SAFETY: `self` is the proof of the instructions.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn add_int_products(self, _: Fma, mut totals: __m256i, values: [__m256i; 2], x: &[u8; 64]) -> __m256i {
        // SAFETY: `self` is the proof of the instructions; the loads are of 16 bytes each, at most from the 49th of
        // the 64 of `x` on.
        unsafe {
            for (register, &values) in values.iter().enumerate() {
                let halves = [_mm256_castsi256_si128(values), _mm256_extracti128_si256::<1>(values)];
                for (half, &values) in halves.iter().enumerate() {
                    let x = _mm_loadu_si128(x.as_ptr().add(32 * register + 16 * half).cast());
                    let products = _mm256_madd_epi16(_mm256_cvtepi8_epi16(values), _mm256_cvtepu8_epi16(x));
                    totals = _mm256_add_epi32(totals, products);
                }
            }
        }
        totals
    }

    #[inline(always)]
    fn total(self, _: Fma, totals: __m256i) -> i32 {
        let mut each = [0; 8];
        // SAFETY: `self` is the proof of the instructions; 32 bytes are written.
        unsafe { _mm256_storeu_si256(each.as_mut_ptr().cast(), totals) };
        each.iter().fold(0, |sum: i32, &each| sum.wrapping_add(each))
    }
}
