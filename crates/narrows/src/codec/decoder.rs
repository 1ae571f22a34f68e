//! Frame to tensor.

use std::ops::Range;

use super::encoder::csr_alphabet;
use super::lossless::Joiner;
use super::range;
use super::stream::StreamReader;
use crate::cpu::Path;
use crate::error::{Error, Result};
use crate::frame::Cursor;
use crate::frame::header::{self, Content, Header, Limits};
use crate::frame::stream::{Expected, Order};
use crate::layout::{Csr, Layout, Planes, Rows};
use crate::profile::{Profile, Profiles};
use crate::quantize::{self, Affine, Dequantizer};
use crate::tensor::{Dtype, Element, Tensor, read_le};
use half::{bf16, f16};

/// Turns frames into tensors; keeps its buffers, so that decoding again allocates nothing.
///
/// Safe on any bytes: a frame that is not what an encoder wrote gives a typed error before memory
/// beyond the [`Limits`] is taken, and never another tensor (the checksum covers every byte).
#[derive(Default)]
pub struct Decoder {
    limits: Limits,
    path: Path,
    pub(super) profiles: Profiles,
    symbols: Vec<u8>,
    pub(super) coded: Vec<u8>,
    wide: Vec<u16>,
    spare: Vec<Affine>,
    pub(super) reader: StreamReader,
    joiner: Joiner,
}

/// What the symbols of a quantised frame are.
pub(crate) struct Symbols<'a> {
    pub(crate) dequantizer: &'a Dequantizer,
    pub(crate) planes: Planes,
    pub(crate) layout: Layout,
    pub(crate) nonzeros: usize,
    pub(crate) expected: Expected,
}

impl<'a> Symbols<'a> {
    /// What to expect of a frame with this content.
    pub(crate) fn new(
        header: &Header,
        dequantizer: &'a Dequantizer,
        axis: usize,
        layout: Layout,
        nonzeros: usize,
    ) -> Result<Self> {
        let elements = header.shape.elements();
        let planes = Planes::new(&header.shape, axis)?;
        let levels = usize::from(dequantizer.levels());
        let expected = match layout {
            Layout::Natural => Expected { alphabet: levels, order: Order::Natural(elements) },
            Layout::Planes => Expected { alphabet: levels, order: Order::Planes(planes) },
            Layout::CsrJoint { rows } | Layout::CsrSeparate { rows } => {
                let alphabet = csr_alphabet(levels, elements / rows);
                let length = 2 * nonzeros + rows;
                let joint = matches!(layout, Layout::CsrJoint { .. });
                let order = if joint {
                    Order::Natural(length)
                } else {
                    Order::Segments(length, [nonzeros, 2 * nonzeros])
                };
                Expected { alphabet, order }
            }
        };
        Ok(Self { dequantizer, planes, layout, nonzeros, expected })
    }
}

impl Decoder {
    /// A decoder with the default limits and no profiles.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same decoder with other limits.
    #[must_use]
    pub const fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The same decoder with its hot loops on this path, for tests and measurements. The bytes are the same on
    /// every path; one that the processor does not have falls back to [`Path::Portable`].
    #[must_use]
    pub fn with_path(mut self, path: Path) -> Self {
        self.path = path.or_portable();
        self.reader.path = self.path;
        self
    }

