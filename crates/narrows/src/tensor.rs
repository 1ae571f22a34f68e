//! Tensors: a shape and its elements, borrowed ([`TensorView`]) or owned ([`Tensor`]).

use std::borrow::Cow;

use half::{bf16, f16};

use crate::error::{Error, Result};

/// The largest rank a tensor may have.
pub const MAX_RANK: usize = 8;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
}

impl Dtype {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The usual short name: `f32`, `f16` or `bf16`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The lengths of a tensor's axes, outermost first; rank 1 to [`MAX_RANK`].
///
/// ```
/// let shape = narrows::Shape::new(&[128, 28, 28])?;
/// assert_eq!((shape.rank(), shape.elements()), (3, 100_352));
/// # Ok::<(), narrows::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// A shape from its axis lengths.
    ///
    /// # Errors
    /// [`Error::Shape`] if the rank is not 1 to 8 or the number of elements does not fit in an `isize`.
    pub fn new(dims: &[usize]) -> Result<Self> {
        if dims.is_empty() || dims.len() > MAX_RANK {
            return Err(Error::Shape { what: "rank", value: dims.len(), bound: MAX_RANK });
        }
        // The product of the non-zero lengths must fit too, so that every stride does.
        let volume = dims.iter().filter(|&&n| n > 0).try_fold(1_usize, |product, &n| product.checked_mul(n));
        match volume {
            Some(volume) if volume <= isize::MAX as usize / 4 => {}
            _ => {
                let bound = isize::MAX as usize / 4;
                return Err(Error::Shape { what: "number of elements", value: usize::MAX, bound });
            }
        }
        let mut shape = Self { dims: [1; MAX_RANK], rank: dims.len() as u8 };
        shape.dims[..dims.len()].copy_from_slice(dims);
        Ok(shape)
    }

    /// Number of axes.
    pub const fn rank(&self) -> usize {
        self.rank as usize
    }

    /// The axis lengths.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank()]
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.dims().iter().product()
    }

    /// Row-major strides, in elements.
    pub fn strides(&self) -> [usize; MAX_RANK] {
        let mut strides = [1; MAX_RANK];
        for axis in (0..self.rank() - 1).rev() {
            strides[axis] = strides[axis + 1] * self.dims[axis + 1].max(1);
        }
        strides
    }
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (axis, length) in self.dims().iter().enumerate() {
            write!(f, "{}{length}", if axis == 0 { "" } else { "x" })?;
        }
        Ok(())
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
}

/// A type of element: `f32`, [`half::f16`] or [`half::bf16`].
pub trait Element: sealed::Sealed + bytemuck::Pod + PartialEq + std::fmt::Debug + Send + Sync {
    /// The same type as a value.
    const DTYPE: Dtype;
    /// The value as f32, exactly.
    fn to_f32(self) -> f32;
    /// The nearest value to a finite `value` (ties to even), saturated to the largest finite one.
    fn from_f32(value: f32) -> Self;
    /// The bit pattern, in the low bits.
    fn to_bits(self) -> u32;
    /// The element with this bit pattern; bits above its width are ignored.
    fn from_bits(bits: u32) -> Self;
    #[doc(hidden)]
    fn view(elements: &[Self]) -> Elements<'_>;
    #[doc(hidden)]
    fn owned(elements: Vec<Self>) -> Storage;
    #[doc(hidden)]
    fn storage(storage: &mut Storage) -> &mut Vec<Self>;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
    fn to_f32(self) -> f32 {
        self
    }
    fn from_f32(value: f32) -> Self {
        value.clamp(f32::MIN, f32::MAX)
    }
    fn to_bits(self) -> u32 {
        f32::to_bits(self)
    }
    fn from_bits(bits: u32) -> Self {
        f32::from_bits(bits)
    }
    fn view(elements: &[Self]) -> Elements<'_> {
        Elements::F32(elements)
    }
    fn owned(elements: Vec<Self>) -> Storage {
        Storage::F32(elements)
    }
    fn storage(storage: &mut Storage) -> &mut Vec<Self> {
        if !matches!(storage, Storage::F32(_)) {
            *storage = Storage::F32(Vec::new());
        }
        match storage {
            Storage::F32(elements) => elements,
            _ => unreachable!("the storage was just set to this type"),
        }
    }
}

