"""`python -m rexbert_hf.hub push FOLDER USER/NAME` and `... card FOLDER`: push a run, render its card again."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from .card import write_card
from .push import push_run
from .redaction import RedactedParser, redact_logs

logger = logging.getLogger("rexbert_hf.hub")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = RedactedParser(prog="python -m rexbert_hf.hub", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    push = commands.add_parser("push", help="push a finished run")
    push.add_argument("folder")
    push.add_argument("repo_id")
    push.add_argument("--private", action="store_true", default=None)
    push.add_argument("--revision")
    push.add_argument("--tag")
    card = commands.add_parser("card", help="render README.md of a model from its run.json")
    card.add_argument("folder")
    card.add_argument("--repo_id")
    options = parser.parse_args(arguments)
    redact_logs()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if options.command == "push":
            wanted = {"private": options.private, "revision": options.revision, "tag": options.tag}
            logger.info("%s", push_run(options.folder, options.repo_id, **wanted))
        else:
            logger.info("%s", write_card(options.folder, options.repo_id))
    except (OSError, ValueError) as error:
        logger.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
