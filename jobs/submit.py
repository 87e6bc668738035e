"""`make <job> PROFILE=kind|aws`: the same job with the same settings, on a cluster instead of this machine.

    python -m jobs.submit train --profile aws --config my.yaml --set "train.epochs=2"
    python -m jobs.submit train --profile kind --dry-run       # what would be sent and asked for, and nothing else

Settings are resolved here, local data and models go to the profile's storage by their content, and charts/ray-job is
installed under the run's id. Then this command shows state and log, and ends as the job ends. Ctrl-C only detaches.
"""

from __future__ import annotations

import argparse
import sys

from jobs import cli, settings
from jobs.cluster import attach, profile, uploads, values
from jobs.cluster.helm import Helm
from jobs.cluster.kube import Cluster
from jobs.cluster.profile import Profile
from jobs.costs import month
from jobs.dataset import check
from jobs.errors import UsageError
from jobs.runs import Run
from jobs.settings import Settings
from jobs.storage import Storage

_TRAINS = ("train", "tune", "pipeline")
"""Jobs that train on `data.source`, which is read through before it leaves."""
_SHORT = {
    "input": ("corpus.source", "+"),
    "output": ("corpus.output", None),
    "run": ("evaluate.subject", None),
    "against": ("evaluate.against", None),
}
"""Options of single jobs, all of which are settings: these go along in the file, and local input among them is sent."""


def main() -> None:
    """Command line entry; see the module's docstring."""
    options = cli.parser(__doc__ or "")
    options.add_argument("job", help="train, tune, evaluate, preprocess, pipeline: what jobs.<job> does")
    profile.add_options(options)
    options.add_argument("--dry-run", action="store_true", help="say what would be sent and asked for, and stop")
    options.add_argument("--resume", metavar="RUN_ID", help="go on with an unfinished run, under its own settings")
    for name, (key, count) in _SHORT.items():
        options.add_argument(f"--{name}", nargs=count, metavar="VALUE", help=f"short for --set {key}=VALUE")
    arguments = options.parse_args()
    place = profile.load(arguments.profile, arguments.env)
    if arguments.resume:
        if arguments.config or arguments.overrides:
            raise UsageError("RESUME goes on under the run's own settings; give no CONFIG and no SET")
        attach.resume(arguments.resume, arguments.profile, place)
        return
    tree = _with_short(settings.load(arguments.config, arguments.overrides, base=place.base), arguments)
    if not tree.storage.root.startswith("s3://"):
        raise UsageError(f"storage.root={tree.storage.root}: pods cannot reach this machine; use s3://bucket/prefix")
    if arguments.job in _TRAINS:
        check(tree.data)
    found = uploads.find(tree)
    storage = Storage(tree.storage.root)
    tree = uploads.rewritten(tree, found, storage)
    asked = values.make(arguments.job, tree, settings.to_yaml(tree), place)
    if arguments.dry_run:
        _plan(arguments, place, tree, found, storage, asked)
        return
    helm, cluster = Helm.find(place), Cluster(place)
    cluster.check()
    storage.check_writable()
    for upload in found:
        size = f"{len(upload.files)} files, {upload.size_bytes / 1e6:,.1f} MB"
        print(f"{upload.key}: {upload.source} ({size}) -> {upload.address(storage)}", flush=True)
        if not uploads.send(upload, storage):
            print("  is there already", flush=True)
    month.check(tree, storage)
    run = Run.create(storage, arguments.job, settings.to_yaml(tree))
    print(f"run {run.id}\n  {run.address()}", flush=True)
    attach.hand_in(run, arguments.profile, place, helm)
    attach.wait(run, arguments.profile, place, cluster, helm)


def _with_short(tree: Settings, arguments: argparse.Namespace) -> Settings:
    values = tree.model_dump(mode="json")
    for name, (key, _) in _SHORT.items():
        if (given := getattr(arguments, name)) is not None:
            section, leaf = key.split(".")
            values[section][leaf] = given
    return settings.from_tree(values, "command line")


def _plan(
    arguments: argparse.Namespace,
    place: Profile,
    tree: Settings,
    found: list[uploads.Upload],
    storage: Storage,
    asked: dict[str, object],
) -> None:
    """Every value that was not written down by the user, and where it comes from."""
    path = f"jobs/profiles/{arguments.profile}.yaml"
    shared = f"the shared cluster {place.shared_cluster}"
    groups = ", ".join(f"{name} {count}" for name, count in dict(asked["workers"]).items())  # type: ignore[call-overload]
    lines = [
        ("context", place.kube_context, path),
        ("namespace", place.namespace, path),
        ("run directory", storage.address(f"runs/{arguments.job}-<time>"), "storage.root"),
        ("Ray cluster", shared if place.shared_cluster else f"its own: {groups}", "scaling"),
        ("retries", str(asked["retries"]), path),
        ("waits to start", f"{place.start_deadline_s} s", path),
        *((upload.key, f"{upload.source} -> {upload.address(storage)}", "sent by content") for upload in found),
    ]
    for name, value, source in lines:
        print(f"{name:<16} {value}   ({source})")
    print(f"\n{settings.to_yaml(tree)}", end="")


if __name__ == "__main__":
    sys.argv[0] = "make"
    cli.main(main)
