"""Llama-2 (or any causal language model) with the codec after one of its decoder layers, by lm-eval's tasks.

    python llama.py --model meta-llama/Llama-2-7b-hf [--at 15] [--bits 6] [--limit 200]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from narrows.torch import Codec
from table import show
from torch import Tensor, nn

#: The reference work's, by lm-eval's names.
TASKS = ("mmlu", "hellaswag", "arc_easy", "arc_challenge", "piqa", "winogrande", "boolq", "openbookqa")


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The list of a model's decoder layers: the longest list of modules in it."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ValueError("the model has no list of layers")
    return max(lists, key=len)


@contextmanager
def coded(model: nn.Module, at: int, codec: Codec) -> Iterator[Codec]:
    """The hidden states after layer ``at`` go through the codec, each sequence as a tensor of tokens x features."""
    layers = decoder_layers(model)
    if not 0 <= at < len(layers):
        raise ValueError(f"layer {at} of {len(layers)}: give 0 to {len(layers) - 1}")

    def through(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        # Frames are made on the CPU, in the network's own precision.
        restored: Tensor = codec(hidden.cpu()).to(hidden.device)
        return (restored, *output[1:]) if isinstance(output, tuple) else restored

    handle = layers[at].register_forward_hook(through)
    try:
        yield codec
    finally:
        handle.remove()


def codec_for(bits: int) -> Codec:
    """Tokens are rows, features are channels."""
    return Codec(bits, axis=1, per_sample=True)


def evaluate(
    model: Any, tokenizer: Any, tasks: Sequence[str], limit: int | None = None, folder: str | None = None
) -> dict[str, float]:
    """Accuracy in percent by task, by lm-eval; ``folder`` holds tasks of one's own."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    results = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer),
        tasks=list(tasks),
        limit=limit,
        task_manager=TaskManager(include_path=folder),
    )
    return {task: 100 * results["results"][task]["acc,none"] for task in tasks}


def table(model: Any, score: Any, at: int, bits: Sequence[int]) -> list[dict[str, Any]]:
    """A row without the codec and one for each number of bits; ``score`` gives the accuracies."""
    rows = [{"Q": "", "bits/element": float(8 * model.dtype.itemsize), **score()}]
    for q in bits:
        with coded(model, at, codec_for(q)) as codec:
            accuracies = score()
        rows.append({"Q": q, "bits/element": codec.rate.bits_per_element, **accuracies})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="name or folder")
    parser.add_argument("--at", type=int, help="decoder layer after which to cut (default: the middle one)")
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 6, 8])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--include", metavar="FOLDER", help="lm-eval tasks of your own (YAML)")
    parser.add_argument("--limit", type=int, help="questions of each task (default: all)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)

    import transformers

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype="auto").to(args.device).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    at = len(decoder_layers(model)) // 2 - 1 if args.at is None else args.at
    rows = table(model, lambda: evaluate(model, tokenizer, args.tasks, args.limit, args.include), at, args.bits)
    show(rows, args.json)


if __name__ == "__main__":
    main()
