"""`python -m finetune_batch`: answer many requests with one model.

    python -m finetune_batch --plan plan.json --store /store --source /source --termination-log /tmp/result.json

Reads a BatchPlan; `output.jsonl` and `errors.jsonl` go into the store, the BatchResult into the termination log. While
it runs, `/progress` and `/metrics` are on its port. Killed at any moment, it loses at most the shard in hand.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from finetune_batch.board import BatchBoard
from finetune_contract.batching import BatchPlan, BatchResult
from finetune_contract.failure import Failure
from finetune_contract.paths import POD_PORT, SOURCE_MOUNT
from finetune_trainer.command import options, run_plan
from finetune_trainer.progress import serve


def main(argv: Sequence[str] | None = None) -> int:
    """Answer one batch; answers the exit code."""
    given = sys.argv[1:] if argv is None else argv
    parser = options("batch", __doc__, BatchPlan)
    parser.prog = "finetune_batch"
    parser.add_argument("--source", type=Path, default=SOURCE_MOUNT, help="where the claim of JSONL files is mounted")
    parser.add_argument("--port", type=int, default=POD_PORT, help="of /progress and /metrics; 0: any free one")
    arguments = parser.parse_args(given)
    board: BatchBoard | None = None

    def work(plan: BatchPlan, root: Path) -> BatchResult:
        nonlocal board
        board = BatchBoard(plan.key)
        serve(board, arguments.port)
        from finetune_batch.run import batch

        return batch(plan, root, arguments.source, arguments.scratch, board)

    def failed(failure: Failure) -> BatchResult:
        if board is None:
            return BatchResult(failure=failure)
        so_far = board.snapshot()
        return BatchResult(
            failure=failure, total_rows=so_far.total_rows, counts=board.kept, resumed_rows=so_far.resumed_rows
        )

    return run_plan(parser, given, BatchPlan, work, failed)


if __name__ == "__main__":
    sys.exit(main())
