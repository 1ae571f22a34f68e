//! Symbols that are already quantised, without a frame around them.

use super::options::{CoderChoice, Target};
use super::plan::{Counting, Plan};
use super::stream::{StreamReader, StreamWriter};
use crate::bits::width_of;
use crate::cpu::Path;
use crate::error::{Error, Result};
use crate::frame::Cursor;
use crate::frame::stream::{Coder, Expected, Order};
use crate::layout::Planes;
use crate::model::tally::Tally;
use crate::quantize::MAX_LEVELS;
use crate::simd::for_paths;

/// What both ends know of a sequence of symbols: how many of how many kinds, and how they lie.
#[derive(Clone, Copy, Debug)]
pub struct SymbolLayout(Expected);

impl SymbolLayout {
    /// `symbols` symbols of the kinds `0..alphabet`, coded with one table.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for an alphabet outside 2 to 256.
    pub fn natural(symbols: usize, alphabet: u16) -> Result<Self> {
        Self::new(Order::Natural(symbols), alphabet)
    }

    /// The symbols of a tensor of these planes, in row-major order, each coded with the table that its
    /// neighbours choose.
    ///
    /// # Errors
    /// As [`SymbolLayout::natural`].
    pub fn planes(planes: Planes, alphabet: u16) -> Result<Self> {
        Self::new(Order::Planes(planes), alphabet)
    }

    fn new(order: Order, alphabet: u16) -> Result<Self> {
        if !(2..=MAX_LEVELS).contains(&alphabet) {
            let (what, value) = ("alphabet", f64::from(alphabet));
            return Err(Error::InvalidOption { what, value, allowed: "2 to 256" });
        }
        Ok(Self(Expected { alphabet: usize::from(alphabet), order }))
    }

    /// Number of symbols.
    pub const fn symbols(&self) -> usize {
        self.0.order.symbols()
    }
}

/// Codes symbols that somebody else has quantised as a bare stream (section 5 of `docs/format.md`): no
/// header and no checksum, which are the caller's. Keeps its buffers.
///
/// ```
/// use narrows::{SymbolDecoder, SymbolEncoder, SymbolLayout};
/// let weights: Vec<u8> = (0..10_000_u32).map(|i| (i * i % 7 * (i % 3) / 6) as u8).collect();
/// let layout = SymbolLayout::natural(weights.len(), 3)?;
///
/// let (mut stream, mut symbols) = (Vec::new(), Vec::new());
/// SymbolEncoder::default().encode_into(&weights, &layout, &mut stream)?;
/// SymbolDecoder::default().decode_into(&stream, &layout, &mut symbols)?;
///
/// assert_eq!(symbols, weights);
/// # Ok::<(), narrows::Error>(())
/// ```
#[derive(Default)]
pub struct SymbolEncoder {
    target: Target,
    coder: CoderChoice,
    path: Path,
    tally: Tally,
    counts: Vec<u32>,
    coded: Vec<u8>,
    plan: Plan,
    writer: StreamWriter,
}

impl SymbolEncoder {
    /// An encoder that trades bytes for speed as `target` says.
    pub fn new(target: Target) -> Self {
        Self { target, ..Self::default() }
    }

    /// The same encoder with this coder; see [`CoderChoice`] for `Auto`, the default.
    /// Symbols that are all the same take two or three bytes with any.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if tANS is to have less than 64 or more than 4,096 states.
    pub fn with_coder(mut self, coder: CoderChoice) -> Result<Self> {
        coder.check(true)?;
        self.coder = coder;
        Ok(self)
    }

    /// The same encoder with its hot loops on this path, for tests and measurements. The bytes are the same on
    /// every path; one that the processor does not have falls back to [`Path::Portable`].
    #[must_use]
    pub fn with_path(mut self, path: Path) -> Self {
        self.path = path.or_portable();
        self.writer.path = self.path;
        self
    }

