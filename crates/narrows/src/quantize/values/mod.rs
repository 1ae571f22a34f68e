//! Symbols to values.
//!
//! An f32 is computed, in the very steps of [`Affine::dequantize`] but for its clamp, which is left out where
//! the values of the first and the last symbol show that it would do nothing. 16-bit values are looked
//! up; AVX-512 looks up 64 at a time.

#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::cpu::Path;
use crate::simd::{for_paths, to_line};
use crate::tensor::{Dtype, Element};

use super::{Affine, MAX_LEVELS};

/// Elements of an inner loop of fixed length.
const LANES: usize = 64;

/// How one map's symbols become values of a type.
pub(crate) struct Values<T> {
    affine: Affine,
    computed: bool,
    /// The value of each symbol, if they are not computed.
    table: [T; MAX_LEVELS as usize],
}

impl<T: Element> Values<T> {
    /// Ready to undo `affine`.
    pub(crate) fn new(path: Path, affine: &Affine) -> Self {
        let ends = [0, (affine.levels() - 1) as u8].map(|symbol| affine.unclamped(symbol));
        let computed =
            path != Path::Reference && T::DTYPE == Dtype::F32 && ends.iter().all(|x| x.is_finite());
        let mut table = [T::from_bits(0); MAX_LEVELS as usize];
        if !computed {
            for (symbol, value) in table[..affine.levels().into()].iter_mut().enumerate() {
                *value = T::from_f32(affine.dequantize(symbol as u8));
            }
        }
        Self { affine: *affine, computed, table }
    }

    /// The value of a symbol.
    pub(super) fn of(&self, symbol: u8) -> T {
        if self.computed { T::from_f32(self.affine.dequantize(symbol)) } else { self.table[symbol as usize] }
    }

    /// Write the values of `symbols`, all of them in the alphabet, over `out`, which is as long.
    pub(crate) fn write(&self, path: Path, symbols: &[u8], out: &mut [T]) {
        if self.computed {
            let out = bytemuck::cast_slice_mut(out);
            return compute(path, (self.affine.zero(), self.affine.step()), symbols, out);
        }
        match T::DTYPE {
            Dtype::F16 | Dtype::Bf16 if path != Path::Reference => {
                let table = bytemuck::cast_ref(&self.table);
                look_up(path, table, self.affine.levels().into(), symbols, bytemuck::cast_slice_mut(out));
            }
            _ => out.iter_mut().zip(symbols).for_each(|(x, &symbol)| *x = self.table[symbol as usize]),
        }
    }
}

for_paths! {
    fn compute(map: (i32, f32), symbols: &[u8], out: &mut [f32]) = compute_kernel
}
for_paths! {
    fn look_up(table: &[u16; 256], levels: usize, symbols: &[u8], out: &mut [u16]) = look_up_kernel, avx512 avx512::look_up
}

#[inline(always)]
fn compute_kernel((zero, step): (i32, f32), symbols: &[u8], out: &mut [f32]) {
    let value = |symbol: u8| (i32::from(symbol) - zero) as f32 * step;
    let block = |symbols: &[u8; LANES], out: &mut [f32; LANES]| {
        for lane in 0..LANES {
            out[lane] = value(symbols[lane]);
        }
    };
    in_blocks(symbols, out, block, value);
}

#[inline(always)]
fn look_up_kernel(table: &[u16; 256], _levels: usize, symbols: &[u8], out: &mut [u16]) {
    out.iter_mut().zip(symbols).for_each(|(x, &symbol)| *x = table[symbol as usize]);
}

/// Write `out` by whole blocks, all but the first starting where cache lines do, and the rest one by one.
#[inline(always)]
fn in_blocks<V>(
    symbols: &[u8],
    out: &mut [V],
    block: impl Fn(&[u8; LANES], &mut [V; LANES]),
    one: impl Fn(u8) -> V,
) {
    let head = to_line(out, LANES);
    if head > 0
        && let (Some(symbols), Some(out)) = (symbols.first_chunk(), out.first_chunk_mut())
    {
        block(symbols, out);
    }
    let (blocks, rest) = symbols[head..].as_chunks::<LANES>();
    let out_blocks = out[head..].as_chunks_mut::<LANES>().0;
    blocks.iter().zip(out_blocks).for_each(|(symbols, out)| block(symbols, out));
    if rest.is_empty() {
        return;
    }
    // The rest once more as part of a whole block, if there was one.
    match (symbols.last_chunk(), out.last_chunk_mut()) {
        (Some(symbols), Some(out)) => block(symbols, out),
        _ => out.iter_mut().zip(symbols).for_each(|(x, &symbol)| *x = one(symbol)),
    }
}
