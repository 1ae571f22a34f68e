"""Many threads, with the GIL and without it."""

import importlib.util
import os
import pickle
import subprocess
import sys
import sysconfig
import threading
import time

import narrows
import numpy
import pytest

THREADS = 8
SECONDS = 0.4


def features(seed, shape=(16, 14, 14)):
    return numpy.maximum(numpy.random.default_rng(seed).normal(size=shape), 0).astype("f4")


def together(work, meanwhile=None, threads=THREADS):
    """Run ``work(k)`` again and again on many threads at once, ``meanwhile()`` on another; the first exception is raised."""
    failures, barrier, end = [], threading.Barrier(threads + (meanwhile is not None)), time.monotonic() + SECONDS

    def run(act, *args):
        barrier.wait()
        turns = 0
        while not failures and (time.monotonic() < end or turns < 3):
            try:
                act(*args)
            except BaseException as error:
                failures.append(error)
            turns += 1

    running = [threading.Thread(target=run, args=(work, k)) for k in range(threads)]
    if meanwhile is not None:
        running.append(threading.Thread(target=run, args=(meanwhile,)))
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if failures:
        raise failures[0]


def test_importing_leaves_the_gil_off():
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("this Python has a GIL")
    modules = ["narrows", "narrows.client", "narrows.server"]
    if importlib.util.find_spec("narrows.onnx") and hasattr(narrows._narrows, "cuts"):
        modules.append("narrows.onnx")
    # Python says so with a warning if a module turns the GIL on.
    code = f"import sys, {', '.join(modules)}; sys.exit(sys._is_gil_enabled())"
    folder = os.path.dirname(os.path.dirname(narrows.__file__))
    subprocess.run([sys.executable, "-W", "error", "-c", code], env=os.environ | {"PYTHONPATH": folder}, check=True)


def test_threads_share_every_object():
    profile = narrows.Profile.calibrate([features(seed) for seed in range(3)], bits=3)
    encoders = [narrows.Encoder(), narrows.Encoder(quantizer="lossless"), narrows.Encoder(profile=profile)]
    decoder = narrows.Decoder(profiles=[profile])
    inputs = [features(seed) for seed in range(4)]
    frames = [[encoder.encode(x) for x in inputs] for encoder in encoders]
    values = [[decoder.decode(frame) for frame in row] for row in frames]
    header = narrows.peek(frames[0][0])
    outputs = [numpy.empty_like(inputs[0]) for _ in range(THREADS)]

    def work(k):
        for row, encoder in enumerate(encoders):
            column = (k + row) % len(inputs)
            assert encoder.encode(inputs[column]) == frames[row][column]
            assert (decoder.decode(frames[row][column]) == values[row][column]).all()
            decoder.decode(frames[row][column], out=outputs[k])
            assert (outputs[k] == values[row][column]).all()
        frame = narrows.encode(inputs[k % 4], quantizer="lossless")
        assert frame == frames[1][k % 4]
        assert (narrows.decode(frame, out=outputs[k]) == inputs[k % 4]).all()
        decoder.add_profile(pickle.loads(pickle.dumps(profile)))
        assert header.shape == inputs[0].shape and narrows.peek(frame).content == "lossless"
        assert narrows.plan(inputs[0], 3).bytes > 0

    together(work)


@pytest.mark.parametrize("options", [{"quantizer": "lossless"}, {}, {"quantizer": "per-channel"}, {"clip": 99.0}], ids=str)
def test_what_is_encoded_while_it_changes_is_some_of_its_values(options):
    calm, wild = features(0), features(1) + 5
    shared, encoder, decoder = calm.copy(), narrows.Encoder(**options), narrows.Decoder()
    turn = iter(range(1 << 30))

    def change():
        shared[:] = wild if next(turn) % 2 else calm

    def work(k):
        y = decoder.decode(encoder.encode(shared))
        assert y.shape == shared.shape and y.min() >= -1 and y.max() <= wild.max() + 1
        if options.get("quantizer") == "lossless":
            # Each element is the one or the other, never something in between.
            assert ((y == calm) | (y == wild)).all()

    together(work, change)
    shared[:] = calm
    assert encoder.encode(shared) == narrows.encode(calm, **options)


def test_an_array_that_many_threads_decode_into_holds_values_of_theirs():
    inputs = [features(seed) + seed for seed in range(THREADS)]
    frames = [narrows.encode(x, quantizer="lossless") for x in inputs]
    out, decoder = numpy.zeros_like(inputs[0]), narrows.Decoder()

    def work(k):
        assert decoder.decode(frames[k], out=out) is out
        narrows.decode(frames[k], out=out)

    together(work)
    assert numpy.any([out == x for x in inputs], axis=0).all()


def test_a_frame_that_grows_and_shrinks_is_decoded_or_refused():
    if sysconfig.get_config_var("Py_GIL_DISABLED") and sys.version_info < (3, 14):
        # So do threads that only make and release memoryviews of it.
        pytest.skip("free-threaded CPython 3.13 loses count of a bytearray's readers")
    x = features(0)
    whole = narrows.encode(x)
    expected = narrows.decode(whole)
    shared, seen = bytearray(whole), set()

    def change():
        for act in (lambda: shared.extend(b"more"), lambda: shared.__delitem__(slice(len(whole) // 2, None))):
            try:
                act()
            except BufferError:
                pass  # somebody is reading it
            time.sleep(1e-4)
        try:
            shared[:] = whole
        except BufferError:
            pass
        time.sleep(1e-4)

    def work(k):
        try:
            y = narrows.decode(shared)
        except narrows.NarrowsError:
            seen.add("refused")
            return
        assert (y == expected).all()
        seen.add("decoded")

    together(work, change)
    assert "decoded" in seen
