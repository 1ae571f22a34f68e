"""Split a torchvision model in two, with the codec between the halves and then a real socket.

    python split_vision.py [--model resnet18] [--at layer2] [--weights]

Without --weights the network has random ones, and nothing is downloaded; rates are then those of noise.
"""

from __future__ import annotations

import argparse

import narrows
import narrows.torch
import numpy
import torch
from narrows.client import Client
from narrows.server import Server
from torch import nn


def network(name: str, weights: bool) -> nn.Module:
    """A torchvision model, or a small residual one where torchvision is not installed."""
    try:
        import torchvision
    except ImportError:
        print("torchvision is not installed: a small network stands in")
        return Small()
    model: nn.Module = torchvision.models.get_model(name, weights="DEFAULT" if weights else None)
    return model


class Small(nn.Module):
    """Three layers with the names of a ResNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, 32, 7, stride=4, padding=3), nn.BatchNorm2d(32), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU())
        self.fc = nn.Linear(64, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of images."""
        y: torch.Tensor = self.fc(self.layer2(self.layer1(x)).mean((2, 3)))
        return y


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--at", default="layer2", help="submodule after which to cut (default: layer2)")
    parser.add_argument("--weights", action="store_true", help="download trained weights")
    args = parser.parse_args(argv)

    torch.manual_seed(0)
    model = network(args.model, args.weights).eval()
    image = torch.rand(1, 3, 224, 224)
    head, tail = narrows.torch.split(model, at=args.at, example_inputs=(image,))

    with torch.no_grad():
        features, expected = head(image), model(image)
        print(f"{args.at}: {tuple(features.shape)}, {features.numel() * 4:,} bytes uncompressed")
        for bits in (2, 3, 4, 6, 8):
            codec = narrows.torch.Codec(bits)
            error = (tail(codec(features)) - expected).abs().max() / expected.abs().max()
            print(f"  {bits} bits: {codec.rate.bytes_per_tensor:9,.0f} bytes, {codec.rate.ratio:5.1f} x smaller, "
                  f"logits off by {error:.2%}")

    def run_tail(array: numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.float32]]) -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = tail(torch.from_numpy(array))
        return logits

    with Server({args.at: run_tail}) as server, Client(server.address, bits=4) as client:
        logits = client.run(args.at, features)
        print(f"over a socket at {server.address}: class {int(logits.argmax())}, unsplit {int(expected.argmax())}")


if __name__ == "__main__":
    main()
