"""The ranks of one pod, one process each: started together, told to stop together, ended together.

torchrun's variables, but not torchrun: it answers 1 whatever its processes ended with, and its agents would need a
rendezvous of their own. What restarts a group is a new attempt, with new pods.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from finetune_contract.failure import Failure, FailureReason, policy_of
from finetune_contract.results import TrainingResult
from finetune_contract.training import TrainingPlan
from finetune_trainer.train.surroundings import available_cpus

log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds that ranks get to notice that one of them has failed; one that waits for a GPU notices nothing."""

_POLL_SECONDS = 0.1
_NCCL_EXIT_CODE = policy_of(FailureReason.NCCL_TIMEOUT).exit_code


@dataclass
class _Rank:
    process: subprocess.Popen[bytes]
    number: int
    result: Path

    @property
    def code(self) -> int | None:
        """Exit code as a container's would be; None while it runs."""
        code = self.process.poll()
        return code if code is None or code >= 0 else 128 - code

    @property
    def was_aborted(self) -> bool:
        """Whether it ended itself by SIGABRT: NCCL's watchdog does that when peers are silent."""
        return self.process.poll() == -signal.SIGABRT


@dataclass
class _Group:
    ranks: list[_Rank]
    failed: list[_Rank] = field(default_factory=list)
    """In the order in which they ended."""

    def tell(self, number: int, _frame: FrameType | None = None) -> None:
        """Pass a signal on to all that run."""
        for rank in self.ranks:
            if rank.process.poll() is None:
                rank.process.send_signal(number)

    def wait(self) -> None:
        """Until all have ended; once one has failed, the others get `PATIENCE`."""
        deadline = float("inf")
        while any(rank.code is None for rank in self.ranks):
            new = [rank for rank in self.ranks if rank.code and rank not in self.failed]
            if new and not self.failed:
                deadline = time.monotonic() + PATIENCE
            self.failed += new
            if time.monotonic() > deadline:
                log.info("the other ranks did not end within %.0f s: killed", PATIENCE)
                self.tell(signal.SIGKILL)
                for rank in self.ranks:
                    rank.process.wait()
                return
            time.sleep(_POLL_SECONDS)
        self.failed += [rank for rank in self.ranks if rank.code and rank not in self.failed]

    def cause(self) -> _Rank | None:
        """The rank whose end explains the others': the first that did not merely lose its peers."""
        causes = [rank for rank in self.failed if rank.code != _NCCL_EXIT_CODE and not rank.was_aborted]
        return next(iter(causes or self.failed), None)


def launch(
    plan: TrainingPlan,
    arguments: Sequence[str],
    scratch: Path,
    termination_log: Path,
    environment: Mapping[str, str] = os.environ,
) -> int:
    """Run this pod's ranks to their end; answers the exit code of the one that decides, and leaves its result.

    Args:
        plan: How many there are.
        arguments: Of the `train` command, for each of them.
        scratch: Where each leaves its result.
        termination_log: Where the deciding one's goes.
        environment: NODE_RANK, and with several nodes MASTER_ADDR and MASTER_PORT.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    group = _Group([])
    # Before the first of them: a signal in between must not be lost.
    before = signal.signal(signal.SIGTERM, group.tell)
    try:
        for local, variables in enumerate(_variables(plan, environment)):
            result = scratch / f"result-{local}.json"
            command = [sys.executable, "-m", "finetune_trainer", "train", *arguments, f"--termination-log={result}"]
            process = subprocess.Popen(command, env={**environment, **variables})
            group.ranks.append(_Rank(process, int(variables["RANK"]), result))
        group.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    cause = group.cause()
    if cause is None:
        termination_log.write_bytes(_left_by(group.ranks[0]))
        return 0
    log.info("rank %d ended first, with exit code %s", cause.number, cause.code)
    if cause.was_aborted:
        failure = Failure(
            reason=FailureReason.NCCL_TIMEOUT,
            message=f"rank {cause.number} was aborted: its peers were silent for longer than "
            f"spec.parallelism.timeoutSeconds ({plan.parallelism.timeout_seconds})",
        )
        result_document = TrainingResult(run_key=plan.run_key, attempt=plan.attempt, failure=failure)
        termination_log.write_bytes(result_document.to_message())
        return _NCCL_EXIT_CODE or 1
    # Nothing after a signal: what Kubernetes says about the container is more than could be said here.
    termination_log.write_bytes(_left_by(cause))
    return cause.code or 1


def _left_by(rank: _Rank) -> bytes:
    return rank.result.read_bytes() if rank.result.is_file() else b""


def _variables(plan: TrainingPlan, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """What each rank of this pod is told, in torchrun's words."""
    here = plan.parallelism.processes_per_node
    node = int(environment.get("NODE_RANK", "0"))
    common = {
        "WORLD_SIZE": str(plan.parallelism.ranks),
        "LOCAL_WORLD_SIZE": str(here),
        "OMP_NUM_THREADS": environment.get("OMP_NUM_THREADS", str(max(1, available_cpus() // here))),
    }
    if plan.parallelism.nodes == 1:
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    return [{**common, "RANK": str(node * here + local), "LOCAL_RANK": str(local)} for local in range(here)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
