"""Draw what a run logged: loss, accuracy and, with adaptive masking, alpha, fitting indexes and the modes' losses.

    python recipes/plot_run.py OUTPUT_DIR [--plot FILE.png]

Works on a run in progress, and on one of the stock Trainer; the plot is OUTPUT_DIR/run.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rexbert_hf.hub.redaction import RedactedParser
from rexbert_hf.hub.run_plot import read_history, read_phases, run_plot
from rexbert_hf.settings import run_recipe


def main() -> None:
    """Parse, draw, print."""
    parser = RedactedParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path, help="folder of a run, or one checkpoint")
    parser.add_argument("--plot", type=Path, help="the PNG to write (default: OUTPUT_DIR/run.png)")
    options = parser.parse_args()
    history = read_history(options.output_dir)
    target = options.plot or options.output_dir / "run.png"
    panels = run_plot(
        history, target, read_phases(options.output_dir, history), title=options.output_dir.resolve().name
    )
    print(f"{target}: {', '.join(panels)}")


if __name__ == "__main__":
    run_recipe(main)
