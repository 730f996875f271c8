"""What a pre-training recipe may say: one dataclass tree, filled from YAML and the command line.

Only what differs from the defaults needs to be written. Paths are relative to the working directory, or to `data_dir`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.utils import validate_repo_id

from rexbert_hf.pretraining.association_settings import AssociationSettings
from rexbert_hf.pretraining.source_settings import SourceSettings, TokenizerSettings
from rexbert_hf.settings.ranges import check_least, check_vocab_size
from rexbert_hf.training.collation import MASKINGS
from rexbert_hf.training.phases import Curriculum, Phase
from rexbert_hf.training.spikes import SPIKE_FACTOR, SpikeWatch

_PHRASE_MASKINGS = ("ahm", "phrase", "noun_phrase")
_BLIND_MASKINGS = ("mlm", "span", "query_product", "relevance")
"""Kinds of masking that read no spans of guides."""
_PAIR_MASKINGS = ("query_product", "relevance")


@dataclass
class MatryoshkaSettings:
    """Cells (layers, dimensions) whose masked-LM losses are summed (m3BERT), for a new or a continued RexBERT.

    Attributes:
        layers: after which layers; None: after the last.
        dims: over how many first dimensions; None: all.
        cells: pairs in place of layers x dims.
        weights: of each cell, 1 by default: all dims of the first of the layers, then of the next; or as in cells.
        sample: train the largest cell and so many less one of the others in a step (2 or more); 0: all.
        kl_weight: of the divergence from the largest cell, a detached teacher, times the weight of the cell.
        norm_intermediate: apply the final norm after layers in between.
    """

    layers: list[int] | None = None
    dims: list[int] | None = None
    cells: list[list[int]] | None = None
    weights: list[float] | None = None
    sample: int = 0
    kl_weight: float = 0.0
    norm_intermediate: bool = True

    def fields(self) -> dict[str, Any]:
        """As fields of a `RexBertConfig`."""
        found = {f"matryoshka_{item.name}": getattr(self, item.name) for item in dataclasses.fields(self)}
        return {"norm_intermediate": found.pop("matryoshka_norm_intermediate"), **found}


@dataclass
class ModelSettings:
    """Which encoder is trained.

    Attributes:
        size: a published size, or student (2 layers of 256) for a new model; null where `init_from` must be given.
        init_from: continue this masked-LM checkpoint (folder or Hub id; RexBERT, ModernBERT or any other architecture).
        revision: of `init_from` on the Hub.
        grow_from: initialise the new model of `size` from this smaller checkpoint by tiling from the middle.
        overrides: other fields of the configuration of a new model, e.g. attention_output_dropout.
        attn_implementation: attention back-end; None lets the model choose.
        matryoshka: train a grid of sub-models in one. None goes on with the grid of `init_from` where it has one; "off"
            trains the whole model only.
    """

    size: Literal["micro", "mini", "base", "large", "student"] | None = "micro"
    init_from: str | None = None
    revision: str | None = None
    grow_from: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    attn_implementation: str | None = None
    matryoshka: MatryoshkaSettings | Literal["off"] | None = None

    def __post_init__(self) -> None:
        if self.size is None and self.init_from is None:
            raise ValueError(
                "set --model.init_from to the masked-LM checkpoint to continue (folder or Hub id), or --model.size for"
                " a new model"
            )
        if self.init_from is None and self.revision is not None:
            raise ValueError("revision belongs to init_from, which is not set")
        if self.init_from is not None and self.grow_from is not None:
            raise ValueError("init_from continues a model, grow_from starts a new one: set only one of them")
        if self.init_from is not None and self.overrides:
            raise ValueError(
                f"overrides ({', '.join(self.overrides)}) are for a new model: init_from brings its own configuration"
            )


@dataclass
class GuideSettings:
    """What guided and phrase masking look for; spans are marked once, when the text is tokenised.

    Attributes:
        always: mark spans even if no phase masks by them (for evaluation by span).
        regex: classes of regular expressions.
        brands: a text file of brand names, one a line.
        types: a text file of product types, one a line.
        sample_lexicons: brands and types of the sample shop.
        idf: weight tokens by inverse document frequency, from the training text.
        phrases: a phrase pool: a folder or a data set on the Hub that recipes/mine_phrases.py made, or a score file of
            AutoPhrase.
        noun_phrases: with a pool, what fills up texts with few of its phrases: "spacy", "light" (the chunker of this
            package), "auto" (spaCy where a model is installed) or "none". Without a pool, "spacy" and "light" mark all
            noun phrases.
        min_phrases: a text with fewer phrases of the pool is filled up.
        min_phrase_share: so is one of whose characters they cover a smaller share.
    """

    always: bool = False
    regex: list[str] = field(default_factory=lambda: ["price", "percent", "size", "dimension", "model", "sku"])
    brands: str | None = None
    types: str | None = None
    sample_lexicons: bool = False
    idf: bool = False
    phrases: str | None = None
    noun_phrases: Literal["auto", "spacy", "light", "none"] = "auto"
    min_phrases: int = 2
    min_phrase_share: float = 0.3

    def __post_init__(self) -> None:
        if self.min_phrases < 0:
            raise ValueError(f"min_phrases must be at least 0; got {self.min_phrases}")
        if not 0 <= self.min_phrase_share <= 1:
            raise ValueError(f"min_phrase_share must lie in [0, 1]; got {self.min_phrase_share}")

    @property
    def marks_phrases(self) -> bool:
        """Whether texts get spans of the kind phrase or noun_phrase."""
        return self.phrases is not None or self.noun_phrases in ("spacy", "light")


@dataclass
class TrainerSettings:
    """How training runs; `extra` takes any other field of transformers' `TrainingArguments`.

    Attributes:
        bf16: bfloat16 autocast; "auto" where the GPU or the CPU (AMX, AVX-512) multiplies it faster than float32.
        torch_compile: compile the feed-forward blocks, on accelerators also rotation and softmax (goes on without, with
            one line, where there is no compiler).
        gradient_checkpointing: recompute activations.
        weight_decay: not on norms and biases.
        max_grad_norm: clip the gradient.
        num_workers: processes that pack and mask.
        logging_steps: steps between log records.
        save_steps: steps between checkpoints; phases always end with one.
        save_total_limit: checkpoints to keep beside those of phase ends; 0: all.
        report_to: tensorboard, trackio, wandb, ... (several with commas) or none.
        use_cpu: stay off the GPU.
        num_processes: stop unless exactly so many processes run (None: whatever the launcher started).
        spike_factor: stop, with the batch kept, when a loss is above so many times the running median of its phase, and
            a nat above it; null: only when it is no number.
        spike_window: steps of that median.
        cpu_threads: torch threads; None: OMP_NUM_THREADS if you set it, else the cores over the processes here.
        extra: further training arguments.
    """

    bf16: bool | Literal["auto"] = "auto"
    torch_compile: bool = False
    gradient_checkpointing: bool = False
    weight_decay: float = 1e-5
    max_grad_norm: float = 1.0
    num_workers: int = 0
    logging_steps: int = 10
    save_steps: int = 500
    save_total_limit: int = 2
    report_to: str = "none"
    use_cpu: bool = False
    num_processes: int | None = None
    spike_factor: float | None = SPIKE_FACTOR
    spike_window: int = 50
    cpu_threads: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        least = {"num_workers": 0, "logging_steps": 1, "save_steps": 1, "num_processes": 1, "cpu_threads": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(f"{name} must be at least {low}; got {value}")
        check_least(self, weight_decay=0, save_total_limit=0)
        if not self.max_grad_norm >= 0:  # infinity measures the norm and cuts nothing
            raise ValueError(f"max_grad_norm must be at least 0; got {self.max_grad_norm}")
        if self.spike_factor is not None:
            SpikeWatch(self.spike_factor, self.spike_window)  # of these two it says what is wrong


@dataclass
class EvaluationSettings:
    """Held-out evaluation before and after each phase: masks .15 with a fixed seed, whatever a phase masks.

    Attributes:
        held_out: share of the documents that no source trains on (by the hash of the text).
        max_tokens: held-out tokens of each source to use.
        seq_length: longest document; None for the longest of all phases.
        position_edges: report accuracy by position too, between these edges.
        baselines: also report the most-frequent-token guess and a left/right-neighbour count model.
        baseline_tokens: training tokens that the count models see.
    """

    held_out: float = 0.02
    max_tokens: int | None = 200_000
    seq_length: int | None = None
    position_edges: list[int] = field(default_factory=lambda: [0, 1024, 8192])
    baselines: bool = True
    baseline_tokens: int = 20_000_000

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out is a share of the documents, at least 0 and below 1; got {self.held_out}")
        if sorted(set(self.position_edges)) != self.position_edges or len(self.position_edges) == 1:
            raise ValueError(f"position_edges must rise, as [0, 1024, 8192], or be empty; got {self.position_edges}")
        check_least(self, max_tokens=1, seq_length=8, baseline_tokens=1)
        if min(self.position_edges, default=0) < 0:
            raise ValueError(f"position_edges must not be negative; got {self.position_edges}")


@dataclass
class PretrainSettings:
    """A whole pre-training run.

    Attributes:
        sources: texts by name; phases mix them.
        phases: the curriculum.
        output_dir: the run's folder; starting again on it resumes the run.
        model: the encoder.
        tokenizer: the tokenizer.
        guides: what guided masking looks for.
        associations: which products belong together, for phases with the objective "npr".
        trainer: how training runs.
        evaluation: held-out evaluation.
        data_dir: relative paths of sources start here.
        cache_dir: tokenised data; None for `output_dir`/cache.
        scale: multiplies all token budgets, warm-ups and decays.
        seed: of everything.
        micro_batch_tokens: most tokens of one forward pass on one device, padding counted (but in phases with "npr" of
            models that take padded batches: triplets stay together, so padding comes on top).
        push_to_hub: "user/name" to push the finished run to.
        private: whether a new repository is private.
    """

    sources: dict[str, SourceSettings]
    phases: list[Phase]
    output_dir: str = "output/pretrain"
    model: ModelSettings = field(default_factory=ModelSettings)
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    guides: GuideSettings = field(default_factory=GuideSettings)
    associations: AssociationSettings | None = None
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    data_dir: str | None = None
    cache_dir: str | None = None
    scale: float = 1.0
    seed: int = 0
    micro_batch_tokens: int = 16384
    push_to_hub: str | None = None
    private: bool | None = None

    def __post_init__(self) -> None:
        for name in self.sources:
            if name in ("", "..") or name != Path(name).name:
                raise ValueError(f"sources: '{name}' is the name of a folder in the cache too: choose one without '/'")
        if self.tokenizer.train or not (self.tokenizer.path or self.model.init_from or self.model.grow_from):
            check_vocab_size(self.tokenizer.vocab_size, "tokenizer.vocab_size")
        for phase in self.phases:
            for source in phase.mixture:
                if source not in self.sources:
                    raise ValueError(
                        f"phase '{phase.name}': mixture names the source '{source}', which is not one of the sources"
                        f" ({', '.join(self.sources) or 'none'}): add it, or correct the name"
                    )
            if phase.masking.kind not in MASKINGS:
                raise ValueError(
                    f"phase '{phase.name}': unknown masking.kind '{phase.masking.kind}': use one of"
                    f" {', '.join(MASKINGS)}"
                )
            if phase.masking.kind == "relevance" and not self.classifies_pairs:
                raise ValueError(
                    f"phase '{phase.name}': masking.kind 'relevance' trains a classifier of pairs: run recipes/qpi.py"
                    " with --objective relevance, or choose another masking"
                )
            self._check_pairs(phase)
            if "npr" in phase.objectives and self.associations is None:
                raise ValueError(
                    f"phase '{phase.name}': the objective 'npr' needs associations: set --associations.path and"
                    " --associations.columns (pairs, also_buy lists or baskets), or drop it"
                )
            if phase.masking.kind in _PHRASE_MASKINGS and not (
                self.guides.marks_phrases or "kinds" in phase.masking.options
            ):
                raise ValueError(
                    f"phase '{phase.name}': masking.kind '{phase.masking.kind}' needs phrases: set --guides.phrases to"
                    " a pool (recipes/mine_phrases.py makes one), or --guides.noun_phrases to light or spacy"
                )
        self.curriculum()
        if self.push_to_hub is not None:
            validate_repo_id(self.push_to_hub)

    def _check_pairs(self, phase: Phase) -> None:
        """Pairs stay whole, and only pairs have two sides."""
        pairs = {name: found for name in phase.mixture if (found := self.sources[name].pairs) is not None}
        if phase.masking.kind in _PAIR_MASKINGS and not pairs:
            raise ValueError(
                f"phase '{phase.name}': masking.kind '{phase.masking.kind}' needs query-product pairs: give one of its"
                " sources 'pairs' (recipes/build_pairs.py makes them)"
            )
        for name, found in pairs.items():
            if found.max_tokens > phase.seq_length:
                raise ValueError(
                    f"phase '{phase.name}': seq_length={phase.seq_length} would cut the pairs of '{name}': lower"
                    f" sources.{name}.pairs.max_tokens (now {found.max_tokens}), or raise seq_length"
                )

    def curriculum(self) -> Curriculum:
        """The phases, scaled."""
        return Curriculum(self.phases, self.seed, self.micro_batch_tokens).scaled(self.scale)

    @property
    def held_out(self) -> float:
        """Share of the documents that no source trains on, whichever holds them out; 0 where none is evaluated."""
        return self.evaluation.held_out if any(source.evaluate for source in self.sources.values()) else 0.0

    @property
    def classifies_pairs(self) -> bool:
        """Whether the model is a classifier of pairs in place of one that fills masks."""
        return False

    @property
    def needs_associations(self) -> bool:
        """Whether a phase reconstructs neighbours."""
        return any("npr" in phase.objectives for phase in self.phases)

    def card_fields(self) -> dict[str, Any]:
        """Fields of the card beside those of a new encoder, kept in `run.json`, so that a push renders the same."""
        return {} if self.model.init_from is None else {"base_model": self.model.init_from}

    @property
    def needs_guides(self) -> bool:
        """Whether the text has to be searched for spans."""
        return self.guides.always or any(phase.masking.kind not in _BLIND_MASKINGS for phase in self.phases)
