//! A packed tensor as a matrix: rows decoded when they are asked for, and products that decode on the way.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use narrows::machine::{ByteStates, Machine, Payload};
use narrows::{Dtype, Path, Shape, SymbolDecoder, SymbolLayout};
use rayon::prelude::*;

use crate::choice;
use crate::contexts;
use crate::data::Data;
use crate::encode::SIDE_BY_SIDE;
use crate::error::{Error, Result};
use crate::frame::{Content, Header, Place, Tans};
use crate::grid::{Grid, Quantized};
use crate::kernel::Kernel;
use crate::outliers::Outliers;
use crate::reference;
use crate::strips::{Coded, Store};

/// Zeros after the inputs of a product, so that a step never reads beyond them.
const MARGIN: usize = 64;
/// The most columns of a product with bytes: `127 * 255 * columns` fits into an `i32`.
pub const MAX_INT8_COLUMNS: usize = i32::MAX as usize / (127 * 255);

/// A packed tensor, its first axis the rows of a matrix and all others its columns.
///
/// ```
/// use narrows::{Dtype, Shape};
/// use narrows_weights::{Grid, Matrix, PackOptions, Quantized, pack};
///
/// // Two thirds of the weights are zero.
/// let values: Vec<i8> = (0..64 * 128).map(|i| [0, 0, 1, 0, 0, -1][i * i % 6]).collect();
/// let grid = Grid::new(vec![0.25], 3)?;
/// let quantized = Quantized { values, grid, rows: 64, columns: 128 };
/// let packed = pack(&quantized, Dtype::F32, &Shape::new(&[64, 128])?, &PackOptions::default())?;
/// assert!(packed.len() * 8 < 64 * 128 * 2); // below two bits a weight, checksum and all
///
/// let matrix = Matrix::read(packed)?;
/// let (x, mut y) = (vec![1.0; 128], vec![0.0; 64]);
/// matrix.product(&x, &mut y)?;
/// let row: f32 = quantized.values[..128].iter().map(|&q| f32::from(q) * 0.25).sum();
/// assert_eq!(y[0], row);
/// # Ok::<(), narrows_weights::Error>(())
/// ```
#[derive(Debug)]
pub struct Matrix {
    data: Data,
    header: Header,
    places: Vec<Place>,
    /// The machine of each context.
    machines: Vec<Machine>,
    /// All of them as one with values for symbols, if vector registers hold it.
    states: ByteStates,
    /// The column at each place of the coded order, once it was asked for.
    order: OnceLock<Vec<u32>>,
    path: Path,
    threads: usize,
}

impl Matrix {
    /// Read a packed tensor: its header, directory, table and checksum.
    ///
    /// # Errors
    /// Any of [`Error`]'s for bytes that are not one.
    pub fn read(data: impl Into<Data>) -> Result<Self> {
        let data = data.into();
        let (header, places) = Header::read(&data)?;
        let (mut machines, mut states) = (Vec::new(), ByteStates::default());
        if let Content::Tans(tans) = &header.content {
            let none = Error::InvalidTable { what: "no symbol, or more symbols than states" };
            machines = choice::machines(&tans.weights, tans.contexts, tans.state_bits).ok_or(none)?;
            if tans.table_bits() <= u8::BITS {
                states = contexts::together(&machines, header.grid.half());
            }
        }
        let (order, path) = (OnceLock::new(), Path::best());
        Ok(Self { data, header, places, machines, states, order, path, threads: 1 })
    }

    /// The most bits that a state reads.
    fn most_bits(&self) -> u32 {
        self.machines.iter().map(|machine| machine.most_bits).max().unwrap_or(0)
    }

