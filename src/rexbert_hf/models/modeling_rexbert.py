"""RexBERT with its heads: masked language modelling, pre-training, classification, question answering.

The masked-LM head computes its loss from bounded slices of the labelled positions (see losses_rexbert.py); every head
works on the encoder's flat batch and restores the caller's shape at the end.

Shape letters: B rows, S columns of the caller's input; T tokens of the flat batch; D documents; H width; M labelled
tokens; V vocabulary. Travels to the Hub as remote code: imports torch, transformers and its siblings only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_outputs import (
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils.generic import can_return_tuple

from .attention_rexbert import spare_rows
from .configuration_rexbert import RexBertConfig
from .encoder_rexbert import (
    REMOTE_FILES,
    FlatOutput,
    RexBertModel,
    RexBertPreTrainedModel,
)
from .layers_rexbert import RexBertPredictionHead, check_ids, drawn, residual_std
from .layout_rexbert import label_places
from .logits_rexbert import is_its_weight, logits_cross_entropy
from .losses_rexbert import masked_cross_entropy
from .matryoshka_rexbert import Grid, LabelledStates, grid_loss
from .products_rexbert import compute_dtype, project_cut
from .reconstruction_rexbert import named_documents, neighbor_reconstruction_loss


@dataclass
class RexBertMaskedLMOutput(MaskedLMOutput):
    """Masked-LM output.

    Attributes:
        loss: summed cross entropy over the number of labelled tokens (of the global step, where the trainer gave
            `num_items_in_batch`); in training over a grid the sum over its cells, logits and ranks the whole model's.
        logits: `[B, S, V]` without labels or with `return_logits="all"`; `[M, V]` in order of the labelled positions
            with "masked"; else None.
        correct: number of labelled tokens whose label scores highest, int64 scalar.
        num_labels: number of labelled tokens, int64 scalar.
        label_ranks: `[M]`, how many others do not score lower than the label, with `return_ranks=True`.
    """

    correct: torch.Tensor | None = None
    num_labels: torch.Tensor | None = None
    label_ranks: torch.Tensor | None = None


@dataclass
class RexBertForPreTrainingOutput(RexBertMaskedLMOutput):
    """Masked-LM output plus `mlm_loss` and `npr_loss`, the parts of `loss`."""

    mlm_loss: torch.Tensor | None = None
    npr_loss: torch.Tensor | None = None


class RexBertForMaskedLM(RexBertPreTrainedModel):
    """Masked language modelling; without labels full logits, with labels the loss from bounded slices.

    Example:
        >>> model = RexBertForMaskedLM(RexBertConfig.from_size("micro", vocab_size=64, pad_token_id=0))
        >>> ids = torch.tensor([[1, 5, 2]])
        >>> model(ids).logits.shape
        torch.Size([1, 3, 64])
        >>> out = model(ids, labels=torch.tensor([[-100, 6, -100]]))
        >>> out.logits is None, int(out.num_labels)
        (True, 1)
    """

    _tied_weights_keys = {"decoder.weight": "model.embeddings.tok_embeddings.weight"}

    def __init__(self, config: RexBertConfig) -> None:
        super().__init__(config)
        self.model = RexBertModel(config)
        self.head = RexBertPredictionHead(config)
        decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=config.decoder_bias)
        self.decoder = drawn(decoder, residual_std(config))
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """Return the decoder."""
        return self.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the decoder."""
        self.decoder = new_embeddings

    def _decode(self, hidden: torch.Tensor) -> torch.Tensor:
        return project_cut(self.decoder, hidden, self.config.hidden_size)

    def _cross_entropy(
        self, hidden: torch.Tensor, targets: torch.Tensor, return_ranks: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        if not is_its_weight(self.decoder):
            return logits_cross_entropy(self._decode(hidden), targets, return_ranks)
        weight = self.decoder.weight[:, : hidden.shape[1]]
        return masked_cross_entropy(hidden, weight, self.decoder.bias, targets, return_ranks=return_ranks)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_logits: str | None = None,
        return_ranks: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
        output_hidden_states: bool | int | list[int] | None = None,
        output_attentions: bool | None = None,
        num_targets: int | None = None,
        **kwargs: Any,
    ) -> RexBertMaskedLMOutput:
        """Loss or logits.

        Args:
            input_ids: `[B, S]`, or `[1, T]` for a flat batch (see `RexBertModel.forward`).
            attention_mask: `[B, S]`.
            position_ids: `[B, S]`.
            inputs_embeds: `[B, S, H]`.
            labels: `[B, S]`, -100 where nothing is predicted.
            return_logits: with labels, "masked" returns logits at labelled positions, "all" at every position.
            return_ranks: return the rank of each label.
            num_items_in_batch: labelled tokens of the whole global step; the loss is divided by it.
            output_hidden_states: see `RexBertModel.forward`.
            output_attentions: see `RexBertModel.forward`.
            num_targets: labels of this batch that are not -100, exactly, where the host knows: the device is then not
                waited for.
            kwargs: keys of a flat batch.

        Raises:
            ValueError: if `return_logits` is another word.
        """
        if return_logits not in (None, "masked", "all"):
            raise ValueError(f"return_logits={return_logits!r} must be None, 'masked' or 'all'")
        kwargs.pop("return_dict", None)
        places = label_places(labels, num_targets)
        cells = self._cells(places)
        flat: FlatOutput = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_flat=True,
            on_layer=None if cells is None else cells[1],
            **kwargs,
        )
        fields = self._predict(flat, labels, places, return_logits, return_ranks, num_items_in_batch, cells)
        return RexBertMaskedLMOutput(**fields, **flat.extras())

    def _cells(self, places: torch.Tensor | None) -> tuple[Grid, LabelledStates] | None:
        """Cells that this step trains and what gathers their states; None in evaluation, and for a plain model."""
        grid = Grid.of(self.config) if self.training and places is not None else None
        if grid is None or places is None:
            return None
        grid = grid.sample(self.config.matryoshka_sample)
        return grid, LabelledStates(grid.layers - {self.config.num_hidden_layers}, places)

    def _predict(
        self,
        flat: FlatOutput,
        labels: torch.Tensor | None,
        places: torch.Tensor | None,
        return_logits: str | None,
        return_ranks: bool,
        num_items: torch.Tensor | int | None,
        cells: tuple[Grid, LabelledStates] | None = None,
    ) -> dict[str, Any]:
        """Fields of the output: loss, logits and counts."""
        fields: dict[str, Any] = {}
        if labels is None or return_logits == "all":
            fields["logits"] = flat.layout.restore(self._decode(self.head(flat.hidden)))
        if labels is None or places is None:
            return fields
        if tuple(labels.shape) != tuple(flat.layout.shape):
            raise ValueError(
                f"labels have the shape {tuple(labels.shape)}, the tokens {tuple(flat.layout.shape)}: give each token "
                "a label (-100 for none)"
            )
        index = flat.layout.flat_index(places)
        targets = labels.reshape(-1)[places]
        if targets.device.type == "cpu" and not torch.compiler.is_compiling():
            check_ids(targets, getattr(self.decoder, "out_features", None), "labels")
            if bool((index < 0).any()):
                row, column = divmod(int(places[index < 0][0]), labels.shape[1])
                raise ValueError(f"row {row} has a label at position {column}, which is padding: set it to -100")
        hidden = flat.hidden.index_select(0, index)
        labelled = len(targets)
        spare = spare_rows(labelled, hidden.device, compute_dtype(hidden))
        hidden, targets = F.pad(hidden, (0, 0, 0, spare)), F.pad(targets, (0, spare), value=-100)
        trained = None if cells is None else grid_loss(self, *cells, hidden, targets)
        if trained is None or return_logits == "masked" or return_ranks:
            hidden = self.head(hidden)
        ranks = None
        if trained is None or return_ranks:
            with torch.set_grad_enabled(trained is None and torch.is_grad_enabled()):
                total, correct, ranks = self._cross_entropy(hidden, targets, return_ranks)
        total, correct = (total, correct) if trained is None else trained
        hidden, ranks = hidden[:labelled], None if ranks is None else ranks[:labelled]
        count = torch.full((), labelled, device=total.device)  # filled there: a copy would wait for the device
        divisor = count.clamp_min(1) if num_items is None else torch.as_tensor(num_items, device=total.device)
        if return_logits == "masked":
            fields["logits"] = self._decode(hidden)
        return {**fields, "loss": total / divisor, "correct": correct, "num_labels": count, "label_ranks": ranks}


