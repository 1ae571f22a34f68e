//! AVX-512 with VNNI: a step of 64 columns is four fused multiply-adds in f32, or one `vpdpbusd`.
//!
//! Decoding takes about 13 cycles a step (`narrows::machine::Strip`), so that products with bytes cost about as much as
//! decoding alone. Those in f32 take four registers of inputs, and each value widened: twice (11 instructions on two
//! ports), or looked up among 16 floats (8).
#![allow(clippy::wildcard_imports, reason = "intrinsics")]
#![allow(unsafe_code, reason = "intrinsics; `Avx512` and `Vnni` are proofs that the processor has them")]

use std::arch::x86_64::*;

use narrows::machine::Avx512;

use crate::frame::Place;
use crate::reference::PARTIALS;
use crate::strips::{self, Coded, Floats, Ints, Multiply, Store};

type Checked = Result<(), (usize, &'static str)>;

/// Proof that the processor has AVX-512 VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Vnni(());

/// Both proofs, if they hold.
pub(crate) fn proofs() -> Option<(Avx512, Vnni)> {
    let vnni = is_x86_feature_detected!("avx512vnni").then_some(Vnni(()));
    Avx512::new().zip(vnni)
}

/// Run a consumer with the instructions enabled.
macro_rules! entry {
    ($name:ident, $inner:ident, $consumer:ty, $output:ty) => {
        pub(crate) fn $name(
            proofs: (Avx512, Vnni),
            coded: Coded<'_>,
            places: &[Place],
            rows: usize,
            consumer: &$consumer,
            output: &mut [$output],
        ) -> Checked {
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,avx512vnni")]
            fn $inner(
                lanes: Avx512,
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

entry!(floats, floats_with, Floats<'_, Vnni, false>, f32);
entry!(few_floats, few_floats_with, Floats<'_, Vnni, true>, f32);
entry!(ints, ints_with, Ints<'_, Vnni>, i32);
entry!(store, store_with, Store, i8);

/// [`strips::multiply`] with the instructions enabled.
pub(crate) fn multiply(proofs: (Avx512, Vnni), weights: &[f32], x: &[f32], y: &mut [f32]) {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,avx512vnni")]
    fn with(proofs: (Avx512, Vnni), weights: &[f32], x: &[f32], y: &mut [f32]) {
        strips::multiply(proofs.0, proofs.1, weights, x, y);
    }
    // SAFETY: `proofs` says that the processor has these instructions.
    unsafe { with(proofs, weights, x, y) }
}

/// [`strips::dot`] with the instructions enabled.
pub(crate) fn dot(proofs: (Avx512, Vnni), values: &[i8], x: &[f32]) -> f32 {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,avx512vnni")]
    fn with(proofs: (Avx512, Vnni), values: &[i8], x: &[f32]) -> f32 {
        strips::dot(proofs.0, proofs.1, values, x)
    }
    // SAFETY: `proofs` says that the processor has these instructions.
    unsafe { with(proofs, values, x) }
}

/// Where each byte comes from when column `16 k + j` goes to byte `k` of word `j`.
const DEALT: [u8; 64] = {
    let (mut from, mut at) = ([0; 64], 0);
    while at < 64 {
        from[at] = (16 * (at % 4) + at / 4) as u8;
        at += 1;
    }
    from
};

impl Multiply for Avx512 {
    type Proof = Vnni;
    type Sums = __m512;
    type Totals = __m512i;

    #[inline(always)]
    fn no_sums(self, _: Vnni) -> __m512 {
        // SAFETY: `self` is the proof of the instructions.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    fn add_products(self, _: Vnni, sums: __m512, values: __m512i, x: &[f32; 64]) -> __m512 {
        // SAFETY: `self` is the proof of the instructions; the loads are of 16 floats each, within the 64 of `x`.
        unsafe {
            let product = |sums, quarter, at: usize| {
                let values = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(quarter));
                _mm512_fmadd_ps(values, _mm512_loadu_ps(x.as_ptr().add(at)), sums)
            };
            let sums = product(sums, _mm512_castsi512_si128(values), 0);
            let sums = product(sums, _mm512_extracti32x4_epi32::<1>(values), 16);
            let sums = product(sums, _mm512_extracti32x4_epi32::<2>(values), 32);
            product(sums, _mm512_extracti32x4_epi32::<3>(values), 48)
        }
    }

    #[inline(always)]
    fn add_few_products(self, _: Vnni, sums: __m512, values: __m512i, x: &[f32; 64]) -> __m512 {
        // SAFETY: `self` is the proof of the instructions; the loads are of 16 floats each, within the 64 of `x`.
        unsafe {
            // Column `16 k + j` to byte `k` of word `j`: a look-up sees the low four bits of a word, which say what
            // the value is.
            let floats =
                _mm512_setr_ps(0., 1., 2., 3., 4., 5., 6., 7., -8., -7., -6., -5., -4., -3., -2., -1.);
            let values = _mm512_permutexvar_epi8(_mm512_loadu_si512(DEALT.as_ptr().cast()), values);
            let product = |sums, values, at: usize| {
                let weights = _mm512_permutexvar_ps(values, floats);
                _mm512_fmadd_ps(weights, _mm512_loadu_ps(x.as_ptr().add(at)), sums)
            };
            let sums = product(sums, values, 0);
            let sums = product(sums, _mm512_srli_epi32::<8>(values), 16);
            let sums = product(sums, _mm512_srli_epi32::<16>(values), 32);
            product(sums, _mm512_srli_epi32::<24>(values), 48)
        }
    }

    #[inline(always)]
    fn add_floats(self, _: Vnni, sums: __m512, weights: &[f32; 16], x: &[f32; 16]) -> __m512 {
        // SAFETY: `self` is the proof of the instructions; 16 floats are read from each.
        unsafe { _mm512_fmadd_ps(_mm512_loadu_ps(weights.as_ptr()), _mm512_loadu_ps(x.as_ptr()), sums) }
    }

    #[inline(always)]
    fn partials(self, _: Vnni, sums: __m512) -> [f32; PARTIALS] {
        let mut partials = [0.0; PARTIALS];
        // SAFETY: `self` is the proof of the instructions; 16 floats are written.
        unsafe { _mm512_storeu_ps(partials.as_mut_ptr(), sums) };
        partials
    }

    #[inline(always)]
    fn no_totals(self, _: Vnni) -> __m512i {
        // SAFETY: `self` is the proof of the instructions.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn add_int_products(self, _: Vnni, totals: __m512i, values: __m512i, x: &[u8; 64]) -> __m512i {
        // SAFETY: `self` and the `Vnni` are the proofs of the instructions; 64 bytes are loaded.
        unsafe { _mm512_dpbusd_epi32(totals, _mm512_loadu_si512(x.as_ptr().cast()), values) }
    }

    #[inline(always)]
    fn total(self, _: Vnni, totals: __m512i) -> i32 {
        // SAFETY: `self` is the proof of the instructions.
        unsafe { _mm512_reduce_add_epi32(totals) }
    }
}
