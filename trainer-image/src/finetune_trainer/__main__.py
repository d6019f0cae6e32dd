"""`python -m finetune_trainer prepare|preflight|train|track|evaluate|export|merge`: dispatch and nothing else.

Each command imports its own libraries: `prepare` never loads torch, and `train` answers `/progress` before it does.
"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and answer its exit code (`finetune_contract.failure` says what it means)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments.pop(0) if arguments else ""
    if command == "train":
        from finetune_trainer.train.main import main as train

        return train(arguments)
    if command == "evaluate":
        from finetune_trainer.evaluate.main import main as evaluate

        return evaluate(arguments)
    if command == "preflight":
        from finetune_trainer.preflight.main import main as preflight

        return preflight(arguments)
    if command == "export":
        from finetune_trainer.export.main import main as export

        return export(arguments)
    if command == "merge":
        from finetune_trainer.export.merge import main as merge

        return merge(arguments)
    if command == "track":
        from finetune_trainer.tracking.main import main as track

        return track(arguments)
    if command == "prepare":
        from finetune_trainer.data.prepare import main as prepare

        return prepare(arguments)
    sys.stderr.write(
        "usage: python -m finetune_trainer {prepare,preflight,train,track,evaluate,export,merge} [options]\n"
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())