macro_rules! half_element {
    ($type:ty, $dtype:expr, $variant:ident) => {
        impl Element for $type {
            const DTYPE: Dtype = $dtype;
            fn to_f32(self) -> f32 {
                <$type>::to_f32(self)
            }
            fn from_f32(value: f32) -> Self {
                let nearest = <$type>::from_f32(value);
                if nearest.is_infinite() {
                    if value > 0.0 { <$type>::MAX } else { <$type>::MIN }
                } else {
                    nearest
                }
            }
            fn to_bits(self) -> u32 {
                <$type>::to_bits(self) as u32
            }
            fn from_bits(bits: u32) -> Self {
                <$type>::from_bits(bits as u16)
            }
            fn view(elements: &[Self]) -> Elements<'_> {
                Elements::$variant(elements)
            }
            fn owned(elements: Vec<Self>) -> Storage {
                Storage::$variant(elements)
            }
            fn storage(storage: &mut Storage) -> &mut Vec<Self> {
                if !matches!(storage, Storage::$variant(_)) {
                    *storage = Storage::$variant(Vec::new());
                }
                match storage {
                    Storage::$variant(elements) => elements,
                    _ => unreachable!("the storage was just set to this type"),
                }
            }
        }
    };
}
half_element!(f16, Dtype::F16, F16);
half_element!(bf16, Dtype::Bf16, Bf16);

/// Borrowed elements of one of the three types.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// f32 elements.
    F32(&'a [f32]),
    /// f16 elements.
    F16(&'a [f16]),
    /// bf16 elements.
    Bf16(&'a [bf16]),
}

impl Elements<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(elements) => elements.len(),
            Self::F16(elements) => elements.len(),
            Self::Bf16(elements) => elements.len(),
        }
    }
}

/// Run `$body` with `$slice` bound to the typed slice inside an [`Elements`] or [`Storage`].
macro_rules! with_elements {
    ($elements:expr, $slice:ident => $body:expr) => {
        match $elements {
            $crate::tensor::Elements::F32($slice) => $body,
            $crate::tensor::Elements::F16($slice) => $body,
            $crate::tensor::Elements::Bf16($slice) => $body,
        }
    };
}
pub(crate) use with_elements;

/// A borrowed tensor: elements, shape and strides.
///
/// ```
/// use narrows::TensorView;
/// let data = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0];
/// let rows = TensorView::new(&data, &[2, 3])?;
/// // The same six elements seen as their transpose, without a copy:
/// let columns = TensorView::with_strides(&data, &[3, 2], &[1, 3])?;
/// assert_eq!(columns.to_tensor().as_f32().unwrap(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
/// # assert_eq!(rows.shape().dims(), [2, 3]);
/// # Ok::<(), narrows::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    elements: Elements<'a>,
    shape: Shape,
    /// In elements; `None` means row-major and exactly as long as the shape.
    strides: Option<[usize; MAX_RANK]>,
}

impl<'a> TensorView<'a> {
    /// A row-major tensor over `elements`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape is not valid or does not have `elements.len()` elements.
    pub fn new<T: Element>(elements: &'a [T], dims: &[usize]) -> Result<Self> {
        let shape = Shape::new(dims)?;
        if shape.elements() != elements.len() {
            let (value, bound) = (elements.len(), shape.elements());
            return Err(Error::Shape { what: "number of elements", value, bound });
        }
        Ok(Self { elements: T::view(elements), shape, strides: None })
    }

    /// A tensor whose element at index `i` is `elements[sum(i[axis] * strides[axis])]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape is not valid, the ranks differ, or an index falls outside `elements`.
    pub fn with_strides<T: Element>(elements: &'a [T], dims: &[usize], strides: &[usize]) -> Result<Self> {
        let shape = Shape::new(dims)?;
        if strides.len() != dims.len() {
            return Err(Error::Shape { what: "number of strides", value: strides.len(), bound: dims.len() });
        }
        if shape.elements() > 0 {
            let last = dims.iter().zip(strides).try_fold(0_usize, |sum, (&length, &stride)| {
                sum.checked_add((length - 1).checked_mul(stride)?)
            });
            let last = last.unwrap_or(usize::MAX);
            if last >= elements.len() {
                return Err(Error::Shape {
                    what: "last element's offset",
                    value: last,
                    bound: elements.len(),
                });
            }
        }
        let mut full = [0; MAX_RANK];
        full[..strides.len()].copy_from_slice(strides);
        let row_major = shape.strides()[..dims.len()] == *strides && shape.elements() == elements.len();
        Ok(Self { elements: T::view(elements), shape, strides: (!row_major).then_some(full) })
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The elements' type.
    pub fn dtype(&self) -> Dtype {
        match self.elements {
            Elements::F32(_) => Dtype::F32,
            Elements::F16(_) => Dtype::F16,
            Elements::Bf16(_) => Dtype::Bf16,
        }
    }

    /// Bytes of the uncompressed elements.
    pub fn bytes(&self) -> usize {
        self.shape.elements() * self.dtype().size()
    }

    /// The elements in row-major order, if they lie so.
    pub fn row_major(&self) -> Option<Elements<'a>> {
        self.strides.is_none().then_some(self.elements)
    }

