"""Cutting a module in two."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from narrows.errors import ModelError


def split(
    model: nn.Module,
    at: str,
    example_inputs: Sequence[Any] | Tensor | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Cut a module into the part up to a submodule's output, and the rest.

    The graph is found by ``torch.fx`` symbolic tracing, which keeps the model's own submodules (to train them, say);
    where Python code stands in its way (Hugging Face models), by ``torch.export``, which needs example inputs and
    fixes their shapes. Both halves share the model's parameters.

    Args:
        model: any module.
        at: path of the submodule after whose output to cut, such as ``"layer2"`` or ``"model.layers.3"``; the names
            are those of ``model.named_modules()``.
        example_inputs: the model's positional inputs, to compare the halves with the model (in eval mode) and to export.
        example_kwargs: its keyword inputs.

    Returns:
        ``(head, tail)``. If one tensor crosses the cut, ``tail(head(*inputs))`` is the model. If there are more (masks,
        position embeddings, a skip connection around the cut), the head gives a tuple with the submodule's output first,
        and ``tail(*head(*inputs))`` is the model; ``head.crossing`` names them.

    Raises:
        ModelError: no such submodule, it is not called exactly once, its output is no tensor, the model cannot be traced,
            or the halves do not give what the model gives.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    >>> x = torch.rand(3, 4)
    >>> head, tail = split(model, at="1", example_inputs=(x,))
    >>> bool((tail(head(x)) == model(x)).all())
    True
    """
    args = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs or ())
    kwargs = dict(example_kwargs or {})
    names = [name for name, _ in model.named_modules() if name]
    if at not in names:
        nearest = difflib.get_close_matches(at, names, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
        raise ModelError(f"the model has no submodule {at!r}{hint}")
    graph_module, node = _trace(model, at, args, kwargs)
    head, tail = _cut(graph_module, node)
    if (args or kwargs) and not model.training:
        _compare(model, head, tail, args, kwargs)
    return head, tail


class _Tracer(fx.Tracer):
    """Does not look inside the submodule that is cut after, so that its output is one node."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self._at = at

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name == self._at or super().is_leaf_module(m, module_qualified_name)


def _trace(
    model: nn.Module, at: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[fx.GraphModule, fx.Node]:
    try:
        graph = _Tracer(at).trace(model)
    except Exception as error:  # anything may go wrong in the model's own code
        if not args and not kwargs:
            text = f"torch.fx cannot trace the model ({error}); give example_inputs, so that torch.export can try"
            raise ModelError(text) from error
        return _export(model, at, args, kwargs)
    calls = [node for node in graph.nodes if node.op == "call_module" and node.target == at]
    return fx.GraphModule(model, graph), _only(calls, at)


def _only(calls: Sequence[fx.Node], at: str) -> fx.Node:
    if len(calls) != 1:
        how = "never" if not calls else f"{len(calls)} times"
        raise ModelError(f"submodule {at!r} is called {how}; a cut needs one that is called once")
    return calls[0]


def _export(
    model: nn.Module, at: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[fx.GraphModule, fx.Node]:
    try:
        with torch.no_grad():
            exported = torch.export.export(model, args, kwargs, strict=False)
    except Exception as error:
        raise ModelError(f"neither torch.fx nor torch.export can trace the model: {error}") from error
    graph_module = exported.module(check_guards=False)
    assert isinstance(graph_module, fx.GraphModule)
    inside = [node for node in graph_module.graph.nodes if _is_inside(node, at)]
    # The output is what is used outside.
    used = [node for node in inside if any(not _is_inside(user, at) for user in node.users)]
    tensors = [node for node in used if isinstance(node.meta.get("val"), Tensor)]
    if not tensors:
        raise ModelError(f"submodule {at!r} gives no tensor that the rest of the model uses")
    return graph_module, tensors[-1]


def _is_inside(node: fx.Node, at: str) -> bool:
    stack = node.meta.get("nn_module_stack") or {}
    return any(path == at or path.endswith(f".{at}") or path == f"L['self'].{at}" for path, _ in stack.values())


def _cut(whole: fx.GraphModule, at: fx.Node) -> tuple[fx.GraphModule, fx.GraphModule]:
    nodes = list(whole.graph.nodes)
    free = _free(nodes)
    before = _ancestors([at])
    # What the tail computes: all that leads to the output and is not the head's.
    output = next(node for node in nodes if node.op == "output")
    needed = _ancestors([output], stop=before)
    after = [node for node in nodes if node in needed and node not in before]
    crossing = [at]
    for node in after:
        for value in node.all_input_nodes:
            given = value in before or value.op == "placeholder"
            if given and value not in free and value not in crossing:
                crossing.append(value)
    after = [node for node in after if node.op != "placeholder"]
    head = _half(whole, "Head", _head_graph(nodes, before, crossing))
    tail = _half(whole, "Tail", _tail_graph(nodes, after, free, crossing))
    names = [str(value.target) if value.op == "call_module" else value.name for value in crossing]
    object.__setattr__(head, "crossing", names)
    return head, tail


def _free(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Nodes that depend on no input: either half computes them by itself."""
    free: set[fx.Node] = set()
    for node in nodes:
        if node.op == "get_attr" or (node.op == "call_function" and set(node.all_input_nodes) <= free):
            free.add(node)
    return free


def _ancestors(of: Sequence[fx.Node], stop: set[fx.Node] | None = None) -> set[fx.Node]:
    """These nodes and all they are computed from, not looking behind `stop`."""
    found: set[fx.Node] = set()
    left = list(of)
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            if stop is None or node not in stop:
                left.extend(node.all_input_nodes)
    return found


def _head_graph(nodes: Sequence[fx.Node], before: set[fx.Node], crossing: Sequence[fx.Node]) -> fx.Graph:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        # Every input stays, so that the head is called as the model is.
        if node in before or node.op == "placeholder":
            copies[node] = graph.node_copy(node, copies.__getitem__)
    values = tuple(copies[value] for value in crossing)
    graph.output(values[0] if len(values) == 1 else values)
    return graph


def _tail_graph(
    nodes: Sequence[fx.Node], after: Sequence[fx.Node], free: set[fx.Node], crossing: Sequence[fx.Node]
) -> fx.Graph:
    graph = fx.Graph()
    copies = {value: graph.placeholder(value.name) for value in crossing}
    needed = _ancestors(after, stop=set(crossing))
    for node in nodes:
        if node in copies or node not in needed:
            continue
        if node in free or node in after:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return graph


def _half(whole: fx.GraphModule, name: str, graph: fx.Graph) -> fx.GraphModule:
    half = fx.GraphModule(whole, graph, class_name=name)
    half.train(whole.training)
    return half


def _compare(
    model: nn.Module, head: fx.GraphModule, tail: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with torch.no_grad():
        expected = model(*args, **kwargs)
        crossing = head(*args, **kwargs)
        found = tail(*crossing) if isinstance(crossing, tuple) else tail(crossing)
    if not isinstance(crossing, tuple) and not isinstance(crossing, Tensor):
        raise ModelError(f"the submodule gives {type(crossing).__name__}, not a tensor")
    try:
        torch.testing.assert_close(_tensors(found), _tensors(expected), rtol=1e-4, atol=1e-4)
    except AssertionError as error:
        raise ModelError(f"the halves do not give what the model gives: {error}") from error


def _tensors(output: Any) -> list[Tensor]:
    leaves, _ = torch.utils._pytree.tree_flatten(output)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]
