"""Small encoders to export, and a process that cannot import torch."""

from __future__ import annotations

from typing import Any

from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, load_biencoder

TEXTS = [
    "red shoe",
    "usb c cable 2 m black",
    "a long text about stainless steel kettles and tea pots " * 12,
    "",
    "\U0001f45f \u05e0\u05e2\u05dc\u05d9\u05d9\u05dd 42",
]

WITHOUT_TORCH = """
import sys


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "sentence_transformers", "rexbert_hf", "datasets"):
            raise ImportError(f"{name} is not installed in this process")


sys.meta_path.insert(0, Blocked())
sys.path.insert(0, sys.argv[1])
import json
import numpy as np
from onnx_encoder import OnnxEncoder

texts = json.loads(sys.argv[2])
vectors = {precision: OnnxEncoder(sys.argv[1], precision).encode_query(texts) for precision in ("fp32", "int8")}
np.savez(sys.argv[3], **vectors)
assert not {"torch", "transformers", "rexbert_hf"} & set(sys.modules)
"""


def small_encoder(pooling: str = "mean", shared: bool = True, max_tokens: int = 40) -> Any:
    """Two layers of 64; weights drawn wide enough that texts differ."""
    import torch

    torch.manual_seed(0)
    settings = BiEncoderSettings(preset="tiny", vocab_size=384, pooling=pooling, shared=shared, max_tokens=max_tokens)
    model = load_biencoder(settings, ["red shoe", "blue cable"] * 3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 2 / parameter.shape[-1] ** 0.5)
    return model.eval()
