"""ONNX models: where they can be cut, cutting them, running them.

Needs neither ``onnx`` nor ``onnxruntime``; models run on `tract <https://github.com/sonos/tract>`_.

.. code-block:: python

    for cut in narrows.onnx.cuts("model.onnx"):
        print(cut.name, cut.shape, cut.bytes)
    head, tail = narrows.onnx.split("model.onnx", at="layer2")
    features = narrows.onnx.Engine(head).run(image)
"""

from ._narrows import Cut, Engine, cuts, split

__all__ = ["Cut", "Engine", "cuts", "split"]
