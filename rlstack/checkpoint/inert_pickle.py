"""An interpreter of pickles that runs nothing, for a table of contents that anyone could have written.

PyTorch's distributed checkpoints keep their table as a pickle, which could name any function to be called.
The manifest does not help, because a process that can write the one can write the other. Hence nothing is
unpickled: a global stays a name, a call and an instance stay records of what the pickle says of them, and the
reader makes objects of its own from those that it expects. No opcode makes more than it takes from the file,
so that the memory is bounded by the file's size.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


class RefusedPickle(ValueError):
    """A pickle with something that its reader does not need; the message is a clause that says what."""


# Records are equal only to themselves, so that hashing and comparing do not descend into nested ones.
@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A class, a function or a constant by its module and name, with a dot between them."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call of `function`, which is not made."""

    function: str
    arguments: tuple[Any, ...]


@dataclass(slots=True, eq=False)
class Instance:
    """An object of the class `kind`, and the state that it is given once, None before."""

    kind: str
    state: Any = None


def read_pickle(content: bytes, allowed: Set[str]) -> Any:
    """Return what the pickle `content` (protocol 2 or later) holds.

    These are None, bools, ints, strings, tuples, lists, dicts with strings and instances as keys, and the
    records above. `allowed`: the globals that it may name.

    Raises RefusedPickle for any other global or opcode, other ValueErrors and LookupErrors for no pickle.
    """
    return _Machine(allowed).run(content)


def expect(value: Any, kind: type[T]) -> T:
    """Return `value`, of which `kind` is the very type; raise RefusedPickle otherwise."""
    if type(value) is not kind:
        raise RefusedPickle(f"it has {type(value).__name__} where {kind.__name__} is due")
    return value


class _Machine:
    """The stack and the memo of a pickle under way."""

    def __init__(self, allowed: Set[str]) -> None:
        self._allowed = allowed
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}  # a dict, so that a large index costs no more than a small one

    def run(self, content: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(content):
            if (action := _ACTIONS.get(opcode.name)) is None:
                raise RefusedPickle(f"it uses the opcode {opcode.name}")
            action(self, argument)
        if self._outer or len(self._stack) != 1:
            raise RefusedPickle("it does not end with one object")
        return self._stack.pop()

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def memoize(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def recall(self, index: int) -> None:
        self.push(self._memo[index])

    def mark(self, _: None) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._outer.pop()
        return items

    def pop(self, count: int) -> list[Any]:
        items = self._stack[-count:]
        if len(items) < count:
            raise RefusedPickle("it takes more from its stack than is there")
        del self._stack[-count:]
        return items

    def extend(self, items: list[Any]) -> None:
        expect(self._stack[-1], list).extend(items)

    def update(self, items: list[Any]) -> None:
        target = expect(self._stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, Instance):
                raise RefusedPickle(f"it has a key of type {type(key).__name__}")
            target[key] = value

    def find(self, name: str) -> None:
        if name not in self._allowed:
            raise RefusedPickle(f"it asks for {name}")
        self.push(Global(name))

    def find_on_stack(self, _: None) -> None:
        self.find(".".join(expect(part, str) for part in self.pop(2)))

    def call(self, _: None) -> None:
        function, arguments = self.pop(2)
        self.push(Call(expect(function, Global).name, expect(arguments, tuple)))

    def make(self, _: None) -> None:
        kind, arguments = self.pop(2)
        if arguments != ():
            raise RefusedPickle("it makes an object with arguments")
        self.push(Instance(expect(kind, Global).name))

    def build(self, _: None) -> None:
        (state,) = self.pop(1)
        target = expect(self._stack[-1], Instance)
        if target.state is not None:
            raise RefusedPickle("it changes the state of an object")
        target.state = state


_ACTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, argument: None),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), _Machine.push),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE"), _Machine.push),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.pop(3))),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "APPEND": lambda machine, _: machine.extend(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.update(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.pop_mark()),
    "MARK": _Machine.mark,
    **dict.fromkeys(("MEMOIZE", "BINPUT", "LONG_BINPUT"), _Machine.memoize),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.recall),
    "GLOBAL": lambda machine, name: machine.find(name.replace(" ", ".")),
    "STACK_GLOBAL": _Machine.find_on_stack,
    "NEWOBJ": _Machine.make,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}
