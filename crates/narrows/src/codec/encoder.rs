//! Tensor to frame.

use super::lossless;
use super::options::{CoderChoice, EncodeOptions, LayoutChoice, Reshape};
use super::plan::{Counting, Plan};
use super::stream::StreamWriter;
use crate::cpu::Path;
use crate::error::Result;
use crate::frame::header::{self, Content};
use crate::frame::stream::{Coder, Order};
use crate::frame::{self};
use crate::layout::{Csr, Layout, Planes, ReshapeSearch, Rows, best};
use crate::model::histogram;
use crate::model::tally::Tally;
use crate::profile::ProfileId;
use crate::quantize::{self, Dequantizer, Output, Quantized, Quantizer, Scratch};
use crate::rans;
use crate::tensor::{Element, Shape, Tensor, TensorView, with_elements, write_le};

/// Turns tensors into frames; keeps its buffers, so that encoding again allocates nothing.
///
/// ```
/// use narrows::{Decoder, EncodeOptions, Encoder, Tensor, TensorView};
/// let features: Vec<f32> = (0..64 * 7 * 7).map(|i| ((i % 49) as f32 * 0.2).sin().max(0.0)).collect();
/// let view = TensorView::new(&features, &[64, 7, 7])?;
///
/// let mut encoder = Encoder::new(EncodeOptions::bits(3))?;
/// let (mut frame, mut tensor) = (Vec::new(), Tensor::default());
/// encoder.encode_into(&view, &mut frame)?;
/// Decoder::new().decode_into(&frame, &mut tensor)?;
///
/// assert!(frame.len() < view.bytes() / 8);
/// let largest_error = features.iter().zip(tensor.as_f32().unwrap()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
/// assert!(largest_error <= 1.0 / 7.0 / 2.0);
/// # Ok::<(), narrows::Error>(())
/// ```
#[derive(Default)]
pub struct Encoder {
    options: EncodeOptions,
    path: Path,
    dense: Tensor,
    symbols: Vec<u8>,
    /// Symbols in the order of `coded_rows`, if that says which.
    coded: Vec<u8>,
    coded_rows: Option<Rows>,
    tally: Tally,
    /// Symbols counted, as the quantiser left them.
    counts: Vec<u32>,
    dequantizer: Option<Dequantizer>,
    scratch: Scratch,
    order_0: Plan,
    neighbours: Plan,
    csr: CsrCandidate,
    lossless: lossless::Planner,
    writer: StreamWriter,
}

#[derive(Default)]
struct CsrCandidate {
    csr: Csr,
    concatenated: Vec<u16>,
    counts: Vec<u32>,
    plan: Plan,
}

/// A layout planned, with what it takes to write it.
#[derive(Clone, Copy)]
enum Chosen {
    Order0,
    Neighbours,
    Csr { layout: Layout, nonzeros: usize },
}

