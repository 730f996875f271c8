"""The RexBERT encoder: ModernBERT's parameters, run over flat batches of documents without padding.

Names and shapes of all parameters are stock ModernBERT's, so checkpoints load both ways. A padded call is unpadded
at the door and padded again at the exit; a flat call (`cu_seq_lens_q`, or `position_ids` that restart at 0) runs as it
is.

Shape letters: B rows, S columns of the caller's input; T tokens of the flat batch; H width.
Travels to the Hub as remote code: imports torch, transformers and its siblings only.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging

from .attention_rexbert import spare_rows, uses_varlen
from .configuration_rexbert import AUTO_MAP, RexBertConfig, is_count
from .layers_rexbert import (
    RexBertAttention,
    RexBertEmbeddings,
    RexBertEncoderLayer,
    RexBertRotaryEmbedding,
    hands_norms_on,
    layer_types,
)
from .layout_rexbert import Layout, make_layout
from .modernbert import save_modernbert, save_sentence_form
from .products_rexbert import compute_dtype

logger = logging.get_logger(__name__)

REMOTE_FILES = (
    "configuration_rexbert.py",
    "layout_rexbert.py",
    "fused_rexbert.py",
    "flat_attention_rexbert.py",
    "attention_rexbert.py",
    "losses_rexbert.py",
    "logits_rexbert.py",
    "reconstruction_rexbert.py",
    "matryoshka_rexbert.py",
    "modernbert.py",
    "products_rexbert.py",
    "layers_rexbert.py",
    "encoder_rexbert.py",
    "modeling_rexbert.py",
)


@dataclass
class FlatOutput:
    """What the encoder hands to a head: `hidden` `[T, H]` in flat order, and the way back.

    `hidden_states` and `attentions` are in the caller's shape already.
    """

    hidden: torch.Tensor
    layout: Layout
    hidden_states: tuple[torch.Tensor | None, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None

    def extras(self) -> dict[str, Any]:
        """What every head passes on."""
        return {"hidden_states": self.hidden_states, "attentions": self.attentions}


class RexBertPreTrainedModel(PreTrainedModel):
    """Weight initialisation, saving as remote code, and what transformers needs to know of the family."""

    config: RexBertConfig
    config_class = RexBertConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["RexBertEmbeddings", "RexBertEncoderLayer"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = False
    _supports_attention_backend = False
    # What the encoder can return; it collects them itself, hooks would see flat tensors.
    _can_record_outputs = {"hidden_states": RexBertEncoderLayer, "attentions": RexBertAttention}

    def __init__(self, config: RexBertConfig, *args: Any, **kwargs: Any) -> None:
        # `from_pretrained(..., num_hidden_layers=k)` overrides one field after the config has checked itself.
        layers = config.num_hidden_layers
        known = layers if config.layer_types is None else len(config.layer_types)
        if not is_count(layers) or not 1 <= layers <= known:
            raise ValueError(f"num_hidden_layers={layers!r} must be an integer between 1 and {max(known, 1)}")
        if config.layer_types is not None and known > layers:
            config.layer_types = config.layer_types[:layers]
            config.leave_layers()
        config.check_truncate_dim()
        is_cut = any(layers > config.num_hidden_layers for layers, _ in config.matryoshka_grid())
        if is_cut or config.truncate_dim is not None:
            _warn(config.leave_matryoshka())
        super().__init__(config, *args, **kwargs)
        # What such a cut leaves out is no surprise, nor, for an encoder, the head that pre-training leaves.
        left_out = [rf"layers\.(?!(?:{'|'.join(str(i) for i in range(config.num_hidden_layers))})\.)\d+\."]
        left_out += [] if config.apply_final_norm else [r"final_norm\."]
        left_out += [r"^head\.", r"^decoder\."] if isinstance(self, RexBertModel) else []
        self._keys_to_ignore_on_load_unexpected = left_out

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        """Back-ends are chosen at each call by `attend`, so they may change at any time."""
        return True

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoModel") -> None:
        """Do nothing: every saved checkpoint names all classes in its `auto_map` already.

        Args:
            auto_class: not used.
        """

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Truncated normal as in ModernBERT, with the deviation that `drawn` gave to each layer.

        Each layer by itself: of a class outside transformers, modules without parameters of their own never come here.
        """
        super()._init_weights(module)
        std = getattr(module, "init_std", None)
        if std is not None:
            assert isinstance(module, nn.Linear | nn.Embedding)
            cutoff = std * (3.0 if (factor := self.config.initializer_cutoff_factor) is None else factor)
            init.trunc_normal_(module.weight, mean=0.0, std=std, a=-cutoff, b=cutoff)

    def save_pretrained(  # type: ignore[override]  # what it does not name goes through
        self,
        save_directory: Any,
        is_main_process: bool = True,
        state_dict: dict[str, Any] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save weights, configuration and the model code, so that `trust_remote_code=True` opens it anywhere.

        Args:
            save_directory: the folder.
            is_main_process: whether this process writes.
            state_dict: weights in place of the model's own.
            push_to_hub: push it too, to `repo_id` or a repository of the folder's name.
            kwargs: of transformers' `save_pretrained`, and with `push_to_hub` of its `push_to_hub`.
        """
        self.config.auto_map = dict(AUTO_MAP)
        names = ("repo_id", "commit_message", "commit_description", "create_pr", "private", "revision", "tags")
        pushing = {name: kwargs.pop(name) for name in names if name in kwargs}
        super().save_pretrained(save_directory, is_main_process, state_dict, **kwargs)
        if is_main_process:
            self._save_code(save_directory)
        if push_to_hub and is_main_process:  # not by transformers' own way, which uploads before the code is there
            pushing |= {name: kwargs[name] for name in ("token", "max_shard_size") if name in kwargs}
            self.push_to_hub(pushing.pop("repo_id", Path(save_directory).name), **pushing)

    def _save_code(self, save_directory: Any) -> None:
        save_sentence_form(save_directory, self.config.hidden_size, self.config.truncate_dim)
        for name in REMOTE_FILES:
            source, target = Path(__file__).resolve().with_name(name), Path(save_directory) / name
            if not (target.exists() and target.samefile(source)):
                shutil.copyfile(source, target)

    def set_rope_theta(self, global_theta: float | None = None, local_theta: float | None = None) -> None:
        """Change the base of the rotary embedding (context extension); takes effect with the next forward pass.

        Args:
            global_theta: base of the global layers; None leaves it.
            local_theta: base of the local layers; None leaves it.
        """
        parameters = self.config.rope_parameters
        assert parameters is not None
        if global_theta is not None:
            parameters["full_attention"]["rope_theta"] = float(global_theta)
        if local_theta is not None:
            parameters["sliding_attention"]["rope_theta"] = float(local_theta)

    def submodel(self, num_hidden_layers: int | None = None, truncate_dim: int | None = None) -> RexBertPreTrainedModel:
        """A copy that keeps the first layers and reads the first dimensions: stands alone, saves and loads.

        Args:
            num_hidden_layers: layers to keep; None keeps all.
            truncate_dim: dimensions that pooling and heads read; None reads all.

        Raises:
            ValueError: if there are fewer layers or dimensions than asked for.
        """
        layers = self.config.num_hidden_layers if num_hidden_layers is None else num_hidden_layers
        if not is_count(layers) or not 1 <= layers <= self.config.num_hidden_layers:
            most = self.config.num_hidden_layers
            raise ValueError(f"num_hidden_layers={layers!r} must be an integer between 1 and {most}")
        wanted = copy.deepcopy(self.config)
        wanted.num_hidden_layers = layers
        wanted.truncate_dim = self.config.truncate_dim if truncate_dim is None else truncate_dim
        wanted.check_truncate_dim()
        if layers < self.config.num_hidden_layers:
            wanted.leave_layers()
        if layers < self.config.num_hidden_layers or truncate_dim is not None:
            _warn(wanted.leave_matryoshka())
        fields = wanted.to_dict()
        fields["num_hidden_layers"], fields["layer_types"] = layers, layer_types(self.config)[:layers]
        fields["truncate_dim"] = self.config.truncate_dim if truncate_dim is None else truncate_dim
        config = RexBertConfig.from_dict(fields)
        config._attn_implementation = self.config._attn_implementation
        build: type[RexBertPreTrainedModel] = type(self)
        with torch.device("meta"):
            model = build(config)
        kept = model.state_dict().keys()
        state = {name: tensor.clone() for name, tensor in self.state_dict().items() if name in kept}
        model.load_state_dict(state, assign=True)
        model.tie_weights()
        return model.train(self.training)

    def save_modernbert(self, save_directory: str | Path) -> None:
        """Save as a stock ModernBERT checkpoint, which transformers, TEI, vLLM and ONNX tools open as it is.

        Raises:
            ValueError: if the model has no ModernBERT form.
        """
        save_modernbert(self, save_directory)


def _warn(message: str | None) -> None:
    if message is not None:
        logger.warning(message)


class RexBertModel(RexBertPreTrainedModel):
    """The encoder: last hidden states of documents.

    Example:
        >>> model = RexBertModel(RexBertConfig.from_size("micro", vocab_size=64, pad_token_id=0)).eval()
        >>> flat = model(torch.tensor([[1, 2, 3, 1, 2]]), cu_seq_lens_q=torch.tensor([0, 3, 5]))
        >>> alone = model(torch.tensor([[1, 2]]))
        >>> bool(torch.allclose(flat.last_hidden_state[0, 3:], alone.last_hidden_state[0], atol=1e-5))
        True
    """

    def __init__(self, config: RexBertConfig) -> None:
        super().__init__(config)
        self.embeddings = RexBertEmbeddings(config)
        self.layers = nn.ModuleList([RexBertEncoderLayer(config, i) for i in range(config.num_hidden_layers)])
        self.final_norm: nn.Module = nn.Identity()
        if config.apply_final_norm:
            self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)
        self.rotary_emb = RexBertRotaryEmbedding(config)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding."""
        return self.embeddings.tok_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding by any module from ids `[..., S]` to `[..., S, H]`."""
        self.embeddings.tok_embeddings = value

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        cu_seq_lens_q: torch.Tensor | None = None,
        max_length_q: int | None = None,
        output_hidden_states: bool | int | list[int] | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        return_flat: bool = False,
        on_layer: Callable[[int, torch.Tensor, Layout], None] | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput | tuple[torch.Tensor, ...] | FlatOutput:
        """Encode a padded or a flat batch.

        Args:
            input_ids: `[B, S]`, or `[1, T]` for a flat batch.
            attention_mask: `[B, S]`, ones on tokens; not for flat batches.
            position_ids: positions; in a flat batch they restart at 0 with each document and are enough by
                themselves to mark the borders.
            inputs_embeds: `[B, S, H]` instead of `input_ids`.
            cu_seq_lens_q: `[D + 1]`, document borders of a flat batch.
            max_length_q: length of its longest document.
            output_hidden_states: also return the embeddings' and every layer's output, the last one normed; an index
                or a list of indexes keeps those and puts None for the others.
            output_attentions: also return attention maps (attn_implementation="eager" only).
            return_dict: False returns a tuple.
            return_flat: return a `FlatOutput` (for heads).
            on_layer: called after each layer with its number (1 is the first), its output `[T, H]` and the layout.
            kwargs: other keys of a flat batch (`cu_seq_lens_k`, `max_length_k`) and the trainer's, not used here.

        Raises:
            ValueError: if neither or both of `input_ids` and `inputs_embeds` are given, or the borders do not fit.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        config = self.config
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        source = input_ids if input_ids is not None else inputs_embeds
        assert source is not None
        layout = self._layout(source, attention_mask, position_ids, cu_seq_lens_q, max_length_q)
        if input_ids is not None:
            hidden = self.embeddings(input_ids=layout.flatten(input_ids))
        else:
            hidden = self.embeddings(inputs_embeds=layout.flatten(source))
        keep = _kept_states(output_hidden_states, config.num_hidden_layers)
        flat = self._encode(hidden, layout, keep, bool(output_attentions), on_layer)
        if return_flat:
            return flat
        last = layout.restore(flat.hidden)
        states: Any = flat.hidden_states
        if states is not None and states[-1] is not None:
            states = (*states[:-1], last)
        attentions: Any = flat.attentions
        output = BaseModelOutput(last_hidden_state=last, hidden_states=states, attentions=attentions)
        use_dict = getattr(config, "return_dict", True) if return_dict is None else return_dict
        return output if use_dict else output.to_tuple()

    def normed(self, hidden: torch.Tensor, depth: int) -> torch.Tensor:
        """What a model that is cut after layer number `depth` (1 is the first) returns, of that layer's output."""
        is_last = depth == len(self.layers)
        return self.final_norm(hidden) if is_last or self.config.norm_intermediate else hidden

    def _layout(
        self, source: torch.Tensor, attention_mask: torch.Tensor | None, position_ids: torch.Tensor | None,
        cu_seqlens: torch.Tensor | None, max_length: int | None,
    ) -> Layout:  # fmt: skip
        dtype = compute_dtype(self.embeddings.norm.weight, source.device)  # an offloaded weight is not there
        head_dim = self.config.hidden_size // self.config.num_attention_heads
        implementation = self.config._attn_implementation or "sdpa"
        # Eager keeps the caller's order too: its maps are returned document by document.
        varlen = implementation == "eager" or uses_varlen(implementation, source.device, dtype, head_dim)
        shape = (source.shape[0], source.shape[1])
        return make_layout(shape, source.device, attention_mask, position_ids, cu_seqlens, max_length, varlen)

    def _encode(
        self,
        hidden: torch.Tensor,
        layout: Layout,
        keep: set[int] | None,
        keep_attentions: bool,
        on_layer: Callable[[int, torch.Tensor, Layout], None] | None,
    ) -> FlatOutput:
        """Run the layers; the states that `keep` names come back in the caller's shape, None for the others."""
        ropes = {name: self.rotary_emb(hidden, layout.position_ids, name) for name in set(layer_types(self.config))}
        states, maps = list[torch.Tensor | None](), list[torch.Tensor]()
        tokens, dtype = hidden.shape[0], compute_dtype(hidden)
        if keep is None and not torch.compiler.is_compiling():
            hidden = F.pad(hidden, (0, 0, 0, spare_rows(tokens, hidden.device, dtype)))
        ahead: dict[str, Any] = {}
        hands_on = keep is None and hands_norms_on(self.layers)  # a kept state has a gradient of its own
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, RexBertEncoderLayer)
            if keep is not None:
                hidden = _keep(states, hidden, layout, index in keep)
            if hands_on:
                ahead["following"] = self.layers[index + 1].attn_norm if index + 1 < len(self.layers) else None
            hidden, weights, *normed = layer(hidden, rope=ropes[layer.attention_type], layout=layout, **ahead)
            ahead = {"normed": normed[0]} if normed else {}
            if on_layer is not None:
                on_layer(index + 1, hidden[:tokens], layout)
            if keep_attentions and weights is not None:
                maps.append(weights)
        hidden = self.final_norm(hidden[:tokens])
        if keep is not None:
            hidden = _keep(states, hidden, layout, len(self.layers) in keep)
        return FlatOutput(
            hidden, layout, None if keep is None else tuple(states), tuple(maps) if keep_attentions else None
        )


def _kept_states(wanted: bool | int | list[int] | None, layers: int) -> set[int] | None:
    """Indexes of the hidden states (0 = embeddings, `layers` = the last) to return; None for none."""
    if wanted is None or wanted is False:
        return None
    total = layers + 1
    if wanted is True:
        return set(range(total))
    chosen = [wanted] if isinstance(wanted, int) else list(wanted)
    return {i % total for i in chosen if -total <= i < total}


def _keep(states: list[torch.Tensor | None], hidden: torch.Tensor, layout: Layout, keep: bool) -> torch.Tensor:
    """Append a state in the caller's shape, and go on from it, so that its gradient can be asked for."""
    if not keep:
        states.append(None)
        return hidden
    state = layout.restore(hidden)
    states.append(state)
    return layout.flatten(state)
