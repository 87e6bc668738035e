"""The A/B test in the gateway's file: two variants of one public model, and their shares of the users.

The gateway reads its file again when it changes. The file is replaced as a whole, never seen half-written.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from jobs.errors import EnvironmentNotReady, UsageError
from jobs.registry.versions import CHALLENGER, CHAMPION
from jobs.serving.gateway.config import Backend, Config, Model, Variant
from jobs.settings import load_tree, to_yaml


def with_challenger(config: Config, model: str, challenger: Backend, share: float) -> Config:
    """`config` with the challenger beside the champion, which keeps the rest of the users."""
    variants = (
        Variant(name=CHAMPION, backend=champion_of(config, model).backend, weight=1 - share),
        Variant(name=CHALLENGER, backend=CHALLENGER, weight=share),
    )
    return _changed(config, model, variants, config.backends | {CHALLENGER: challenger})


def without_challenger(config: Config, model: str) -> Config:
    """`config` with the champion alone. Doing it again changes nothing."""
    variants = (champion_of(config, model).model_copy(update={"weight": 1.0}),)
    return _changed(config, model, variants, {k: v for k, v in config.backends.items() if k != CHALLENGER})


def champion_of(config: Config, model: str) -> Variant:
    """The variant that serves `model`. Raises UsageError if there is no such model or no such variant."""
    if model not in config.models:
        raise UsageError(f"the gateway knows no model {model!r}; it has {', '.join(config.models)}")
    for variant in config.models[model].variants:
        if variant.name == CHAMPION:
            return variant
    raise UsageError(f"the gateway's model {model!r} has no variant {CHAMPION!r} to compare with")


def read(file: Path) -> Config:
    """The file as it is, with the paths in it as they are. Raises UsageError for one that the gateway would refuse."""
    return load_tree(Config, file)


def write(file: Path, config: Config) -> None:
    """Replace the file. Raises EnvironmentNotReady if that cannot be done; then it is as it was."""
    partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_text(to_yaml(config), encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        raise EnvironmentNotReady(f"{file}: cannot be written ({error.strerror})") from None
    finally:
        partial.unlink(missing_ok=True)


def _changed(config: Config, model: str, variants: tuple[Variant, ...], backends: Mapping[str, Backend]) -> Config:
    """Validated again, so that what is written is what the gateway takes."""
    entry = Model(variants=variants, shadow=config.models[model].shadow)
    update = {"models": dict(config.models) | {model: entry}, "backends": dict(backends)}
    return Config.model_validate(config.model_copy(update=update).model_dump())
