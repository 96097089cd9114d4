"""/v1/students/{id}/predict: what images show, by a student's own ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Query, Request
from starlette.concurrency import run_in_threadpool

from app import metrics
from app.access.limits import Cost
from app.access.scopes import Scope
from app.api import body, forms
from app.api.core import CallerDep, Core, CoreDep
from app.api.guard import fails, needs, router
from app.errors import (
    OF_STORAGE,
    BadImagesError,
    BusyError,
    DamagedFileError,
    EmptyBodyError,
    ErrorItem,
    GoneError,
    NoOnnxError,
    PredictionTimeoutError,
    RequestTimeoutError,
    TooLargeError,
    UnsupportedMediaTypeError,
)
from app.settings import Settings
from app.students import service, sessions
from app.students.service import StoredFile
from app.students.sessions import Stop
from tdmr.wire.students import ClassProbability, PredictionOut, PredictionsOut

if TYPE_CHECKING:
    from app.students.network import Network

routes = router()

FORM, FIELD = "multipart/form-data", "image"
IMAGES = ("image/jpeg", "image/png", "image/webp")
Top = Annotated[int, Query(ge=1, le=1000, description="So many classes of each image.")]
_BINARY = {"type": "string", "format": "binary"}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One image as the body, or several as a form whose fields are all called "
        f"`{FIELD}`. The bytes decide whether they are JPEG, PNG or WebP.",
        "content": {
            **{kind: {"schema": _BINARY} for kind in IMAGES},
            FORM: {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "array", "items": _BINARY, "minItems": 1}},
                    "additionalProperties": False,
                }
            },
        },
    }
}


@dataclass(frozen=True)
class _Order:
    """What is to be classified, and by which file."""

    core: Core
    file: StoredFile
    images: list[bytes]
    top: int


@routes.post("/students/{student_id}/predict", openapi_extra=_BODY)
@needs(Scope.STUDENTS_PREDICT, Cost.PREDICT)
@fails(
    BadImagesError,
    BusyError,
    DamagedFileError,
    EmptyBodyError,
    GoneError,
    NoOnnxError,
    PredictionTimeoutError,
    RequestTimeoutError,
    TooLargeError,
    UnsupportedMediaTypeError,
    *OF_STORAGE,
)
async def predict(
    request: Request, core: CoreDep, caller: CallerDep, student_id: str, top: Top = 5
) -> PredictionsOut:
    """Classify images. The probabilities are calibrated: those of the student's ONNX file."""
    file = await run_in_threadpool(_file, core, caller.owner, student_id)
    kind = body.media_type(request)
    if kind not in (*IMAGES, FORM):
        raise UnsupportedMediaTypeError(
            f"Send one image as the body, with its Content-Type ({', '.join(IMAGES)}), or several "
            f"as {FORM}, in fields called {FIELD}."
        )
    with core.pool.place():
        images = await _images(request, kind, core.settings)
        order = _Order(core, file, images, top)
        found, temperature = await core.pool.work(request, lambda stop: _classify(order, stop))
    metrics.PREDICTIONS.inc(len(found))
    return PredictionsOut(
        student_id=student_id, file=file.name, temperature=temperature, predictions=found
    )


def _file(core: Core, owner: str, student_id: str) -> StoredFile:
    with core.database.read() as session:
        return sessions.onnx_file(service.get(session, owner, student_id))


async def _images(request: Request, kind: str, settings: Settings) -> list[bytes]:
    """The images of the body, as they came. Raises BadImagesError and others."""
    content = await body.read(request, settings.max_prediction_bytes, "The images together")
    if not content:
        raise EmptyBodyError("The body is empty. Send an image.")
    if kind != FORM:
        return [content]
    most = settings.max_prediction_images
    fields = forms.parts(request.headers["content-type"], content, most)
    if fields is None:
        raise BadImagesError(f"One request may have at most {most} images. Send several requests.")
    wrong = [place for place, (name, _) in enumerate(fields) if name != FIELD]
    if wrong or not fields:
        items = [
            ErrorItem(
                pointer=f"/{place}",
                code="unknown_field",
                detail="There is no such field here.",
                allowed=[FIELD],
            )
            for place in wrong
        ]
        raise BadImagesError(f"Send images in fields called {FIELD}.", items)
    return [image for _, image in fields]


def _classify(order: _Order, stop: Stop) -> tuple[list[PredictionOut], float]:
    """The answers and their temperature, image by image: in a thread.

    Raises BadImagesError with every image that can't be taken, DamagedFileError and StoppedError.
    """
    from app.datasets import images  # Pillow, and onnxruntime: only where they are needed

    network, settings = _network(order), order.core.settings
    answers: list[PredictionOut] = []
    bad: list[ErrorItem] = []
    for place, data in enumerate(order.images):
        stop.check()
        try:
            if len(data) > settings.max_prediction_image_bytes:
                most = settings.max_prediction_image_bytes
                raise images.ImageError("image_too_large", f"has more than {most} bytes")
            picture = images.picture(data, settings.max_prediction_pixels)
        except images.ImageError as error:
            detail = f"Image {place} {error.detail}. {_advice(error.code)}"
            bad.append(ErrorItem(pointer=f"/{place}", code=error.code, detail=detail))
            continue
        if not bad:  # else there won't be an answer
            probabilities = network.classify(picture, stop).tolist()
            answers.append(_answer(network.classes, probabilities, order.top))
    if bad:
        raise BadImagesError("Nothing was classified: see `errors`, which count from 0.", bad)
    return answers, network.temperature


def _network(order: _Order) -> Network:
    core, file = order.core, order.file

    def load() -> Network:
        from app.students.network import Network

        content = sessions.read(core.storage, file)
        return Network(content, core.settings.session_threads)

    return core.pool.sessions.get(file.sha256, load)


def _answer(classes: list[str], probabilities: list[float], top: int) -> PredictionOut:
    best = sorted(range(len(classes)), key=lambda place: -probabilities[place])[:top]
    return PredictionOut(
        classes=[
            ClassProbability(name=classes[place], probability=round(probabilities[place], 6))
            for place in best
        ]
    )


def _advice(code: str) -> str:
    if code == "image_too_large":
        return "Send a smaller one: the student sees it small."
    return "Save it again as JPEG, PNG or WebP."
