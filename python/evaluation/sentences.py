"""MiniLM through the link: how far sentence embeddings move when the encoder is split.

    python sentences.py minilm.onnx --tokens models/sentences/sentences.ids [--at TENSOR] [--bits 4 6]

`models/export.py` writes minilm.onnx. Token files have a sentence in each line, its token numbers with spaces between.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import narrows
import numpy
from narrows.client import Client
from narrows.onnx import Engine, cuts, split
from narrows.server import Server
from numpy.typing import NDArray
from table import show

Array = NDArray[numpy.float32]


def read_tokens(path: str) -> list[list[int]]:
    """The sentences of a token file."""
    lines = (line.split("#")[0].split() for line in Path(path).read_text().splitlines())
    return [[int(token) for token in line] for line in lines if line]


def inputs_of(engine: Engine, tokens: Sequence[int]) -> dict[str, NDArray[numpy.int64]]:
    """A sentence as the model's inputs: a batch of one, nothing padded."""
    ids = numpy.array([tokens], dtype="i8")
    kinds = {"attention_mask": numpy.ones_like(ids), "token_type_ids": numpy.zeros_like(ids)}
    return {port.name: kinds.get(port.name, ids) for port in engine.inputs}


def embedding(output: Any) -> Array:
    """The mean over tokens, of length one; the output as it is if the model pools by itself."""
    array = numpy.asarray(output[0] if isinstance(output, tuple) else output)
    vector = array.mean(axis=1)[0] if array.ndim == 3 else array.reshape(-1)
    unit: Array = vector / numpy.linalg.norm(vector)
    return unit


def measure(model: str, at: str, sentences: Sequence[Sequence[int]], bits: Sequence[int]) -> list[dict[str, Any]]:
    """Cosine similarity with the unsplit model's embeddings, and bytes of a request."""
    whole = Engine(model)
    head, tail = (Engine(half) for half in split(model, at))
    expected = [embedding(whole.run(**inputs_of(whole, tokens))) for tokens in sentences]
    payload = next(port.name for port in tail.inputs if port.dtype == "float32")

    def run_tail(features: Array) -> Array:
        # What else the tail takes follows from the sentence's length: nothing is padded.
        sides = inputs_of(tail, range(features.shape[1]))
        sides[payload] = features  # type: ignore[assignment]
        return embedding(tail.run(**sides))

    def run_head(tokens: Sequence[int]) -> Array:
        outputs = head.run(**inputs_of(head, tokens))
        names = [port.name for port in head.outputs]
        features: Array = outputs[names.index(payload)] if isinstance(outputs, tuple) else outputs
        return features

    rows = []
    with Server({"tail": run_tail}) as server, Client(server.address) as client:
        for q in bits:
            encoder, decoder = narrows.Encoder(q, quantizer="per-channel", axis=2), narrows.Decoder()
            similarities, sent = [], 0
            for tokens, unit in zip(sentences, expected, strict=True):
                answer = client.request("tail", encoder.encode(run_head(tokens)))
                similarities.append(float(unit @ decoder.decode(answer.frame).ravel()))
                sent += answer.bytes_sent
            mean, least = float(numpy.mean(similarities)), min(similarities)
            rows.append({"cut": at, "Q": q, "cosine, mean": mean, "cosine, least": least, "bytes": sent / len(sentences)})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--at", help="tensor to cut at (default: the inner cut in the middle)")
    parser.add_argument("--bits", type=int, nargs="+", default=[2, 3, 4, 6])
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    inner = [cut.name for cut in cuts(args.model) if cut.place == "inner"]
    at = args.at or inner[len(inner) // 2]
    show(measure(args.model, at, read_tokens(args.tokens), args.bits), args.json)


if __name__ == "__main__":
    main()
