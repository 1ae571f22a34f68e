//! Profiles: calibrated parameters that both ends have.

use std::sync::Arc;

use narrows::{Calibration, Clip, Profiles, Tensor, TensorView};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::array::{Array, WithTensor, with_tensor};
use crate::failure::{self, Kind};
use crate::frame::Bytes;
use crate::options::{self, ClipArgument};

/// Parameters calibrated on sample tensors, which both ends have: frames name the profile instead of carrying
/// step and tables.
///
/// Immutable. Make one with `Profile.calibrate` or `Profile.from_bytes`; write `to_bytes()` to a file for
/// the other end (or for `narrows encode --profile`).
#[pyclass(frozen, module = "narrows", eq)]
#[derive(PartialEq)]
pub(crate) struct Profile(pub(crate) Arc<narrows::Profile>);

struct Copied;

impl WithTensor for Copied {
    type Output = Tensor;
    fn with(self, tensor: &TensorView<'_>) -> Tensor {
        tensor.to_tensor()
    }
}

#[pymethods]
impl Profile {
    /// The profile for tensors like `samples`, such as the features at one cut for some hundred inputs.
    ///
    /// Args:
    ///     samples: an iterable of arrays (float32, float16, bfloat16) of one rank and any lengths.
    ///     bits: log2 of the number of levels, 1 to 8; ignored if `levels` is given.
    ///     levels: number of levels, 2 to 256, not only powers of two.
    ///     clip: the range that the levels span over all samples together: a percentile of 50 to 100, `"mse"`
    ///         (least squared error), or `"full"`.
    ///     axis: the axis that holds the channels; None: 0 for rank 1 and 3, else 1.
    ///
    /// Raises:
    ///     NonFiniteError: NaN or infinity in a sample.
    ///     ShapeError: no sample with an element, or no such axis.
    ///     OptionError: a number out of range, or samples of one value only.
    #[staticmethod]
    #[pyo3(signature = (samples: "collections.abc.Iterable[typing.Any]", bits=4, *, levels=None, clip=None, axis=None))]
    fn calibrate(
        py: Python<'_>,
        samples: &Bound<'_, PyAny>,
        bits: u32,
        levels: Option<u16>,
        clip: Option<ClipArgument>,
        axis: Option<usize>,
    ) -> PyResult<Self> {
        let levels = match levels {
            Some(levels) => levels,
            None if (1..=8).contains(&bits) => 1 << bits,
            None => {
                let text = format!("option bits is {bits}, allowed is 1 to 8");
                return Err(failure::raise(py, Kind::Option, &text));
            }
        };
        let clip = match clip {
            None => Calibration::default().clip,
            Some(ClipArgument::Percentile(percent)) => Clip::Percentile(percent),
            Some(ClipArgument::Name(name)) => options::clip(&name).ok_or_else(|| {
                let text = format!("option clip is {name:?}, allowed is a percentile, \"mse\" or \"full\"");
                failure::raise(py, Kind::Option, &text)
            })?,
        };
        let mut tensors = Vec::new();
        for sample in samples.try_iter()? {
            let array = Array::of(&sample?)?;
            tensors.push(with_tensor(py, &array, false, Copied)?);
        }
        let views: Vec<TensorView<'_>> = tensors.iter().map(Tensor::view).collect();
        let calibration = Calibration { levels, clip, axis };
        let profile = py.detach(|| narrows::Profile::calibrate(&views, &calibration));
        profile.map(|profile| Self(Arc::new(profile))).map_err(|error| failure::codec(py, &error))
    }

    /// A profile from `data`, the bytes of its file.
    ///
    /// Raises:
    ///     FrameError: the bytes are not a profile, or changed on their way.
    #[staticmethod]
    #[pyo3(signature = (data: "typing_extensions.Buffer"))]
    fn from_bytes(py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let bytes = Bytes::of(data)?;
        let profile = narrows::Profile::from_bytes(bytes.get(py));
        profile.map(|profile| Self(Arc::new(profile))).map_err(|error| failure::codec(py, &error))
    }

    /// The profile as the bytes of its file.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.to_bytes())
    }

    /// The profile's name: 16 hexadecimal digits of its contents' SHA-256.
    #[getter]
    fn id(&self) -> String {
        self.0.id().to_string()
    }

    /// Number of levels.
    #[getter]
    fn levels(&self) -> u16 {
        self.0.affine().levels()
    }

    /// Distance between neighbouring levels, in the tensor's unit.
    #[getter]
    fn step(&self) -> f32 {
        self.0.affine().step()
    }

    /// The symbol of the value zero; it may lie outside the levels.
    #[getter]
    fn zero(&self) -> i32 {
        self.0.affine().zero()
    }

    /// The axis that holds the channels.
    #[getter]
    fn axis(&self) -> usize {
        self.0.axis()
    }

    /// Number of frequency tables.
    #[getter]
    fn tables(&self) -> usize {
        self.0.tables()
    }

    fn __repr__(&self) -> String {
        let profile = &self.0;
        format!("<narrows.Profile {}: {} levels, {} tables>", profile.id(), self.levels(), profile.tables())
    }

    fn __hash__(&self) -> u64 {
        u64::from_le_bytes(self.0.id().0)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let from_bytes = slf.get_type().getattr("from_bytes")?;
        let data = (slf.get().to_bytes(py),).into_pyobject(py)?;
        (from_bytes, data).into_pyobject(py)
    }
}

/// The profiles of an iterable, for a decoder.
pub(crate) fn collect(profiles: Option<&Bound<'_, PyAny>>) -> PyResult<Profiles> {
    let mut known = Profiles::default();
    if let Some(profiles) = profiles {
        for profile in profiles.try_iter()? {
            known.insert(Arc::clone(&profile?.cast::<Profile>()?.get().0));
        }
    }
    Ok(known)
}
