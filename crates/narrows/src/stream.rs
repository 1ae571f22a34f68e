//! Frames from the inside, for coders on other devices: what a decoder needs beside the payload, and frames put
//! together from symbols coded elsewhere. Not a stable interface: it follows the format and `narrows-gpu`.

use crate::codec::decoder::{Symbols, resolve};
use crate::codec::encoder::csr_alphabet;
use crate::codec::plan::Plan;
use crate::codec::stream::{StreamReader, StreamWriter};
use crate::cpu::Path;
use crate::error::Result;
use crate::frame::header::{self, Content, Header, Limits};
use crate::frame::put_varint;
use crate::frame::stream::{Coder, Order};
use crate::layout::{Layout, Planes, Rows};
use crate::model::{Classes, Context, Model};
use crate::profile::{Profile, Profiles};
use crate::quantize::{Affine, Dequantizer};
use crate::tensor::{Dtype, Shape};

pub use crate::model::{Table, probability_bits};
pub use crate::rans::MAX_LANES;

/// Bins of the neighbours' sum for an alphabet, and how far a sum is shifted down to its bin.
pub fn bins(alphabet: usize) -> (usize, u32) {
    (Classes::bins(alphabet), Classes::shift(alphabet))
}

/// What chooses the table of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chooser<'a> {
    /// One table for all.
    None,
    /// The class of the bin of its neighbours' sum.
    Neighbours {
        /// The class of each bin.
        of_bin: &'a [u8; 64],
        /// A sum is shifted down by so much.
        shift: u32,
    },
    /// Its place: before the first end, the second, or neither.
    Segments([usize; 2]),
}

fn chooser(model: &Model, alphabet: usize) -> Chooser<'_> {
    match &model.context {
        Context::None => Chooser::None,
        Context::Neighbours(classes) => {
            Chooser::Neighbours { of_bin: classes.of_bins(), shift: Classes::shift(alphabet) }
        }
        Context::Segments { ends } => Chooser::Segments(*ends),
    }
}

/// How the symbols of a stream fall into rows and chunks (`docs/format.md`, section 5), and where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Planes; in natural order every symbol is one.
    pub planes: usize,
    /// Positions of a plane.
    pub positions: usize,
    /// Positions of a line.
    pub line: usize,
    /// Lanes.
    pub lanes: usize,
    /// Rows of a chunk.
    pub chunk_rows: usize,
    /// Elements from a position to the next.
    pub position_stride: usize,
    /// Elements from a plane to the next.
    pub plane_stride: usize,
}

impl Geometry {
    /// The geometry of planes, or of symbols one after the other.
    pub fn new(planes: &Planes, layout: Layout, lanes: usize, chunk_rows: usize) -> Self {
        let rows = order(planes, layout).rows(lanes);
        let (position_stride, plane_stride) =
            if layout == Layout::Planes { planes.strides() } else { (0, 1) };
        Self { position_stride, plane_stride, ..Self::of_rows(&rows, chunk_rows) }
    }

    fn of_rows(rows: &Rows, chunk_rows: usize) -> Self {
        let (positions, line, lanes) = (rows.positions(), rows.line(), rows.lanes());
        let planes = rows.symbols().checked_div(positions).unwrap_or(0);
        Self { planes, positions, line, lanes, chunk_rows, position_stride: 0, plane_stride: 1 }
    }

    /// Rows in all.
    pub const fn rows(&self) -> usize {
        self.planes.div_ceil(self.lanes) * self.positions
    }

    /// Symbols in all.
    pub const fn symbols(&self) -> usize {
        self.planes * self.positions
    }

    /// Chunks.
    pub const fn chunks(&self) -> usize {
        self.rows().div_ceil(self.chunk_rows)
    }

    /// Lanes that a chunk uses.
    pub fn width(&self, chunk: usize) -> usize {
        let first_plane = chunk * self.chunk_rows / self.positions * self.lanes;
        self.lanes.min(self.planes - first_plane)
    }
}