class RexBertForPreTraining(RexBertForMaskedLM):
    """Masked language modelling plus neighbour product reconstruction (E-BERT).

    The batch holds each product once; `triplets` names its documents. Both losses are returned, weighted by
    `config.npr_weight`.
    """

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        triplets: torch.Tensor | None = None,
        content_mask: torch.Tensor | None = None,
        return_logits: str | None = None,
        return_ranks: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
        output_hidden_states: bool | int | list[int] | None = None,
        output_attentions: bool | None = None,
        num_targets: int | None = None,
        **kwargs: Any,
    ) -> RexBertForPreTrainingOutput:
        """Masked-LM loss, neighbour reconstruction loss, or both.

        Args:
            input_ids: as in `RexBertForMaskedLM.forward`, and so are the arguments not named here.
            attention_mask: `[B, S]`.
            position_ids: `[B, S]`.
            inputs_embeds: `[B, S, H]`.
            labels: `[B, S]`.
            triplets: int64 `[P, 3]`, documents of the batch (rows, or documents of a flat batch): product, neighbour,
                unrelated product.
            content_mask: bool `[B, S]`, True on the tokens that take part in reconstruction; default: every token but
                those of the config's special ids.
            return_logits: as in `RexBertForMaskedLM.forward`.
            return_ranks: likewise.
            num_items_in_batch: likewise; the reconstruction loss is a mean over the triplets.
            output_hidden_states: likewise.
            output_attentions: likewise.
            num_targets: likewise.
            kwargs: likewise.

        Raises:
            ValueError: if `triplets` is given without `input_ids` or `content_mask`.
        """
        kwargs.pop("return_dict", None)
        places = label_places(labels, num_targets)
        cells = self._cells(places)
        flat: FlatOutput = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_flat=True,
            on_layer=None if cells is None else cells[1],
            **kwargs,
        )
        fields = self._predict(flat, labels, places, return_logits, return_ranks, num_items_in_batch, cells)
        fields["mlm_loss"] = fields.get("loss")
        if triplets is not None:
            npr_loss = self._reconstruction(flat, input_ids, attention_mask, content_mask, triplets, kwargs)
            weighted = self.config.npr_weight * npr_loss
            fields["npr_loss"] = npr_loss
            fields["loss"] = weighted if labels is None else fields["loss"] + weighted
        return RexBertForPreTrainingOutput(**fields, **flat.extras())

    def _reconstruction(
        self,
        flat: FlatOutput,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        content_mask: torch.Tensor | None,
        triplets: torch.Tensor,
        kwargs: dict[str, Any],
    ) -> torch.Tensor:
        if content_mask is None:
            if input_ids is None:
                raise ValueError("neighbour reconstruction needs input_ids or content_mask to leave special tokens out")
            config = self.config
            names = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
            special = {value for name in names if isinstance(value := getattr(config, name, None), int)}
            content_mask = ~torch.isin(input_ids, torch.tensor(sorted(special), device=input_ids.device))
            if attention_mask is not None:
                content_mask = content_mask & attention_mask.bool()
        hidden = flat.layout.restore(flat.hidden)
        borders = kwargs.get("cu_seq_lens_q")  # with its empty documents, which have a number too
        borders = flat.layout.borders() if borders is None else borders
        if borders is not None:
            hidden, content_mask, triplets = named_documents(hidden[0], content_mask[0], borders, triplets)
        anchor, neighbor, negative = triplets.unbind(1)
        return neighbor_reconstruction_loss(
            hidden[anchor],
            hidden[neighbor],
            hidden[negative],
            content_mask[anchor],
            content_mask[neighbor],
            content_mask[negative],
            margin=self.config.npr_margin,
            normalize=self.config.npr_normalize,
        )


