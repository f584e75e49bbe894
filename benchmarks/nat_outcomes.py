"""What the NAT matrix found: one outcome per attempt, kept in a file of JSON lines, and what is made of all of them."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from benchmarks.framework import Figures

__all__ = ["KINDS", "Attempt", "Matrix", "Outcome", "can_meet", "need", "read_results"]

KINDS = ("open", "full_cone", "restricted", "port_restricted", "linux", "symmetric", "udp_blocked")
WAYS = {"direct": "#7bc77e", "ICE": "#7ba7d9", "relayed": "#e8b960", "unknown": "#b8b8d8", "failed": "#d97b7b"}
"""How two met, best first, and its colour in the picture."""


@attrs.frozen
class Attempt:
    """Who calls whom, from behind what, over which links."""

    contender: str
    caller: str
    callee: str
    turn: bool
    loss: float
    """Probability of losing a packet on each link, each way."""
    delay_ms: float
    """Of each link, one way: a packet to the other machine crosses two."""


@attrs.frozen
class Outcome:
    """What became of an attempt; times are in seconds.

    `seconds` is the time from the resolved record to the connection, None if they did not meet: `path` then says
    why. `resolve` is the time before, `warm` the time of a second connection, `not_again` why there was none, `gave_up`
    when the failure was told.
    `busy` is the part of the machine's processors that was in use meanwhile.
    """

    path: str
    seconds: float | None = None
    resolve: float | None = None
    warm: float | None = None
    gave_up: float | None = None
    not_again: str = ""
    busy: float = 0.0

    @property
    def way(self) -> str:
        """The first word of the path: direct, ICE, relayed, unknown, or failed."""
        return "failed" if self.seconds is None else self.path.split()[0]


def can_meet(caller: str, callee: str) -> bool:
    """Whether two kinds of NAT let their hosts meet without a relay (the table of the lab)."""
    pair = {caller, callee}
    if "udp_blocked" in pair:
        return False
    return not ("symmetric" in pair and (len(pair) == 1 or pair & {"port_restricted", "linux"}))


def need(caller: str, callee: str) -> str:
    """What a pair needs in order to meet: a dial, ICE or a punch ("ICE"), or a relay."""
    if not can_meet(caller, callee):
        return "relay"
    return "dial" if callee in ("open", "full_cone") else "ICE"


def read_results(path: Path) -> Iterator[tuple[Attempt, Outcome]]:
    """What an earlier run wrote; its last line may have been cut."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        yield Attempt(**found["attempt"]), Outcome(**found["outcome"])


