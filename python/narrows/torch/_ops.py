"""The codec as operators of PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import narrows
from narrows import Profile
from narrows.errors import ArrayError, DeviceError, OptionError

if TYPE_CHECKING:
    from typing_extensions import Buffer

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
DEVICES = ("cpu", "cuda")

#: Profiles by name, for operators: they take no Python objects.
_profiles: dict[str, Profile] = {}


def register(profile: Profile) -> str:
    """Let operators find a profile; returns its name."""
    _profiles[profile.id] = profile
    return profile.id


def _profile(name: str) -> Profile | None:
    if not name:
        return None
    try:
        return _profiles[name]
    except KeyError:
        raise OptionError(f"no profile {name} is registered in this process") from None


def readable(tensor: Tensor) -> Tensor:
    """The tensor, if the codec can look at its memory, without its gradient.

    Raises:
        DeviceError: it lies neither in the CPU's memory nor on an NVIDIA GPU.
        ArrayError: it is sparse, or its elements are of another type.
    """
    if tensor.device.type not in DEVICES:
        raise DeviceError(f"the tensor is on {tensor.device}; narrows codes tensors on CPUs and NVIDIA GPUs: try .cpu()")
    if tensor.layout != torch.strided:
        raise ArrayError(f"the tensor's layout is {tensor.layout}, needed is torch.strided; call .to_dense()")
    if tensor.dtype not in DTYPES.values():
        raise ArrayError(f"the tensor holds {tensor.dtype}; needed is float32, float16 or bfloat16")
    return tensor.detach().resolve_neg()


def memory(tensor: Tensor) -> Any:
    """The tensor's memory, as the codec takes it.

    NumPy's is found faster than DLPack's, but has no bfloat16 and no GPU.
    """
    tensor = readable(tensor)
    return tensor.numpy() if tensor.device.type == "cpu" and tensor.dtype != torch.bfloat16 else tensor


def elements(tensor: Tensor) -> Any:
    """The same of a tensor that is only read: kernels of a GPU want its elements in a row, from a multiple of 4 bytes."""
    tensor = readable(tensor)
    if tensor.device.type == "cuda":
        tensor = tensor.contiguous()
        if tensor.data_ptr() % 4 != 0:
            tensor = tensor.clone()
    return memory(tensor)


def current(tensor: Tensor) -> AbstractContextManager[Any]:
    """While the tensor's GPU is the current one, PyTorch makes others wait for what it does there, and not elsewhere."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def encode(tensor: Tensor, bits: int = 4, **options: Any) -> bytes:
    """Encode a tensor into a frame.

    Args:
        tensor: float32, float16 or bfloat16 of rank 1 to 8 and any strides, on the CPU or an NVIDIA GPU, where it is
            encoded then; gradients are not followed.
        bits: log2 of the number of levels, 1 to 8.
        options: as of :func:`narrows.encode`. GPUs offer ``quantizer="aiq"`` over the full range, and profiles.

    Returns:
        The frame, in the CPU's memory.

    Raises:
        DeviceError: the tensor is elsewhere, or the GPU cannot be used or does not offer the options.
        NarrowsError: as of :func:`narrows.encode`.

    >>> import torch, narrows.torch
    >>> frame = narrows.torch.encode(torch.linspace(0, 1, 256).reshape(4, 8, 8), bits=8)
    >>> narrows.torch.decode(frame).shape
    torch.Size([4, 8, 8])
    """
    with current(tensor):
        return narrows.encode(elements(tensor), bits, **options)


