"""ONNX models: where they can be cut, cutting them, running them.

Needs neither ``onnx`` nor ``onnxruntime``; models run on `tract <https://github.com/sonos/tract>`_.

.. code-block:: python

    for cut in narrows.onnx.cuts("model.onnx"):
        print(cut.name, cut.shape, cut.bytes)
    head, tail = narrows.onnx.split("model.onnx", at="layer2")
    features = narrows.onnx.Engine(head).run(image)
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy

from ._narrows import Cut, _Engine, cuts, split
from .errors import ArrayError, ModelError

__all__ = ["Cut", "Engine", "Port", "cuts", "split"]


class Port(NamedTuple):
    """An input or output of a model."""

    #: Its name.
    name: str
    #: ``float32``, ``int64`` or ``bool``.
    dtype: str
    #: Axis lengths; a name for an open one, ``?`` if it has none.
    shape: tuple[int | str, ...]


def _port(port: tuple[str, str, list[str]]) -> Port:
    name, dtype, dims = port
    return Port(name, dtype, tuple(int(dim) if dim.isdigit() else dim for dim in dims))


class Engine:
    """A model ready to run on this machine's processor. Threads may share one, and run it at the same time.

    Args:
        model: path of an ONNX file, or its bytes.
        runtime: "tract"; "onnxruntime" if this build has it.

    Raises:
        ModelError: the model cannot be read or run, or there is no such runtime.
        OSError: the file cannot be read.
    """

    def __init__(self, model: str | os.PathLike[str] | bytes, *, runtime: str = "tract") -> None:
        self._engine = _Engine(model, runtime)
        self._inputs = [_port(port) for port in self._engine.inputs]
        self._outputs = [_port(port) for port in self._engine.outputs]

    @property
    def inputs(self) -> list[Port]:
        """What the model takes, in order."""
        return list(self._inputs)

    @property
    def outputs(self) -> list[Port]:
        """What the model gives, in order; the shape is empty where the file does not say it."""
        return list(self._outputs)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model once.

        Args:
            args: an array for each input, in order; converted to the input's element type where nothing is lost.
            kwargs: or by the inputs' names.

        Returns:
            A NumPy array, or a tuple of them if the model has several outputs.

        Raises:
            ModelError: inputs are missing, too many, or of another shape; or the run failed.
            ArrayError: an input of another element type.
        """
        outputs = self._engine.run([self._plain(port, value) for port, value in self._pairs(args, kwargs)])
        arrays = tuple(numpy.frombuffer(data, dtype).reshape(shape) for dtype, shape, data in outputs)
        return arrays[0] if len(arrays) == 1 else arrays

    def _pairs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[Port, Any]]:
        names = [port.name for port in self._inputs]
        given = dict(zip(names, args, strict=False)) | kwargs
        if len(args) + len(kwargs) != len(names) or set(given) != set(names):
            raise ModelError(f"the model takes {', '.join(names)}; given were {len(args)} and {list(kwargs)}")
        return [(port, given[port.name]) for port in self._inputs]

    @staticmethod
    def _plain(port: Port, value: Any) -> tuple[str, list[int], bytes]:
        array = numpy.asarray(value)
        try:
            array = array.astype(port.dtype, order="C", casting="same_kind", copy=False)
        except TypeError as error:
            raise ArrayError(f"input {port.name!r} is {port.dtype}, given was {array.dtype}") from error
        # A dimension in front, the batch, may be left out.
        if array.ndim + 1 == len(port.shape):
            array = array[None]
        return port.dtype, list(array.shape), array.tobytes()
