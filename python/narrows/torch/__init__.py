"""PyTorch: a network split in two, and the codec inside a forward pass.

.. code-block:: python

    head, tail = narrows.torch.split(model, at="layer2", example_inputs=(image,))
    codec = narrows.torch.Codec(bits=4)
    logits = tail(codec(head(image)))
    print(codec.rate)                          # real bytes

- :func:`split`: head and tail of any module, sharing its parameters
- :class:`Codec`: encode and decode in a forward pass, with a straight-through gradient; :class:`RateMeter`: real bytes
- :func:`encode`, :func:`decode`: tensors to frames and back, as ``bytes``
- ``torch.ops.narrows.encode``, ``decode`` and ``round_trip``: the same as operators that ``torch.compile`` takes
"""

from ._codec import Codec, RateMeter
from ._ops import decode, encode
from ._split import split

__all__ = ["Codec", "RateMeter", "decode", "encode", "split"]
