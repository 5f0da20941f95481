"""How to get what is missing. reasonrl is on no package index, so its extras come from its clone."""


def install_extra(extra: str) -> str:
    """The command that installs an extra of reasonrl, such as ``vllm``, for messages."""
    return f"`pip install -e '.[{extra}]'` in the clone of reasonrl"
