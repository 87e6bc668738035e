"""Every way to damage a backup: each mutation writes a damaged copy of a store and says what it did.

Shared by the tests, which take a sample, and by the benchmark, which takes all.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MANIFEST_FLIPS, MANIFEST_CUTS = 300, 40


@dataclass(frozen=True)
class Mutation:
    """`apply` changes the store at a folder."""

    name: str
    apply: Callable[[Path], None]


def mutations(store: Path, backup_id: str, older_id: str, seed: int = 8) -> Iterator[Mutation]:
    """All mutations of `backup_id` in `store`; `older_id` is another backup beside it."""
    rng = random.Random(seed)
    manifest_name = f"manifests/{backup_id}.json"
    listed = json.loads((store / manifest_name).read_bytes().split(b"\n")[0])["objects"]
    blobs = [f"objects/{sha256[:2]}/{sha256}" for sha256 in listed]
    for name in blobs:
        size = (store / name).stat().st_size
        other = rng.choice([blob for blob in blobs if blob != name])
        yield _edit(name, "one bit flipped", _flip(rng.randrange(size * 8)))
        yield _edit(name, "first bit flipped", _flip(0))
        yield _edit(name, "last bit flipped", _flip(size * 8 - 1))
        yield _edit(name, "last byte cut off", lambda data: data[:-1])
        yield _edit(name, "cut in half", lambda data: data[: len(data) // 2])
        yield _edit(name, "emptied", lambda _: b"")
        yield _edit(name, "one byte too many", lambda data: data + b"\0")
        yield _edit(name, "two bytes exchanged", _exchange)
        yield Mutation(f"{name}: missing", lambda root, name=name: (root / name).unlink())
        yield Mutation(f"{name}: swapped with {other}", lambda root, name=name, other=other: _swap(root, name, other))
    data = (store / manifest_name).read_bytes()
    for bit in rng.sample(range(len(data) * 8), MANIFEST_FLIPS):
        yield _edit(manifest_name, f"bit {bit} flipped", _flip(bit))
    for length in rng.sample(range(len(data)), MANIFEST_CUTS):
        yield _edit(manifest_name, f"cut to {length} bytes", lambda data, length=length: data[:length])
    yield _edit(manifest_name, "one byte too many", lambda data: data + b"x")
    yield _edit(manifest_name, "another backup's", lambda _: (store / f"manifests/{older_id}.json").read_bytes())
    yield _edit(manifest_name, "its seal exchanged", lambda data: _other_seal(data, store, older_id))
    for name, change in _EDITS.items():
        yield _edit(manifest_name, f"edited: {name}", _edited(change, sealed=False))
        yield _edit(manifest_name, f"edited and hashed again: {name}", _edited(change, sealed=True))


def damaged(store: Path, folder: Path, mutation: Mutation) -> Path:
    """A copy of the store with the mutation; the copy's files are links where they are not changed."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(store, folder)
    mutation.apply(folder)
    return folder


def fingerprint(store: Path) -> str:
    """Changes when anything in a store does."""
    files = sorted(path for path in store.rglob("*") if path.is_file())
    parts = [f"{path.relative_to(store)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


_EDITS: dict[str, Callable[[dict], object]] = {
    "the state": lambda tree: tree.update(state="PartiallyFailed"),
    "the id": lambda tree: tree.update(id="backup-20990101-000000-0000"),
    "the time": lambda tree: tree.update(finished="2099-01-01T00:00:00Z"),
    "the namespace": lambda tree: tree["origin"].update(namespace="kube-system"),
    "one blob removed": lambda tree: tree["objects"].pop(next(iter(tree["objects"]))),
    "one blob added": lambda tree: tree["objects"].update({"0" * 64: 1}),
    "a size": lambda tree: tree["objects"].update({next(iter(tree["objects"])): 1}),
    "the index": lambda tree: tree.update(index=[next(iter(tree["objects"]))]),
    "no index": lambda tree: tree.update(index=[]),
    "the encryption": lambda tree: tree.update(encrypted=not tree["encrypted"]),
    "an unknown field": lambda tree: tree.update(extra=1),
    "the format": lambda tree: tree.update(format=0),
}


def _edit(name: str, what: str, change: Callable[[bytes], bytes]) -> Mutation:
    def apply(root: Path) -> None:
        path = root / name
        before = path.read_bytes()
        after = change(before)
        assert after != before, f"{name}: {what} changed nothing"
        path.unlink()
        path.write_bytes(after)

    return Mutation(f"{name}: {what}", apply)


def _flip(bit: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        return bytes(flipped)

    return change


def _exchange(data: bytes) -> bytes:
    """The first two neighbours that differ."""
    place = next(place for place in range(len(data) - 1) if data[place] != data[place + 1])
    return data[:place] + data[place + 1 : place + 2] + data[place : place + 1] + data[place + 2 :]


def _swap(root: Path, name: str, other: str) -> None:
    one, two = (root / name).read_bytes(), (root / other).read_bytes()
    assert one != two
    (root / name).write_bytes(two)
    (root / other).write_bytes(one)


def _other_seal(data: bytes, store: Path, older_id: str) -> bytes:
    other = (store / f"manifests/{older_id}.json").read_bytes()
    return data.split(b"\n")[0] + b"\n" + other.split(b"\n")[1] + b"\n"


def _edited(change: Callable[[dict], object], sealed: bool) -> Callable[[bytes], bytes]:
    """An editor of manifests; `sealed`: one who knows to hash them again, but has not the key to sign."""

    def apply(data: bytes) -> bytes:
        payload, seal, _ = data.split(b"\n")
        tree, stamp = json.loads(payload), json.loads(seal)
        change(tree)
        payload = json.dumps(tree, separators=(",", ":")).encode()
        if sealed:
            stamp["sha256"] = hashlib.sha256(payload).hexdigest()
        return payload + b"\n" + json.dumps(stamp).encode() + b"\n"

    return apply
