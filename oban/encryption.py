"""Encryption: the option `encrypt` of workers, whose args nobody but the worker can read.

The args of their jobs are `{"encrypted": "gAAAA…"}`, a Fernet token of the JSON. They are plain only in the
job that a node passes to the worker.
"""

import base64
import hashlib
import hmac
import json
import os
import threading
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any, TypeAlias

from oban import encoding
from oban.errors import ConfigError, DecryptionFailed, InvalidJob
from oban.registry import registry

__all__ = ["EncryptOption", "generate_key", "key_id"]

Key: TypeAlias = str | bytes
#: The option `encrypt`: the newest key first.
EncryptOption: TypeAlias = Key | Sequence[Key] | Callable[[], Key | Sequence[Key]]

#: The only key of sealed args.
FIELD = "encrypted"
#: The text that is shown in place of encrypted args.
HIDDEN = "[encrypted]"
#: How a token begins, and how short it can be.
_TOKEN_START, _TOKEN_LENGTH = "gAAAA", 100
_VERSION = b"\x80"

#: Whether this process has defined a worker with the option. Until then, jobs skip this module.
is_used: bool = False


def generate_key() -> str:
    """Make a new random key for the option `encrypt`.

    Returns:
        A Fernet key: a string of 44 characters.
    """
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def key_id(key: Key) -> str:
    """Compute what stands for a key in error messages.

    Args:
        key: A Fernet key.

    Returns:
        Eight hexadecimal digits, from which the key cannot be computed.

    Raises:
        ConfigError: It is not a Fernet key.
    """
    return _digest(_decode_key(key), b"oban key id")[:8]


def is_sealed(args: object) -> bool:
    """Whether args are an envelope: a dict with a Fernet token under `encrypted`, and nothing else."""
    return isinstance(args, dict) and len(args) == 1 and _is_token(args.get(FIELD))


def _is_token(value: object) -> bool:
    return (
        isinstance(value, str)
        and len(value) >= _TOKEN_LENGTH
        and len(value) % 4 == 0
        and value.startswith(_TOKEN_START)
    )


class Keys:
    """The keys of an option `encrypt`, the newest first. A function is called when they are first needed.

    Raises `ConfigError` if `cryptography` is not installed, or for keys that cannot be used.
    """

    def __init__(self, option: object) -> None:
        if find_spec("cryptography") is None:
            raise ConfigError(
                "encrypt needs the package cryptography: pip install 'oban-sqlalchemy[encryption]'"
            )
        self._find: Callable[[], object] | None = option if callable(option) else None
        self._keys: list[bytes] | None = None if callable(option) else _parse_keys(option)
        self._fernet: Any = None
        self._lock = threading.Lock()
        global is_used
        is_used = True

    def all(self) -> list[bytes]:
        """The 32 bytes of each key. Raises `ConfigError`."""
        if self._keys is None:
            with self._lock:
                if self._keys is None:
                    self._keys = _parse_keys(self._call())
        return self._keys

    def _call(self) -> object:
        find = self._find
        try:
            return None if find is None else find()
        except Exception as error:
            # The message can contain a secret that the function has read. The name of a variable of the
            # environment that is not set is none.
            name = error.args[0] if isinstance(error, KeyError) and error.args else None
            is_variable = isinstance(name, str) and name.isidentifier() and name.isupper()
            shown = f": {name!r}" if is_variable else ""
            raise ConfigError(f"encrypt: the function raised {type(error).__name__}{shown}") from error

    def fernet(self) -> Any:
        """A `MultiFernet` of the keys. Raises `ConfigError`."""
        if self._fernet is None:
            from cryptography.fernet import Fernet, MultiFernet

            self._fernet = MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in self.all()])
        return self._fernet


def _parse_keys(value: object) -> list[bytes]:
    listed = [value] if isinstance(value, (str, bytes)) else value
    if not isinstance(listed, (list, tuple)):
        raise ConfigError(
            "encrypt must be a key, a list of keys, or a function that returns these,"
            f" not {type(value).__name__}"
        )
    if not listed:
        raise ConfigError("encrypt needs at least one key")
    keys = []
    for number, key in enumerate(listed, 1):
        which = f"key {number} of {len(listed)}" if len(listed) > 1 else "the key"
        try:
            keys.append(_decode_key(key))
        except ConfigError as error:
            raise ConfigError(f"encrypt: {which} {error}") from None
    return keys


def _decode_key(key: object) -> bytes:
    """The 32 bytes of a key. The error does not contain it."""
    if not isinstance(key, (str, bytes)):
        raise ConfigError(f"must be a string or bytes, not {type(key).__name__}")
    try:
        decoded = base64.b64decode(key, altchars=b"-_", validate=True)
    except ValueError:
        decoded = b""
    if len(decoded) != 32:
        raise ConfigError(
            "is not a Fernet key (32 bytes in URL-safe base64); oban.encryption.generate_key() makes one"
        )
    return decoded


def _digest(key: bytes, text: bytes) -> str:
    return hmac.new(key, text, hashlib.sha256).hexdigest()


