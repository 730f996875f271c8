"""Fuzzing what reads files of strangers: no input may bring anything but a one-line ValueError or OSError.

    python tests/faults/fuzz.py [TARGET ...]     # all targets, FUZZ_SECONDS each (600), one process a target

With atheris, where it is installed, inputs are grown by the code that they reach; else hypothesis mutates examples.
What fails is kept as `fuzz-TARGET-*` in FUZZ_KEEP (the working folder), by hypothesis the smallest input for each line
that raises.
"""

from __future__ import annotations

import atexit
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import fuzz_folders

SCRATCH = Path(tempfile.gettempdir()) / f"rexbert-fuzz-{os.getpid()}"
SECONDS = float(os.environ.get("FUZZ_SECONDS", "600"))
ODD_WORDS = [
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"\r", b"\r\n", b'"', b"'", b"\\", b"\t", b",", b"---\n"),
    *(b"[" * 3000, b"{" * 3000, b"a: " * 400, b"x" * 70_000, b"9" * 5000, b"NaN", b"1e999", b"-0"),
    *(b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xe2\x80\xa8", b"\xe2\x80\xae", b"\xcc\x81" * 50),
    *(b"<!-- rexbert_hf:begin -->", b"<!-- rexbert_hf:end -->", b"&a [*a, *a]", b"!!python/object:os.system"),
]
EXPECTED = (ValueError, OSError)


def file_of(data: bytes, name: str) -> Path:
    SCRATCH.mkdir(exist_ok=True)
    path = SCRATCH / name
    path.write_bytes(data)
    return path


def one_line(call: Callable[[], object]) -> bool:
    """Run it; an error must be of the kinds that users are told, in one line. False where there was one."""
    said = "fine"
    try:
        call()
    except EXPECTED as error:
        said = str(error)
    assert said, "an error without a word"
    assert "\n" not in said.strip(), f"several lines: {said!r}"
    return said == "fine"


def in_a_child(call: Callable[[], object]) -> None:
    """`one_line` in a process of its own, because what it calls may end the process or never come back."""
    told = file_of(b"", "told")
    child = os.fork()
    if not child:
        signal.alarm(60)
        try:
            one_line(call)
        except BaseException:
            told.write_text(traceback.format_exc())
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert not status, f"the process ended by signal {os.WTERMSIG(status)}"
    assert not told.read_text(), told.read_text()


def reader(name: str) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        from rexbert_hf.catalog import read_records

        path = file_of(data, name)
        one_line(lambda: read_records(path, {"text": "text"} if len(data) % 2 else None, max_bad_share=1.0)[:])

    return read


def card(data: bytes) -> None:
    from rexbert_hf.hub import merge_card
    from rexbert_hf.hub.readme import split_card

    text = data.decode("utf-8", "replace")
    one_line(lambda: split_card(text))
    one_line(lambda: merge_card(text, "---\nlicense: mit\ntags: [a]\nmodel-index: []\n---\n# New\n"))


def fasttext(data: bytes) -> None:
    """As curation reads a model; the layout here first, so that only files that pass it need a process."""
    from rexbert_hf.corpus.fasttext_file import read_layout
    from rexbert_hf.corpus.fasttext_model import FastTextClassifier

    path = file_of(data, "model.bin")

    def score() -> None:
        labels = [label.removeprefix("__label__") for label in read_layout(path).labels]
        FastTextClassifier.from_file(path, labels[:1]).scores(["buy a lamp, and a longerword for it", ""])

    if one_line(lambda: read_layout(path)):
        in_a_child(score)


def yaml_settings(data: bytes) -> None:
    from rexbert_hf.corpus.settings import CurateSettings
    from rexbert_hf.pretraining import PretrainSettings
    from rexbert_hf.settings import load_settings

    path = file_of(data, "settings.yaml")
    for kind in (PretrainSettings, CurateSettings):
        one_line(lambda kind=kind: load_settings(kind, path))


def documents(name: str) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        from rexbert_hf.corpus.documents import DocumentSource, read_documents
        from rexbert_hf.corpus.stages import StageReport

        source = DocumentSource(str(file_of(data, name)), max_bad_share=1.0, max_chars=10_000)
        one_line(lambda: list(read_documents([source], StageReport("fuzz", "k"))))

    return read


def annotated(data: bytes) -> None:
    from rexbert_hf.catalog import aspect_files, attribute_files, question_files, taxonomy_files

    path = file_of(data, "annotated")
    read_all = [question_files.read_squad, question_files.read_subjqa, taxonomy_files.read_taxonomy]
    read_all += [aspect_files.read_tagged_sentences, aspect_files.read_aspect_sentiments]
    read_all += [attribute_files.read_attributed_titles]
    for read in read_all:
        one_line(lambda read=read: read(path))


def saved_batch(data: bytes) -> None:
    from rexbert_hf.training.faulty_step import FaultyStep

    path = file_of(data, "batch.safetensors")
    one_line(lambda: FaultyStep.load(path))


