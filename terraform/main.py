"""`python -m terraform.main VERB`: synth, plan, apply, crds, bootstrap. Destroying is `python -m ops.teardown`."""

import argparse
from pathlib import Path

import boto3

from jobs.cli import main
from jobs.errors import UsageError
from terraform import deploy
from terraform.aws import aws_errors, check_account
from terraform.bootstrap import bootstrap
from terraform.estimate import report
from terraform.kubernetes import apply_crds, write_context
from terraform.settings import Environment, Kind, load_environment, load_kind
from terraform.state import state_bucket
from terraform.tool import find_tool, stack_folders
from terraform.versions import ROOT, load_prices, load_versions


def output_folder(name: str) -> Path:
    """Where the stacks of an environment are written."""
    return ROOT / ".haetsal" / "terraform" / name


def synth(target: Environment | Kind) -> Path:
    """Write the stacks of `target` and return the folder."""
    from terraform.synth import synthesise, synthesise_kind  # starts Node: only where it is needed

    versions, out = load_versions(), output_folder(target.name)
    if isinstance(target, Kind):
        synthesise_kind(target, versions, out)
    else:
        synthesise(target, versions, load_prices(), out)
    return out


def run(verb: str, target: Environment | Kind) -> None:
    """Do `verb` for `target`. Raises HaetsalError."""
    if verb == "synth":
        for folder in stack_folders(synth(target)).values():
            print(folder / "cdk.tf.json")
    elif isinstance(target, Kind):
        _run_on_kind(verb, target)
    else:
        with aws_errors():
            _run_on_aws(verb, target)


def _run_on_kind(verb: str, kind: Kind) -> None:
    versions = load_versions()
    if verb == "crds":
        apply_crds(versions, kind.kube_context)
    elif verb == "apply":
        deploy.apply_kind(kind, versions, find_tool(versions.terraform), synth(kind))
    else:
        raise UsageError(f"{verb} needs AWS; with PROFILE=kind there is: synth, apply, crds")


def _run_on_aws(verb: str, environment: Environment) -> None:
    versions = load_versions()
    session = boto3.Session(region_name=environment.region)
    if verb == "bootstrap":
        made = bootstrap(environment, session)
        print(f"state bucket {state_bucket(environment)}: {'made' if made else 'checked'}")
    elif verb == "crds":
        check_account(environment, session)
        apply_crds(versions, write_context(environment))
    else:
        if verb == "plan":
            print(report(environment, load_prices()), flush=True)
        tool = find_tool(versions.terraform)
        deploy.check_state(environment, session)
        out = synth(environment)
        if verb == "plan":
            deploy.plan(environment, tool, out, session)
        else:
            deploy.apply(environment, versions, tool, out)


def arguments(description: str, *verbs: str) -> tuple[str, Environment | Kind]:
    """Read the command line: the verb, and the environment file it is about. Raises UsageError."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("verb", choices=verbs)
    parser.add_argument("--env", default="dev", help="environment: a file in terraform/environments")
    parser.add_argument("--profile", choices=("aws", "kind"), default="aws", help="kind: a local cluster, no AWS")
    options = parser.parse_args()
    return options.verb, load_kind() if options.profile == "kind" else load_environment(options.env)


if __name__ == "__main__":
    main(lambda: run(*arguments("The cloud under Haetsal", "synth", "plan", "apply", "crds", "bootstrap")))
