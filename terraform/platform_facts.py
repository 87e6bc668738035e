"""`python -m terraform.platform_facts ENV FILE`: what jobs must know of an environment, derived from its file alone."""

import json
import sys
from pathlib import Path

from jobs.cli import main
from terraform.settings import Environment, load_environment


def facts(environment: Environment) -> dict[str, str]:
    """Values of a profile (`jobs.cluster.profile.Profile`); names as the stacks give them."""
    return {
        "kube_context": environment.cluster_name,
        "storage_root": f"s3://{environment.bucket_name('artifacts')}",
        "registry": environment.registry,
    }


def write(name: str, path: Path) -> None:
    """Write the facts of environment `name` to `path`, whole or not at all."""
    text = json.dumps(facts(load_environment(name)), indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main(lambda: write(sys.argv[1], Path(sys.argv[2])))
