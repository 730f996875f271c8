"""`make wheel-check`: the wheel, installed into a clean environment, imports fast and light and does its work.

    python tests/house/wheel_check.py [--dependencies FOLDER]

By default pip installs the wheel with all it requires (constraints.txt; a few minutes and a network). With the
site-packages folder of another environment it takes the dependencies from there: seconds, offline, and still nothing
of the checkout is on the path.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    *("datasets", "evaluate", "sentence_transformers", "matplotlib", "sklearn", "pandas", "spacy", "datatrove"),
    *("faiss", "fasttext", "onnxruntime", "bm25s", "qdrant_client", "gradio"),
)
"""What importing the package must not load."""
CHECK = """
import sys, time
start = time.process_time()
import rexbert_hf
print(f"import rexbert_hf: {time.process_time() - start:.2f} s")
heavy = set(HEAVY) & set(sys.modules)
assert not heavy, f"loaded at import: {heavy}"
assert "site-packages" in rexbert_hf.__file__, rexbert_hf.__file__
import torch
from rexbert_hf import MLMCollator, RexBertConfig, RexBertForMaskedLM, load_sample
from rexbert_hf.data.vocabulary import train_tokenizer

texts = load_sample("shop_text", size=60)["text"][:]
tokenizer = train_tokenizer(texts, 512)
rows = [{"input_ids": ids} for ids in tokenizer(texts[:8])["input_ids"]]
batch = MLMCollator(tokenizer, 0.3, flat=True)(rows)
model = RexBertForMaskedLM(RexBertConfig.from_size("micro", vocab_size=len(tokenizer), pad_token_id=0))
loss = model(**batch).loss.detach()
assert torch.isfinite(loss), loss
from rexbert_hf.hub import card_of_run, write_run
import tempfile
folder = tempfile.mkdtemp()
write_run(folder, config={}, results={"phases": []})
assert "rexbert" in card_of_run(folder).lower()  # its template travels with the wheel
print(f"version {rexbert_hf.__version__}, loss {loss.item():.3f}: the wheel works")
"""

OURS, STOCK = "import rexbert_hf", "from transformers import ModernBertForMaskedLM"
MOST = 1.1
"""Seconds that importing the package may take, of those that stock ModernBERT's class takes."""


def import_ratio(python: Path, cwd: Path, repeats: int = 5) -> float:
    """Processor seconds of a fresh process that imports the package, over those of one that imports the stock class.

    They take turns, and the least of each counts: that is the one which the machine disturbed least.
    """
    found: dict[str, list[float]] = {OURS: [], STOCK: []}
    for number in range(repeats + 1):  # the first reads files that are not in memory yet
        for statement, seconds in found.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            run(python, "-I", "-c", statement, cwd=cwd)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if number:
                seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found[OURS]) / min(found[STOCK])


def run(*command: object, cwd: Path | None = None) -> None:
    done = subprocess.run([str(part) for part in command], cwd=cwd)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(str(part) for part in command[:6])} ended with status {done.returncode}")


def main() -> None:
    """Build, install, check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dependencies", help="site-packages to take them from; 'here' for this environment's")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wheel-check-") as name:
        folder = Path(name)
        isolated = [] if options.dependencies is None else ["--no-build-isolation", "--no-index"]
        source = folder / "source"  # a build in the checkout would take what an earlier one left there
        source.mkdir()
        for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / file, source)
        shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", *isolated, "-w", folder, source)
        (wheel,) = folder.glob("*.whl")
        place = folder / "environment"
        venv.create(place, with_pip=True)
        python = place / "bin" / "python"
        if options.dependencies is None:
            torch = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")]
            run(python, "-m", "pip", "install", "-q", *torch)
            run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel)
        else:
            there = sysconfig.get_paths()["purelib"] if options.dependencies == "here" else options.dependencies
            run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel)
            (site,) = place.glob("lib/python*/site-packages")
            (site / "dependencies.pth").write_text(f"{there}\n")  # a path alone: the other's own .pth are not read
        run(python, "-I", "-c", f"HEAVY = {HEAVY}\n{CHECK}", cwd=folder)
        ratio = import_ratio(python, folder)
        print(f"importing takes {ratio:.2f} of what stock ModernBERT takes (at most {MOST})")
        if ratio > MOST:
            raise SystemExit(f"error: {OURS} takes {ratio:.2f} of what {STOCK} takes; the most is {MOST}")


if __name__ == "__main__":
    main()
