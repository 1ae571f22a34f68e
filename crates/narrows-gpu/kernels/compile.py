#!/usr/bin/env python3
"""Compile the CUDA kernels with NVRTC: no GPU, no CUDA toolkit.

    pip install nvidia-cuda-nvrtc-cu12==12.0.140
    kernels/compile.py            write narrows.ptx
    kernels/compile.py --check    compare it with what the sources give; exit status 1 if it differs
    kernels/compile.py --report   registers, stack and spills of each kernel, as JSON

The version is pinned: PTX of CUDA 12.0 runs on every driver from 525 on, newer compilers write PTX that older
drivers refuse. Exit status 77: the compiler is not installed.
"""

import argparse
import ctypes
import hashlib
import importlib.util
import json
import pathlib
import re
import sys

VERSION = (12, 0)
# Volta: the oldest with warps whose lanes go their own ways, which `__shfl_sync` and its kin are made for.
ARCHITECTURE = "compute_70"
OPTIONS = ["-std=c++17", "--fmad=false"]
REPORTED = ["sm_70", "sm_80", "sm_90"]
HERE = pathlib.Path(__file__).resolve().parent
PTX = HERE / "narrows.ptx"
MISSING = 77


def sources():
    return sorted([*HERE.glob("*.cuh"), HERE / "narrows.cu"])


def sources_hash():
    hasher = hashlib.sha256()
    for source in sources():
        hasher.update(source.read_bytes())
    return hasher.hexdigest()


class Nvrtc:
    def __init__(self):
        spec = importlib.util.find_spec("nvidia.cuda_nvrtc") if importlib.util.find_spec("nvidia") else None
        if spec is None:
            sys.stderr.write("there is no NVRTC here: pip install nvidia-cuda-nvrtc-cu12==12.0.140\n")
            sys.exit(MISSING)
        folder = pathlib.Path(next(iter(spec.submodule_search_locations)))
        names = [*folder.glob("lib/libnvrtc.so.12"), *folder.glob("bin/nvrtc64_120_0.dll")]
        self.library = ctypes.CDLL(str(names[0]))
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        if (major.value, minor.value) != VERSION:
            sys.stderr.write(f"NVRTC is {major.value}.{minor.value}; narrows.ptx is made with {VERSION[0]}.{VERSION[1]}\n")
            sys.exit(MISSING)

    def text(self, program, what):
        size = ctypes.c_size_t()
        getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(self.library, f"nvrtcGet{what}")(program, text)
        return text.value.decode()

    def compile(self, architecture, *more):
        """The log, and the PTX where the architecture is a virtual one."""
        headers = [source for source in sources() if source.suffix == ".cuh"]
        texts = (ctypes.c_char_p * len(headers))(*[header.read_bytes() for header in headers])
        names = (ctypes.c_char_p * len(headers))(*[header.name.encode() for header in headers])
        program = ctypes.c_void_p()
        source = (HERE / "narrows.cu").read_bytes()
        self.library.nvrtcCreateProgram(ctypes.byref(program), source, b"narrows.cu", len(headers), texts, names)
        options = [option.encode() for option in [f"--gpu-architecture={architecture}", *OPTIONS, *more]]
        failed = self.library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        log = self.text(program, "ProgramLog")
        if failed:
            sys.stderr.write(log)
            sys.exit(2)
        return log, self.text(program, "PTX") if architecture.startswith("compute") else None


def ptx(nvrtc):
    _, text = nvrtc.compile(ARCHITECTURE)
    return f"// Made by compile.py of sources with the SHA-256 {sources_hash()}\n{text}"


def report(nvrtc):
    usage = {}
    for architecture in REPORTED:
        log, _ = nvrtc.compile(architecture, "--ptxas-options=-v")
        for part in log.split("Compiling entry function '")[1:]:
            numbers = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)
            registers = re.search(r"Used (\d+) registers", part)
            usage.setdefault(part.split("'")[0], {})[architecture] = {
                "registers": int(registers.group(1)),
                "stack": int(numbers.group(1)),
                "spill_stores": int(numbers.group(2)),
                "spill_loads": int(numbers.group(3)),
            }
    return usage


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--report", action="store_true", help="registers and spills, as JSON")
    arguments = parser.parse_args()
    nvrtc = Nvrtc()
    if arguments.report:
        print(json.dumps(report(nvrtc), indent=1))
    elif arguments.check:
        if not PTX.exists() or PTX.read_text() != ptx(nvrtc):
            sys.exit("narrows.ptx is not what the sources give: run kernels/compile.py")
        print("narrows.ptx is what the sources give")
    else:
        PTX.write_text(ptx(nvrtc))


if __name__ == "__main__":
    main()
