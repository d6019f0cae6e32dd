"""Every kind of adapter: it learns, what is published is what was trained, and a resumed run is equal bit by bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.results import ArtifactType
from tests.trainer.conftest import Workshop
from tests.trainer.pods import read_json
from tests.trainer.runs import difference, directory_of, reference_to, run, run_interrupted, score, weights_of

EVALUATION = {"metrics": ["EvalLoss"], "baselines": ["ZeroShot"]}


def adapter(variant: str, **changes: Any) -> dict[str, Any]:
    return {"variant": variant, "rank": 4, "alpha": 8, "dropout": 0.2, **changes}


@pytest.mark.parametrize("variant", ["LoRA", "QLoRA", "DoRA", "rsLoRA", "PiSSA"])
def test_it_learns_and_a_resumed_run_is_equal_bit_by_bit(workshop: Workshop, variant: str) -> None:
    settings = {"epochs": 1, "packing": True, "global_batch_size": 2}
    changes = {"adapter": adapter(variant), "hyperparameters": settings, "evaluation": EVALUATION}
    calm = run(workshop.store, workshop.plan(run_key="calm", **changes))
    assert score(calm, "EvalLoss", "Tuned") < 0.8 * score(calm, "EvalLoss", "ZeroShot")
    resumed = run_interrupted(workshop.store, workshop.plan(run_key="stopped", **changes), step=calm.total_steps // 2)
    assert difference(weights_of(workshop.store, calm), weights_of(workshop.store, resumed)) == 0.0
    assert calm.artifact == resumed.artifact


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(3, 40)[None]).logits
    return found


def served(workshop: Workshop, directory: Path) -> Any:
    """The base with an adapter, as a server has them."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(workshop.store.path(workshop.base))
    return PeftModel.from_pretrained(base, directory).eval()


def test_pissa_is_published_as_the_equal_lora_for_the_unchanged_base(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: dict[str, Any] = {}

    def keep(self: Any, output_dir: str, state_dict: Any = None) -> None:
        save(self, output_dir, state_dict)
        self.model.set_attn_implementation("sdpa")
        trained["logits"] = logits(self.model.eval())

    from finetune_trainer.train.adapters import ExactAdapters

    save = ExactAdapters._save
    monkeypatch.setattr(ExactAdapters, "_save", keep)
    plan = workshop.plan(adapter=adapter("PiSSA", dropout=0), hyperparameters={"epochs": 0.5})
    directory = directory_of(workshop.store, run(workshop.store, plan))
    assert read_json(directory / "adapter_config.json")["r"] == 8
    assert float((logits(served(workshop, directory)) - trained["logits"]).abs().max()) < 1e-4


def test_qlora_trains_on_four_bits_and_is_judged_on_the_base_it_is_served_on(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    from finetune_trainer.train.adapters import attach

    held: list[bool] = []

    def watched(model: Any, *rest: Any) -> Any:
        held.append(model.is_loaded_in_4bit)
        return attach(model, *rest)

    monkeypatch.setattr("finetune_trainer.train.fit.attach", watched)
    plan = workshop.plan(adapter=adapter("QLoRA", dropout=0), hyperparameters={"epochs": 2})
    result = run(workshop.store, plan)
    assert held == [True]
    directory = directory_of(workshop.store, result)
    probe = next(each for each in read_json(directory / "probe.json")["prompts"] if each["tunedLogprobs"])
    ids = AutoTokenizer.from_pretrained(directory)(probe["prompt"], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        first = served(workshop, directory)(ids).logits[0, -1].log_softmax(-1).max()
    assert float(first) == pytest.approx(probe["tunedLogprobs"][0], abs=1e-4)


def test_dora_is_published_merged(workshop: Workshop) -> None:
    result = run(workshop.store, workshop.plan(adapter=adapter("DoRA"), hyperparameters={"epochs": 0.25}))
    assert result.artifact is not None
    assert result.artifact.type is ArtifactType.MODEL
    names = {path.name for path in directory_of(workshop.store, result).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert "adapter_config.json" not in names


# --- tuning an earlier job's adapter further


@pytest.fixture
def first(workshop: Workshop) -> Any:
    return run(workshop.store, workshop.plan(run_key="first", evaluation=EVALUATION))


def test_an_adapter_goes_on_from_an_earlier_one_on_the_same_base(workshop: Workshop, first: Any) -> None:
    changes = {"start": reference_to(first), "evaluation": EVALUATION, "hyperparameters": {"learning_rate": 1e-6}}
    second = run(workshop.store, workshop.plan(run_key="second", **changes))
    assert second.artifact is not None
    assert second.artifact.type is ArtifactType.ADAPTER
    assert second.artifact.base == workshop.base
    assert score(second, "EvalLoss", "Tuned") == pytest.approx(score(first, "EvalLoss", "Tuned"), rel=0.02)
    manifest = read_json(directory_of(workshop.store, second) / "manifest.json")
    assert manifest["lineage"]["adapter"] == first.artifact.digest


def test_a_whole_model_begins_with_the_earlier_adapter_merged(workshop: Workshop, first: Any) -> None:
    changes = {"start": reference_to(first), "evaluation": EVALUATION, "hyperparameters": {"learning_rate": 1e-7}}
    second = run(workshop.store, workshop.plan(run_key="second", adapter=None, **changes))
    assert second.artifact is not None
    assert second.artifact.type is ArtifactType.MODEL
    assert score(second, "EvalLoss", "ZeroShot") == pytest.approx(score(first, "EvalLoss", "Tuned"), rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"rank": 8}, "rank is 8, but the adapter of .* has 4", id="rank"),
        pytest.param({"alpha": 4}, "alpha is 4", id="alpha"),
        pytest.param({"variant": "rsLoRA"}, "type rsLoRA is True", id="scaling"),
        pytest.param({"variant": "PiSSA"}, "PiSSA begins from", id="PiSSA"),
        pytest.param({"target_modules": ["q_proj"]}, r"targetModules: \d+ weights", id="fewer modules"),
    ],
)
def test_another_kind_of_adapter_cannot_go_on(
    workshop: Workshop, first: Any, changes: dict[str, Any], message: str
) -> None:
    plan = workshop.plan(run_key="second", start=reference_to(first), adapter=adapter("LoRA") | changes)
    with pytest.raises(FineTuneError, match=message) as caught:
        run(workshop.store, plan)
    assert caught.value.reason is FailureReason.INVALID_PLAN
