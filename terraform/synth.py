"""Write the stacks of an environment as plain Terraform JSON. Importing this module starts Node (jsii): some 10 s."""

import os
from pathlib import Path

# jsii writes a banner about Node 20's end of life on every start; it still runs there, and the README names Node 22.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20")

from cdktn import App, TerraformStack

from terraform.addons.stack import aws_addons_stack, kind_addons_stack
from terraform.platform.stack import platform_stack
from terraform.settings import Environment, Kind
from terraform.storage.stack import storage_stack
from terraform.versions import Prices, Versions


def synthesise(environment: Environment, versions: Versions, prices: Prices, out: Path) -> None:
    """Write the storage, platform and add-ons stacks below `out`/stacks."""
    app = _app(out, versions)
    storage = storage_stack(app, environment)
    platform = platform_stack(app, environment, versions, prices, storage)
    aws_addons_stack(app, environment, versions, storage, platform)
    _write(app, versions)


def synthesise_kind(kind: Kind, versions: Versions, out: Path) -> None:
    """Write the add-ons stack of a local cluster below `out`/stacks."""
    app = _app(out, versions)
    kind_addons_stack(app, kind, versions)
    _write(app, versions)


def _app(out: Path, versions: Versions) -> App:
    out.mkdir(parents=True, exist_ok=True)
    oldest = f">={versions.terraform}"
    context = {
        "excludeStackIdFromLogicalIds": "true",
        "allowSepCharsInLogicalIds": "true",
        "targetVersions": {"terraform": oldest, "opentofu": oldest},
    }
    return App(outdir=str(out), stack_traces=False, context=context)


def _write(app: App, versions: Versions) -> None:
    for stack in app.node.children:
        if isinstance(stack, TerraformStack):
            stack.add_override("terraform.required_version", f">= {versions.terraform}")
    app.synth()
