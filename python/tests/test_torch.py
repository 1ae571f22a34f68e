"""PyTorch: tensors, operators, the module, and networks cut in two."""

import copy
import pickle

import narrows
import pytest
from narrows import errors

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import narrows.torch  # noqa: E402
from narrows.torch import Codec, RateMeter, split  # noqa: E402
from torch import nn  # noqa: E402

# PyTorch warns of its own doings.
pytestmark = pytest.mark.filterwarnings("default")


def features(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).relu().to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_survive_the_way_through_a_frame(dtype):
    x = features(8, 7, 7, dtype=dtype)
    for view in (x, x.transpose(0, 2), x[:, ::2], x[:0]):
        y = narrows.torch.decode(narrows.torch.encode(view, quantizer="lossless"))
        assert y.dtype == dtype and torch.equal(y, view)
        out = torch.empty(view.shape, dtype=dtype)
        assert narrows.torch.decode(narrows.torch.encode(view), out=out) is out
        assert narrows.encode(view) == narrows.torch.encode(view)


def test_a_tensor_with_a_gradient_is_encoded():
    x = features(8, 7, 7).requires_grad_()
    assert narrows.torch.encode(x) == narrows.torch.encode(x.detach())


def test_tensors_that_cannot_be_read_are_refused():
    with pytest.raises(errors.DeviceError, match=r"\.cpu\(\)"):
        narrows.torch.encode(torch.empty(3, device="meta"))
    with pytest.raises(errors.ArrayError, match="to_dense"):
        narrows.torch.encode(features(3, 3).to_sparse())
    with pytest.raises(errors.ArrayError, match="float64"):
        narrows.torch.encode(torch.zeros(3, dtype=torch.float64))
    with pytest.raises(errors.NonFiniteError):
        narrows.torch.encode(torch.tensor([1.0, float("nan")]))


ARGUMENTS = (4, "aiq", None, "auto", "size", None, "")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_pass_opcheck(dtype):
    x = features(8, 7, 7, dtype=dtype)
    ops = torch.ops.narrows
    torch.library.opcheck(ops.encode.default, (x, *ARGUMENTS))
    frame = ops.encode(x, *ARGUMENTS)
    torch.library.opcheck(ops.decode.default, (frame, [8, 7, 7], dtype, ""))
    torch.library.opcheck(ops.round_trip.default, (x, *ARGUMENTS))
    torch.library.opcheck(ops.round_trip.default, (features(2, 3, 3).requires_grad_(), *ARGUMENTS))


def test_compiled_functions_give_what_eager_ones_give():
    def through(x):
        frame = torch.ops.narrows.encode(x * 2, *ARGUMENTS)
        return torch.ops.narrows.decode(frame, list(x.shape), x.dtype, "") + 1

    x = features(8, 7, 7)
    compiled = torch.compile(through, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), through(x))


def test_a_compiled_codec_counts_its_bytes():
    codec = Codec(bits=3)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), codec, nn.Conv2d(8, 4, 3)).eval()
    x = features(2, 3, 12, 12)
    with torch.no_grad():
        expected, size = model(x), int(codec.rate.total_bytes)
        codec.rate.reset()
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert torch.allclose(compiled(x), expected, atol=1e-5)
    assert int(codec.rate.total_bytes) == size > 0


def test_the_codec_gives_what_the_other_end_gets():
    x = features(8, 14, 14)
    codec = Codec(bits=4, clip=99.9)
    frame = narrows.torch.encode(x, 4, clip=99.9)
    assert torch.equal(codec(x), narrows.torch.decode(frame))
    assert int(codec.rate.total_bytes) == len(frame)
    assert codec.rate.bits_per_element == pytest.approx(8 * len(frame) / x.numel())
    assert codec.rate.ratio == pytest.approx(4 * x.numel() / len(frame))


def test_the_codec_works_with_profiles_and_per_sample():
    profile = narrows.Profile.calibrate([features(8, 7, 7, seed=k) for k in range(4)], bits=4)
    codec = Codec(profile=profile, per_sample=True)
    batch = features(3, 8, 7, 7, seed=7)
    for sample, coded in zip(batch, codec(batch), strict=True):
        frame = narrows.torch.encode(sample, profile=profile)
        assert torch.equal(coded, narrows.torch.decode(frame, profiles=[profile]))
    assert int(codec.rate.tensors) == 3


def test_gradients_go_straight_through_so_that_a_net_can_be_trained():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), Codec(bits=2, layout="natural"), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    x = torch.randn(256, 4)
    target = x.prod(dim=1, keepdim=True).tanh() + x[:, :1]
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # The first layer lies before the codec: without a gradient it would stay where it was.
    assert losses[-1] < 0.5 * losses[0]


def test_modules_are_copied_and_saved():
    codec = Codec(bits=3)
    codec(features(4, 4, 4))
    assert not codec.state_dict()
    assert int(copy.deepcopy(codec).rate.tensors) == 1
    assert pickle.loads(pickle.dumps(codec)).bits == 3
    assert isinstance(codec.rate, RateMeter)
    with pytest.raises(errors.OptionError):
        Codec(bits=0)


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(x + self.conv2(torch.relu(self.norm(self.conv1(x)))))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.layer1 = nn.Sequential(Residual(8), Residual(8))
        self.layer2 = nn.Sequential(Residual(8), nn.MaxPool2d(2))
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.layer2(self.layer1(self.stem(x)))
        return self.head(x.mean((2, 3)))


