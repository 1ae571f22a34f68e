//! NEON: a vector of 64 lanes is four registers; values are widened four at a time.
//!
//! The tests pass under an emulator (QEMU); no `AArch64` processor has run it yet, so that nothing is known of its speed.
#![allow(clippy::wildcard_imports, reason = "intrinsics")]
#![allow(unsafe_code, reason = "intrinsics, which every AArch64 has")]

use std::arch::aarch64::*;

use narrows::machine::Neon;

use crate::frame::Place;
use crate::reference::PARTIALS;
use crate::strips::{self, Coded, Floats, Ints, Multiply, Store};

type Checked = Result<(), (usize, &'static str)>;

/// Run a consumer; every `AArch64` that Rust's standard library runs on has the instructions.
macro_rules! entry {
    ($name:ident, $consumer:ty, $output:ty) => {
        pub(crate) fn $name(
            (lanes, ()): (Neon, ()),
            coded: Coded<'_>,
            places: &[Place],
            rows: usize,
            consumer: &$consumer,
            output: &mut [$output],
        ) -> Checked {
            strips::run(lanes, coded, places, rows, consumer, output)
        }
    };
}

entry!(floats, Floats<'_, (), false>, f32);
entry!(few_floats, Floats<'_, (), true>, f32);
entry!(ints, Ints<'_, ()>, i32);
entry!(store, Store, i8);

/// [`strips::multiply`].
pub(crate) fn multiply((lanes, ()): (Neon, ()), weights: &[f32], x: &[f32], y: &mut [f32]) {
    strips::multiply(lanes, (), weights, x, y);
}

/// [`strips::dot`].
pub(crate) fn dot((lanes, ()): (Neon, ()), values: &[i8], x: &[f32]) -> f32 {
    strips::dot(lanes, (), values, x)
}

/// The eight values of half a register, widened.
#[inline(always)]
fn halves(values: uint8x16_t) -> [int16x8_t; 2] {
    // SAFETY: every AArch64 has these instructions.
    unsafe {
        let values = vreinterpretq_s8_u8(values);
        [vmovl_s8(vget_low_s8(values)), vmovl_s8(vget_high_s8(values))]
    }
}

impl Multiply for Neon {
    type Proof = ();
    type Sums = [float32x4_t; 4];
    type Totals = int32x4_t;

    #[inline(always)]
    fn no_sums(self, (): ()) -> Self::Sums {
        // SAFETY: every AArch64 has these instructions.
        unsafe { [vdupq_n_f32(0.0); 4] }
    }

    #[inline(always)]
    fn add_products(self, (): (), mut sums: Self::Sums, values: Self::Bytes, x: &[f32; 64]) -> Self::Sums {
        let (x, _) = x.as_chunks::<4>();
        for (register, &values) in values.iter().enumerate() {
            for (half, values) in halves(values).into_iter().enumerate() {
                // SAFETY: every AArch64 has these instructions; four floats are read at a time.
                unsafe {
                    let quarters = [vmovl_s16(vget_low_s16(values)), vmovl_s16(vget_high_s16(values))];
                    for (quarter, values) in quarters.into_iter().enumerate() {
                        let at = 2 * half + quarter;
                        let x = vld1q_f32(x[4 * register + at].as_ptr());
                        sums[at] = vfmaq_f32(sums[at], vcvtq_f32_s32(values), x);
                    }
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn add_floats(self, (): (), mut sums: Self::Sums, weights: &[f32; 16], x: &[f32; 16]) -> Self::Sums {
        let ((weights, _), (x, _)) = (weights.as_chunks::<4>(), x.as_chunks::<4>());
        for (sum, (weights, x)) in sums.iter_mut().zip(weights.iter().zip(x)) {
            // SAFETY: every AArch64 has these instructions; four floats are read from each.
            unsafe { *sum = vfmaq_f32(*sum, vld1q_f32(weights.as_ptr()), vld1q_f32(x.as_ptr())) };
        }
        sums
    }

    #[inline(always)]
    fn partials(self, (): (), sums: Self::Sums) -> [f32; PARTIALS] {
        let mut partials = [0.0; PARTIALS];
        for (partials, sums) in partials.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
            // SAFETY: every AArch64 has these instructions; four floats are written.
            unsafe { vst1q_f32(partials.as_mut_ptr(), sums) };
        }
        partials
    }

    #[inline(always)]
    fn no_totals(self, (): ()) -> int32x4_t {
        // SAFETY: every AArch64 has these instructions.
        unsafe { vdupq_n_s32(0) }
    }

    #[inline(always)]
    fn add_int_products(self, (): (), mut totals: int32x4_t, values: Self::Bytes, x: &[u8; 64]) -> int32x4_t {
        let (x, _) = x.as_chunks::<8>();
        for (register, &values) in values.iter().enumerate() {
            for (half, values) in halves(values).into_iter().enumerate() {
                // SAFETY: every AArch64 has these instructions; eight bytes are read.
                unsafe {
                    let x = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(x[2 * register + half].as_ptr())));
                    totals = vmlal_s16(totals, vget_low_s16(values), vget_low_s16(x));
                    totals = vmlal_high_s16(totals, values, x);
                }
            }
        }
        totals
    }

    #[inline(always)]
    fn total(self, (): (), totals: int32x4_t) -> i32 {
        // SAFETY: every AArch64 has these instructions.
        unsafe { vaddvq_s32(totals) }
    }
}
