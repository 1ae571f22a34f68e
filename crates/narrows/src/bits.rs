//! Bit streams, least significant bit first, as tables, packed symbols and tANS use them.

/// Appends bits to a byte vector, least significant bit first.
pub struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    pending: u64,
    count: u32,
}

impl<'a> BitWriter<'a> {
    /// Bits after the bytes of `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, pending: 0, count: 0 }
    }

    /// Append the low `count` bits of `value`; `count` <= 32 and the bits above are zero.
    pub fn put(&mut self, value: u32, count: u32) {
        debug_assert!(count <= 32 && (count == 32 || value >> count == 0));
        self.pending |= u64::from(value) << self.count;
        self.count += count;
        while self.count >= 8 {
            self.out.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    /// Pad with zero bits to a whole byte.
    pub fn finish(self) {
        if self.count > 0 {
            self.out.push(self.pending as u8);
        }
    }
}

/// Reads bits from a byte slice, least significant bit first.
#[derive(Clone)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bits taken so far.
    position: usize,
}

impl<'a> BitReader<'a> {
    /// Bits from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// The next `count` <= 32 bits, or `None` at the end.
    pub fn take(&mut self, count: u32) -> Option<u32> {
        let end = self.position + count as usize;
        if end > self.bytes.len() * 8 {
            return None;
        }
        let first = self.position / 8;
        let mut window = [0; 8];
        let length = (self.bytes.len() - first).min(8);
        window[..length].copy_from_slice(&self.bytes[first..first + length]);
        let value = u64::from_le_bytes(window) >> (self.position % 8);
        self.position = end;
        Some((value & ((1_u64 << count) - 1)) as u32)
    }

    /// Bytes touched so far.
    pub fn bytes_taken(&self) -> usize {
        self.position.div_ceil(8)
    }

    /// Whether the bits between the position and the end of its byte are zero, as a writer leaves them.
    pub fn padding_is_zero(&self) -> bool {
        match self.position % 8 {
            0 => true,
            used => self.bytes[self.position / 8] >> used == 0,
        }
    }
}

/// Bits needed to tell `count` values apart: `ceil(log2(count))`.
pub const fn width_of(count: usize) -> u32 {
    usize::BITS - count.saturating_sub(1).leading_zeros()
}