    /// Elements of each column in the coded order.
    fn in_order<'a, T: Copy>(&self, x: &'a [T]) -> Cow<'a, [T]> {
        self.order().map_or(x.into(), |order| contexts::to_order(order, x).into())
    }

    /// The column at each place of the coded order, if that is not the columns' own.
    fn order(&self) -> Option<&[u32]> {
        match &self.header.content {
            // As much memory as there are columns: not before somebody comes with as many inputs.
            Content::Tans(tans) if tans.contexts > 1 => {
                let columns = self.columns();
                Some(self.order.get_or_init(|| contexts::order(columns, tans.lanes_used(columns))))
            }
            _ => None,
        }
    }

    /// The same with its hot loops on this path, for tests and measurements; results are the same on every path.
    #[must_use]
    pub fn with_path(mut self, path: Path) -> Self {
        self.path = path;
        self
    }

    /// The same with products shared out among up to `threads` threads of the current rayon pool. Results do not depend
    /// on their number.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// The shape of the tensor.
    pub const fn shape(&self) -> &Shape {
        &self.header.shape
    }

    /// The type of the weights before they were packed.
    pub const fn dtype(&self) -> Dtype {
        self.header.dtype
    }

    /// Rows: the first axis.
    pub fn rows(&self) -> usize {
        self.header.rows()
    }

    /// Columns: all other axes.
    pub fn columns(&self) -> usize {
        self.header.columns()
    }

    /// What bins stand for.
    pub const fn grid(&self) -> &Grid {
        &self.header.grid
    }

    /// Bytes of the packed tensor.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// How it is coded, and where its bytes go.
    pub fn layout(&self) -> crate::Layout {
        crate::Layout::of(&self.header, &self.places, &self.data)
    }

    /// `y = W x` in f32: `y[r] = step[r] * sum`, the sum in the order that `docs/format.md` gives, the same on every path
    /// and with any number of threads.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has not as many elements as the matrix columns, or `y` as it has rows;
    /// [`Error::CorruptPayload`] if the chunks are no encoder's; `y` is then unspecified.
    pub fn product(&self, x: &[f32], y: &mut [f32]) -> Result<()> {
        check("number of inputs", x.len(), self.columns())?;
        check("number of outputs", y.len(), self.rows())?;
        let mut padded = self.in_order(x).into_owned();
        padded.resize(x.len() + MARGIN, 0.0);
        let kernel = self.kernel();
        self.shared_out(y, 1, |chunks, y| {
            if let Some(coded) = self.fused(kernel) {
                let places = &self.places[chunks.clone()];
                let done = kernel.floats(coded, places, self.header.chunk_rows, &padded, y);
                done.map_err(|wrong| corrupt(&chunks, wrong))?;
            } else {
                self.by_rows(kernel, &chunks, |row, values| y[row] = kernel.dot(values, &padded))?;
            }
            self.each_outlier(&chunks, |row, column, value| {
                y[row] = f32::from(value).mul_add(padded[column], y[row]);
            })?;
            let first = self.header.rows_of(chunks.start).start;
            y.iter_mut().enumerate().for_each(|(row, y)| *y *= self.header.grid.step(first + row));
            Ok(())
        })
    }

    /// `y[r] = sum of q[r][c] * (x[c] - zero)`, exactly: bins times bytes, for activations quantised to 8 bits with a zero
    /// point. [`Grid::step`] times the activations' step makes values of it.
    ///
    /// # Errors
    /// As [`Matrix::product`], and [`Error::Shape`] for more than [`MAX_INT8_COLUMNS`] columns.
    pub fn product_int8(&self, x: &[u8], zero: u8, y: &mut [i32]) -> Result<()> {
        check("number of inputs", x.len(), self.columns())?;
        check("number of outputs", y.len(), self.rows())?;
        if self.columns() > MAX_INT8_COLUMNS {
            let (value, bound) = (self.columns(), MAX_INT8_COLUMNS);
            return Err(Error::Shape { what: "columns of a product with bytes", value, bound });
        }
        let (mut padded, mut ones) = (self.in_order(x).into_owned(), vec![u8::from(zero != 0); x.len()]);
        for bytes in [&mut padded, &mut ones] {
            bytes.resize(x.len() + MARGIN, 0);
        }
        let kernel = self.kernel();
        self.shared_out(y, 1, |chunks, y| {
            if let Some(coded) = self.fused(kernel) {
                let places = &self.places[chunks.clone()];
                let done = kernel.ints(coded, places, self.header.chunk_rows, (&padded, zero, &ones), y);
                done.map_err(|wrong| corrupt(&chunks, wrong))?;
            } else {
                self.by_rows(kernel, &chunks, |row, values| {
                    y[row] = reference::dot_int8(values, &padded[..x.len()], zero);
                })?;
            }
            self.each_outlier(&chunks, |row, column, value| {
                y[row] += i32::from(value) * (i32::from(padded[column]) - i32::from(zero));
            })
        })
    }

    /// `Y = X W^T` for a batch of inputs: `x` is inputs x columns, `y` inputs x rows, both row-major. Each row of the
    /// matrix is decoded once. The same values as [`Matrix::product`] gives for each input.
    ///
    /// # Errors
    /// As [`Matrix::product`].
    pub fn product_batch(&self, x: &[f32], y: &mut [f32]) -> Result<()> {
        let (rows, columns) = (self.rows(), self.columns());
        let inputs = x.len() / columns;
        check("number of inputs", x.len(), inputs * columns)?;
        check("number of outputs", y.len(), inputs * rows)?;
        if inputs <= 1 {
            return if inputs == 1 { self.product(x, y) } else { Ok(()) };
        }
        let padded = columns.next_multiple_of(reference::PARTIALS);
        let mut own = vec![0.0; inputs * padded];
        let ordered = self.in_order(x);
        for (own, x) in own.chunks_exact_mut(padded).zip(ordered.chunks_exact(columns)) {
            own[..columns].copy_from_slice(x);
        }
        // Rows first, so that threads write next to each other.
        let mut sums = vec![0.0; rows * inputs];
        let kernel = self.kernel();
        self.shared_out(&mut sums, inputs, |chunks, y| {
            let mut weights = vec![0.0; padded];
            self.by_rows(kernel, &chunks, |row, values| {
                weights.iter_mut().zip(values).for_each(|(weight, &value)| *weight = value.into());
                kernel.multiply(&weights, &own, &mut y[row * inputs..(row + 1) * inputs]);
            })?;
            self.each_outlier(&chunks, |row, column, value| {
                for (sum, x) in y[row * inputs..(row + 1) * inputs].iter_mut().zip(own.chunks_exact(padded)) {
                    *sum = f32::from(value).mul_add(x[column], *sum);
                }
            })
        })?;
        for (row, sums) in sums.chunks_exact(inputs).enumerate() {
            let step = self.header.grid.step(row);
            sums.iter().enumerate().for_each(|(input, sum)| y[input * rows + row] = sum * step);
        }
        Ok(())
    }

    /// The bins of matrix rows `range`: only the chunks that hold them are decoded.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are not so many rows; [`Error::CorruptPayload`] if the chunks are no encoder's.
    pub fn values(&self, range: Range<usize>) -> Result<Vec<i8>> {
        let mut values = Vec::new();
        self.values_into(range, &mut values)?;
        Ok(values)
    }

    /// The same over `values`, reusing their memory.
    ///
    /// # Errors
    /// As [`Matrix::values`]; the values are then unspecified.
    pub fn values_into(&self, range: Range<usize>, values: &mut Vec<i8>) -> Result<()> {
        check_range(&range, self.rows())?;
        let (rows, columns) = (self.header.chunk_rows, self.columns());
        let chunks = range.start / rows..range.end.div_ceil(rows);
        let first = chunks.start * rows;
        let end = (chunks.end * rows).min(self.rows());
        // Every value is written: what is there already need not be cleared.
        values.resize(end.saturating_sub(first) * columns, 0);
        if range.is_empty() {
            values.clear();
            return Ok(());
        }
        let kernel = self.kernel();
        self.shared_out_from(&chunks, values, columns, |chunks, values| {
            self.decode(kernel, &chunks, values)?;
            self.each_outlier(&chunks, |row, column, value| values[row * columns + column] = value)?;
            if let Some(order) = self.order() {
                contexts::from_order(order, values);
            }
            Ok(())
        })?;
        values.truncate((range.end - first) * columns);
        values.drain(..(range.start - first) * columns);
        Ok(())
    }

    /// The weights of matrix rows `range`, as f32.
    ///
    /// # Errors
    /// As [`Matrix::values`].
    pub fn weights(&self, range: Range<usize>) -> Result<Vec<f32>> {
        let values = self.values(range.clone())?;
        let mut weights = vec![0.0; values.len()];
        let columns = self.columns();
        let each = range.zip(values.chunks_exact(columns).zip(weights.chunks_exact_mut(columns)));
        each.for_each(|(row, (values, weights))| self.grid().dequantize_row(row, values, weights));
        Ok(weights)
    }

    /// All bins, with what they stand for.
    ///
    /// # Errors
    /// As [`Matrix::values`].
    pub fn quantized(&self) -> Result<Quantized> {
        let values = self.values(0..self.rows())?;
        Ok(Quantized { values, grid: self.grid().clone(), rows: self.rows(), columns: self.columns() })
    }

    fn kernel(&self) -> Kernel {
        match &self.header.content {
            Content::Tans(tans) => Kernel::of(self.path, tans.table_bits(), self.most_bits()),
            _ => Kernel::of(self.path, 6, 0),
        }
    }

    /// What vector registers decode from, if this kernel can.
    fn coded(&self, kernel: Kernel) -> Option<Coded<'_>> {
        let Content::Tans(tans) = &self.header.content else { return None };
        let bytes = Payload::new(&self.data)?;
        let coded = Coded {
            bytes,
            tans,
            states: &self.states,
            most_bits: self.most_bits(),
            half: self.grid().half(),
            columns: self.columns(),
        };
        kernel.is_vector().then_some(coded)
    }

    /// The same if products can be made of what is decoded, without storing it.
    fn fused(&self, kernel: Kernel) -> Option<Coded<'_>> {
        self.coded(kernel).filter(|coded| coded.tans.lanes == narrows::machine::MAX_LANES)
    }

    /// Decode `chunks` into `values`, in the coded order; outliers are left at zero.
    fn decode(&self, kernel: Kernel, chunks: &Range<usize>, values: &mut [i8]) -> Result<()> {
        if let Content::Constant(value) = self.header.content {
            values.fill(value);
            return Ok(());
        }
        let places = &self.places[chunks.clone()];
        if let Some(coded) = self.coded(kernel) {
            let store = Store { columns: self.columns() };
            let done = kernel.store(coded, places, self.header.chunk_rows, &store, values);
            return done.map_err(|wrong| corrupt(chunks, wrong));
        }
        let size = self.header.chunk_rows * self.columns();
        for (index, (place, values)) in places.iter().zip(values.chunks_mut(size)).enumerate() {
            match &self.header.content {
                Content::Tans(tans) => {
                    let from = (&*self.data, place);
                    let done = reference::decode_chunk(&self.header, tans, &self.machines, from, values);
                    done.map_err(|what| corrupt(chunks, (index, what)))?;
                }
                _ => self.decode_stream(place, values)?,
            }
        }
        Ok(())
    }

    fn decode_stream(&self, place: &Place, values: &mut [i8]) -> Result<()> {
        let layout = SymbolLayout::natural(values.len(), self.grid().bins())?;
        let mut symbols = Vec::new();
        let stream = &self.data[place.start..place.end];
        SymbolDecoder::default().with_path(self.path).decode_into(stream, &layout, &mut symbols)?;
        let half = i16::from(self.grid().half());
        values.iter_mut().zip(symbols).for_each(|(value, symbol)| *value = (i16::from(symbol) - half) as i8);
        Ok(())
    }

    /// Decode `chunks`, a few at a time, and call `each` with every row; rows count from the first chunk's first.
    fn by_rows(
        &self,
        kernel: Kernel,
        chunks: &Range<usize>,
        mut each: impl FnMut(usize, &[i8]),
    ) -> Result<()> {
        let (columns, first) = (self.columns(), self.header.rows_of(chunks.start).start);
        let mut values = Vec::new();
        for start in chunks.clone().step_by(SIDE_BY_SIDE) {
            let some = start..(start + SIDE_BY_SIDE).min(chunks.end);
            let rows = some.start * self.header.chunk_rows..self.header.rows_of(some.end - 1).end;
            values.resize(rows.len() * columns, 0);
            self.decode(kernel, &some, &mut values)?;
            rows.zip(values.chunks_exact(columns)).for_each(|(row, values)| each(row - first, values));
        }
        Ok(())
    }

    /// Call `each` with the row (counted from the first chunk's first), place in the coded order and bin of every outlier
    /// of `chunks`.
    fn each_outlier(&self, chunks: &Range<usize>, mut each: impl FnMut(usize, usize, i8)) -> Result<()> {
        let Content::Tans(Tans { outliers: Some(code), .. }) = &self.header.content else {
            return Ok(());
        };
        let (columns, half) = (self.columns(), self.grid().half());
        for chunk in chunks.clone() {
            let (place, rows) = (&self.places[chunk], self.header.rows_of(chunk));
            let first = (chunk - chunks.start) * self.header.chunk_rows;
            let list = &self.data[place.streams_end..place.end];
            let mut list = Outliers::new(list, *code, rows.len() * columns, half);
            let wrong = |what| Error::CorruptPayload { chunk, what };
            while let Some((index, value)) = list.next().map_err(wrong)? {
                each(first + index / columns, index % columns, value);
            }
        }
        Ok(())
    }

    fn shared_out<T: Send>(
        &self,
        output: &mut [T],
        width: usize,
        part: impl Fn(Range<usize>, &mut [T]) -> Result<()> + Sync,
    ) -> Result<()> {
        self.shared_out_from(&(0..self.rows().div_ceil(self.header.chunk_rows)), output, width, part)
    }

    /// Share `chunks` out among threads; `output` has `width` elements for each row of theirs.
    fn shared_out_from<T: Send>(
        &self,
        chunks: &Range<usize>,
        output: &mut [T],
        width: usize,
        part: impl Fn(Range<usize>, &mut [T]) -> Result<()> + Sync,
    ) -> Result<()> {
        let each = chunks.len().div_ceil(self.threads).next_multiple_of(SIDE_BY_SIDE);
        if each >= chunks.len() {
            return part(chunks.clone(), output);
        }
        let parts = output.par_chunks_mut(each * self.header.chunk_rows * width).enumerate();
        parts.try_for_each(|(index, output)| {
            let start = chunks.start + index * each;
            part(start..(start + each).min(chunks.end), output)
        })
    }
}

fn check(what: &'static str, value: usize, bound: usize) -> Result<()> {
    if value == bound { Ok(()) } else { Err(Error::Shape { what, value, bound }) }
}

fn check_range(range: &Range<usize>, rows: usize) -> Result<()> {
    if range.end > rows {
        return Err(Error::Shape { what: "end of the range of rows", value: range.end, bound: rows });
    }
    if range.start > range.end {
        return Err(Error::Shape {
            what: "start of the range of rows",
            value: range.start,
            bound: range.end,
        });
    }
    Ok(())
}

/// What is wrong with one of `chunks`.
fn corrupt(chunks: &Range<usize>, (chunk, what): (usize, &'static str)) -> Error {
    Error::CorruptPayload { chunk: chunks.start + chunk, what }
}
