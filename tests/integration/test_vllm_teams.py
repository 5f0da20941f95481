"""Neighboring processes ask an engine together, and each gets the answers to its own prompts."""

import pytest
from support.processes import on_ranks
from support.team_worker import ask_together

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """What each of four processes saw."""
    folder = tmp_path_factory.mktemp("teams")
    done = on_ranks(4, ask_together, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return [(folder / f"{rank}.txt").read_text().splitlines() for rank in range(4)]


def test_a_team_asks_for_all_and_each_gets_its_own(reports: list[list[str]]) -> None:
    first, second = [[0, 0, 7], [0, 1, 8], [1, 0, 7]], [[3, 0, 7], [3, 1, 8], [3, 2, 9]]
    assert [report[0] for report in reports] == [
        f"asked {(first, [(0, 0), (0, 1)])}",
        f"asked {(first, [(1, 0)])}",
        f"asked {(second, [])}",
        f"asked {(second, [(3, 0), (3, 1), (3, 2)])}",
    ]


def test_without_prompts_nobody_asks(reports: list[list[str]]) -> None:
    assert {report[1] for report in reports} == {"nobody asked ([], [])"}


def test_one_that_fails_takes_its_team_along_and_no_other(reports: list[list[str]]) -> None:
    assert reports[0][2] == "vllm: another process of this engine failed; see its error message"
    assert reports[1][2] == "the prompt has no tokens"
    assert all(len(report) == 3 for report in reports[2:])


def test_a_team_has_a_name_of_its_own(reports: list[list[str]]) -> None:
    names = [report[-1] for report in reports]
    assert names[0] == names[1] != names[2] == names[3]
