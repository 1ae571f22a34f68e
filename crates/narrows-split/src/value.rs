use crate::{Error, Result};

/// The element types that engines take and give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// `float32`
    F32,
    /// `int64`
    I64,
    /// `bool`
    Bool,
}

impl ElementType {
    /// Its name, as `NumPy` and ONNX call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::I64 => "int64",
            Self::Bool => "bool",
        }
    }

    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::I64 => 8,
            Self::Bool => 1,
        }
    }

    /// The type of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::F32, Self::I64, Self::Bool].into_iter().find(|kind| kind.name() == name)
    }
}

/// The elements of a [`Value`], in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// `float32`
    F32(Vec<f32>),
    /// `int64`
    I64(Vec<i64>),
    /// `bool`
    Bool(Vec<bool>),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::Bool(values) => values.len(),
        }
    }
}

impl From<Vec<f32>> for Data {
    fn from(values: Vec<f32>) -> Self {
        Self::F32(values)
    }
}

impl From<Vec<i64>> for Data {
    fn from(values: Vec<i64>) -> Self {
        Self::I64(values)
    }
}

impl From<Vec<bool>> for Data {
    fn from(values: Vec<bool>) -> Self {
        Self::Bool(values)
    }
}

/// A tensor that goes into an engine or comes out of one: a shape, and elements that fill it.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    shape: Vec<usize>,
    data: Data,
}

impl Value {
    /// A tensor.
    ///
    /// # Errors
    /// [`Error::ValueLength`] if the data do not fill the shape.
    pub fn new(shape: impl Into<Vec<usize>>, data: impl Into<Data>) -> Result<Self> {
        let (shape, data) = (shape.into(), data.into());
        let expected = shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
        if expected != Some(data.len()) {
            return Err(Error::ValueLength { shape, found: data.len() });
        }
        Ok(Self { shape, data })
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] above 2^30 elements.
    pub fn zeros(shape: impl Into<Vec<usize>>, kind: ElementType) -> Result<Self> {
        let shape = shape.into();
        let elements = crate::analysis::checked_elements("zeros", &shape)?;
        let data = match kind {
            ElementType::F32 => Data::F32(vec![0.0; elements]),
            ElementType::I64 => Data::I64(vec![0; elements]),
            ElementType::Bool => Data::Bool(vec![false; elements]),
        };
        Ok(Self { shape, data })
    }

    /// Its dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its elements.
    pub const fn data(&self) -> &Data {
        &self.data
    }

    /// Its elements, given away.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// Its element type.
    pub const fn element_type(&self) -> ElementType {
        match self.data {
            Data::F32(_) => ElementType::F32,
            Data::I64(_) => ElementType::I64,
            Data::Bool(_) => ElementType::Bool,
        }
    }

    /// Its elements, if they are `float32`.
    pub fn f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(values) => Some(values),
            _ => None,
        }
    }

    /// Its elements, if they are `int64`.
    pub fn i64(&self) -> Option<&[i64]> {
        match &self.data {
            Data::I64(values) => Some(values),
            _ => None,
        }
    }

    /// Size in bytes, uncompressed.
    pub fn bytes(&self) -> usize {
        self.data.len() * self.element_type().bytes()
    }

    /// Whether two tensors have one shape, one type and the same bits: `NaN` equals itself, and 0 is not -0.
    pub fn is_identical(&self, other: &Self) -> bool {
        self.shape == other.shape
            && match (&self.data, &other.data) {
                (Data::F32(left), Data::F32(right)) => {
                    left.iter().zip(right).all(|(left, right)| left.to_bits() == right.to_bits())
                }
                (left, right) => left == right,
            }
    }
}
