"""Whatever comes in, the answer is a value or an exception of ours."""

import threading

import narrows
import numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from narrows import NarrowsError

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5))
    dtype = draw(st.sampled_from(["f4", "f2"]))
    seed, scale = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([1e-30, 1.0, 1e4]))
    x = (numpy.random.default_rng(seed).normal(size=shape) * scale).astype(dtype)
    if draw(st.booleans()):
        x = numpy.maximum(x, 0)
    if x.size and draw(st.integers(0, 9)) == 0:
        x.flat[draw(st.integers(0, x.size - 1))] = draw(st.sampled_from([numpy.nan, numpy.inf, -numpy.inf]))
    order = draw(st.permutations(range(x.ndim)))
    steps = tuple(slice(None, None, draw(st.sampled_from([1, 2, -1]))) for _ in shape)
    return x[steps].transpose(order)


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "bits": st.integers(-1, 9),
        "quantizer": st.sampled_from(["aiq", "per-channel", "lossless"]),
        "clip": st.one_of(st.none(), st.just("mse"), st.floats(width=32), st.floats(50, 100, width=32)),
        "layout": st.sampled_from(["auto", "natural", "planes", "csr", "csr-exhaustive", "csr-separate"]),
        "coder": st.sampled_from(["auto", "packed", "rans", "tans", "tans:64"]),
        "target": st.sampled_from(["size", "latency", "speed"]),
        "axis": st.one_of(st.none(), st.integers(0, 9)),
    },
)


@QUICK
@given(tensors(), OPTIONS)
def test_what_is_encoded_decodes_to_its_shape(x, options):
    try:
        frame = narrows.encode(x, **options)
    except NarrowsError:
        return
    y = narrows.decode(frame)
    assert y.shape == x.shape and y.dtype == x.dtype
    assert narrows.peek(frame).shape == x.shape
    if options.get("quantizer") == "lossless":
        assert y.tobytes() == x.tobytes()


FRAMES = [
    narrows.encode(numpy.maximum(numpy.random.default_rng(k).normal(size=(8, 7, 7)), 0).astype(dtype), **options)
    for k, (dtype, options) in enumerate(
        [
            ("f4", {}),
            ("f2", {"quantizer": "lossless"}),
            ("f4", {"layout": "csr", "coder": "rans"}),
            ("f4", {"quantizer": "per-channel", "bits": 6}),
            ("f4", {"coder": "tans", "layout": "natural"}),
        ]
    )
]


@QUICK
@given(st.sampled_from(FRAMES), st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=4), st.data())
def test_a_changed_frame_is_refused(frame, changes, data):
    broken = bytearray(frame)
    for place, value in changes:
        broken[place % len(broken)] = value
    del broken[data.draw(st.integers(0, len(broken))) :]
    if bytes(broken) == frame:
        return
    for decode in (narrows.decode, narrows.peek, narrows.Decoder().decode):
        try:
            decode(bytes(broken))
        except NarrowsError:
            continue
        assert decode is narrows.peek, "a checksum does not cover a change"


@QUICK
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    for read in (narrows.decode, narrows.peek, narrows.Profile.from_bytes):
        for contents in (data, b"NRW\x01" + data, b"NRP\x01" + data):
            try:
                read(contents)
            except NarrowsError:
                pass


def test_an_array_that_another_thread_changes_does_no_harm():
    x = numpy.random.default_rng(0).normal(size=(64, 28, 28)).astype("f4")
    frame = bytearray(narrows.encode(x))
    stop = threading.Event()

    def change():
        rng = numpy.random.default_rng(1)
        wild = numpy.array([0, 1, -1, 1e38, -1e38, numpy.nan, numpy.inf, 3e-39], "f4")
        while not stop.is_set():
            x.flat[rng.integers(0, x.size, 5000)] = rng.choice(wild, 5000)
            x[:] = rng.choice(wild[:3])
            frame[rng.integers(0, len(frame))] = rng.integers(0, 256)

    thread = threading.Thread(target=change)
    thread.start()
    outcomes = set()
    try:
        for options in ({}, {"quantizer": "per-channel"}, {"quantizer": "lossless"}, {"clip": 99.0}, {"clip": "mse"}):
            for _ in range(60):
                try:
                    # What comes out of a race is a frame of some values, or a refusal; frames are whole.
                    y = narrows.decode(narrows.encode(x, **options))
                    assert y.shape == x.shape
                    outcomes.add("frame")
                except narrows.NonFiniteError:
                    outcomes.add("not finite")
                try:
                    narrows.decode(frame)
                except NarrowsError:
                    outcomes.add("refused")
    finally:
        stop.set()
        thread.join()
    assert "frame" in outcomes
