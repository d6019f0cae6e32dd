"""Weights & Biases, by its own library, which is told to look at nothing but what it is given."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from typing import Any

from finetune_contract.tracking import TrackedRun, WeightsAndBiasesPlan
from finetune_contract.tracking import Tracker as Kind
from finetune_trainer.tracking.tracker import Refused
from finetune_trainer.tracking.words import Opening, Outcome, Point

KEY = "WANDB_API_KEY"  # the library's own environment variable

_ENVIRONMENT = {
    # Its reports about itself, which go to its maker.
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",
}

SILENT: dict[str, Any] = {
    # No output, code, repository, packages, machine or program: metrics and configuration only.
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_viewer": True,
    "x_save_requirements": False,
    "email": "",
    "host": "",
    "program": "",
    "username": "",
    "silent": True,
}
"""Settings under which the library sends no more than it is given, its own version and Python's."""

_INIT_SECONDS = 20.0
_FINISH_SECONDS = 12.0
"""How long the library may upload what is left; less than the process gets at the end of a run."""


class WeightsAndBiases:
    """One run, whose id follows from the job and its run's key."""

    kind = Kind.WEIGHTS_AND_BIASES

    def __init__(self, plan: WeightsAndBiasesPlan, opening: Opening) -> None:
        """Take where, and what about; nothing is sent yet."""
        self._plan, self._opening = plan, opening
        self._run: Any = None

    def open(self) -> TrackedRun:
        """Begin or go on; offline (WANDB_MODE) where the pod's environment says so."""
        if not os.environ.get(KEY) and os.environ.get("WANDB_MODE") != "offline":
            raise Refused(f"spec.tracking.weightsAndBiases.apiKeySecretRef: there is no such Secret or key ({KEY})")
        os.environ.update(_ENVIRONMENT)
        directory = os.environ.get("WANDB_DIR") or tempfile.mkdtemp(prefix="wandb-")
        for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
            os.environ.setdefault(name, directory)
        import wandb

        own = {"base_url": self._plan.base_url} if self._plan.base_url else {}
        settings = wandb.Settings(
            **SILENT, **own, init_timeout=_INIT_SECONDS, finish_timeout=_FINISH_SECONDS, finish_timeout_raises=True
        )
        try:
            self._run = wandb.init(
                project=self._plan.project,
                entity=self._plan.entity,
                id=run_id(self._opening),
                resume="allow",
                name=self._opening.job,
                config=dict(self._opening.parameters),
                dir=directory,
                settings=settings,
            )
        except wandb.errors.AuthenticationError as error:
            raise Refused(str(error)) from error
        return TrackedRun(tracker=self.kind, run=self._run.id, url=self._run.url)

    def log(self, points: Sequence[Point]) -> None:
        """Hand over some points; the library sends them from a process of its own, and drops steps that it knows."""
        for point in points:
            self._run.log(point.metrics, step=point.step)

    def finish(self, outcome: Outcome) -> None:
        """Say how it has ended, and wait for what is not sent yet."""
        if outcome is Outcome.STOPPED:
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if outcome is Outcome.FINISHED else 1)


def run_id(opening: Opening) -> str:
    """The same for all attempts of a run, and another one for each job."""
    return hashlib.sha256(f"{opening.job}/{opening.run_key}".encode()).hexdigest()[:32]
