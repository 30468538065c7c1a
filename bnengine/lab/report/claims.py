"""The report of `bnengine explain`: a table of verdicts, then each claim with its picture and its numbers."""

from collections.abc import Iterator, Sequence

import numpy as np

from ..explain.claim import Judged, Verdict
from ..explain.drawing import new_figure, png
from ..explain.run import ClaimResult
from ..explain.setting import Setting
from ..explain.story import mean_and_deviation, reasons
from .folder import FIGURES, PAGE, SERIES, as_csv
from .page import Link, Mark, Page, Tone, printed

TONES: dict[Verdict, Tone] = {
    "holds": "yes", "holds within limits": "part", "does not hold": "no", "undecided": "open",
}  # fmt: skip
STATES = {"holds": Mark("yes", "yes"), "fails": Mark("no", "no"), "undecided": Mark("undecided", "open")}


def claims_report(findings: Sequence[ClaimResult], setting: Setting) -> dict[str, str]:
    """Return the files of the report by name. InputError where matplotlib or jinja2 is missing."""
    return {
        PAGE: page(findings, setting).html(),
        FIGURES: as_csv(("claim", "figure", "seed", "value"), _figures(findings)),
        SERIES: as_csv(("claim", "series", "seed", "place", "value"), _series(findings)),
    }


def page(findings: Sequence[ClaimResult], setting: Setting) -> Page:
    """Return the page of the findings."""
    seeds, data = setting.seeds, setting.dataset
    whole = Page(
        "What is true of batch normalization" if len(findings) > 1 else findings[0].claim.title,
        f"Experiments on {len(data):,} rows of {data.name}, each with {len(seeds)} seeds, on {setting.backend.name}. "
        "Every verdict is computed from the figures below: a claim holds if its figures are on one side of a "
        "threshold. If the 95 % confidence interval over the seeds includes the threshold, the claim is undecided. "
        "Means are followed by the standard deviation over the seeds.",
    )
    if len(findings) > 1:
        rows = [(Link(f.claim.title, f"#{f.claim.name}"), _mark(f.verdict), printed(reasons(f))) for f in findings]
        whole.table("the verdicts", ("claim", "verdict", "why"), rows, wide=(0, 2), cards=True)
    for finding in findings:
        _add_claim(whole, finding)
    whole.section("The numbers")
    files = [
        (Link(FIGURES, FIGURES), "every figure of every seed"),
        (Link(SERIES, SERIES), "what the pictures show, seed by seed"),
    ]
    whole.table("files", ("file", "holds"), files)
    return whole


def _add_claim(page: Page, finding: ClaimResult) -> None:
    claim = finding.claim
    page.section(claim.title, claim.name, _mark(finding.verdict))
    page.paragraph(printed(reasons(finding)), "Why.")
    page.paragraph(printed(f"{claim.statement} ({claim.source})"), "The claim.")
    page.paragraph(printed(finding.method), "What was done.")
    page.picture(_picture(finding), f"{claim.title}: {claim.draw.__doc__ or ''}", _picture(finding, stacked=True))
    needs = [_row(each) for each in finding.judged]
    page.table(
        "what the claim needs", ("what the claim needs", "measured", "needed", ""), needs, numbers=(1, 2), cards=True
    )
    figures = finding.figures
    if claim.labels:
        rows = [(words, printed(mean_and_deviation(figures[name]))) for name, words in claim.labels.items()]
        page.table("other figures", ("also measured", "figure"), rows, numbers=(1,))


def _row(each: Judged) -> tuple[str, str, str, Mark]:
    needed = f"{each.part.relation} {each.part.threshold:g}"
    return printed(each.part.says), printed(mean_and_deviation(each.figure)), printed(needed), STATES[each.state]


def _mark(verdict: Verdict) -> Mark:
    return Mark(verdict, TONES[verdict])


def _picture(finding: ClaimResult, *, stacked: bool = False) -> bytes:
    figure = new_figure(stacked)
    finding.claim.draw(figure, finding.outcomes)
    return png(figure)


def _figures(findings: Sequence[ClaimResult]) -> Iterator[tuple[object, ...]]:
    for finding in findings:
        for seed, outcome in zip(finding.seeds, finding.outcomes, strict=True):
            for name, value in outcome.figures.items():
                yield finding.claim.name, name, seed, value


def _series(findings: Sequence[ClaimResult]) -> Iterator[tuple[object, ...]]:
    """A line per number; its place has one index per axis, from 0."""
    for finding in findings:
        for seed, outcome in zip(finding.seeds, finding.outcomes, strict=True):
            for name, values in outcome.series.items():
                for place, value in np.ndenumerate(np.asarray(values, np.float64)):
                    yield finding.claim.name, name, seed, " ".join(map(str, place)), float(value)
