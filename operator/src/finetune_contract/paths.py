"""Names of mounts, files, environment variables and size limits that both sides rely on."""

from pathlib import Path

PLAN_DIRECTORY = Path("/etc/finetune")
"""Where the plan's ConfigMap is mounted; the file is `plan.json`."""

PLAN_FILE = PLAN_DIRECTORY / "plan.json"

STORE_MOUNT = Path("/store")
"""Where the claim that holds datasets, models, checkpoints and artifacts is mounted; an emptyDir if they are in S3."""

SOURCE_MOUNT = Path("/source")
"""Where a user's own claim or ConfigMap (a Dataset's or base model's source) is mounted, read-only."""

ADAPTERS_MOUNT = Path("/adapters")
"""Where a serving pod's init container puts each adapter: `<name>/<digest hex>/`."""

CA_BUNDLE_MOUNT = Path("/etc/finetune-ca")
"""Where the certificate authorities of `podTemplate.caBundle` are mounted."""

TASKS_MOUNT = Path("/etc/finetune-tasks")
"""Where the ConfigMap of `evaluation.benchmark` is mounted: lm-eval-harness tasks and their rows."""

SCRATCH_MOUNT = Path("/scratch")
"""An emptyDir: TMPDIR, HOME and every library's cache. Lost with the pod."""

TERMINATION_LOG = Path("/dev/termination-log")
"""Where a pod leaves its result document; the kubelet copies it to the pod's status."""

TERMINATION_LIMIT = 4096
"""Bytes of a termination message that the kubelet keeps."""

PROGRESS_LIMIT = 16 * 1024
"""Bytes of `/progress` that the operator reads."""

POD_PORT = 8080
"""Port of `/progress` and `/metrics` in training pods and of the engine in serving pods."""

PROBER_PORT = 8081
"""Port of the prober's `/ready` in serving pods."""

ENV_POD_UID = "FINETUNE_POD_UID"
"""The pod's uid (downward API): names the checkpoint directory of one pod incarnation."""

ENV_API_KEYS_FILE = "FINETUNE_API_KEYS_FILE"
"""Where the API keys of a serving pod are, one in a line; unset: nobody needs one."""

ENV_LINGER_SECONDS = "FINETUNE_LINGER_SECONDS"
"""How long the Transformers engine answers new requests after SIGTERM; unset: not at all."""

API_KEYS_MOUNT = Path("/etc/finetune-api-keys")
"""Not within the plan's mount, which is read-only."""

ENV_HF_TOKEN = "HF_TOKEN"  # noqa: S105 - the variable's name, not a token
"""The Hugging Face Hub token of a stage or dataset pod, from a Secret."""

ENV_JUDGE_KEY = "FINETUNE_JUDGE_API_KEY"
"""The API key of `evaluation.judge`, from a Secret."""

ENV_BASELINE_KEY = "FINETUNE_BASELINE_API_KEY_"
"""What the variables of the API keys of `evaluation.namedBaselines` begin with; the place in the list follows."""

ENV_STORE = "FINETUNE_STORE_"
"""What the variables of the store's own S3 credentials begin with: a source's are another Secret's."""

ENV_IMAGE = "FINETUNE_IMAGE"
"""The image that the pod runs, as the operator names it: for the model card."""

MANIFEST_FILE = "manifest.json"
OUTCOME_FILE = "outcome.json"
PROBE_FILE = "probe.json"
EVALUATION_FILE = "evaluation.json"
REPORT_FILE = "report.html"
LOG_FILE = "log.txt"
"""What an attempt said, in its folder of the run's directory."""
HISTORY_FILE = "history.json"
"""What was logged while training: transformers' `log_history`."""
RESULT_FILE = "result.json"
CARD_FILE = "README.md"
"""The model card of an artifact or export, in the Hub's format."""


def attempt_name(uid: str, number: int) -> str:
    """The name of an attempt at a batch in the run's directory, which objects that ask the same share.

    Args:
        uid: Of the BatchInference.
        number: Of the attempt.
    """
    return f"{uid}-{number}"


def attempt_path(attempt: str | int, file: str) -> str:
    """Where an attempt leaves a file, in its run's directory.

    Args:
        attempt: Its number; of a batch, its name.
        file: LOG_FILE or RESULT_FILE.
    """
    return f"attempts/{attempt}/{file}"


def evaluation_path(artifact: str, key: str) -> str:
    """Where what was measured of an artifact is, in its run's directory.

    Args:
        artifact: The artifact's digest.
        key: Names what was asked for.
    """
    return f"evaluations/{artifact.removeprefix('sha256:')[:12]}-{key}"


SHOWN_BEGIN = "-----BEGIN STORED FILE-----"
SHOWN_END = "-----END STORED FILE-----"
"""Lines of a log around a file that `python -m finetune_store show` prints: gzip in base64."""
