//! The stages of encoding and decoding one by one, for `benches/chain.rs`; not part of the library.

use crate::codec::plan::{Counting, Plan};
use crate::codec::stream::{StreamReader, StreamWriter};
use crate::codec::{EncodeOptions, Target};
use crate::cpu::Path;
use crate::frame::header::{self, Content, Limits};
use crate::frame::stream::{Coder, Expected, Order};
use crate::frame::{self, Cursor};
use crate::layout::{Layout, Planes, Rows};
use crate::model::Classes;
use crate::model::bins::BinCounter;
use crate::model::neighbours::Neighbours;
use crate::model::tally::Tally;
use crate::profile::Profile;
use crate::quantize::{self, Dequantizer, Output, Quantizer, Scratch};
use crate::rans::MAX_LANES;
use crate::tensor::{Element, Shape};

/// One tensor with what each stage needs from the stage before.
pub struct Stages<T> {
    path: Path,
    bins: BinCounter,
    tally: Tally,
    elements: Vec<T>,
    planes: Planes,
    quantizer: Quantizer,
    dequantizer: Dequantizer,
    alphabet: usize,
    scratch: Scratch,
    symbols: Vec<u8>,
    coded: Vec<u8>,
    counts: Vec<u32>,
    sums: Vec<u32>,
    merged: Vec<u32>,
    order_0: Plan,
    neighbours: Plan,
    writer: StreamWriter,
    reader: StreamReader,
    stream: Vec<u8>,
    decoded: Vec<u8>,
    values: Vec<T>,
}

impl<T: Element> Stages<T> {
    /// All stages of `elements`, quantised at `bits` bits, run once.
    pub fn new(elements: Vec<T>, dims: &[usize], bits: u8) -> Self {
        let shape = Shape::new(dims).expect("a shape");
        let axis = EncodeOptions::default().axis.unwrap_or_else(|| Planes::usual_axis(&shape));
        let planes = Planes::new(&shape, axis).expect("an axis");
        let mut stages = Self {
            path: Path::best(),
            bins: BinCounter::default(),
            tally: Tally::default(),
            elements,
            planes,
            quantizer: Quantizer::aiq(bits),
            dequantizer: Dequantizer::PerChannel(Vec::new()),
            alphabet: 1 << bits,
            scratch: Scratch::default(),
            symbols: Vec::new(),
            coded: Vec::new(),
            counts: Vec::new(),
            sums: Vec::new(),
            merged: Vec::new(),
            order_0: Plan::default(),
            neighbours: Plan::default(),
            writer: StreamWriter::default(),
            reader: StreamReader::default(),
            stream: Vec::new(),
            decoded: Vec::new(),
            values: Vec::new(),
        };
        stages.quantize();
        stages.count();
        stages.count_contexts();
        stages.plan_order_0();
        stages.plan_neighbours();
        stages.gather();
        stages.encode();
        stages.decode();
        stages.scatter_and_dequantize();
        stages
    }

    fn order(&self) -> Order {
        Order::Planes(self.planes)
    }

    /// The range scan.
    pub fn range(&mut self) -> (f32, f32) {
        quantize::finite_range(self.path, &self.elements).expect("finite elements")
    }

    /// The range scan, and elements to symbols.
    pub fn quantize(&mut self) {
        let Self { path, quantizer, elements, planes, symbols, dequantizer, tally, scratch, .. } = self;
        let output = Output { symbols, tally: Some(tally), dequantizer, coded: None };
        quantize::quantize(*path, quantizer, elements, planes, output, scratch).expect("finite");
        tally.finish(*path, &mut self.counts);
    }

    /// Symbols into plane order, at the lanes that the plan chose.
    pub fn gather(&mut self) {
        self.neighbours.rows.gather(self.path, &self.planes, &self.symbols, &mut self.coded);
    }

    /// Symbols counted.
    pub fn count(&mut self) {
        self.tally.start(self.alphabet);
        self.tally.add(self.path, &self.symbols);
        self.tally.finish(self.path, &mut self.counts);
    }

    /// Symbols counted by the sum of their neighbours.
    pub fn count_contexts(&mut self) {
        let rows = Rows::of_planes(&self.planes, MAX_LANES);
        let Self { path, bins, symbols, planes, alphabet, sums, .. } = self;
        bins.count(*path, &Neighbours { natural: symbols, planes, rows: &rows }, *alphabet, sums);
    }

    /// Bins of sums to classes.
    pub fn merge(&mut self) -> usize {
        self.merged.clear();
        self.merged.extend_from_slice(&self.sums);
        Classes::merge(self.alphabet, &mut self.merged, 4.5).count()
    }

    /// The plan with one table.
    pub fn plan_order_0(&mut self) {
        let natural = Order::Natural(self.symbols.len());
        self.order_0.set_order_0(Coder::Rans, natural, &self.counts, (Target::Size, Counting::Exact));
    }

    /// The plan with neighbour contexts: count, merge, tables.
    pub fn plan_neighbours(&mut self) {
        let Self { path, neighbours, symbols, counts, planes, .. } = self;
        let symbols = (symbols.as_slice(), counts.as_slice());
        neighbours.set_neighbours(*path, symbols, planes, (Target::Size, Counting::Exact));
    }

