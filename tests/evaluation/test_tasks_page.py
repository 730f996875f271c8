"""The page of tasks says of each task with what it is trained and cut, as its results are keyed by."""

from __future__ import annotations

from rexbert_hf.evaluation.registry import TASKS, make_task
from rexbert_hf.evaluation.task import TaskOptions
from rexbert_hf.evaluation.tasks_page import tasks_page


def hyper_parameters() -> dict[str, list[str]]:
    part = tasks_page().partition("## Hyper-parameters")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): [cell.strip() for cell in row[1:]] for row in rows}


def test_hyper_parameters_of_every_task():
    found = hyper_parameters()
    assert list(found) == list(TASKS)
    vector, small = "a text's vector", "1e-4, 3 epochs, batches of 16"
    glue = ["5e-5, 3 epochs, batches of 16", "3e-5, 3 epochs, batches of 32"]
    for name, tokens, rows in (("cola", "64", "2,400 / 400 / 1,043"), ("qnli", "128", "1,200 / 200 / 1,000")):
        assert found[f"glue_{name}"] == [vector, tokens, rows, *glue]
    for name, tokens in (("product_matching", "128"), ("offer_matching_pricerunner", "64"),
                         ("offer_matching_shopee", "96")):  # fmt: skip
        assert found[name] == [vector, tokens, "1,000 / 150 / 600", small, "3e-5, 5 epochs, batches of 32"]
    assert found["query_category"][1:3] == ["32", "1,600 / 300 / 1,000"]
    assert found["query_category"][3:] == ["1e-4, 4 epochs, batches of 16", "5e-5, 8 epochs, batches of 16"]
    assert found["attribute_extraction"][0] == "first token of each word"
    assert found["esci_similarity"][0] == found["product_search"][0] == "embedding"
    assert [found[name][1] for name in ("product_search", "product_search_tuned", "masked_recovery")] == [
        "64", "40", "128",
    ]  # fmt: skip
    assert found["product_search"][3:] == ["nothing is trained"] * 2
    assert found["product_search_tuned"][4].endswith("; dssm 1e-2, 30 epochs, batches of 512")


def test_they_are_what_results_are_keyed_by():
    for name, row in hyper_parameters().items():
        task = make_task(name)
        for said, budget in zip(row[3:], ("small", "full"), strict=True):
            config = task.config(TaskOptions(budget=budget))
            if config["tuning"] is not None:
                (rate,), (epochs,), batch = config["tuning"]
                rate_said, epochs_said, batch_said = said.split(", ")
                assert float(rate_said) == rate
                assert (epochs_said, batch_said) == (f"{epochs} epochs", f"batches of {batch}")
                assert row[1] == str(config["max_length"])


def test_what_tasks_share_stands_once():
    text = tasks_page()
    assert text.count("choose on held-out training rows") == 1
    assert text.index("### all general tasks") < text.index("### glue_cola")
