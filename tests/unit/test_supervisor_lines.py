"""The lines of keys in TOML, against texts whose lines are known by how they were made."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from redis_worker.file.lines import KeyPath, lines_of

BARE = st.text("abcXYZ019_-", min_size=1, max_size=4)
# What would lead a careless scanner astray.
TRICKY = st.text("ab.[]{}=,#\"'\\ \t€\u00a0", max_size=6)


class Text:
    """A TOML text that is being written, and the lines that its keys have come to."""

    def __init__(self) -> None:
        self.text = ""
        self.lines: dict[KeyPath, int] = {}

    def write(self, text: str) -> None:
        self.text += text

    def note(self, path: KeyPath, *, again: bool = False) -> None:
        if again or path not in self.lines:
            self.lines[path] = self.text.count("\n") + 1


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def key(draw: st.DrawFn, name: str) -> str:
    """The name as a key, in one of the ways there are to write it."""
    ways = [quoted(name), "".join(rf"\u{ord(sign):04X}" for sign in name).join('""')]
    if name and all(sign.isascii() and (sign.isalnum() or sign in "_-") for sign in name):
        ways.append(name)
    if "'" not in name:
        ways.append(f"'{name}'")
    return draw(st.sampled_from(ways))


def gap(draw: st.DrawFn) -> str:
    return draw(st.sampled_from(["", " ", "\t "]))


def blank(draw: st.DrawFn) -> str:
    """What may stand between the items of an array."""
    return draw(st.sampled_from(["", " ", "\n", " # ]} = 'x\n", "\n\n  "]))


def write_value(draw: st.DrawFn, out: Text, path: KeyPath, depth: int, inline: bool = False) -> None:
    kinds = ["bare", "basic", "literal", "long", "long literal"] + ["array", "table"] * (depth > 0)
    match draw(st.sampled_from(kinds)):
        case "bare":
            out.write(draw(st.sampled_from(["1", "true", "-1.5e3", "inf", "1979-05-27 07:32:00", "0xff", "07:32:00"])))
        case "basic":
            out.write(quoted(draw(TRICKY)))
        case "literal":
            out.write("'" + draw(TRICKY).replace("'", "") + "'")
        case "long":
            inside = draw(TRICKY).replace("\\", "\\\\").replace('"', draw(st.sampled_from(['\\"', '"x'])))
            out.write(f'"""{inside}\n=[{inside}' + draw(st.sampled_from(["", '"', '""', "\\\n"])) + '"""')
        case "long literal":
            inside = draw(TRICKY).replace("'", "'x")
            out.write(f"'''{inside}\n#{inside}" + draw(st.sampled_from(["", "'", "''"])) + "'''")
        case "array":
            write_array(draw, out, path, depth)
        case "table":
            write_inline(draw, out, path, depth)


def write_array(draw: st.DrawFn, out: Text, path: KeyPath, depth: int) -> None:
    out.write("[" + blank(draw))
    count = draw(st.integers(0, 3))
    for index in range(count):
        out.note((*path, index))
        write_value(draw, out, (*path, index), depth - 1)
        last = index == count - 1
        out.write(blank(draw) + ("" if last and draw(st.booleans()) else ",") + blank(draw))
    out.write("]")


def write_inline(draw: st.DrawFn, out: Text, path: KeyPath, depth: int) -> None:
    out.write("{" + gap(draw))
    for number, name in enumerate(draw(st.lists(BARE | TRICKY, max_size=3, unique=True))):
        out.write("," * (number > 0) + gap(draw))
        write_pair(draw, out, path, name, depth - 1)
        out.write(gap(draw))
    out.write("}")


def write_pair(draw: st.DrawFn, out: Text, path: KeyPath, name: str, depth: int) -> None:
    names = [name, *draw(st.lists(BARE | TRICKY, max_size=2))]
    for number, part in enumerate(names):
        path = (*path, part)
        out.note(path)
        out.write((f"{gap(draw)}.{gap(draw)}" if number else "") + key(draw, part))
    out.write(f"{gap(draw)}={gap(draw)}")
    write_value(draw, out, path, depth)


@st.composite
def texts(draw: st.DrawFn) -> Text:
    out = Text()
    name = draw(st.permutations(["a", "b.c", "d e", "", "f#", "[g]", "h", "'i"]))
    for _ in range(draw(st.integers(0, 2))):
        write_pair(draw, out, (), name.pop(), 2)
        out.write(draw(st.sampled_from(["\n", " # a = 1\n", "\n\n"])))
    for _ in range(draw(st.integers(0, 4))):
        top = name.pop()
        if draw(st.booleans()):
            write_tables(draw, out, top)
        else:
            write_table(draw, out, top)
    return out


def write_table(draw: st.DrawFn, out: Text, top: str) -> None:
    """`[top.inner]`, and then perhaps `[top]`."""
    out.write(gap(draw))
    out.note((top,))
    out.note((top, "inner"))
    out.write(f"[{gap(draw)}{key(draw, top)}{gap(draw)}.{gap(draw)}{key(draw, 'inner')}{gap(draw)}] # [x]\n")
    write_body(draw, out, (top, "inner"))
    if draw(st.booleans()):
        out.note((top,), again=True)
        out.write(f"[{key(draw, top)}]\n")
        write_body(draw, out, (top,), {"inner"})


def write_tables(draw: st.DrawFn, out: Text, top: str) -> None:
    """`[[top]]`, some times, each with a table in it."""
    for index in range(draw(st.integers(1, 3))):
        out.note((top,))
        out.note((top, index))
        out.write(f"[[{gap(draw)}{key(draw, top)}{gap(draw)}]]\n")
        write_body(draw, out, (top, index), {"sub"})
        if draw(st.booleans()):
            out.note((top, index, "sub"))
            out.write(f"[{key(draw, top)}.sub]\n")
            write_body(draw, out, (top, index, "sub"))


def write_body(draw: st.DrawFn, out: Text, path: KeyPath, without: set[str] | None = None) -> None:
    names = draw(st.lists(BARE | TRICKY, max_size=3, unique=True))
    for name in [name for name in names if name not in (without or set())]:
        out.write(gap(draw))
        write_pair(draw, out, path, name, 2)
        out.write(draw(st.sampled_from(["\n", "\n# [z]\n\n", " #\n"])))


def paths(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    """The paths of all that tomllib has found."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {found for name, item in items for found in ({(*path, name)} | paths(item, (*path, name)))}


@given(texts())
def test_every_key_has_its_line(written: Text) -> None:
    assert lines_of(written.text) == written.lines
    assert set(written.lines) == paths(tomllib.loads(written.text))


@given(texts())
def test_the_ends_of_lines_do_not_matter(written: Text) -> None:
    assert lines_of(written.text.replace("\n", "\r\n")) == written.lines


def test_an_inline_table_over_several_lines() -> None:
    """TOML 1.1 permits it; the tomllib of today does not."""
    text = "a = {\n  b = 1, # x\n  c.d = [\n    2,\n  ],\n}\ne = 1\n"
    lines = {("a",): 1, ("a", "b"): 2, ("a", "c"): 3, ("a", "c", "d"): 3, ("a", "c", "d", 0): 4, ("e",): 7}
    assert lines_of(text) == lines
