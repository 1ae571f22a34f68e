"""Every public name says what it is, what it takes and what goes wrong; stubs are the module's own."""

import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import narrows
import pytest

HERE = Path(__file__).parents[1]
MODULES = ["narrows", "narrows.client", "narrows.errors", "narrows.onnx", "narrows.server", "narrows.torch"]
#: What cannot fail, or fails as PyTorch does.
NEVER_FAILS = {
    "narrows.Decoder.add_profile", "narrows.Profile.to_bytes",
    "narrows.client.Client.close", "narrows.client.AsyncClient.close", "narrows.client.Client.is_connected",
    "narrows.server.Server.stop", "narrows.server.AsyncServer.stop", "narrows.server.Server.wait", "narrows.server.AsyncServer.wait",
    "narrows.torch.RateMeter", "narrows.torch.RateMeter.add", "narrows.torch.RateMeter.reset", "narrows.torch.RateMeter.extra_repr",
    "narrows.torch.Codec.extra_repr",
}  # fmt: skip


def public(module):
    """Names and values of a module, and the members of its classes."""
    for name in module.__all__:
        value = getattr(module, name)
        yield f"{module.__name__}.{name}", value
        if inspect.isclass(value) and not issubclass(value, BaseException):
            for member, inner in vars(value).items():
                if not member.startswith("_") and (callable(inner) or hasattr(inner, "__get__")):
                    yield f"{module.__name__}.{name}.{member}", getattr(value, member)


def everything():
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue  # PyTorch, or a build without ONNX
        # pytest, looking for doctests, leaves an empty module where the import failed.
        if hasattr(module, "__all__"):
            yield from public(module)


#: Aliases of types have a comment instead.
NAMES = {name: value for name, value in everything() if name not in ("narrows.__version__", "narrows.server.Tail")}


def parameters(value):
    """Names of what is given; none for what takes nothing."""
    if inspect.isclass(value) and issubclass(value, (BaseException, tuple)):
        return []
    if not callable(value):
        return []
    try:
        given = inspect.signature(value).parameters
    except ValueError:
        return []
    return [name for name in given if name not in ("self", "args", "kwargs")]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_documented(name):
    value = NAMES[name]
    text = inspect.getdoc(value)
    assert text, "no docstring"
    inherited = re.search(r"([Aa]s (of )?|Takes the arguments of )(:\w+:)?`[\w.]+`", text)
    names = parameters(value)
    if names and not inherited:
        missing = [one for one in names if not re.search(rf"\b{one}\b", text)]
        assert not missing, f"not in the docstring: {missing}"
        assert len(names) == 1 or "Args:" in text, "no Args:"
    fails = names or (callable(value) and not inspect.isclass(value))
    if fails and name not in NEVER_FAILS and not inherited:
        assert "Raises" in text, "nothing is said of errors"


def test_the_examples_of_the_readme_run(tmp_path, monkeypatch):
    repository = Path(os.environ.get("NARROWS_REPOSITORY", HERE.parent))
    shutil.copy(repository / "models/fashion-resnet/model.onnx", tmp_path)
    monkeypatch.chdir(tmp_path)
    text = (HERE / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 4
    names = {}
    for block in blocks:
        if "torch" in block or "torch" in names:
            pytest.importorskip("torch", reason="PyTorch is not installed")
        if "narrows.onnx" in block:
            pytest.importorskip("narrows.onnx", reason="this build has no ONNX")
        exec(compile(block, "README.md", "exec"), names)


def test_stubs_are_what_the_module_says(tmp_path):
    if shutil.which("pyo3-introspection") is None:
        pytest.skip("pyo3-introspection is not installed (cargo install pyo3-introspection)")
    script = Path(os.environ.get("NARROWS_REPOSITORY", HERE.parent)) / "python/stubs"
    library, stubs = Path(narrows._narrows.__file__), tmp_path / "stubs.pyi"
    if b".symtab" not in library.read_bytes():
        pytest.skip("the extension module is stripped")
    made = subprocess.run([script, library, stubs], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert stubs.read_text() == (HERE / "narrows/_narrows.pyi").read_text(), "python/stubs writes them again"


def test_stubs_have_the_signatures_that_python_sees():
    pytest.importorskip("mypy", reason="mypy is not installed")
    if not (hasattr(narrows._narrows, "cuts") and hasattr(narrows._narrows, "run_program")):
        pytest.skip("stubs are of a build with ONNX and the program")
    done = subprocess.run([sys.executable, "-m", "mypy.stubtest", "narrows._narrows"], cwd=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
