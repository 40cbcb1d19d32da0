"""Digests of a stream that can be put down in one process and taken up in another.

`hashlib` objects cannot be stored, so libcrypto's own contexts are used through ctypes: fixed-size structs
without pointers. Their layout belongs to one build of the library: a saved state names the library's version
and byte order, and one that does not fit loads as None, after which the caller reads the bytes again. A
self-test compares with hashlib before anything rests on it; if it fails, hashlib hashes and nothing is saved.
"""

import ctypes
import ctypes.util
import functools
import hashlib
import struct
import sys
from dataclasses import dataclass
from typing import Protocol, Self

from tenure.core.digest import ALGORITHMS, SHA256, SHA512

# Format of a saved state: magic and format number, byte order, OpenSSL_version_num(), then per algorithm its
# byte (core/digest.py) and the context.
_HEAD = struct.Struct(">4sBQ")
_MAGIC = b"TnH1"
_ORDER = 1 if sys.byteorder == "little" else 2
# Room behind a context that must stay untouched: a library with larger contexts fails the self-test here
# and not by writing over foreign memory.
_GUARD = 256


@dataclass(frozen=True, slots=True)
class _Layout:
    """SHA256_CTX and SHA512_CTX of <openssl/sha.h>: state words, two length words, one block, `num`, `md_len`."""

    name: str
    size: int  # bytes of the context
    block: int  # bytes of one block; num, the fill of the block, is always below it
    num_at: int  # offset of `unsigned int num`


_LAYOUTS = {
    SHA256: _Layout("SHA256", size=112, block=64, num_at=104),
    SHA512: _Layout("SHA512", size=216, block=128, num_at=208),
}


class _Running(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


@functools.cache
def _library() -> ctypes.CDLL | None:
    """libcrypto with the functions needed, or None. The one that hashlib itself is linked with comes first."""
    names = [_hashlib_file(), ctypes.util.find_library("crypto")]
    for name in filter(None, names):
        try:
            library = ctypes.CDLL(name)
            for layout in _LAYOUTS.values():
                for verb in ("Init", "Update", "Final"):
                    getattr(library, f"{layout.name}_{verb}").restype = ctypes.c_int
            library.OpenSSL_version_num.restype = ctypes.c_ulong
        except (OSError, AttributeError):
            continue
        return library
    return None


def _hashlib_file() -> str | None:
    try:
        import _hashlib
    except ImportError:
        return None
    return getattr(_hashlib, "__file__", None)


@functools.cache
def resumable() -> bool:
    """Whether states can be saved here: proven by comparing with hashlib, split at several points."""
    library = _library()
    if library is None:
        return False
    sample = bytes(range(256)) * 3
    for algorithm in _LAYOUTS:
        wanted = hashlib.new(algorithm, sample).digest()
        for split in (0, 1, 55, 56, 63, 64, 65, 111, 112, 127, 128, 129, 500, len(sample)):
            first = _Context(library, algorithm)
            first.update(sample[:split])
            saved = first.save()
            if not _fits(algorithm, saved):
                return False
            second = _Context(library, algorithm, saved)
            second.update(sample[split:])
            if not second.intact() or second.digest() != wanted:
                return False
    return True


def _fits(algorithm: str, state: bytes) -> bool:
    layout = _LAYOUTS[algorithm]
    if len(state) != layout.size:
        return False
    # A fill beyond the block would make the library write outside the context.
    return int.from_bytes(state[layout.num_at : layout.num_at + 4], sys.byteorder) < layout.block


class Hasher:
    """Hashes one stream with one or more algorithms at once. ctypes and hashlib let other threads run meanwhile."""

    __slots__ = ("_running", "algorithms")

    def __init__(self, algorithms: tuple[str, ...]) -> None:
        self.algorithms = algorithms
        self._running: dict[str, _Running] = {name: _start(name) for name in algorithms}

    def update(self, data: bytes) -> None:
        for running in self._running.values():
            running.update(data)

    def digest(self, algorithm: str) -> bytes:
        """The raw hash of everything so far; hashing may go on afterwards. KeyError for another algorithm."""
        return self._running[algorithm].digest()

    def save(self) -> bytes | None:
        """The state, for `load` in any process with the same library; None where that cannot be done."""
        library = _library()
        if not resumable() or library is None:
            return None
        state = _HEAD.pack(_MAGIC, _ORDER, library.OpenSSL_version_num())
        for name, running in self._running.items():
            assert isinstance(running, _Context)
            state += bytes((ALGORITHMS[name][0],)) + running.save()
        return state

    @classmethod
    def load(cls, state: bytes | None, algorithms: tuple[str, ...]) -> Self | None:
        """Go on from a saved state; None when it was saved by another library or lacks an algorithm."""
        library = _library()
        if not state or not resumable() or library is None:
            return None
        contexts = _split(state, library.OpenSSL_version_num())
        if not all(name in contexts for name in algorithms):
            return None
        hasher = cls(())
        hasher.algorithms = algorithms
        hasher._running = {name: _Context(library, name, contexts[name]) for name in algorithms}
        return hasher


def _start(algorithm: str) -> _Running:
    library = _library()
    if resumable() and library is not None:
        return _Context(library, algorithm)
    return hashlib.new(algorithm)


def _split(state: bytes, version: int) -> dict[str, bytes]:
    """The contexts in a saved state; empty when anything about it is not as this process would write it."""
    if len(state) < _HEAD.size or _HEAD.unpack_from(state) != (_MAGIC, _ORDER, version):
        return {}
    by_byte = {number: name for name, (number, _) in ALGORITHMS.items()}
    found: dict[str, bytes] = {}
    at = _HEAD.size
    while at < len(state):
        name = by_byte.get(state[at])
        if name is None:
            return {}
        context = state[at + 1 : at + 1 + _LAYOUTS[name].size]
        if not _fits(name, context):
            return {}
        found[name] = context
        at += 1 + len(context)
    return found


class _Context:
    """One libcrypto context."""

    __slots__ = ("_buffer", "_final", "_layout", "_length", "_update")

    def __init__(self, library: ctypes.CDLL, algorithm: str, state: bytes | None = None) -> None:
        layout = _LAYOUTS[algorithm]
        self._layout = layout
        self._length = ALGORITHMS[algorithm][1]
        self._update = getattr(library, f"{layout.name}_Update")
        self._final = getattr(library, f"{layout.name}_Final")
        self._buffer = ctypes.create_string_buffer(layout.size + _GUARD)
        if state is None:
            getattr(library, f"{layout.name}_Init")(self._buffer)
        else:
            ctypes.memmove(self._buffer, state, layout.size)

    def update(self, data: bytes, /) -> None:
        self._update(self._buffer, ctypes.c_char_p(data), ctypes.c_size_t(len(data)))

    def digest(self) -> bytes:
        # Final wipes the context, so it works on a copy.
        copy = ctypes.create_string_buffer(self._buffer.raw, len(self._buffer))
        out = ctypes.create_string_buffer(self._length)
        self._final(out, copy)
        return out.raw

    def save(self) -> bytes:
        return self._buffer.raw[: self._layout.size]

    def intact(self) -> bool:
        return not any(self._buffer.raw[self._layout.size :])
