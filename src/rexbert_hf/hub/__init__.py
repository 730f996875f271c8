"""To the Hub and back: run files, plots, cards, pushing and pulling. Knows no other room of the package."""

from __future__ import annotations

from .card import card_of_run, render_dataset_card, render_model_card, write_card
from .plots import loss_plot
from .pull import resolve, resolve_model
from .push import push_dataset, push_run
from .readme import merge_card, split_card
from .redaction import redact
from .run_file import git_commit, hardware, read_run, versions, write_run

__all__ = [
    "card_of_run",
    "git_commit",
    "hardware",
    "loss_plot",
    "merge_card",
    "push_dataset",
    "push_run",
    "read_run",
    "redact",
    "render_dataset_card",
    "render_model_card",
    "resolve",
    "resolve_model",
    "split_card",
    "versions",
    "write_card",
    "write_run",
]
