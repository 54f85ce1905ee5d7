"""One bad input: what is wrong, what a user does with it, and what must come of it."""

import hashlib
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpm.__main__ import main

PROPERTY = "bad input"  # under which a test hands a line to the closing table


@dataclass(frozen=True)
class Bad:
    """A row of the table.

    `spoil` gets the folder of a sound study; `says` is what the message must hold: the thing, and
    what to do. `command` is what follows `mpm`; `written` are the files that it may write.
    """

    group: str
    wrong: str
    spoil: Callable[[Path], object]
    says: Sequence[str]
    command: str = "check toy.yaml"
    code: int = 2
    written: Sequence[str] = ()

    def __str__(self) -> str:
        return f"{self.group}: {self.wrong}"


def checksums(folder: Path) -> dict[str, str]:
    "SHA-256 of every file below a folder, by path; folders count too"
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        )
        for path in sorted(folder.rglob("*"))
    }


def judge(bad: Bad, home: Path, capsys, record_property) -> None:
    "Drive a bad input through the command line: message, exit code, and nothing else touched"
    bad.spoil(home)
    before = checksums(home)
    capsys.readouterr()
    code = main(shlex.split(bad.command))
    message = capsys.readouterr().err
    expect(bad, code, message, before, checksums(home))
    record_property(PROPERTY, line(bad.group, bad.wrong, message.replace(f"{home}/", "")))


def expect(bad: Bad, code: int, message: str, before: dict, after: dict) -> None:
    "What holds of every bad input"
    assert message.startswith("error: ") and "Traceback" not in message, message
    assert [part for part in bad.says if part not in message] == [], message
    assert code == bad.code
    touched = {name for name in before | after if before.get(name) != after.get(name)}
    assert touched <= set(bad.written), "what lay there is no longer whole, or something was left"


def line(group: str, wrong: str, message: str) -> str:
    "One row of the table in the closing summary of the tests"
    message = re.sub(r"toy\.yaml has 1 problem\(s\):\s+(region 'west', )?", "", message)
    short = " ".join(message.removeprefix("error: ").split())
    short = short if len(short) <= 110 else short[:107] + "..."
    return f"{group:<12} {wrong:<44} {short:<110}  earlier results whole: yes"


def nothing(home: Path) -> None:
    "Leave the sound study as it is: the command itself is wrong"


def cut(name: str, share: float) -> Callable[[Path], object]:
    "Keep the first part of a file"

    def spoil(home: Path) -> None:
        content = (home / name).read_bytes()
        (home / name).write_bytes(content[: int(len(content) * share)])

    return spoil


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    "Replace words of a text"

    def spoil(home: Path) -> None:
        text = (home / name).read_text()
        assert old in text
        (home / name).write_text(text.replace(old, new))

    return spoil
