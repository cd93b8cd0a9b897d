"""Reads a Dockerfile far enough to ask what each stage does: stages, instructions, continuation lines, JSON forms."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Instruction:
    """``flags`` are leading ``--name=value`` words; ``text`` is the rest on one line."""

    word: str
    flags: tuple[str, ...]
    text: str

    @property
    def listed(self) -> list[str]:
        """The JSON (exec) form. Raises ValueError where the shell form is used."""
        found = json.loads(self.text)
        if not isinstance(found, list):
            raise ValueError(f"{self.word} is not in exec form: {self.text}")
        return [str(part) for part in found]


@dataclass
class Stage:
    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, word: str) -> list[Instruction]:
        return [i for i in self.instructions if i.word == word]


def instructions(text: str) -> list[Instruction]:
    """Every instruction in order; comments and empty lines between continued lines are dropped, as builders do."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines) + "\n")
    found = []
    for line in joined.splitlines():
        word, _, rest = line.strip().partition(" ")
        flags = []
        while match := re.match(r"(--\S+)\s+", rest):
            flags.append(match[1])
            rest = rest[match.end() :]
        found.append(Instruction(word.upper(), tuple(flags), rest.strip()))
    return found


def stages(text: str) -> tuple[list[Instruction], dict[str, Stage]]:
    """(instructions before the first FROM, stages by name in order). An unnamed stage is called by its number."""
    before: list[Instruction] = []
    found: dict[str, Stage] = {}
    for instruction in instructions(text):
        if instruction.word == "FROM":
            base, _, name = re.sub(r"\s+[Aa][Ss]\s+", " as ", instruction.text).partition(" as ")
            stage = Stage(name or str(len(found)), base)
            if stage.name in found:
                raise ValueError(f"two stages are called {stage.name}")
            found[stage.name] = stage
        elif found:
            list(found.values())[-1].instructions.append(instruction)
        else:
            before.append(instruction)
    return before, found


def shipped(found: dict[str, Stage], target: str) -> list[Instruction]:
    """The instructions whose layers end up in the image ``target``: its own and those of the stages it is based on."""
    stage = found[target]
    return [*(shipped(found, stage.base) if stage.base in found else []), *stage.instructions]


def environment(parts: list[Instruction]) -> dict[str, str]:
    """The ENV of these instructions, later ones winning."""
    return {k: v.strip('"') for i in parts if i.word == "ENV" for k, v in re.findall(r'(\w+)=("[^"]*"|\S+)', i.text)}
