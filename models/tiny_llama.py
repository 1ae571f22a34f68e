"""Make the decoder that crates/narrows-weights/tests/llama.rs runs: random weights on a grid, and what transformers make of it.

    python models/tiny_llama.py            # needs torch, transformers, safetensors
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

FOLDER = Path(__file__).parents[1] / "crates/narrows-weights/tests/data/tiny-llama"
STEP, HALF = 2.0**-4, 7
SIZES = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=24)


def main():
    torch.manual_seed(3)
    config = LlamaConfig(attn_implementation="eager", tie_word_embeddings=False, rms_norm_eps=1e-5, **SIZES)
    model = LlamaForCausalLM(config).eval()
    steps = {}
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() == 2:
                # Multiples of a power of two, which bfloat16 holds exactly.
                bins = (torch.randn_like(weights) * 0.2 / STEP).round().clamp(-HALF, HALF)
                weights.copy_(bins * STEP)
                steps[name] = {"step": [STEP], "bins": 2 * HALF + 1}
            else:
                weights.copy_((1 + 0.2 * torch.randn_like(weights)).bfloat16())
        words = torch.randint(0, config.vocab_size, (3, 20))
        logits = model(words).logits
    FOLDER.mkdir(parents=True, exist_ok=True)
    tensors = {name: weights.detach().bfloat16().contiguous() for name, weights in model.named_parameters()}
    save_file(tensors, FOLDER / "model.safetensors", {"narrows.steps": json.dumps(steps)})
    save_file({"words": words.int(), "logits": logits.contiguous()}, FOLDER / "expected.safetensors")
    config.architectures = ["LlamaForCausalLM"]
    kept = {key: value for key, value in config.to_dict().items() if key not in ("id2label", "label2id")}
    (FOLDER / "config.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
