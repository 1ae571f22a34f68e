"""Cut the large models at every cut that `narrows cuts` offers, and compare head and tail with the whole.

    pip install onnxruntime                     # for its library; ORT_DYLIB_PATH may name another
    cargo build --release --features onnxruntime
    python models/export.py
    python models/check.py                      # all of bench/out/models
    python models/check.py minilm llama-kv      # only these; the others' results are kept

Writes bench/results/models.json, for MiniLM bench/results/embeddings.json, and the tables of docs/models.md between
their markers. Exits with 1 if a promise is broken: with ONNX Runtime at Basic every bit is the same, with the others
the largest difference is at most 1e-4 of the largest output, and there is a cut where every sentence's embedding keeps
a cosine of 0.999 at 4 bits an element and 0.99 at 2.5.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results/models.json"
EMBEDDINGS = ROOT / "bench/results/embeddings.json"
PAGE = ROOT / "docs/models.md"
ENGINES = ["onnxruntime", "onnxruntime-all", "tract"]
TOLERANCE = {"onnxruntime": 0.0, "onnxruntime-all": 1e-4, "tract": 1e-4}
ORDER = ["resnet34", "resnet50", "vgg16", "mobilenet-v2", "swin-t", "densenet121", "efficientnet-b0", "minilm", "llama", "llama-kv"]


def cuts(program, model, engine):
    """What `narrows cuts` says, or why it says nothing."""
    command = [program, "cuts", str(model), "--json", "--check", "--engine", engine]
    if engine == "onnxruntime":
        command.append("--time")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        try:
            error = json.loads(done.stderr.strip().splitlines()[-1])["error"]
            return {"error": ": ".join([error["message"], *error["causes"]])}
        except (ValueError, KeyError, IndexError):
            return {"error": done.stderr.strip()[-500:]}
    return json.loads(done.stdout)


def measured(program, model):
    runs = {engine: cuts(program, model, engine) for engine in ENGINES}
    works = next((run for run in runs.values() if "cuts" in run), None)
    if works is None:
        return {"engines": {engine: {"error": run["error"]} for engine, run in runs.items()}, "cuts": []}
    rows = []
    for index, cut in enumerate(works["cuts"]):
        row = {key: value for key, value in cut.items() if key not in ("check", "head_ms", "tail_ms")}
        row["engines"] = {}
        for engine, run in runs.items():
            if "cuts" in run:
                found = run["cuts"][index]
                row["engines"][engine] = {key: found[key] for key in ("head_ms", "tail_ms", "check") if key in found}
        rows.append(row)
    engines = {}
    for engine, run in runs.items():
        if "error" in run:
            engines[engine] = {"error": run["error"]}
            continue
        checks = [cut["check"] for cut in run["cuts"] if "check" in cut]
        worst = max((check["relative_difference"] for check in checks), default=0.0)
        identical = sum(check["identical"] for check in checks)
        kept = identical == len(checks) if engine == "onnxruntime" else worst <= TOLERANCE[engine]
        engines[engine] = {
            "cuts": len(checks), "identical": identical, "largest_relative_difference": worst, "kept": kept and bool(checks)}
    return {"sha256": works["sha256"], "dimensions": works["dimensions"], "bits": works["bits"], "engines": engines, "cuts": rows}


def embeddings(program, model):
    """Sentences through MiniLM at every cut."""
    sentences = ROOT / "models/sentences"
    command = [
        program, "embed", str(model), "--json", "--engine", "onnxruntime", "--tokens", sentences / "sentences.ids",
        "--calibrate", sentences / "calibration.ids"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def by_cut(results):
    """Of each cut: what the lower and the higher rate leave."""
    rows = sorted(results, key=lambda row: row["rate"])
    cuts = list(dict.fromkeys(row["tensor"] for row in results))
    return {cut: [row for row in rows if row["tensor"] == cut] for cut in cuts}


def keeps_embeddings(results):
    least = ((2.5, 0.99), (4.0, 0.999))
    def kept(rows):
        return all(row["bits_per_element"] <= rate and row["cosine_min"] >= cosine for row, (rate, cosine) in zip(rows, least))
    return any(kept(rows) for rows in by_cut(results).values())


def number(value):
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return str(value)


def engine_cell(engine):
    if "error" in engine:
        return "does not run"
    cell = f"{engine['identical']} of {engine['cuts']}"
    worst = engine["largest_relative_difference"]
    return cell if worst == 0 else f"{cell}, {worst:.0e}"


def short(name):
    """A tensor's name without what repeats: /layer1/layer1.0/relu/Relu_output_0 is layer1.0/relu."""
    parts = [part for part in re.sub(r"_output_0$", "", name).split("/") if part]
    kept = [part for at, part in enumerate(parts) if at + 1 == len(parts) or not parts[at + 1].startswith(part + ".")]
    # Deep down the last part only repeats the operator.
    return "/".join(kept[:-1][-4:] if len(kept) > 5 else kept[-3:])


