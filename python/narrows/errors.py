"""What can go wrong, as exceptions to act upon.

Every exception of this package is a :class:`NarrowsError`; most are a builtin exception too, so that
``except ValueError`` and its like do what one expects. Messages say what was wrong, where, and the bound.
"""

from __future__ import annotations

__all__ = [
    "ArrayError",
    "ChecksumError",
    "DeadlineError",
    "DeviceError",
    "FrameError",
    "LimitError",
    "LinkError",
    "ModelError",
    "NarrowsError",
    "NonFiniteError",
    "OptionError",
    "ProfileError",
    "RefusedError",
    "ShapeError",
    "TruncatedError",
    "UnknownProfileError",
    "UnsupportedError",
]


class NarrowsError(Exception):
    """The root of all exceptions of this package."""


class FrameError(NarrowsError, ValueError):
    """The bytes are not a frame (or a profile) as its writer wrote it."""


class TruncatedError(FrameError):
    """The bytes end before a field does: a part is missing."""

    #: Byte at which the field starts.
    offset: int
    #: Bytes it needs.
    needed: int
    #: Bytes that are left there.
    available: int


class ChecksumError(FrameError):
    """The bytes changed on their way: CRC-32C differs."""

    #: The checksum in the last four bytes.
    stored: int
    #: The checksum of the bytes before them.
    computed: int


class UnsupportedError(FrameError):
    """A later version of the format, or a feature of it, that this version does not know."""


class LimitError(NarrowsError, ValueError):
    """A size is above the limit; no memory was taken for it."""

    #: The size found.
    value: int
    #: The limit.
    limit: int


class ProfileError(NarrowsError, ValueError):
    """A tensor, or a frame, that the profile was not made for."""

    #: The profile's name, 16 hexadecimal digits.
    profile: str


class UnknownProfileError(ProfileError, LookupError):
    """The frame was coded with a profile that the decoder was not given."""


class NonFiniteError(NarrowsError, ValueError):
    """NaN or infinity, which only ``quantizer="lossless"`` carries."""

    #: Index of the first such element, in row-major order.
    index: int
    #: Its value.
    value: float


class ShapeError(NarrowsError, ValueError):
    """A shape that is not one (rank 1 to 8), or does not match."""


class OptionError(NarrowsError, ValueError):
    """An option outside its range."""


class ArrayError(NarrowsError, TypeError):
    """Not an array that can be read or written: its kind, element type, byte order or place."""


class DeviceError(NarrowsError, RuntimeError):
    """A GPU is needed and cannot be used."""


class ModelError(NarrowsError, ValueError):
    """An ONNX model that cannot be read, cut or run."""


class LinkError(NarrowsError, ConnectionError):
    """The other end of the link cannot be reached, or does not keep to the protocol."""


class DeadlineError(LinkError, TimeoutError):
    """The answer did not come in time."""


class RefusedError(LinkError):
    """The other end answered with a failure."""

    #: The failure's code: ``busy``, ``no-such-route``, ``bad-frame``, ``tail-failed``, ...
    code: str
    #: What the other end said.
    text: str
