"""Upload an exported folder to the Hugging Face hub. Torch-free."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reasonrl.errors import CheckpointError, RecipeError, describe, one_line

_REPO = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")


def check_repo(repo: str) -> None:
    """Refuse what cannot be the name of a repository, and a push without network or login.

    Raises:
        RecipeError: Saying what to do.
    """
    from huggingface_hub import get_token
    from huggingface_hub.constants import is_offline_mode

    if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo or len(repo) > 96:
        raise RecipeError(f"--push {repo!r}: expected a repository such as user/name")
    if is_offline_mode():
        raise RecipeError("--push: HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it")
    if get_token() is None:
        raise RecipeError("--push: not logged in to the hub; run `hf auth login`, or set HF_TOKEN")


def full_name(repo: str) -> str:
    """``user/name``: a name without user is the user's own.

    Raises:
        CheckpointError: If the hub does not answer.
    """
    from huggingface_hub import HfApi

    if "/" in repo:
        return repo
    with _explained(repo):
        return f"{HfApi().whoami()['name']}/{repo}"


def push(folder: Path, repo: str, *, private: bool, message: str) -> str:
    """Upload ``folder`` as one commit, creating the repository if there is none; returns the address of the commit.

    Raises:
        CheckpointError: If the hub refuses or does not answer. The folder stays.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="reasonrl")
    with _explained(repo):
        api.create_repo(repo, private=private or None, exist_ok=True)
        return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message).commit_url)


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as err:
        status = err.response.status_code
        hint = "; check the token's permissions (write) and the name" if status in (401, 403, 404) else ""
        raise CheckpointError(f"cannot push to {repo}: the hub answered {status}: {one_line(err)}{hint}") from err
    except Exception as err:  # the HTTP library below huggingface_hub depends on its version
        raise CheckpointError(f"cannot push to {repo}: {describe(err)}") from err
