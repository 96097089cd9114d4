"""The fields of forms, and the question before what can't be undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nicegui import ui

from app.dashboard.parts import Tag, button, tag

# What a field holds is all that is sent of its event.
_VALUE = "(e) => emit({value: e.target.value})"
_CHECKED = "(e) => emit({value: e.target.checked})"

Told = Callable[[Any], Any]  # may be async; gets what the field holds


def label(id_: str, text: str) -> None:
    """What belongs to the field with this id."""
    tag("label", text=text).props(f'for="{id_}"')


def field(id_: str, name: str, then: Told, kind: str = "text", allowed: str = "") -> Tag:
    """A field of text with its label; `then` gets the text."""
    label(id_, name)
    made = tag("input").props(f'id="{id_}" type="{kind}" {allowed}')
    return _when_changed(made, then, _VALUE)


def number(id_: str, name: str, allowed: str, then: Told, why: str = "") -> Tag:
    """A field for a number; `then` gets a float, or None when it's empty."""

    def said(text: str) -> Any:
        return then(float(text) if text else None)

    made = field(id_, name, said, "number", allowed)
    if why:
        tag("small", "hint", why)
    return made


def select(values: Mapping[str, str], chosen: str, then: Told) -> Tag:
    """A choice among `values`, each with what is shown for it. Give it an id or a label."""
    made = tag("select")
    with made:
        for value, shown in values.items():
            option = tag("option", text=shown)
            option._props |= {"value": value} | ({"selected": True} if value == chosen else {})
    return _when_changed(made, then, _VALUE)


def box(then: Told, *, ticked: bool = False, kind: str = "checkbox") -> Tag:
    """A box to tick; `then` gets a bool. Give it a label."""
    made = tag("input").props(f'type="{kind}"')
    made._props |= {"checked": True} if ticked else {}
    return _when_changed(made, then, _CHECKED)


def tick(name: str, then: Told, *, ticked: bool = False) -> None:
    """A box to tick with its label beside it."""
    with tag("label", "check"):
        box(then, ticked=ticked)
        tag("span", text=name)


def member(kept: set[str], name: str) -> Callable[[bool], None]:
    """What a box does that stands for `name` among those that are kept."""
    return lambda ticked: (kept.add if ticked else kept.discard)(name)


def enable(made: Tag, whether: bool) -> None:
    """Let a button be pressed, or not."""
    if whether == ("disabled" in made._props):
        if whether:
            del made._props["disabled"]
        else:
            made._props["disabled"] = ""
        made.update()


async def sure(question: str, verb: str) -> bool:
    """Ask before what can't be undone."""
    with ui.dialog() as dialog, tag("div", "card").props(f'role="dialog" aria-label="{verb}?"'):
        tag("p", text=question)
        with tag("div", "actions"):
            button(verb, lambda: dialog.submit(True), "danger")
            button("Keep", lambda: dialog.submit(False), "plain")
    return bool(await dialog)


def _when_changed(made: Tag, then: Told, sent: str) -> Tag:
    made.on("change", lambda event: then(event.args["value"]), js_handler=sent)
    return made
