"""Examples and evaluations run, the latter on stand-ins; examples are typed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
ROOT = Path(os.environ.get("NARROWS_REPOSITORY", HERE.parent))


def script(path, *args):
    """Run a script as a person would; its output."""
    environment = os.environ | {"PYTHONPATH": str(HERE), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, HERE / path, *args], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(name):
    """A module of the evaluation folder."""
    sys.path.insert(0, str(HERE / "evaluation"))
    try:
        return __import__(name)
    finally:
        sys.path.pop(0)


def test_the_quick_start_runs_with_numpy_alone():
    assert "a flipped bit is noticed" in script("examples/quick_start.py")


def test_a_vision_model_is_split():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    assert "over a socket" in script("examples/split_vision.py")


def test_a_cache_is_compressed():
    pytest.importorskip("transformers", reason="transformers is not installed")
    assert "the whole cache" in script("examples/compress_cache.py")


def test_the_demo_network_keeps_its_accuracy_over_the_link(tmp_path):
    pytest.importorskip("narrows.onnx", reason="this build has no ONNX")
    script("evaluation/fashion.py", "--images", "100", "--bits", "4", "--json", tmp_path / "table.json")
    (row,) = json.loads((tmp_path / "table.json").read_text())
    assert row["top-1 %"] >= 90 and row["bytes"] < 2600


def test_tables_of_vision_models():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    vision = load("vision")
    torch.manual_seed(0)
    nn = torch.nn
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 5)).eval()
    images = torch.randn(24, 3, 12, 12)
    # Labels are what the network says, so that it is always right without a codec.
    labels = model(images).argmax(1)
    batches = [(images[:12], labels[:12]), (images[12:], labels[12:])]
    rows = vision.bits_table(model, "1", batches, bits=[2, 8])
    assert rows[0]["top-1 %"] == 100 and len(rows) == 1 + 2 * len(vision.METHODS)
    by = {(row["method"], row["Q"]): row for row in rows}
    assert by["narrows", 8]["top-1 %"] >= 95 and by["narrows", 2]["bytes"] < by["narrows", 8]["bytes"]
    assert by["narrows", 8]["bytes"] <= by["reference", 8]["bytes"]
    assert [row["cut"] for row in vision.cuts_table(model, batches, cuts=["0", "2"])] == ["0"] * 4 + ["2"] * 4


def test_a_table_of_a_language_model():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    llama = load("llama")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2
    )
    model = transformers.LlamaForCausalLM(config).eval()
    questions = torch.randint(0, 64, (16, 9))

    @torch.no_grad()
    def answers():
        return model(questions, use_cache=False).logits[:, -1].argmax(1)

    right = answers()
    rows = llama.table(model, lambda: {"agreement": 100 * float((answers() == right).float().mean())}, at=1, bits=[2, 8])
    assert [row["Q"] for row in rows] == ["", 2, 8]
    assert rows[0]["agreement"] == 100 and rows[0]["bits/element"] == 32
    assert rows[1]["agreement"] <= rows[2]["agreement"] and rows[2]["agreement"] >= 80
    # The hook is gone: the model is as it was.
    assert (answers() == right).all()
    with pytest.raises(ValueError, match="0 to 3"), llama.coded(model, 4, llama.codec_for(4)):
        pass


def test_lm_eval_asks_a_model_from_disk(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    tokenizers = pytest.importorskip("tokenizers")
    words = ["<unk>", "<s>", "</s>", *"what is the colour of a an sky grass blue green red sun yellow ?".split()]
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: k for k, word in enumerate(words)}, "<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=model, **special).save_pretrained(tmp_path / "model")
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    questions = [
        {"question": f"what is the colour of the {thing} ?", "choices": ["blue", "green", "yellow"], "answer": k % 3}
        for k, thing in enumerate(["sky", "grass", "sun"] * 4)
    ]
    (tmp_path / "questions.json").write_text("\n".join(json.dumps(one) for one in questions))
    (tmp_path / "colours.yaml").write_text(
        f"task: colours\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/questions.json}}}}\n"
        "output_type: multiple_choice\ntest_split: test\ndoc_to_text: '{{question}}'\ndoc_to_choice: '{{choices}}'\n"
        "doc_to_target: '{{answer}}'\nmetric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    table = tmp_path / "table.json"
    script(
        "evaluation/llama.py", "--model", tmp_path / "model", "--include", tmp_path, "--tasks", "colours", "--bits", "3", "8",
        "--device", "cpu", "--json", table,
    )  # fmt: skip
    rows = json.loads(table.read_text())
    assert [row["Q"] for row in rows] == ["", 3, 8]
    assert all(0 <= row["colours"] <= 100 for row in rows)
    assert rows[1]["bits/element"] < rows[2]["bits/element"] < rows[0]["bits/element"]


def test_sentences_over_the_link(tmp_path):
    model = os.environ.get("NARROWS_TEST_MINILM")
    if model is None:
        pytest.skip("NARROWS_TEST_MINILM does not name minilm.onnx (models/export.py writes it)")
    sentences = load("sentences")
    tokens = sentences.read_tokens(str(ROOT / "models/sentences/sentences.ids"))[:6]
    inner = [cut.name for cut in sentences.cuts(model) if cut.place == "inner"]
    (row,) = sentences.measure(model, inner[len(inner) // 2], tokens, [6])
    assert row["cosine, least"] > 0.99


def test_token_files_are_read(tmp_path):
    (tmp_path / "a.ids").write_text("# comment\n101 7 102\n\n101 8 9 102 # more\n")
    assert load("sentences").read_tokens(str(tmp_path / "a.ids")) == [[101, 7, 102], [101, 8, 9, 102]]


def test_the_program_comes_with_the_package():
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    version = subprocess.run([sys.executable, "-m", "narrows", "--version"], env=environment, capture_output=True, text=True)
    if "run_program" in version.stderr:
        pytest.skip("this build has no program")
    import narrows

    assert version.stdout.strip() == f"narrows {narrows.__version__}"
    wrong = subprocess.run([sys.executable, "-m", "narrows", "--json", "encode"], env=environment, capture_output=True, text=True)
    assert wrong.returncode == 2 and json.loads(wrong.stderr)


def test_types_are_complete():
    pytest.importorskip("mypy", reason="mypy is not installed")
    files = [path for folder in ("narrows", "examples") for path in sorted((HERE / folder).rglob("*.py"))]
    if importlib.util.find_spec("torch") is None:
        files = [path for path in files if "torch" not in path.read_text().replace("narrows.torch", "")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", HERE / "pyproject.toml", *files],
        env=os.environ | {"MYPYPATH": str(HERE)}, capture_output=True, text=True, cwd=HERE,
    )
    assert len(files) >= 5 and done.returncode == 0, done.stdout + done.stderr
