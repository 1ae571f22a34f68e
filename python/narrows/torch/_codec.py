"""The codec as a module, and a meter for its rate."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from narrows import Profile
from narrows.errors import OptionError

from . import _ops


class RateMeter(nn.Module):
    """Adds up the real bytes of frames.

    Its sums are buffers (int64 scalars), so that it works inside ``torch.compile``; they are not saved with a model.

    >>> meter = RateMeter()
    >>> meter.add(torch.zeros(4, 8, 8), 64)
    >>> meter.bits_per_element, meter.ratio
    (2.0, 16.0)
    """

    total_bytes: Tensor
    total_elements: Tensor
    total_raw_bytes: Tensor
    tensors: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total_bytes", "total_elements", "total_raw_bytes", "tensors"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def add(self, x: Tensor, size: Tensor | int) -> None:
        """Count a tensor.

        Args:
            x: the tensor.
            size: bytes of its frame.
        """
        self.total_bytes += size
        self.total_elements += x.numel()
        self.total_raw_bytes += x.numel() * x.element_size()
        self.tensors += 1

    def reset(self) -> None:
        """Begin again at zero."""
        for total in (self.total_bytes, self.total_elements, self.total_raw_bytes, self.tensors):
            total.zero_()

    @property
    def bits_per_element(self) -> float:
        """Bits of the frames for each element, headers and all; 0 before the first tensor."""
        return 8 * int(self.total_bytes) / max(int(self.total_elements), 1)

    @property
    def bytes_per_tensor(self) -> float:
        """Mean bytes of a frame; 0 before the first tensor."""
        return int(self.total_bytes) / max(int(self.tensors), 1)

    @property
    def ratio(self) -> float:
        """How many times smaller than the elements the frames are."""
        return int(self.total_raw_bytes) / max(int(self.total_bytes), 1)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"{int(self.tensors)} tensors, {self.bits_per_element:.3f} bits/element"


class Codec(nn.Module):
    """Encode and decode in a forward pass: what comes out is what the other end of the link would get.

    The gradient goes straight through, so that a network can be fine-tuned around it.

    Args:
        bits: log2 of the number of levels, 1 to 8.
        quantizer: "aiq", "per-channel" or "lossless".
        clip: None for the full range, a percentile such as 99.9, or "mse".
        layout, target, axis: as of :func:`narrows.encode`.
        profile: calibrated parameters, instead of ``bits``, ``quantizer`` and ``clip``.
        per_sample: code each tensor of a batch (axis 0) by itself, as a device would send them; their shape is then
            the input's without axis 0. Else the batch is one tensor.

    Shape:
        Any of rank 1 to 8 (2 to 9 with ``per_sample``), float32, float16 or bfloat16; the output is the same.

    Raises (from ``forward``):
        DeviceError: the tensor is neither on the CPU nor on an NVIDIA GPU, or the GPU does not offer the options (it has
            "aiq" over the full range, and profiles).
        NonFiniteError, ShapeError, ArrayError: as of :func:`narrows.encode`.

    >>> codec = Codec(bits=4, per_sample=True)
    >>> x = torch.rand(2, 8, 7, 7, requires_grad=True)
    >>> y = codec(x)
    >>> y.shape == x.shape, bool((y - x).abs().max() < 1 / 15)
    (True, True)
    >>> y.sum().backward(); bool((x.grad == 1).all())
    True
    >>> 0 < codec.rate.bits_per_element < 8
    True
    """

    rate: RateMeter

    def __init__(
        self,
        bits: int = 4,
        *,
        quantizer: Literal["aiq", "per-channel", "lossless"] = "aiq",
        clip: float | Literal["mse"] | None = None,
        layout: Literal["auto", "natural", "planes", "csr", "csr-exhaustive", "csr-separate"] = "auto",
        target: Literal["size", "latency", "speed"] = "size",
        axis: int | None = None,
        profile: Profile | None = None,
        per_sample: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= bits <= 8:
            raise OptionError(f"option bits is {bits}, allowed is 1 to 8")
        self.bits, self.quantizer, self.clip, self.layout = bits, quantizer, clip, layout
        self.target, self.axis, self.per_sample = target, axis, per_sample
        self.profile = "" if profile is None else _ops.register(profile)
        self.rate = RateMeter()

    def forward(self, x: Tensor) -> Tensor:
        """``x`` after encoding and decoding.

        Raises:
            DeviceError, NonFiniteError, ShapeError, ArrayError: see the class.
        """
        if self.per_sample:
            if x.shape[0] == 0:
                return x
            return torch.stack([self._round_trip(sample) for sample in x.unbind()])
        return self._round_trip(x)

    def _round_trip(self, x: Tensor) -> Tensor:
        clip = -1.0 if self.clip == "mse" else self.clip
        y, size = torch.ops.narrows.round_trip(
            x, self.bits, self.quantizer, clip, self.layout, self.target, self.axis, self.profile
        )
        self.rate.add(x, size)
        result: Tensor = y
        return result

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        if self.profile:
            return f"profile={self.profile}"
        return f"bits={self.bits}, quantizer={self.quantizer}, clip={self.clip}"
