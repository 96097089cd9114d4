"""The options of a distillation: one set of models for the API, the job row, JOB_DIR and the CLI.

Unknown keys are refused everywhere. Loading this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

Baseline = Literal["scratch", "probe", "kd", "kd_online", "fitnet", "simkd", "aft", "rd"]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)
DEFAULT_BASELINES: tuple[Baseline, ...] = ("scratch", "probe", "kd")
Format = Literal["onnx", "int8", "torch_export"]
FORMATS: tuple[Format, ...] = get_args(Format)
Direction = Literal["forward", "flat", "reversed"]
Unit = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0.0, le=100.0, allow_inf_nan=False)]

MAX_DEVICES = 8  # of one machine
FEW_SHOTS = 50  # images per class below which projections are not trained
ALL_VIEWS, LEAST_VIEWS, MOST_VIEWS = 10_000, 20, 1024


class Strict(BaseModel):
    """Base of what is asked for: refuses unknown names, NaN, and what JSON has another type for."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_own_type(cls, value: object, info: ValidationInfo) -> object:
        """Neither true nor "1" for 1, as pydantic would have it; 1.0 for 1, as JSON has it."""
        if isinstance(value, bool | int | float | str) and info.field_name is not None:
            kinds = {*_kinds(cls.model_fields[info.field_name].annotation)}
            wanted = {bool} if isinstance(value, bool) else {int, float}
            if kinds <= _PLAIN and (isinstance(value, str) or not kinds & wanted):
                names = " or ".join(kind.__name__ for kind in (bool, int, float) if kind in kinds)
                raise PydanticCustomError("wrong_type", "must be of type {names}", {"names": names})
        return value


_PLAIN: set[object] = {bool, int, float, type(None)}


def _kinds(annotation: object) -> Iterator[object]:
    """The types that an annotation allows, without what else it says of them."""
    if get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _kinds(each)
    else:
        yield annotation


class Options(Strict):
    """Base of every option group: immutable, too."""

    model_config = ConfigDict(frozen=True)