    /// The same encoder with the chunks of large streams coded on up to `threads` threads of the current rayon pool.
    /// The bytes do not depend on their number.
    #[cfg(feature = "rayon")]
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.writer.threads = threads;
        self
    }

    /// Encode over `stream`, reusing its memory.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are not as many symbols as the layout says, or one is outside the alphabet;
    /// [`Error::InvalidOption`] for tANS in plane order.
    pub fn encode_into(&mut self, symbols: &[u8], layout: &SymbolLayout, stream: &mut Vec<u8>) -> Result<()> {
        let Expected { alphabet, order } = layout.0;
        let (value, bound) = (symbols.len(), order.symbols());
        if value != bound {
            return Err(Error::Shape { what: "number of symbols", value, bound });
        }
        let ends = ends(self.path, symbols);
        if usize::from(ends[1]) >= alphabet {
            let (value, bound) = (usize::from(ends[1]), alphabet - 1);
            return Err(Error::Shape { what: "largest symbol", value, bound });
        }
        self.coder.check(matches!(order, Order::Natural(_)))?;
        self.encode_counted(symbols, layout.0, ends, Counting::of(self.target), stream);
        if self.plan.is_surprised(self.writer.payload()) {
            self.encode_counted(symbols, layout.0, ends, Counting::Exact, stream);
        }
        Ok(())
    }

    fn encode_counted(
        &mut self,
        symbols: &[u8],
        Expected { alphabet, order }: Expected,
        ends: [u8; 2],
        counting: Counting,
        stream: &mut Vec<u8>,
    ) {
        stream.clear();
        match counting.every(symbols.len()) {
            1 => self.tally.count(self.path, symbols, alphabet, &mut self.counts),
            every => self.tally.sample(self.path, symbols, alphabet, (every, ends), &mut self.counts),
        }
        self.plan(symbols, order, ends, counting);
        let Self { coded, plan, writer, .. } = self;
        let in_planes = plan.coder == Coder::Rans && matches!(order, Order::Planes(_));
        writer.write(if in_planes { coded } else { symbols }, plan, &plan.model, stream);
    }

    /// Plan the stream of `symbols`, which are counted and of which none lies outside `ends`; symbols in plane order
    /// are left in `coded`.
    fn plan(&mut self, symbols: &[u8], order: Order, ends: [u8; 2], counting: Counting) {
        let natural = Order::Natural(symbols.len());
        let Self { target, coder, path, counts, coded, plan, .. } = self;
        let (alphabet, how) = (counts.len(), (*target, counting));
        if ends[0] == ends[1] {
            return plan.set_constant(natural, alphabet, ends[0].into());
        }
        match (*coder, order) {
            (CoderChoice::Packed, _) => plan.set_packed(natural, alphabet),
            (CoderChoice::Tans { state_bits }, _) => {
                plan.set_order_0(CoderChoice::tans(state_bits, counts), natural, counts, how);
            }
            (_, Order::Planes(planes)) => {
                plan.set_neighbours(*path, (symbols, counts.as_slice()), &planes, how);
                plan.rows.gather(*path, &planes, symbols, coded);
            }
            (CoderChoice::Auto, Order::Natural(_)) => plan.set_free_order_0(natural, counts, how),
            _ => plan.set_order_0(Coder::Rans, natural, counts, how),
        }
        let packed = 1 + (symbols.len() * width_of(alphabet) as usize).div_ceil(8);
        if *coder == CoderChoice::Auto && (packed as f64) < plan.bytes() {
            plan.set_packed(natural, alphabet);
        }
    }
}

#[inline(always)]
fn ends_plain(symbols: &[u8]) -> [u8; 2] {
    let mut ends = [symbols.first().copied().unwrap_or(0); 2];
    // Read twice, each time in vectors, while they are in the first-level cache.
    for block in symbols.chunks(1 << 14) {
        ends[0] = block.iter().fold(ends[0], |least, &symbol| symbol.min(least));
        ends[1] = block.iter().fold(ends[1], |largest, &symbol| symbol.max(largest));
    }
    ends
}

for_paths! {
    /// The least and the largest symbol; zeros if there is none.
    fn ends(symbols: &[u8]) -> [u8; 2] = ends_plain
}

/// Undoes [`SymbolEncoder`]; keeps its buffers. Safe on any bytes.
#[derive(Default)]
pub struct SymbolDecoder {
    path: Path,
    coded: Vec<u8>,
    reader: StreamReader,
}

impl SymbolDecoder {
    /// The same decoder with its hot loops on this path, for tests and measurements. The bytes are the same on
    /// every path; one that the processor does not have falls back to [`Path::Portable`].
    #[must_use]
    pub fn with_path(mut self, path: Path) -> Self {
        self.path = path.or_portable();
        self.reader.path = self.path;
        self
    }

    /// The same decoder with the chunks of large streams coded on up to `threads` threads of the current rayon pool.
    /// The symbols do not depend on their number.
    #[cfg(feature = "rayon")]
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.reader.threads = threads;
        self
    }

    /// Decode over `symbols`, reusing their memory. Takes no more memory than the layout says; on an error
    /// the symbols are unspecified.
    ///
    /// # Errors
    /// Any of [`Error`]'s for a stream that is not one of this layout. Without a checksum, other symbols are
    /// possible where the bytes were changed.
    pub fn decode_into(&mut self, stream: &[u8], layout: &SymbolLayout, symbols: &mut Vec<u8>) -> Result<()> {
        let mut cursor = Cursor::new(stream);
        let Self { path, coded, reader } = self;
        if let Order::Planes(planes) = layout.0.order {
            let header = reader.read(&mut cursor, &layout.0, None, coded)?;
            header.rows.scatter(*path, &planes, coded, symbols);
        } else {
            reader.read(&mut cursor, &layout.0, None, symbols)?;
        }
        cursor.expect_end()
    }
}
