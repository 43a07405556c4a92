"""Galaxy Zoo decision trees: which questions volunteers are asked, in which order, and after which answers."""
from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from itertools import accumulate
from pathlib import Path

import yaml

from zoobook import arguments


@dataclass(frozen=True)
class Answer:
    """One possible answer to a question.

    Attributes:
        name: what the volunteer clicks, such as ``"featured-or-disk"``.
        column: the catalogue column that counts its votes, ``{question}{suffix}_{answer}``.
    """

    name: str
    column: str


@dataclass(frozen=True)
class Question:
    """One question of a decision tree.

    Attributes:
        name: question with the campaign's suffix, such as ``"smooth-or-featured-dr5"``.
        asks: what it asks, in words.
        answers: the possible answers, in column order.
        asked_after: label columns of the answers that lead here; empty if everybody is asked.
    """

    name: str
    asks: str
    answers: tuple[Answer, ...]
    asked_after: tuple[str, ...]


class DecisionTree:
    """A campaign's questions and how they follow one another.

    Build one with :func:`load`, :meth:`from_yaml` or :meth:`from_dict`. A question may follow several answers
    (``merging`` is asked after *smooth* and after *featured*), and an answer may lead to several questions.

    Args:
        name: name of the tree.
        questions: its questions, in label-column order.
        suffix: campaign suffix of the columns, such as ``"-dr5"``.
        campaign: the campaign in words.

    >>> tree = load("decals_dr5")
    >>> tree
    DecisionTree('decals_dr5', 10 questions, 34 answers)
    >>> tree.question("bar").asked_after
    ('disk-edge-on-dr5_no',)
    """

    def __init__(self, name: str, questions: list[Question], suffix: str = "", campaign: str = ""):
        self.name, self.suffix, self.campaign = name, suffix, campaign
        self.questions = tuple(questions)
        self._check()

    def __repr__(self) -> str:
        return f"DecisionTree({self.name!r}, {len(self.questions)} questions, {len(self.label_columns)} answers)"

    def __eq__(self, other) -> bool:
        return isinstance(other, DecisionTree) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.name, tuple(self.label_columns)))

    @cached_property
    def answers(self) -> tuple[Answer, ...]:
        """All answers of all questions, in column order."""
        return tuple(answer for question in self.questions for answer in question.answers)

    @cached_property
    def label_columns(self) -> list[str]:
        """Names of the vote-count columns, in the order that every array of votes or concentrations has."""
        return [answer.column for answer in self.answers]

    @cached_property
    def short_names(self) -> dict[str, tuple[str, str]]:
        """For each label column, the question without the campaign's suffix, and the answer."""
        return {a.column: (q.name.removesuffix(self.suffix), a.name) for q in self.questions for a in q.answers}

    @cached_property
    def index_groups(self) -> list[tuple[int, int]]:
        """For each question, where its answers start and stop (half-open) among the label columns."""
        stops = list(accumulate(len(question.answers) for question in self.questions))
        return list(zip([0, *stops[:-1]], stops, strict=True))

    @cached_property
    def followers(self) -> dict[str, tuple[str, ...]]:
        """For each label column, the questions that its answer leads to."""
        return {
            column: tuple(q.name for q in self.questions if column in q.asked_after) for column in self.label_columns
        }

    @cached_property
    def parents(self) -> list[list[tuple[int, int]]]:
        """For each question, the answers that lead to it, as positions of their questions and of their columns."""
        question_of = [i for i, question in enumerate(self.questions) for _ in question.answers]
        place = {column: (question_of[a], a) for a, column in enumerate(self.label_columns)}
        return [[place[column] for column in question.asked_after] for question in self.questions]

    @cached_property
    def walking_order(self) -> list[int]:
        """Positions of the questions such that every question comes after those that lead to it."""
        waiting, order = dict(enumerate(self.parents)), []
        while waiting:
            ready = [i for i, ways in waiting.items() if all(question in order for question, _ in ways)]
            if not ready:
                raise ValueError(
                    f"decision tree {self.name!r}: the questions {[self.questions[i].name for i in waiting]} lead to "
                    "one another in a circle. Each question must be reachable from one that is always asked (no "
                    "`asked_after`)."
                )
            order += ready
            for i in ready:
                del waiting[i]
        return order

    def question(self, name: str) -> Question:
        """The question of that name, with or without the campaign's suffix; a ValueError where there is none."""
        for question in self.questions:
            if question.name in (name, f"{name}{self.suffix}"):
                return question
        raise ValueError(_unknown(f"tree {self.name!r} has no question", name, [q.name for q in self.questions]))

    def shared_with(self, other: DecisionTree) -> tuple[list[int], list[int]]:
        """Where two trees ask the same: questions of one name, whatever the campaign, that offer the same answers.

        Returns:
            tuple: positions of these answers among the label columns of this tree, and of the other.
        """
        here, there = (
            {
                q.name.removesuffix(tree.suffix): {a.name: tree.label_columns.index(a.column) for a in q.answers}
                for q in tree.questions
            }
            for tree in (self, other)
        )
        same = [name for name, answers in here.items() if answers.keys() == there.get(name, {}).keys()]
        pairs = [(here[name][answer], there[name][answer]) for name in same for answer in here[name]]
        return [mine for mine, _ in pairs], [theirs for _, theirs in pairs]

    @staticmethod
    def total_column(question: str) -> str:
        """Name of the column that holds how many volunteers answered a question (``{question}_total-votes``)."""
        return f"{question}_total-votes"

    def to_dict(self) -> dict:
        """The tree as plain lists, dictionaries and strings: what :meth:`from_dict` reads."""
        return {
            "name": self.name,
            "campaign": self.campaign,
            "suffix": self.suffix,
            "questions": [
                {
                    "name": q.name.removesuffix(self.suffix),
                    "asks": q.asks,
                    "answers": [answer.name for answer in q.answers],
                    "asked_after": ["_".join(self.short_names[column]) for column in q.asked_after],
                }
                for q in self.questions
            ],
        }

    @classmethod
    def from_dict(cls, spec: dict) -> DecisionTree:
        """Build a tree from plain data.

        Args:
            spec: ``name``, optional ``suffix`` and ``campaign``, and ``questions``: a list with, for each question,
                ``name``, ``answers`` (list of text), optional ``asks`` and optional ``asked_after`` (list of
                ``{question}_{answer}`` without suffix; absent = always asked).
        """
        if not isinstance(spec, dict):
            raise ValueError(f"a decision tree is described by a dictionary with its `questions`, not by {spec!r}")
        name, suffix = spec.get("name"), spec.get("suffix") or ""
        if not name or not isinstance(name, str) or not isinstance(suffix, str):
            raise ValueError(f"a decision tree needs a `name` and may have a `suffix`, both text: {name!r}, {suffix!r}")
        if not isinstance(spec.get("questions"), list) or not spec["questions"]:
            raise ValueError(f"decision tree {name!r} needs `questions`: a list with at least one question")
        _refuse_others(f"decision tree {name!r}", spec, ("name", "campaign", "suffix", "questions"), misspelt_only=True)
        parsed = []
        for number, item in enumerate(spec["questions"], 1):
            where = f"decision tree {name!r}, question {number}"
            if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not item["name"].strip():
                raise ValueError(f"{where}: each question needs a `name` and a list of `answers`")
            _refuse_others(f"{where} ({item['name']})", item, ("name", "asks", "answers", "asked_after"))
            answers, after = item.get("answers"), item.get("asked_after") or []
            for key, value in (("answers", answers), ("asked_after", after)):
                if not isinstance(value, list) or not all(isinstance(text, str) and text.strip() for text in value):
                    raise ValueError(f"{where} ({item['name']}): `{key}` must be a list of text, not {value!r}")
            answers, after = ([text.strip() for text in texts] for texts in (answers, after))
            parsed.append((item["name"].strip(), item.get("asks") or "", answers, after))
        columns = {f"{q}_{answer}": f"{q}{suffix}_{answer}" for q, _, answers, _ in parsed for answer in answers}
        questions = []
        for q, asks, answers, after in parsed:
            for parent in after:
                if parent not in columns:
                    what = f"decision tree {name!r}: question {q!r} is asked after an unknown answer"
                    raise ValueError(_unknown(what, parent, list(columns)))
            made = tuple(Answer(answer, columns[f"{q}_{answer}"]) for answer in answers)
            leading = dict.fromkeys(columns[parent] for parent in after)
            questions.append(Question(q + suffix, asks, made, tuple(leading)))
        return cls(name, questions, suffix, spec.get("campaign") or "")

    @classmethod
    def from_yaml(cls, path: str | Path) -> DecisionTree:
        """Read one's own tree from a YAML file with the entries of :meth:`from_dict`.

        All values are read as text, so ``yes``, ``no`` and ``1`` need no quotes.
        """
        path = arguments.path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no decision tree at {path}")
        try:
            spec = yaml.load(path.read_text("utf8"), Loader=_Loader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not valid YAML: {error}") from None
        except RecursionError:
            raise ValueError(f"{path} is no decision tree: its entries are nested too deeply") from None
        if not isinstance(spec, dict):
            raise ValueError(f"{path} must hold `questions:`")
        try:
            return cls.from_dict({"name": path.stem, **spec})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def to_mermaid(self) -> str:
        """The tree as a Mermaid flow chart, which many Markdown viewers draw."""
        lines = ["flowchart TD"]
        lines += [f'    q{i}["{q.name.removesuffix(self.suffix)}"]' for i, q in enumerate(self.questions)]
        for i, ways in enumerate(self.parents):
            lines += [f'    q{question} -- "{self.answers[answer].name}" --> q{i}' for question, answer in ways]
        return "\n".join(lines)

    def _check(self) -> None:
        where = f"decision tree {self.name!r}"
        if not self.questions or not all(isinstance(question, Question) for question in self.questions):
            raise ValueError(f"{where} needs at least one Question; from_dict makes a tree of dictionaries")
        seen: dict[str, str] = {}
        for number, question in enumerate(self.questions):
            if question.name in {q.name for q in self.questions[:number]}:
                raise ValueError(f"{where}: the question {question.name!r} occurs twice")
            if len(question.answers) < 2:
                raise ValueError(f"{where}: question {question.name!r} needs at least two answers")
            for answer in question.answers:
                if answer.column in seen:
                    raise ValueError(
                        f"{where}: the column {answer.column!r} is made twice, by questions {seen[answer.column]!r} "
                        f"and {question.name!r}. Rename a question or an answer."
                    )
                seen[answer.column] = question.name
        made = {self.total_column(question.name) for question in self.questions} | {"id_str", "file_loc"}
        made |= {f"{question.name}_proportion_volunteers_asked" for question in self.questions}
        made |= {f"{column}_{what}" for column in seen for what in ("fraction", "concentration", "oracle", "debiased")}
        for column in sorted(made & set(seen)):
            raise ValueError(f"{where}: the column {column!r}, of an answer to {seen[column]!r}, would be named like "
                             "another one of tables. Rename the question or the answer.")  # fmt: skip
        questions = [(q.name, q.name.removesuffix(self.suffix)) for q in self.questions]
        answers = [(column, "_".join(parts)) for column, parts in self.short_names.items()]
        for what, pairs in (("question", questions), ("answer", answers)):
            called = [name for full, short in pairs for name in {full, short}]
            twice = next((name for name in called if called.count(name) > 1), None)
            if twice:
                raise ValueError(f"{where}: {twice!r} would name two {what}s, with the suffix {self.suffix!r} or "
                                 "without it. Rename one of them.")  # fmt: skip
        _ = self.walking_order  # raises where the questions lead round in a circle


def names() -> list[str]:
    """Names of the trees that come with zoobook."""
    return list(_library())


def check(tree: object, what: str = "the tree must be") -> None:
    """Raise a ``ValueError``, which says ``what``, for anything in place of a decision tree, such as its name."""
    if not isinstance(tree, DecisionTree):
        known = isinstance(tree, str) and tree in _library()
        raise ValueError(f"{what} a DecisionTree, not {repr(tree):.60}; zoobook.trees.load("
                         f"{tree if known else 'decals_dr5'!r}) gives one")  # fmt: skip


def load(name: str) -> DecisionTree:
    """Load one of the Galaxy Zoo trees, such as ``"decals_dr5"``; a ValueError where :func:`names` has no such name."""
    library = _library()
    if not isinstance(name, str) or name not in library:
        raise ValueError(_unknown("no decision tree is called", name, list(library)))
    spec = dict(library[name])
    if "like" in spec:
        spec["questions"] = library[spec.pop("like")]["questions"]
    return DecisionTree.from_dict({"name": name, **spec})


@cache
def _library() -> dict:
    return yaml.load(files("zoobook").joinpath("trees.yaml").read_text("utf8"), Loader=yaml.BaseLoader)


class _Loader(yaml.BaseLoader):
    """All values are text, but null, which is none; an entry that occurs twice is refused: the last one would count."""

    def construct_mapping(self, node, deep=False):
        """The entries of one level."""
        keys = [key for key, _ in node.value]
        for number, key in enumerate(keys):
            if key.value in [other.value for other in keys[:number]]:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} occurs twice", key.start_mark)
        node.value = [(key, value) for key, value in node.value
                      if not (value.value in ("~", "null", "Null", "NULL") and value.style is None)]  # fmt: skip
        return super().construct_mapping(node, deep)


def _refuse_others(where: str, spec: dict, known: tuple[str, ...], misspelt_only: bool = False) -> None:
    """Refuse entries that mean nothing, or of them those that seem misspelt: a file may hold notes of its own."""
    for entry in sorted(set(spec) - set(known), key=str):
        close = difflib.get_close_matches(str(entry), known, cutoff=0.75)
        if close or not misspelt_only:
            meant = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{where}: unknown entry {entry!r}.{meant}")


def _unknown(what: str, name: str, known: list[str]) -> str:
    return f"{what} {name!r}." + (arguments.did_you_mean(name, known) or f" Known: {', '.join(known)}.")
