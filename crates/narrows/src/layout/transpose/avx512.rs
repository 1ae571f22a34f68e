//! Transposition with AVX-512: up to 16 planes by 64 positions, each vector one plane or its share of the rows.
//!
//! Interleaving `n` vectors with one another, `k` with `k + n / 2`, rotates the bits that say where a symbol is:
//! the top bit of the vector's number goes to the bottom of the place within a quarter of a vector, and the top bit
//! of that place to the bottom of the vector's number. As many rounds as the vector's number has bits turn planes
//! into rows, and four more turn them back. A round of 16 vectors takes 16 operations of one port: a whole
//! transposition is one cycle for 16 symbols, or less for fewer planes.

use std::arch::x86_64::{
    __m512i, _mm512_castsi512_si128, _mm512_extracti32x4_epi32, _mm512_setzero_si512, _mm512_unpackhi_epi8,
    _mm512_unpacklo_epi8,
};

use crate::simd::avx512::{
    load, load_part, load_quarters, load_rows, store, store_16_part, store_part, store_rows,
};

/// Planes of the largest tile: as many as a quarter of a vector has symbols.
const PLANES: usize = 16;
/// Positions of a tile.
const POSITIONS: usize = 64;

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn rotate<const N: usize>(mut tile: [__m512i; N], rounds: u32) -> [__m512i; N] {
    for _ in 0..rounds {
        let before = tile;
        for k in 0..N / 2 {
            tile[2 * k] = _mm512_unpacklo_epi8(before[k], before[k + N / 2]);
            tile[2 * k + 1] = _mm512_unpackhi_epi8(before[k], before[k + N / 2]);
        }
    }
    tile
}

/// Starts of tiles: whole ones, the last of them moved back to end where the positions do; or one short one.
fn starts(positions: usize) -> impl Iterator<Item = usize> {
    let last = positions.saturating_sub(POSITIONS);
    (0..positions.div_ceil(POSITIONS)).map(move |k| (k * POSITIONS).min(last))
}

/// The first `count` of a tile's planes, `positions` apart. Of a short plane, what follows it is loaded
/// too; that ends up in rows that there are not.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,bmi2")]
fn load_planes<const N: usize>(planes: &[u8], positions: usize, count: usize) -> [__m512i; N] {
    let mut tile = [_mm512_setzero_si512(); N];
    for (plane, vector) in tile[..count].iter_mut().enumerate() {
        let bytes = &planes[plane * positions..];
        *vector = match bytes.first_chunk() {
            Some(bytes) => load(bytes),
            None => load_part(bytes),
        };
    }
    tile
}

/// The inverse of [`load_planes`]: a short plane is stored beyond its end, and the next one after it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,bmi2")]
fn store_planes<const N: usize>(planes: &mut [u8], positions: usize, tile: &[__m512i; N], count: usize) {
    for (plane, &vector) in tile[..count].iter().enumerate() {
        let bytes = &mut planes[plane * positions..];
        match bytes.first_chunk_mut() {
            Some(bytes) => store(bytes, vector),
            None => store_part(bytes, vector),
        }
    }
}

