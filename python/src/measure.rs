//! What the codec takes without Python around it, so that both can be measured in one run.

use std::hint::black_box;
use std::time::Instant;

use narrows::{EncodeOptions, Error, TensorView};
use pyo3::prelude::*;

use crate::array::{Array, WithTensor, with_tensor};
use crate::failure;

struct Measure {
    bits: u8,
    repeats: u32,
}

impl WithTensor for Measure {
    type Output = Result<(f64, f64), Error>;
    fn with(self, tensor: &TensorView<'_>) -> Self::Output {
        let mut encoder = narrows::Encoder::new(EncodeOptions::bits(self.bits))?;
        let mut decoder = narrows::Decoder::new();
        let frame = encoder.encode(tensor)?;
        let seconds = |mut work: Box<dyn FnMut() -> Result<(), Error> + '_>| {
            let start = Instant::now();
            for _ in 0..self.repeats {
                work()?;
            }
            Ok::<f64, Error>(start.elapsed().as_secs_f64() / f64::from(self.repeats.max(1)))
        };
        let encode = seconds(Box::new(|| encoder.encode(tensor).map(|frame| drop(black_box(frame)))))?;
        let decode = seconds(Box::new(|| decoder.decode(&frame).map(|tensor| drop(black_box(tensor)))))?;
        Ok((encode, decode))
    }
}

/// Seconds that one encode and one decode take in Rust, over `repeats`.
#[pyfunction]
pub(crate) fn _measure(
    py: Python<'_>,
    array: &Bound<'_, PyAny>,
    bits: u8,
    repeats: u32,
) -> PyResult<(f64, f64)> {
    let array = Array::of(array)?;
    with_tensor(py, &array, false, Measure { bits, repeats })?.map_err(|error| failure::codec(py, &error))
}