    /// Coded symbols to a stream.
    pub fn encode(&mut self) {
        self.stream.clear();
        let plan = &self.neighbours;
        self.writer.write(&self.coded, plan, &plan.model, &mut self.stream);
    }

    /// A stream to coded symbols.
    pub fn decode(&mut self) {
        let expected = Expected { alphabet: self.alphabet, order: self.order() };
        let mut cursor = Cursor::new(&self.stream);
        self.reader.read(&mut cursor, &expected, None, &mut self.decoded).expect("a stream");
    }

    /// Coded symbols to values in row-major order.
    pub fn scatter_and_dequantize(&mut self) {
        let Self { path, dequantizer, planes, neighbours, decoded, symbols, values, .. } = self;
        let coded = Some((&neighbours.rows, decoded.as_slice()));
        quantize::dequantize(*path, dequantizer, planes, coded, symbols, values);
    }

    /// All of encoding with a profile but the coder: quantise, plan, gather, header, checksum.
    pub fn around_encoding(&mut self, profile: &Profile, shape: &Shape) {
        let Self { path, elements, planes, symbols, dequantizer, scratch, neighbours, coded, stream, .. } =
            self;
        let quantizer = Quantizer::Fixed(*profile.affine());
        let output = Output { symbols, tally: None, dequantizer, coded: None };
        quantize::quantize(*path, &quantizer, elements, planes, output, scratch).expect("finite");
        let lengths = (profile.lengths(), usize::from(profile.affine().levels()));
        neighbours.set_profile(*path, symbols, lengths, planes, Target::Size);
        neighbours.rows.gather(*path, planes, symbols, coded);
        let content = Content::Quantized {
            dequantizer: None,
            axis: planes.axis(),
            layout: Layout::Planes,
            nonzeros: 0,
        };
        stream.clear();
        header::write(T::DTYPE, shape, Some(profile.id()), &content, stream);
        neighbours.write_header(&[], stream);
        let payload = (neighbours.symbol_bits / 8.0) as usize;
        stream.extend_from_slice(&coded[..payload.min(coded.len())]);
        frame::write_checksum(stream, 0);
    }

    /// All of decoding what [`Stages::around_encoding`] left but the coder: checksum, header, values.
    pub fn around_decoding(&mut self, profile: &Profile) {
        let (header, _) =
            header::read_checked(&self.stream, &Limits::default(), &mut Vec::new()).expect("a frame");
        assert_eq!(header.profile, Some(profile.id()));
        let Self { path, planes, neighbours, symbols, coded, values, .. } = self;
        let map = Dequantizer::Tensor(*profile.affine());
        let coded = Some((&neighbours.rows, coded.as_slice()));
        quantize::dequantize(*path, &map, planes, coded, symbols, values);
    }
}

/// The checksum of `bytes`, appended.
pub fn checksum(bytes: &mut Vec<u8>, length: usize) {
    bytes.resize(length, 7);
    frame::write_checksum(bytes, 0);
}

/// Symbols coded and decoded by rANS alone, for `benches/coder.rs`: the plan is made once.
pub struct Coding {
    coded: Vec<u8>,
    expected: Expected,
    plan: Plan,
    writer: StreamWriter,
    reader: StreamReader,
    stream: Vec<u8>,
    decoded: Vec<u8>,
}

impl Coding {
    /// Symbols of `planes`, with one table or with one for each class of neighbours.
    pub fn new(symbols: &[u8], planes: &Planes, alphabet: usize, contexts: bool, path: Path) -> Self {
        let order = if contexts { Order::Planes(*planes) } else { Order::Natural(symbols.len()) };
        let (mut coded, mut plan) = (symbols.to_vec(), Plan::default());
        let (mut tally, mut counts) = (Tally::default(), Vec::new());
        tally.count(path, symbols, alphabet, &mut counts);
        let how = (Target::Size, Counting::Exact);
        if contexts {
            plan.set_neighbours(path, (symbols, counts.as_slice()), planes, how);
            plan.rows.gather(path, planes, symbols, &mut coded);
        } else {
            plan.set_order_0(Coder::Rans, order, &counts, how);
        }
        let (mut writer, mut reader) = (StreamWriter::default(), StreamReader::default());
        (writer.path, reader.path) = (path, path);
        let expected = Expected { alphabet, order };
        Self { coded, expected, plan, writer, reader, stream: Vec::new(), decoded: Vec::new() }
    }

    /// Chunks of the stream and lanes of a chunk.
    pub fn arrangement(&self) -> (usize, usize) {
        (self.plan.chunks(), self.plan.rows.lanes())
    }

    /// Forget the tables, so that the next call makes them.
    pub fn forget(&mut self) {
        self.writer.forget();
        self.reader.forget();
    }

    /// Encode; gives the bytes.
    pub fn encode(&mut self) -> usize {
        self.stream.clear();
        self.writer.write(&self.coded, &self.plan, &self.plan.model, &mut self.stream);
        self.stream.len()
    }

    /// Decode what was encoded.
    pub fn decode(&mut self) {
        let mut cursor = Cursor::new(&self.stream);
        self.reader.read(&mut cursor, &self.expected, None, &mut self.decoded).expect("a stream");
    }

    /// Whether decoding gave the symbols.
    pub fn is_right(&self) -> bool {
        self.decoded == self.coded
    }
}
