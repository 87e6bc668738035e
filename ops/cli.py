"""What the commands of `ops` share: settings from the command line, and what every one of them opens."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from jobs.settings import load_tree
from ops.backup.objects import Objects, open_objects
from ops.backup.sealing import Sealing
from ops.kube import Cluster
from ops.settings import OpsSettings


@dataclass(frozen=True)
class Opened:
    """Settings and what they name."""

    settings: OpsSettings
    cluster: Cluster
    objects: Objects
    sealing: Sealing


def opened(options: argparse.Namespace) -> Opened:
    """Read the settings and open cluster, store and keys. Raises HaetsalError."""
    settings = load_tree(OpsSettings, options.config, options.overrides)
    sealing = Sealing.load(settings.keys)
    return Opened(settings, Cluster(settings.cluster), open_objects(settings.store), sealing)
