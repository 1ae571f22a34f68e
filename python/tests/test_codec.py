"""Arrays of every kind survive the way through a frame."""

import array
import pickle
import threading

import narrows
import numpy
import pytest
from narrows import errors


def features(shape=(16, 14, 14), dtype="f4", seed=0):
    values = numpy.random.default_rng(seed).normal(size=shape)
    return numpy.maximum(values, 0).astype(dtype)


@pytest.mark.parametrize("bits", range(1, 9))
def test_values_are_within_half_a_step(bits):
    x = features()
    y = narrows.decode(narrows.encode(x, bits=bits))
    assert y.dtype == x.dtype and y.shape == x.shape
    step = float(x.max() - x.min()) / (2**bits - 1)
    # A zero point is a whole number: it may move the range by up to half a step.
    assert abs(y - x).max() <= step * 1.001


@pytest.mark.parametrize("dtype", ["f4", "f2"])
@pytest.mark.parametrize("quantizer", ["aiq", "per-channel"])
def test_a_frame_does_not_depend_on_strides(dtype, quantizer):
    x = features((6, 10, 12), dtype)
    views = [x[::-1], x.T, x[:, ::3], x[1:4, 2:5, 3:], numpy.asfortranarray(x), numpy.broadcast_to(x[0], (5, 10, 12))]
    for view in views:
        assert narrows.encode(view, quantizer=quantizer) == narrows.encode(view.copy(), quantizer=quantizer)


def test_lossless_keeps_every_bit():
    x = features().copy()
    x[0, 0, :3] = numpy.nan, numpy.inf, -0.0
    y = narrows.decode(narrows.encode(x, quantizer="lossless"))
    assert y.tobytes() == x.tobytes()


def test_bfloat16_of_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = features(dtype=ml_dtypes.bfloat16)
    assert narrows.peek(narrows.encode(x)).dtype == "bf16"
    y = narrows.decode(narrows.encode(x, quantizer="lossless"))
    assert y.dtype == x.dtype and (y == x).all()


def test_anything_with_the_buffer_protocol_is_an_array():
    plain = array.array("f", [0.0, 0.5, 1.0, 1.5])
    x = numpy.array(plain, "f4")
    assert narrows.encode(plain) == narrows.encode(memoryview(plain)) == narrows.encode(x)


class OnlyDlpack:
    """An array of a library that has nothing but DLPack."""

    def __init__(self, values):
        self.values = values

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[::-1, ::2], lambda x: x.T, lambda x: x[:0]])
def test_anything_with_dlpack_is_an_array(view):
    x = view(features())
    assert narrows.encode(OnlyDlpack(x)) == narrows.encode(x.copy())


def test_decode_into_an_array_of_the_caller():
    x = features()
    frame = narrows.encode(x)
    out = numpy.empty_like(x)
    assert narrows.decode(frame, out=out) is out
    assert (out == narrows.decode(frame)).all()
    through_dlpack = OnlyDlpack(numpy.empty_like(x))
    narrows.decode(frame, out=through_dlpack)
    assert (through_dlpack.values == out).all()


def test_what_decode_returns_can_be_written_to():
    y = narrows.decode(narrows.encode(features()))
    y += 1
    assert y.flags.writeable and y.min() >= 1


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda frame: numpy.frombuffer(frame, "u1")])
def test_a_frame_is_anything_that_holds_bytes(kind):
    frame = narrows.encode(features())
    assert (narrows.decode(kind(frame)) == narrows.decode(frame)).all()


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), (1,), (1, 1, 1, 1, 1, 1, 1, 1)])
def test_small_and_empty_shapes(shape):
    x = numpy.full(shape, 2.5, "f4")
    y = narrows.decode(narrows.encode(x))
    assert y.shape == shape and (y == x).all()


def test_profiles_are_shared_by_both_ends():
    samples = [features(seed=k) for k in range(4)]
    profile = narrows.Profile.calibrate(samples, bits=3)
    assert narrows.Profile.from_bytes(profile.to_bytes()) == profile == pickle.loads(pickle.dumps(profile))
    frame = narrows.encode(features(seed=9), profile=profile)
    assert narrows.peek(frame).profile == profile.id
    with pytest.raises(errors.UnknownProfileError) as caught:
        narrows.decode(frame)
    assert caught.value.profile == profile.id
    decoder = narrows.Decoder()
    decoder.add_profile(profile)
    assert (decoder.decode(frame) == narrows.decode(frame, profiles=[profile])).all()
    assert len(frame) < len(narrows.encode(features(seed=9), bits=3, clip=99.5))


def test_a_plan_tells_the_size():
    x = features((64, 28, 28))
    for options in ({"bits": 4}, {"bits": 2, "layout": "natural"}, {"bits": 6, "layout": "csr", "coder": "rans"}):
        frame = narrows.encode(x, **options)
        assert narrows.plan(x, **options).bytes == pytest.approx(len(frame), rel=0.01)


def test_objects_code_as_functions_do():
    encoder, decoder = narrows.Encoder(bits=3, clip=99.9, target="speed"), narrows.Decoder()
    for seed in range(3):
        x = features(seed=seed)
        frame = encoder.encode(x)
        assert frame == narrows.encode(x, bits=3, clip=99.9, target="speed")
        assert (decoder.decode(frame) == narrows.decode(frame)).all()


def test_threads_share_an_encoder_and_a_decoder():
    encoder, decoder = narrows.Encoder(), narrows.Decoder()
    inputs = [features(seed=seed) for seed in range(4)]
    expected = [narrows.decode(narrows.encode(x)) for x in inputs]
    wrong = []

    def work(x, y):
        for _ in range(50):
            if not (decoder.decode(encoder.encode(x)) == y).all():
                wrong.append(x)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_gil_is_free_while_the_codec_works():
    x = features((512, 64, 64))
    encoder = narrows.Encoder(quantizer="lossless")
    count, done = 0, threading.Event()

    def work():
        encoder.encode(x)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        count += 1
    thread.join()
    # With the GIL held there would be one switch at most; without it this loop runs all the time.
    assert count > 1000


