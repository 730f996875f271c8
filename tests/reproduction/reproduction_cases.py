"""A paper small enough for tests: the sample shop, a two-layer model, a common stage and two rows."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from rexbert_hf.reproduction import ReproductionSettings
from rexbert_hf.reproduction.plan import Cost, RunPlan, save_plan
from rexbert_hf.settings import from_dict

PAPER: dict[str, Any] = {
    "paper": "tiny",
    "title": "Tiny paper",
    "seeds": [0, 1],
    "min_steps": 2,
    "calibration_steps": 2,
    "base": {
        "model": {
            "overrides": {
                "num_hidden_layers": 2,
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_attention_heads": 2,
                "max_position_embeddings": 128,
            }
        },
        "tokenizer": {"vocab_size": 512},
        "guides": {"always": True, "sample_lexicons": True},
        "sources": {
            "general": {"sample": "general_text", "sample_size": 300},
            "shop": {"sample": "shop_text", "sample_size": 300},
        },
        "micro_batch_tokens": 1024,
        "evaluation": {"held_out": 0.1, "position_edges": [], "baselines": False},
        "trainer": {
            "logging_steps": 2,
            "save_steps": 2,
            "use_cpu": True,
            "extra": {"evaluate_phases": False, "measure_mfu": False, "disable_tqdm": True},
        },
        "phases": [
            {
                "name": "general",
                "mixture": {"general": 1},
                "max_tokens": 6144,
                "seq_length": 64,
                "batch_tokens": 1024,
                "learning_rate": "3e-3",
            },
            {
                "name": "anneal",
                "mixture": {"shop": 1},
                "max_tokens": 6144,
                "seq_length": 64,
                "batch_tokens": 1024,
                "learning_rate": "3e-3",
                "masking": {"kind": "mlm", "mlm_probability": 0.15},
            },
        ],
    },
    "stages": [
        {"name": "common", "phases": ["general"], "row": False},
        {"name": "plain", "after": "common", "phases": ["anneal"], "label": "plain MLM"},
        {
            "name": "guided",
            "after": "common",
            "phases": ["anneal"],
            "settings": {"phases.anneal.masking.kind": "guided"},
            "paper": {"shop.accuracy": 61.2},
        },
    ],
    "measures": [{"name": "shop", "kind": "spans", "options": {"source": "shop", "max_tokens": 2000}}],
    "columns": {"shop.accuracy": "shop text", "shop.accuracy_guided": "in spans"},
    "claims": [
        {
            "name": "helps",
            "text": "guidance helps",
            "value": "shop.accuracy_guided",
            "row": "guided",
            "than": "plain",
        }
    ],
}


def paper(output_dir: Path | str = "unused", cache: str | None = None, **changes: Any) -> ReproductionSettings:
    """The settings, with dotted changes such as `**{"stages.1.after": "common"}`."""
    values = copy.deepcopy(PAPER) | {"output_dir": str(output_dir)}
    values["base"]["cache_dir"] = cache
    for dotted, value in changes.items():
        place: Any = values
        *parents, last = dotted.split(".")
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    return from_dict(ReproductionSettings, values)


def plan_ahead(settings: ReproductionSettings, scale: float = 1.0) -> None:
    """Put a plan into the folder, so that nothing is calibrated and the number of steps is known."""
    stages = settings.needed_stages()
    tokens = {stage.name: round(6144 * scale) for stage in stages}
    settings.output_dir.mkdir(parents=True, exist_ok=True)
    costs = {stage.name: Cost(1000.0, 1.0) for stage in stages}
    scales, units = dict.fromkeys(tokens, scale), dict.fromkeys(tokens, "tokens")
    save_plan(RunPlan(scales, tokens, units, 6, costs, 60.0), settings, "test")
