"""/students/{id}: how good a student is, against what, what it costs, and how it answers."""

from __future__ import annotations

from functools import partial
from typing import Any

from nicegui import ui

from app.access.scopes import Scope
from app.dashboard.forms import sure
from app.dashboard.frame import page
from app.dashboard.inside import RefusedError
from app.dashboard.parts import (
    ago,
    button,
    count,
    facts,
    link,
    percent,
    row,
    size,
    table,
    tag,
)
from app.dashboard.paths import within
from app.dashboard.pictures import places, thumbnail
from app.dashboard.visit import Visit
from tdmr.wire.students import StudentOut

PICTURES = (
    ("confusion.svg", "Confusion matrix", "Confusion matrix of the held-out images"),
    ("reliability.svg", "Reliability", "Confidence against accuracy, before and after calibration"),
    ("risk_coverage.svg", "Risk and coverage", "Share of errors among the most confident images"),
)
WORST = 12
TRY = """
<label for="picture">Drop an image on the field, or choose one</label>
<input id="picture" type="file" accept="image/*">
<p role="status" class="hint" style="min-height:1.5em">Its probabilities are calibrated.</p>
<img alt="The image that was chosen" hidden style="max-width:9rem;max-height:9rem">
<ul class="bars"></ul>"""


@page("/students/{student_id}", "Student")
async def student_page(visit: Visit, student_id: str) -> None:
    """One student."""
    found = await visit.get(StudentOut, f"/v1/students/{student_id}")
    files = {file.name for file in found.files}
    with tag("section", "card"):
        _head(found)
    with tag("div", "grid"):
        with tag("section", "card"):
            tag("h2", text="Against the baselines")
            _baselines(found)
        if visit.may(Scope.STUDENTS_PREDICT) and "model.onnx" in files:
            with tag("section", "card"):
                tag("h2", text="Try it")
                box = ui.html(TRY, sanitize=False).props('id="try"')
                ask = f"tdmr.predict(document.getElementById('try'), '{found.id}')"
                box.on("change", js_handler=f"() => {ask}")
    with tag("section", "card"):
        tag("h2", text="Formats")
        _formats(found)
    with tag("div", "grid"):
        for name, title, label in PICTURES:
            if name in files:
                with tag("section", "card"):
                    tag("h2", text=title)
                    made = tag("img", "picture")
                    made._props |= {"src": _file(found.id, name), "alt": label, "loading": "lazy"}
    await _worst(visit, found)
    with tag("section", "card"):
        tag("h2", text="Downloads")
        _downloads(found)
    await _card(visit, found)
    if visit.may(Scope.STUDENTS_WRITE):
        with tag("div", "actions"):
            button("Delete the student", partial(_delete, visit, found.id), "danger")


def _head(found: StudentOut) -> None:
    with tag("div", "actions"):
        tag("strong", text=f"{found.architecture} from {found.foundation}")
        link("its job", f"/jobs/{found.job_id}")
        link("its dataset", f"/datasets/{found.dataset_id}")
        if found.partial:
            tag("span", "badge paused", "‖ partial: its training ended early")
        made = tag("a", "button", "Download everything")
        made._props |= {"href": within(found.archive_url), "download": ""}
    evaluated = found.metrics.get("evaluation") or {}
    calibration = evaluated.get("ece_after"), evaluated.get("ece_before")
    facts(
        [
            ("Accuracy", accuracy(found.accuracy, found.interval)),
            ("Parameters", count(found.params)),
            (
                "Calibration error",
                " from ".join(percent(x) for x in calibration if x is not None) or "—",
            ),
            ("Held-out images", count(found.metrics.get("images"))),
            ("Foundation forwards", count((found.metrics.get("foundation") or {}).get("forwards"))),
            ("Made", ago(found.created_at)),
        ]
    )


def accuracy(share: float | None, interval: list[float] | None) -> str:
    """An accuracy with its 95 % interval."""
    if share is None or not interval:
        return percent(share)
    low, high = (100 * bound for bound in interval)
    return f"{100 * share:.1f} % ({low:.1f} to {high:.1f})"


