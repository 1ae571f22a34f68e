//! A part of a tensor, from the chunks that hold it.

use std::ops::Range;

use super::decoder::{Decoder, Symbols, resolve};
use crate::error::{Error, Result};
use crate::frame::Cursor;
use crate::frame::header::{Content, Header};
use crate::frame::stream::StreamHeader;
use crate::layout::{Layout, Planes, Rows};
use crate::profile::Profile;
use crate::quantize::Dequantizer;
use crate::tensor::{Element, Tensor};

impl Decoder {
    /// Decode only the elements `range`, counted in row-major order, over `tensor`, which becomes a vector of them.
    ///
    /// The whole frame's checksum is verified, but only the chunks from the first to the last that hold such
    /// elements are decoded, if the frame is quantised and rANS-coded in a dense layout; others are decoded whole.
    /// Returns how many chunks were decoded, of how many ([`inspect`](crate::inspect) shows them too).
    ///
    /// ```
    /// use narrows::{Decoder, EncodeOptions, Encoder, Tensor, TensorView};
    /// let features: Vec<f32> = (0..256 * 1000).map(|i| ((i % 5003) as f32 * 7.7).sin().max(0.0)).collect();
    /// let frame = Encoder::new(EncodeOptions::bits(4))?.encode(&TensorView::new(&features, &[256, 1000])?)?;
    ///
    /// let mut part = Tensor::default();
    /// let (decoded, of) = Decoder::new().decode_range_into(&frame, 5_000..5_010, &mut part)?;
    /// assert!(decoded < of);
    /// let whole = Decoder::new().decode(&frame)?;
    /// assert_eq!(part.as_f32().unwrap(), &whole.as_f32().unwrap()[5_000..5_010]);
    /// # Ok::<(), narrows::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if the range is not within the tensor; otherwise as [`Decoder::decode_into`].
    pub fn decode_range_into(
        &mut self,
        frame: &[u8],
        range: Range<usize>,
        tensor: &mut Tensor,
    ) -> Result<(usize, usize)> {
        self.decode_part(frame, Some(&range), tensor)
    }

    /// The elements `range` of a quantised tensor in a dense layout.
    pub(super) fn decode_range<T: Element>(
        &mut self,
        header: &Header,
        cursor: &mut Cursor<'_>,
        range: &Range<usize>,
        out: &mut Vec<T>,
    ) -> Result<(usize, usize)> {
        let Content::Quantized { dequantizer, axis, layout, nonzeros } = &header.content else {
            unreachable!("the caller has looked at the content")
        };
        let profile = match header.profile {
            Some(id) => Some(self.profiles.find(id)?.clone()),
            None => None,
        };
        let map = resolve(dequantizer.as_ref(), profile.as_deref())?;
        let map = dequantizer.as_ref().unwrap_or(&map);
        let symbols = Symbols::new(header, map, *axis, *layout, *nonzeros)?;
        let planes = &symbols.planes;
        let natural = *layout == Layout::Natural;
        let choose = |header: &StreamHeader| {
            let rows = rows_of(&header.rows, planes, natural, range);
            rows.start / header.chunk_rows..rows.end.div_ceil(header.chunk_rows)
        };
        let model = profile.as_deref().map(Profile::model);
        let Self { reader, coded, .. } = self;
        let (stream, chunks) = reader.read_chunks(cursor, &symbols.expected, model, choose, coded)?;
        let rows = &stream.rows;
        let base = rows.start(rows.count().min(chunks.start * stream.chunk_rows));
        let values_of = |affine: &crate::Affine| affine.values().map(T::from_f32);
        let whole = if let Dequantizer::Tensor(affine) = map { Some(values_of(affine)) } else { None };
        out.clear();
        out.extend(range.clone().map(|element| {
            let (plane, position) = planes.place(element);
            let at = if natural { element } else { place_in(rows, plane, position) };
            let symbol = coded[at - base] as usize;
            match (&whole, map) {
                (Some(values), _) => values[symbol],
                (None, Dequantizer::PerChannel(maps)) => {
                    T::from_f32(maps[planes.channel_of(plane)].dequantize(symbol as u8))
                }
                (None, Dequantizer::Tensor(_)) => unreachable!("its values are known"),
            }
        }));
        let count = rows.count().div_ceil(stream.chunk_rows.max(1));
        Ok((chunks.len(), count))
    }
}

/// Whether [`Decoder::decode_range`] is made for this content.
pub(super) fn covers(content: &Content) -> bool {
    matches!(content, Content::Quantized { layout: Layout::Natural | Layout::Planes, .. })
}

/// Check that a range of elements lies within the tensor.
pub(super) fn check(range: &Range<usize>, elements: usize) -> Result<()> {
    if range.end > elements {
        return Err(Error::Shape { what: "end of the range of elements", value: range.end, bound: elements });
    }
    if range.start > range.end {
        return Err(Error::Shape {
            what: "start of the range of elements",
            value: range.start,
            bound: range.end,
        });
    }
    Ok(())
}

/// Where the symbol of a position of a plane lies in the coded order.
fn place_in(rows: &Rows, plane: usize, position: usize) -> usize {
    let group = plane / rows.lanes();
    rows.start(group * rows.positions() + position) + plane % rows.lanes()
}

/// The rows from the first to the last that hold one of the elements.
fn rows_of(rows: &Rows, planes: &Planes, natural: bool, range: &Range<usize>) -> Range<usize> {
    if range.is_empty() {
        return 0..0;
    }
    let (first, last) = (range.start, range.end - 1);
    if natural {
        return first / rows.lanes()..last / rows.lanes() + 1;
    }
    let row = |plane: usize, position: usize| plane / rows.lanes() * rows.positions() + position;
    let ((first_plane, from), (last_plane, to)) = (planes.place(first), planes.place(last));
    if planes.channels_last() && from != to {
        // From one position to another lie all planes, also where both ends are in the same one.
        return row(0, from)..row(rows.symbols() / rows.positions() - 1, to) + 1;
    }
    if planes.channels_last() || first_plane == last_plane {
        return row(first_plane, from)..row(last_plane, to) + 1;
    }
    // The next plane starts at its first position, the one before the last ends at its last.
    let shares = |plane: usize, other: usize| plane / rows.lanes() == other / rows.lanes();
    let start = if shares(first_plane, first_plane + 1) { 0 } else { from };
    let end = if shares(last_plane, last_plane - 1) { rows.positions() - 1 } else { to };
    row(first_plane, start)..row(last_plane, end) + 1
}
