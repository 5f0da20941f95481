"""All solutions of a problem.

An expression is kept as a sum (terms added, terms subtracted) or a product (factors, divisors), flattened
and sorted, so that ``a+(b+c)``, ``(c+a)+b`` and the like are one expression. ``_Tables`` builds, for each
sub-multiset of the numbers, every value it can make together with the expressions that make it.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations

Node = int | tuple[str, tuple["Node", ...], tuple["Node", ...]]
"""A number, or (kind, positive parts, negative parts): "+" subtracts and "*" divides by the last."""
Value = int | Fraction
"""Whole values stay ``int``, several times faster than ``Fraction``; the two are equal and hash alike."""
Table = dict[Value, dict[Node, None]]


def solve(numbers: Sequence[int], target: int, limit: int | None = None) -> list[str]:
    """Every distinct expression that uses each number exactly once and equals the target.

    Two expressions are the same when they differ only in the order or the grouping of a sum or a product.
    Fractions may occur on the way. The order is the same in every process.

    Args:
        numbers: the given numbers; up to 5 take well under a second, 6 some seconds.
        target: the value to reach.
        limit: stop after this many solutions; None = all.

    Returns:
        Expressions that ``verify`` accepts; empty = unsolvable.

    Raises:
        ValueError: without numbers or with a negative one (there is no unary minus to write it with).
    """
    if not numbers or min(numbers) < 0:
        raise ValueError(f"numbers must be non-empty and not negative, got {list(numbers)}")
    found: list[str] = []
    for node in _solutions(tuple(sorted(numbers)), target):
        if limit is not None and len(found) >= limit:
            break
        found.append(render(node))
    return found


def _solutions(numbers: tuple[int, ...], target: Value) -> Iterator[Node]:
    """Distinct solutions, found without building the (largest) table of all numbers."""
    if len(numbers) == 1:
        if numbers[0] == target:
            yield numbers[0]
        return
    tables = _Tables()
    seen: set[Node] = set()
    for left, right in _partitions(numbers):
        for node in _reaching(tables.get(left), tables.get(right), target):
            if node not in seen:
                seen.add(node)
                yield node


def _reaching(left: Table, right: Table, target: Value) -> Iterator[Node]:
    for value, nodes in left.items():
        for other in _partners(value, target):
            if other in right:
                for a in nodes:
                    for b in right[other]:
                        yield from (n for v, n in _combine(value, a, other, b) if v == target)
        if value == 0 and target == 0:
            # 0 * x and 0 / x reach 0 with every partner.
            for other, others in right.items():
                yield from (n for a in nodes for b in others for v, n in _combine(value, a, other, b) if v == 0)


def _partners(value: Value, target: Value) -> list[Value]:
    """Values b for which some operation on value and b gives the target; few enough to look each up."""
    partners: list[Value] = [target - value, value - target, value + target]
    if value != 0:
        partners += [_divide(target, value), value * target]
        if target != 0:
            partners.append(_divide(value, target))
    if target == 0:
        partners.append(0)
    return list(dict.fromkeys(partners))


class _Tables:
    """Value tables of sub-multisets, each built once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], Table] = {}

    def get(self, numbers: tuple[int, ...]) -> Table:
        if numbers not in self._known:
            self._known[numbers] = self._build(numbers)
        return self._known[numbers]

    def _build(self, numbers: tuple[int, ...]) -> Table:
        if len(numbers) == 1:
            return {numbers[0]: {numbers[0]: None}}
        table: Table = {}
        for left, right in _partitions(numbers):
            for a_value, a_nodes in self.get(left).items():
                for b_value, b_nodes in self.get(right).items():
                    for a in a_nodes:
                        for b in b_nodes:
                            for value, node in _combine(a_value, a, b_value, b):
                                table.setdefault(value, {})[node] = None
        return table


def _partitions(numbers: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Ways to cut a sorted multiset in two non-empty parts; even cuts first, as their tables are small."""
    cuts: dict[tuple[tuple[int, ...], tuple[int, ...]], None] = {}
    for size in range(len(numbers) // 2, 0, -1):
        for chosen in combinations(range(len(numbers)), size):
            left = tuple(numbers[i] for i in chosen)
            right = tuple(numbers[i] for i in range(len(numbers)) if i not in chosen)
            cuts[(left, right) if (right, left) not in cuts else (right, left)] = None
    return list(cuts)


def _combine(a_value: Value, a: Node, b_value: Value, b: Node) -> Iterator[tuple[Value, Node]]:
    """The up to six results of one operation between two operands."""
    yield a_value + b_value, _join("+", a, b, inverse=False)
    yield a_value - b_value, _join("+", a, b, inverse=True)
    yield b_value - a_value, _join("+", b, a, inverse=True)
    yield a_value * b_value, _join("*", a, b, inverse=False)
    if b_value != 0:
        yield _divide(a_value, b_value), _join("*", a, b, inverse=True)
    if a_value != 0:
        yield _divide(b_value, a_value), _join("*", b, a, inverse=True)


def _divide(a: Value, b: Value) -> Value:
    if isinstance(a, int) and isinstance(b, int):
        return a // b if a % b == 0 else Fraction(a, b)
    return Fraction(a) / b


def _join(kind: str, a: Node, b: Node, *, inverse: bool) -> Node:
    """Flatten ``a kind b`` (or ``a`` with the inverse operation on ``b``) into one sorted node."""
    a_plus, a_minus = _parts(kind, a)
    b_plus, b_minus = _parts(kind, b)
    if inverse:
        b_plus, b_minus = b_minus, b_plus
    return kind, _ordered(a_plus + b_plus), _ordered(a_minus + b_minus)


def _parts(kind: str, node: Node) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    if isinstance(node, tuple) and node[0] == kind:
        return node[1], node[2]
    return (node,), ()


def _ordered(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    return tuple(sorted(nodes, key=repr)) if len(nodes) > 1 else nodes


def render(node: Node) -> str:
    """Write a node with no more parentheses than it needs, as in ``8*(5+3)-12``."""
    if isinstance(node, int):
        return str(node)
    kind, plus, minus = node
    part = render if kind == "+" else _factor
    text = kind.join(part(p) for p in plus)
    return text + "".join(("-" if kind == "+" else "/") + _negative(kind, m) for m in minus)


def _factor(node: Node) -> str:
    text = render(node)
    return f"({text})" if isinstance(node, tuple) and node[0] == "+" else text


def _negative(kind: str, node: Node) -> str:
    return render(node) if kind == "+" else _factor(node)
