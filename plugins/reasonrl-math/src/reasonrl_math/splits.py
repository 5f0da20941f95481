"""Which split a problem belongs to, by what it is; so the splits are apart whatever the seeds."""

import hashlib

from reasonrl import Split

HELD_OUT_SHARE = 10
"""One problem in so many is held out."""


def split_of(key: str) -> Split:
    """The split of the problem that ``key`` stands for."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return "eval" if int.from_bytes(digest, "big") % HELD_OUT_SHARE == 0 else "train"