class Encryption:
    """Seals and opens the args of one worker's jobs.

    All methods raise `ConfigError` if the keys cannot be used.
    """

    __slots__ = ("keys", "owner")

    def __init__(self, keys: Keys, owner: str) -> None:
        self.keys: Keys = keys
        #: The worker's name, for errors.
        self.owner: str = owner

    def seal(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The envelope of args that can be stored. Raises `InvalidJob` for one that was changed in place."""
        return self._envelope(self._fernet().encrypt(self._encode(args)))

    def seal_again(self, args: dict[str, Any], sealed: object) -> dict[str, Any]:
        """The envelope of args: `sealed` if that has the same args in it, else a new one."""
        with suppress(DecryptionFailed):
            if isinstance(sealed, dict) and is_sealed(sealed) and self.plain(sealed) == args:
                return sealed
        return self.seal(args)

    def seal_alike(self, args: dict[str, Any]) -> dict[str, Any]:
        """The envelope of args, sealed or plain, which is the same for the same args and the same key.

        Each node declares its periodic entries again and again, which must not look like a change.
        """
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
        from cryptography.hazmat.primitives.padding import PKCS7

        text = self._encode(self.plain(args))
        key = self._keys()[0]
        signing, encrypting = key[:16], key[16:]
        # A token of Fernet without a time, and with a keyed hash in place of random bytes.
        vector = bytes.fromhex(_digest(key, b"oban periodic args" + text))[:16]
        pad = PKCS7(128).padder()
        encryptor = Cipher(algorithms.AES(encrypting), modes.CBC(vector)).encryptor()
        body = encryptor.update(pad.update(text) + pad.finalize()) + encryptor.finalize()
        token = _VERSION + bytes(8) + vector + body
        token += hmac.new(signing, token, hashlib.sha256).digest()
        return self._envelope(base64.urlsafe_b64encode(token))

    def plain(self, args: Any) -> Any:
        """The args in an envelope; anything else is returned as it is, as jobs can be older than the option.

        Raises `DecryptionFailed`.
        """
        if not is_sealed(args):
            return args
        from cryptography.fernet import InvalidToken

        token, fernet = args[FIELD], self._fernet()
        try:
            opened = encoding.loads(fernet.decrypt(token))
        except InvalidToken:
            raise DecryptionFailed("args", self._misfit(token)) from None
        except (ValueError, RecursionError):
            opened = None
        if not isinstance(opened, dict):
            raise DecryptionFailed("args", f"of {self.owner} are encrypted, but not as a JSON object")
        return opened

    def digests(self, text: str) -> list[str]:
        """Keyed hashes of a text, one for each key, the newest first."""
        data = text.encode()
        return [_digest(bytes.fromhex(_digest(key, b"oban unique args")), data) for key in self._keys()]

    def _envelope(self, token: bytes) -> dict[str, Any]:
        if len(token) + 20 > encoding.MAX_BYTES:
            size, most = f"{len(token):,}", f"{encoding.MAX_BYTES:,}"
            raise InvalidJob("args", f"are {size} bytes when they are encrypted; at most {most} are stored")
        return {FIELD: token.decode()}

    def _encode(self, args: Mapping[str, Any]) -> bytes:
        if _is_token(args.get(FIELD)) and self._is_own(args[FIELD]):
            problem = f"of {self.owner} are encrypted: assign new args instead of changing these"
            raise InvalidJob("args", problem)
        try:
            return encoding.dumps(args).encode()
        except TypeError:
            # orjson refuses some values that other programs can have stored.
            return json.dumps(args).encode()

    def _is_own(self, token: str) -> bool:
        try:
            self.plain({FIELD: token})
        except DecryptionFailed:
            return False
        return True

    def _misfit(self, token: str) -> str:
        try:
            seconds = int.from_bytes(base64.urlsafe_b64decode(token)[1:9], "big")
            when = f" on {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC" if seconds else ""
        except (ValueError, OverflowError, OSError):
            when = ""
        ids = [_digest(key, b"oban key id")[:8] for key in self._keys()]
        listed = f"key {ids[0]}" if len(ids) == 1 else f"keys {', '.join(ids)}"
        return (
            f"of {self.owner} cannot be decrypted: they were encrypted{when} with a key that its option"
            f" encrypt does not have, or were changed since; it has the {listed}"
        )

    def _keys(self) -> list[bytes]:
        try:
            return self.keys.all()
        except ConfigError as error:
            raise ConfigError(f"{self.owner}: {error}") from error.__cause__

    def _fernet(self) -> Any:
        self._keys()
        return self.keys.fernet()


def of(worker: object) -> Encryption | None:
    """The encryption of the args of a worker, by its name; None if it has none or is not known here."""
    cls = registry.get(worker) if isinstance(worker, str) else None
    found: Encryption | None = None if cls is None else cls._encryption
    return found


def names() -> list[str]:
    """The names of the workers of this process that encrypt their args, with their aliases."""
    return sorted(name for name, cls in registry.items() if cls._encryption is not None)


def seal_values(values: MutableMapping[str, Any], before: object = None) -> None:
    """Seal the args in the columns of a job, if they are plain and its worker is known and encrypts them.

    If `before` is the envelope of the same args, the job gets it again. Raises
    `InvalidJob` for args that cannot be stored.
    """
    args = values.get("args")
    if isinstance(args, dict) and not is_sealed(args) and (cipher := of(values.get("worker"))) is not None:
        values["args"] = cipher.seal_again(encoding.json_object(args, "args"), before)


def sealed_alike(worker: object, args: dict[str, Any]) -> dict[str, Any]:
    """The args of a periodic entry, sealed by `Encryption.seal_alike` if their worker encrypts them."""
    cipher = of(worker) if is_used else None
    return args if cipher is None else cipher.seal_alike(args)


def reveal(job: Any) -> None:
    """Let a job show its plain args, if this process can decrypt them. A session does not notice."""
    values = job.__dict__
    if of(values.get("worker")) is not None:
        values["args"] = opened(values["worker"], values.get("args"))


def opened(worker: object, args: Any) -> Any:
    """The plain args of a job, if this process can decrypt them; else the args as they are."""
    if (cipher := of(worker)) is not None:
        with suppress(DecryptionFailed, ConfigError):
            return cipher.plain(args)
    return args


def is_unreadable(worker: object, args: object) -> bool:
    """Whether args are sealed, and this process does not know their worker."""
    return is_sealed(args) and worker not in registry
