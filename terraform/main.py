"""`python -m terraform.main VERB`: synth, plan, apply, crds, bootstrap. Destroying is `python -m ops.teardown`."""

import argparse
from pathlib import Path

import boto3

from jobs.cli import main
from jobs.errors import UsageError
from terraform.settings import Environment, Kind, load_environment, load_kind
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
    from terraform import deploy
    from terraform.bootstrap import bootstrap
    from terraform.estimate import report
    from terraform.kubernetes import apply_crds, write_context
    from terraform.tool import find_tool, stack_folders

    versions = load_versions()
    if verb == "synth":
        for folder in stack_folders(synth(target)).values():
            print(folder / "cdk.tf.json")
    elif verb == "crds":
        apply_crds(versions, target.kube_context if isinstance(target, Kind) else write_context(target))
    elif isinstance(target, Kind):
        if verb != "apply":
            raise UsageError(f"{verb} needs AWS; with PROFILE=kind there is: synth, apply, crds")
        deploy.apply_kind(target, versions, find_tool(versions.terraform), synth(target))
    else:
        session = boto3.Session(region_name=target.region)
        if verb == "bootstrap":
            made = bootstrap(target, session)
            print(f"state bucket {'made' if made else 'was there; settings checked'}")
        elif verb == "plan":
            print(report(target, load_prices()))
            deploy.plan(target, find_tool(versions.terraform), synth(target), session)
        else:
            deploy.apply(target, versions, find_tool(versions.terraform), synth(target), session)


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
