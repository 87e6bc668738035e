"""`make config`: print the resolved tree of settings.

python -m jobs.config --config jobs/configs/local.yaml --set "train.epochs=2"
"""

from __future__ import annotations

from jobs import cli, settings


def main() -> None:
    """Print the complete tree as YAML, or the one-line error that says what is wrong with it."""
    arguments = cli.parser("Print the resolved settings of a run.").parse_args()
    print(settings.to_yaml(settings.load(arguments.config, arguments.overrides)), end="")


if __name__ == "__main__":
    cli.main(main)
