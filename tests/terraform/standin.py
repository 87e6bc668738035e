"""A stack that the real binary applies without provider plugins: our backend around Terraform's built-in resource."""

import json
import shlex
import sys
from pathlib import Path

from tests.terraform.stacks import Stack


def stand_in(out: Path, stack: Stack, post: str = "") -> Path:
    """Write `stack`'s terraform settings and one `terraform_data`, which on destroy posts to the URL `post`."""
    folder = out / "stacks" / stack.name
    folder.mkdir(parents=True)
    probe: dict[str, object] = {"input": stack.name}
    if post:
        program = f"import urllib.request as r; r.urlopen(r.Request('{post}', method='POST'))"
        command = f"{sys.executable} -c {shlex.quote(program)}"
        probe["provisioner"] = [{"local-exec": {"when": "destroy", "command": command}}]
    settings = {key: stack.json["terraform"][key] for key in ("backend", "required_version")}
    body = {"terraform": settings, "resource": {"terraform_data": {"probe": probe}}}
    (folder / "cdk.tf.json").write_text(json.dumps(body, indent=2))
    return folder
