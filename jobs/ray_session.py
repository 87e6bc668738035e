"""Ray for this process: the cluster of `RAY_ADDRESS`, or one started on this machine."""

from __future__ import annotations

import logging
import os

from jobs.errors import EnvironmentNotReady

_NOT_UP = "timed out during startup"
"""What Ray says, in a bare Exception, of a node of its own that is not up within 30 s; that limit is fixed in Ray."""

logger = logging.getLogger(__name__)


def start_ray() -> None:
    """Connect or start. Raises EnvironmentNotReady if Ray does not come up; `ray.shutdown()` ends it."""
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # relative paths in the settings mean the same on every worker
    try:
        try:
            _init()
        except Exception as error:
            if _NOT_UP not in str(error):
                raise
            logger.warning("Ray was not up within 30 s, as happens on a busy machine; starting it once more")
            _init()
    except Exception as error:
        raise EnvironmentNotReady(
            f"Ray could not start: {str(error).strip().splitlines()[0]}; `ray stop` clears a broken cluster, and "
            "scaling.workers=0 works without one"
        ) from None


def _init() -> None:
    import ray

    ray.init(
        address=os.environ.get("RAY_ADDRESS", "local"),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
