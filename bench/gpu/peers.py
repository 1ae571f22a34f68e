#!/usr/bin/env python3
"""Other entropy coders on the same GPU and symbols, where they are installed: nvCOMP ANS, DietGPU, torch_ans.

    python3 peers.py [--quick] > peers.jsonl     an object to a line, as soon as it is known
    python3 peers.py --build                     DietGPU only, into where PyTorch keeps extensions

`run` installs the wheels that `pack` has fetched, into the folder PEERS_SITE; DietGPU and torch_ans's kernels are built from source,
by PyTorch and a CUDA toolkit.

They code bytes without a quantiser: each is given the symbols of features at 4 bits, a byte each. A peer that is not there is
named with the reason. Times are medians, by CUDA events.
"""

import importlib
import json
import os
import pathlib
import subprocess
import sys

QUICK = "--quick" in sys.argv
SIZES = [128 * 28 * 28] if QUICK else [128 * 28 * 28, 1 << 24, 1 << 26]
RUNS = 10 if QUICK else 50


def symbols(torch, count):
    """Half zeros, the rest as a folded normal: what a ReLU leaves at 4 bits."""
    generator = torch.Generator(device="cuda").manual_seed(1)
    values = torch.randn(count, device="cuda", generator=generator).clamp_(min=0)
    return (values * (15 / 4)).round_().clamp_(max=15).to(torch.uint8)


def median_us(torch, run):
    run()
    torch.cuda.synchronize()
    times = []
    for _ in range(RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1000)
    return sorted(times)[len(times) // 2]


def figures(torch, data, compressed_bytes, encode, decode):
    encode_us, decode_us = median_us(torch, encode), median_us(torch, decode)
    count = data.numel()
    return {
        "symbols": count,
        "bytes": int(compressed_bytes),
        "encode_us": encode_us,
        "decode_us": decode_us,
        "encode_gsymbols_per_s": count / encode_us / 1000,
        "decode_gsymbols_per_s": count / decode_us / 1000,
    }


def import_nvcomp():
    """From the wheels, even where another `nvidia` package comes first."""
    import nvidia

    folder = str(pathlib.Path(os.environ.get("PEERS_SITE", "site")) / "nvidia")
    if folder not in list(nvidia.__path__):
        nvidia.__path__.append(folder)
    return importlib.import_module("nvidia.nvcomp")


def nvcomp_ans(torch, data, chunk):
    """Output in place and, to decode, its configuration made beforehand: nothing that it need not do is timed."""
    nvcomp = import_nvcomp()
    stream = torch.cuda.current_stream().cuda_stream
    codec = nvcomp.Codec(
        algorithm="ANS", cuda_stream=stream, uncomp_chunk_size=chunk, execution_policy=nvcomp.ExecutionPolicy.LATENCY
    )
    source = nvcomp.as_array(data)
    compressed = codec.encode(source)
    size = compressed.buffer_size
    back = codec.decode(compressed, "|u1")
    if not torch.equal(torch.as_tensor(back, device="cuda").view(torch.uint8).flatten(), data):
        raise RuntimeError("other symbols came back")

    def both(encode, decode):
        return figures(torch, data, size, encode, decode)

    try:
        configuration, room = codec.decompression_config(compressed), codec.encode(source)
        found = both(
            lambda: codec.encode(source, out=room),
            lambda: codec.decode(compressed, "|u1", out=back, decompression_config=configuration),
        )
    except (AttributeError, TypeError) as error:
        # Versions without these: they take memory for each call.
        found = both(lambda: codec.encode(source), lambda: codec.decode(compressed, "|u1"))
        found["note"] = f"memory is taken in every call ({error})"[:200]
    return {"chunk_bytes": chunk, **found}


def build_dietgpu():
    """Its library, from the sources that `pack` has put beside this file; `logging.h` stands in for glog."""
    import torch
    import torch.utils.cpp_extension as extension

    root = pathlib.Path(__file__).resolve().parent
    sources = root / "dietgpu" / "dietgpu"
    if not sources.is_dir():
        raise RuntimeError("its sources were not packed")
    # This device alone.
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "{}.{}".format(*torch.cuda.get_device_capability()))
    files = [sources / "DietGpu.cpp", *sorted((sources / "utils").glob("*.cpp"))]
    for part in ["ans", "float"]:
        files += [file for file in sorted((sources / part).glob("*.cu")) if not file.name.endswith("Test.cu")]
    extension.load(
        name="dietgpu",
        sources=[str(file) for file in files],
        extra_include_paths=[str(root / "dietgpu"), str(root / "glog")],
        is_python_module=False,
    )


def dietgpu(torch, data):
    if not hasattr(torch.ops.dietgpu, "compress_data"):
        build_dietgpu()
    ops = torch.ops.dietgpu
    scratch = torch.empty([384 << 20], dtype=torch.uint8, device="cuda")
    rows, columns = ops.max_any_compressed_output_size([data])
    out = torch.empty([rows, columns], dtype=torch.uint8, device="cuda")
    sizes = torch.zeros([1], dtype=torch.int, device="cuda")
    back = torch.empty_like(data)
    status = torch.empty([1], dtype=torch.uint8, device="cuda")
    lengths = torch.empty([1], dtype=torch.int32, device="cuda")

    def encode():
        ops.compress_data(False, [data], False, scratch, out, sizes)

    def decode():
        ops.decompress_data(False, [*out], [back], False, scratch, status, lengths)

    encode()
    decode()
    if not torch.equal(back, data):
        raise RuntimeError("other symbols came back")
    return figures(torch, data, sizes[0].item(), encode, decode)


def torch_ans():
    """Its own benchmark, in its own words: 50 MB of 256 kinds of symbols, its rANS for warps and its default."""
    for impl, more in [("rans32_16", ["-i", "32", "--freq-precision", "12"]), ("rans64", [])]:
        for mode in ["push", "pop"]:
            command = [sys.executable, "-m", "torch_ans.benchmark", "-d", "cuda", "--mode", mode, "--impl", impl, *more]
            command += ["--data-size-mb", "50", "--warmup", "2", "--repeat", "5"]
            path = os.pathsep.join(filter(None, [os.environ.get("PEERS_SITE"), os.environ.get("PYTHONPATH")]))
            run = subprocess.run(
                command, capture_output=True, text=True, timeout=90, check=False, env={**os.environ, "PYTHONPATH": path}
            )
            yield {"what": f"{impl} {mode}", "status": run.returncode, "said": (run.stdout[-2000:] + run.stderr[-500:]).splitlines()}


def each_size(torch, peer, *options):
    for count in SIZES:
        yield peer(torch, symbols(torch, count), *options)


def report(name, figures_of):
    """Print what a peer gives, one after the other; what it cannot, with the reason."""
    try:
        for found in figures_of():
            print(json.dumps({"peer": name, **found}), flush=True)
    except Exception as error:
        print(json.dumps({"peer": name, "not measured": f"{type(error).__name__}: {error}"[:2000]}), flush=True)


def main():
    try:
        import torch

        if "--build" in sys.argv:
            return build_dietgpu()
        if not torch.cuda.is_available():
            raise RuntimeError("PyTorch finds no GPU")
    except Exception as error:
        print(json.dumps({"peer": "all", "not measured": f"PyTorch: {error}"}))
        return None
    for chunk in [1 << 16, 1 << 18]:
        report("nvCOMP ANS", lambda chunk=chunk: each_size(torch, nvcomp_ans, chunk))
    report("torch_ans", torch_ans)
    # Last, since it may still have to be built.
    report("DietGPU", lambda: each_size(torch, dietgpu))
    return None


if __name__ == "__main__":
    main()
