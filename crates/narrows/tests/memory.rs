//! Hostile frames take no more memory than the limits say.

mod common;

use std::alloc::System;

use common::{Random, frames, with_checksum};
use narrows::{Decoder, Limits, Profiles, inspect};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const LIMITS: Limits = Limits { max_elements: 4096 };
/// About 6 bytes for an element, three times as many symbols of 2 bytes for the modified CSR, vectors that
/// double as they grow, and the tables of the largest model (8 tables of 2^14 slots of 2 bytes, built
/// in a vector that doubles).
const BOUND: usize = 2 * (6 + 3 * 2 + 1) * 4096 + 2 * 8 * (1 << 14) * 2 + 64 * 1024;

/// One test in this file: another thread's allocations would be counted too.
#[test]
fn a_changed_frame_takes_no_more_memory_than_the_limits_allow() {
    let mut random = Random::new(11);
    let mut largest = 0;
    for (name, frame, _) in frames() {
        let header = frame.len().min(40);
        let flips = (0..header * 8).map(|bit| (bit / 8, frame[bit / 8] ^ 1 << (bit % 8)));
        let anything = (0..200).map(|_| (random.bits() as usize % (frame.len() - 4), random.bits() as u8));
        for (at, byte) in flips.chain(anything) {
            let mut changed = frame.clone();
            changed[at] = byte;
            let changed = with_checksum(changed);
            let region = Region::new(ALLOCATOR);
            let _ = Decoder::new().with_limits(LIMITS).decode(&changed);
            let _ = inspect(&changed, &Profiles::default(), &LIMITS);
            let taken = region.change().bytes_allocated;
            assert!(taken <= 2 * BOUND, "{name}: byte {at} as {byte:#04x} made {taken} bytes be allocated");
            largest = largest.max(taken);
        }
    }
    assert!(largest > 1000, "nothing was measured");
}