def decode(
    frame: Buffer, *, out: Tensor | None = None, profiles: Iterable[Profile] = (), max_elements: int | None = None
) -> Tensor:
    """Decode a frame into a tensor of its own element type, on the CPU or where ``out`` is.

    Args:
        frame: the bytes.
        out: a contiguous tensor of the frame's shape and element type to decode into, on the CPU or an NVIDIA GPU.
        profiles: the profiles that the frame may name.
        max_elements: the most elements to take memory for.

    Returns:
        ``out``, or a new tensor.

    Raises:
        DeviceError: ``out`` is on a device that cannot be used.
        NarrowsError: as of :func:`narrows.decode`.

    >>> import torch, narrows.torch
    >>> frame = narrows.torch.encode(torch.ones(2, 3, dtype=torch.bfloat16))
    >>> narrows.torch.decode(frame, out=torch.empty(2, 3, dtype=torch.bfloat16)).sum()
    tensor(6., dtype=torch.bfloat16)
    """
    options: dict[str, Any] = {"profiles": profiles, "max_elements": max_elements}
    if not profiles and max_elements is None:
        options = {}
    if out is not None:
        with current(out):
            narrows.decode(frame, out=memory(out), **options)
        return out
    header = narrows.peek(frame)
    if header.dtype != "bf16":
        return torch.from_numpy(narrows.decode(frame, **options))
    array = narrows.decode(frame, **options)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view("uint16")).view(torch.bfloat16)
    return torch.from_numpy(array).to(torch.bfloat16)


@torch.library.custom_op("narrows::encode", mutates_args=(), device_types=DEVICES)
def _encode(
    x: Tensor, bits: int, quantizer: str, clip: float | None, layout: str, target: str, axis: int | None, profile: str
) -> Tensor:
    """A frame, as a one-dimensional tensor of bytes on the CPU."""
    known = _profile(profile)
    frame = encode(
        x, bits, quantizer=quantizer, clip=_clip(clip), layout=layout, target=target, axis=axis, profile=known
    )
    return torch.frombuffer(bytearray(frame), dtype=torch.uint8)


def _clip(clip: float | None) -> Any:
    """Operators take numbers: below zero stands for least squared error."""
    return "mse" if clip is not None and clip < 0 else clip


@_encode.register_fake
def _(
    x: Tensor, bits: int, quantizer: str, clip: float | None, layout: str, target: str, axis: int | None, profile: str
) -> Tensor:
    # How many bytes is known when the values are.
    length = torch.library.get_ctx().new_dynamic_size()
    return x.new_empty([length], dtype=torch.uint8, device="cpu")


@torch.library.custom_op("narrows::decode", mutates_args=(), device_types="cpu")
def _decode(
    frame: Tensor, shape: Sequence[int], dtype: torch.dtype, profile: str, device: torch.device | None = None
) -> Tensor:
    """The tensor inside a frame, which has this shape and element type, on this device."""
    known = _profile(profile)
    out = torch.empty(list(shape), dtype=dtype, device=device)
    data: Any = frame.contiguous().numpy()
    decode(data, out=out, profiles=[known] if known is not None else ())
    return out


@_decode.register_fake
def _(
    frame: Tensor, shape: Sequence[int], dtype: torch.dtype, profile: str, device: torch.device | None = None
) -> Tensor:
    return frame.new_empty(list(shape), dtype=dtype, device=device)


@torch.library.custom_op("narrows::round_trip", mutates_args=(), device_types=DEVICES)
def _round_trip(
    x: Tensor, bits: int, quantizer: str, clip: float | None, layout: str, target: str, axis: int | None, profile: str
) -> tuple[Tensor, Tensor]:
    """What the other end of the link gets, and the bytes it took (an int64 scalar on the CPU)."""
    known = _profile(profile)
    frame = encode(
        x, bits, quantizer=quantizer, clip=_clip(clip), layout=layout, target=target, axis=axis, profile=known
    )
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    decode(frame, out=out, profiles=[known] if known is not None else ())
    return out, torch.tensor(len(frame), dtype=torch.int64)


@_round_trip.register_fake
def _(
    x: Tensor, bits: int, quantizer: str, clip: float | None, layout: str, target: str, axis: int | None, profile: str
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty((), dtype=torch.int64, device="cpu")


def _straight_through(ctx: Any, gradient: Tensor, _size: Tensor) -> tuple[Tensor | None, ...]:
    return gradient, None, None, None, None, None, None, None


torch.library.register_autograd("narrows::round_trip", _straight_through)

round_trip = torch.ops.narrows.round_trip