    /// The same decoder with the chunks of large streams coded on up to `threads` threads of the current rayon pool.
    /// The values do not depend on their number.
    #[cfg(feature = "rayon")]
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.reader.threads = threads;
        self
    }

    /// The same decoder with these profiles.
    #[must_use]
    pub fn with_profiles(mut self, profiles: Profiles) -> Self {
        self.profiles = profiles;
        self
    }

    /// The profiles it knows, to add some.
    pub const fn profiles_mut(&mut self) -> &mut Profiles {
        &mut self.profiles
    }

    /// The symbols of the quantised frame decoded last, in the tensor's own (row-major) order: what
    /// statistics of the frame are taken over.
    pub fn symbols(&self) -> &[u8] {
        &self.symbols
    }

    /// Decode into a new tensor.
    ///
    /// # Errors
    /// As [`Decoder::decode_into`].
    pub fn decode(&mut self, frame: &[u8]) -> Result<Tensor> {
        let mut tensor = Tensor::default();
        self.decode_into(frame, &mut tensor)?;
        Ok(tensor)
    }

    /// Decode over `tensor`, reusing its memory where the element type is the same. On an error the
    /// tensor's contents are unspecified, but it is a valid tensor.
    ///
    /// # Errors
    /// [`Error::Checksum`] or [`Error::Truncated`] if the bytes are not a whole frame, as written;
    /// [`Error::LimitExceeded`] if the tensor is larger than the limits allow; [`Error::UnknownProfile`]
    /// if the frame names one this decoder does not have; any header error of [`Error`] otherwise.
    pub fn decode_into(&mut self, frame: &[u8], tensor: &mut Tensor) -> Result<()> {
        self.decode_part(frame, None, tensor).map(|_| ())
    }

    /// Decode the elements `range`, or all; gives the chunks decoded and their number in all, 1 and 1 where there
    /// was nothing to choose from.
    pub(super) fn decode_part(
        &mut self,
        frame: &[u8],
        range: Option<&Range<usize>>,
        tensor: &mut Tensor,
    ) -> Result<(usize, usize)> {
        let (header, mut cursor) = header::read_checked(frame, &self.limits, &mut self.spare)?;
        let Tensor { storage, shape } = tensor;
        let (result, elements) = match header.dtype {
            Dtype::F32 => {
                let out = f32::storage(storage);
                (self.decode_elements(&header, &mut cursor, range, out), out.len())
            }
            Dtype::F16 => {
                let out = f16::storage(storage);
                (self.decode_elements(&header, &mut cursor, range, out), out.len())
            }
            Dtype::Bf16 => {
                let out = bf16::storage(storage);
                (self.decode_elements(&header, &mut cursor, range, out), out.len())
            }
        };
        let result = result.and_then(|chunks| cursor.expect_end().map(|()| chunks));
        if let Content::Quantized { dequantizer: Some(Dequantizer::PerChannel(maps)), .. } = header.content {
            // Their memory serves the next frame.
            self.spare = maps;
        }
        let whole = result.is_ok() && range.is_none();
        *shape = if whole { header.shape } else { crate::Shape::new(&[elements])? };
        result
    }

    fn decode_elements<T: Element>(
        &mut self,
        header: &Header,
        cursor: &mut Cursor<'_>,
        range: Option<&Range<usize>>,
        out: &mut Vec<T>,
    ) -> Result<(usize, usize)> {
        let Some(range) = range else {
            return self.decode_all(header, cursor, out).map(|()| (1, 1));
        };
        range::check(range, header.shape.elements())?;
        if range::covers(&header.content) {
            return self.decode_range(header, cursor, range, out);
        }
        self.decode_all(header, cursor, out)?;
        out.truncate(range.end);
        out.drain(..range.start);
        Ok((1, 1))
    }

    fn decode_all<T: Element>(
        &mut self,
        header: &Header,
        cursor: &mut Cursor<'_>,
        out: &mut Vec<T>,
    ) -> Result<()> {
        let count = header.shape.elements();
        let width = T::DTYPE.size();
        match &header.content {
            Content::Raw => {
                out.clear();
                let bytes = cursor.take("elements", count * width)?;
                out.extend(read_le::<T>(bytes));
            }
            Content::Constant => {
                out.clear();
                let bytes = cursor.take("element", width)?;
                out.extend(read_le::<T>(bytes).cycle().take(count));
            }
            Content::Lossless { zeros_left_out, axis, exponents } => {
                let planes = Planes::new(&header.shape, *axis)?;
                let how = (*zeros_left_out, *exponents);
                self.joiner.decode(cursor, &planes, how, &mut self.reader, out)?;
            }
            Content::Quantized { dequantizer, axis, layout, nonzeros } => {
                let profile = match header.profile {
                    Some(id) => Some(self.profiles.find(id)?.clone()),
                    None => None,
                };
                let map = resolve(dequantizer.as_ref(), profile.as_deref())?;
                let map = dequantizer.as_ref().unwrap_or(&map);
                let symbols = Symbols::new(header, map, *axis, *layout, *nonzeros)?;
                let rows = self.decode_symbols(&symbols, profile.as_deref(), cursor)?;
                let Self { path, coded, symbols: natural, .. } = self;
                let coded = rows.as_ref().map(|rows| (rows, coded.as_slice()));
                quantize::dequantize(*path, map, &symbols.planes, coded, natural, out);
            }
        }
        Ok(())
    }

    /// Decode into `self.symbols`, or into `self.coded` if they are in the order of the rows returned.
    fn decode_symbols(
        &mut self,
        symbols: &Symbols<'_>,
        profile: Option<&Profile>,
        cursor: &mut Cursor<'_>,
    ) -> Result<Option<Rows>> {
        let Self { reader, coded, wide, .. } = self;
        let levels = usize::from(symbols.dequantizer.levels());
        let model = profile.map(Profile::model);
        match symbols.layout {
            Layout::Natural => {
                reader.read(cursor, &symbols.expected, model, &mut self.symbols)?;
            }
            Layout::Planes => {
                let header = reader.read(cursor, &symbols.expected, model, coded)?;
                return Ok(Some(header.rows));
            }
            Layout::CsrJoint { rows } | Layout::CsrSeparate { rows } => {
                reader.read(cursor, &symbols.expected, None, wide)?;
                let corrupt = |what| Error::CorruptPayload { chunk: 0, what };
                let elements = symbols.planes.count() * symbols.planes.positions();
                Csr::expand(wide, symbols.nonzeros, elements / rows, &mut self.symbols).map_err(corrupt)?;
                if self.symbols.iter().any(|&symbol| usize::from(symbol) >= levels) {
                    return Err(corrupt("a value is not a symbol"));
                }
            }
        }
        Ok(None)
    }
}

/// The frame's own map, or the profile's.
pub(crate) fn resolve(inline: Option<&Dequantizer>, profile: Option<&Profile>) -> Result<Dequantizer> {
    match (inline, profile) {
        // Only a stand-in: the caller uses the frame's own map by reference.
        (Some(_), _) => Ok(Dequantizer::PerChannel(Vec::new())),
        (None, Some(profile)) => Ok(Dequantizer::Tensor(*profile.affine())),
        (None, None) => {
            Err(Error::InvalidHeader { what: "quantiser from a profile, without one", value: 2, bound: 1 })
        }
    }
}
