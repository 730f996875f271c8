"""The protocol against a real server: `transformers serve` with a tiny random model, which can only fail to answer."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import is_serve_available

from rexbert_hf.corpus import ECOMMERCE, Document, EndpointSettings, LabelSettings, label, write_documents

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not is_serve_available(), reason="transformers serve needs fastapi, uvicorn, pydantic and openai"
    ),
]

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory) -> Iterator[EndpointSettings]:
    folder = tmp_path_factory.mktemp("tiny")
    trainer = ByteLevelBPETokenizer()
    trainer.train_from_iterator(["a steel mug and a day of rain"], 300, special_tokens=["<s>", "</s>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trainer._tokenizer, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=8192, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), "--host", "127.0.0.1",
               "--port", str(port), "--device", "cpu"]  # fmt: skip
    log = folder / "serve.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(process, f"{url}/health", log)
        yield EndpointSettings(base_url=f"{url}/v1", model=str(folder), max_tokens=8, attempts=2, concurrency=2)
    finally:
        process.terminate()
        process.wait(20)


def _wait(process: subprocess.Popen, address: str, log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"no server after two minutes: {log.read_text()[-2000:]}")


def test_every_document_ends_as_failed_and_answers_are_kept(endpoint, tmp_path):
    texts = [f"a steel mug {i}" for i in range(4)]
    path = write_documents(tmp_path / "documents.parquet", [Document(f"d{i}", text) for i, text in enumerate(texts)])[0]
    settings = LabelSettings("llm", endpoint=endpoint, max_failed_share=1.0)
    with pytest.raises(ValueError, match="none of 4 documents got a label"):
        label(settings, ECOMMERCE, path, tmp_path / "out")
    failed = [json.loads(line) for line in (tmp_path / "out/failed.partial.jsonl").read_text().splitlines()]
    assert [row["id"] for row in failed] == [f"d{i}" for i in range(4)]
    nonsense = {"not_json", "cut_off", "half_json", "empty_answer", "wrong_schema", "refusal"}
    assert {row["reason"] for row in failed} <= nonsense
    answers = [json.loads(line) for line in (tmp_path / "out/answers.jsonl").read_text().splitlines()]
    assert len(answers) == 4 * 2
    assert all(answer["prompt_tokens"] > 500 and 0 < answer["completion_tokens"] <= 8 for answer in answers)
    before = (tmp_path / "out/answers.jsonl").read_bytes()
    with pytest.raises(ValueError, match="none of 4 documents"):
        label(settings, ECOMMERCE, path, tmp_path / "out")
    assert (tmp_path / "out/answers.jsonl").read_bytes() == before  # nothing was asked again
