"""Accuracy of image classifiers with the codec between their halves: against Q, the cut, and the network.

    python vision.py bits     --data imagenet/val [--network resnet34] [--at layer2]
    python vision.py cuts     --data imagenet/val [--network resnet34]
    python vision.py networks --data imagenet/val
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from narrows.torch import Codec, split
from table import show
from torch import Tensor, nn

#: The networks of the reference work, and where each is cut.
NETWORKS = {
    "resnet34": "layer2",
    "resnet50": "layer2",
    "vgg16": "features.16",
    "mobilenet_v2": "features.6",
    "swin_t": "features.3",
    "densenet121": "features.transition1",
    "efficientnet_b0": "features.3",
}

#: Cuts of a ResNet, from the input on.
CUTS = ("maxpool", "layer1", "layer2", "layer3", "layer4")

METHODS: dict[str, dict[str, Any]] = {
    "reference": {"layout": "csr"},
    "narrows": {},
    "narrows, clipped": {"clip": 99.9},
}

Batches = Iterable[tuple[Tensor, Tensor]]


def imagenet(folder: str, network: str, images: int | None, batch: int) -> Batches:
    """ImageNet's validation images (a folder for each class), as the network's weights want them."""
    import torchvision
    from torch.utils.data import DataLoader, Subset

    weights = torchvision.models.get_model_weights(network).DEFAULT
    data: Any = torchvision.datasets.ImageFolder(folder, weights.transforms())
    if images is not None:
        step = max(len(data) // images, 1)
        data = Subset(data, range(0, len(data), step)[:images])
    return DataLoader(data, batch_size=batch, num_workers=4)


def trained(network: str) -> nn.Module:
    """The network with the weights that torchvision has for it."""
    import torchvision

    model: nn.Module = torchvision.models.get_model(network, weights="DEFAULT")
    return model.eval()


@torch.no_grad()
def measure(model: nn.Module, at: str, batches: Batches, codecs: dict[str, Codec]) -> list[dict[str, Any]]:
    """Top-1 in percent without a codec and with each, and what it sent; every image is a tensor of its own."""
    right = dict.fromkeys(["none", *codecs], 0)
    count, raw = 0, 0
    halves: tuple[nn.Module, nn.Module] | None = None
    for images, labels in batches:
        if halves is None:
            halves = split(model, at, (images[:1],))
        head, tail = halves
        crossing = head(images)
        features, *others = crossing if isinstance(crossing, tuple) else (crossing,)
        raw = features[0].numel() * features.element_size()
        count += len(labels)
        right["none"] += int((tail(features, *others).argmax(1) == labels).sum())
        for name, codec in codecs.items():
            right[name] += int((tail(codec(features), *others).argmax(1) == labels).sum())
    count = max(count, 1)
    rows = [{"method": "none", "Q": "", "top-1 %": 100 * right["none"] / count, "bytes": float(raw), "ratio": 1.0}]
    for name, codec in codecs.items():
        rows.append({
            "method": name.rpartition(" ")[0], "Q": codec.bits, "top-1 %": 100 * right[name] / count,
            "bytes": codec.rate.bytes_per_tensor, "ratio": codec.rate.ratio,
        })
    return rows


def codecs(bits: Sequence[int]) -> dict[str, Codec]:
    """Each method at each number of bits."""
    return {
        f"{method} {q}": Codec(q, per_sample=True, **options) for q in bits for method, options in METHODS.items()
    }


def bits_table(model: nn.Module, at: str, batches: Batches, bits: Sequence[int] = range(2, 9)) -> list[dict[str, Any]]:
    """Accuracy and bytes against Q."""
    return measure(model, at, batches, codecs(bits))


def cuts_table(model: nn.Module, batches: Batches, cuts: Sequence[str] = CUTS, q: int = 4) -> list[dict[str, Any]]:
    """Accuracy and bytes against the cut."""
    return [{"cut": at} | row for at in cuts for row in measure(model, at, batches, codecs([q]))]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["bits", "cuts", "networks"])
    parser.add_argument("--data", required=True, help="validation images, a folder for each class")
    parser.add_argument("--network", default="resnet34", choices=sorted(NETWORKS))
    parser.add_argument("--at", help="submodule after which to cut (default: the reference work's)")
    parser.add_argument("--bits", type=int, default=4, help="Q of the tables cuts and networks (default: 4)")
    parser.add_argument("--images", type=int, help="so many, evenly spread (default: all)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)

    def batches(network: str) -> Batches:
        return imagenet(args.data, network, args.images, args.batch)

    at = args.at or NETWORKS[args.network]
    if args.table == "bits":
        rows = bits_table(trained(args.network), at, batches(args.network))
    elif args.table == "cuts":
        rows = cuts_table(trained(args.network), batches(args.network), q=args.bits)
    else:
        rows = []
        for network, at in NETWORKS.items():
            measured = measure(trained(network), at, batches(network), codecs([args.bits]))
            rows += [{"network": network, "cut": at} | row for row in measured]
    show(rows, args.json)


if __name__ == "__main__":
    main()
