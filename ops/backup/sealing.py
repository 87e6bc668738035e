"""Compression, encryption and signature of what is stored.

Encryption is AES-SIV (RFC 5297), which is deterministic on purpose: the same content gives the same stored bytes, so an
unchanged object is stored once even when it is encrypted. It reveals which objects are equal and nothing else. The
signature is Ed25519 over the manifest, which holds the sha256 of all else.

    python -m ops.backup.sealing FOLDER    # makes encryption.key, signing.pem, verifying.pem
"""

from __future__ import annotations

import argparse
import base64
import binascii
import os
from dataclasses import dataclass
from pathlib import Path

import zstandard
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from jobs.cli import main
from jobs.errors import EnvironmentNotReady, IntegrityError, UsageError
from ops.settings import KeySettings

_KEY_BITS = 512
_LEVEL = 1
"""Of zstd: on dumps of MLflow's tables it is twice as fast as the default 3, and no larger."""
_LARGEST_CONTENT_BYTES = 64 * 2**20
"""No blob holds more; a damaged header must not make us reserve more."""


@dataclass(frozen=True)
class Sealing:
    """What is done to content on its way to the store and back."""

    cipher: AESSIV | None = None
    signing: Ed25519PrivateKey | None = None
    verifying: Ed25519PublicKey | None = None

    @classmethod
    def load(cls, settings: KeySettings) -> Sealing:
        """Read the key files. Raises EnvironmentNotReady for one that is missing, UsageError for one that is none."""
        private, public = _read(settings.signing), _read(settings.verifying)
        try:
            encryption = _read(settings.encryption)
            cipher = AESSIV(base64.b64decode(encryption, validate=True)) if encryption else None
            signing = serialization.load_pem_private_key(private, None) if private else None
            verifying = serialization.load_pem_public_key(public) if public else None
        except (ValueError, TypeError, binascii.Error) as error:
            raise UsageError(f"keys: not a key ({error}); make new ones with python -m ops.backup.sealing") from None
        if not isinstance(signing, Ed25519PrivateKey | None) or not isinstance(verifying, Ed25519PublicKey | None):
            raise UsageError("keys.signing and keys.verifying must be Ed25519 keys")
        return cls(cipher, signing, verifying)

    def seal(self, content: bytes) -> bytes:
        """Stored form of `content`: compressed, then encrypted if there is a key."""
        packed = zstandard.ZstdCompressor(level=_LEVEL).compress(content)
        return self.cipher.encrypt(packed, None) if self.cipher else packed

    def unseal(self, stored: bytes, where: str) -> bytes:
        """Content of what `seal` made. Raises IntegrityError naming `where`."""
        try:
            packed = self.cipher.decrypt(stored, None) if self.cipher else stored
            return zstandard.ZstdDecompressor().decompress(packed, max_output_size=_LARGEST_CONTENT_BYTES)
        except InvalidTag:
            raise IntegrityError(f"{where}: cannot be decrypted: another key, or damaged") from None
        except (zstandard.ZstdError, MemoryError) as error:
            hint = "" if self.cipher else "; if it is encrypted, set keys.encryption"
            raise IntegrityError(f"{where}: is damaged ({error}){hint}") from None

    def sign(self, data: bytes) -> str | None:
        """Base64 signature, if there is a key to sign with."""
        return base64.b64encode(self.signing.sign(data)).decode() if self.signing else None

    def verify(self, data: bytes, signature: str | None, where: str) -> None:
        """Raise IntegrityError if a signature is demanded (there is a key to verify with) and is missing or wrong."""
        if self.verifying is None:
            return
        if signature is None:
            raise IntegrityError(f"{where}: is not signed; keys.verifying demands a signature")
        try:
            raw = base64.b64decode(signature, validate=True)
            if base64.b64encode(raw).decode() != signature:
                raise InvalidSignature  # another spelling of the same bytes is not what was written
            self.verifying.verify(raw, data)
        except (InvalidSignature, ValueError, TypeError):
            raise IntegrityError(f"{where}: its signature is wrong; do not trust this backup") from None


def make_keys(folder: Path) -> None:
    """Write a fresh set of keys, readable by their owner only. Raises UsageError rather than replace one."""
    private = Ed25519PrivateKey.generate()
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    files = {
        "encryption.key": base64.b64encode(AESSIV.generate_key(_KEY_BITS)),
        "signing.pem": private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain),
        "verifying.pem": private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        try:
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise UsageError(f"{folder / name}: is there already; without it old backups cannot be read") from None
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)


def _read(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes().strip() if path else None
    except OSError as error:
        raise EnvironmentNotReady(f"{path}: the key cannot be read: {error.strerror}; mount its Secret") from None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make keys for backups")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    main(lambda: make_keys(options.folder))
