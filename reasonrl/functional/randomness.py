"""Counter-based random numbers that depend on their purpose, not on earlier draws. Numpy only, no torch.

A generator keyed by (seed, sample) gives each completion its own stream, independent of batch composition, worker count
and global generators; resuming needs no generator state.
"""

import hashlib

import numpy as np

_MASK_64 = (1 << 64) - 1


def derive_seed(*parts: int | str) -> int:
    """Derive a 64-bit seed from integers and strings, stable across processes, machines and versions.

    Types and boundaries matter: ``derive_seed(1, 2)``, ``derive_seed(12)`` and ``derive_seed("1", 2)`` all
    differ.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = f"{type(part).__name__}:{part}".encode()
        digest.update(len(text).to_bytes(8, "little"))
        digest.update(text)
    return int.from_bytes(digest.digest(), "little")


def row_uniforms(seed: int, sample: int, count: int) -> np.ndarray:
    """Draw ``count`` uniforms in [0, 1), float64 ``[count]``, for sample ``sample`` under a 64-bit ``seed``.

    The first n numbers do not depend on ``count``. Source: Salmon et al. 2011 (Philox).
    """
    key = np.array([seed & _MASK_64, sample & _MASK_64], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count)
