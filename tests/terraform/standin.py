"""A stack that the real binary can apply without provider plugins: our own backend around Terraform's built-in resource."""

import json
from pathlib import Path

from tests.terraform.stacks import Stack


def stand_in(out: Path, stack: Stack, log: Path | None = None) -> Path:
    """Write `stack`'s terraform settings and one `terraform_data`, which on destroy adds the stack's name to `log`."""
    folder = out / "stacks" / stack.name
    folder.mkdir(parents=True)
    probe: dict[str, object] = {"input": stack.name}
    if log:
        command = {"when": "destroy", "command": f"echo ${{self.output}} >> {log}"}
        probe["provisioner"] = [{"local-exec": command}]
    settings = {key: stack.json["terraform"][key] for key in ("backend", "required_version")}
    body = {"terraform": settings, "resource": {"terraform_data": {"probe": probe}}}
    (folder / "cdk.tf.json").write_text(json.dumps(body, indent=2))
    return folder
