//! Elements to planes of bytes and back: one pass over all planes, compiled for each path.

use half::{bf16, f16};

use super::Format;
use crate::cpu::Path;
use crate::simd::for_paths;
use crate::tensor::{Dtype, Element};

/// The most mantissa planes of a type: 24 bits of an f32.
pub(super) const MOST_MANTISSAS: usize = 3;
/// Elements that are joined at a time where planes leave zeros out: their planes stay in the first-level cache.
const TILE: usize = 1024;

/// What a tensor's elements with exponent 0 are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Zeros {
    /// There are some.
    pub(super) any: bool,
    /// Every one of them is +0.
    pub(super) positive: bool,
}

/// Split `elements` into `exponents` and the first planes of `mantissas`, as many as the type has, all as long.
pub(super) fn split<T: Element>(
    path: Path,
    elements: &[T],
    exponents: &mut [u8],
    mantissas: [&mut [u8]; MOST_MANTISSAS],
) -> Zeros {
    let [first, second, third] = mantissas;
    match T::DTYPE {
        Dtype::F32 => split_f32(path, bytemuck::cast_slice(elements), exponents, [first, second, third]),
        Dtype::F16 => split_f16(path, bytemuck::cast_slice(elements), exponents, [first, second]),
        Dtype::Bf16 => split_bf16(path, bytemuck::cast_slice(elements), exponents, [first]),
    }
}

/// Undo [`split`], over `out`.
pub(super) fn join<T: Element>(
    path: Path,
    exponents: &[u8],
    mantissas: [&[u8]; MOST_MANTISSAS],
    out: &mut [T],
) {
    let [first, second, third] = mantissas;
    match T::DTYPE {
        Dtype::F32 => join_f32(path, exponents, [first, second, third], bytemuck::cast_slice_mut(out)),
        Dtype::F16 => join_f16(path, exponents, [first, second], bytemuck::cast_slice_mut(out)),
        Dtype::Bf16 => join_bf16(path, exponents, [first], bytemuck::cast_slice_mut(out)),
    }
}

/// The same where the mantissa planes hold only the elements whose exponent is not 0.
pub(super) fn join_without_zeros<T: Element>(
    path: Path,
    exponents: &[u8],
    mantissas: [&[u8]; MOST_MANTISSAS],
    out: &mut [T],
) {
    let count = Format::of(T::DTYPE).mantissa_planes().count();
    let mut spread = [[0; TILE]; MOST_MANTISSAS];
    let mut rest = mantissas;
    for (exponents, out) in exponents.chunks(TILE).zip(out.chunks_mut(TILE)) {
        for (spread, rest) in spread[..count].iter_mut().zip(&mut rest) {
            *rest = spread_out(exponents, rest, spread);
        }
        let [first, second, third] = &spread;
        let length = exponents.len();
        join(path, exponents, [&first[..length], &second[..length], &third[..length]], out);
    }
}

/// Give each exponent that is not 0 the next byte of `plane`, the others 0; what is left of the plane.
fn spread_out<'a>(exponents: &[u8], plane: &'a [u8], out: &mut [u8; TILE]) -> &'a [u8] {
    let mut at = 0;
    for (out, &exponent) in out.iter_mut().zip(exponents) {
        let byte = plane.get(at).copied().unwrap_or(0);
        *out = if exponent == 0 { 0 } else { byte };
        at += usize::from(exponent != 0);
    }
    &plane[at.min(plane.len())..]
}

/// Keep of each plane what belongs to exponents that are not 0.
pub(super) fn leave_zeros_out(exponents: &[u8], plane: &mut Vec<u8>) {
    let mut at = 0;
    for (index, &exponent) in exponents.iter().enumerate() {
        plane[at] = plane[index];
        at += usize::from(exponent != 0);
    }
    plane.truncate(at);
}

/// How many exponents are not 0.
pub(super) fn nonzeros(path: Path, exponents: &[u8]) -> usize {
    let mut count = 0;
    count_nonzeros(path, exponents, &mut count);
    count
}

for_paths! {
    fn split_f32(elements: &[f32], exponents: &mut [u8], planes: [&mut [u8]; 3]) -> Zeros = split_kernel::<f32, 3>
}
for_paths! {
    fn split_f16(elements: &[f16], exponents: &mut [u8], planes: [&mut [u8]; 2]) -> Zeros = split_kernel::<f16, 2>
}
for_paths! {
    fn split_bf16(elements: &[bf16], exponents: &mut [u8], planes: [&mut [u8]; 1]) -> Zeros = split_kernel::<bf16, 1>
}
for_paths! {
    fn join_f32(exponents: &[u8], planes: [&[u8]; 3], out: &mut [f32]) = join_kernel::<f32, 3>
}
for_paths! {
    fn join_f16(exponents: &[u8], planes: [&[u8]; 2], out: &mut [f16]) = join_kernel::<f16, 2>
}
for_paths! {
    fn join_bf16(exponents: &[u8], planes: [&[u8]; 1], out: &mut [bf16]) = join_kernel::<bf16, 1>
}
for_paths! {
    fn count_nonzeros(exponents: &[u8], count: &mut usize) = count_kernel
}

