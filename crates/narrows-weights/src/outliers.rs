//! The list of a chunk's outliers, read: gaps, signs and magnitudes in Rice codes, until the bits end.

/// Reads a list; safe on any bytes.
pub(crate) struct Outliers<'a> {
    bytes: &'a [u8],
    /// Bits taken.
    position: usize,
    parameters: [u8; 2],
    /// Index after the last one read, within the chunk.
    next: u64,
    /// Weights of the chunk, and the largest magnitude.
    bounds: (u64, u8),
}

impl<'a> Outliers<'a> {
    pub(crate) const fn new(bytes: &'a [u8], parameters: [u8; 2], weights: usize, half: u8) -> Self {
        Self { bytes, position: 0, parameters, next: 0, bounds: (weights as u64, half) }
    }

    /// The next outlier: its index in the chunk, row-major, and its bin; `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<(usize, i8)>, &'static str> {
        let Some(gap) = self.rice(self.parameters[0]) else {
            let padding = self.bytes.len() * 8 - self.position;
            // An unfinished prefix is all that may be left, of less than a byte.
            let ones = padding < 8 && (0..padding).all(|bit| self.bit(self.position + bit));
            return if ones { Ok(None) } else { Err("the outliers end early") };
        };
        let index = self.next.saturating_add(gap);
        if index >= self.bounds.0 {
            return Err("an outlier lies outside its chunk");
        }
        self.next = index + 1;
        let sign = self.take(1).ok_or("the outliers end early")?;
        let magnitude = self.rice(self.parameters[1]).ok_or("the outliers end early")?;
        if magnitude >= u64::from(self.bounds.1) {
            return Err("an outlier is off the grid");
        }
        let magnitude = magnitude as i8 + 1;
        Ok(Some((index as usize, if sign == 1 { -magnitude } else { magnitude })))
    }

    fn bit(&self, position: usize) -> bool {
        self.bytes[position / 8] >> (position % 8) & 1 == 1
    }

    /// 57 bits at least from the position on, ones beyond the end.
    fn window(&self) -> u64 {
        let at = self.position / 8;
        let mut window = [255; 8];
        let rest = &self.bytes[at.min(self.bytes.len())..];
        let length = rest.len().min(8);
        window[..length].copy_from_slice(&rest[..length]);
        let bits = u64::from_le_bytes(window) >> (self.position % 8);
        bits | !(u64::MAX >> (self.position % 8))
    }

    fn take(&mut self, count: u32) -> Option<u64> {
        if self.position + count as usize > self.bytes.len() * 8 {
            return None;
        }
        let bits = self.window() & ((1 << count) - 1);
        self.position += count as usize;
        Some(bits)
    }

    /// A Rice code; the position stays where it is if the bits end before its prefix does.
    fn rice(&mut self, parameter: u8) -> Option<u64> {
        let (start, mut upper) = (self.position, 0_u64);
        loop {
            let ones = self.window().trailing_ones().min(56);
            if self.position + ones as usize >= self.bytes.len() * 8 {
                self.position = start;
                return None;
            }
            upper += u64::from(ones);
            self.position += ones as usize;
            if ones < 56 {
                break;
            }
        }
        self.position += 1;
        let lower = self.take(parameter.into())?;
        upper.checked_shl(parameter.into())?.checked_add(lower)
    }
}
