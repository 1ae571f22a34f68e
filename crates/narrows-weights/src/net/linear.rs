//! Layers that multiply with a matrix.

use narrows::Path;

use crate::error::{Error, Result};
use crate::file::{PackedFile, Plain, Tensor};
use crate::kernel::Kernel;
use crate::lossless::{self, LosslessDecoder};
use crate::matrix::Matrix;

/// A matrix of weights, packed or dense.
#[derive(Debug)]
pub enum Weights {
    /// Decoded whenever it is multiplied.
    Packed(Box<Matrix>),
    /// Floats in memory.
    Dense {
        /// Row-major, each row padded with zeros to a multiple of 16.
        weights: Vec<f32>,
        /// Output features.
        rows: usize,
        /// Input features.
        columns: usize,
    },
}

/// All elements of a tensor that is stored in any way, as f32, and its axes.
///
/// # Errors
/// As [`PackedFile::tensor`], and [`Error::Container`] for elements that are not floats.
pub fn dense(file: &PackedFile, name: &str) -> Result<(Vec<f32>, Vec<usize>)> {
    let read = |plain: &Plain| {
        let mut values = Vec::new();
        plain.read_f32(0..plain.elements(), &mut values);
        (values, plain.shape.clone())
    };
    let in_tensor = |error: Error| error.in_tensor(name);
    Ok(match file.tensor(name)? {
        Tensor::Packed(matrix) => {
            (matrix.weights(0..matrix.rows()).map_err(in_tensor)?, matrix.shape().dims().to_vec())
        }
        Tensor::Lossless(bytes) => {
            let (_, dims) = lossless::described(&bytes).map_err(in_tensor)?;
            let mut values = Vec::new();
            LosslessDecoder::default()
                .decode(&bytes, |part| {
                    values.extend(part.to_f32());
                    Ok(())
                })
                .map_err(in_tensor)?;
            (values, dims)
        }
        Tensor::Plain(plain) if plain.float().is_some() => read(&plain),
        Tensor::Plain(_) => return Err(in_tensor(Error::container("its elements are not floats"))),
    })
}

impl Weights {
    /// The matrix called `name`: packed if it is stored so.
    ///
    /// # Errors
    /// As [`PackedFile::tensor`].
    pub fn of(file: &PackedFile, name: &str) -> Result<Self> {
        if let Tensor::Packed(matrix) = file.tensor(name)? {
            return Ok(Self::Packed(matrix));
        }
        let (values, shape) = dense(file, name)?;
        let (rows, columns) = (shape.first().copied().unwrap_or(1), shape.iter().skip(1).product());
        Self::dense(&values, rows, columns).map_err(|error| error.in_tensor(name))
    }

    /// Dense weights, row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are not `rows * columns` of them, or none.
    pub fn dense(values: &[f32], rows: usize, columns: usize) -> Result<Self> {
        if values.len() != rows * columns || values.is_empty() {
            let (value, bound) = (values.len(), (rows * columns).max(1));
            return Err(Error::Shape { what: "number of weights", value, bound });
        }
        let padded = columns.next_multiple_of(16);
        let mut weights = vec![0.0; rows * padded];
        for (to, from) in weights.chunks_exact_mut(padded).zip(values.chunks_exact(columns)) {
            to[..columns].copy_from_slice(from);
        }
        Ok(Self::Dense { weights, rows, columns })
    }

    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Self::Packed(matrix) => (matrix.rows(), matrix.columns()),
            Self::Dense { rows, columns, .. } => (*rows, *columns),
        }
    }

    /// One row.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are not so many rows, and as [`Matrix::weights`].
    pub fn row(&self, row: usize) -> Result<Vec<f32>> {
        match self {
            Self::Packed(matrix) => matrix.weights(row..row + 1),
            Self::Dense { rows, .. } if row >= *rows => {
                Err(Error::Shape { what: "row", value: row, bound: rows - 1 })
            }
            Self::Dense { weights, columns, .. } => {
                let padded = columns.next_multiple_of(16);
                Ok(weights[row * padded..][..*columns].to_vec())
            }
        }
    }

    /// `Y = X W^T`: `x` is inputs x columns, `y` inputs x rows.
    ///
    /// # Errors
    /// As [`Matrix::product_batch`].
    pub fn product(&self, x: &[f32], y: &mut [f32]) -> Result<()> {
        let (weights, rows, columns) = match self {
            Self::Packed(matrix) => return matrix.product_batch(x, y),
            Self::Dense { weights, rows, columns } => (weights, *rows, *columns),
        };
        let inputs = x.len() / columns;
        if x.len() != inputs * columns || y.len() != inputs * rows {
            return Err(Error::Shape { what: "number of outputs", value: y.len(), bound: inputs * rows });
        }
        let padded = columns.next_multiple_of(16);
        let mut own = vec![0.0; inputs * padded];
        for (own, x) in own.chunks_exact_mut(padded).zip(x.chunks_exact(columns)) {
            own[..columns].copy_from_slice(x);
        }
        let (kernel, mut sums) = (Kernel::of(Path::best(), 6, 0), vec![0.0; inputs]);
        for (row, weights) in weights.chunks_exact(padded).enumerate() {
            kernel.multiply(weights, &own, &mut sums);
            sums.iter().enumerate().for_each(|(input, sum)| y[input * rows + row] = *sum);
        }
        Ok(())
    }
}

/// `y = W x + b`.
#[derive(Debug)]
pub struct Linear {
    weights: Weights,
    bias: Vec<f32>,
}

impl Linear {
    /// The layer with the tensors `NAME.weight` and `NAME.bias`.
    ///
    /// # Errors
    /// As [`Weights::of`], and [`Error::Shape`] for a bias of another length.
    pub fn of(file: &PackedFile, name: &str) -> Result<Self> {
        let weights = Weights::of(file, &format!("{name}.weight"))?;
        let (bias, _) = dense(file, &format!("{name}.bias"))?;
        Self::new(weights, bias).map_err(|error| error.in_tensor(name))
    }

    /// A layer of these.
    ///
    /// # Errors
    /// [`Error::Shape`] for a bias of another length than the weights have rows.
    pub fn new(weights: Weights, bias: Vec<f32>) -> Result<Self> {
        let (rows, _) = weights.shape();
        if bias.len() != rows {
            return Err(Error::Shape { what: "length of the bias", value: bias.len(), bound: rows });
        }
        Ok(Self { weights, bias })
    }

    /// The same with its hot loops on this path, if its weights are packed.
    #[must_use]
    pub fn with_path(mut self, path: Path) -> Self {
        if let Weights::Packed(matrix) = self.weights {
            self.weights = Weights::Packed(Box::new(matrix.with_path(path)));
        }
        self
    }

    /// Output features, and input features.
    pub fn shape(&self) -> (usize, usize) {
        self.weights.shape()
    }

    /// The outputs for inputs one after the other.
    ///
    /// # Errors
    /// As [`Matrix::product_batch`].
    pub fn run(&self, x: &[f32]) -> Result<Vec<f32>> {
        let (rows, columns) = self.shape();
        let mut y = vec![0.0; x.len() / columns * rows];
        self.weights.product(x, &mut y)?;
        for y in y.chunks_exact_mut(rows) {
            y.iter_mut().zip(&self.bias).for_each(|(y, bias)| *y += bias);
        }
        Ok(y)
    }
}
