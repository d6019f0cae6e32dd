"""`submit`: files that are checked, applied and, if wanted, watched."""

from typing import Annotated

import typer

from finetune_cli import follow
from finetune_cli.commands.validate import Files, show, texts_of
from finetune_cli.connecting import connect
from finetune_cli.errors import CliError
from finetune_cli.facts import Object, part
from finetune_cli.kinds import KINDS, ORDER, RunKind
from finetune_cli.offline.problems import Level
from finetune_cli.offline.validation import validate
from finetune_cli.options import Context, Force, Namespace, Timeout, console


def submit(
    files: Files,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Follow FineTuneJobs and batches until they end.")
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Ask the API server what it would do; nothing is changed.")] = False,
    force: Force = False,
    timeout: Timeout = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Check files as `validate` does, and apply them: server-side, Datasets first.

    With --watch the exit code is 0 when all of them are ready, 1 when one failed, 3 when only a gate did.
    """
    resources = _checked(files)
    cluster = connect(context, namespace)
    elsewhere = sorted({_namespace(one) for one in resources} - {"", cluster.namespace})
    if namespace and elsewhere:
        raise typer.BadParameter(f"the files say namespace {', '.join(elsewhere)}, and --namespace says {namespace}")
    if watch and elsewhere:
        raise typer.BadParameter(f"--watch follows what is in one namespace: give --namespace {elsewhere[0]}")
    for resource in resources:
        done = cluster.objects.apply(resource, force=force, dry_run=dry_run)
        typer.echo(f"{resource['kind'].lower()}/{resource['metadata']['name']} {done.word}")
    if watch and not dry_run:
        kinds = {KINDS[kind.plural]: kind for kind in RunKind}
        runs = [(kinds[one["kind"]], one["metadata"]["name"]) for one in resources if one["kind"] in kinds]
        if not runs:
            typer.echo("note: there is no FineTuneJob or BatchInference to watch in these files", err=True)
        follow.all_to_the_end(cluster.objects, runs, console(), timeout)


def _checked(files: list[str]) -> list[Object]:
    """The objects of the files, what is named by others first.

    Raises:
        CliError: the API server would refuse one of them, or there is none.
    """
    report = validate(list(texts_of(files)))
    if report.errors:
        show(report, console(stderr=True))
        raise CliError("nothing was applied; mend the files first")
    for finding in report.findings:
        if finding.level is Level.NOTE and finding.message.startswith("passed over"):
            typer.echo(f"note: {finding.file}:{finding.line}: {finding.message}; apply it with kubectl", err=True)
    resources = [
        {name: child for name, child in document.value.items() if name != "status"} for document in report.documents
    ]
    if not resources:
        raise CliError(f"the files hold no {', '.join(ORDER)}; `kubectl finetune init` writes some")
    unnamed = next((one for one in resources if not part(one, "metadata").get("name")), None)
    if unnamed is not None:
        raise CliError(f"{unnamed['kind']}: metadata.name: what is applied needs a name; generateName is for create")
    return sorted(resources, key=lambda one: ORDER.index(one["kind"]))


def _namespace(resource: Object) -> str:
    return str(part(resource, "metadata").get("namespace") or "")