const fn order(planes: &Planes, layout: Layout) -> Order {
    match layout {
        Layout::Planes => Order::Planes(*planes),
        _ => Order::Natural(planes.count() * planes.positions()),
    }
}

/// A quantised rANS frame, checked, with everything but its payload read.
#[derive(Debug)]
pub struct Survey<'a> {
    /// Kinds of symbols.
    pub alphabet: usize,
    /// How symbols become values.
    pub dequantizer: &'a Dequantizer,
    /// How the tensor falls apart into planes.
    pub planes: Planes,
    /// The order of the symbols.
    pub layout: Layout,
    /// Symbols that are not zero, in CSR layouts.
    pub nonzeros: usize,
    /// Rows and chunks.
    pub geometry: Geometry,
    /// The frequency tables.
    pub tables: &'a [Table],
    /// What chooses among them.
    pub chooser: Chooser<'a>,
    /// Words of each chunk.
    pub words: &'a [u32],
    /// Chunk after chunk: first states, then words.
    pub payload: &'a [u8],
}

/// Reads frames up to their payload; keeps its buffers.
#[derive(Default)]
pub struct Surveyor {
    reader: StreamReader,
    spare: Vec<Affine>,
    dequantizer: Option<Dequantizer>,
}

impl Surveyor {
    /// Check a frame and read everything but its payload. `None` beside the header for a frame that
    /// holds anything but one rANS stream of symbols: it is decoded on the CPU.
    ///
    /// # Errors
    /// As [`Decoder::decode_into`](crate::Decoder::decode_into), but for what only decoding shows.
    pub fn survey<'a>(
        &'a mut self,
        frame: &'a [u8],
        limits: &Limits,
        profiles: &'a Profiles,
    ) -> Result<(Header, Option<Survey<'a>>)> {
        let (header, mut cursor) = header::read_checked(frame, limits, &mut self.spare)?;
        let Content::Quantized { dequantizer, axis, layout, nonzeros } = &header.content else {
            return Ok((header, None));
        };
        let (axis, layout, nonzeros) = (*axis, *layout, *nonzeros);
        let profile: Option<&Profile> = match header.profile {
            Some(id) => Some(profiles.find(id)?),
            None => None,
        };
        let map = match dequantizer {
            Some(map) => map.clone(),
            None => resolve(None, profile)?,
        };
        let map: &Dequantizer = self.dequantizer.insert(map);
        let symbols = Symbols::new(&header, map, axis, layout, nonzeros)?;
        let (alphabet, planes) = (symbols.expected.alphabet, symbols.planes);
        let of_profile = profile.map(Profile::model);
        let (stream, _) = self.reader.survey(&mut cursor, &symbols.expected, of_profile)?;
        cursor.expect_end()?;
        if stream.coder != Coder::Rans {
            return Ok((header, None));
        }
        let model = of_profile.filter(|_| stream.model_from_profile).unwrap_or(self.reader.model());
        let geometry = Geometry::of_rows(&stream.rows, stream.chunk_rows);
        let (position_stride, plane_stride) =
            if layout == Layout::Planes { planes.strides() } else { (0, 1) };
        let end = cursor.offset();
        let survey = Survey {
            alphabet,
            dequantizer: map,
            planes,
            layout,
            nonzeros,
            geometry: Geometry { position_stride, plane_stride, ..geometry },
            tables: model.tables(),
            chooser: chooser(model, alphabet),
            words: self.reader.lengths(),
            payload: &frame[end - stream.bytes.payload()..end],
        };
        Ok((header, Some(survey)))
    }
}

