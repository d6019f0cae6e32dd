"""Whole runs, in this process."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from finetune_contract.datasets import RowFormat
from finetune_contract.evaluating import EvaluationResult
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import evaluation_path
from finetune_contract.results import ArtifactType, Phase, TrainingResult
from finetune_contract.training import ReevaluationPlan, TrainingPlan
from finetune_store.checkpoints import Checkpoints
from tests.trainer import tiny
from tests.trainer.conftest import Workshop
from tests.trainer.pods import read_json
from tests.trainer.runs import directory_of, reference_to, run_and_watch, score

EVALUATION = {"metrics": ["EvalLoss", "ExactMatch"], "baselines": ["ZeroShot", "FewShot"]}


def train(workshop: Workshop, plan: TrainingPlan, uid: str = "pod-a") -> TrainingResult:
    result, seen = run_and_watch(workshop.store, plan, uid)
    assert result.reused or seen.phase is Phase.PUBLISHING
    return result


def newest(workshop: Workshop, run_key: str = "a1") -> tuple[int, Path] | None:
    return Checkpoints(workshop.store, run_key, "reader", 2).newest()


@pytest.fixture(scope="module")
def lora(origin: Workshop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workshop, TrainingResult]:
    """One adapter, trained and evaluated once for the tests that only look at it."""
    workshop = origin.copied(tmp_path_factory.mktemp("lora") / "store")
    return workshop, train(workshop, workshop.plan(evaluation=EVALUATION, hyperparameters={"epochs": 8}))


def test_a_published_artifact_measured_anew_has_the_same_scores(
    lora: tuple[Workshop, TrainingResult], tmp_path: Path
) -> None:
    from finetune_trainer.__main__ import main

    workshop, result = lora
    assert result.artifact is not None
    training = workshop.plan(evaluation={**EVALUATION, "max_rows": 500}, evaluation_key="another-wish")
    artifact = reference_to(result)
    (tmp_path / "plan.json").write_text(ReevaluationPlan(training=training, artifact=artifact).to_json())
    options = {"plan": "plan.json", "scratch": "scratch", "termination-log": "log"}
    arguments = [f"--{name}={tmp_path / value}" for name, value in options.items()]
    (tmp_path / "scratch").mkdir()
    assert main(["evaluate", f"--store={workshop.store.root}", *arguments]) == 0
    measured = EvaluationResult.model_validate_json((tmp_path / "log").read_bytes())
    assert measured.evaluation == result.evaluation
    kept = workshop.store.root / "runs" / result.run_key / evaluation_path(artifact.digest, "another-wish")
    assert len(read_json(kept / "evaluation.json")["rows"]) == 24
    assert "Tuned EvalLoss" in (kept / "log.txt").read_text()


def test_an_adapter_learns_and_beats_its_base(lora: tuple[Workshop, TrainingResult]) -> None:
    _, result = lora
    assert result.artifact is not None
    assert result.artifact.type is ArtifactType.ADAPTER
    assert (result.step, result.total_steps, result.checkpoint_step) == (96, 96, 96)
    assert score(result, "EvalLoss", "Tuned") < 0.5 * score(result, "EvalLoss", "ZeroShot")
    assert score(result, "ExactMatch", "Tuned") > score(result, "ExactMatch", "ZeroShot") == 0.0
    assert len(result.evaluation) == 6
    facts = result.artifact.adapter
    assert facts is not None
    assert (facts.rank, facts.family, facts.features) == (4, "llama", ())
    assert facts.targets == ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
    assert [timing.stage for timing in result.timings] == [
        "Loading", "FirstStep", "Training", "Evaluating", "Publishing",
    ]  # fmt: skip


def test_an_adapter_names_its_base_by_digest_and_holds_no_path(lora: tuple[Workshop, TrainingResult]) -> None:
    workshop, result = lora
    directory = directory_of(workshop.store, result)
    config = read_json(directory / "adapter_config.json")
    assert config["base_model_name_or_path"] == workshop.base.digest
    assert config["target_modules"] == sorted(config["target_modules"])
    assert {"adapter_model.safetensors", "tokenizer.json", "chat_template.jinja", "probe.json"} <= {
        path.name for path in directory.iterdir()
    }
    for path in directory.glob("*.json"):
        assert str(workshop.store.root) not in path.read_text(), path.name


def test_the_evaluation_lies_beside_the_run_with_every_row(lora: tuple[Workshop, TrainingResult]) -> None:
    workshop, result = lora
    run = workshop.store.root / "runs" / "a1"
    attempt = run / "attempts" / "1"
    rows = read_json(run / "evaluation.json")["rows"]
    matches = [row["answers"]["Tuned"].strip() == row["reference"] for row in rows]
    assert score(result, "ExactMatch", "Tuned") == pytest.approx(sum(matches) / len(matches), abs=1e-6)
    assert len(rows) == 24
    assert TrainingResult.model_validate(read_json(attempt / "result.json")) == result
    assert (attempt / "log.txt").is_file()


def test_the_probe_is_what_the_models_answer(lora: tuple[Workshop, TrainingResult]) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    workshop, result = lora
    directory = directory_of(workshop.store, result)
    base = AutoModelForCausalLM.from_pretrained(workshop.store.path(workshop.base))
    model = PeftModel.from_pretrained(base, directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    prompts = read_json(directory / "probe.json")["prompts"]
    assert len(prompts) == 4
    for prompt in prompts:
        ids = tokenizer(prompt["prompt"])["input_ids"]
        with torch.no_grad():
            for value in prompt["tunedLogprobs"]:
                logprobs = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
                assert float(logprobs.max()) == pytest.approx(value, abs=1e-4)
                ids.append(int(logprobs.argmax()))
        answer = ids[-len(prompt["tunedLogprobs"]) :]
        assert tokenizer.decode(answer, skip_special_tokens=True) == prompt["tunedText"]
    assert any(prompt["tunedText"] != prompt["baseText"] for prompt in prompts)


def test_a_whole_model_learns_from_packed_text(workshop: Workshop) -> None:
    result = train(workshop, workshop.text_plan(evaluation=EVALUATION))
    assert result.artifact is not None
    assert result.artifact.type is ArtifactType.MODEL
    assert [(each.metric, each.system) for each in result.evaluation] == [
        ("EvalLoss", "Tuned"),
        ("EvalLoss", "ZeroShot"),
    ]
    assert score(result, "EvalLoss", "Tuned") < 0.5 * score(result, "EvalLoss", "ZeroShot")
    assert (result.truncated_tokens, result.truncated_rows) == (0, 0)
    directory = directory_of(workshop.store, result)
    config = read_json(directory / "config.json")
    assert config["use_cache"]
    assert config["dtype"] == "float32"
    # The artifact is a base for the next run, as it is.
    again = train(workshop, tiny.make_plan(reference_to(result), workshop.classification, run_key="next"))
    assert again.artifact is not None
    assert again.artifact.base == reference_to(result)


def test_the_same_run_gives_the_same_digest_and_another_seed_another(workshop: Workshop) -> None:
    first = train(workshop, workshop.plan(run_key="one"))
    second = train(workshop, workshop.plan(run_key="two"), uid="pod-b")
    other = train(workshop, workshop.plan(run_key="three", hyperparameters={"seed": 1}), uid="pod-c")
    assert first.artifact is not None
    assert first.artifact == second.artifact != other.artifact


def test_a_run_that_has_succeeded_trains_no_more(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(workshop, workshop.plan(hyperparameters={"epochs": 0.1}))
    monkeypatch.setattr("finetune_trainer.train.recipe.fit", None)
    second = train(workshop, workshop.plan(hyperparameters={"epochs": 0.1}, attempt=2))
    assert second.reused
    assert second.artifact == first.artifact
    assert second.attempt == 2


def test_training_that_was_finished_is_not_repeated(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = workshop.plan(hyperparameters={"epochs": 0.5})

    def died(*_: object) -> None:
        raise RuntimeError("the pod died while it evaluated")

    with monkeypatch.context() as patch:
        patch.setattr("finetune_trainer.train.recipe.evaluate", died)
        with pytest.raises(RuntimeError):
            train(workshop, plan)
    monkeypatch.setattr("finetune_trainer.train.fit._train", None)
    result = train(workshop, plan, uid="pod-b")
    assert (result.step, result.resumed_from_step) == (6, 6)
    assert result.train_loss is not None


def test_micro_batches_do_not_change_the_step(workshop: Workshop) -> None:
    def losses(micro: int) -> list[float]:
        settings = {"epochs": 0.5, "micro_batch_size": micro}
        plan = workshop.plan(
            run_key=f"micro-{micro}", hyperparameters=settings, adapter={"rank": 4, "alpha": 8, "dropout": 0}
        )
        train(workshop, plan)
        checkpoint = newest(workshop, plan.run_key)
        assert checkpoint is not None
        return [entry["loss"] for entry in read_json(checkpoint[1] / "trainer_state.json")["log_history"][:-1]]

    assert losses(1) == pytest.approx(losses(8), rel=1e-4)


def test_a_model_that_cannot_be_packed_learns_the_same_from_padded_rows(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = {"rank": 4, "alpha": 8, "dropout": 0}
    plain = train(workshop, workshop.plan(run_key="plain", adapter=adapter))
    monkeypatch.setattr("finetune_trainer.train.fit.is_segmentable", lambda _: False)
    padded = train(workshop, workshop.plan(run_key="padded", adapter=adapter, hyperparameters={"packing": True}))
    assert padded.total_steps == plain.total_steps
    assert padded.train_loss == pytest.approx(plain.train_loss, rel=1e-3)


def test_numbers_that_are_not_finite_end_the_run_and_save_nothing(workshop: Workshop) -> None:
    plan = workshop.plan(hyperparameters={"learning_rate": 1e25, "epochs": 4}, checkpoints={"interval_minutes": 0})
    with pytest.raises(FineTuneError) as caught:
        train(workshop, plan)
    assert caught.value.reason is FailureReason.NON_FINITE_LOSS
    saved = newest(workshop)
    if saved is not None:  # steps before the first bad one
        weights = load_file(saved[1] / "adapter_model.safetensors")
        assert all(bool(tensor.isfinite().all()) for tensor in weights.values())


def test_too_long_rows_are_refused_before_the_first_step(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_trainer.train.fit._train", None)
    with pytest.raises(FineTuneError, match="maxLength: 24 tokens would cut") as caught:
        train(workshop, workshop.plan(hyperparameters={"max_length": 24}))
    assert caught.value.reason is FailureReason.DATA_TRUNCATED


def test_without_held_out_rows_there_are_no_scores(workshop: Workshop) -> None:
    dataset = tiny.publish_dataset(workshop.store, RowFormat.CLASSIFICATION, {"train": tiny.classification_rows(8, 1)})
    result = train(workshop, workshop.plan(dataset=dataset, evaluation=EVALUATION))
    assert result.evaluation == ()
    assert result.artifact is not None


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        pytest.param({"method": "CPT"}, FailureReason.INVALID_PLAN, "CPT needs Text rows", id="rows of another method"),
        pytest.param(
            {"adapter": {"rank": 4, "alpha": 8, "dropout": 0, "target_modules": ["nothing"]}},
            FailureReason.INVALID_PLAN, r"spec\.adapter\.targetModules", id="target modules",
        ),
        pytest.param(
            {"hyperparameters": {"scheduler": "sideways"}}, FailureReason.INVALID_PLAN, "sideways", id="scheduler",
        ),
        pytest.param(
            {"hyperparameters": {"max_length": 4096}}, FailureReason.INVALID_PLAN, "maxLength: 4096", id="context",
        ),
    ],
)  # fmt: skip
def test_plans_that_cannot_work_are_refused_by_field(
    workshop: Workshop, changes: dict[str, Any], reason: FailureReason, message: str
) -> None:
    with pytest.raises(FineTuneError, match=message) as caught:
        train(workshop, workshop.plan(**changes))
    assert caught.value.reason is reason


def test_a_tokenizer_of_another_model_is_refused(workshop: Workshop) -> None:
    base = tiny.publish_model(workshop.store, vocab_size=128)
    with pytest.raises(FineTuneError, match="embeddings for 128") as caught:
        train(workshop, tiny.make_plan(base, workshop.classification))
    assert caught.value.reason is FailureReason.TOKENIZER_MISMATCH


def test_a_base_that_is_no_model_is_refused(workshop: Workshop) -> None:
    with pytest.raises(FineTuneError, match=r"config\.json") as caught:
        train(workshop, tiny.make_plan(workshop.text, workshop.classification))
    assert caught.value.reason is FailureReason.MODEL_NOT_FOUND
