"""`python -m rexbert_hf.evaluation tasks FILE`: write the page of all tasks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rexbert_hf.evaluation.tasks_page import tasks_page
from rexbert_hf.hub.redaction import RedactedParser
from rexbert_hf.hub.run_file import write_whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = RedactedParser(prog="python -m rexbert_hf.evaluation", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    tasks = commands.add_parser("tasks", help="render the page of all tasks from the registry")
    tasks.add_argument("file", type=Path)
    write_whole(parser.parse_args(arguments).file, tasks_page().encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