@attrs.define
class Matrix:
    """All outcomes of a run."""

    results: Path | None = None
    """Where each outcome is written as it comes; outcomes that already stand there count."""
    outcomes: dict[Attempt, list[Outcome]] = attrs.field(factory=lambda: defaultdict(list))

    def __attrs_post_init__(self) -> None:
        if self.results is not None:
            for attempt, outcome in read_results(self.results):
                self.outcomes[attempt].append(outcome)

    def missing(self, attempts: Sequence[Attempt], runs: int) -> list[Attempt]:
        """What is left to do for `runs` outcomes of each: round after round, so that a cut run has all of them."""
        have = {attempt: len(self.outcomes[attempt]) for attempt in attempts}
        return [attempt for number in range(runs) for attempt in attempts if number >= have[attempt]]

    def add(self, attempt: Attempt, outcome: Outcome) -> None:
        """Keep one more."""
        self.outcomes[attempt].append(outcome)
        if self.results is not None:
            with self.results.open("a") as file:
                file.write(json.dumps({"attempt": attrs.asdict(attempt), "outcome": attrs.asdict(outcome)}) + "\n")

    def of(self, attempts: Iterable[Attempt]) -> Matrix:
        """Only what belongs to these attempts."""
        return Matrix(outcomes={attempt: self.outcomes[attempt] for attempt in attempts if self.outcomes[attempt]})

    def figures(self) -> Figures:
        """Medians over all pairs by what they need in order to meet, and of each pair."""
        every = [outcome for found in self.outcomes.values() for outcome in found]
        figures: dict[str, float] = {}
        _put_median(figures, "connect_s", (each.seconds for each in every))
        for what in ("dial", "ICE", "relay"):
            pairs = (found for pair, found in self.outcomes.items() if need(pair.caller, pair.callee) == what)
            _put_median(figures, f"{what.lower()}_s", (outcome.seconds for found in pairs for outcome in found))
        _put_median(figures, "warm_s", (each.warm for each in every))
        _put_median(figures, "resolve_s", (each.resolve for each in every))
        _put_median(figures, "giving_up_s", (each.gave_up for each in every))
        for attempt, found in self.outcomes.items():
            _put_median(figures, f"{attempt.caller}_to_{attempt.callee}_s", (each.seconds for each in found))
        return figures

    def notes(self) -> dict[str, object]:
        """How often each pair met and how, and why not; first what is otherwise than the NATs allow."""
        notes: dict[str, object] = {}
        for contender, mine in self._by_contender().items():
            every = [outcome for found in mine.values() for outcome in found]
            met = sum(outcome.seconds is not None for outcome in every)
            busy = statistics.mean(outcome.busy for outcome in every)
            notes[contender] = f"{met} of {len(every)} met; {busy:.0%} of the processors in use"
            notes[f"{contender}, pairs that can meet without a relay"] = _ways(
                outcome
                for attempt, found in mine.items()
                if can_meet(attempt.caller, attempt.callee)
                for outcome in found
            )
            notes[f"{contender}, the other pairs"] = _ways(
                outcome
                for attempt, found in mine.items()
                if not can_meet(attempt.caller, attempt.callee)
                for outcome in found
            )
            for attempt, found in mine.items():
                reasons = dict.fromkeys(outcome.path for outcome in found if outcome.seconds is None)
                reasons |= dict.fromkeys(f"not again: {each.not_again}" for each in found if each.not_again)
                text = "; ".join([_ways(found), *reasons])
                notes[f"{contender} {attempt.caller} to {attempt.callee}"] = text
        return notes

    def _by_contender(self) -> dict[str, dict[Attempt, list[Outcome]]]:
        sorted_out: dict[str, dict[Attempt, list[Outcome]]] = defaultdict(dict)
        for attempt, found in self.outcomes.items():
            if found:
                sorted_out[attempt.contender][attempt] = found
        return sorted_out

    def as_svg(self) -> str:
        """A picture for each contender, coloured by the worst way that a pair met in."""
        parts: list[str] = []
        pictures = self._by_contender()
        for number, (contender, mine) in enumerate(pictures.items()):
            table = {(attempt.caller, attempt.callee): found for attempt, found in mine.items()}
            parts.append(f'<g transform="translate(0 {340 * number})">{_picture(contender, table)}</g>')
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="745" height="{340 * len(pictures)}" '
            'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>'
            f"{''.join(parts)}</svg>\n"
        )


def _ways(outcomes: Iterable[Outcome]) -> str:
    counts = Counter(outcome.way for outcome in outcomes)
    return ", ".join(f"{counts[way]} {way}" for way in WAYS if counts[way]) or "none"


def _picture(title: str, table: Mapping[tuple[str, str], Sequence[Outcome]]) -> str:
    cells = [_text(5, 20, f"{title}: rows call columns; median time to connect")]
    for number, (way, colour) in enumerate(WAYS.items()):
        cells.append(f'<rect x="{345 + 70 * number}" y="10" width="12" height="12" fill="{colour}"/>')
        cells.append(_text(360 + 70 * number, 20, way))
    for row, caller in enumerate(KINDS):
        cells.append(_text(5, 75 + 40 * row, caller))
        cells.append(_text(122 + 88 * row, 42, caller))
        for column, callee in enumerate(KINDS):
            if found := table.get((caller, callee)):
                x, y = 120 + 88 * column, 50 + 40 * row
                seconds = [outcome.seconds for outcome in found if outcome.seconds is not None]
                label = f"{statistics.median(seconds):.2f} s" if seconds else "-"
                worst = max((outcome.way for outcome in found), key=list(WAYS).index)
                cells.append(f'<rect x="{x}" y="{y}" width="86" height="38" fill="{WAYS[worst]}"/>')
                cells.append(_text(x + 12, y + 25, label))
    return "".join(cells)


def _text(x: int, y: int, text: str) -> str:
    return f'<text x="{x}" y="{y}">{text}</text>'


def _put_median(figures: dict[str, float], name: str, values: Iterable[float | None]) -> None:
    known = [value for value in values if value is not None]
    if known:
        figures[name] = statistics.median(known)
