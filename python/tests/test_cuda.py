"""Arrays on NVIDIA GPUs, without one: a driver that runs narrows-gpu's kernels on the CPU (driver.cpp), and arrays that say
they lie on a GPU. With a real GPU, test_torch.py has tests of its own."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import narrows
import numpy
import pytest
from narrows import errors

HERE = Path(__file__).parents[1]
KERNELS = Path(os.environ.get("NARROWS_REPOSITORY", HERE.parent)) / "crates/narrows-gpu/kernels"
CUDA, ROCM, MANAGED = 2, 10, 13
CODES = {"f4": (2, 32), "f2": (2, 16), "u2": (4, 16), "f8": (2, 64), "i4": (0, 32)}  # u2: bfloat16's bits


class ManagedTensor(ctypes.Structure):
    """DLManagedTensor of dlpack.h."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("device_kind", ctypes.c_int32), ("device_index", ctypes.c_int32), ("rank", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p), ("byte_offset", ctypes.c_uint64), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
    ]  # fmt: skip


class OnGpu:
    """An array that says that its memory is a GPU's."""

    def __init__(self, array, device=(CUDA, 0), gives=None):
        self.array, self.device, self.gives, self.streams = array, device, gives or device, []

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream):
        self.streams.append(stream)
        x = self.array
        shape, strides = ((ctypes.c_int64 * x.ndim)(*v) for v in (x.shape, (s // x.itemsize for s in x.strides)))
        code, bits = CODES[x.dtype.str[1:]]
        # The offset is the second half of where the elements are.
        tensor = ManagedTensor(
            (x.ctypes.data - 64) if x.size else None, *self.gives, x.ndim, code, bits, 1, ctypes.addressof(shape),
            ctypes.addressof(strides), 64 if x.size else 0,
        )  # fmt: skip
        self.kept = (shape, strides, tensor)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(tensor), b"dltensor", None)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """The driver, loaded under the name by which it is looked for."""
    if not KERNELS.is_dir():
        pytest.skip("the kernels' sources are not here (NARROWS_REPOSITORY names the repository)")
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no C++ compiler ({compiler}; CXX names another)")
    source = HERE / "tests/driver.cpp"
    digest = hashlib.sha256(source.read_bytes())
    for path in sorted(KERNELS.glob("*")):
        digest.update(path.read_bytes())
    folder = Path(os.environ.get("NARROWS_TEST_CACHE") or tmp_path_factory.mktemp("driver"))
    library = folder / f"driver-{digest.hexdigest()[:16]}.so"
    if not library.exists():
        options = ["-O2", "-std=c++17", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-fPIC", "-shared", "-Wl,-soname,libcuda.so"]
        own = library.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, *options, "-I", KERNELS, "-o", own, source], check=True)
        own.rename(library)
    loaded = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    loaded.launched_on.argtypes = (ctypes.c_void_p,)
    loaded.cuInit(0)
    return loaded


def features(*shape, dtype="f4", seed=0):
    return numpy.maximum(numpy.random.default_rng(seed).normal(size=shape), 0).astype(dtype)


def bfloat16(x):
    """The bits of x's upper halves."""
    return (numpy.ascontiguousarray(x, "f4").view("u4") >> 16).astype("u2")


@pytest.mark.parametrize("options", [{}, {"bits": 2}, {"bits": 8, "layout": "natural"}, {"target": "latency"}, {"axis": 2}])
@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_tensors_go_through_a_gpu_and_come_out_as_on_the_cpu(driver, dtype, options):
    for shape in ((16, 9, 9), (3, 5, 7), (40, 1, 31)):
        x = features(*shape, dtype=dtype)
        expected = narrows.decode(narrows.encode(x, **options))
        array = OnGpu(x)
        frame = narrows.encode(array, **options)
        (stream,) = array.streams
        # 0 is no stream, 1 and 2 are other people's; kernels ran on the one that was named, which the exporter made wait.
        assert stream > 2 and driver.launched_on(stream) > 0
        assert (narrows.decode(frame) == expected).all()
        # Whoever encoded it.
        for way in (frame, narrows.encode(x, **options)):
            out = OnGpu(numpy.zeros_like(x))
            assert narrows.decode(way, out=out) is out
            assert (out.array == expected).all() and out.streams[0] > 2
            # Other coders than rANS are the CPU's work.
            assert driver.launched_on(out.streams[0]) > 0 or way is not frame


def test_bfloat16_is_coded_on_the_gpu(driver):
    bits = bfloat16(features(8, 7, 7))
    frame = narrows.encode(OnGpu(bits), 8)
    assert narrows.peek(frame).dtype == "bf16"
    out = OnGpu(numpy.zeros_like(bits))
    narrows.decode(frame, out=out)
    expected = bfloat16(numpy.asarray(narrows.decode(frame), "f4"))
    assert (out.array == expected).all() and len(set(expected.flat)) > 50


def test_every_frame_decodes_into_a_gpu(driver):
    x = features(8, 7, 7)
    frames = [narrows.encode(x, **options) for options in (
        {"quantizer": "lossless"}, {"quantizer": "per-channel"}, {"coder": "tans"}, {"coder": "packed"}, {"layout": "csr"},
    )]  # fmt: skip
    for frame in [*frames, narrows.encode(numpy.full((8, 7, 7), 3, "f4"))]:
        out = OnGpu(numpy.zeros_like(x))
        narrows.Decoder().decode(frame, out=out)
        assert (out.array == narrows.decode(frame)).all()


def test_profiles_and_limits_hold_on_the_gpu(driver):
    profile = narrows.Profile.calibrate([features(8, 7, 7, seed=k) for k in range(4)], bits=4)
    x = features(8, 7, 7, seed=9)
    frame = narrows.Encoder(profile=profile).encode(OnGpu(x))
    out = OnGpu(numpy.zeros_like(x))
    with pytest.raises(errors.UnknownProfileError):
        narrows.decode(frame, out=out)
    with pytest.raises(errors.LimitError):
        narrows.decode(frame, out=out, profiles=[profile], max_elements=391)
    decoder = narrows.Decoder()
    decoder.add_profile(profile)
    for decode in (lambda: narrows.decode(frame, out=out, profiles=[profile]), lambda: decoder.decode(frame, out=out)):
        out.array[:] = -1
        decode()
        assert (out.array == narrows.decode(frame, profiles=[profile])).all()


def test_empty_and_large_arrays(driver):
    for shape in ((0,), (3, 0, 4)):
        frame = narrows.encode(OnGpu(numpy.zeros(shape, "f2")))
        assert narrows.peek(frame).shape == shape and narrows.peek(frame).dtype == "f16"
        assert narrows.decode(frame, out=OnGpu(numpy.zeros(shape, "f2"))).array.size == 0
    # Above what one cooperative launch takes.
    x = features(16, 260, 260)
    assert (narrows.decode(narrows.encode(OnGpu(x), 3)) == narrows.decode(narrows.encode(x, 3))).all()


def test_the_threads_device_stays_as_it_was(driver):
    x, current = features(4, 5, 5), ctypes.c_void_p()
    for mine in (None, 0xABC00):
        driver.cuCtxSetCurrent(ctypes.c_void_p(mine))
        frame = narrows.encode(OnGpu(x, (CUDA, 1)), 3)
        narrows.decode(frame, out=OnGpu(x.copy()))
        with pytest.raises(errors.NonFiniteError):
            narrows.encode(OnGpu(numpy.full_like(x, numpy.inf)))
        driver.cuCtxGetCurrent(ctypes.byref(current))
        assert current.value == mine
    driver.cuCtxSetCurrent(None)


def test_managed_memory_is_a_gpus(driver):
    x = features(4, 5, 5)
    assert narrows.encode(OnGpu(x, (MANAGED, 0))) == narrows.encode(OnGpu(x))


def test_bad_arrays_are_refused(driver):
    x = features(8, 7, 7)
    bad = x.copy()
    bad[1, 0, 2] = numpy.nan
    for array, error, text in [
        (OnGpu(x, (CUDA, 7)), errors.DeviceError, "no CUDA device"),
        (OnGpu(x, (CUDA, -1)), errors.DeviceError, "CUDA device -1"),
        (OnGpu(x, (ROCM, 0)), errors.DeviceError, "ROCm device 0"),
        (OnGpu(x, gives=(1, 0)), errors.ArrayError, "__dlpack_device__"),
        (OnGpu(x, gives=(CUDA, 1)), errors.ArrayError, "CUDA device 1"),
        (OnGpu(x.transpose(2, 1, 0)), errors.ArrayError, "contiguous"),
        (OnGpu(x[:, ::2]), errors.ArrayError, "contiguous"),
        (OnGpu(x.astype("f8")), errors.ArrayError, "64 bits"),
        (OnGpu(x.astype("i4")), errors.ArrayError, "signed integers"),
        (OnGpu(numpy.ones((), "f4")), errors.ShapeError, "rank"),
        (OnGpu(features(1, 1, 1, 1, 1, 1, 1, 1, 1)), errors.ShapeError, "rank"),
        (OnGpu(features(8, 8, dtype="f2").ravel()[1:].reshape(3, 21)), errors.DeviceError, "multiple of 4"),
    ]:
        with pytest.raises(error, match=text):
            narrows.encode(array)
    with pytest.raises(errors.NonFiniteError) as caught:
        narrows.encode(OnGpu(bad))
    assert caught.value.index == 51
    # Nothing of this spoils the next call.
    assert (narrows.decode(narrows.encode(OnGpu(x))) == narrows.decode(narrows.encode(x))).all()


def test_an_exporter_that_refuses_is_quoted(driver):
    class Stubborn(OnGpu):
        def __dlpack__(self, *, stream):
            raise BufferError("it requires a gradient")

    class Strange(OnGpu):
        def __dlpack__(self, *, stream):
            return "a capsule"

    for kind, text in ((Stubborn, "it requires a gradient"), (Strange, "something else than a tensor")):
        with pytest.raises(errors.ArrayError, match=text):
            narrows.encode(kind(features(3, 3)))


def test_what_a_gpu_does_not_offer_is_said(driver):
    x = OnGpu(features(8, 7, 7))
    for options in ({"quantizer": "lossless"}, {"quantizer": "per-channel", "clip": "mse"}, {"coder": "tans"}, {"layout": "csr"}):
        with pytest.raises(errors.DeviceError, match=r"not offered on a GPU; .*\.cpu\(\)"):
            narrows.encode(x, **options)
    for work in (narrows.plan, lambda x: narrows.Profile.calibrate([x])):
        with pytest.raises(errors.DeviceError, match=r"CUDA device 0; .*\.cpu\(\)"):
            work(x)


def test_outputs_that_do_not_fit_and_broken_frames_are_refused(driver):
    x = features(8, 7, 7)
    frame = narrows.encode(x)
    broken = bytearray(frame)
    broken[len(frame) // 2] ^= 1
    for out, error in [
        (features(8, 7, 6), errors.ShapeError),
        (features(8, 49), errors.ShapeError),
        (features(8, 7, 7, dtype="f2"), errors.ArrayError),
        (features(7, 7, 8).transpose(2, 0, 1), errors.ArrayError),
    ]:
        before = out.copy()
        with pytest.raises(error):
            narrows.decode(frame, out=OnGpu(out))
        assert (out == before).all()
    for data, error in ((broken, errors.ChecksumError), (frame[:-5], errors.FrameError), (b"", errors.FrameError)):
        with pytest.raises(error):
            narrows.decode(data, out=OnGpu(x.copy()))


def test_threads_code_on_the_gpu_side_by_side(driver):
    wrong = []

    def work(seed):
        x = features(8, 6, 6, seed=seed)
        expected = narrows.decode(narrows.encode(x, bits=2 + seed % 3))
        for _ in range(5):
            frame = narrows.encode(OnGpu(x, (CUDA, seed % 2)), bits=2 + seed % 3)
            out = narrows.decode(frame, out=OnGpu(numpy.zeros_like(x)))
            if not (out.array == expected).all():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_machine_without_a_driver_says_so():
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "import narrows, numpy, test_cuda\n"
        "x = numpy.ones((3, 3), 'f4')\n"
        "for work in (lambda: narrows.encode(test_cuda.OnGpu(x)),\n"
        "             lambda: narrows.decode(narrows.encode(x), out=test_cuda.OnGpu(x))):\n"
        "    try: work()\n"
        "    except narrows.DeviceError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, HERE, HERE / "tests"], capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    # With a driver there is no device to be seen.
    assert first == second and first.startswith("no CUDA device: ")
