"""Search for the actions that solve a deterministic task."""

from collections.abc import Callable, Hashable, Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Generic, NamedTuple, TypeVar

State = TypeVar("State")


class Outcome(NamedTuple, Generic[State]):
    """State after an action, and whether the task is solved or over."""

    state: State
    success: bool
    terminated: bool = False


class _Node(NamedTuple):
    """An action of a plan, linked to the actions before it."""

    parent: "_Node | None"
    action: int


def search(
    start: State,
    num_actions: int,
    advance: Callable[[State, int], Outcome[State]],
    key: Callable[[State], Hashable],
    estimate: Callable[[State], float],
    max_steps: int,
) -> list[int] | None:
    """Search for actions that solve a task: A* (Hart et al., 1968).

    Args:
        start: state of the task.
        num_actions: number of actions.
        advance: returns the outcome of an action in a state.
        key: identifies states that need not be visited again.
        estimate: steps that remain in a state; 0: breadth-first search. If it is never too large,
            the plan is a shortest one.
        max_steps: maximum length of the plan.

    Returns:
        The actions, or None if no plan within `max_steps` solves the task.
    """
    number = count()  # breaks ties: first in, first out
    queue: list[tuple[float, int, int, State, _Node | None]] = [(0.0, next(number), 0, start, None)]
    visited = {key(start)}
    while queue:
        _, _, steps, state, node = heappop(queue)
        if steps == max_steps:
            continue
        for action in range(num_actions):
            outcome, child = advance(state, action), _Node(node, action)
            if outcome.success:
                return list(_actions(child))[::-1]
            known = key(outcome.state)
            if outcome.terminated or known in visited:
                continue
            visited.add(known)
            cost = steps + 1 + estimate(outcome.state)
            heappush(queue, (cost, next(number), steps + 1, outcome.state, child))
    return None


def _actions(node: _Node | None) -> Iterator[int]:
    while node is not None:
        yield node.action
        node = node.parent
