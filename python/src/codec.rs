//! Encoding and decoding.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use narrows::{EncodeOptions, Error, Estimate, Limits, ProfileId, Tensor, TensorView};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::array::{Array, Seen, WithTensor, with_tensor};
use crate::cuda;
use crate::failure;
use crate::frame::{Bytes, Header, Plan};
use crate::numpy;
use crate::options::{ClipArgument, Words, wants_snapshot};
use crate::profile::{self, Profile};

/// The most elements of a tensor whose buffers `encode` and `decode` keep for the thread's next call.
const KEPT_ELEMENTS: usize = 1 << 22;

/// An encoder and the frame it made last.
struct Reused {
    encoder: narrows::Encoder,
    frame: Vec<u8>,
}

/// A decoder and the tensor it decodes into, whose memory stays here if the values are copied into somebody's `out`.
struct Decoding {
    decoder: narrows::Decoder,
    tensor: Tensor,
}

thread_local! {
    /// The encoder of the thread's last `encode`, with the frame's buffer.
    static LAST_ENCODER: RefCell<Option<Box<Reused>>> = const { RefCell::new(None) };
    static LAST_DECODER: RefCell<Option<Box<Decoding>>> = const { RefCell::new(None) };
}

/// Whether an encoder with these options does what one with those does.
pub(crate) fn same(a: &EncodeOptions, b: &EncodeOptions) -> bool {
    let id = |options: &EncodeOptions| -> Option<ProfileId> { options.profile.as_ref().map(|p| p.id()) };
    a.quantizer == b.quantizer
        && a.layout == b.layout
        && a.coder == b.coder
        && a.target == b.target
        && a.axis == b.axis
        && id(a) == id(b)
}

/// Encode with an encoder that is made for the purpose unless the last one will do; the frame is left in the buffer.
struct EncodeOnce(EncodeOptions);

impl WithTensor for EncodeOnce {
    type Output = Result<Box<Reused>, Error>;
    fn with(self, tensor: &TensorView<'_>) -> Self::Output {
        let last = LAST_ENCODER.take().filter(|last| same(last.encoder.options(), &self.0));
        let mut reused = match last {
            Some(last) => last,
            None => Box::new(Reused { encoder: narrows::Encoder::new(self.0)?, frame: Vec::new() }),
        };
        let Reused { encoder, frame } = &mut *reused;
        encoder.encode_into(tensor, frame)?;
        Ok(reused)
    }
}

/// Encode an array into a frame: one self-describing tensor with a checksum.
///
/// Args:
///     array: float32, float16 or bfloat16, of rank 1 to 8 and any strides: NumPy, or anything with the buffer protocol
///         or DLPack. Contiguous arrays are read where they lie. Arrays on an NVIDIA GPU have to be contiguous and are
///         encoded there, with "aiq" over the full range or a profile, and rANS.
///     bits: quantise to 2**bits levels, 1 to 8; ignored if lossless or with a profile.
///     quantizer: "aiq" (one range for the tensor), "per-channel", or "lossless" (every bit, NaN included).
///     clip: the range that the levels span: None for all of it, a percentile such as 99.9, or "mse".
///     layout: "auto" for the smallest, "natural", "planes", "csr" (the reference method), "csr-exhaustive",
///         "csr-separate".
///     coder: "auto", "packed", "rans", "tans" or "tans:STATES".
///     target: "size", "latency" (up to 2.5 % more bytes) or "speed".
///     axis: the axis that holds the channels; None: 0 for rank 1 and 3, else 1.
///     profile: calibrated parameters; the frame names them instead of carrying tables.
///
/// Returns:
///     The frame; never larger than its header and the elements.
///
/// Raises:
///     ArrayError: not an array, or of another element type.
///     NonFiniteError: NaN or infinity, unless lossless.
///     ShapeError: rank 0 or above 8, or no such axis.
///     OptionError: an option outside its range.
///     DeviceError: the array is on a GPU, and that cannot be used or does not offer the options.
///
/// >>> import numpy, narrows
/// >>> features = numpy.maximum(numpy.sin(numpy.arange(64 * 14 * 14, dtype="f4")), 0).reshape(64, 14, 14)
/// >>> frame = narrows.encode(features, bits=4)
/// >>> len(frame) < features.nbytes / 8
/// True
#[pyfunction]
#[pyo3(signature = (array, bits=4, *, quantizer="aiq", clip=None, layout="auto", coder="auto", target="size", axis=None, profile=None))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments")]
pub(crate) fn encode<'py>(
    py: Python<'py>,
    array: &Bound<'py, PyAny>,
    bits: i64,
    quantizer: &str,
    clip: Option<ClipArgument>,
    layout: &str,
    coder: &str,
    target: &str,
    axis: Option<usize>,
    profile: Option<&Bound<'py, Profile>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let words = Words { bits, quantizer, clip, layout, coder, target, axis, profile };
    let options = words.options(py)?;
    let array = match Array::see(array)? {
        Seen::Host(array) => array,
        Seen::Device(array) => return cuda::encode(py, &array, &options),
    };
    let snapshot = wants_snapshot(&options);
    let reused = with_tensor(py, &array, snapshot, EncodeOnce(options))?
        .map_err(|error| failure::codec(py, &error))?;
    let bytes = PyBytes::new(py, &reused.frame);
    if array.shape().elements() <= KEPT_ELEMENTS {
        LAST_ENCODER.set(Some(reused));
    }
    Ok(bytes)
}

