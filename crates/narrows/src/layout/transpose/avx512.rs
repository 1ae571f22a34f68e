//! Transposition with AVX-512: 16 planes by 64 positions, each vector one plane or four rows.
//!
//! Four rounds of interleaving, 16 operations of one port each, turn 16 vectors of 64 positions into 16
//! vectors whose quarters are the rows of four positions, 16 apart: one cycle for 16 symbols.

use std::arch::x86_64::{
    __m512i, _mm512_castsi512_si128, _mm512_extracti32x4_epi32, _mm512_setzero_si512, _mm512_unpackhi_epi8,
    _mm512_unpacklo_epi8,
};

use crate::simd::avx512::{
    load, load_part, load_quarters, load_rows, store, store_16_part, store_part, store_rows,
};

/// Planes of a tile.
const PLANES: usize = 16;
/// Positions of a tile.
const POSITIONS: usize = 64;

type Tile = [__m512i; PLANES];

/// With `p` the number of a vector and `i` that of a byte in its quarter, exchange `p` and `i`: every round
/// moves the top bit of `p` to the bottom of `i` and the top bit of `i` to the bottom of `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn transpose(mut tile: Tile) -> Tile {
    for _ in 0..4 {
        let before = tile;
        for k in 0..PLANES / 2 {
            tile[2 * k] = _mm512_unpacklo_epi8(before[k], before[k + PLANES / 2]);
            tile[2 * k + 1] = _mm512_unpackhi_epi8(before[k], before[k + PLANES / 2]);
        }
    }
    tile
}

/// Starts of tiles: whole ones, the last of them moved back to end where the positions do; or one short one.
fn starts(positions: usize) -> impl Iterator<Item = usize> {
    let last = positions.saturating_sub(POSITIONS);
    (0..positions.div_ceil(POSITIONS)).map(move |k| (k * POSITIONS).min(last))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
pub(super) fn to_rows(planes: &[u8], positions: usize, rows: &mut [u8]) {
    let width = rows.len() / positions.max(1);
    for first in (0..width).step_by(PLANES) {
        let count = PLANES.min(width - first);
        for start in starts(positions) {
            let mut tile = [_mm512_setzero_si512(); PLANES];
            for (plane, vector) in tile[..count].iter_mut().enumerate() {
                // Of a short plane, what follows it is loaded too; it ends up in rows that there are not.
                let bytes = &planes[(first + plane) * positions + start..];
                *vector = match bytes.first_chunk() {
                    Some(bytes) => load(bytes),
                    None => load_part(bytes),
                };
            }
            let tile = transpose(tile);
            let rows = &mut rows[start * width + first..];
            if count == PLANES && positions - start >= POSITIONS {
                store_rows(rows, width, &tile);
            } else {
                for (k, &vector) in tile.iter().enumerate() {
                    let quarters = [
                        _mm512_castsi512_si128(vector),
                        _mm512_extracti32x4_epi32::<1>(vector),
                        _mm512_extracti32x4_epi32::<2>(vector),
                        _mm512_extracti32x4_epi32::<3>(vector),
                    ];
                    for (quarter, symbols) in quarters.into_iter().enumerate() {
                        let row = quarter * 16 + k;
                        if start + row < positions {
                            store_16_part(&mut rows[row * width..][..count], symbols);
                        }
                    }
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
pub(super) fn to_planes(rows: &[u8], positions: usize, planes: &mut [u8]) {
    let width = rows.len() / positions.max(1);
    for first in (0..width).step_by(PLANES) {
        let count = PLANES.min(width - first);
        for start in starts(positions) {
            let tile = if count == PLANES && positions - start >= POSITIONS {
                load_rows(&rows[start * width + first..], width)
            } else {
                let mut tile = [_mm512_setzero_si512(); PLANES];
                for (k, vector) in tile.iter_mut().enumerate() {
                    let row = |quarter: usize| {
                        let position = start + quarter * 16 + k;
                        if position < positions { &rows[position * width + first..][..count] } else { &[] }
                    };
                    *vector = load_quarters([row(0), row(1), row(2), row(3)]);
                }
                tile
            };
            let tile = transpose(tile);
            for (plane, &vector) in tile[..count].iter().enumerate() {
                // A short plane is stored beyond its end: the next one comes after it.
                let bytes = &mut planes[(first + plane) * positions + start..];
                match bytes.first_chunk_mut() {
                    Some(bytes) => store(bytes, vector),
                    None => store_part(bytes, vector),
                }
            }
        }
    }
}
