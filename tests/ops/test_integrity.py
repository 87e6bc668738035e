"""A damaged backup is refused before the first write. All mutations are in `make bench ARGS=backup`; here a sample."""

from __future__ import annotations

import random
from pathlib import Path

import mutations
from platform_under_test import Platform
from proxy import Proxy

from ops.backup.sealing import make_keys

_SAMPLE = 25


def test_mutations_are_refused_before_the_first_write(platform: Platform, api_proxy: Proxy, tmp_path: Path) -> None:
    platform, store, newer, older = prepared(platform, tmp_path)
    every = list(mutations.mutations(store, newer, older))
    assert len(every) >= 500
    api_proxy.reset()
    for mutation in random.Random(8).sample(every, _SAMPLE):
        copy = mutations.damaged(store, tmp_path / "damaged", mutation)
        assert mutations.fingerprint(copy) != mutations.fingerprint(store), mutation.name
        done = platform.with_(store__root=copy).run("restore", "--backup", newer)
        assert done.code in (2, 5), (mutation.name, done.out, done.err)
        assert done.error, mutation.name
        assert api_proxy.changes == [], mutation.name
    assert platform.with_(store__root=store).run("restore", "--backup", newer, "--dry-run").code == 0


def test_latest_does_not_pass_over_a_damaged_manifest(platform: Platform, tmp_path: Path) -> None:
    platform, store, newer, _ = prepared(platform, tmp_path)
    path = store / f"manifests/{newer}.json"
    path.write_bytes(path.read_bytes()[:-20])
    done = platform.with_(store__root=store).run("restore")
    assert done.code == 5
    assert newer in done.error


def prepared(platform: Platform, folder: Path) -> tuple[Platform, Path, str, str]:
    """A platform with a signed store in a folder that holds two backups: (platform, store, newer id, older id)."""
    make_keys(folder / "keys")
    store = folder / "store"
    signed = platform.with_(
        store__root=store,
        keys__signing=folder / "keys/signing.pem",
        keys__verifying=folder / "keys/verifying.pem",
    )
    older = signed.run("backup").backup_id
    platform.namespace.patch("ConfigMap", "gateway", {"data": {"later": "yes"}})
    newer = signed.run("backup").backup_id
    return signed, store, newer, older
