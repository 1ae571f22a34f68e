"""Compress the key-value cache and the hidden states of a transformer.

    python compress_cache.py [--model NAME_OR_FOLDER]

Without --model a small Llama with random weights is made, and nothing is downloaded.
"""

from __future__ import annotations

import argparse
from typing import Any

import narrows
import narrows.torch
import torch


def network(name: str | None) -> Any:
    """A causal language model of transformers."""
    import transformers

    if name is not None:
        return transformers.AutoModelForCausalLM.from_pretrained(name)
    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256,
    )
    return transformers.LlamaForCausalLM(config)


def rate(tensor: torch.Tensor, **options: Any) -> tuple[float, torch.Tensor]:
    """Bits an element, and what the tensor becomes."""
    frame = narrows.torch.encode(tensor, **options)
    return 8 * len(frame) / tensor.numel(), narrows.torch.decode(frame)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or folder of a causal language model (default: a random one)")
    args = parser.parse_args(argv)

    torch.manual_seed(0)
    model = network(args.model).eval()
    ids = torch.randint(0, model.config.vocab_size, (1, 64))
    with torch.no_grad():
        output = model(ids, use_cache=True, output_hidden_states=True)

    print("hidden states (tokens are rows, features are lanes)")
    for layer, hidden in enumerate(output.hidden_states[:-1]):
        bits, coded = rate(hidden[0].contiguous(), bits=6, quantizer="per-channel", axis=1)
        error = (coded - hidden[0]).norm() / hidden[0].norm()
        print(f"  layer {layer}: {bits:.2f} bits an element, relative error {error:.3%}")

    print("key-value cache")
    total, raw = 0.0, 0
    for layer, entry in enumerate(output.past_key_values.layers):
        for name, tensor in (("keys", entry.keys), ("values", entry.values)):
            # Heads x tokens x features to features x (heads x tokens): a channel keeps its range from token to token.
            heads, tokens, width = tensor.shape[1:]
            rows = tensor[0].permute(0, 2, 1).reshape(heads * width, tokens)
            bits, coded = rate(rows, bits=4, quantizer="per-channel", axis=0)
            error = (coded - rows).norm() / rows.norm()
            total, raw = total + bits * rows.numel() / 8, raw + rows.numel() * rows.element_size()
            print(f"  layer {layer} {name:6}: {bits:.2f} bits an element, relative error {error:.3%}")
    print(f"the whole cache: {raw:,} bytes -> {total:,.0f} bytes, {raw / total:.1f} x smaller")


if __name__ == "__main__":
    main()
