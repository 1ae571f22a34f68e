//! Which instructions a matrix is decoded and multiplied with.

use narrows::Path;

use crate::frame::Place;
#[cfg(target_arch = "aarch64")]
use crate::neon;
use crate::reference;
use crate::strips::{Coded, FEW_VALUES, Store};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::strips::{Floats, Ints};
#[cfg(target_arch = "x86_64")]
use crate::{avx2, avx512};

/// A set of instructions, with the proof that the processor has them.
#[derive(Clone, Copy)]
pub(crate) enum Kernel {
    /// The specification.
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(narrows::machine::Avx2<2>, avx2::Fma),
    #[cfg(target_arch = "x86_64")]
    Avx512(narrows::machine::Avx512, avx512::Vnni),
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// Do `$call` with a kernel's proofs.
macro_rules! on {
    ($kernel:expr, scalar => $scalar:expr, $function:ident($proof:ident => $($argument:expr),*)) => {
        match $kernel {
            Kernel::Scalar => $scalar,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(lanes, $proof) => avx2::$function((lanes, $proof), $($argument),*),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512(lanes, $proof) => avx512::$function((lanes, $proof), $($argument),*),
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon => {
                let $proof = ();
                neon::$function((narrows::machine::Neon, $proof), $($argument),*)
            }
        }
    };
}

impl Kernel {
    /// The best that the path has for machines of `2^state_bits` states that read `most_bits` bits at most.
    pub(crate) fn of(path: Path, state_bits: u32, most_bits: u32) -> Self {
        let _ = most_bits;
        match path {
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 if state_bits <= 8 => {
                let avx512 = avx512::proofs().map(|(lanes, vnni)| Self::Avx512(lanes, vnni));
                avx512.unwrap_or_else(|| Self::of(Path::Avx2, state_bits, most_bits))
            }
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 if state_bits.max(most_bits) <= narrows::machine::MOST_BITS_AVX2 => {
                avx2::proofs().map_or(Self::Scalar, |(lanes, fma)| Self::Avx2(lanes, fma))
            }
            #[cfg(target_arch = "aarch64")]
            Path::Neon if state_bits <= 8 => Self::Neon,
            _ => Self::Scalar,
        }
    }

    /// Whether it works on vector registers.
    pub(crate) const fn is_vector(self) -> bool {
        !matches!(self, Self::Scalar)
    }

    /// Products of chunks with `x`.
    pub(crate) fn floats(
        self,
        coded: Coded<'_>,
        places: &[Place],
        rows: usize,
        x: &[f32],
        y: &mut [f32],
    ) -> Result<(), (usize, &'static str)> {
        if coded.half <= *FEW_VALUES.end() as u8 {
            return on!(self, scalar => unreachable!("fused products are for vectors"),
                few_floats(proof => coded, places, rows, &Floats { proof, x }, y));
        }
        on!(self, scalar => unreachable!("fused products are for vectors"),
            floats(proof => coded, places, rows, &Floats { proof, x }, y))
    }

    /// Products of chunks with bytes; `x` is these, what stands for zero in them, and a one for each.
    pub(crate) fn ints(
        self,
        coded: Coded<'_>,
        places: &[Place],
        rows: usize,
        (x, zero, ones): (&[u8], u8, &[u8]),
        y: &mut [i32],
    ) -> Result<(), (usize, &'static str)> {
        on!(self, scalar => unreachable!("fused products are for vectors"),
            ints(proof => coded, places, rows, &Ints { proof, x, zero, ones }, y))
    }

    /// The values of chunks.
    pub(crate) fn store(
        self,
        coded: Coded<'_>,
        places: &[Place],
        rows: usize,
        store: &Store,
        values: &mut [i8],
    ) -> Result<(), (usize, &'static str)> {
        on!(self, scalar => unreachable!("the reference decodes chunk by chunk"),
            store(proof => coded, places, rows, store, values))
    }

    /// A row of weights times inputs, one after the other in `x`; both padded with zeros to a multiple of 16.
    pub(crate) fn multiply(self, weights: &[f32], x: &[f32], y: &mut [f32]) {
        on!(self, scalar => {
            for (x, y) in x.chunks_exact(weights.len()).zip(y) {
                *y = reference::dot_floats(weights, x);
            }
        }, multiply(proof => weights, x, y));
    }

    /// A row of values times `x`, which goes on with 64 zeros.
    pub(crate) fn dot(self, values: &[i8], x: &[f32]) -> f32 {
        on!(self, scalar => reference::dot(values, x), dot(proof => values, x))
    }
}