def run_file(data: bytes) -> None:
    from rexbert_hf.hub import read_run

    path = file_of(data, "run.json")
    one_line(lambda: read_run(path))


@dataclass(frozen=True)
class Target:
    """What reads bytes, and examples to begin with."""

    run: Callable[[bytes], None]
    seeds: list[bytes] = field(default_factory=list)


def zipped(content: bytes, name: str = "a.csv") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["a lamp", None, "b"], "n": [1, 2, 3], "l": [["x"], [], None]}), buffer)
    return buffer.getvalue()


def classifier() -> bytes:
    sys.path.insert(0, str(Path(__file__).parents[1] / "corpus"))
    try:
        from filter_cases import tiny_classifier

        classifier = tiny_classifier()  # its file goes with it
        return classifier.file.path.read_bytes()
    except ImportError:  # without fastText its files cannot be made; other bytes are still read
        return b"\xba\x16O/\x0c\0\0\0"


def batch() -> bytes:
    import torch

    from rexbert_hf.training.faulty_step import FaultyStep

    SCRATCH.mkdir(exist_ok=True)
    path = SCRATCH / "seed.safetensors"
    batches = {0: {"input_ids": torch.arange(8)[None], "max_length_q": 8}}
    FaultyStep("spike", "loss", 9.0, 9.0, 4, "general", 1, batches=batches).save(path)
    return path.read_bytes()


def folder(make: Callable[[Path], fuzz_folders.Job], isolated: bool = False) -> Target:
    """A folder in which one file is replaced."""
    SCRATCH.mkdir(exist_ok=True)
    use, seeds = make(SCRATCH / "folder")
    check = in_a_child if isolated else one_line
    return Target(lambda data: check(lambda: use(data)), seeds)


CSV = b'text,price,note\na lamp,"1,5",x\n"two\nlines",2,\n'
CARD = b"---\nlicense: mit\ntags: [a, b]\nmodel-index:\n- name: x\n  results: []\n---\n# Mine\n"
ROWS = b'{"text": "a", "n": 1}\n{"text": "b", "l": [1, {"x": null}]}\n'
ANNOTATED = [
    b'{"data": [{"paragraphs": [{"context": "a fan", "qas": [{"id": 1, "question": "what?", "answers": '
    b'[{"answer_start": 2, "text": "fan"}]}]}]}]}',
    b'question,review_id,review,human_ans_spans,human_ans_indices\nwhat?,r,a fan,fan,"(2, 5)"\n',
    b'{"input": "red mug", "target_scores": {"colour": {"red": 1}}}\n',
    b'{"a": {"sentence": ["a", "fan"], "label": ["O", "B"]}, "b": {"sentence": "fan", "term": "fan", "polarity": 1}}',
    b"1 - Home\n2 - Home > Mugs\n",
    b"   1 | [ 1- 2] | Home\n     2 | [ 2- 2] | Mugs\n",
]
MARKS = b"<!-- rexbert_hf:begin x -->\n<!-- rexbert_hf:end -->"
CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
INDEX = {
    "manifest": "index.json",
    "words": "bm25/lexical.json",
    "parameters": "bm25/params.index.json",
    "vocabulary": "bm25/vocab.index.json",
    "spelling": "bm25/words.json",
    "vectors": "vectors.safetensors",
    "bits": "codes.safetensors",
    "products": "products.parquet",
}
TARGETS: dict[str, Callable[[], Target]] = {
    "csv": lambda: Target(reader("a.csv"), [CSV]),
    "tsv": lambda: Target(reader("a.tsv"), [CSV.replace(b",", b"\t")]),
    "jsonl": lambda: Target(reader("a.jsonl"), [ROWS, b'[{"text": "a"}, {"text": 2}]']),
    "text": lambda: Target(reader("a.txt"), [b"a lamp\nb\n"]),
    "gz": lambda: Target(reader("a.csv.gz"), [gzip.compress(CSV)]),
    "zip": lambda: Target(reader("a.zip"), [zipped(CSV), zipped(ROWS, "../../a.jsonl")]),
    "parquet": lambda: Target(reader("a.parquet"), [parquet()]),
    "documents": lambda: Target(documents("a.jsonl"), [ROWS, b'[{"text": "a"}, {"text": 2}]']),
    "documents_gz": lambda: Target(documents("a.jsonl.gz"), [gzip.compress(ROWS)]),
    "documents_zip": lambda: Target(documents("a.zip"), [zipped(CSV), zipped(ROWS, "a.jsonl")]),
    "documents_parquet": lambda: Target(documents("a.parquet"), [parquet()]),
    "annotated": lambda: Target(annotated, ANNOTATED),
    "card": lambda: Target(
        card, [CARD, b"# no block\n", CARD + b"<!-- rexbert_hf:begin x -->\n<!-- rexbert_hf:end -->"]
    ),
    "fasttext": lambda: Target(fasttext, [classifier()]),
    "yaml": lambda: Target(yaml_settings, [path.read_bytes() for path in sorted(CONFIGS.glob("*.yaml"))]),
    "batch": lambda: Target(saved_batch, [batch()]),
    "run_file": lambda: Target(run_file, [json.dumps({"config": {}, "results": {"phases": []}}).encode()]),
    **{
        f"index_{name}": lambda file=file: folder(partial(fuzz_folders.index_file, file))
        for name, file in INDEX.items()
    },
    "index_codes": lambda: folder(partial(fuzz_folders.index_file, "index.faiss"), isolated=True),
    "pool": lambda: folder(fuzz_folders.pool),
    "tokenised": lambda: folder(fuzz_folders.tokenised),
    "classifier": lambda: folder(fuzz_folders.classifier),
    "encoder": lambda: folder(fuzz_folders.export),
}