/// How a frame made elsewhere chooses its tables.
#[derive(Clone, Copy, Debug)]
pub enum Tables<'a> {
    /// One table.
    Order0,
    /// Classes of the neighbours' sum that begin at these bins (and at bin 0).
    Neighbours(&'a [usize]),
    /// A profile's, with its map.
    Profile(&'a Profile),
    /// One, over the sequence `D` of the modified CSR.
    Csr {
        /// Rows of the reshaped matrix.
        rows: usize,
        /// Symbols that are not 0.
        nonzeros: usize,
    },
}

/// A frame put together from symbols that are coded elsewhere.
#[derive(Default)]
pub struct Assembly {
    plan: Plan,
    planes: Option<Planes>,
    profile_model: Option<Model>,
    head: Vec<u8>,
    writer: StreamWriter,
}

impl Assembly {
    /// Begin a frame. `chunks` are lanes and rows of a chunk; `counts` are symbols by table, and not needed with
    /// a profile. With [`Tables::Order0`] symbols are in natural order.
    pub fn start(
        &mut self,
        (dtype, shape, planes): (Dtype, &Shape, &Planes),
        map: &Affine,
        tables: Tables<'_>,
        (lanes, chunk_rows): (usize, usize),
        counts: &[u32],
    ) {
        let levels = usize::from(map.levels());
        let elements = planes.count() * planes.positions();
        let (mut alphabet, mut order_of, mut csr) = (levels, None, 0);
        if let Tables::Csr { rows, nonzeros } = tables {
            alphabet = csr_alphabet(levels, elements / rows);
            (order_of, csr) = (Some(Order::Natural(2 * nonzeros + rows)), nonzeros);
        }
        let (context, layout, profile) = match tables {
            Tables::Order0 => (Context::None, Layout::Natural, None),
            Tables::Neighbours(starts) => {
                (Context::Neighbours(Classes::from_starts(alphabet, starts)), Layout::Planes, None)
            }
            Tables::Profile(profile) => (profile.model().context.clone(), Layout::Planes, Some(profile)),
            Tables::Csr { rows, .. } => (Context::None, Layout::CsrJoint { rows }, None),
        };
        let counts = profile.is_none().then_some(counts);
        let order = order_of.unwrap_or_else(|| order(planes, layout));
        self.plan.set_given((order, lanes, chunk_rows), alphabet, context, counts);
        self.planes = (layout == Layout::Planes).then_some(*planes);
        self.profile_model = profile.map(|profile| profile.model().clone());
        let dequantizer = profile.is_none().then_some(Dequantizer::Tensor(*map));
        let content = Content::Quantized { dequantizer, axis: planes.axis(), layout, nonzeros: csr };
        self.head.clear();
        header::write(dtype, shape, profile.map(Profile::id), &content, &mut self.head);
    }

    fn model(&self) -> &Model {
        self.profile_model.as_ref().unwrap_or(&self.plan.model)
    }

    /// The tables.
    pub fn tables(&self) -> &[Table] {
        self.model().tables()
    }

    /// Bits that the tables spend on the symbols counted; 0 with a profile.
    pub fn symbol_bits(&self) -> f64 {
        if self.plan.from_profile { 0.0 } else { self.plan.symbol_bits }
    }

    /// Write the frame over `out`, given the words of each chunk and the payload.
    pub fn finish(&self, words: &[u32], payload: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.head);
        self.plan.write_header(words, out);
        out.extend_from_slice(payload);
        write_checksum(out);
    }

    /// Write the frame over `out`, coding `symbols` (row-major) with the reference coder: what every other
    /// device's frame must equal.
    pub fn encode(&mut self, symbols: &[u8], out: &mut Vec<u8>) {
        let mut coded = Vec::new();
        let symbols = match &self.planes {
            Some(planes) => {
                self.plan.rows.gather(Path::Reference, planes, symbols, &mut coded);
                &coded
            }
            None => symbols,
        };
        out.clear();
        out.extend_from_slice(&self.head);
        let model = self.profile_model.as_ref().unwrap_or(&self.plan.model);
        self.writer.path = Path::Reference;
        self.writer.write(symbols, &self.plan, model, out);
        write_checksum(out);
    }

    /// The same for the sequence `D` of a modified CSR.
    pub fn encode_sequence(&mut self, sequence: &[u16], out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.head);
        self.writer.path = Path::Reference;
        self.writer.write(sequence, &self.plan, &self.plan.model, out);
        write_checksum(out);
    }

    /// Count symbols (row-major) by table in this geometry.
    pub fn count(
        planes: &Planes,
        alphabet: usize,
        tables: Tables<'_>,
        chunks: (usize, usize),
        symbols: &[u8],
    ) -> Vec<u32> {
        let (lanes, chunk_rows) = chunks;
        let (context, layout) = match tables {
            Tables::Order0 | Tables::Csr { .. } => (Context::None, Layout::Natural),
            Tables::Neighbours(starts) => {
                (Context::Neighbours(Classes::from_starts(alphabet, starts)), Layout::Planes)
            }
            Tables::Profile(profile) => (profile.model().context.clone(), Layout::Planes),
        };
        let rows = order(planes, layout).rows(lanes);
        let (mut coded, mut counts) = (symbols.to_vec(), Vec::new());
        if layout == Layout::Planes {
            rows.gather(Path::Reference, planes, symbols, &mut coded);
        }
        context.count(&coded, &rows, chunk_rows, alphabet, &mut counts);
        counts
    }
}

