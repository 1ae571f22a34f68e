"""Both ends of the link, in Python and in Rust, in any pairing."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import narrows
import numpy
import pytest
from narrows import errors
from narrows.client import AsyncClient, Client
from narrows.server import AsyncServer, Server

# Tests run on a copy of the package; the repository has the demo network.
ROOT = Path(os.environ.get("NARROWS_REPOSITORY", Path(__file__).parents[2]))


def twice(x):
    return x * 2


def fail(x):
    raise KeyError("no such class")


def features(seed=0, shape=(8, 7, 7)):
    return numpy.random.default_rng(seed).normal(size=shape).astype("f4")


@pytest.fixture
def server():
    with Server({"twice": twice, "fail": fail}, workers=2, drain_timeout=2) as server:
        yield server


def test_a_tail_in_python_answers_a_client_in_python(server):
    with Client(server.address, bits=8) as client:
        assert client.routes == ["twice", "fail"]
        assert client.ping() < 5
        x = features()
        y = client.run("twice", x)
        assert (y == 2 * narrows.decode(narrows.encode(x, bits=8))).all()
        answer = client.request("twice", narrows.encode(x))
        assert answer.attempts == 1 and answer.round_trip > 0 and answer.bytes_sent > 100
        assert narrows.decode(answer.frame).shape == x.shape


def test_failures_are_told_and_the_connection_lives_on(server):
    with Client(server.address) as client:
        with pytest.raises(errors.RefusedError, match="no such class") as caught:
            client.run("fail", features())
        assert caught.value.code == "tail-failed"
        with pytest.raises(errors.RefusedError) as caught:
            client.run("nowhere", features())
        assert caught.value.code == "unknown-route"
        with pytest.raises(errors.RefusedError) as caught:
            client.request("twice", b"not a frame")
        assert caught.value.code == "bad-payload"
        assert client.run("twice", features()).shape == (8, 7, 7)
    with pytest.raises(errors.LinkError, match="closed"):
        client.ping()


def test_profiles_are_offered_to_the_server(server):
    profile = narrows.Profile.calibrate([features(k) for k in range(3)], bits=4)
    frame = narrows.encode(features(5), profile=profile)
    with Client(server.address) as client:
        with pytest.raises(errors.RefusedError, match=profile.id):
            client.request("twice", frame)
    with Client(server.address, encoder=narrows.Encoder(profile=profile), profiles=[profile]) as client:
        y = client.run("twice", features(5))
    assert (y == 2 * narrows.decode(frame, profiles=[profile])).all()


def test_tokens_are_asked_for():
    with Server({"twice": twice}, tokens=["secret"]) as server:
        with pytest.raises(errors.RefusedError) as caught:
            Client(server.address)
        assert caught.value.code == "unauthorized"
        with Client(server.address, token="secret") as client:
            assert client.run("twice", features()).shape == (8, 7, 7)


def test_nobody_there_is_a_link_error():
    with Server({"twice": twice}) as server:
        address = server.address
    with pytest.raises(errors.LinkError):
        Client(address, connect_timeout=1)
    with pytest.raises(errors.LinkError), Server({"twice": twice}, "256.0.0.1:0"):
        pass


def test_a_late_answer_is_a_deadline_error():
    with Server({"slow": lambda x: time.sleep(1) or x}, drain_timeout=2) as server, Client(server.address) as client:
        with pytest.raises(errors.DeadlineError):
            client.run("slow", features(), timeout=0.1)


def test_options_out_of_range_are_refused():
    for options in ({"request_timeout": -1.0}, {"ca": b"no certificate"}):
        with pytest.raises(errors.OptionError):
            Client("127.0.0.1:1", **options)
    with pytest.raises(errors.OptionError):
        Server({"twice": twice}, certificate=b"alone")


def test_many_threads_share_a_client(server):
    wrong = []

    def work(client, seed):
        x = features(seed)
        expected = 2 * narrows.decode(narrows.encode(x))
        for _ in range(20):
            if not (client.run("twice", x) == expected).all():
                wrong.append(seed)

    with Client(server.address) as client:
        threads = [threading.Thread(target=work, args=(client, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_asyncio_at_both_ends():
    async def slowly(x):
        await asyncio.sleep(0.05)
        return x + 1

    async def talk():
        async with AsyncServer({"slowly": slowly, "twice": twice}, workers=4) as server:
            async with AsyncClient(server.address, connections=4, bits=8) as client:
                assert client.routes == ["slowly", "twice"]
                start = time.perf_counter()
                inputs = [features(k) for k in range(8)]
                results = await asyncio.gather(*(client.run("slowly", x) for x in inputs))
                elapsed = time.perf_counter() - start
                for x, y in zip(inputs, results, strict=True):
                    assert (y == narrows.decode(narrows.encode(x, bits=8)) + 1).all()
                # One after the other they would sleep 0.4 s.
                assert elapsed < 0.35
                assert await client.ping() < 5
                with pytest.raises(errors.RefusedError):
                    await client.run("nowhere", features())

    asyncio.run(talk())


def test_an_async_client_that_finds_nobody_leaves_nothing_open():
    async def talk():
        async with AsyncClient("127.0.0.1:9", connect_timeout=1):
            pass

    with pytest.raises(errors.LinkError):
        asyncio.run(talk())


def program(*args, **options):
    return subprocess.Popen([sys.executable, "-m", "narrows", *args], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, **options)


@pytest.fixture(scope="module")
def images():
    return numpy.load(ROOT / "models/fashion-resnet/test-1000.npz")["images"][:8].astype("f4")[:, None, None] / 255


MODEL = str(ROOT / "models/fashion-resnet/model.onnx")


def test_a_client_in_python_talks_to_the_rust_server(images):
    onnx = pytest.importorskip("narrows.onnx")
    with program("--quiet", "serve", "--until-stdin-ends", "--demo-cut", "layer2") as server:
        address = server.stdout.readline().strip()
        head, _ = onnx.split(MODEL, at="layer2")
        head, whole = onnx.Engine(head), onnx.Engine(MODEL)
        with Client(address, encoder=narrows.Encoder(quantizer="lossless")) as client:
            assert client.routes == ["layer2"]
            for image in images:
                logits = client.run("layer2", head.run(image))
                assert (logits.ravel() == whole.run(image).ravel()).all()
        server.stdin.close()


def test_the_rust_client_talks_to_a_server_in_python(images, tmp_path):
    onnx = pytest.importorskip("narrows.onnx")
    head, tail = onnx.split(MODEL, at="layer2")
    (tmp_path / "head.onnx").write_bytes(head)
    numpy.save(tmp_path / "images.npy", images[:, 0])
    engine = onnx.Engine(tail)
    with Server({"layer2": engine.run}) as server:
        arguments = ["run", "--json", "--head", tmp_path / "head.onnx", "--server", server.address, tmp_path / "images.npy"]
        with program(*arguments, stderr=subprocess.PIPE) as client:
            out, err = client.communicate(timeout=60)
        assert client.returncode == 0, err
    assert "layer2" in out or "top" in out
