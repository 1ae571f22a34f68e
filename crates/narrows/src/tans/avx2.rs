//! x
use super::chunk::Chunk;
use super::lanes::Payload;
use super::spec::Machine;
pub(crate) const LEAST_LANES: usize = 128;
pub(crate) fn decode(_: &mut [Chunk<'_>], _: &Machine, _: Payload<'_>) {}