def test_a_residual_network_is_cut():
    model, x = Net().eval(), features(2, 3, 16, 16)
    for at in ("stem", "layer1", "layer1.0", "layer2"):
        head, tail = split(model, at=at, example_inputs=(x,))
        crossing = head(x)
        assert isinstance(crossing, torch.Tensor)
        assert torch.equal(tail(crossing), model(x))
    head, tail = split(model, at="layer1")
    assert head.stem.weight is model.stem.weight
    names = {name for name, _ in head.named_parameters()} | {name for name, _ in tail.named_parameters()}
    assert names == {name for name, _ in model.named_parameters()}


def test_a_skip_connection_around_the_cut_crosses_too():
    model, x = Net().eval(), features(2, 3, 16, 16)
    head, tail = split(model, at="layer1.0.conv1", example_inputs=x)
    crossing = head(x)
    assert isinstance(crossing, tuple) and len(crossing) == 2 and head.crossing[0] == "layer1.0.conv1"
    codec = Codec(bits=8)
    assert torch.equal(tail(*crossing), model(x))
    assert tail(codec(crossing[0]), *crossing[1:]).shape == (2, 10)


class Branching(nn.Module):
    """Python code that torch.fx cannot follow."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x, scale):
        if float(scale.detach().sum()) < 0:  # a value decides
            raise ValueError
        for layer in self.layers:
            x = torch.tanh(layer(x)) * scale
        return x


class Shaped(nn.Module):
    """torch.fx cannot iterate over a traced shape, torch.export can."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x, mask):
        positions = torch.arange(len(x.shape) + x.shape[1])[: x.shape[1], None]
        for _ in range(*[int(n > 100) for n in x.shape[:1]]):
            x = x + 1
        for layer in self.layers:
            x = torch.tanh(layer(x)) * mask + positions
        return x


def test_extra_inputs_cross_with_the_features():
    model = Shaped().eval()
    args = (torch.randn(2, 5, 8), torch.ones(2, 5, 1))
    head, tail = split(model, at="layers.1", example_inputs=args)
    crossing = head(*args)
    # The mask; positions depend on no input, so that the tail has its own.
    assert len(crossing) == 2 and crossing[0].shape == (2, 5, 8)
    found = tail(*crossing)
    found = found[0] if isinstance(found, (tuple, list)) else found
    assert torch.allclose(found, model(*args))


def test_a_decoder_of_transformers_is_cut():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.randint(0, 64, (2, 7))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    kwargs = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    head, tail = split(model, at="model.layers.1", example_kwargs=kwargs)
    crossing = head(**kwargs)
    # Positions depend on no input, so that the tail has its own; the mask crosses.
    hidden, *extra = crossing
    assert hidden.shape == (2, 7, 32) and extra
    with torch.no_grad():
        expected = model(**kwargs).logits
        found = tail(hidden, *extra)
        coded = tail(Codec(bits=8)(hidden), *extra)
    first = lambda output: output[0] if isinstance(output, (tuple, list)) else output  # noqa: E731
    assert torch.allclose(first(found), expected, atol=1e-5)
    assert 0 < (first(coded) - expected).abs().max() < 0.5


def test_what_cannot_be_cut_is_said():
    model = Net().eval()
    with pytest.raises(errors.ModelError, match="did you mean 'layer1'"):
        split(model, at="layer_1")
    twice = nn.Sequential(nn.Linear(4, 4))
    twice.append(twice[0])
    with pytest.raises(errors.ModelError, match="2 times|0 times|never"):
        split(nn.Sequential(twice, nn.ReLU()), at="0.0", example_inputs=(torch.rand(2, 4),))
    with pytest.raises(errors.ModelError, match="example_inputs"):
        split(Branching(), at="layers.1")
    with pytest.raises(errors.ModelError, match=r"torch\.export"):
        split(Branching(), at="layers.1", example_inputs=(torch.randn(2, 8), torch.ones(1)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
class TestOnGpu:
    """What an NVIDIA GPU codes; test_cuda.py is the same without one, and without PyTorch."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_tensors_survive_the_way_through_a_frame(self, dtype):
        x = features(32, 14, 14, dtype=dtype)
        views = [lambda x: x, lambda x: x.transpose(0, 2), lambda x: x[:, ::2], lambda x: x.flatten()[1:], lambda x: x[:0]]
        for cut in views:
            view = cut(x)
            frame = narrows.torch.encode(cut(x.cuda()), 4)
            expected = narrows.torch.decode(narrows.torch.encode(view, 4))
            assert torch.equal(narrows.torch.decode(frame), expected)
            out = torch.empty(view.shape, dtype=dtype, device="cuda")
            assert narrows.torch.decode(frame, out=out) is out
            assert torch.equal(out.cpu(), expected)

    def test_work_on_pytorchs_stream_is_waited_for(self):
        weights = torch.randn(2048, 2048, device="cuda")
        for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
            with torch.cuda.stream(stream):
                x = weights
                for _ in range(20):
                    x = torch.tanh(x @ weights)
                frame = narrows.torch.encode(x, 8)
            stream.synchronize()
            assert torch.equal(narrows.torch.decode(frame), narrows.torch.decode(narrows.torch.encode(x.cpu(), 8)))

    def test_operators_and_the_module(self):
        x = features(8, 7, 7).cuda()
        ops = torch.ops.narrows
        torch.library.opcheck(ops.encode.default, (x, *ARGUMENTS))
        torch.library.opcheck(ops.decode.default, (ops.encode(x, *ARGUMENTS), [8, 7, 7], x.dtype, "", x.device))
        torch.library.opcheck(ops.round_trip.default, (x.requires_grad_(), *ARGUMENTS))
        for codec in (Codec(bits=3), Codec(bits=3).cuda()):
            assert torch.equal(codec(x).cpu(), codec(x.cpu())) and int(codec.rate.tensors) == 2
        with pytest.raises(errors.DeviceError, match=r"\.cpu\(\)"):
            Codec(clip=99.9)(x)