impl Encoder {
    /// An encoder with these options.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) if one is outside its range.
    pub fn new(options: EncodeOptions) -> Result<Self> {
        options.check()?;
        Ok(Self { options, ..Self::default() })
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

    /// The options.
    pub const fn options(&self) -> &EncodeOptions {
        &self.options
    }

    /// Encode into a new vector.
    ///
    /// # Errors
    /// As [`Encoder::encode_into`].
    pub fn encode(&mut self, tensor: &TensorView<'_>) -> Result<Vec<u8>> {
        let mut frame = Vec::new();
        self.encode_into(tensor, &mut frame)?;
        Ok(frame)
    }

    /// Encode over `frame`, reusing its memory. A frame is never larger than its header and the raw
    /// elements.
    ///
    /// # Errors
    /// [`Error::NonFinite`](crate::Error::NonFinite) for NaN or infinity, unless lossless;
    /// [`Error::Shape`](crate::Error::Shape) if the channel axis asked for does not exist.
    pub fn encode_into(&mut self, tensor: &TensorView<'_>, frame: &mut Vec<u8>) -> Result<()> {
        frame.clear();
        if let Some(elements) = tensor.row_major() {
            return with_elements!(elements, elements => self.encode_elements(elements, tensor.shape(), frame));
        }
        let mut dense = std::mem::take(&mut self.dense);
        tensor.copy_into(&mut dense);
        let result = with_elements!(dense.elements(), elements => self.encode_elements(elements, tensor.shape(), frame));
        self.dense = dense;
        result
    }

    fn encode_elements<T: Element>(
        &mut self,
        elements: &[T],
        shape: &Shape,
        frame: &mut Vec<u8>,
    ) -> Result<()> {
        if elements.is_empty() {
            write_raw(elements, shape, frame);
            return Ok(());
        }
        let axis = self.axis(shape);
        let planes = Planes::new(shape, axis)?;
        if self.options.quantizer == Quantizer::Lossless && self.options.profile.is_none() {
            let Self { lossless, writer, options, .. } = self;
            lossless.encode(elements, shape, &planes, options, writer, frame);
        } else {
            match self.quantize(elements, &planes)? {
                Quantized::Constant => write_constant(elements[0], shape, frame),
                Quantized::Symbols { ends } => self.encode_symbols::<T>(shape, &planes, ends, frame),
            }
        }
        // Nothing may grow: what did not become smaller goes as it is.
        if frame.len() > raw_length(elements, shape) {
            frame.clear();
            write_raw(elements, shape, frame);
        }
        Ok(())
    }

    fn axis(&self, shape: &Shape) -> usize {
        let of_profile = self.options.profile.as_ref().map(|profile| profile.axis());
        of_profile.or(self.options.axis).unwrap_or_else(|| Planes::usual_axis(shape))
    }

    fn quantize<T: Element>(&mut self, elements: &[T], planes: &Planes) -> Result<Quantized> {
        let sampling = self.sampling(elements.len());
        let fixed = self.options.profile.as_ref().map(|profile| Quantizer::Fixed(*profile.affine()));
        let quantizer = fixed.as_ref().unwrap_or(&self.options.quantizer);
        let dequantizer = self.dequantizer.get_or_insert_with(|| Dequantizer::PerChannel(Vec::new()));
        let tally = if fixed.is_none() && sampling.is_none() { Some(&mut self.tally) } else { None };
        let wanted = wanted_rows(&self.options, planes, self.coded_rows.take());
        let coded = wanted.as_ref().map(|rows| (rows, &mut self.coded));
        let output = Output { symbols: &mut self.symbols, tally, dequantizer, coded };
        let quantized =
            quantize::quantize(self.path, quantizer, elements, planes, output, &mut self.scratch)?;
        self.coded_rows = wanted;
        if let (Quantized::Symbols { ends }, None) = (&quantized, &fixed) {
            match sampling {
                None => self.tally.finish(self.path, &mut self.counts),
                Some((every, alphabet)) => {
                    let ends = ends.unwrap_or([0, (alphabet - 1) as u8]);
                    self.tally.sample(self.path, &self.symbols, alphabet, (every, ends), &mut self.counts);
                }
            }
        }
        Ok(quantized)
    }

    /// One symbol in how many is counted, if not all are, and the alphabet.
    fn sampling(&self, symbols: usize) -> Option<(usize, usize)> {
        let (Quantizer::Aiq { bits, .. } | Quantizer::PerChannel { bits, .. }) = self.options.quantizer
        else {
            return None;
        };
        let every = Counting::of(self.options.target).every(symbols);
        (every > 1).then_some((every, 1 << bits))
    }

    fn encode_symbols<T: Element>(
        &mut self,
        shape: &Shape,
        planes: &Planes,
        ends: Option<[u8; 2]>,
        frame: &mut Vec<u8>,
    ) {
        let start = frame.len();
        let as_expected =
            self.encode_planned::<T>(shape, planes, (ends, Counting::of(self.options.target)), frame);
        if !as_expected {
            let alphabet = self.counts.len();
            self.tally.count(self.path, &self.symbols, alphabet, &mut self.counts);
            frame.truncate(start);
            self.encode_planned::<T>(shape, planes, (ends, Counting::Exact), frame);
        }
    }

    /// Plan and write; false if that took far more bytes than a sample led to expect.
    fn encode_planned<T: Element>(
        &mut self,
        shape: &Shape,
        planes: &Planes,
        (ends, counting): (Option<[u8; 2]>, Counting),
        frame: &mut Vec<u8>,
    ) -> bool {
        let alphabet = self.dequantizer.as_ref().map_or(2, |map| usize::from(map.levels()));
        let chosen = self.plan(planes, alphabet, (ends, counting));
        if !matches!(chosen, Chosen::Neighbours) {
            self.coded_rows = None;
        }
        let (layout, nonzeros) = match chosen {
            Chosen::Order0 => (Layout::Natural, 0),
            Chosen::Neighbours => (Layout::Planes, 0),
            Chosen::Csr { layout, nonzeros } => (layout, nonzeros),
        };
        let profile: Option<ProfileId> = self.options.profile.as_ref().map(|profile| profile.id());
        let dequantizer = if profile.is_some() { None } else { self.dequantizer.take() };
        let content = Content::Quantized { dequantizer, axis: planes.axis(), layout, nonzeros };
        header::write(T::DTYPE, shape, profile, &content, frame);
        if let Content::Quantized { dequantizer: Some(dequantizer), .. } = content {
            // Its memory serves the next tensor.
            self.dequantizer = Some(dequantizer);
        }
        let plan = match chosen {
            Chosen::Order0 => {
                let plan = &self.order_0;
                self.writer.write(&self.symbols, plan, &plan.model, frame);
                plan
            }
            Chosen::Neighbours => {
                let plan = &self.neighbours;
                if self.coded_rows != Some(plan.rows) {
                    plan.rows.gather(self.path, planes, &self.symbols, &mut self.coded);
                    self.coded_rows = Some(plan.rows);
                }
                let model = self.options.profile.as_ref().map_or(&plan.model, |profile| profile.model());
                self.writer.write(&self.coded, plan, model, frame);
                plan
            }
            Chosen::Csr { .. } => {
                let csr = &self.csr;
                self.writer.write(&csr.concatenated, &csr.plan, &csr.plan.model, frame);
                &csr.plan
            }
        };
        let as_expected = !plan.is_surprised(self.writer.payload());
        if as_expected {
            frame::write_checksum(frame, 0);
        }
        as_expected
    }

    /// Plan every layout the options allow and choose the smallest.
    /// `ends` are the least and the greatest symbol, if the quantiser knows.
    fn plan(
        &mut self,
        planes: &Planes,
        alphabet: usize,
        (ends, counting): (Option<[u8; 2]>, Counting),
    ) -> Chosen {
        let natural = Order::Natural(self.symbols.len());
        if self.options.profile.is_some() {
            return self.plan_profile(planes, alphabet, ends);
        }
        if let LayoutChoice::CsrJoint(reshape) | LayoutChoice::CsrSeparate(reshape) = self.options.layout {
            return self.plan_csr(alphabet, reshape);
        }
        // A sample counts at least one of every symbol that there may be.
        let mut present = self.counts.iter().enumerate().filter(|&(_, &n)| n > 0).map(|(symbol, _)| symbol);
        if let (Some(symbol), None) = (present.next(), present.next()) {
            self.order_0.set_constant(natural, alphabet, symbol);
            return Chosen::Order0;
        }
        let how = (self.options.target, counting);
        let options = &self.options;
        let with_contexts = matches!(options.coder, CoderChoice::Auto | CoderChoice::Rans)
            && match options.layout {
                LayoutChoice::Auto => planes.positions() > 1,
                layout => layout == LayoutChoice::Planes,
            };
        let forced = with_contexts && options.layout == LayoutChoice::Planes;
        let plan = &mut self.order_0;
        match options.coder {
            _ if forced => {}
            CoderChoice::Packed => plan.set_packed(natural, alphabet),
            CoderChoice::Tans { state_bits } => {
                plan.set_order_0(CoderChoice::tans(state_bits, &self.counts), natural, &self.counts, how);
            }
            CoderChoice::Auto => plan.set_free_order_0(natural, &self.counts, how),
            CoderChoice::Rans => plan.set_order_0(Coder::Rans, natural, &self.counts, how),
        }
        if with_contexts {
            let symbols = (self.symbols.as_slice(), self.counts.as_slice());
            self.neighbours.set_neighbours(self.path, symbols, planes, how);
            if forced || self.neighbours.bytes() < self.order_0.bytes() {
                return self.or_packed(Chosen::Neighbours, natural, alphabet);
            }
        }
        self.or_packed(Chosen::Order0, natural, alphabet)
    }

    /// The plan chosen, or bit packing where the coder is free and packing is smaller.
    fn or_packed(&mut self, chosen: Chosen, natural: Order, alphabet: usize) -> Chosen {
        let plan = if matches!(chosen, Chosen::Neighbours) { &self.neighbours } else { &self.order_0 };
        let packed = 1 + (self.symbols.len() * crate::bits::width_of(alphabet) as usize).div_ceil(8);
        if self.options.coder == CoderChoice::Auto && (packed as f64) < plan.bytes() {
            self.order_0.set_packed(natural, alphabet);
            return Chosen::Order0;
        }
        chosen
    }

    fn plan_profile(&mut self, planes: &Planes, alphabet: usize, ends: Option<[u8; 2]>) -> Chosen {
        let Some(profile) = &self.options.profile else { return Chosen::Order0 };
        let natural = Order::Natural(self.symbols.len());
        if let Some([least, greatest]) = ends
            && least == greatest
        {
            self.order_0.set_constant(natural, alphabet, least.into());
            return Chosen::Order0;
        }
        let (path, target) = (self.path, self.options.target);
        let lengths = (profile.lengths(), alphabet);
        self.neighbours.set_profile(path, &self.symbols, lengths, planes, target);
        self.or_packed(Chosen::Neighbours, natural, alphabet)
    }

    fn plan_csr(&mut self, alphabet: usize, reshape: Reshape) -> Chosen {
        let mut search = ReshapeSearch::new(&self.symbols, alphabet);
        let visits = match reshape {
            Reshape::Algorithm1 => search.algorithm_1(),
            Reshape::EveryDivisor => search.every_divisor(),
        };
        // N = T always fits, with one column.
        let rows = best(&visits).map_or(self.symbols.len(), |visit| visit.rows);
        let CsrCandidate { csr, concatenated, counts, plan } = &mut self.csr;
        csr.set(&self.symbols, rows);
        csr.concatenate(concatenated);
        let nonzeros = csr.values.len();
        let alphabet = csr_alphabet(alphabet, self.symbols.len() / rows);
        let target = self.options.target;
        let layout = if matches!(self.options.layout, LayoutChoice::CsrSeparate(_)) {
            let order = Order::Segments(concatenated.len(), [nonzeros, 2 * nonzeros]);
            plan.set_segments(concatenated, order, alphabet, target);
            Layout::CsrSeparate { rows }
        } else {
            let order = Order::Natural(concatenated.len());
            histogram::count(self.path, concatenated, alphabet, counts);
            match counts.iter().position(|&n| n as usize == concatenated.len()) {
                Some(symbol) => plan.set_constant(order, alphabet, symbol),
                None => plan.set_order_0(Coder::Rans, order, counts, (target, Counting::Exact)),
            }
            Layout::CsrJoint { rows }
        };
        Chosen::Csr { layout, nonzeros }
    }

    /// Estimated bytes of the frame that [`Encoder::encode_into`] would write, without coding a symbol.
    ///
    /// Within 1 % of the real frame from about 1,000 bytes on.
    ///
    /// # Errors
    /// As [`Encoder::encode_into`].
    pub fn estimate(&mut self, tensor: &TensorView<'_>) -> Result<Estimate> {
        let mut dense = std::mem::take(&mut self.dense);
        tensor.copy_into(&mut dense);
        let result =
            with_elements!(dense.elements(), elements => self.estimate_elements(elements, tensor.shape()));
        self.dense = dense;
        result
    }

    fn estimate_elements<T: Element>(&mut self, elements: &[T], shape: &Shape) -> Result<Estimate> {
        let raw = raw_length(elements, shape) as f64;
        let planes = Planes::new(shape, self.axis(shape))?;
        let lossless = self.options.quantizer == Quantizer::Lossless && self.options.profile.is_none();
        let mut frame = Vec::new();
        if lossless || elements.is_empty() {
            // Lossless planes are few and are planned one by one; their real size is as easily had.
            self.encode_elements(elements, shape, &mut frame)?;
            let bytes = frame.len() as f64;
            return Ok(Estimate {
                bytes,
                entropy_bits: bytes * 8.0,
                model_bytes: 0,
                tables: 0,
                lanes: 0,
                chunks: 0,
            });
        }
        let quantized = self.quantize(elements, &planes)?;
        let Quantized::Symbols { ends } = quantized else {
            write_constant(elements[0], shape, &mut frame);
            let bytes = frame.len() as f64;
            return Ok(Estimate { bytes, entropy_bits: 0.0, model_bytes: 0, tables: 0, lanes: 0, chunks: 0 });
        };
        let alphabet = self.dequantizer.as_ref().map_or(2, |map| usize::from(map.levels()));
        let chosen = self.plan(&planes, alphabet, (ends, Counting::of(self.options.target)));
        if let (Chosen::Neighbours, Some(profile)) = (chosen, &self.options.profile) {
            self.neighbours.count_profile(self.path, &self.symbols, &planes, profile.model());
        }
        let (plan, layout, nonzeros) = match chosen {
            Chosen::Order0 => (&self.order_0, Layout::Natural, 0),
            Chosen::Neighbours => (&self.neighbours, Layout::Planes, 0),
            Chosen::Csr { layout, nonzeros } => (&self.csr.plan, layout, nonzeros),
        };
        let profile = self.options.profile.as_ref().map(|profile| profile.id());
        let dequantizer = if profile.is_some() { None } else { self.dequantizer.clone() };
        let content = Content::Quantized { dequantizer, axis: planes.axis(), layout, nonzeros };
        header::write(T::DTYPE, shape, profile, &content, &mut frame);
        frame::write_checksum(&mut frame, 0);
        let coded = matches!(plan.coder, Coder::Rans | Coder::Tans { .. });
        Ok(Estimate {
            bytes: (frame.len() as f64 + plan.bytes()).min(raw),
            entropy_bits: if coded { plan.entropy_bits() } else { plan.symbol_bits },
            model_bytes: plan.model_bytes.len(),
            tables: if coded { plan.model.tables().len() } else { 0 },
            lanes: plan.rows.lanes(),
            chunks: plan.chunks(),
        })
    }
}

/// The order of rows in which symbols will most likely be coded, if in plane order: that of the tensor before, or that
/// of large tensors.
fn wanted_rows(options: &EncodeOptions, planes: &Planes, last: Option<Rows>) -> Option<Rows> {
    let last = last.filter(|rows| *rows == Rows::of_planes(planes, rows.lanes()));
    let certain = options.profile.is_some() || options.layout == LayoutChoice::Planes;
    last.or_else(|| certain.then(|| Rows::of_planes(planes, rans::MAX_LANES)))
}

/// What a frame is expected to cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Bytes of the whole frame.
    pub bytes: f64,
    /// Entropy of the symbols given their contexts, bits: what ideal tables, sent for nothing, would leave.
    pub entropy_bits: f64,
    /// Bytes of context classes and tables.
    pub model_bytes: usize,
    /// Number of tables.
    pub tables: usize,
    /// Lanes of a chunk.
    pub lanes: usize,
    /// Chunks.
    pub chunks: usize,
}