/// A tile's rows of `N` symbols: quarter `q` of vector `k` holds `16 / N` of them, from row `16 * q + k * 16 / N` on.
/// Of each, `count` symbols are wanted, `stride` apart.
#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    stride: usize,
    count: usize,
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
fn load_tile<const N: usize>(rows: &[u8], shape: Shape) -> [__m512i; N] {
    let mut tile = [_mm512_setzero_si512(); N];
    for (k, vector) in tile.iter_mut().enumerate() {
        let quarter = |q: usize| match shape.quarter::<N>(k, q) {
            Some((at, length)) => &rows[at..at + length],
            None => &[],
        };
        *vector = load_quarters([quarter(0), quarter(1), quarter(2), quarter(3)]);
    }
    tile
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
fn store_tile<const N: usize>(rows: &mut [u8], shape: Shape, tile: &[__m512i; N]) {
    for (k, &vector) in tile.iter().enumerate() {
        let quarters = [
            _mm512_castsi512_si128(vector),
            _mm512_extracti32x4_epi32::<1>(vector),
            _mm512_extracti32x4_epi32::<2>(vector),
            _mm512_extracti32x4_epi32::<3>(vector),
        ];
        for (q, symbols) in quarters.into_iter().enumerate() {
            if let Some((at, length)) = shape.quarter::<N>(k, q) {
                store_16_part(&mut rows[at..at + length], symbols);
            }
        }
    }
}

impl Shape {
    /// Bytes that 64 rows of 16 symbols reach over.
    fn whole_rows(self) -> usize {
        (POSITIONS - 1) * self.stride + PLANES
    }

    /// Where the symbols of a quarter are, and how many of them there are.
    #[inline]
    fn quarter<const N: usize>(self, k: usize, q: usize) -> Option<(usize, usize)> {
        let row = 16 * q + k * (PLANES / N);
        let rows = self.rows.checked_sub(row).filter(|&rows| rows > 0)?.min(PLANES / N);
        Some((row * self.stride, (rows - 1) * self.stride + self.count))
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
pub(super) fn to_rows(planes: &[u8], (width, positions): (usize, usize), rows: &mut [u8]) {
    match width {
        1 => rows[..positions].copy_from_slice(&planes[..positions]),
        2 => narrow_to_rows::<2>(planes, positions, rows),
        4 => narrow_to_rows::<4>(planes, positions, rows),
        8 => narrow_to_rows::<8>(planes, positions, rows),
        _ => {
            for first in (0..width).step_by(PLANES) {
                let count = PLANES.min(width - first);
                for start in starts(positions) {
                    let planes = &planes[first * positions + start..];
                    let tile = rotate(load_planes::<PLANES>(planes, positions, count), 4);
                    let rows = &mut rows[start * width + first..];
                    let shape = Shape { rows: positions - start, stride: width, count };
                    if count == PLANES && rows.len() >= shape.whole_rows() {
                        store_rows(rows, width, &tile);
                    } else {
                        store_tile(rows, shape, &tile);
                    }
                }
            }
        }
    }
}

/// [`to_rows`] where rows of `N` symbols follow each other without a gap.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
fn narrow_to_rows<const N: usize>(planes: &[u8], positions: usize, rows: &mut [u8]) {
    for start in starts(positions) {
        let tile = rotate(load_planes::<N>(&planes[start..], positions, N), N.ilog2());
        let shape = Shape { rows: positions - start, stride: N, count: N };
        store_tile(&mut rows[start * N..], shape, &tile);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
pub(super) fn to_planes(rows: &[u8], (width, positions): (usize, usize), planes: &mut [u8]) {
    match width {
        1 => planes[..positions].copy_from_slice(&rows[..positions]),
        2 => narrow_to_planes::<2>(rows, positions, planes),
        4 => narrow_to_planes::<4>(rows, positions, planes),
        8 => narrow_to_planes::<8>(rows, positions, planes),
        _ => {
            for first in (0..width).step_by(PLANES) {
                let count = PLANES.min(width - first);
                for start in starts(positions) {
                    let rows = &rows[start * width + first..];
                    let shape = Shape { rows: positions - start, stride: width, count };
                    let tile = if count == PLANES && rows.len() >= shape.whole_rows() {
                        load_rows(rows, width)
                    } else {
                        load_tile::<PLANES>(rows, shape)
                    };
                    let planes = &mut planes[first * positions + start..];
                    store_planes(planes, positions, &rotate(tile, 4), count);
                }
            }
        }
    }
}

/// [`to_planes`] where rows of `N` symbols follow each other without a gap.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
fn narrow_to_planes<const N: usize>(rows: &[u8], positions: usize, planes: &mut [u8]) {
    for start in starts(positions) {
        let shape = Shape { rows: positions - start, stride: N, count: N };
        let tile = rotate(load_tile::<N>(&rows[start * N..], shape), 4);
        store_planes(&mut planes[start..], positions, &tile, N);
    }
}
