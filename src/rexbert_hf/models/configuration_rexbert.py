"""RexBERT configuration: ModernBERT's fields, the published sizes, and what the flat encoder adds.

Travels to the Hub as remote code: imports transformers and its siblings only.
"""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import ModernBertConfig

SIZES: dict[str, dict[str, int]] = {
    "micro": {"num_hidden_layers": 7, "hidden_size": 256, "intermediate_size": 384, "num_attention_heads": 4},
    "mini": {"num_hidden_layers": 19, "hidden_size": 512, "intermediate_size": 768, "num_attention_heads": 8},
    "base": {"num_hidden_layers": 22, "hidden_size": 768, "intermediate_size": 1152, "num_attention_heads": 12},
    "large": {"num_hidden_layers": 28, "hidden_size": 1024, "intermediate_size": 2624, "num_attention_heads": 16},
    "student": {"num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4},
}
"""Published sizes (reference: the Hub's parameter counts) and the paper's small model of product search ("Web-scale
Semantic Product Search", section 3.1); `intermediate_size` is one half of the GLU."""

AUTO_MAP = {
    "AutoConfig": "configuration_rexbert.RexBertConfig",
    "AutoModel": "modeling_rexbert.RexBertModel",
    "AutoModelForMaskedLM": "modeling_rexbert.RexBertForMaskedLM",
    "AutoModelForPreTraining": "modeling_rexbert.RexBertForPreTraining",
    "AutoModelForSequenceClassification": "modeling_rexbert.RexBertForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_rexbert.RexBertForTokenClassification",
    "AutoModelForQuestionAnswering": "modeling_rexbert.RexBertForQuestionAnswering",
    "AutoModelForMultipleChoice": "modeling_rexbert.RexBertForMultipleChoice",
}
"""Every class a saved checkpoint can be opened with by `trust_remote_code=True`, whatever head it was saved with."""


def nearest_cell(cells: list[tuple[int, int]], layers: int, dim: int) -> tuple[int, int]:
    """The cell of a grid that is nearest in layers and dimensions, as shares of the largest ones.

    Args:
        cells: (layers, dimensions), at least one.
        layers: of the cell that is asked for.
        dim: its dimensions.

    Example:
        >>> nearest_cell([(3, 32), (7, 256)], 4, 64)
        (3, 32)
    """
    deepest, widest = max(depth for depth, _ in cells), max(width for _, width in cells)
    return min(cells, key=lambda cell: abs(cell[0] - layers) / deepest + abs(cell[1] - dim) / widest)


def word_on_cell(cell: tuple[int, int], trained: list[tuple[int, int]], stale: bool = False) -> str | None:
    """What someone who cuts a cell out of a model should know; None if all is well.

    Args:
        cell: (layers, dimensions) that is cut out.
        trained: cells of the model's grid; empty for a plain model, of which nobody expects anything.
        stale: the model was fine-tuned since without the grid.

    Example:
        >>> word_on_cell((4, 64), [(3, 32), (7, 256)])
        '4 layers x 64 dimensions is no cell that was trained; the nearest one is 3 x 32'
        >>> word_on_cell((3, 32), [(3, 32), (7, 256)], stale=True)
        '3 layers x 32 dimensions was trained in pre-training, not in fine-tuning'
    """
    name = f"{cell[0]} layers x {cell[1]} dimensions"
    if not trained or (cell in trained and not stale):
        return None
    if cell not in trained:
        near = nearest_cell(trained, *cell)
        return f"{name} is no cell that was trained; the nearest one is {near[0]} x {near[1]}"
    largest = max(trained, key=lambda other: (other[1], other[0]))
    return None if cell == largest else f"{name} was trained in pre-training, not in fine-tuning"


def is_count(value: object) -> bool:
    """Whether a value is an integer: `hidden_size / 4` is none, and would fail much later, in a slice.

    Example:
        >>> is_count(64), is_count(64.0), is_count("64")
        (True, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_weights(weights: list[float | int], sample: int) -> None:
    """Refuse weights of cells that are negative or no numbers, and a sample that is never the whole sum.

    Args:
        weights: any.
        sample: cells of a step.

    Raises:
        ValueError: for either.
    """
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError(f"weights of a Matryoshka grid are finite and not negative; got {weights}")
    if sample < 0 or sample == 1:
        raise ValueError(
            f"sample={sample} cells in a step: 2 or more (the largest one alone would leave the others out), or 0 for"
            " all of them"
        )


@strict
class RexBertConfig(ModernBertConfig):
    """Configuration of every RexBERT class; any ModernBERT configuration is a valid one.

    Attributes:
        attention_output_dropout: dropout after the attention output projection (the published recipe trains with
            0.1); the ModernBERT form has no such field, and needs none: dropout is off at inference.
        truncate_dim: pooling and heads read only the first `truncate_dim` dimensions (Matryoshka sub-model);
            `last_hidden_state` keeps its full width. None: all of them.
        matryoshka_layers: train the masked-LM loss after each of these layers too (m3BERT); None: the last one only.
        matryoshka_dims: and over so many first dimensions each; None: all of them. Cells are layers x dimensions.
        matryoshka_cells: pairs (layers, dimensions) in place of the product, as Starbucks' diagonal.
        matryoshka_weights: weight of each cell, in the order of `matryoshka_grid`: all dimensions of the first number
            of layers, then of the next; or that of `matryoshka_cells`. None: 1 each, as m3BERT.
        matryoshka_sample: train the largest cell and so many less one of the others in a step (2 or more), weighted so
            that the expectation is the whole sum; 0: all.
        matryoshka_kl_weight: adds the divergence of each cell from the largest one, its detached teacher; the weight
            of the cell, and the factor of a sample, multiply it too.
        matryoshka_stale: the model was fine-tuned since without the grid, so its cells are those of pre-training.
        norm_intermediate: apply the final norm after layers in between, so that a cut model is the model that was
            trained; False leaves them as they are, as the released m3BERT does. A model that is cut then has no final
            norm, and no ModernBERT form.
        apply_final_norm: False for such a cut model.
        npr_weight: weight of neighbour product reconstruction in `RexBertForPreTraining`.
        npr_margin: margin of its triplet loss (E-BERT, equation 12).
        npr_normalize: divide its distances by length and width.

    Example:
        >>> config = RexBertConfig.from_size("micro")
        >>> config.num_hidden_layers, config.hidden_size, config.layer_types[:4]
        (7, 256, ['full_attention', 'sliding_attention', 'sliding_attention', 'full_attention'])
    """

    model_type = "rexbert"

    classifier_pooling: Literal["cls", "mean"] = "mean"
    attention_output_dropout: float | int = 0.0
    truncate_dim: int | None = None
    matryoshka_layers: list[int] | None = None
    matryoshka_dims: list[int] | None = None
    matryoshka_cells: list[list[int]] | None = None
    matryoshka_weights: list[float | int] | None = None
    matryoshka_sample: int = 0
    matryoshka_kl_weight: float | int = 0.0
    matryoshka_stale: bool = False
    norm_intermediate: bool = True
    apply_final_norm: bool = True
    npr_weight: float | int = 1.0
    npr_margin: float | int = 1.0
    npr_normalize: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        self._check_shape(kwargs)
        super().__post_init__(**kwargs)
        self._check_numbers()
        self.check_truncate_dim()
        self.check_matryoshka()
        self.auto_map = dict(AUTO_MAP)

    def _check_shape(self, others: dict[str, Any]) -> None:
        """Refuse numbers of layers, heads and dimensions that no model has; kinds of values are checked elsewhere."""
        names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
        found = {name: getattr(self, name) for name in names} | {
            name: others[name] for name in ("global_attn_every_n_layers",) if name in others
        }
        for name, value in found.items():
            if is_count(value) and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        width, heads = self.hidden_size, self.num_attention_heads
        if is_count(width) and is_count(heads) and width % heads == 0 and (width // heads) % 2:
            raise ValueError(
                f"hidden_size={width} in num_attention_heads={heads} makes heads of width {width // heads}: rotary"
                " positions turn pairs, so it must be even"
            )

    def _check_numbers(self) -> None:
        """Refuse what would make every state not a number."""
        for kind, values in (self.rope_parameters or {}).items():
            theta = values.get("rope_theta") if isinstance(values, dict) else None
            if theta is not None and not (isinstance(theta, int | float) and 0 < theta < math.inf):
                raise ValueError(f"the RoPE theta of {kind} layers is {theta!r}: it must be above 0 and finite")
        if not 0 <= self.norm_eps < math.inf:
            raise ValueError(f"norm_eps={self.norm_eps} must not be negative, and must be finite")

    def check_truncate_dim(self) -> None:
        """Refuse a `truncate_dim` outside 1 to hidden_size (models ask again: overrides arrive after this class)."""
        if self.truncate_dim is None:
            return
        if not is_count(self.truncate_dim) or not 1 <= self.truncate_dim <= self.hidden_size:
            raise ValueError(
                f"truncate_dim={self.truncate_dim!r} must be an integer between 1 and hidden_size={self.hidden_size}"
            )

    def matryoshka_grid(self) -> list[tuple[int, int]]:
        """Cells (layers, dimensions) that are trained; empty for a plain model.

        Example:
            >>> RexBertConfig.from_size("micro", matryoshka_layers=[3, 7], matryoshka_dims=[64]).matryoshka_grid()
            [(3, 64), (7, 64)]
        """
        if self.matryoshka_cells:
            return [(int(layers), int(dim)) for layers, dim in self.matryoshka_cells]
        if self.matryoshka_layers is None and self.matryoshka_dims is None:
            return []
        layers = self.matryoshka_layers or [self.num_hidden_layers]
        return [(depth, dim) for depth in layers for dim in self.matryoshka_dims or [self.hidden_size]]

    def leave_layers(self) -> None:
        """Become the configuration of a model that loses its last layers: their norm was trained for them alone."""
        self.apply_final_norm = self.apply_final_norm and self.norm_intermediate

    def check_matryoshka(self) -> None:
        """Refuse a grid that the model does not have, and weights that do not fit it."""
        if self.matryoshka_cells and not (self.matryoshka_layers is None and self.matryoshka_dims is None):
            raise ValueError("cells stand in place of layers and dims; set one or the other")
        if any(len(cell) != 2 for cell in self.matryoshka_cells or []):
            raise ValueError(f"cells are pairs (layers, dimensions); got {self.matryoshka_cells}")
        cells = self.matryoshka_grid()
        for layers, dim in cells:
            if not (1 <= layers <= self.num_hidden_layers and 1 <= dim <= self.hidden_size):
                raise ValueError(
                    f"Matryoshka cell of {layers} layers x {dim} dimensions: the model has {self.num_hidden_layers} "
                    f"layers and {self.hidden_size} dimensions"
                )
        if len(set(cells)) < len(cells):
            raise ValueError(f"a Matryoshka cell is named twice: {cells}")
        if self.matryoshka_weights is not None and len(self.matryoshka_weights) != len(cells):
            raise ValueError(f"{len(self.matryoshka_weights)} matryoshka_weights for {len(cells)} cells")
        check_weights([*(self.matryoshka_weights or []), self.matryoshka_kl_weight], self.matryoshka_sample)

    def leave_matryoshka(self) -> str | None:
        """Become the configuration of a model without a grid; what is to be said of the cell that it then is."""
        here = (self.num_hidden_layers, self.truncate_dim or self.hidden_size)
        found = word_on_cell(here, self.matryoshka_grid(), self.matryoshka_stale)
        self.matryoshka_layers = self.matryoshka_dims = self.matryoshka_cells = self.matryoshka_weights = None
        self.matryoshka_sample, self.matryoshka_kl_weight, self.matryoshka_stale = 0, 0.0, False
        return found

    @classmethod
    def from_size(cls, name: str, **overrides: Any) -> RexBertConfig:
        """Configuration of a published size.

        Args:
            name: "micro" (16.9 M parameters), "mini" (68.5 M), "base" (149.7 M), "large" (395.9 M) or "student"
                (15.1 M).
            overrides: any other field, for instance `vocab_size`.

        Raises:
            ValueError: if there is no such size.
        """
        if name not in SIZES:
            raise ValueError(f"no RexBERT size '{name}': choose one of {', '.join(SIZES)}")
        return cls(**{**SIZES[name], **overrides})

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a configuration; one of stock ModernBERT becomes a RexBERT one without a warning."""
        config_dict, kwargs = super().get_config_dict(*args, **kwargs)
        if config_dict.get("model_type") == "modernbert":
            config_dict = {**config_dict, "model_type": cls.model_type}
            names = config_dict.get("architectures") or []
            config_dict["architectures"] = [name.replace("ModernBert", "RexBert") for name in names]
            # A field that a stock configuration leaves out has the stock default.
            config_dict.setdefault("classifier_pooling", "cls")
        return config_dict, kwargs


__all__ = ["RexBertConfig", "check_weights", "is_count", "nearest_cell", "word_on_cell"]
