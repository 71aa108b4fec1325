"""Reports without people's ids: other names for people and recordings, everywhere.

Tables and attributes are renamed where they are read, so that figures show the new names too.
Texts that files brought along, such as warnings and errors, are searched for the old ones.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from braindecode_pipe.report.document import Page
from braindecode_pipe.splits import StudyPlan, content_hash

_PERSON = r"(?:sub(?:ject)?s?|participants?|persons?|people)"


class Aliases:
    """Other names for the people and recordings of a plan.

    People are called P1, P2, ... in the order of a hash of the plan and their id (Px1, ... where an
    id begins with P): who has the plan can find out who is who, who has the list of people only
    cannot. Recordings are counted per
    person, in the order of the plan: sessions and tasks in their names are hidden as well.

    Parameters
    ----------
    plan : StudyPlan
    key : what the order hangs on besides ids, such as the hash of the plan's content
    """

    def __init__(self, plan: StudyPlan, key: str) -> None:
        table = plan.recordings
        people = sorted({str(s) for s in table["subject"]} - {"", "all"})
        people.sort(key=lambda person: content_hash([key, person]))
        letter = "P"
        while any(person.upper().startswith(letter.upper()) for person in people):
            letter += "x"
        self.people = {person: f"{letter}{i + 1}" for i, person in enumerate(people)}
        self.recordings: dict[str, str] = {}
        count: dict[str, int] = {}
        for name, subject in zip(table["recording"].astype(str), table["subject"].astype(str)):
            count[subject] = count.get(subject, 0) + 1
            person = self.people.get(subject, subject)
            self.recordings[name] = f"sub-{person}_rec-{count[subject]:02d}"
        files = {str(p): self.recordings[str(r)]
                 for p, r in zip(table.get("path", ()), table["recording"]) if str(p)}  # fmt: skip
        whole = sorted({**files, **self.recordings}, key=len, reverse=True)
        self._names = {**files, **self.recordings}
        self._whole = re.compile("|".join(map(re.escape, whole)) or r"(?!)")
        ids = "|".join(re.escape(p) for p in sorted(self.people, key=len, reverse=True)) or r"(?!)"
        end = r"(?![A-Za-z0-9])"
        self._named = re.compile(rf"\b({_PERSON}[-_ =:]*[\"'“]?)({ids}){end}", re.IGNORECASE)
        # Ids such as "1" or "P3" are words of their own in any text; longer ones are a person.
        telling = [p for p in self.people if len(p) > 2 and re.search(r"[^\W\d_]", p)]
        alone = "|".join(re.escape(p) for p in sorted(telling, key=len, reverse=True)) or r"(?!)"
        self._alone = re.compile(rf"(?<![A-Za-z0-9])({alone}){end}")
        self.folds = {
            fold: self.fold(fold, subject)
            for fold, subject in zip(plan.folds["fold"].astype(str),
                                     plan.folds["subject"].astype(str))
        }  # fmt: skip

    def fold(self, fold: str, subject: str) -> str:
        """Name of a fold, which may name a recording, or begin with a person."""
        if fold in self.recordings:
            return self.recordings[fold]
        if fold in self.people:
            return self.people[fold]
        if subject in self.people:
            first = re.compile(rf"(?<![A-Za-z0-9]){re.escape(subject)}(?![A-Za-z0-9])")
            fold = first.sub(self.people[subject], fold, count=1)
        return self.text(fold)

    def person(self, value: Any) -> Any:
        """The other name of one id, or of each of a list."""
        if isinstance(value, list | tuple):
            return [self.person(v) for v in value]
        return self.people.get(str(value), value)

    def text(self, text: str) -> str:
        """A text in which no recording and no person goes by the old name."""
        text = self._whole.sub(lambda m: self._names[m[0]], text)
        text = self._named.sub(lambda m: m[1] + self.people[_same(m[2], self.people)], text)
        return self._alone.sub(lambda m: self.people[m[1]], text)

    def value(self, value: Any, key: str = "") -> Any:
        """Attributes or records: by what they are called, texts by what they hold."""
        if key in ("subject", "subjects"):
            return self.person(value)
        if key == "fold" and str(value) in self.folds:
            return self.folds[str(value)]
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self._key(k): self.value(v, str(k)) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.value(v) for v in value)
        return value

    def _key(self, key: Any) -> Any:
        text = str(key)
        return self.folds.get(text) or (self.text(text) if isinstance(key, str) else key)

    def table(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table with other names in its columns subject, recording, fold, event and path."""
        found = {}
        for name in table.columns:
            if name == "subject":
                found[name] = [self.people.get(str(v), str(v)) for v in table[name]]
            elif name == "fold":
                found[name] = [self.folds.get(str(v), v) for v in table[name]]
            elif name in ("recording", "event", "path", "exclude_reason", "problem"):
                found[name] = [self._short(str(v)) for v in table[name]]
        return table.assign(**found)

    def _short(self, text: str) -> str:
        """:meth:`text`, sooner for a recording and for an event, which begins with its own."""
        name, colon, number = text.rpartition(":")
        if name in self.recordings:
            return self.recordings[name] + colon + number
        return self._names.get(text) or self.text(text)

    def plan(self, plan: StudyPlan) -> StudyPlan:
        """The plan under other names; its stimuli stay, whose files are read."""
        tables = {name: self.table(getattr(plan, name)) for name in
                  ("recordings", "events", "folds")}  # fmt: skip
        return dataclasses.replace(plan, **tables)

    def page(self, page: Page) -> Page:
        """Every text of a page once more, for what files brought along."""
        return _walk(page, self.text)


def _same(found: str, people: Mapping[str, str]) -> str:
    return found if found in people else next(p for p in people if p.lower() == found.lower())


def _walk(part: Any, change: Any) -> Any:
    if isinstance(part, str):
        return change(part)
    if isinstance(part, tuple):
        return tuple(_walk(p, change) for p in part)
    if dataclasses.is_dataclass(part):
        return dataclasses.replace(
            part, **{f.name: _walk(getattr(part, f.name), change) for f in dataclasses.fields(part)}
        )
    return part