/// Decode a frame into an array.
///
/// Args:
///     frame: bytes, or anything that holds bytes. Any bytes are safe.
///     out: a writable, contiguous array of the frame's element type and shape to decode into: NumPy, or anything with
///         the buffer protocol or DLPack. If it lies on an NVIDIA GPU, the frame is decoded there.
///     profiles: the profiles that the frame may name.
///     max_elements: the most elements to take memory for (about 6 bytes each).
///
/// Returns:
///     `out` if it was given, else a NumPy array (bfloat16 of `ml_dtypes` where that is installed; without it, the same
///     values as float32).
///
/// Raises:
///     FrameError: the bytes are not a frame as its writer wrote it (ChecksumError, TruncatedError, UnsupportedError).
///     LimitError: the tensor is larger than `max_elements`.
///     UnknownProfileError: the frame names a profile that is not in `profiles`.
///     ArrayError, ShapeError: `out` does not fit.
///     DeviceError: `out` is on a GPU that cannot be used.
///
/// After an exception `out` is as it was; if it lies on a GPU, its elements are unspecified.
///
/// >>> import numpy, narrows
/// >>> frame = narrows.encode(numpy.linspace(0, 1, 12, dtype="f4").reshape(3, 4), bits=8)
/// >>> narrows.decode(frame).shape
/// (3, 4)
#[pyfunction]
#[pyo3(signature = (frame: "typing_extensions.Buffer", *, out=None, profiles: "collections.abc.Iterable[Profile] | None"=None, max_elements=None))]
pub(crate) fn decode<'py>(
    py: Python<'py>,
    frame: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    profiles: Option<&Bound<'py, PyAny>>,
    max_elements: Option<u64>,
) -> PyResult<Bound<'py, PyAny>> {
    let bytes = Bytes::of(frame)?;
    let host = match out.map(Array::see).transpose()? {
        Some(Seen::Device(array)) => {
            let (profiles, limits) = (profile::collect(profiles)?, limits(max_elements));
            cuda::decode_into(py, bytes.get(py), &array, profiles, limits)?;
            return Ok(array.into_object());
        }
        Some(Seen::Host(array)) => Some(array),
        None => None,
    };
    let plain = profiles.is_none() && max_elements.is_none();
    let mut decoding = match plain.then(|| LAST_DECODER.take()).flatten() {
        Some(decoding) => decoding,
        None => Box::new(decoding_of(profiles, limits(max_elements))?),
    };
    let Decoding { decoder, tensor } = &mut *decoding;
    let frame = bytes.get(py);
    py.detach(|| decoder.decode_into(frame, tensor)).map_err(|error| failure::codec(py, &error))?;
    let small = tensor.shape().elements() <= KEPT_ELEMENTS;
    let decoded = hand_out(py, tensor, out.zip(host.as_ref()));
    if plain && small {
        LAST_DECODER.set(Some(decoding));
    }
    decoded
}

/// The tensor's values in the array that was given for them, or else the tensor itself as an array.
fn hand_out<'py>(
    py: Python<'py>,
    tensor: &mut Tensor,
    out: Option<(&Bound<'py, PyAny>, &Array)>,
) -> PyResult<Bound<'py, PyAny>> {
    match out {
        Some((object, array)) => {
            numpy::copy_out(py, tensor, array)?;
            Ok(object.clone())
        }
        None => numpy::array(py, std::mem::take(tensor)),
    }
}

