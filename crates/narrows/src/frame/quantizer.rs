//! The quantiser's parameters in a frame.

use super::{Cursor, put_varint, unzigzag, zigzag};
use crate::error::{Error, Result};
use crate::quantize::{Affine, Dequantizer, MAX_LEVELS};

fn invalid(what: &'static str, value: u64, bound: u64) -> Error {
    Error::InvalidHeader { what, value, bound }
}

fn affine(step: f32, zero: u64, levels: u16) -> Result<Affine> {
    let zero = unzigzag(zero);
    Affine::new(step, zero, levels).ok_or_else(|| {
        let bad_step = !(step.is_normal() && step > 0.0);
        if bad_step {
            invalid(
                "quantiser step (bits of an f32)",
                u64::from(step.to_bits()),
                u64::from(f32::MAX.to_bits()),
            )
        } else {
            invalid("magnitude of the zero point", u64::from(zero.unsigned_abs()), 1 << 30)
        }
    })
}

fn read_levels(cursor: &mut Cursor<'_>) -> Result<u16> {
    let less_one = cursor.byte("levels")?;
    if less_one == 0 {
        return Err(invalid("levels - 1", 0, u64::from(MAX_LEVELS) - 1));
    }
    Ok(u16::from(less_one) + 1)
}

/// Levels less one (a byte), step (f32), zero point (zigzag varint).
pub(crate) fn write_affine(affine: &Affine, out: &mut Vec<u8>) {
    out.push((affine.levels() - 1) as u8);
    out.extend(affine.step().to_le_bytes());
    put_varint(out, zigzag(affine.zero()));
}

pub(crate) fn read_affine(cursor: &mut Cursor<'_>) -> Result<Affine> {
    let levels = read_levels(cursor)?;
    let step = f32::from_le_bytes(cursor.array("quantiser step")?);
    affine(step, cursor.varint("zero point", u64::from(u32::MAX))?, levels)
}

/// Levels less one, then for each channel the upper half of its step (a bf16) and its zero point.
fn write_channels(channels: &[Affine], out: &mut Vec<u8>) {
    out.push((channels[0].levels() - 1) as u8);
    for affine in channels {
        let short = affine.step().to_bits() >> 16;
        debug_assert_eq!(short << 16, affine.step().to_bits(), "per-channel steps are bf16");
        out.extend((short as u16).to_le_bytes());
        put_varint(out, zigzag(affine.zero()));
    }
}

fn read_channels(cursor: &mut Cursor<'_>, channels: usize, mut maps: Vec<Affine>) -> Result<Vec<Affine>> {
    let levels = read_levels(cursor)?;
    // Three bytes a channel at least, so the length is bounded by what is there.
    let least = channels.saturating_mul(3);
    if least > cursor.rest().len() {
        let (offset, available) = (cursor.offset(), cursor.rest().len());
        return Err(Error::Truncated { what: "quantiser of each channel", offset, needed: least, available });
    }
    let one = |cursor: &mut Cursor<'_>| {
        let short = u16::from_le_bytes(cursor.array("quantiser step of a channel")?);
        let zero = cursor.varint("zero point of a channel", u64::from(u32::MAX))?;
        affine(f32::from_bits(u32::from(short) << 16), zero, levels)
    };
    maps.clear();
    maps.reserve(channels);
    for _ in 0..channels {
        maps.push(one(cursor)?);
    }
    Ok(maps)
}

pub(crate) fn write(dequantizer: &Dequantizer, out: &mut Vec<u8>) {
    match dequantizer {
        Dequantizer::Tensor(affine) => write_affine(affine, out),
        Dequantizer::PerChannel(channels) => write_channels(channels, out),
    }
}

/// Read the parameters of one map for the whole tensor.
pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<Dequantizer> {
    Ok(Dequantizer::Tensor(read_affine(cursor)?))
}

/// Read the parameters of one map for each of `channels`, into the memory of `spare`.
pub(crate) fn read_per_channel(
    cursor: &mut Cursor<'_>,
    channels: usize,
    spare: &mut Vec<Affine>,
) -> Result<Dequantizer> {
    Ok(Dequantizer::PerChannel(read_channels(cursor, channels, std::mem::take(spare))?))
}
