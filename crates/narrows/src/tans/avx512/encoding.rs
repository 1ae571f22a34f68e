//! Encoding.

use super::super::backward::Backward;
use super::super::chunk::Runs;
use super::super::spec::Machine;
use super::super::{MAX_LANES, Scratch as AllScratch, scalar};

#[derive(Debug, Default)]
pub(crate) struct Scratch;

pub(crate) fn encode_chunk(
    coded: &[u8],
    runs: &Runs,
    machine: &Machine,
    scratch: &mut AllScratch,
    payload: &mut Vec<u8>,
    lengths: &mut Vec<u32>,
) -> [u16; MAX_LANES] {
    let _: &Backward = &scratch.backward;
    scalar::encode_chunk(coded, runs, machine, &mut scratch.backward, payload, lengths)
}