def _baselines(found: StudentOut) -> None:
    rows = [("this student", found.accuracy, found.interval)]
    rows += [
        (name, each.get("accuracy"), each.get("interval")) for name, each in found.baselines.items()
    ]
    with tag("ul", "bars"):
        for name, share, _ in rows:
            with tag("li"):
                tag("span", text="foundation's probe" if name == "probe" else name)
                bar = tag("progress", "meter")
                bar._props |= {"max": "1", "value": f"{share or 0:.4f}", "aria-label": name}
                tag("span", "right", percent(share))
    body = table("Accuracy with its 95 % interval", ["Method", "Accuracy (95 % interval)"])
    with body:
        for name, share, interval in rows:
            row([name, accuracy(share, interval)])


def _formats(found: StudentOut) -> None:
    exports = found.metrics.get("exports") or {}
    formats: dict[str, Any] = exports.get("formats") or {}
    if not formats:
        tag("p", "hint", "It was published as a timm folder alone.")
        return
    body = table("Formats", ["Format", "Published", "Size", "p50", "p95", "Agrees"])
    with body:
        for name, each in formats.items():
            latency = each.get("latency") or {}
            reason = each.get("reason") or (each.get("failure") or {}).get("detail") or "no"
            row(
                [
                    name,
                    "yes" if each.get("published") else str(reason),
                    size(each.get("bytes")),
                    _ms(latency.get("p50_ms")),
                    _ms(latency.get("p95_ms")),
                    percent(each.get("agreement")),
                ]
            )
    machine = exports.get("machine") or {}
    if machine:
        said = f"One image at a time on one thread of {machine.get('cpu')}."
        tag("p", "hint", said)


def _ms(value: float | None) -> str:
    return "—" if value is None else f"{value:.2f} ms"


async def _worst(visit: Visit, found: StudentOut) -> None:
    """The mistakes it is surest of, with their pictures where the dataset is still there."""
    try:
        path = f"/v1/students/{found.id}/files/evaluation.json"
        evaluation = await visit.inside.ask(visit.who, "GET", path, {})
    except RefusedError:
        return
    worst = evaluation.get("worst", [])[:WORST]
    with tag("section", "card"):
        tag("h2", text="Worst mistakes")
        if not worst:
            tag("p", "hint", "It made none on the held-out images.")
            return
        sources = {each["source"] for each in worst}
        pictures = await places(visit, found.dataset_id, sources, evaluation.get("split"))
        with tag("div", "wall"):
            for each in worst:
                sure = percent(each["probability"])
                said = f"{each['true']}, taken for {each['predicted']} ({sure})"
                url = pictures.get(each["source"])
                if url is not None:
                    thumbnail(url, said, each["source"])
                else:
                    tag("p", text=f"{each['source']}: {said}")


def _downloads(found: StudentOut) -> None:
    body = table("Files", ["File", "Size", "SHA-256"])
    with body:
        for file in found.files:
            with row([]):
                with tag("td"):
                    made = tag("a", text=file.name)
                    made._props |= {"href": _file(found.id, file.name), "download": file.name}
                tag("td", text=size(file.bytes))
                tag("td", "mono", file.sha256)


async def _card(visit: Visit, found: StudentOut) -> None:
    """The model card, as it is in the bundle."""
    if not any(file.name == "README.md" for file in found.files):
        return
    text = await visit.inside.text(visit.who, f"/v1/students/{found.id}/files/README.md")
    with tag("details", "card"):
        tag("summary", text="Model card")
        ui.markdown(text.partition("\n---\n")[2] or text)


def _file(student_id: str, name: str) -> str:
    return within(f"/v1/students/{student_id}/files/{name}")


async def _delete(visit: Visit, student_id: str) -> None:
    if await sure(f"Delete the student? {visit.undo}", "Delete"):
        done = await visit.attempt("DELETE", f"/v1/students/{student_id}", "Deleted.")
        if done is not None:
            ui.navigate.to("/students")
