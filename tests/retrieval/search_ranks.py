"""One process of recipes/finetune_search.py, for tests with several: `search_ranks.py OUTPUT OPTIONS`.

OPTIONS is JSON: `words` of the command line; `late`, seconds by which the second process's clock is ahead;
`terminate_after`, the step after which it gets a SIGTERM; and `slow_read`, seconds before it reads the best weights.
Each process leaves what it saw in OUTPUT/rank-N.json.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

import torch

from rexbert_hf.retrieval.training.search_trainer import SearchTrainer

RECIPE = Path(__file__).parents[2] / "recipes" / "finetune_search.py"


def main():
    output, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    rank = int(os.environ["RANK"])
    stock_step, stock_seconds, seen = SearchTrainer.training_step, SearchTrainer.seconds, {"rates": []}

    def step(self, *args, **kwargs):
        if rank == 1 and self.state.global_step == options.get("terminate_after"):
            os.kill(os.getpid(), signal.SIGTERM)
        seen["rates"].append(self.optimizer.param_groups[0]["lr"])
        seen["trainer"] = self
        return stock_step(self, *args, **kwargs)

    stock_load = SearchTrainer._load_from_checkpoint

    def load(self, *args, **kwargs):
        time.sleep(rank * options.get("slow_read", 0))
        return stock_load(self, *args, **kwargs)

    SearchTrainer.training_step = step
    SearchTrainer._load_from_checkpoint = load
    SearchTrainer.seconds = property(lambda self: stock_seconds.fget(self) + rank * options.get("late", 0))
    sys.argv = [str(RECIPE), *options["words"], "--output_dir", str(output / "run")]
    try:
        runpy.run_path(str(RECIPE), run_name="__main__")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends the others as soon as one has ended
        trainer = seen.pop("trainer")
        seen["step"], seen["group"] = trainer.state.global_step, torch.distributed.is_initialized()
        weights = trainer.model.state_dict()
        seen["sums"] = {name: value.double().abs().sum().item() for name, value in weights.items()}
        (output / f"rank-{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
