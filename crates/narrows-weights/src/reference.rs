//! The specification in code: chunks decoded lane by lane, and products summed in the order that every path keeps.

use narrows::machine::{BitReader, LANES_PER_STREAM, MAX_LANES, Machine};

use crate::frame::{Header, Place, Tans};

/// Partial sums of a product in f32.
pub(crate) const PARTIALS: usize = 16;

/// Decode a chunk into `values` (rows x columns, in the coded order) from the packed tensor `bytes`, with the machine of each
/// context; outliers are left at zero.
///
/// Safe on any bytes; says what does not hold.
pub(crate) fn decode_chunk(
    header: &Header,
    tans: &Tans,
    machines: &[Machine],
    (bytes, place): (&[u8], &Place),
    values: &mut [i8],
) -> Result<(), &'static str> {
    let columns = header.columns();
    let half = i32::from(header.grid.half());
    let lanes = tans.lanes_used(columns);
    let (mut states, mut contexts) = ([0_u32; MAX_LANES], [0; MAX_LANES]);
    let states_end = place.start + tans.states_bytes(columns);
    let mut first = BitReader::new(&bytes[place.start..states_end]);
    for state in &mut states[..lanes] {
        *state = first.take(machines[0].bits).ok_or("the lanes' first states end early")?;
    }
    if !first.padding_is_zero() {
        return Err("bits are set after the lanes' first states");
    }
    for group in 0..tans.streams(columns) {
        let end = place.streams.get(group + 1).map_or(place.streams_end, |&end| end as usize);
        let stream = &bytes[place.streams[group] as usize..end.min(place.streams_end)];
        let mut bits = BitReader::new(stream);
        for row in values.chunks_exact_mut(columns) {
            for step in row.chunks_mut(tans.lanes) {
                let lanes = states.iter_mut().zip(&mut contexts);
                let own = step.iter_mut().zip(lanes).skip(group * LANES_PER_STREAM);
                for (value, (lane, context)) in own.take(LANES_PER_STREAM) {
                    let state = machines[*context].states[*lane as usize];
                    *value = (i32::from(state.symbol()) - half) as i8;
                    *context = usize::from(machines.len() > 1 && *value != 0);
                    let low = bits.take(state.bits()).ok_or("the bits end before the weights do")?;
                    *lane = u32::from(state.base()) + low;
                }
            }
        }
        if bits.bytes_taken() != stream.len() || !bits.padding_is_zero() {
            return Err("bits are left over");
        }
    }
    if states[..lanes].iter().any(|&state| state != 0) {
        return Err("a lane does not end at state 0");
    }
    Ok(())
}

/// The sum of `values[c] * x[c]` in f32.
///
/// Column `c` is added to partial sum `c % 16` by a fused multiply-add, columns ascending; then the 16 partial sums are
/// added in halves: `p[i] + p[i + 8]`, of these `p[i] + p[i + 4]`, and so on.
pub(crate) fn dot(values: &[i8], x: &[f32]) -> f32 {
    sum(values.iter().map(|&value| f32::from(value)), x)
}

/// The same of values that are floats already.
pub(crate) fn dot_floats(values: &[f32], x: &[f32]) -> f32 {
    sum(values.iter().copied(), x)
}

fn sum(values: impl Iterator<Item = f32>, x: &[f32]) -> f32 {
    let mut partials = [0.0_f32; PARTIALS];
    for (column, (value, &x)) in values.zip(x).enumerate() {
        let partial = &mut partials[column % PARTIALS];
        *partial = value.mul_add(x, *partial);
    }
    fold(partials)
}

/// The partial sums added in halves.
#[inline(always)]
pub(crate) fn fold(mut partials: [f32; PARTIALS]) -> f32 {
    let mut half = PARTIALS / 2;
    while half > 0 {
        for i in 0..half {
            partials[i] += partials[i + half];
        }
        half /= 2;
    }
    partials[0]
}

/// The exact sum of `values[c] * (x[c] - zero)`.
pub(crate) fn dot_int8(values: &[i8], x: &[u8], zero: u8) -> i32 {
    values.iter().zip(x).map(|(&value, &x)| i32::from(value) * (i32::from(x) - i32::from(zero))).sum()
}
