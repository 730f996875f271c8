"""`docs/walkthrough.md` as it stands: every block in its order, in an empty folder, timed; and what came out of it.

    python benchmarks/walkthrough.py [--quick] [--folder FOLDER]

Python blocks run as scripts, YAML blocks are written to the files that they name, commands are run as printed. The
search page stays open, so its command is left out. A folder that is given is kept, and goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import report

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "walkthrough.md"
STAYS_OPEN = "recipes/space/app.py"
_SHORT_PHASES = (
    "--phases.general.max_tokens 8k --phases.extension.max_tokens 16k --phases.anneal.max_tokens 8k "
    "--phases.general.schedule.warmup_tokens 0"
)
QUICK = {
    "quickstart.yaml": f"{_SHORT_PHASES} --evaluation.max_tokens 2000".split(),
    "continue.yaml": ["--evaluation.max_tokens", "2000", "--phases.continue.epochs", "0.05"],
    "qpi_pairs.yaml": ["--phases.pairs.max_tokens", "8k", "--phases.pairs.schedule.warmup_tokens", "0"],
    "finetune_pairs.yaml": ["--trainer.max_steps", "3"],
    "distil_from_scratch.yaml": ["--trainer.max_steps", "3"],
}
"""What makes a command of a configuration short."""


@dataclass(frozen=True)
class Step:
    """One block of the page, or one command of it.

    Attributes:
        name: what it runs: the recipe and its configuration.
        words: the command.
    """

    name: str
    words: list[str]


def steps(page: str, folder: Path, quick: bool = False) -> Iterator[Step]:
    """The page's blocks in order; files that YAML blocks name are written on the way.

    Args:
        page: its text.
        folder: where it runs.
        quick: make commands short.
    """
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL):
        if language == "yaml":
            name = block.splitlines()[0].removeprefix("#").strip()
            (folder / name).write_text(block, encoding="utf-8")
        elif language == "python":
            yield Step("the three files", [sys.executable, "-c", block])
        else:
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words and STAYS_OPEN not in words:
                    configs = [Path(word).name for word in words if word.endswith(".yaml")]
                    recipe = next(Path(word).stem for word in words if word.endswith(".py"))
                    more = [word for config in configs if quick for word in QUICK.get(config, [])]
                    yield Step(" ".join([recipe, *configs]), [*words, *more])


def run(step: Step, folder: Path) -> float:
    """Run a step and return its seconds.

    Args:
        step: of the page.
        folder: where it runs.

    Raises:
        SystemExit: if it fails, with what it said last.
    """
    beside = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{beside}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    start = time.monotonic()
    done = subprocess.run(step.words, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.monotonic() - start
    if done.returncode:
        raise SystemExit(f"error: {shlex.join(step.words)[:200]}: status {done.returncode}\n{done.stderr[-1500:]}")
    print(f"{step.name}: {seconds:.0f} s", flush=True)
    return seconds


def figures(folder: Path) -> list[report.Reading]:
    """What the page's folders say of the models: masked accuracy, recall on held-out queries, the export's latency.

    Args:
        folder: where the page ran.
    """
    output = folder / "output"
    found = []
    trained = _json(output / "my-encoder" / "run.json")["results"]["phases"][0]
    for source in ("catalog", "web"):
        before, after = (trained[f"masked_accuracy_{when}_{source}"] for when in ("before", "after"))
        found.append(report.Reading(f"walkthrough/masked accuracy/{source}", after, before, unit="peer: before step 3"))
    cells = _json(output / "my-report" / "results.json")["cells"]
    recall = {cell["model"]: cell["metrics"]["recall@100"] for cell in cells}
    others = [name for name in recall if name != "bm25"]
    return found + [
        report.Reading(f"walkthrough/recall@100/{name}", recall[name], recall["bm25"], unit="peer: BM25")
        for name in others
    ]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    """Run the page and print its times; the last line is the readings as JSON."""
    parser = report.parser(__doc__, "a few steps of each training")
    parser.add_argument("--folder", type=Path, help="where to run (default: a temporary one)")
    args = parser.parse_args()
    packages = ("torch", "transformers", "sentence-transformers")
    report.header("walkthrough", "docs/walkthrough.md on the files of the sample shop", packages)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "recipes").exists():
            (folder / "recipes").symlink_to(ROOT / "recipes")
        page = PAGE.read_text(encoding="utf-8")
        taken = [(step.name, run(step, folder)) for step in steps(page, folder, args.quick)]
        readings = [report.Reading(f"walkthrough/{name}", seconds, unit="s") for name, seconds in taken]
        whole = report.Reading("walkthrough/whole", sum(seconds for _, seconds in taken) / 60, unit="minutes")
        report.finish([*readings, whole, *figures(folder)])


if __name__ == "__main__":
    main()
