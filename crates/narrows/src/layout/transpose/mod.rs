//! Bytes of planes to rows and back: planes of a group lie one after the other, each in one piece, and a
//! row holds one position of each.
//!
//! Blocks of 8 planes by 8 positions are transposed within 64-bit words, several blocks side by side, which
//! compilers turn into vectors. AVX-512 has a module of its own.

#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::simd::for_paths;

/// Planes, and positions of a block.
const SIDE: usize = 8;
/// Blocks side by side.
const BLOCKS: usize = 4;
/// Positions transposed together.
const SPAN: usize = SIDE * BLOCKS;

for_paths! {
    /// Write the rows of planes: `shape` is their number and the symbols of each. What comes after the planes may be read, and what comes
    /// after the rows may be written.
    pub(super) fn planes_to_rows(planes: &[u8], shape: (usize, usize), rows: &mut [u8]) = to_rows, avx512 avx512::to_rows
}
for_paths! {
    /// Write the planes that rows were made of; as [`planes_to_rows`].
    pub(super) fn rows_to_planes(rows: &[u8], shape: (usize, usize), planes: &mut [u8]) = to_planes, avx512 avx512::to_planes
}

/// Starts of pieces of `length` that cover `0..total`; the last one overlaps the one before where they do
/// not fit evenly. None if `total` is shorter than a piece.
#[inline(always)]
fn pieces(total: usize, length: usize) -> impl Iterator<Item = usize> {
    let count = if total < length { 0 } else { total.div_ceil(length) };
    (0..count).map(move |k| (k * length).min(total - length))
}

/// Eight words side by side: each a row of eight bytes of one of the blocks.
type Words = [[u64; BLOCKS]; SIDE];

#[inline(always)]
fn transpose(words: &mut Words) {
    exchange::<4, 32>(words, 0x0000_0000_ffff_ffff);
    exchange::<2, 16>(words, 0x0000_ffff_0000_ffff);
    exchange::<1, 8>(words, 0x00ff_00ff_00ff_00ff);
}

/// Exchange the upper halves of words with the lower halves of those `APART` words after them; a half is
/// `BITS` wide and `lower` has its bits.
#[inline(always)]
fn exchange<const APART: usize, const BITS: u32>(words: &mut Words, lower: u64) {
    for first in (0..SIDE).filter(|k| k & APART == 0) {
        for block in 0..BLOCKS {
            let (a, b) = (words[first][block], words[first + APART][block]);
            let differ = ((a >> BITS) ^ b) & lower;
            words[first][block] = a ^ differ << BITS;
            words[first + APART][block] = b ^ differ;
        }
    }
}

#[inline(always)]
fn to_rows(planes: &[u8], (width, positions): (usize, usize), rows: &mut [u8]) {
    for plane in pieces(width, SIDE) {
        for position in pieces(positions, SPAN) {
            let mut words: Words = std::array::from_fn(|p| {
                let bytes = &planes[(plane + p) * positions + position..][..SPAN];
                std::array::from_fn(|block| word(bytes, block * SIDE))
            });
            transpose(&mut words);
            let rows = &mut rows[position * width + plane..];
            for block in 0..BLOCKS {
                for (k, words) in words.iter().enumerate() {
                    let row = (block * SIDE + k) * width;
                    rows[row..row + SIDE].copy_from_slice(&words[block].to_le_bytes());
                }
            }
        }
    }
    for (plane, position) in left_over(width, positions) {
        rows[position * width + plane] = planes[plane * positions + position];
    }
}

#[inline(always)]
fn to_planes(rows: &[u8], (width, positions): (usize, usize), planes: &mut [u8]) {
    for plane in pieces(width, SIDE) {
        for position in pieces(positions, SPAN) {
            let rows = &rows[position * width + plane..];
            let mut words: Words =
                std::array::from_fn(|k| std::array::from_fn(|block| word(rows, (block * SIDE + k) * width)));
            transpose(&mut words);
            for (p, words) in words.iter().enumerate() {
                let bytes = &mut planes[(plane + p) * positions + position..][..SPAN];
                for (bytes, word) in bytes.as_chunks_mut::<SIDE>().0.iter_mut().zip(words) {
                    *bytes = word.to_le_bytes();
                }
            }
        }
    }
    for (plane, position) in left_over(width, positions) {
        planes[plane * positions + position] = rows[position * width + plane];
    }
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + SIDE].try_into().expect("eight bytes"))
}

/// What whole blocks do not cover: everything, if planes or positions are too few for one.
#[inline(always)]
fn left_over(width: usize, positions: usize) -> impl Iterator<Item = (usize, usize)> {
    let planes = if width < SIDE || positions < SPAN { width } else { 0 };
    (0..planes).flat_map(move |plane| (0..positions).map(move |position| (plane, position)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Path;

    #[test]
    fn rows_of_planes_and_back_on_every_path() {
        let bytes: Vec<u8> = (0..40_u32 * 270).map(|i| ((i * i) >> 3) as u8).collect();
        for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
            for width in 1..=40 {
                for positions in (1..70).chain([127, 128, 129, 200]) {
                    let planes = &bytes[..width * positions];
                    let expected: Vec<u8> =
                        (0..planes.len()).map(|i| planes[i % width * positions + i / width]).collect();
                    let mut rows = vec![0xee; planes.len()];
                    planes_to_rows(path, planes, (width, positions), &mut rows);
                    assert_eq!(rows, expected, "{path:?}: {width} planes of {positions} to rows");
                    let mut back = vec![0xee; planes.len()];
                    rows_to_planes(path, &rows, (width, positions), &mut back);
                    assert_eq!(back, planes, "{path:?}: rows to {width} planes of {positions}");
                    // With more after them, of which there is to be no trace.
                    let mut longer = vec![0xee; planes.len() + 40 * 70];
                    planes_to_rows(path, &bytes[..longer.len()], (width, positions), &mut longer);
                    assert_eq!(
                        longer[..rows.len()],
                        rows,
                        "{path:?}: {width} planes of {positions}, and more"
                    );
                    longer[rows.len()..].fill(0xdd);
                    let mut back = vec![0xee; longer.len()];
                    rows_to_planes(path, &longer, (width, positions), &mut back);
                    assert_eq!(
                        back[..planes.len()],
                        *planes,
                        "{path:?}: {width} planes of {positions}, and more"
                    );
                }
            }
        }
    }
}
