"""Write the tables of docs/options.md anew, from the models that the service checks orders with.

    python scripts/make_options.py

What stands between the two marks is generated; the rest of the page is written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.api.schemas import JobIn

PAGE = Path(__file__).parents[1] / "docs" / "options.md"
START, END = "<!-- made by `make options` -->\n", "<!-- until here -->\n"
COLUMNS = ("name", "type", "default", "allowed", "")
TYPES = {"integer": "whole number", "number": "number", "boolean": "true, false", "string": "text"}
BOUNDS = {
    "minimum": "from",
    "exclusiveMinimum": "over",
    "maximum": "to",
    "exclusiveMaximum": "to under",
}

Schema = dict[str, Any]


def rewritten(page: str) -> str:
    """The page with its tables as the models have them now."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return before + START + "\n" + "\n".join(tables()) + "\n" + END + after


def tables() -> Iterator[str]:
    """A heading, a sentence and a table for the order itself and for each group of options."""
    order = JobIn.model_json_schema()
    models = order["$defs"]
    yield from section("The order", order, models)
    yield from section("`budget`", models["Budget"], models)
    options = models["DistillOptions"]
    yield from section("`options`", options, models)
    for name, group in options["properties"].items():
        if "$ref" in group:
            yield from section(f"`options.{name}`", model(group, models), models)


def section(title: str, schema: Schema, models: Schema) -> Iterator[str]:
    """One model; what is a group of its own gets a table of its own."""
    yield f"### {title}"
    yield " ".join(schema["description"].split()) + "\n"
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---" * len(COLUMNS) + "|"
    for name, field in schema["properties"].items():
        if "$ref" not in field:
            yield f"| {' | '.join(row(name, field, schema, models))} |"
    yield ""


def row(name: str, field: Schema, schema: Schema, models: Schema) -> tuple[str, ...]:
    """A field: its name, type, default, bounds and meaning."""
    kinds = [model(kind, models) for kind in field.get("anyOf", [field])]
    needed = name in schema.get("required", ())
    default = "needed" if needed else code(field.get("default", {}))
    allowed = [said for kind in kinds if (said := bounds(kind))]
    return (
        f"`{name}`",
        " or ".join(map(kind_of, kinds)),
        default,
        "; ".join(allowed),
        meaning(field),
    )


def model(schema: Schema, models: Schema) -> Schema:
    """What a reference leads to."""
    if "$ref" not in schema:
        return schema
    found: Schema = models[schema["$ref"].rpartition("/")[2]]
    return found


def kind_of(kind: Schema) -> str:
    """The type of a value, in words."""
    if "enum" in kind:
        return "one of"
    if "const" in kind:
        return code(kind["const"])
    if kind["type"] == "array":
        return "list of"
    if kind["type"] == "object":
        names = ", ".join(f"`{name}`" for name in kind.get("properties", ()))
        return f"object of {names}" if names else "object of text"
    return TYPES.get(kind["type"], kind["type"])


def bounds(kind: Schema) -> str:
    """What a value may be."""
    if "enum" in kind:
        return ", ".join(map(code, kind["enum"]))
    if kind.get("type") == "array":
        return bounds(kind["items"])
    if "maxLength" in kind:
        return f"at most {kind['maxLength']} characters"
    if "maxProperties" in kind:
        return f"at most {kind['maxProperties']}"
    said = [f"{word} {kind[name]:,.10g}" for name, word in BOUNDS.items() if name in kind]
    return " ".join(said)


def meaning(field: Schema) -> str:
    """What it does; fails for a field that doesn't say."""
    text: str = field["description"]
    return " ".join(text.split()).replace("|", "\\|")


def code(value: object) -> str:
    """A value as JSON has it."""
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
