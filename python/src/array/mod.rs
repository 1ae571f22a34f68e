//! Arrays of any library, seen where they lie: by the buffer protocol, or by DLPack.
//!
//! Memory that Python owns can be written by another thread while the codec, with the GIL released, reads it.
//! Elements are therefore read by code that no value can lead astray: the scan and the quantisers clamp every
//! symbol they make, whatever they read, and all later passes work on the symbols, which are ours. The passes
//! that rely on what an earlier one saw (lossless, per channel, clipped ranges) get a copy, see [`Array::dense`].
//! An array that is written to meanwhile gives a frame of some of its values.

#![allow(unsafe_code, reason = "the memory of Python's arrays is read and written through pointers")]

mod device;
mod dlpack;
mod source;

use std::marker::PhantomData;

use half::{bf16, f16};
use narrows::{Dtype, Element, Limits, MAX_RANK, Shape, TensorView};
use pyo3::prelude::*;

use crate::failure::{self, Kind};
pub(crate) use device::{DeviceArray, OnDevice};
use source::Source;

/// An array of one of the three element types, kept alive.
pub(crate) struct Array {
    /// Keeps the memory.
    _source: Source,
    data: *mut u8,
    dtype: Dtype,
    shape: Shape,
    /// In bytes.
    strides: [isize; MAX_RANK],
    writable: bool,
}

// SAFETY: the pointer is to memory that `_source` keeps; reading it from another thread is reading plain memory.
unsafe impl Send for Array {}
// SAFETY: as above; nothing in here changes.
unsafe impl Sync for Array {}

/// An array where it lies.
pub(crate) enum Seen<'py> {
    /// In memory that the CPU reads.
    Host(Array),
    /// In the memory of an NVIDIA GPU.
    Device(OnDevice<'py>),
}

/// Elements in row-major order: where they lay, or copied.
pub(crate) enum Dense<'a, T> {
    Lent(*const T, usize, PhantomData<&'a T>),
    Copied(Vec<T>),
}

impl<T> Dense<'_, T> {
    pub(crate) fn elements(&self) -> &[T] {
        match self {
            // SAFETY: `Array::dense` checked length and alignment; the array keeps the memory for as long as 'a. That
            // others may write to it meanwhile is what the module's text is about.
            Self::Lent(data, length, _) => unsafe { std::slice::from_raw_parts(*data, *length) },
            Self::Copied(elements) => elements,
        }
    }
}

