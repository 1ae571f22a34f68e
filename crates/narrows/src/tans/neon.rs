//! NEON: a vector of 64 lanes is four registers, and `tbl` looks up in 64 entries.
//!
//! Operation by operation what `arrays` does. The tests pass under an emulator (QEMU); no `AArch64` processor has run
//! it yet, so that nothing is known of its speed.
#![allow(clippy::wildcard_imports, reason = "intrinsics")]
#![allow(unsafe_code, reason = "intrinsics, which every AArch64 has")]

use std::arch::aarch64::*;

use super::backward::Backward;
use super::chunk::{Chunk, Runs, window};
use super::lanes::{Lanes, Payload};
use super::spec::Machine;
use super::{MAX_LANES, encode_rows, rows, scalar};

/// Fewest lanes for which 64 at once are expected to beat scalar code.
const LEAST_LANES: usize = 16;

/// Decode every row of `batch`.
pub(super) fn decode(batch: &mut [Chunk<'_>], machine: &Machine, payload: &[u8]) {
    let lanes = batch.first().map_or(0, |chunk| chunk.runs.lanes());
    match Payload::new(payload) {
        Some(payload) if machine.bits <= 8 && lanes >= LEAST_LANES => {
            rows::decode(Neon, batch, machine, payload);
        }
        _ => batch.iter_mut().for_each(|chunk| scalar::decode_chunk(chunk, machine, payload)),
    }
}

/// Encode every row of a chunk as `scalar::encode_chunk` does.
pub(super) fn encode_chunk(
    coded: &[u8],
    runs: &Runs,
    machine: &Machine,
    backward: &mut Backward,
    payload: &mut Vec<u8>,
    lengths: &mut Vec<u32>,
) -> [u16; MAX_LANES] {
    let in_registers = machine.bits <= 8 && machine.steps.len() <= encode_rows::MAX_ALPHABET;
    if in_registers && runs.lanes() >= LEAST_LANES {
        encode_rows::encode(Neon, coded, runs, machine, backward, payload, lengths)
    } else {
        scalar::encode_chunk(coded, runs, machine, backward, payload, lengths)
    }
}

/// Every `AArch64` has these instructions.
#[derive(Clone, Copy)]
pub struct Neon;

type Four = [uint8x16_t; 4];

#[inline(always)]
fn each(a: Four, b: Four, operation: impl Fn(uint8x16_t, uint8x16_t) -> uint8x16_t) -> Four {
    [operation(a[0], b[0]), operation(a[1], b[1]), operation(a[2], b[2]), operation(a[3], b[3])]
}

/// Intrinsics, safe here: every `AArch64` that Rust's standard library runs on has NEON.
macro_rules! neon {
    ($operations:expr) => {{
        // SAFETY: the target has the instructions; nothing in `$operations` touches memory.
        unsafe { $operations }
    }};
}

/// Words moved up, or down if `counts` are negative; by 64 or more gives 0.
#[inline(always)]
fn shift_words(words: uint8x16_t, counts: int64x2_t) -> uint8x16_t {
    neon!(vreinterpretq_u8_u64(vshlq_u64(vreinterpretq_u64_u8(words), counts)))
}

impl Lanes for Neon {
    type Bytes = Four;
    type Table = [uint8x16x4_t; 4];
    type Mask = Four;

    #[inline(always)]
    fn load(self, bytes: &[u8; 64]) -> Four {
        let (quarters, _) = bytes.as_chunks::<16>();
        // SAFETY: 16 bytes are read from each of four quarters.
        unsafe {
            [
                vld1q_u8(quarters[0].as_ptr()),
                vld1q_u8(quarters[1].as_ptr()),
                vld1q_u8(quarters[2].as_ptr()),
                vld1q_u8(quarters[3].as_ptr()),
            ]
        }
    }

    #[inline(always)]
    fn store(self, vector: Four, bytes: &mut [u8; 64]) {
        let (quarters, _) = bytes.as_chunks_mut::<16>();
        for (quarter, register) in quarters.iter_mut().zip(vector) {
            // SAFETY: 16 bytes are written.
            unsafe { vst1q_u8(quarter.as_mut_ptr(), register) }
        }
    }

    #[inline(always)]
    fn table(self, entries: &[u8; 256]) -> Self::Table {
        let (parts, _) = entries.as_chunks::<64>();
        let part = |at: usize| {
            let [a, b, c, d] = self.load(&parts[at]);
            uint8x16x4_t(a, b, c, d)
        };
        [part(0), part(1), part(2), part(3)]
    }

    #[inline(always)]
    fn look_up<const BITS: u32>(self, table: &Self::Table, index: Four) -> Four {
        each(index, index, |index, _| {
            neon!({
                if BITS == 4 {
                    return vqtbl1q_u8(table[0].0, index);
                }
                // What lies outside of a part gives zero in the first and changes nothing in the others.
                let mut result = vqtbl4q_u8(table[0], index);
                if BITS > 6 {
                    result = vqtbx4q_u8(result, table[1], vsubq_u8(index, vdupq_n_u8(64)));
                }
                if BITS > 7 {
                    result = vqtbx4q_u8(result, table[2], vsubq_u8(index, vdupq_n_u8(128)));
                    result = vqtbx4q_u8(result, table[3], vsubq_u8(index, vdupq_n_u8(192)));
                }
                result
            })
        })
    }

    #[inline(always)]
    fn low_bits(self, counts: Four) -> Four {
        each(counts, counts, |counts, _| {
            neon!(vmvnq_u8(vshlq_u8(vdupq_n_u8(255), vreinterpretq_s8_u8(counts))))
        })
    }

    #[inline(always)]
    fn select(self, mask: Four, yes: Four, no: Four) -> Four {
        neon!([
            vbslq_u8(mask[0], yes[0], no[0]),
            vbslq_u8(mask[1], yes[1], no[1]),
            vbslq_u8(mask[2], yes[2], no[2]),
            vbslq_u8(mask[3], yes[3], no[3]),
        ])
    }

    #[inline(always)]
    fn and(self, a: Four, b: Four) -> Four {
        each(a, b, |a, b| neon!(vandq_u8(a, b)))
    }

    #[inline(always)]
    fn or(self, a: Four, b: Four) -> Four {
        each(a, b, |a, b| neon!(vorrq_u8(a, b)))
    }

    #[inline(always)]
    fn add_bytes(self, a: Four, b: Four) -> Four {
        each(a, b, |a, b| neon!(vaddq_u8(a, b)))
    }

    #[inline(always)]
    fn shift_right(self, bytes: Four, counts: Four) -> Four {
        each(bytes, counts, |bytes, counts| neon!(vshlq_u8(bytes, vnegq_s8(vreinterpretq_s8_u8(counts)))))
    }

    #[inline(always)]
    fn less(self, a: Four, b: Four) -> Four {
        each(a, b, |a, b| neon!(vcltq_u8(a, b)))
    }

    #[inline(always)]
    fn choose(self, mask: Four, yes: Four, no: Four) -> Four {
        self.select(mask, yes, no)
    }

    #[inline(always)]
    fn add(self, a: Four, b: Four) -> Four {
        each(a, b, |a, b| {
            neon!(vreinterpretq_u8_u64(vaddq_u64(vreinterpretq_u64_u8(a), vreinterpretq_u64_u8(b))))
        })
    }

    #[inline(always)]
    fn totals(self, counts: Four) -> Four {
        each(counts, counts, |counts, _| {
            neon!(vreinterpretq_u8_u64(vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(counts)))))
        })
    }

    #[inline(always)]
    fn any_above(self, words: Four, bound: u64) -> bool {
        let above = |words| neon!(vcgtq_u64(vreinterpretq_u64_u8(words), vdupq_n_u64(bound)));
        neon!({
            let lower = vorrq_u64(above(words[0]), above(words[1]));
            let upper = vorrq_u64(above(words[2]), above(words[3]));
            vmaxvq_u32(vreinterpretq_u32_u64(vorrq_u64(lower, upper))) != 0
        })
    }

    #[inline(always)]
    fn shift_left_words(self, words: Four, counts: Four) -> Four {
        each(words, counts, |words, counts| neon!(shift_words(words, vreinterpretq_s64_u8(counts))))
    }

    #[inline(always)]
    fn shift_right_words(self, words: Four, counts: Four) -> Four {
        each(words, counts, |words, counts| {
            neon!(shift_words(words, vnegq_s64(vreinterpretq_s64_u8(counts))))
        })
    }

    #[inline(always)]
    fn funnel<const MOST: u32>(self, low: Four, high: Four, count: Four) -> Four {
        let low = self.shift_right_words(low, count);
        let high = each(high, count, |high, count| {
            neon!(shift_words(high, vsubq_s64(vdupq_n_s64(64), vreinterpretq_s64_u8(count))))
        });
        self.or(low, high)
    }

    #[inline(always)]
    fn deal(self, window: Four, counts: Four) -> Four {
        each(window, counts, |window, counts| {
            neon!({
                let pairs = vpaddlq_u8(counts);
                let fours = vpaddlq_u16(pairs);
                // The lower of two pieces keeps its place; the upper moves up by what the lower does not use.
                let firsts = vandq_u64(vreinterpretq_u64_u32(fours), vdupq_n_u64(0xff));
                let up = vsubq_s64(vdupq_n_s64(32), vreinterpretq_s64_u64(firsts));
                let upper = shift_words(window, up);
                let halves = vbslq_u8(vreinterpretq_u8_u64(vdupq_n_u64(!0 << 32)), upper, window);
                let firsts = vandq_u32(vreinterpretq_u32_u16(pairs), vdupq_n_u32(0xff));
                let up = vsubq_s32(vdupq_n_s32(16), vreinterpretq_s32_u32(firsts));
                let upper = vreinterpretq_u8_u32(vshlq_u32(vreinterpretq_u32_u8(halves), up));
                let quarters = vbslq_u8(vreinterpretq_u8_u32(vdupq_n_u32(!0 << 16)), upper, halves);
                let firsts = vandq_u16(vreinterpretq_u16_u8(counts), vdupq_n_u16(0xff));
                let up = vsubq_s16(vdupq_n_s16(8), vreinterpretq_s16_u16(firsts));
                let upper = vreinterpretq_u8_u16(vshlq_u16(vreinterpretq_u16_u8(quarters), up));
                vbslq_u8(vreinterpretq_u8_u16(vdupq_n_u16(!0 << 8)), upper, quarters)
            })
        })
    }

    #[inline(always)]
    fn gather_halves(self, bits: Four, counts: Four) -> Four {
        each(bits, counts, |bits, counts| {
            neon!({
                let (bits, low) = (vreinterpretq_u16_u8(bits), vdupq_n_u16(0xff));
                let firsts = vreinterpretq_s16_u16(vandq_u16(vreinterpretq_u16_u8(counts), low));
                let pairs = vorrq_u16(vandq_u16(bits, low), vshlq_u16(vshrq_n_u16::<8>(bits), firsts));
                let (pairs, low) = (vreinterpretq_u32_u16(pairs), vdupq_n_u32(0xffff));
                let counts = vreinterpretq_u32_u16(vpaddlq_u8(counts));
                let firsts = vreinterpretq_s32_u32(vandq_u32(counts, low));
                let upper = vshlq_u32(vshrq_n_u32::<16>(pairs), firsts);
                vreinterpretq_u8_u32(vorrq_u32(vandq_u32(pairs, low), upper))
            })
        })
    }

    #[inline(always)]
    fn windows(self, payload: Payload<'_>, positions: Four) -> Four {
        let mut bytes = [0; MAX_LANES];
        self.store(positions, &mut bytes);
        for word in bytes.as_chunks_mut().0 {
            *word = window(payload.bytes(), u64::from_le_bytes(*word)).to_le_bytes();
        }
        self.load(&bytes)
    }
}