/// Append the checksum of a frame.
pub fn write_checksum(frame: &mut Vec<u8>) {
    crate::frame::write_checksum(frame, 0);
}

/// What chooses among a profile's tables, and the tables.
pub fn profile_model(profile: &Profile) -> (Chooser<'_>, &[Table]) {
    let model = profile.model();
    (chooser(model, usize::from(profile.affine().levels())), model.tables())
}

/// The header of a frame of one value repeated, up to that value.
pub fn constant_head(dtype: Dtype, shape: &Shape) -> Vec<u8> {
    let mut head = Vec::new();
    header::write(dtype, shape, None, &Content::Constant, &mut head);
    head
}

/// The header of a quantised frame up to its levels, step and zero point (and before these the non-zeros
/// of a CSR), which a device appends.
pub fn quantized_head(dtype: Dtype, shape: &Shape, axis: usize, layout: Layout) -> Vec<u8> {
    let map = Affine::new(1.0, 0, 2).expect("a valid map");
    let mut head = Vec::new();
    let dequantizer = Some(Dequantizer::Tensor(map));
    header::write(
        dtype,
        shape,
        None,
        &Content::Quantized { dequantizer, axis, layout, nonzeros: 0 },
        &mut head,
    );
    // Levels, step, a zero point of one byte; the CSR's number of non-zeros.
    let csr = usize::from(matches!(layout, Layout::CsrJoint { .. } | Layout::CsrSeparate { .. }));
    head.truncate(head.len() - 6 - csr);
    head
}

/// The header of a frame coded with a profile.
pub fn profile_head(dtype: Dtype, shape: &Shape, profile: &Profile) -> Vec<u8> {
    let mut head = Vec::new();
    let content =
        Content::Quantized { dequantizer: None, axis: profile.axis(), layout: Layout::Planes, nonzeros: 0 };
    header::write(dtype, shape, Some(profile.id()), &content, &mut head);
    head
}

/// The first byte of a rANS stream, and the rows of a chunk where there is more than one.
pub fn form(geometry: &Geometry, from_profile: bool) -> (u8, Vec<u8>) {
    let (mut form, mut rows) = (Vec::new(), Vec::new());
    let all = Rows::natural(geometry.symbols(), geometry.lanes);
    let chunked = geometry.chunk_rows < geometry.rows();
    // Only the number of rows matters here, and that only against the rows of a chunk.
    let chunk_rows = if chunked { 0 } else { all.count() };
    crate::frame::stream::write_form(Coder::Rans, &all, chunk_rows, from_profile, &mut form);
    if chunked {
        put_varint(&mut rows, geometry.chunk_rows as u64);
    }
    (form[0], rows)
}
