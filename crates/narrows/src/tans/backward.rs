//! A bit stream written from its end, as encoders find its bits, and turned round once it is whole.

/// Writes a bit stream backward; keeps its memory.
#[derive(Debug, Default)]
pub(crate) struct Backward {
    /// The bytes of the stream, at the end; 8 zeros after them.
    bytes: Vec<u8>,
    /// Where the whole bytes written begin.
    at: usize,
    /// The first bits of the stream so far, `count` < 8 of them, that make no whole byte yet.
    pending: u64,
    count: u32,
}

/// Zero bytes behind a stream; as many before it can be written.
pub(crate) const MARGIN: usize = 8;

impl Backward {
    /// Start a stream of at most `bits` bits.
    #[inline]
    pub(crate) fn start(&mut self, bits: usize) {
        let room = bits.div_ceil(8) + 3 * MARGIN;
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        self.at = self.bytes.len() - MARGIN;
        self.bytes[self.at..].fill(0);
        self.pending = 0;
        self.count = 0;
    }

    /// Take the writing over for a run of symbols.
    #[inline]
    pub(crate) fn bits(&mut self) -> Bits<'_> {
        Bits {
            pending: self.pending,
            count: self.count,
            at: self.at,
            bytes: &mut self.bytes,
            kept: (&mut self.pending, &mut self.count, &mut self.at),
        }
    }

    /// Append the stream to `out`, padded with zero bits to a whole byte; returns its bytes.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> usize {
        finish(&mut self.bytes, self.at, self.pending, self.count, out)
    }

    /// Room for `streams` streams side by side, of at most `bits` bits each: their bytes, and how many each has
    /// room for. Each is written before its last [`MARGIN`] bytes.
    pub(crate) fn side_by_side(&mut self, streams: usize, bits: usize) -> (&mut [u8], usize) {
        let room = bits.div_ceil(8) + 3 * MARGIN;
        if self.bytes.len() < streams * room {
            self.bytes.resize(streams * room, 0);
        }
        let bytes = &mut self.bytes[..streams * room];
        bytes.chunks_exact_mut(room).for_each(|stream| stream[room - MARGIN..].fill(0));
        (bytes, room)
    }
}

/// Write all `count` < 64 bits of `pending`, the last of them on top of the byte before `at`.
#[inline]
pub(crate) fn write_above(bytes: &mut [u8], at: usize, pending: u64, count: u32) {
    // Bits above `count` are of bytes already written.
    let aligned = pending << (63 - count) << 1;
    bytes[at - 8..at].copy_from_slice(&aligned.to_le_bytes());
}

/// Append to `out` the stream that fills `bytes` from `at` up to its margin, and begins with the `count` < 8 bits
/// of `pending`; returns its bytes.
#[inline(always)]
pub(crate) fn finish(bytes: &mut [u8], at: usize, pending: u64, count: u32, out: &mut Vec<u8>) -> usize {
    write_above(bytes, at, pending, count);
    append_shifted(bytes, at - usize::from(count > 0), (8 - count) % 8, out)
}

/// Append the bits of `bytes` from bit `shift` < 8 of byte `first` on, up to the zeros of the margin; returns
/// how many bytes they are.
#[inline(always)]
fn append_shifted(bytes: &[u8], first: usize, shift: u32, out: &mut Vec<u8>) -> usize {
    let length = bytes.len() - MARGIN - first;
    if shift == 0 {
        out.extend_from_slice(&bytes[first..first + length]);
        return length;
    }
    let (start, room) = (out.len(), length.next_multiple_of(8));
    out.resize(start + room, 0);
    // Bytes from one further on bring in what a word lacks; the last begin 7 bytes at most before the margin.
    let (words, further) = (&bytes[first..first + room], &bytes[first + 1..first + 1 + room]);
    let words = words.as_chunks::<8>().0.iter().zip(further.as_chunks::<8>().0);
    for (to, (&low, &high)) in out[start..].as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *to = (u64::from_le_bytes(low) >> shift | u64::from_le_bytes(high) << (8 - shift)).to_le_bytes();
    }
    out.truncate(start + length);
    length
}

/// The writing end of a [`Backward`], in registers.
pub(crate) struct Bits<'a> {
    pending: u64,
    count: u32,
    at: usize,
    bytes: &'a mut [u8],
    kept: (&'a mut u64, &'a mut u32, &'a mut usize),
}

impl Bits<'_> {
    /// Put `count` bits before those that are there; 56 at most between two flushes.
    #[inline]
    pub(crate) fn put(&mut self, bits: u32, count: u32) {
        self.pending = self.pending << count | u64::from(bits);
        self.count += count;
    }

    /// Write the whole bytes.
    #[inline]
    pub(crate) fn flush(&mut self) {
        write_above(self.bytes, self.at, self.pending, self.count);
        self.at -= self.count as usize / 8;
        self.count %= 8;
    }

    /// Hand the writing back.
    #[inline]
    pub(crate) fn keep(self) {
        *self.kept.0 = self.pending;
        *self.kept.1 = self.count;
        *self.kept.2 = self.at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::BitWriter;

    #[test]
    fn a_stream_written_backward_is_the_one_written_forward() {
        let mut backward = Backward::default();
        let mut seed = 1_u32;
        for length in (0..40).chain([100, 1000]) {
            let fields: Vec<(u32, u32)> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let count = (seed >> 16) % 13;
                    ((seed >> 8) & ((1 << count) - 1), count)
                })
                .collect();
            let (mut forward, mut turned) = (vec![7], vec![7]);
            let mut writer = BitWriter::new(&mut forward);
            fields.iter().for_each(|&(bits, count)| writer.put(bits, count));
            writer.finish();
            backward.start(length * 12);
            let mut bits = backward.bits();
            for &(field, count) in fields.iter().rev() {
                bits.put(field, count);
                bits.flush();
            }
            bits.keep();
            let written = backward.finish(&mut turned);
            assert_eq!(turned, forward);
            assert_eq!(written, turned.len() - 1);
        }
    }
}
