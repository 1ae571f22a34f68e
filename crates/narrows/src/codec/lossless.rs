//! Every bit of every element, in planes: the exponents, which compress well, and the signs and
//! mantissas, eight bits a plane, which mostly do not.
//!
//! Elements that are +0 (much of what a ReLU leaves) have nothing but an exponent of 0: as long as no
//! other element has that exponent, the mantissa planes leave them out.

use super::options::EncodeOptions;
use super::plan::{Counting, Plan};
use super::stream::{StreamReader, StreamWriter};
use crate::cpu::Path;
use crate::error::{Error, Result};
use crate::frame::header::{self, Content};
use crate::frame::stream::{Coder, Expected, Order};
use crate::frame::{self, Cursor};
use crate::layout::{Layout, Planes};
use crate::model::histogram;
use crate::tensor::{Dtype, Element, Shape};

/// The most mantissa planes of a type: 24 bits of an f32.
const MOST_MANTISSAS: usize = 3;

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
        (0..=self.mantissa_bits).step_by(8).map(move |taken| (self.mantissa_bits + 1 - taken).min(8))
    }

    /// Exponent, and sign and mantissa left-aligned in 32 bits.
    fn split(self, bits: u32) -> (u8, u32) {
        let exponent = bits >> self.mantissa_bits & ((1 << self.exponent_bits) - 1);
        let sign = bits >> (self.mantissa_bits + self.exponent_bits);
        let mantissa = bits & ((1 << self.mantissa_bits) - 1);
        (exponent as u8, (sign << self.mantissa_bits | mantissa) << (31 - self.mantissa_bits))
    }

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
        let zeros_left_out = self.split(elements, format);
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
            writer.write(mantissas, &self.plan, &self.plan.model, frame);
        }
        frame::write_checksum(frame, 0);
    }

    /// Fill the planes; says whether elements that are +0 were left out of the mantissas'.
    fn split<T: Element>(&mut self, elements: &[T], format: Format) -> bool {
        let parts = elements.iter().map(|x| format.split(x.to_bits()));
        let zeros_left_out = parts.clone().all(|(exponent, rest)| exponent != 0 || rest == 0);
        self.exponents.clear();
        self.exponents.extend(parts.clone().map(|(exponent, _)| exponent));
        let mut shift = 32;
        for (plane, bits) in self.mantissas.iter_mut().zip(format.mantissa_planes()) {
            shift -= bits;
            plane.clear();
            let kept = parts.clone().filter(|(exponent, _)| !zeros_left_out || *exponent != 0);
            plane.extend(kept.map(|(_, rest)| (rest >> shift & ((1 << bits) - 1)) as u8));
        }
        zeros_left_out
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
        if planes.positions() == 1 || self.plan.coder == Coder::Constant {
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
    plane: Vec<u8>,
    rest: Vec<u32>,
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
            let header = reader.read(cursor, &expected, None, &mut self.plane)?;
            header.rows.scatter(reader.path, planes, &self.plane, &mut self.exponents);
        } else {
            reader.read(cursor, &expected, None, &mut self.exponents)?;
        }
        let has_rest = |exponent: u8| !zeros_left_out || exponent != 0;
        let kept = self.exponents.iter().filter(|&&exponent| has_rest(exponent)).count();
        self.rest.clear();
        self.rest.resize(kept, 0);
        let mut shift = 32;
        for bits in format.mantissa_planes() {
            shift -= bits;
            let expected = Expected { alphabet: 1 << bits, order: Order::Natural(kept) };
            reader.read(cursor, &expected, None, &mut self.plane)?;
            self.rest.iter_mut().zip(&self.plane).for_each(|(rest, &part)| *rest |= u32::from(part) << shift);
        }
        out.clear();
        out.reserve(count);
        let mut rest = self.rest.iter();
        for &exponent in &self.exponents {
            let rest = if has_rest(exponent) { rest.next().copied() } else { Some(0) };
            let rest =
                rest.ok_or(Error::CorruptPayload { chunk: 0, what: "fewer mantissas than exponents" })?;
            out.push(T::from_bits(format.join(exponent, rest)));
        }
        Ok(())
    }
}
