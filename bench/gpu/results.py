#!/usr/bin/env python3
"""What `run` has found, put together: results.json, and a table beside the goals.

    python3 results.py WORK OUT

Takes what is there: a step that failed or ran out of time is missing from the results, not the results.
"""

import json
import pathlib
import sys


def text(path):
    return path.read_text(errors="replace") if path.exists() else ""


def lines_of_json(path):
    """Objects, one to a line; a line that was cut short is left out."""
    found = []
    for line in text(path).splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def goals(ways, peers):
    """(what, figure, goal, better) of what can be judged."""
    small = {way["way"]: way for way in ways if way.get("elements") == 128 * 28 * 28 and "decode" in way}
    large = {way["way"]: way for way in ways if way.get("elements", 0) >= 1 << 24 and "decode" in way}
    judged = []
    for name, way in small.items():
        for direction, goal in [("decode", 15), ("encode", 30)]:
            if "CSR" in name or direction not in way:
                continue
            judged.append((f"128x28x28, {name}: {direction}, us", way[direction]["median_us"], f"<= {goal}", way[direction]["median_us"] <= goal))
        over = way.get("over_pcie", {})
        for direction in over:
            judged.append((f"128x28x28, {name}: {direction} over PCIe", over[direction], "<= 50", over[direction] <= 50))
    for name, way in large.items():
        if name.startswith("order 0"):
            for direction, goal in [("decode", 400), ("encode", 250)]:
                rate = way[f"{direction}_gsymbols_per_s"]
                judged.append((f"{way['dims']}, {name}: {direction}, Gsymbols/s", rate, f">= {goal}", rate >= goal))
                for peer, figures in peers.items():
                    best = [f.get(f"{direction}_gsymbols_per_s", 0) for f in figures if f.get("symbols") == way["elements"]]
                    if best:
                        judged.append((f"  {direction} against {peer}", rate, f"> {max(best):.0f}", rate > max(best)))
        elif name.startswith("contexts"):
            plain = large.get(name.replace("contexts", "order 0"))
            if plain:
                for direction in ["decode", "encode"]:
                    rate, half = way[f"{direction}_gsymbols_per_s"], plain[f"{direction}_gsymbols_per_s"] / 2
                    judged.append((f"{way['dims']}, {name}: {direction}, Gsymbols/s", rate, f">= {half:.0f}", rate >= half))
    return judged


def main():
    work, out = map(pathlib.Path, sys.argv[1:3])
    here = pathlib.Path(__file__).resolve().parent
    device = lines_of_json(work / "device.jsonl")
    peers = {}
    for line in lines_of_json(work / "peers.jsonl"):
        peers.setdefault(line.pop("peer", "?"), []).append(line)
    ways = [line for line in device if "way" in line]
    results = {
        "device": next((line["device"] for line in device if "device" in line), "unknown"),
        "driver": text(work / "device.csv").splitlines(),
        "commit": text(here / "commit").strip(),
        "bit_exact": not (work / "not-exact").exists(),
        "sanitizer": text(work / "sanitizer.txt").splitlines(),
        "ways": ways,
        "cpu": [line for line in device if "cpu" in line],
        "peers": peers,
    }
    judged = goals(ways, peers)
    results["goals"] = [{"what": what.strip(), "figure": figure, "goal": goal, "met": met} for what, figure, goal, met in judged]
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    for way in ways:
        if "failed" in way:
            print(f"{way['dims']} {way['way']}: {way['failed']}")
            continue
        print(f"{way['dims']} {way['way']:34} {way['frame_bytes']:>11,} bytes in {way['chunks']} chunks")
        for direction in ["encode", "decode"]:
            if direction in way:
                time = way[direction]
                print(f"    {direction}: {time['median_us']:10.1f} us, {time['in_a_row_us']:10.1f} one after the other")
    for peer, figures in peers.items():
        for figure in figures:
            print(f"{peer}: {json.dumps(figure)[:200]}")
    print()
    for what, figure, goal, met in judged:
        print(f"{'met ' if met else 'MISS'} {what}: {figure:.1f} (goal {goal})")
    print(f"\nwritten: {out / 'results.json'}")


if __name__ == "__main__":
    main()
