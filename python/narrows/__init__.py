"""narrows squeezes neural-network tensors through narrow places.

>>> import numpy, narrows
>>> features = numpy.maximum(numpy.random.default_rng(0).normal(size=(64, 14, 14)), 0).astype("f4")
>>> frame = narrows.encode(features, bits=4)     # bytes: one self-describing tensor with a checksum
>>> restored = narrows.decode(frame)             # a NumPy array again
>>> restored.shape
(64, 14, 14)
>>> bool(abs(restored - features).max() <= features.max() / 15 / 2 * 1.001)  # half a step of 16 levels
True

- :func:`encode`, :func:`decode`, :func:`peek`, :func:`plan`; :class:`Encoder` and :class:`Decoder` keep their buffers
- :class:`Profile`: calibrated on samples, known to both ends
- :mod:`narrows.torch`: split a module, put the codec into its forward pass, compile it
- :mod:`narrows.client`, :mod:`narrows.server`: the link between the halves, blocking and asyncio
- :mod:`narrows.onnx`: cut ONNX models
- :mod:`narrows.errors`: what can go wrong

The codec releases the GIL, works on free-threaded Python, and reads contiguous arrays where they lie.
"""

from ._narrows import (
    VERSION as __version__,
    Decoder,
    Encoder,
    Header,
    Plan,
    Profile,
    decode,
    encode,
    peek,
    plan,
)
from .errors import (
    ArrayError,
    ChecksumError,
    DeviceError,
    FrameError,
    LimitError,
    NarrowsError,
    NonFiniteError,
    OptionError,
    ProfileError,
    ShapeError,
    TruncatedError,
    UnknownProfileError,
    UnsupportedError,
)

__all__ = [
    "ArrayError",
    "ChecksumError",
    "Decoder",
    "DeviceError",
    "Encoder",
    "FrameError",
    "Header",
    "LimitError",
    "NarrowsError",
    "NonFiniteError",
    "OptionError",
    "Plan",
    "Profile",
    "ProfileError",
    "ShapeError",
    "TruncatedError",
    "UnknownProfileError",
    "UnsupportedError",
    "__version__",
    "decode",
    "encode",
    "peek",
    "plan",
]
