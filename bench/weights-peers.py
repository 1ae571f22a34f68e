"""Packed weights beside DeepCABAC (nncodec), ZipNN and zstd -19: bytes, and decoding on one core, in one run.

    pip install zipnn torch zstandard safetensors numpy nncodec
    cargo build --release -p narrows-weights --example decode; cargo build --release
    taskset -c 1 python bench/weights-peers.py quantised PACKED...         # DeepCABAC on the same bins
    taskset -c 1 python bench/weights-peers.py lossless CHECKPOINT...      # ZipNN, zstd -19, as float32 and as bfloat16

PACKED are files of `narrows pack`, CHECKPOINT safetensors files of float32. Programs are looked for in target/release, or in
the folder that NARROWS_BIN names. Prints JSON lines. Decoding is into memory, the fastest of five passes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import safetensors.numpy

BINARIES = Path(os.environ.get("NARROWS_BIN", "target/release"))
PASSES = 5


def fastest(work: Callable[[], Any], passes: int = PASSES) -> float:
    times = []
    for _ in range(passes):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def ours(packed: Path, *bins: Path) -> dict[str, Any]:
    program = BINARIES / "examples" / "decode"
    found = subprocess.run([program, packed, *bins], check=True, capture_output=True, text=True)
    return json.loads(found.stdout)


def cabac(bins: numpy.ndarray[Any, Any]) -> tuple[bytes, float]:
    """The smallest stream of a few settings, and the seconds it takes to decode."""
    # The coder alone: the package around it needs more than is needed here.
    package = importlib.util.find_spec("nncodec")
    sys.path.insert(0, str(Path(package.submodule_search_locations[0]) / "extensions"))
    import deepCABAC

    off = (deepCABAC.HdspMode.AlwaysOff, numpy.array((0, 0), dtype=numpy.int8))
    values, streams = bins.astype(numpy.int32), []
    for unary in (1, 2, 4, 8, 10):
        for optimised in (0, 1):
            encoder = deepCABAC.Encoder()
            encoder.initCtxModels(unary, optimised)
            encoder.encodeLayer(values, 0, 0, 0, 0, 0, numpy.zeros(len(values), numpy.int32), *off, 0, 0)
            streams.append((bytes(encoder.finish()), unary))
    stream, unary = min(streams, key=lambda found: len(found[0]))
    out = numpy.zeros_like(values)

    def decode() -> None:
        decoder = deepCABAC.Decoder()
        decoder.setStream(numpy.frombuffer(stream, numpy.uint8))
        decoder.initCtxModels(unary)
        decoder.decodeLayer(out, 0, 0, 0, 0, *off, 0, 0)

    seconds = fastest(decode, 1 if values.size > 1_000_000 else PASSES)
    assert (out == values).all()
    return stream, seconds


def quantised(packed: Path, folder: Path) -> dict[str, Any]:
    """All weights of a packed file: payload over entropy, and the whole file over what it would be with DeepCABAC."""
    found = ours(packed, folder / "bins.safetensors")
    bins = safetensors.numpy.load_file(folder / "bins.safetensors")
    tensors = [tensor for tensor in found["tensors"] if tensor["kind"] == "packed"]
    weights = sum(tensor["elements"] for tensor in tensors)
    entropy = sum(tensor["entropy"] * tensor["elements"] for tensor in tensors) / 8
    payload = sum(tensor["layout"]["payload_bytes"] + tensor["layout"]["outlier_bytes"] for tensor in tensors)
    streams, seconds = 0, 0.0
    for tensor in tensors:
        stream, took = cabac(bins[tensor["name"]])
        # Its steps take 16 bits, as ours do before they are packed.
        streams += len(stream) + 2 * tensor["steps"]
        seconds += took
    rest = found["bytes"] - sum(tensor["bytes"] for tensor in tensors)
    our_seconds = sum(tensor["seconds"] for tensor in tensors)
    return {
        "file": packed.name,
        "weights": weights,
        "entropy_bits": 8 * entropy / weights,
        "payload_over_entropy": payload / entropy,
        "bytes": found["bytes"],
        "bits_per_weight": 8 * found["bytes"] / weights,
        "with_deepcabac": streams + rest,
        "bytes_over_deepcabac": found["bytes"] / (streams + rest),
        "mweights_per_second": weights / our_seconds / 1e6,
        "deepcabac_mweights_per_second": weights / seconds / 1e6,
        "decode_over_deepcabac": seconds / our_seconds,
    }


def as_bfloat16(checkpoint: Path, path: Path) -> None:
    """The float tensors of a checkpoint, rounded to bfloat16."""
    import safetensors.torch
    import torch

    tensors = safetensors.torch.load_file(checkpoint)
    halves = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items() if tensor.is_floating_point()}
    safetensors.torch.save_file(halves, path)


def lossless(checkpoint: Path, dtype: str, folder: Path) -> list[dict[str, Any]]:
    import zipnn
    import zstandard

    packed = folder / "packed.safetensors"
    pack = [BINARIES / "narrows", "pack", checkpoint, "--lossless", "--force", "-o", packed, "--quiet"]
    subprocess.run(pack, check=True)
    found, data = ours(packed), checkpoint.read_bytes()
    seconds = sum(tensor["seconds"] for tensor in found["tensors"])
    rows = [("narrows", found["bytes"], seconds)]
    squeezed = zstandard.ZstdCompressor(level=19).compress(data)
    rows.append(
        ("zstd -19", len(squeezed), fastest(lambda: zstandard.ZstdDecompressor().decompress(squeezed)))
    )
    coder = zipnn.ZipNN(bytearray_dtype=dtype, threads=1)
    zipped = bytes(coder.compress(bytearray(data)))
    restored = bytes(coder.decompress(zipped))
    assert restored == data
    rows.append(("ZipNN", len(zipped), fastest(lambda: coder.decompress(zipped))))
    return [
        {
            "file": checkpoint.name,
            "dtype": dtype,
            "coder": name,
            "bytes": length,
            "ratio": len(data) / length,
            "gigabytes_per_second": len(data) / took / 1e9,
        }
        for name, length, took in rows
    ]


def main() -> None:
    what, files = sys.argv[1], [Path(name) for name in sys.argv[2:]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in files:
            if what == "quantised":
                print(json.dumps(quantised(file, folder)), flush=True)
                continue
            for row in lossless(file, "float32", folder):
                print(json.dumps(row), flush=True)
            half = folder / f"{file.stem}-bf16.safetensors"
            as_bfloat16(file, half)
            for row in lossless(half, "bfloat16", folder):
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