/// Kinds of symbols in `D`: values below `levels`, columns below `K`, counts up to `K`.
pub(crate) fn csr_alphabet(levels: usize, columns: usize) -> usize {
    levels.max(columns + 1)
}

/// Encode the elements as they are, without loss or compression: what other frames are measured against.
pub fn encode_raw(tensor: &TensorView<'_>) -> Vec<u8> {
    let (dense, mut frame) = (tensor.to_tensor(), Vec::new());
    with_elements!(dense.elements(), elements => write_raw(elements, tensor.shape(), &mut frame));
    frame
}

fn write_raw<T: Element>(elements: &[T], shape: &Shape, frame: &mut Vec<u8>) {
    header::write(T::DTYPE, shape, None, &Content::Raw, frame);
    write_le(elements, frame);
    frame::write_checksum(frame, 0);
}

pub(super) fn write_constant<T: Element>(element: T, shape: &Shape, frame: &mut Vec<u8>) {
    header::write(T::DTYPE, shape, None, &Content::Constant, frame);
    write_le(&[element], frame);
    frame::write_checksum(frame, 0);
}

fn raw_length<T: Element>(elements: &[T], shape: &Shape) -> usize {
    let dims: usize = shape.dims().iter().map(|&length| frame::varint_length(length as u64)).sum();
    // Magic, version, features, kinds, checksum.
    3 + 1 + 1 + 1 + dims + std::mem::size_of_val(elements) + 4
}
