"""Neighbour product reconstruction in a run: its micro-batches, and its part of the trainer.

The triplets of a micro-batch are a function of (seed, phase, step, micro-batch), so workers, ranks and a resume change
nothing. Budgets count every token through the encoder: a phase's rows get its `row_share` of the budget, and beside the
rows of a micro-batch there is room for as many further tokens as that leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from rexbert_hf.data.loader import CurriculumDataset, Key, join
from rexbert_hf.data.rows import RowBatch
from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.models.modeling_rexbert import RexBertForPreTraining
from rexbert_hf.objectives import neighbor_reconstruction_loss
from rexbert_hf.objectives.triplets import TRIPLET_STREAM, ContentGraph, TripletSampler
from rexbert_hf.training.evaluating import EvaluatingTrainer
from rexbert_hf.training.masked_loss import masked_lm_loss
from rexbert_hf.training.neighbor_settings import NeighborConfig
from rexbert_hf.training.plan import Plan

TRIPLETS = "triplets"
"""Key of the triplets in a collated batch."""


class NeighborDataset(CurriculumDataset):
    """A `CurriculumDataset` whose phases with the objective "npr" come with triplets.

    Args:
        plan: the phases.
        stores: the tokenised data set behind each source name.
        contents: associations between their documents.

    Raises:
        ValueError: if a phase with "npr" mixes no source with associated products.
    """

    def __init__(self, plan: Plan, stores: Mapping[str, TokenisedDataset], contents: ContentGraph) -> None:
        super().__init__(plan.orders, stores)
        self.plan, self.contents = plan, contents
        self._content_of = {name: contents.contents_of(name, np.arange(len(store))) for name, store in stores.items()}
        self._samplers: dict[int, TripletSampler] = {}
        for phase in plan.phases:
            if "npr" not in phase.phase.objectives:
                continue
            self._check_sources(phase.name, phase.order.names)
            chosen = phase.phase.neighbors
            self._samplers[phase.index] = TripletSampler(
                contents, stores, phase.phase.seq_length, chosen.contents == "masked", chosen.negatives
            )

    def _check_sources(self, phase: str, mixture: Iterable[str]) -> None:
        can_sample = self.contents.graph.can_sample
        found = [can_sample[self._content_of[name][self._content_of[name] >= 0]].any() for name in mixture]
        if not any(found):
            raise ValueError(
                f"phase '{phase}': none of its sources ({', '.join(mixture)}) holds a product with a neighbour: mix "
                "the source of the products, or drop the objective 'npr'"
            )

    def __getitem__(self, key: Key) -> RowBatch:
        step, micro = int(key[0]), int(key[1])
        number, inside = self.locate(step)
        if number not in self._samplers:
            return super().__getitem__(key)
        draws = self.orders[number].micro(inside, micro)
        at = {"step": step, "micro": micro, "phase": number}
        batch = join([self.stores[d.source].take(d.indices, d.starts, d.stops, **at) for d in draws])
        rows_of = [np.where(d.starts == 0, self._content_of[d.source][d.indices], -1) for d in draws]
        room = int(len(batch.input_ids) * (1 / self.plan.phases[number].row_share - 1) + 1e-6)
        rng = np.random.default_rng([TRIPLET_STREAM, self.plan.seed, number, step, micro])
        return self._samplers[number].add(batch, np.concatenate(rows_of), room, rng)

    def __getitems__(self, keys: Sequence[Key]) -> RowBatch:
        """The micro-batch of the one key that a `CurriculumSampler` asks for at a time."""
        (key,) = keys
        return self[key]


class NeighborTrainer(EvaluatingTrainer):
    """An `EvaluatingTrainer` that adds neighbour reconstruction to the masked-LM loss, where the batch has triplets.

    `RexBertForPreTraining` computes both; of any other model it takes hidden states and logits.
    """

    _window: torch.Tensor | None = None
    _later_mode: bool = False
    """Whether the forward pass is the second one of a micro-batch, whose triplets are counted already."""

    @property
    def neighbors(self) -> NeighborConfig | None:
        """Settings of the phase that the current step belongs to; None if it trains no reconstruction."""
        phase = self.plan.phase_at(self.state.global_step).phase
        return phase.neighbors if "npr" in phase.objectives else None

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """As the stock Trainer's; with reconstruction, the outputs have `loss_parts`: the sums of both losses."""
        wanted = self.neighbors
        if wanted is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if TRIPLETS not in inputs:
            raise ValueError(
                f"phase '{self.plan.phase_at(self.state.global_step).name}' trains 'npr', but its batches hold no "
                "triplets: give the trainer a NeighborDataset"
            )
        self.model.loss_weights = {"npr": wanted.weight}
        count, labels = len(inputs[TRIPLETS]), (inputs["labels"] != -100).sum()
        if isinstance(self.model, RexBertForPreTraining):
            outputs, mlm, npr = self._built_in(model, inputs, wanted, num_items_in_batch)
        else:
            outputs, mlm, npr = self._from_states(model, inputs, wanted)
        outputs.loss_parts = {"mlm": (mlm, labels)} | ({"npr": (npr, count)} if count else {})
        found = torch.stack(
            [mlm, npr, labels.to(mlm), *mlm.new_tensor([count, 0 if self._later_mode else count])]
        ).detach()
        self._window = found if self._window is None else self._window + found
        return (mlm + npr, outputs) if return_outputs else mlm + npr

    def _built_in(
        self, model: nn.Module, inputs: dict[str, Any], wanted: NeighborConfig, items: torch.Tensor | int | None
    ) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """Outputs, summed masked-LM loss and summed reconstruction loss of a model that has both."""
        config = self.model.config
        config.npr_weight, config.npr_margin, config.npr_normalize = wanted.weight, wanted.margin, wanted.normalize
        count = len(inputs[TRIPLETS])
        if not count:  # its mean would be 0 / 0
            inputs = {key: value for key, value in inputs.items() if key not in (TRIPLETS, "content_mask")}
        outputs = model(**inputs, num_items_in_batch=items)
        mlm = outputs.mlm_loss * (outputs.num_labels if items is None else items)
        return outputs, mlm, outputs.npr_loss * count if count else torch.zeros_like(mlm)

    def _from_states(
        self, model: nn.Module, inputs: dict[str, Any], wanted: NeighborConfig
    ) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """The same from the logits and the last hidden states of any other model, on a padded batch.

        Raises:
            ValueError: for a flat batch, whose documents only `RexBertForPreTraining` finds.
        """
        if "cu_seq_lens_q" in inputs:
            raise ValueError(f"{type(self.model).__name__} has no reconstruction loss: take RexBertForPreTraining")
        inputs = dict(inputs)
        labels, triplets, content = (inputs.pop(name) for name in ("labels", TRIPLETS, "content_mask"))
        outputs = model(**inputs, output_hidden_states=True)
        mlm = masked_lm_loss(outputs, labels, 1)
        if not len(triplets):
            return outputs, mlm, torch.zeros_like(mlm)
        hidden = outputs.hidden_states[-1]
        a, b, c = triplets.unbind(1)
        npr = neighbor_reconstruction_loss(
            hidden[a], hidden[b], hidden[c], content[a], content[b], content[c], wanted.margin, wanted.normalize
        )
        return outputs, mlm, npr * len(triplets)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a record; one of the training loss gets both losses, each a mean over what it is counted in."""
        if "loss" in logs and self._window is not None:
            mlm, npr, labels, count, triplets = self.sum_over_ranks(self._window.tolist())
            self._window = None
            logs |= {"loss_mlm": mlm / max(1, labels)} | ({"loss_npr": npr / count} if count else {})
            logs["triplets"] = triplets
        super().log(logs, start_time)
