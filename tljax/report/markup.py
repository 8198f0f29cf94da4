"""Numbers as a reader wants them, and the few pieces of HTML that the page is made of.

Every text that comes from data or settings passes through escape(); functions that take
`html` in a name take markup that has.
"""

import html as _html
from collections.abc import Sequence
from typing import Any

from tljax.report.drawing import arm_style

MINUS = "\N{MINUS SIGN}"
HARD = "\N{NO-BREAK SPACE}"
THIN = "\N{NARROW NO-BREAK SPACE}"


def escape(value: Any) -> str:
    """Any value as text that cannot become markup."""
    return _html.escape(str(value), quote=True)


def percent(share: float, *, digits: int = 1) -> str:
    """0.584 -> '58.4 %'."""
    return f"{100 * share:.{digits}f}{THIN}%"


def points(share: float) -> str:
    """A difference of two shares: 0.061 -> '+6.1', with a true minus sign."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def measured(number: float, unit: str, *, signed: bool = False) -> str:
    """A share in per cent, or in points if signed; another unit with three digits."""
    if unit == "points":
        return points(number) if signed else f"{100 * number:.1f}"
    return f"{number:{'+' if signed else ''}.3f}".replace("-", MINUS)


def p_value(p: float | None) -> str:
    """0.0234 -> '.023', as journals print it; below a thousandth '< .001'."""
    if p is None:
        return "–"
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def p_phrase(p: float, name: str = "p") -> str:
    """'p = .023' or 'p < .001'."""
    text = p_value(p)
    phrase = f"{name} {text}" if text.startswith("<") else f"{name} = {text}"
    return phrase.replace(" ", HARD)


def labels(n: int) -> str:
    """'n = 1,000', kept on one line."""
    return f"n = {n:,}".replace(" ", HARD)


def quantity(value: float | None, unit: str = "") -> str:
    """2_600_000 -> '2.6 M'; with a unit, '41 TFLOP'."""
    if value is None:
        return "–"
    for power, prefix in zip((18, 15, 12, 9, 6, 3), "EPTGMk", strict=True):
        if value >= 0.9995 * 10**power:  # what rounds to 1000 k is 1 M
            return f"{value / 10**power:.3g}{THIN}{prefix}{unit}"
    return f"{value:g}{THIN}{unit}" if unit else f"{value:g}"


def duration(seconds: float | None) -> str:
    """301.2 -> '5 min 1 s'."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}{THIN}h {minutes}{THIN}min"
    return f"{minutes}{THIN}min {rest}{THIN}s"


def listing(parts: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def table(
    head_html: Sequence[str],
    rows_html: Sequence[Sequence[str]],
    *,
    numeric: bool = True,
) -> str:
    """A table whose first column names the rows; numeric ones are right-aligned.

    It scrolls within itself where the screen is narrower.
    """
    head = "".join(f'<th scope="col">{cell}</th>' for cell in head_html)
    head = f"<thead><tr>{head}</tr></thead>" if head_html else ""
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td>{cell}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows_html
    )
    kind = ' class="numbers"' if numeric else ""
    return f'<div class="scroll"><table{kind}>{head}<tbody>{body}</tbody></table></div>'


def wide_figure(svg: str, caption_html: str) -> str:
    """A figure as wide as the page; it scrolls within itself on a phone."""
    return (
        f'<figure><div class="wide scroll">{svg}</div>'
        f"<figcaption>{caption_html}</figcaption></figure>"
    )


def panels(svgs: Sequence[str], caption_html: str, *, legend_html: str = "") -> str:
    """Small figures side by side, one below the other on a phone."""
    drawn = "".join(f"<div>{svg}</div>" for svg in svgs)
    return (
        f'<figure>{legend_html}<div class="panels">{drawn}</div>'
        f"<figcaption>{caption_html}</figcaption></figure>"
    )


def arm_html(arm: str) -> str:
    """The arm's name after a mark in its colour."""
    style = arm_style(arm)
    return f'<span class="arm" style="--arm:{style.color}">{escape(style.label)}</span>'


def legend(arms: Sequence[str], *, splits: bool) -> str:
    """A line naming the arms' colours and, where both splits are drawn, the lines."""
    names = "".join(arm_html(arm) for arm in arms)
    if splits:
        names += '<span class="line solid">validation</span>'
        names += '<span class="line dashed">training</span>'
    return f'<p class="legend">{names}</p>'


def details(title_html: str, html: str) -> str:
    """Folded until asked for; needs no script."""
    return f"<details><summary>{title_html}</summary>{html}</details>"


def section(title: str, *html: str) -> str:
    """A section with its heading; nothing where there is nothing to say."""
    inside = "".join(html)
    return f"<section><h2>{escape(title)}</h2>{inside}</section>" if inside else ""