class _RexBertForClassification(RexBertPreTrainedModel):
    """Encoder, prediction head and a linear classifier: what the four task heads share."""

    num_outputs: int | None = None

    def __init__(self, config: RexBertConfig) -> None:
        super().__init__(config)
        config.matryoshka_stale = bool(config.matryoshka_grid())  # a task head trains no cells
        self.num_labels: int = config.num_labels or 1
        self.model = RexBertModel(config)
        self.head = RexBertPredictionHead(config)
        self.drop = nn.Dropout(config.classifier_dropout)
        classifier = nn.Linear(config.hidden_size, self.num_outputs or self.num_labels)
        self.classifier = drawn(classifier, config.hidden_size**-0.5)
        self.post_init()

    def _classify(self, hidden: torch.Tensor) -> torch.Tensor:
        return project_cut(self.classifier, self.drop(self.head(hidden)), self.config.hidden_size)

    def _encode(self, kwargs: dict[str, Any]) -> FlatOutput:
        kwargs.pop("return_dict", None)
        flat: FlatOutput = self.model(return_flat=True, **kwargs)
        return flat

    def _pool(self, flat: FlatOutput, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """One vector `[B or D, H]` a row, or a document of a flat batch: its first token or the mean of its tokens."""
        layout, dtype = flat.layout, flat.hidden.dtype
        wide = torch.promote_types(dtype, torch.float32)  # a running sum in bfloat16 stands still at some hundred
        if layout.is_dense:
            hidden = layout.restore(flat.hidden)
            mask = torch.ones(layout.shape, device=hidden.device) if attention_mask is None else attention_mask
            if self.config.classifier_pooling == "cls":
                return hidden[torch.arange(hidden.shape[0], device=hidden.device), mask.int().argmax(1)]
            return ((hidden.to(wide) * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)).to(dtype)
        assert layout.cu_seqlens is not None
        starts, lengths = layout.cu_seqlens[:-1].long(), layout.cu_seqlens.diff().long()
        if self.config.classifier_pooling == "cls":
            pooled = flat.hidden[starts]
        else:
            document = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
            sums = flat.hidden.new_zeros(len(lengths), flat.hidden.shape[1], dtype=wide)
            pooled = (sums.index_add(0, document, flat.hidden.to(wide)) / lengths[:, None]).to(dtype)
        return layout.in_order(pooled)


class RexBertForSequenceClassification(_RexBertForClassification):
    """Single-label, multi-label classification or regression over a pooled vector."""

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        output_hidden_states: bool | int | list[int] | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits `[B, num_labels]` (`[D, num_labels]` for a flat batch) and, with labels, the loss.

        Args:
            input_ids: see `RexBertModel.forward`, as for the other inputs.
            attention_mask: `[B, S]`.
            position_ids: `[B, S]`.
            inputs_embeds: `[B, S, H]`.
            labels: `[B]` class ids, `[B, num_labels]` of 0/1 floats, or floats, as `config.problem_type` says.
            num_items_in_batch: labels of the whole global step; the loss is divided by it.
            output_hidden_states: see `RexBertModel.forward`.
            output_attentions: see `RexBertModel.forward`.
            kwargs: keys of a flat batch.
        """
        names = {"input_ids": input_ids, "position_ids": position_ids, "inputs_embeds": inputs_embeds}
        wanted = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        flat = self._encode({**names, **wanted, "attention_mask": attention_mask, **kwargs})
        logits = self._classify(self._pool(flat, attention_mask))
        loss = None if labels is None else self._loss(logits, labels, num_items_in_batch)
        return SequenceClassifierOutput(loss=loss, logits=logits, **flat.extras())

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, num_items: torch.Tensor | int | None) -> torch.Tensor:
        if self.config.problem_type is None:
            if self.num_labels == 1:
                self.config.problem_type = "regression"
            elif labels.dtype in (torch.long, torch.int):
                self.config.problem_type = "single_label_classification"
            else:
                self.config.problem_type = "multi_label_classification"
        if self.config.problem_type == "regression":
            return _reduced(F.mse_loss, logits.squeeze(), labels.squeeze().to(logits.dtype), num_items)
        if self.config.problem_type == "single_label_classification":
            return _reduced(F.cross_entropy, logits.view(-1, self.num_labels), labels.view(-1), num_items)
        return _reduced(F.binary_cross_entropy_with_logits, logits, labels.to(logits.dtype), num_items)


def _reduced(
    loss: Callable[..., torch.Tensor],
    logits: torch.Tensor,
    labels: torch.Tensor,
    num_items: torch.Tensor | int | None,
) -> torch.Tensor:
    """Mean loss; or the sum over the labels of the whole global step, where the trainer counted them."""
    if num_items is None:
        return loss(logits, labels)
    return loss(logits, labels, reduction="sum") / torch.as_tensor(num_items, device=logits.device)


class RexBertForTokenClassification(_RexBertForClassification):
    """A label for each token."""

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        output_hidden_states: bool | int | list[int] | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """Logits `[B, S, num_labels]` and, with labels `[B, S]` (-100 left out), the loss.

        Args:
            input_ids: see `RexBertModel.forward`, as for the other inputs.
            attention_mask: `[B, S]`.
            position_ids: `[B, S]`.
            inputs_embeds: `[B, S, H]`.
            labels: `[B, S]`.
            num_items_in_batch: labels of the whole global step; the loss is divided by it.
            output_hidden_states: see `RexBertModel.forward`.
            output_attentions: see `RexBertModel.forward`.
            kwargs: keys of a flat batch.
        """
        names = {"input_ids": input_ids, "position_ids": position_ids, "inputs_embeds": inputs_embeds}
        wanted = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        flat = self._encode({**names, **wanted, "attention_mask": attention_mask, **kwargs})
        logits = flat.layout.restore(self._classify(flat.hidden))
        loss = None
        if labels is not None:
            loss = _reduced(F.cross_entropy, logits.view(-1, self.num_labels), labels.view(-1), num_items_in_batch)
        return TokenClassifierOutput(loss=loss, logits=logits, **flat.extras())


class RexBertForQuestionAnswering(_RexBertForClassification):
    """Start and end of an answer span in each row."""

    def __init__(self, config: RexBertConfig) -> None:
        if config.num_labels != 2:
            raise ValueError(f"question answering needs num_labels=2 (start and end), got {config.num_labels}")
        super().__init__(config)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        output_hidden_states: bool | int | list[int] | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> QuestionAnsweringModelOutput:
        """Start and end logits `[B, S]`, lowest at padding, and, with positions `[B]`, the loss.

        Args:
            input_ids: see `RexBertModel.forward`, as for the other inputs.
            attention_mask: `[B, S]`.
            position_ids: `[B, S]`.
            inputs_embeds: `[B, S, H]`.
            start_positions: `[B]`.
            end_positions: `[B]`.
            num_items_in_batch: labels of the whole global step; the loss is divided by it.
            output_hidden_states: see `RexBertModel.forward`.
            output_attentions: see `RexBertModel.forward`.
            kwargs: anything else; not used.

        Raises:
            ValueError: if the batch is flat: an answer lies in one row.
        """
        if kwargs.get("cu_seq_lens_q") is not None:
            raise ValueError("question answering takes padded rows (input_ids, attention_mask), not a flat batch")
        names = {"input_ids": input_ids, "position_ids": position_ids, "inputs_embeds": inputs_embeds}
        wanted = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        flat = self._encode({**names, **wanted, "attention_mask": attention_mask, **kwargs})
        logits = flat.layout.restore(self._classify(flat.hidden))
        # An answer is never padding: its share of the softmax would change with the length of the other rows.
        padding = ~flat.layout.rows()[1]
        logits = logits.masked_fill(padding[:, :, None], torch.finfo(logits.dtype).min)
        start_logits, end_logits = logits[..., 0].contiguous(), logits[..., 1].contiguous()
        loss = None
        if start_positions is not None and end_positions is not None:
            positions = (start_positions, end_positions)
            loss = self.loss_function(start_logits, end_logits, *positions, num_items_in_batch=num_items_in_batch)
        return QuestionAnsweringModelOutput(
            loss=loss, start_logits=start_logits, end_logits=end_logits, **flat.extras()
        )


class RexBertForMultipleChoice(_RexBertForClassification):
    """One score a choice."""

    num_outputs = 1

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        output_hidden_states: bool | int | list[int] | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> MultipleChoiceModelOutput:
        """Logits `[B, C]` of C choices and, with labels `[B]`, the loss.

        Args:
            input_ids: `[B, C, S]`.
            attention_mask: `[B, C, S]`.
            position_ids: `[B, C, S]`.
            inputs_embeds: `[B, C, S, H]`.
            labels: `[B]`.
            num_items_in_batch: labels of the whole global step; the loss is divided by it.
            output_hidden_states: see `RexBertModel.forward`.
            output_attentions: see `RexBertModel.forward`.
            kwargs: anything else; not used.
        """
        source = input_ids if input_ids is not None else inputs_embeds
        if source is None:
            raise ValueError("give exactly one of input_ids and inputs_embeds")

        def rows(x: torch.Tensor | None) -> torch.Tensor | None:
            return None if x is None else x.flatten(0, 1)

        names = {"input_ids": rows(input_ids), "position_ids": rows(position_ids), "inputs_embeds": rows(inputs_embeds)}
        mask = rows(attention_mask)
        wanted = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        flat = self._encode({**names, **wanted, "attention_mask": mask, **kwargs})
        logits = self._classify(self._pool(flat, mask)).view(source.shape[:2])
        loss = None if labels is None else _reduced(F.cross_entropy, logits, labels, num_items_in_batch)
        return MultipleChoiceModelOutput(loss=loss, logits=logits, **flat.extras())


__all__ = [
    "REMOTE_FILES",
    "RexBertPreTrainedModel",
    "RexBertModel",
    "RexBertForMaskedLM",
    "RexBertForPreTraining",
    "RexBertForSequenceClassification",
    "RexBertForTokenClassification",
    "RexBertForQuestionAnswering",
    "RexBertForMultipleChoice",
]