ERRORS = [
    (lambda: narrows.encode(numpy.zeros(3, "f8")), errors.ArrayError, "float32"),
    (lambda: narrows.encode(numpy.zeros(3, ">f4")), errors.ArrayError, "byte order"),
    (lambda: narrows.encode(numpy.zeros(3, "i4")), errors.ArrayError, "float32"),
    (lambda: narrows.encode(OnlyDlpack(numpy.zeros(3, "i4"))), errors.ArrayError, "signed integers of 32 bits"),
    (lambda: narrows.encode([1.0, 2.0]), errors.ArrayError, "list"),
    (lambda: narrows.encode(None), errors.ArrayError, "NoneType"),
    (lambda: narrows.encode(numpy.float32(1)), errors.NarrowsError, ""),
    (lambda: narrows.encode(numpy.array(1, "f4")), errors.NarrowsError, ""),
    (lambda: narrows.encode(numpy.zeros((1,) * 9, "f4")), errors.ShapeError, "rank is 9"),
    (lambda: narrows.encode(numpy.array([1, numpy.nan], "f4")), errors.NonFiniteError, "element 1"),
    (lambda: narrows.encode(numpy.broadcast_to(numpy.float32(1), (1 << 40,))), errors.LimitError, "1099511627776"),
    (lambda: narrows.encode(features(), bits=9), errors.OptionError, "1 to 8"),
    (lambda: narrows.encode(features(), bits=-1), errors.OptionError, "1 to 8"),
    (lambda: narrows.encode(features(), clip=3), errors.OptionError, "50 to 100"),
    (lambda: narrows.encode(features(), clip="none"), errors.OptionError, "percentile"),
    (lambda: narrows.encode(features(), quantizer="int8"), errors.OptionError, "lossless"),
    (lambda: narrows.encode(features(), layout="rows"), errors.OptionError, "planes"),
    (lambda: narrows.encode(features(), coder="tans:65"), errors.OptionError, "4096"),
    (lambda: narrows.encode(features(), coder="tans", layout="planes"), errors.OptionError, "natural"),
    (lambda: narrows.encode(features(), target="fast"), errors.OptionError, "speed"),
    (lambda: narrows.encode(features(), axis=3), errors.ShapeError, "axis"),
    (lambda: narrows.decode(b""), errors.TruncatedError, "truncated"),
    (lambda: narrows.decode(b"not a frame, truly"), errors.FrameError, "not a narrows frame"),
    (lambda: narrows.decode(3), errors.ArrayError, "int"),
    (lambda: narrows.decode(narrows.encode(features())[:-1]), errors.FrameError, ""),
    (lambda: narrows.decode(narrows.encode(features()), max_elements=10), errors.LimitError, "limit of 10"),
    (lambda: narrows.decode(narrows.encode(features()), out=features()[1:]), errors.ShapeError, "15x14x14"),
    (lambda: narrows.decode(narrows.encode(features()), out=features().T), errors.ShapeError, ""),
    (lambda: narrows.decode(narrows.encode(features()), out=features(dtype="f2")), errors.ArrayError, "f16"),
    (lambda: narrows.decode(narrows.encode(features((4, 4))), out=features((4, 8))[:, ::2]), errors.ArrayError, "row-major"),
    (lambda: narrows.decode(narrows.encode(numpy.ones(4, "f4")), out=bytes(16)), errors.ArrayError, "format"),
    (lambda: narrows.Profile.from_bytes(b"NRP\x01abcdef"), errors.FrameError, ""),
    (lambda: narrows.Profile.calibrate([]), errors.ShapeError, "samples"),
    (lambda: narrows.Profile.calibrate([numpy.ones(3, "f4")]), errors.OptionError, "different values"),
]


@pytest.mark.parametrize(("act", "kind", "text"), ERRORS)
def test_what_cannot_be_done_is_said(act, kind, text):
    with pytest.raises(kind) as caught:
        act()
    assert text in str(caught.value)


def test_an_output_that_is_read_only_is_left_alone():
    x = features()
    out = numpy.zeros_like(x)
    out.flags.writeable = False
    with pytest.raises(errors.ArrayError, match="read-only"):
        narrows.decode(narrows.encode(x), out=out)
    assert not out.any()


def test_errors_are_builtin_exceptions_too():
    assert issubclass(errors.ChecksumError, ValueError) and issubclass(errors.ArrayError, TypeError)
    assert issubclass(errors.DeadlineError, TimeoutError) and issubclass(errors.UnknownProfileError, LookupError)
    with pytest.raises(errors.NonFiniteError) as caught:
        narrows.encode(numpy.array([1, 2, numpy.inf], "f2"))
    assert caught.value.index == 2 and caught.value.value == numpy.inf


def test_every_public_name_says_what_it_is():
    import inspect

    for name in narrows.__all__:
        thing = getattr(narrows, name)
        if name != "__version__":
            assert inspect.getdoc(thing), name
            for member, method in inspect.getmembers(thing, lambda value: callable(value) or isinstance(value, property)):
                if not member.startswith("_") and member not in ("add_note", "with_traceback"):
                    assert inspect.getdoc(method), f"{name}.{member}"


def test_examples_in_the_documentation_of_the_extension_hold():
    import doctest

    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    for name in narrows.__all__:
        for example in finder.find(getattr(narrows, name), name, module=False, globs={"narrows": narrows}):
            runner.run(example)
    assert runner.tries >= 10 and not runner.failures