impl Array {
    /// The array inside `object`, which speaks the buffer protocol or DLPack; it may lie on a GPU.
    ///
    /// # Errors
    /// `ArrayError` for anything else, other element types and byte orders; `DeviceError` for other devices; `ShapeError`
    /// for shapes that are not a tensor's.
    pub(crate) fn see<'py>(object: &Bound<'py, PyAny>) -> PyResult<Seen<'py>> {
        source::open(object)
    }

    /// The same, in memory that the CPU reads.
    ///
    /// # Errors
    /// As [`Array::see`], and `DeviceError` for a GPU's memory.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        match Self::see(object)? {
            Seen::Host(array) => Ok(array),
            Seen::Device(array) => {
                Err(array.refuse("here the CPU has to read it, so move it there first (`.cpu()` in PyTorch)"))
            }
        }
    }

    /// Type of the elements.
    pub(crate) const fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape.
    pub(crate) const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Whether elements lie one after the other in row-major order, each where its type wants it.
    fn is_dense(&self) -> bool {
        let aligned = self.data.addr().is_multiple_of(self.dtype.size());
        aligned && is_row_major(&self.shape, &self.strides, self.dtype)
    }

    /// The elements in row-major order; copied if they do not lie so, or if `snapshot` asks for elements that nobody
    /// else can change.
    ///
    /// # Errors
    /// `LimitError` if a copy would have more elements than a decoder takes; `T` is the array's type.
    pub(crate) fn dense<T: Element>(&self, py: Python<'_>, snapshot: bool) -> PyResult<Dense<'_, T>> {
        assert_eq!(T::DTYPE, self.dtype, "elements are read as what they are");
        let count = self.shape.elements();
        if count == 0 {
            return Ok(Dense::Copied(Vec::new()));
        }
        let dense = self.is_dense();
        if dense && !snapshot {
            return Ok(Dense::Lent(self.data.cast(), count, PhantomData));
        }
        // A stride of 0 makes any number of elements out of one.
        let limit = Limits::default().max_elements;
        if count as u64 > limit {
            let text =
                format!("an array that has to be copied has {count} elements, above the limit of {limit}");
            return Err(failure::limit_exceeded(py, &text, count as u64, limit));
        }
        if dense {
            let mut copy = Vec::with_capacity(count);
            // SAFETY: as many elements as the shape has lie at `data`, aligned (`is_dense`); the copy has room for them,
            // and every bit pattern is an element.
            unsafe {
                std::ptr::copy_nonoverlapping(self.data.cast::<T>(), copy.as_mut_ptr(), count);
                copy.set_len(count);
            }
            return Ok(Dense::Copied(copy));
        }
        Ok(Dense::Copied(self.gather(count)))
    }

    /// Every element, in row-major order.
    fn gather<T: Element>(&self, count: usize) -> Vec<T> {
        let dims = self.shape.dims();
        let last = dims.len() - 1;
        let (run, step) = (dims[last], self.strides[last]);
        let mut index = [0_usize; MAX_RANK];
        let mut offset = 0_isize;
        let mut out = Vec::with_capacity(count);
        while out.len() < count {
            for k in 0..run {
                // SAFETY: the exporter vouches for every index within shape, strides and type; reads need no alignment.
                out.push(unsafe {
                    self.data.offset(offset + k as isize * step).cast::<T>().read_unaligned()
                });
            }
            for axis in (0..last).rev() {
                index[axis] += 1;
                offset += self.strides[axis];
                if index[axis] < dims[axis] {
                    break;
                }
                offset -= self.strides[axis] * dims[axis] as isize;
                index[axis] = 0;
            }
        }
        out
    }

    /// Ready to be written to: row-major, writable, of this type and shape.
    ///
    /// # Errors
    /// `ArrayError` or `ShapeError`.
    pub(crate) fn expect_output(&self, py: Python<'_>, dtype: Dtype, shape: &Shape) -> PyResult<()> {
        let wrong = |text: &str| Err(failure::raise(py, Kind::Array, text));
        if !self.writable {
            return wrong("`out` is read-only");
        }
        expect_same(py, (self.dtype, &self.shape), (dtype, shape))?;
        if !self.is_dense() {
            return wrong("`out` is not row-major and contiguous");
        }
        Ok(())
    }

    /// Copy `elements` into the array, which [`Array::expect_output`] has looked at.
    pub(crate) fn fill<T: Element>(&self, elements: &[T]) {
        assert!(self.writable && self.is_dense() && T::DTYPE == self.dtype);
        assert_eq!(elements.len(), self.shape.elements());
        // SAFETY: writable, dense, of this type and this length, as asserted; `elements` is memory of ours, so that the
        // two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(elements.as_ptr(), self.data.cast::<T>(), elements.len()) };
    }
}

/// Whether strides, in bytes, are those of elements one after the other.
fn is_row_major(shape: &Shape, strides: &[isize], dtype: Dtype) -> bool {
    let row_major = shape.strides();
    let fits = |axis: usize| {
        shape.dims()[axis] <= 1 || strides[axis] == row_major[axis] as isize * dtype.size() as isize
    };
    shape.elements() == 0 || (0..shape.rank()).all(fits)
}

/// Whether `out` has the type and shape of a frame's tensor.
///
/// # Errors
/// `ArrayError` or `ShapeError`.
pub(crate) fn expect_same(py: Python<'_>, out: (Dtype, &Shape), frame: (Dtype, &Shape)) -> PyResult<()> {
    if out.0 != frame.0 {
        let text = format!("`out` holds {}, the frame {}", out.0, frame.0);
        return Err(failure::raise(py, Kind::Array, &text));
    }
    if out.1 != frame.1 {
        let text = format!("shape: `out` is {}, the frame's tensor {}", out.1, frame.1);
        return Err(failure::raise(py, Kind::Shape, &text));
    }
    Ok(())
}

/// Something to be done with a tensor of any of the three types.
pub(crate) trait WithTensor {
    type Output;
    fn with(self, tensor: &TensorView<'_>) -> Self::Output;
}

/// Show the array's elements to `work`, without the GIL.
///
/// # Errors
/// As [`Array::dense`], and `ShapeError`.
pub(crate) fn with_tensor<W>(py: Python<'_>, array: &Array, snapshot: bool, work: W) -> PyResult<W::Output>
where
    W: WithTensor + Send,
    W::Output: Send,
{
    fn typed<T: Element, W: WithTensor + Send>(
        py: Python<'_>,
        array: &Array,
        snapshot: bool,
        work: W,
    ) -> PyResult<W::Output>
    where
        W::Output: Send,
    {
        let dense = array.dense::<T>(py, snapshot)?;
        let view = TensorView::new(dense.elements(), array.shape().dims())
            .map_err(|error| failure::codec(py, &error))?;
        Ok(py.detach(|| work.with(&view)))
    }
    match array.dtype() {
        Dtype::F32 => typed::<f32, W>(py, array, snapshot, work),
        Dtype::F16 => typed::<f16, W>(py, array, snapshot, work),
        Dtype::Bf16 => typed::<bf16, W>(py, array, snapshot, work),
    }
}
