"""Settings of a recipe that name data or masks and that no phase of it reads.

A warning, no error: rows of a reproduction and continued recipes share such settings with phases that do read them.
"""

from __future__ import annotations

import logging

from rexbert_hf.pretraining.settings import PretrainSettings
from rexbert_hf.training.neighbor_settings import NeighborConfig
from rexbert_hf.training.phases import MaskingConfig

logger = logging.getLogger(__name__)

_WHOLE_WORD = "mlm"
"""The one kind of masking that reads `whole_word`; guided masking masks whole words in any case."""


def unread_settings(settings: PretrainSettings) -> list[str]:
    """What a recipe sets and no phase reads, as keys with the reason.

    Args:
        settings: the recipe.
    """
    found = []
    if settings.associations is not None and not settings.needs_associations:
        found.append("associations: no phase has the objective 'npr'")
    if not settings.needs_guides:
        named = [name for name in ("brands", "types", "phrases") if getattr(settings.guides, name) is not None]
        found += [f"guides.{name}: no phase masks by spans, and guides.always is off" for name in named]
    plain = MaskingConfig()
    for phase in settings.phases:
        masking, key = phase.masking, f"phases.{phase.name}"
        if "npr" not in phase.objectives and phase.neighbors != NeighborConfig():
            found.append(f"{key}.neighbors: the phase has not the objective 'npr'")
        if masking.whole_word and masking.kind not in (_WHOLE_WORD, "guided"):
            found.append(f"{key}.masking.whole_word: masking.kind '{masking.kind}' does not read it")
        if masking.kind != "guided":
            guidance = [name for name in ("start", "end", "tokens") if _differs(masking, plain, f"guidance_{name}")]
            found += [f"{key}.masking.guidance_{name}: masking.kind is '{masking.kind}'" for name in guidance]
    return found


def warn_of_unread(settings: PretrainSettings) -> None:
    """Say what a recipe sets and no phase reads.

    Args:
        settings: the recipe.
    """
    for unread in unread_settings(settings):
        logger.warning("%s: nothing reads it", unread)


def _differs(masking: MaskingConfig, plain: MaskingConfig, name: str) -> bool:
    return bool(getattr(masking, name) != getattr(plain, name))
