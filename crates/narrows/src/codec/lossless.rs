//! Every bit of every element, in planes: the exponents, which compress well, and the signs and
//! mantissas, eight bits a plane, which mostly do not.
//!
//! Elements that are +0 (much of what a ReLU leaves) have nothing but an exponent of 0: as long as no
//! other element has that exponent, the mantissa planes leave them out.

mod kernels;

use self::kernels::MOST_MANTISSAS;
use super::options::{EncodeOptions, LayoutChoice};
use super::plan::{Counting, Plan};
use super::stream::{StreamReader, StreamWriter};
use crate::cpu::Path;
use crate::error::Result;
use crate::frame::header::{self, Content};
use crate::frame::stream::{self, Coder, Expected, Order};
use crate::frame::{self, Cursor};
use crate::layout::{Layout, Planes};
use crate::model::histogram;
use crate::tensor::{Dtype, Element, Shape};

/// Where a type's bits go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    exponent_bits: u32,
    mantissa_bits: u32,
}

impl Format {
    pub(crate) const fn of(dtype: Dtype) -> Self {
        let (exponent_bits, mantissa_bits) = match dtype {
            Dtype::F32 => (8, 23),
            Dtype::F16 => (5, 10),
            Dtype::Bf16 => (8, 7),
        };
        Self { exponent_bits, mantissa_bits }
    }

    pub(crate) const fn exponents(self) -> usize {
        1 << self.exponent_bits
    }

    /// Bits of each mantissa plane, the first with the sign on top.
    pub(crate) fn mantissa_planes(self) -> impl Iterator<Item = u32> {
        (0..(self.mantissa_bits as usize + 1).div_ceil(8)).map(move |plane| self.plane_bits(plane))
    }

    const fn plane_bits(self, plane: usize) -> u32 {
        let left = self.mantissa_bits + 1 - 8 * plane as u32;
        if left < 8 { left } else { 8 }
    }

    /// Exponent, and sign and mantissa left-aligned in 32 bits.
    #[inline(always)]
    fn split(self, bits: u32) -> (u8, u32) {
        let exponent = bits >> self.mantissa_bits & ((1 << self.exponent_bits) - 1);
        let sign = bits >> (self.mantissa_bits + self.exponent_bits);
        let mantissa = bits & ((1 << self.mantissa_bits) - 1);
        (exponent as u8, (sign << self.mantissa_bits | mantissa) << (31 - self.mantissa_bits))
    }

    /// Undo [`Format::split`].
    #[inline(always)]
    fn join(self, exponent: u8, rest: u32) -> u32 {
        let rest = rest >> (31 - self.mantissa_bits);
        let (sign, mantissa) = (rest >> self.mantissa_bits, rest & ((1 << self.mantissa_bits) - 1));
        (sign << self.exponent_bits | u32::from(exponent)) << self.mantissa_bits | mantissa
    }
}

/// Buffers for splitting tensors into planes.
#[derive(Default)]
pub(crate) struct Planner {
    exponents: Vec<u8>,
    coded: Vec<u8>,
    mantissas: [Vec<u8>; MOST_MANTISSAS],
    counts: Vec<u32>,
    plan: Plan,
    neighbours: Plan,
}

impl Planner {
    /// Encode `elements` (at least one) into `frame`.
    pub(crate) fn encode<T: Element>(
        &mut self,
        elements: &[T],
        shape: &Shape,
        planes: &Planes,
        options: &EncodeOptions,
        writer: &mut StreamWriter,
        frame: &mut Vec<u8>,
    ) {
        let first = elements[0].to_bits();
        if elements.iter().all(|x| x.to_bits() == first) {
            return super::encoder::write_constant(elements[0], shape, frame);
        }
        let format = Format::of(T::DTYPE);
        let zeros_left_out = self.split(writer.path, elements, format);
        let order = self.plan_exponents(writer.path, format.exponents(), planes, options);
        let exponents = if order { Layout::Planes } else { Layout::Natural };
        let content = Content::Lossless { zeros_left_out, axis: planes.axis(), exponents };
        header::write(T::DTYPE, shape, None, &content, frame);
        if order {
            writer.write(&self.coded, &self.neighbours, &self.neighbours.model, frame);
        } else {
            writer.write(&self.exponents, &self.plan, &self.plan.model, frame);
        }
        for (mantissas, bits) in self.mantissas.iter().zip(format.mantissa_planes()) {
            plan_natural(writer.path, &mut self.plan, mantissas, 1 << bits, &mut self.counts, options);
            if self.plan.coder == Coder::Packed && bits == u8::BITS {
                // Packed symbols of a byte are the bytes.
                self.plan.write_header(&[], frame);
                frame.extend_from_slice(mantissas);
            } else {
                writer.write(mantissas, &self.plan, &self.plan.model, frame);
            }
        }
        frame::write_checksum(frame, 0);
    }