    /// An owned, row-major copy.
    pub fn to_tensor(&self) -> Tensor {
        let mut copy = Tensor::default();
        self.copy_into(&mut copy);
        copy
    }

    /// Copy into `tensor`, reusing its storage where the type is the same.
    pub(crate) fn copy_into(&self, tensor: &mut Tensor) {
        tensor.shape = self.shape;
        with_elements!(self.elements, elements => self.gather(elements, &mut tensor.storage));
    }

    fn gather<T: Element>(&self, elements: &[T], storage: &mut Storage) {
        let out = T::storage(storage);
        out.clear();
        let Some(strides) = self.strides else {
            out.extend_from_slice(elements);
            return;
        };
        let (rank, count) = (self.shape.rank(), self.shape.elements());
        let mut index = [0_usize; MAX_RANK];
        let mut offset = 0;
        out.extend((0..count).map(|_| {
            let element = elements[offset];
            for axis in (0..rank).rev() {
                index[axis] += 1;
                offset += strides[axis];
                if index[axis] < self.shape.dims[axis] {
                    break;
                }
                offset -= strides[axis] * self.shape.dims[axis];
                index[axis] = 0;
            }
            element
        }));
    }
}

/// Owned elements of one of the three types.
#[derive(Clone, Debug, PartialEq)]
pub enum Storage {
    /// f32 elements.
    F32(Vec<f32>),
    /// f16 elements.
    F16(Vec<f16>),
    /// bf16 elements.
    Bf16(Vec<bf16>),
}

/// An owned, row-major tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub(crate) storage: Storage,
    pub(crate) shape: Shape,
}

impl Default for Tensor {
    /// An empty f32 tensor of shape `[0]`, to be decoded into.
    fn default() -> Self {
        let mut dims = [1; MAX_RANK];
        dims[0] = 0;
        Self { storage: Storage::F32(Vec::new()), shape: Shape { dims, rank: 1 } }
    }
}

impl Tensor {
    /// A tensor that owns `elements`.
    ///
    /// # Errors
    /// As [`TensorView::new`].
    pub fn new<T: Element>(elements: Vec<T>, dims: &[usize]) -> Result<Self> {
        let shape = *TensorView::new(&elements, dims)?.shape();
        Ok(Self { storage: T::owned(elements), shape })
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The elements' type.
    pub fn dtype(&self) -> Dtype {
        self.view().dtype()
    }

    /// The elements, borrowed.
    pub fn elements(&self) -> Elements<'_> {
        match &self.storage {
            Storage::F32(elements) => Elements::F32(elements),
            Storage::F16(elements) => Elements::F16(elements),
            Storage::Bf16(elements) => Elements::Bf16(elements),
        }
    }

    /// The tensor, borrowed.
    pub fn view(&self) -> TensorView<'_> {
        debug_assert_eq!(self.elements().len(), self.shape.elements());
        TensorView { elements: self.elements(), shape: self.shape, strides: None }
    }

    /// The elements, if they are f32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.storage {
            Storage::F32(elements) => Some(elements),
            _ => None,
        }
    }

    /// The elements as f32, converted if they are of a narrower type.
    pub fn to_f32(&self) -> Vec<f32> {
        with_elements!(self.elements(), elements => elements.iter().map(|&x| Element::to_f32(x)).collect())
    }

    /// The elements as little-endian bytes.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        self.le_bytes().into_owned()
    }

    /// The elements as little-endian bytes: where they lie, on machines that keep numbers so.
    pub fn le_bytes(&self) -> Cow<'_, [u8]> {
        if cfg!(target_endian = "little") {
            return Cow::Borrowed(
                with_elements!(self.elements(), elements => bytemuck::cast_slice(elements)),
            );
        }
        let mut bytes = Vec::with_capacity(self.shape.elements() * self.dtype().size());
        with_elements!(self.elements(), elements => write_le(elements, &mut bytes));
        Cow::Owned(bytes)
    }
}

/// Append elements as little-endian bytes.
pub(crate) fn write_le<T: Element>(elements: &[T], out: &mut Vec<u8>) {
    if cfg!(target_endian = "little") {
        out.extend_from_slice(bytemuck::cast_slice(elements));
        return;
    }
    let width = T::DTYPE.size();
    out.extend(elements.iter().flat_map(|&x| x.to_bits().to_le_bytes().into_iter().take(width)));
}

/// Elements from little-endian bytes; a trailing part of an element is ignored.
pub(crate) fn read_le<T: Element>(bytes: &[u8]) -> impl Iterator<Item = T> + Clone + '_ {
    bytes.chunks_exact(T::DTYPE.size()).map(|chunk| {
        let mut bits = [0; 4];
        bits[..chunk.len()].copy_from_slice(chunk);
        T::from_bits(u32::from_le_bytes(bits))
    })
}