fn limits(max_elements: Option<u64>) -> Limits {
    max_elements.map_or_else(Limits::default, |max_elements| Limits { max_elements })
}

fn decoding_of(profiles: Option<&Bound<'_, PyAny>>, limits: Limits) -> PyResult<Decoding> {
    let decoder = narrows::Decoder::new().with_limits(limits).with_profiles(profile::collect(profiles)?);
    Ok(Decoding { decoder, tensor: Tensor::default() })
}

/// What a frame's header says, from its first bytes; the checksum is not looked at.
///
/// Raises:
///     FrameError: the bytes are not a frame's.
///
/// >>> import numpy, narrows
/// >>> narrows.peek(narrows.encode(numpy.ones((2, 3), "f4"))).shape
/// (2, 3)
#[pyfunction]
#[pyo3(signature = (frame: "typing_extensions.Buffer"))]
pub(crate) fn peek(py: Python<'_>, frame: &Bound<'_, PyAny>) -> PyResult<Header> {
    let bytes = Bytes::of(frame)?;
    narrows::peek(bytes.get(py)).map(Header).map_err(|error| failure::codec(py, &error))
}

struct EstimateOnce(EncodeOptions);

impl WithTensor for EstimateOnce {
    type Output = Result<Estimate, Error>;
    fn with(self, tensor: &TensorView<'_>) -> Self::Output {
        narrows::Encoder::new(self.0)?.estimate(tensor)
    }
}

/// What `encode` with the same arguments would make of an array, without coding a symbol.
///
/// Raises:
///     As `encode`.
///
/// >>> import numpy, narrows
/// >>> ramp = numpy.linspace(0, 1, 64 * 28 * 28, dtype="f4").reshape(64, 28, 28)
/// >>> narrows.plan(ramp, bits=2).bytes < narrows.plan(ramp, bits=6).bytes
/// True
#[pyfunction]
#[pyo3(signature = (array, bits=4, *, quantizer="aiq", clip=None, layout="auto", coder="auto", target="size", axis=None, profile=None))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments")]
pub(crate) fn plan(
    py: Python<'_>,
    array: &Bound<'_, PyAny>,
    bits: i64,
    quantizer: &str,
    clip: Option<ClipArgument>,
    layout: &str,
    coder: &str,
    target: &str,
    axis: Option<usize>,
    profile: Option<&Bound<'_, Profile>>,
) -> PyResult<Plan> {
    let words = Words { bits, quantizer, clip, layout, coder, target, axis, profile };
    let options = words.options(py)?;
    let array = Array::of(array)?;
    let snapshot = wants_snapshot(&options);
    let estimate = with_tensor(py, &array, snapshot, EstimateOnce(options))?
        .map_err(|error| failure::codec(py, &error))?;
    let elements = array.shape().elements();
    Ok(Plan::new(&estimate, elements, elements * array.dtype().size()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic left behind is overwritten by the next tensor.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An encoder that keeps its options and its buffers.
///
/// Takes the arguments of `encode`. Threads may share one; they take turns.
///
/// >>> import numpy, narrows
/// >>> encoder = narrows.Encoder(bits=3, clip=99.9)
/// >>> frames = [encoder.encode(numpy.full((4, 7, 7), k, "f4")) for k in range(3)]
#[pyclass(frozen, module = "narrows")]
pub(crate) struct Encoder {
    snapshot: bool,
    options: EncodeOptions,
    /// Boxed, because Python aligns its objects to 16 bytes and the encoder's vectors want 64.
    shared: Box<Mutex<Reused>>,
}

/// Encode with a shared encoder; its buffer comes out with the frame.
struct EncodeShared<'a>(&'a Mutex<Reused>);

impl WithTensor for EncodeShared<'_> {
    type Output = Result<Vec<u8>, Error>;
    fn with(self, tensor: &TensorView<'_>) -> Self::Output {
        let mut reused = lock(self.0);
        let Reused { encoder, frame } = &mut *reused;
        encoder.encode_into(tensor, frame)?;
        Ok(std::mem::take(frame))
    }
}

#[pymethods]
impl Encoder {
    #[new]
    #[pyo3(signature = (bits=4, *, quantizer="aiq", clip=None, layout="auto", coder="auto", target="size", axis=None, profile=None))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn new(
        py: Python<'_>,
        bits: i64,
        quantizer: &str,
        clip: Option<ClipArgument>,
        layout: &str,
        coder: &str,
        target: &str,
        axis: Option<usize>,
        profile: Option<&Bound<'_, Profile>>,
    ) -> PyResult<Self> {
        let words = Words { bits, quantizer, clip, layout, coder, target, axis, profile };
        let options = words.options(py)?;
        let snapshot = wants_snapshot(&options);
        let encoder = narrows::Encoder::new(options.clone()).map_err(|error| failure::codec(py, &error))?;
        let reused = Reused { encoder, frame: Vec::new() };
        Ok(Self { snapshot, options, shared: Box::new(Mutex::new(reused)) })
    }

    /// Encode an array into a frame.
    ///
    /// Raises:
    ///     As `narrows.encode`.
    fn encode<'py>(&self, py: Python<'py>, array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let array = match Array::see(array)? {
            Seen::Host(array) => array,
            Seen::Device(array) => return cuda::encode(py, &array, &self.options),
        };
        // The lock is taken, used and left without the GIL: nobody waits for one while holding the other.
        let frame = with_tensor(py, &array, self.snapshot, EncodeShared(&self.shared))?;
        let frame = frame.map_err(|error| failure::codec(py, &error))?;
        let bytes = PyBytes::new(py, &frame);
        // For the next call, unless it is at it already.
        if let Ok(mut reused) = self.shared.try_lock() {
            reused.frame = frame;
        }
        Ok(bytes)
    }
}

