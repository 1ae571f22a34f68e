"""The demo network through the link: head here, tail behind a server, 1,000 test images of Fashion-MNIST.

    python fashion.py [--at layer2] [--images 1000]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import narrows
import numpy
from narrows.client import Client
from narrows.onnx import Engine, split
from narrows.server import Server
from table import show

FOLDER = Path(os.environ.get("NARROWS_REPOSITORY", Path(__file__).parents[2])) / "models/fashion-resnet"


def measure(at: str, images: int, bits: Sequence[int]) -> list[dict[str, Any]]:
    """Top-1 in percent and mean bytes of a request, at each number of bits."""
    data = numpy.load(FOLDER / "test-1000.npz")
    inputs = data["images"][:images, None, None].astype("f4") / 255
    labels = data["labels"][:images]
    head, tail = (Engine(half) for half in split(str(FOLDER / "model.onnx"), at))
    features = [head.run(image) for image in inputs]
    rows = []
    with Server({at: tail.run}) as server:
        for q in bits:
            encoder = narrows.Encoder(q)
            decoder = narrows.Decoder()
            right, sent = 0, 0
            with Client(server.address) as client:
                for x, label in zip(features, labels, strict=True):
                    answer = client.request(at, encoder.encode(x))
                    right += int(decoder.decode(answer.frame).argmax() == label)
                    sent += answer.bytes_sent
            rows.append({"cut": at, "Q": q, "top-1 %": 100 * right / len(labels), "bytes": sent / len(labels)})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", default="layer2")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--bits", type=int, nargs="+", default=[2, 3, 4, 6, 8])
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    show(measure(args.at, args.images, args.bits), args.json)


if __name__ == "__main__":
    main()
