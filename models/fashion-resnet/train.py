"""Train the demo network on Fashion-MNIST and export it to ONNX.

    python models/fashion-resnet/train.py            # about 15 minutes on two cores

Needs `torch`, `onnx` and `numpy`, and the Debian package `dataset-fashion-mnist`
(or the same four files elsewhere: `--data DIR`). Writes, beside this file:

    model.onnx       the trained network, batch normalisation folded into the convolutions;
                     input `image` (1x1x28x28, grey levels in 0..1), output `logits` (1x10),
                     cut points named `stem`, `layer1`, `layer2`, `layer3`
    test-1000.npz    the first 1,000 test images (`images`, u8 1000x28x28) and their
                     `labels` (u8), stored so that anyone can read them with NumPy
    training.json    the recipe's settings and the accuracy of every epoch

The network is a slim residual network: stem 32 channels at 28x28, then three residual
stages of one basic unit each (32 at 28x28, 64 at 14x14, 128 at 7x7), global average
pooling and a linear classifier; 306,720 weights.
"""

import argparse
import gzip
import json
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

HERE = pathlib.Path(__file__).parent
MEAN, DEVIATION = 0.2860, 0.3530


class Residual(nn.Module):
    """Two 3x3 convolutions with batch normalisation around a shortcut (He et al. 2016)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()
        )
        self.layer1 = Residual(32, 32, 1)
        self.layer2 = Residual(32, 64, 2)
        self.layer3 = Residual(64, 128, 2)
        self.classifier = nn.Linear(128, 10)

    def forward(self, image):
        x = self.stem((image - MEAN) / DEVIATION)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.classifier(x.mean((2, 3)))


def read_idx(path, offset):
    return np.frombuffer(gzip.open(path).read(), np.uint8, offset=offset)


def read_split(folder, name):
    images = read_idx(folder / f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    labels = read_idx(folder / f"{name}-labels-idx1-ubyte.gz", 8)
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.copy()).long()


def batches(images, labels, size, random):
    """Shuffled mini-batches, mirrored half of the time and shifted by up to two pixels."""
    order = torch.randperm(len(images), generator=random)
    for start in range(0, len(images) - size + 1, size):
        chosen = order[start : start + size]
        batch = images[chosen].float() / 255
        mirrored = torch.rand(size, generator=random) < 0.5
        batch[mirrored] = batch[mirrored].flip(3)
        dy, dx = torch.randint(0, 5, (2,), generator=random).tolist()
        batch = F.pad(batch, (2, 2, 2, 2))[:, :, dy : dy + 28, dx : dx + 28]
        yield batch.contiguous(memory_format=torch.channels_last), labels[chosen]


@torch.no_grad()
def accuracy(network, images, labels):
    network.eval()
    right = 0
    for start in range(0, len(images), 500):
        logits = network(images[start : start + 500].float() / 255)
        right += (logits.argmax(1) == labels[start : start + 500]).sum().item()
    return 100 * right / len(images)


def export(network, path):
    """Write the network as ONNX and give the cut points names a person can type."""
    import onnx

    network.eval()
    torch.onnx.export(
        network,
        (torch.zeros(1, 1, 28, 28),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        opset_version=17,
        dynamo=False,
    )
    model = onnx.load(str(path))
    relus = [node.output[0] for node in model.graph.node if node.op_type == "Relu"]
    # The ReLUs in order: stem, then two per residual stage, the second of which closes it.
    names = dict(zip([relus[0], relus[2], relus[4], relus[6]], ["stem", "layer1", "layer2", "layer3"]))
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=pathlib.Path, default="/usr/share/datasets/fashion-mnist")
    arguments.add_argument("--out", type=pathlib.Path, default=HERE)
    arguments.add_argument("--epochs", type=int, default=6)
    arguments.add_argument("--batch", type=int, default=128)
    arguments.add_argument("--rate", type=float, default=0.2, help="peak learning rate")
    arguments.add_argument("--seed", type=int, default=1)
    settings = arguments.parse_args()

    torch.manual_seed(settings.seed)
    random = torch.Generator().manual_seed(settings.seed)
    images, labels = read_split(settings.data, "train")
    test_images, test_labels = read_split(settings.data, "t10k")
    network = Network().to(memory_format=torch.channels_last)
    decayed = [p for p in network.parameters() if p.dim() > 1]
    rest = [p for p in network.parameters() if p.dim() == 1]
    optimiser = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 5e-4}, {"params": rest, "weight_decay": 0.0}],
        lr=settings.rate, momentum=0.9, nesterov=True,
    )
    steps = settings.epochs * (len(images) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.rate, total_steps=steps, pct_start=0.2)

    history = []
    for epoch in range(settings.epochs):
        network.train()
        started, total = time.time(), 0.0
        for count, (batch, target) in enumerate(batches(images, labels, settings.batch, random), 1):
            loss = F.cross_entropy(network(batch), target, label_smoothing=0.05)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        top1 = accuracy(network, test_images, test_labels)
        history.append({"epoch": epoch + 1, "loss": round(total / count, 4), "test_top1": round(top1, 2)})
        print(history[-1], f"{time.time() - started:.0f} s", flush=True)
        torch.save(network.state_dict(), settings.out / "weights.pt")
        export(network, settings.out / "model.onnx")

    np.savez_compressed(
        settings.out / "test-1000.npz",
        images=test_images[:1000, 0].numpy(), labels=test_labels[:1000].numpy().astype(np.uint8),
    )
    recipe = {k: str(v) if isinstance(v, pathlib.Path) else v for k, v in vars(settings).items() if k not in ("data", "out")}
    recipe.update(torch=torch.__version__, weights=sum(p.numel() for p in network.parameters() if p.dim() > 1), epochs_done=history)
    (settings.out / "training.json").write_text(json.dumps(recipe, indent=1) + "\n")


if __name__ == "__main__":
    main()
