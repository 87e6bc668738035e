"""Ray for this process: the cluster of `RAY_ADDRESS`, or one started on this machine."""

from __future__ import annotations

import logging
import os

from jobs.errors import EnvironmentNotReady


def start_ray() -> None:
    """Connect or start. Raises EnvironmentNotReady if Ray does not come up; `ray.shutdown()` ends it."""
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # relative paths in the settings mean the same on every worker
    import ray

    try:
        ray.init(
            address=os.environ.get("RAY_ADDRESS", "local"),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    except Exception as error:  # a node that is not up within 30 s is a bare Exception
        raise EnvironmentNotReady(
            f"Ray could not start: {str(error).strip().splitlines()[0]}; `ray stop` clears a broken cluster, and "
            "scaling.workers=0 works without one"
        ) from None
