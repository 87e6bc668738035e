"""`make restore BACKUP=latest|<id>`: bring a backup back into the namespace of the settings.

Every hash is compared before the first write. Jobs that had ended are not created again; those that ran come back
asleep: --resume NAME wakes one up.
"""

from __future__ import annotations

from jobs.cli import main, parser
from ops.cli import opened
from ops.restore.plan import Policy
from ops.restore.run import restore, resume


def command() -> None:
    """Restore or resume, and print what was done."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--backup", default="latest", help="id, or latest: the newest Completed one")
    arguments.add_argument("--conflict", type=Policy, choices=list(Policy), default=Policy.SKIP, help="what is there")
    arguments.add_argument("--dry-run", action="store_true", help="print the plan, write nothing")
    arguments.add_argument("--resume", metavar="RAYJOB", help="wake up a restored job instead")
    options = arguments.parse_args()
    it = opened(options)
    if options.resume:
        resume(it.settings, it.cluster, options.resume)
        print(f"RayJob {options.resume} goes on")
        return
    report = restore(it.settings, it.cluster, it.objects, it.sealing, options.backup, options.conflict, options.dry_run)
    print(report.summary())


if __name__ == "__main__":
    main(command)