/// Where the planes of a type begin in its sign and mantissa, and what they hold, by [`Format::mantissa_planes`].
const fn places<const N: usize>(format: Format) -> [(u32, u32); N] {
    let (mut places, mut plane, mut shift) = ([(0, 0); N], 0, 32);
    while plane < N {
        let bits = format.plane_bits(plane);
        shift -= bits;
        places[plane] = (shift, (1 << bits) - 1);
        plane += 1;
    }
    places
}

#[inline(always)]
fn split_kernel<T: Element, const N: usize>(
    elements: &[T],
    exponents: &mut [u8],
    mut planes: [&mut [u8]; N],
) -> Zeros {
    let format = Format::of(T::DTYPE);
    let places = places::<N>(format);
    let exponents = &mut exponents[..elements.len()];
    for plane in &mut planes {
        *plane = &mut std::mem::take(plane)[..elements.len()];
    }
    let (mut zeros, mut others) = (0_u32, 0_u32);
    for (index, element) in elements.iter().enumerate() {
        let (exponent, rest) = format.split(element.to_bits());
        exponents[index] = exponent;
        let is_zero = u32::from(exponent == 0);
        zeros |= is_zero;
        others |= rest & is_zero.wrapping_neg();
        for (plane, (shift, mask)) in planes.iter_mut().zip(places) {
            plane[index] = (rest >> shift & mask) as u8;
        }
    }
    Zeros { any: zeros != 0, positive: others == 0 }
}

#[inline(always)]
fn join_kernel<T: Element, const N: usize>(exponents: &[u8], planes: [&[u8]; N], out: &mut [T]) {
    let format = Format::of(T::DTYPE);
    let places = places::<N>(format);
    let exponents = &exponents[..out.len()];
    let planes = planes.map(|plane| &plane[..out.len()]);
    for (index, out) in out.iter_mut().enumerate() {
        let mut rest = 0;
        for (plane, (shift, _)) in planes.iter().zip(places) {
            rest |= u32::from(plane[index]) << shift;
        }
        *out = T::from_bits(format.join(exponents[index], rest));
    }
}

#[inline(always)]
fn count_kernel(exponents: &[u8], count: &mut usize) {
    // As many as a byte can count.
    for exponents in exponents.chunks(255) {
        let some: u8 = exponents.iter().map(|&exponent| u8::from(exponent != 0)).sum();
        *count += usize::from(some);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit patterns of all exponents and signs, among them many zeros, subnormals and infinities.
    fn patterns(length: usize, zeros: bool) -> Vec<u32> {
        let pattern = |index: usize| {
            let hash = (index as u32).wrapping_mul(0x9e37_79b9) ^ (index as u32) << 7;
            match hash >> 29 {
                0 if zeros => 0,
                1 => hash & 0x807f_ffff,
                _ => hash,
            }
        };
        (0..length).map(pattern).collect()
    }

    fn check<T: Element>(zeros: bool) {
        let format = Format::of(T::DTYPE);
        for length in [0, 1, 2, 63, 64, 65, 1023, 1024, 1025, 5000] {
            let elements: Vec<T> = patterns(length, zeros).into_iter().map(T::from_bits).collect();
            for path in Path::ALL.map(Path::or_portable) {
                let mut exponents = vec![0xaa; length];
                let mut planes = [const { Vec::new() }; MOST_MANTISSAS].map(|_: Vec<u8>| vec![0xaa; length]);
                let found = split(path, &elements, &mut exponents, planes.each_mut().map(Vec::as_mut_slice));
                let mut expected = Zeros { any: false, positive: true };
                for (index, element) in elements.iter().enumerate() {
                    let (exponent, rest) = format.split(element.to_bits());
                    assert_eq!(exponents[index], exponent);
                    expected.any |= exponent == 0;
                    expected.positive &= exponent != 0 || rest == 0;
                    let mut shift = 32;
                    for (plane, bits) in planes.iter().zip(format.mantissa_planes()) {
                        shift -= bits;
                        assert_eq!(u32::from(plane[index]), rest >> shift & ((1 << bits) - 1));
                    }
                }
                assert_eq!(found, expected);
                let mut back = vec![T::from_bits(0x1234); length];
                join(path, &exponents, planes.each_ref().map(Vec::as_slice), &mut back);
                let bits = |elements: &[T]| elements.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&back), bits(&elements), "{path:?}, {length} elements");
                // Without what belongs to an exponent of 0, elements that have it are +0.
                planes.iter_mut().for_each(|plane| leave_zeros_out(&exponents, plane));
                assert_eq!(planes[0].len(), nonzeros(path, &exponents));
                join_without_zeros(path, &exponents, planes.each_ref().map(Vec::as_slice), &mut back);
                for ((&exponent, element), back) in exponents.iter().zip(&elements).zip(&back) {
                    assert_eq!(back.to_bits(), if exponent == 0 { 0 } else { element.to_bits() });
                }
            }
        }
    }

    #[test]
    fn planes_are_what_the_format_says_on_every_path() {
        for zeros in [false, true] {
            check::<f32>(zeros);
            check::<f16>(zeros);
            check::<bf16>(zeros);
        }
    }
}