class ViewOptions(Options):
    """How training images are augmented, and how many stored views the foundation sees."""

    count: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Stored views per training image (K); null: by the number of images.",
    )
    rotate: float = Field(15.0, ge=0, le=180, description="Largest rotation, in degrees.")
    shear: float = Field(10.0, ge=0, le=45, description="Largest shear, in degrees.")
    translate: Unit = Field(0.1, description="Largest shift, as a fraction of the image side.")
    scale_min: float = Field(0.85, gt=0, le=4, description="Smallest zoom.")
    scale_max: float = Field(1.15, gt=0, le=4, description="Largest zoom.")
    flip: Unit = Field(0.5, description="Probability of a mirrored view.")
    brightness: Unit = Field(0.1, description="Largest change of brightness.")
    contrast: Unit = Field(0.2, description="Largest relative change of contrast.")
    mix: Unit = Field(0.0, description="Share of views that are mixtures of two images.")

    def counted(self, images: int, draws: int) -> ViewOptions:
        """The same with K settled for `images` training images and a training of `draws` views.

        10,000 views in all, at least 20 an image, and never more than the training would draw: a
        student overfits the few views of few images, and the views of many repeat little.
        """
        if self.count is not None:
            return self
        wanted = max(LEAST_VIEWS, ALL_VIEWS // images)
        passes = -(-draws // images)
        return self.model_copy(update={"count": min(wanted, passes, MOST_VIEWS)})

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> ViewOptions:
        if self.scale_min > self.scale_max:
            raise ValueError("scale_min must not exceed scale_max")
        return self


class InputOptions(Options):
    """Stage 1, input side: what is done to images before the frozen foundation sees them.

    Kept only where held-out training images are classified better with it. Costs passes through
    the foundation, with gradients; off by default.
    """

    affine: bool = Field(False, description="Try a gain and an offset per channel.")
    border: int = Field(
        0, ge=0, le=256, description="Width in pixels of a learnable frame to try; 0: none."
    )
    steps: int = Field(
        60, ge=1, le=100_000, description="By which each candidate is learnt; each costs a pass."
    )
    learning_rate: float = Field(0.02, gt=0, le=1, description="Of gain, offset and frame.")
    batch_size: int = Field(
        32, ge=2, le=65_536, description="Images in a step; fewer where memory runs out."
    )
    folds: int = Field(
        3, ge=2, le=20, description="Folds of the training images that judge the candidates."
    )


class ReprogramOptions(Options):
    """Stage 1: the proxy space on top of the frozen foundation's features."""

    mode: Literal["auto", "closed_form", "trained"] = Field(
        "auto",
        description="How the proxy space is made; auto: trained from 50 images per class on.",
    )
    proxy_dim: int = Field(
        128, ge=8, le=1024, description="Width of each tap's proxies, where they are trained."
    )
    taps: int = Field(4, ge=1, le=8, description="Depths of the foundation that are tapped.")
    steps: int = Field(
        300,
        ge=1,
        le=1_000_000,
        description="In which proxies are trained, on stored features: cheap.",
    )
    batch_size: int = Field(
        256, ge=2, le=65_536, description="Views in such a step; more make a steadier structure."
    )
    learning_rate: float = Field(
        3e-3, gt=0, le=1, description="Its peak there; lower if that loss doesn't settle."
    )
    weight_decay: float = Field(0.05, ge=0, le=10, description="Of the projections' AdamW.")
    label_smoothing: float = Field(
        0.1, ge=0, lt=1, description="Share of a label that goes to all classes, in the heads."
    )
    preserve: Weight = Field(1.0, description="Weight of the knowledge-preserving term.")
    consistency: Weight = Field(0.5, description="Weight of agreement between views.")
    folds: int = Field(5, ge=2, le=20, description="Folds that choose the closed-form head.")
    out_of_fold: bool = Field(
        False, description="Teach an image only what a head that never saw it says."
    )

    def trains(self, per_class: float) -> bool:
        """Whether projections are trained on `per_class` images per class."""
        return self.mode == "trained" or (self.mode == "auto" and per_class >= FEW_SHOTS)


class DistilOptions(Options):
    """Stage 2: what the student is taught, and in which order."""

    ce: Weight = Field(0.3, description="Weight of the labels.")
    kd: Weight = Field(0.7, description="Weight of the head's probabilities.")
    proxy: Weight = Field(2.0, description="Weight of the proxies' directions.")
    relation: Weight = Field(1.0, description="Weight of the batch's similarity structure.")
    head: Literal["own", "reused"] = Field(
        "own",
        description="What classifies: a classifier of the student's own, or the reprogrammed head, "
        "which the student learns to read for and which is folded into its classifier.",
    )
    read: Weight = Field(1.0, description="Weight of what a reused head reads.")
    temperature: float = Field(
        2.0,
        gt=0,
        le=100,
        description="Softens the head's probabilities; higher says more of unlikely classes.",
    )
    depth: Direction = Field("forward", description="Which taps open first.")
    width: Direction = Field("flat", description="Which part of the proxy opens first.")
    objective: Direction = Field("forward", description="Proxies first and labels last, or not.")


class TrainingOptions(Options):
    """The student's training: the same for TDMR and for every baseline."""

    steps: int = Field(
        2000, ge=1, le=10_000_000, description="Of training; the first thing to give more of."
    )
    batch_size: int = Field(
        32, ge=2, le=65_536, description="Views in a step; fewer where memory runs out."
    )
    learning_rate: float = Field(
        2e-3, gt=0, le=1, description="Its peak; lower for pretrained or unstable students."
    )
    weight_decay: float = Field(
        0.05, ge=0, le=10, description="Of AdamW, on weights alone; more against overfitting."
    )
    warmup: Unit = Field(0.05, description="Share of the steps in which the rate rises.")
    label_smoothing: float = Field(
        0.1, ge=0, lt=1, description="Share of a label that goes to all classes."
    )
    ema: float = Field(0.99, ge=0, lt=1, description="Decay of the weight average; 0: none.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Of the student's forward pass; auto: bf16 on a GPU, fp32 on a CPU."
    )
    compile: bool = Field(False, description="Compile the student (worth it for long trainings).")


class ExportOptions(Options):
    """In which formats a student is published, and how far each may be from the student itself.

    A format that is further away is refused with its numbers, and the others are published.
    """

    formats: tuple[Format, ...] = Field(
        FORMATS, description="Beside the timm folder, which is always there."
    )
    min_agreement: Unit = Field(
        0.999, description="Share of held-out images that must be classified as by the student."
    )
    max_logit_difference: float = Field(
        1e-3, ge=0, le=1000, description="Largest difference of any logit on a held-out image."
    )
    int8_max_drop: Unit = Field(
        0.01, description="Most that INT8 may cost of the held-out accuracy."
    )
    int8_min_agreement: Unit = Field(
        0.9, description="Of INT8, instead of min_agreement; its logits may differ."
    )
    calibration_images: int = Field(
        200, ge=1, le=10_000, description="Most training images that INT8 is calibrated on."
    )
    latency_runs: int = Field(
        100, ge=20, le=10_000, description="Timed runs per format, fewer if it is slow."
    )

    @model_validator(mode="after")
    def _formats_are_distinct(self) -> ExportOptions:
        if len(set(self.formats)) != len(self.formats):
            raise ValueError("formats must not repeat")
        return self


class DistillOptions(Options):
    """Every option of a distillation. The defaults are meant to work."""

    seed: int = Field(
        0, ge=0, le=2**31 - 1, description="The same one gives the same student; try several."
    )
    image_size: int | None = Field(
        None, ge=16, le=1024, description="Student's input side in pixels; null: its own default."
    )
    foundation_size: Annotated[int, Field(ge=16, le=1024)] | Literal["match"] | None = Field(
        None,
        description="Foundation's input side in pixels; null: its own default; match: a "
        "transformer's so that it has as many patches as the student.",
    )
    student_pretrained: bool = Field(
        False, description="Start the student from its published weights (needs a network)."
    )
    views: ViewOptions = ViewOptions()
    input: InputOptions = InputOptions()
    reprogram: ReprogramOptions = ReprogramOptions()
    distil: DistilOptions = DistilOptions()
    training: TrainingOptions = TrainingOptions()
    exports: ExportOptions = ExportOptions()
    audit: bool = Field(
        True, description="Look for near-duplicates, leaks and mislabels with the foundation."
    )
    devices: int = Field(
        1,
        ge=1,
        le=MAX_DEVICES,
        description="GPUs of one machine that share each batch (on a CPU: processes).",
    )

    @model_validator(mode="after")
    def _batches_can_be_shared(self) -> DistillOptions:
        if self.training.batch_size % self.devices:
            raise ValueError(
                f"a batch of {self.training.batch_size} can't be shared by {self.devices} devices: "
                "make training.batch_size a multiple of devices"
            )
        return self


class JobSpec(Options):
    """A whole job: which models, which options, which comparisons."""

    foundation: str = Field(
        min_length=1, max_length=300, description="Name of the large model that is learnt from."
    )
    student: str = Field(
        min_length=1, max_length=300, description="timm name of the small model that is trained."
    )
    options: DistillOptions = DistillOptions()
    baselines: tuple[Baseline, ...] = Field(
        DEFAULT_BASELINES,
        description="What else is trained, to compare with; each costs about a training.",
    )

    @model_validator(mode="after")
    def _baselines_are_distinct(self) -> JobSpec:
        if len(set(self.baselines)) != len(self.baselines):
            raise ValueError("baselines must not repeat")
        return self
