"""A finding told in plain words: the claim, what was done, the numbers with their spread, the verdict."""

from collections.abc import Sequence
from textwrap import fill

from .claim import Figure, Judged
from .run import Finding

WIDTH = 100


def story(finding: Finding) -> str:
    """The finding as text for a terminal."""
    claim = finding.claim
    lines = [f"{claim.name}: {claim.title}", "-" * min(WIDTH, len(f"{claim.name}: {claim.title}"))]
    lines += [_paragraph("The claim.", f"{claim.told} ({claim.source})")]
    lines += [_paragraph("What was done.", finding.done), ""]
    lines += _table([("what the claim needs", "measured", "needed", "")] + [_row(each) for each in finding.judged])
    if told := _told(finding):
        lines += ["", *_table(told)]
    lines += ["", _paragraph(f"Verdict: {finding.verdict}.", reasons(finding))]
    return "\n".join(lines)


def reasons(finding: Finding) -> str:
    """Why the verdict is what it is: the parts that fail, or that the spread over the seeds leaves open."""
    failed = [each.part.otherwise for each in finding.judged if each.state == "fails"]
    undecided = [each.part.says for each in finding.judged if each.state == "undecided"]
    told = [f"{sentence[0].upper()}{sentence[1:]}." for sentence in failed]
    told += [
        f"Whether {sentence} is undecided: the interval over the seeds lies across the threshold."
        for sentence in undecided
    ]
    return " ".join(told) or "All that it needs was measured."


def spread(figure: Figure) -> str:
    """Mean +- standard deviation, in three digits."""
    return f"{figure.mean:.3g} +- {figure.sd:.2g}"


def _row(each: Judged) -> tuple[str, str, str, str]:
    mark = {"holds": "yes", "fails": "NO", "undecided": "undecided"}[each.state]
    return each.part.says, spread(each.figure), f"{each.part.relation} {each.part.threshold:g}", mark


def _told(finding: Finding) -> list[tuple[str, str]]:
    """Figures that no part judges but that have words."""
    figures = finding.figures
    return [(words, spread(figures[name])) for name, words in finding.claim.labels.items()]


def _paragraph(head: str, text: str) -> str:
    return fill(f"{head} {text}", WIDTH)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