def tables(results):
    lines = ["| model | cuts | side | state | ONNX Runtime, Basic | ONNX Runtime, All | tract |", "|---|---|---|---|---|---|---|"]
    names = [name for name in ORDER if name in results] + sorted(set(results) - set(ORDER))
    for name in names:
        result = results[name]
        side = sorted({side["tensor"] for cut in result["cuts"] for side in cut["side"]})
        state = max((len(cut["state_before"]) + len(cut["state_after"]) for cut in result["cuts"]), default=0)
        cells = [engine_cell(result["engines"][engine]) for engine in ENGINES]
        lines.append(f"| {name} | {len(result['cuts'])} | {', '.join(side) or 'none'} | {state or 'none'} | {' | '.join(cells)} |")
    yield "summary", lines
    lines = [
        "| model | cut | bytes f32 | at 4 bits | side | MACs before | after | head ms | tail ms |",
        "|---|---|---|---|---|---|---|---|---|"]
    for name in names:
        for cut in results[name]["cuts"]:
            if not cut["pareto"]:
                continue
            times = cut["engines"].get("onnxruntime") or cut["engines"].get("tract") or {}
            ms = [f"{times[key]:.1f}" if key in times else "" for key in ("head_ms", "tail_ms")]
            estimate = f"{cut['estimated_bytes']:,}" if cut["estimated_bytes"] else ""
            side = sum(side["bytes"] for side in cut["side"])
            macs = [number(cut["macs_before"]), number(cut["macs_after"])]
            cells = [name, f"`{short(cut['tensor'])}`", f"{cut['bytes']:,}", estimate, str(side or ""), *macs, *ms]
            lines.append(f"| {' | '.join(cells)} |")
    yield "pareto", lines
    if EMBEDDINGS.exists():
        lines = ["| cut after | bits | cosine, mean | least | bits | cosine, mean | least |", "|---|---|---|---|---|---|---|"]
        for cut, rows in by_cut(json.loads(EMBEDDINGS.read_text())["results"]).items():
            layer = re.search(r"layer\.(\d+)/(attention)?", cut)
            place = f"layer {int(layer[1]) + 1}" + ("'s attention" if layer[2] else "") if layer else cut
            cells = [f"{row['bits_per_element']:.2f} | {row['cosine_mean']:.4f} | {row['cosine_min']:.4f}" for row in rows]
            lines.append(f"| {place} | {' | '.join(cells)} |")
        yield "embeddings", lines


def write_page(results):
    page = PAGE.read_text()
    for marker, lines in tables(results):
        pattern = rf"(<!-- {marker} -->\n).*?(<!-- end {marker} -->)"
        block = "\n".join(lines)
        page, found = re.subn(pattern, lambda match: match[1] + block + "\n" + match[2], page, flags=re.S)
        if found != 1:
            sys.exit(f"{PAGE} has no place for the table `{marker}`")
    PAGE.write_text(page)


def main():
    about, _, details = __doc__.partition("\n")
    parser = argparse.ArgumentParser(description=about, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the files in bench/out/models; default: all")
    parser.add_argument("--models", type=Path, default=ROOT / "bench/out/models", help="another folder of .onnx files")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--program", type=Path, default=target / "release/narrows", help="the program to test")
    parser.add_argument("--page-only", action="store_true", help="write the tables from the results there are")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    names = options.names or sorted(path.stem for path in options.models.glob("*.onnx"))
    if not names:
        sys.exit(f"{options.models} has no models: run models/export.py first")
    broken = []
    for name in [] if options.page_only else names:
        print(name, flush=True)
        results[name] = measured(options.program, options.models / f"{name}.onnx")
        for engine, result in results[name]["engines"].items():
            print(f"  {engine:16} {result.get('error') or engine_cell(result)}", flush=True)
            if not result.get("kept") and "error" not in result:
                broken.append(f"{name} with {engine}")
        if "error" in results[name]["engines"]["onnxruntime"]:
            broken.append(f"{name} does not run with onnxruntime")
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        if name == "minilm":
            found = embeddings(options.program, options.models / "minilm.onnx")
            EMBEDDINGS.write_text(json.dumps(found, indent=1) + "\n")
            if not keeps_embeddings(found["results"]):
                broken.append("MiniLM's embeddings")
    write_page(results)
    if broken:
        sys.exit("promises broken: " + "; ".join(broken))


if __name__ == "__main__":
    main()