def kept_place(name: str) -> str:
    """Where inputs that fail are kept, and how their names begin."""
    folder = Path(os.environ.get("FUZZ_KEEP", "."))
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / f"fuzz-{name}-")


def run_kept(target: Target, name: str, data: bytes) -> None:
    """Run the target; an input that fails is kept under the line that raises, as hypothesis tells failures apart."""
    try:
        target.run(data)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        origin = f"{type(error).__name__} {last.filename} {last.lineno}"
        kept = Path(f"{kept_place(name)}{type(error).__name__}-{zlib.crc32(origin.encode()):08x}")
        kept.write_bytes(data)  # the last one, with which hypothesis ends, is the smallest
        error.add_note(f"the input is kept as {kept}")
        raise


def with_hypothesis(target: Target, name: str, seconds: float, examples: int = 300) -> int:
    """Mutate the examples until the time is over; the number of inputs that were tried.

    The clock is looked at between lots of `examples` alone: an input that fails must fail again whenever it is tried.
    """
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    edit = st.tuples(st.floats(0, 1), st.integers(0, 40), st.one_of(st.sampled_from(ODD_WORDS), st.binary(max_size=12)))
    inputs = st.one_of(
        st.builds(mutated, st.sampled_from(target.seeds), st.lists(edit, min_size=1, max_size=6)),
        st.binary(max_size=300),
        st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    )
    tried = 0
    end = time.monotonic() + seconds

    @settings(max_examples=examples, deadline=None, database=None, print_blob=False,
              suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink])  # fmt: skip
    @given(inputs)
    def attempt(data: bytes) -> None:
        nonlocal tried
        tried += 1
        run_kept(target, name, data)

    for seed in target.seeds:
        run_kept(target, name, seed)
    attempt()
    while time.monotonic() < end:
        attempt()
    return tried


def mutated(seed: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Replace some bytes at a relative place by others, for each edit."""
    data = seed
    for place, length, word in edits:
        at = int(place * len(data))
        data = data[:at] + word + data[at + length :]
    return data


def with_atheris(target: Target, name: str, seconds: float) -> None:
    """Hand over to libFuzzer, which ends the process."""
    import atheris

    corpus = SCRATCH / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = SCRATCH / "words"
    escaped = ("".join(f"\\x{byte:02x}" for byte in word[:60]) for word in ODD_WORDS)
    words.write_text("".join(f'"{word}"\n' for word in escaped))
    options = [f"-max_total_time={int(seconds)}", f"-dict={words}", "-max_len=100000"]
    options += [f"-artifact_prefix={kept_place(name)}"]
    options += ["-verbosity=1", "-print_final_stats=1", "-rss_limit_mb=6000", "-timeout=60"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.run)
    atheris.Fuzz()


def main(names: list[str]) -> int:
    """Fuzz the named targets, each in a process of its own; 1 if one of them failed."""
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        print(f"error: no target '{unknown[0]}': there are {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    failed = []
    for name in names or TARGETS:
        start = time.monotonic()
        done = subprocess.run([sys.executable, __file__, "--one", name])
        print(f"{name}: {'ok' if not done.returncode else 'FAILED'} after {time.monotonic() - start:.0f} s", flush=True)
        failed += [name] if done.returncode else []
    print(f"{len(names or TARGETS) - len(failed)} of {len(names or TARGETS)} targets without a failure")
    return 1 if failed else 0


def fuzz_one(name: str) -> None:
    """Fuzz a target in this process."""
    atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)
    try:
        import atheris
    except ImportError:
        tried = with_hypothesis(TARGETS[name](), name, SECONDS)
        print(f"{name}: {tried} inputs by hypothesis (atheris is not installed)")
        return
    import logging

    logging.disable(logging.WARNING)
    with atheris.instrument_imports(include=["rexbert_hf"]):
        import rexbert_hf.catalog
        import rexbert_hf.corpus.fasttext_file
        import rexbert_hf.corpus.settings
        import rexbert_hf.hub.readme
        import rexbert_hf.pretraining
        import rexbert_hf.settings
        import rexbert_hf.training.faulty_step  # noqa: F401
    with_atheris(TARGETS[name](), name, SECONDS)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz_one(sys.argv[2])
    else:
        raise SystemExit(main(sys.argv[1:]))
