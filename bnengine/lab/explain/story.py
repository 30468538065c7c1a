"""A result as text: the claim, the method, the figures with their spread, the verdict."""

from collections.abc import Iterable, Sequence
from textwrap import fill, indent

from ...metrics.tables import table_text
from .claim import Figure, Judged
from .run import ClaimResult

WIDTH = 100


def story(result: ClaimResult) -> str:
    """The result as text for a terminal."""
    claim = result.claim
    lines = [f"{claim.name}: {claim.title}", "-" * min(WIDTH, len(f"{claim.name}: {claim.title}"))]
    lines += [_paragraph("The claim.", f"{claim.statement} ({claim.source})")]
    lines += [_paragraph("What was done.", result.method), ""]
    lines += [_table(("what the claim needs", "measured", "needed", "holds"), map(_row, result.judged))]
    if others := _other_figures(result):
        lines += ["", _table(("", ""), others)]
    lines += ["", _paragraph(f"Verdict: {result.verdict}.", reasons(result))]
    return "\n".join(lines)


def reasons(result: ClaimResult) -> str:
    """The reasons of the verdict: the parts that fail, or that the spread over the seeds leaves open."""
    failed = [each.part.otherwise for each in result.judged if each.state == "fails"]
    undecided = [each.part.says for each in result.judged if each.state == "undecided"]
    sentences = [f"{sentence[0].upper()}{sentence[1:]}." for sentence in failed]
    sentences += [
        f"Whether {sentence} is undecided: the interval over the seeds contains the threshold."
        for sentence in undecided
    ]
    return " ".join(sentences) or "All parts hold."


def mean_and_deviation(figure: Figure) -> str:
    """Mean +- standard deviation, in three digits."""
    return f"{figure.mean:.3g} +- {figure.sd:.2g}"


def _row(each: Judged) -> tuple[str, str, str, str]:
    mark = {"holds": "yes", "fails": "NO", "undecided": "undecided"}[each.state]
    return each.part.says, mean_and_deviation(each.figure), f"{each.part.relation} {each.part.threshold:g}", mark


def _other_figures(result: ClaimResult) -> list[tuple[str, str]]:
    """Figures without a part, with their labels."""
    figures = result.figures
    return [(words, mean_and_deviation(figures[name])) for name, words in result.claim.labels.items()]


def _paragraph(head: str, text: str) -> str:
    return fill(f"{head} {text}", WIDTH)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return indent(table_text(columns, rows), "  ")