    /// Fill the planes; says whether elements that are +0 were left out of the mantissas'.
    fn split<T: Element>(&mut self, path: Path, elements: &[T], format: Format) -> bool {
        let used = format.mantissa_planes().count();
        // What was there before is written over.
        self.exponents.resize(elements.len(), 0);
        self.mantissas[..used].iter_mut().for_each(|plane| plane.resize(elements.len(), 0));
        let mantissas = self.mantissas.each_mut().map(Vec::as_mut_slice);
        let zeros = kernels::split(path, elements, &mut self.exponents, mantissas);
        if zeros.any && zeros.positive {
            let mantissas = self.mantissas[..used].iter_mut();
            mantissas.for_each(|plane| kernels::leave_zeros_out(&self.exponents, plane));
        }
        zeros.positive
    }

    /// Plan the exponents; true if plane order with contexts is smaller.
    fn plan_exponents(
        &mut self,
        path: Path,
        alphabet: usize,
        planes: &Planes,
        options: &EncodeOptions,
    ) -> bool {
        plan_natural(path, &mut self.plan, &self.exponents, alphabet, &mut self.counts, options);
        let natural = options.layout == LayoutChoice::Natural || planes.positions() == 1;
        if natural || self.plan.coder == Coder::Constant {
            return false;
        }
        let symbols = (self.exponents.as_slice(), self.counts.as_slice());
        self.neighbours.set_neighbours(path, symbols, planes, (options.target, Counting::Exact));
        if self.neighbours.bytes() >= self.plan.bytes() {
            return false;
        }
        self.neighbours.rows.gather(path, planes, &self.exponents, &mut self.coded);
        true
    }
}

/// Plan symbols in natural order: one table, or packed, or constant, whichever is smallest.
fn plan_natural(
    path: Path,
    plan: &mut Plan,
    symbols: &[u8],
    alphabet: usize,
    counts: &mut Vec<u32>,
    options: &EncodeOptions,
) {
    let order = Order::Natural(symbols.len());
    histogram::count(path, symbols, alphabet, counts);
    if let Some(symbol) = counts.iter().position(|&n| n as usize == symbols.len()) {
        return plan.set_constant(order, alphabet, symbol);
    }
    plan.set_order_0(Coder::Rans, order, counts, (options.target, Counting::Exact));
    let coded = plan.bytes();
    let packed = 1.0 + (symbols.len() * alphabet.ilog2() as usize).div_ceil(8) as f64;
    if packed <= coded {
        plan.set_packed(order, alphabet);
    }
}

/// Buffers for joining planes.
#[derive(Default)]
pub(crate) struct Joiner {
    exponents: Vec<u8>,
    coded: Vec<u8>,
    mantissas: [Vec<u8>; MOST_MANTISSAS],
}

impl Joiner {
    /// Decode the planes of a lossless frame into `out`.
    pub(crate) fn decode<T: Element>(
        &mut self,
        cursor: &mut Cursor<'_>,
        planes: &Planes,
        (zeros_left_out, exponents): (bool, Layout),
        reader: &mut StreamReader,
        out: &mut Vec<T>,
    ) -> Result<()> {
        let format = Format::of(T::DTYPE);
        let count = planes.count() * planes.positions();
        let in_planes = exponents == Layout::Planes;
        let order = if in_planes { Order::Planes(*planes) } else { Order::Natural(count) };
        let expected = Expected { alphabet: format.exponents(), order };
        if in_planes {
            let header = reader.read(cursor, &expected, None, &mut self.coded)?;
            header.rows.scatter(reader.path, planes, &self.coded, &mut self.exponents);
        } else {
            reader.read(cursor, &expected, None, &mut self.exponents)?;
        }
        let kept = if zeros_left_out { kernels::nonzeros(reader.path, &self.exponents) } else { count };
        let mut borrowed = [None; MOST_MANTISSAS];
        for (plane, bits) in format.mantissa_planes().enumerate() {
            let expected = Expected { alphabet: 1 << bits, order: Order::Natural(kept) };
            borrowed[plane] = packed_bytes(cursor, &expected, reader)?;
            if borrowed[plane].is_none() {
                reader.read(cursor, &expected, None, &mut self.mantissas[plane])?;
            }
        }
        let mut mantissas = self.mantissas.each_ref().map(Vec::as_slice);
        mantissas.iter_mut().zip(borrowed).for_each(|(plane, borrowed)| *plane = borrowed.unwrap_or(plane));
        // Elements of the tensor before are written over, not cleared first.
        out.resize(count, T::from_bits(0));
        if kept == count {
            kernels::join(reader.path, &self.exponents, mantissas, out);
        } else {
            kernels::join_without_zeros(reader.path, &self.exponents, mantissas, out);
        }
        Ok(())
    }
}

/// The symbols of a packed stream of bytes where they lie in the frame; of any other nothing is read.
fn packed_bytes<'a>(
    cursor: &mut Cursor<'a>,
    expected: &Expected,
    reader: &mut StreamReader,
) -> Result<Option<&'a [u8]>> {
    if expected.alphabet != 1 << u8::BITS || !stream::is_packed(cursor.rest()) {
        return Ok(None);
    }
    let bytes = cursor.rest();
    let (before, (header, _)) = (cursor.offset(), reader.survey(cursor, expected, None)?);
    let end = cursor.offset() - before;
    Ok(Some(&bytes[end - header.bytes.payload()..end]))
}
