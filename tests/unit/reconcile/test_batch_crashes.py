"""The operator dies before every single effect of a BatchInference's life: the next pass finishes the work."""

import pytest

from tests import factories
from tests.factories import Object, batch_result, finished_job, make_batch, stage_result
from tests.unit.reconcile.world import World

HUB = {"baseModel": {"huggingFace": {"repo": "org/model"}}}
EFFECTS = 22
"""Of the life below: more would be found by `test_every_effect_is_died_before`."""


class DiedError(Exception):
    """The process ends here."""


class Mortal(World):
    """Dies once, before an effect with a number."""

    def __init__(self, survives: int, *objects: Object) -> None:
        super().__init__(*objects)
        self.effects = 0
        self._survives = survives

    def _effect(self) -> None:
        self.effects += 1
        if self.effects == self._survives + 1:
            raise DiedError

    def _create(self, manifest: Object) -> None:
        self._effect()
        super()._create(manifest)

    def _write(self, outcome: object) -> None:
        self._effect()
        super()._write(outcome)  # type: ignore[arg-type]

    def _delete(self, child: object) -> None:
        self._effect()
        super()._delete(child)  # type: ignore[arg-type]

    def live_on(self) -> None:
        while True:
            try:
                self.settle()
            except DiedError:
                continue
            return


def life(survives: int) -> Mortal:
    """Staged, evicted once, answered; then the limits are edited."""
    here = Mortal(survives, make_batch(model=HUB), finished_job(), factories.ready_dataset())
    here.live_on()
    here.end(here.newest("stage"), stage_result(None).to_json())
    here.live_on()
    here.end(here.newest("batch"), status=factories.disrupted("EvictionByEvictionAPI"))
    here.live_on()
    here.end(here.newest("batch"), batch_result().to_json())
    here.live_on()
    here.edit(limits={"duration": "1h"})
    here.live_on()
    return here


def shown(here: Mortal) -> tuple[object, ...]:
    """What two lives have in common."""
    status = here.status
    attempts = [(attempt["number"], attempt["reason"]) for attempt in status["attempts"]]
    return status["phase"], attempts, status["output"]["digest"], sorted(here.created), status["retriesUsed"]


@pytest.mark.parametrize("survives", range(EFFECTS))
def test_a_death_changes_nothing_in_the_end(survives: int) -> None:
    assert shown(life(survives)) == shown(life(10**6))


def test_every_effect_is_died_before() -> None:
    # Writes that change nothing count as well, one a pass.
    assert life(10**6).effects == EFFECTS