/// A decoder that keeps its profiles and its buffers.
///
/// Args:
///     profiles: the profiles that frames may name.
///     max_elements: the most elements to take memory for (about 6 bytes each).
///
/// Raises:
///     TypeError: something else than a profile.
///
/// Threads may share one; they take turns.
#[pyclass(frozen, module = "narrows")]
pub(crate) struct Decoder {
    limits: Limits,
    shared: Box<Mutex<Decoding>>,
}

const _: () = assert!(align_of::<Encoder>() <= 16 && align_of::<Decoder>() <= 16, "what Python aligns to");

#[pymethods]
impl Decoder {
    #[new]
    #[pyo3(signature = (*, profiles: "collections.abc.Iterable[Profile] | None"=None, max_elements=None))]
    fn new(profiles: Option<&Bound<'_, PyAny>>, max_elements: Option<u64>) -> PyResult<Self> {
        let limits = limits(max_elements);
        Ok(Self { limits, shared: Box::new(Mutex::new(decoding_of(profiles, limits)?)) })
    }

    /// Decode a frame into `out`, or into a new NumPy array.
    ///
    /// Raises:
    ///     As `narrows.decode`.
    #[pyo3(signature = (frame: "typing_extensions.Buffer", *, out=None))]
    fn decode<'py>(
        &self,
        py: Python<'py>,
        frame: &Bound<'py, PyAny>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let bytes = Bytes::of(frame)?;
        let bytes = bytes.get(py);
        let host = match out.map(Array::see).transpose()? {
            Some(Seen::Device(array)) => {
                let profiles = py.detach(|| lock(&self.shared).decoder.profiles_mut().clone());
                cuda::decode_into(py, bytes, &array, profiles, self.limits)?;
                return Ok(array.into_object());
            }
            Some(Seen::Host(array)) => Some(array),
            None => None,
        };
        let decode = || {
            let mut decoding = lock(&self.shared);
            let Decoding { decoder, tensor } = &mut *decoding;
            decoder.decode_into(bytes, tensor).map(|()| std::mem::take(tensor))
        };
        let mut tensor = py.detach(decode).map_err(|error| failure::codec(py, &error))?;
        let decoded = hand_out(py, &mut tensor, out.zip(host.as_ref()));
        // For the next call, unless it is at it already.
        if host.is_some()
            && let Ok(mut decoding) = self.shared.try_lock()
        {
            decoding.tensor = tensor;
        }
        decoded
    }

    /// Let frames name this profile too.
    fn add_profile(&self, py: Python<'_>, profile: &Bound<'_, Profile>) {
        let profile = profile.get().0.clone();
        py.detach(|| lock(&self.shared).decoder.profiles_mut().insert(profile));
    }
}
