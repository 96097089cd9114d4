"""The small parts that pages are put together from: plain, semantic HTML."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from nicegui.element import Element

from app.dashboard.paths import within

MARKS = {
    "queued": "○",
    "processing": "◔",
    "running": "◔",
    "pausing": "◔",
    "paused": "‖",
    "packaging": "◕",
    "succeeded": "●",
    "ready": "●",
    "failed": "✕",
    "invalid": "✕",
    "cancelled": "—",
}


class Tag(Element):
    """An HTML element with plain text in it."""

    def say(self, text: str) -> None:
        """Change the text; says nothing to the browser when it's the same."""
        if self._text != text:
            self._text = text
            self.update()

    def attribute(self, name: str, value: str) -> None:
        """Change an attribute; says nothing to the browser when it's the same."""
        if self._props.get(name) != value:
            self._props[name] = value
            self.update()


class Box(Tag):
    """A part of a page that is filled anew when what it shows has changed."""

    def __init__(self) -> None:
        super().__init__("div")
        self._shown: object = None

    def show(self, what: object, fill: Callable[[], None]) -> None:
        """Fill it by `fill` unless it shows `what` already."""
        if self._shown != what:
            self._shown = what
            self.clear()
            with self:
                fill()


def tag(name: str, classes: str = "", text: str | None = None) -> Tag:
    """An element by its name."""
    made = Tag(name)
    if classes:
        made.classes(classes)
    if text is not None:
        made._text = text
    return made


def link(text: str, target: str, classes: str = "") -> Tag:
    """A link to a page of the dashboard."""
    made = tag("a", classes, text)
    made._props["href"] = within(target)
    return made


def badge(status: str) -> Tag:
    """A status, told apart by sign and word, not by colour alone."""
    made = tag("span")
    show_badge(made, status)
    return made


def show_badge(made: Tag, status: str) -> None:
    """Change what a badge says."""
    made.classes(replace=f"badge {status}")
    made.say(f"{MARKS.get(status, '○')} {status}")


def meter(label: str) -> Tag:
    """A bar that `set_meter` fills."""
    made = tag("progress", "meter")
    made.props(f'max="1" value="0" aria-label="{label}"')
    return made


def set_meter(made: Tag, share: float | None) -> None:
    """Fill a bar from 0 to 1."""
    made.attribute("value", f"{share or 0.0:.4f}")


def facts(rows: list[tuple[str, str]]) -> dict[str, Tag]:
    """A list of names with their values; the values, by name, to be changed."""
    found = {}
    with tag("dl", "facts"):
        for name, value in rows:
            with tag("div"):
                tag("dt", text=name)
                found[name] = tag("dd", text=value)
    return found


def table(caption: str, columns: list[str]) -> Tag:
    """A table; gives its body. Add rows with `row`."""
    with tag("div", "scroll").props('tabindex="0" role="region"') as box, tag("table"):
        box._props["aria-label"] = caption
        tag("caption", "hidden", caption)
        with tag("thead"), tag("tr"):
            for name in columns:
                tag("th", text=name).props('scope="col"')
        return tag("tbody")


def row(cells: list[str]) -> Tag:
    """A row of texts; other cells are added within `with`."""
    made = tag("tr")
    with made:
        for cell in cells:
            tag("td", text=cell)
    return made


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago, in words."""
    if moment is None:
        return "—"
    seconds = max(0.0, ((now or datetime.now(UTC)) - moment).total_seconds())
    return f"{span(seconds)} ago"


def span(seconds: float | None) -> str:
    """A time in the two largest units that matter."""
    if seconds is None:
        return "—"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.0f} days"


def size(count: float | None) -> str:
    """Bytes, in decimal units."""
    if count is None:
        return "—"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def count(number: float | None) -> str:
    """A number of things, in thousands and millions."""
    if number is None:
        return "—"
    if number >= 1e6:
        return f"{number / 1e6:.1f} M"
    return f"{number:,.0f}"


def percent(share: float | None) -> str:
    """A share, to a tenth of a percent."""
    return "—" if share is None else f"{100 * share:.1f} %"


def button(text: str, handler: Any, classes: str = "") -> Tag:
    """A button that calls `handler`."""
    made = tag("button", f"button {classes}".strip(), text)
    made.props('type="button"')
    made.on("click", handler, args=[])
    return made
