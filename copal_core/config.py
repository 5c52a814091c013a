"""The configuration of a run: frozen, validated when built, and identified by a fingerprint.

Nothing here imports torch, so that a page can build and check a configuration without delay.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from copal_core.errors import InvalidValueError

FORMAT = 1  # increased whenever older run folders can no longer be read unchanged

_WINDOWS = re.compile(r"^(\d{1,4000})\s*[x×]\s*(\d{1,4000})$")  # Python parses integers of up to 4300 digits
_METHOD = re.compile(r"^(?P<name>[a-z0-9-]+)(\[(?P<options>[^\]]*)\])?:(?P<strategy>[a-z-]+)$")
_PATTERN = re.compile(r"^(\d{1,4000}):(\d{1,4000})$")
_DEVICE = re.compile(r"^(auto|cpu|cuda(:\d{1,3}|:all)?)$")


class _Frozen(BaseModel):
    """Immutable model that rejects unknown keys and reports a validation error as one sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidValueError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    """Return the first problem of a validation report as a sentence that names the value and the rule."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if cause is not None:
        return str(cause)
    name = ".".join(str(part) for part in first["loc"]) or "the configuration"
    if first["type"] == "extra_forbidden":
        return f"'{name}' is not a setting; check its spelling"
    return f"{name} = {first['input']!r} is not valid: {first['msg'].lower()}"


class Windows(_Frozen):
    """`count` windows of `length` tokens each, written as 16x256."""

    count: int = Field(ge=1, le=100_000)
    length: int = Field(ge=2, le=1_048_576)

    @classmethod
    def parse(cls, text: str) -> Windows:
        """Parse '16x256'. Raises InvalidValueError for any other form."""
        match = _WINDOWS.match(text.strip())
        if match is None:
            raise InvalidValueError(f"windows '{text[:80]}' are not of the form COUNTxLENGTH, such as 16x256")
        return cls(count=int(match[1]), length=int(match[2]))

    def __str__(self) -> str:
        return f"{self.count}x{self.length}"

    @property
    def tokens(self) -> int:
        return self.count * self.length


class Structure(_Frozen):
    """Sparsity structure: a share removed of each row or layer, or `keep` weights left in each `group_size` inputs."""

    kind: Literal["unstructured", "n:m"] = "unstructured"
    sparsity: float = Field(default=0.5, ge=0.0, lt=1.0, description="share removed")
    group: Literal["row", "layer"] = "row"
    keep: int = Field(default=2, ge=1)
    group_size: int = Field(default=4, ge=2, le=256)

    @model_validator(mode="after")
    def _keep_fewer_than_all(self) -> Structure:
        if self.kind == "n:m" and self.keep >= self.group_size:
            raise ValueError(
                f"structure {self.keep}:{self.group_size} keeps everything; keep fewer than {self.group_size}"
            )
        return self

    @classmethod
    def parse(
        cls, text: str, sparsity: float | None = None, group: Literal["row", "layer"] | None = None
    ) -> Structure:
        """Parse 'unstructured' or 'N:M' (keep N of each M inputs).

        Args:
            text: the structure.
            sparsity: share of weights to remove; None when unspecified, which means 0.5, or N:M's own.
            group: compare weights within a row or a layer; None when unspecified.

        Raises:
            InvalidValueError: the structure is unknown, or N:M, which implies both, contradicts `sparsity` or is
                given a `group`.
        """
        match = _PATTERN.match(text.strip())
        if match is not None:
            keep, size = int(match[1]), int(match[2])
            removed = 1 - keep / size if 0 < keep < size else 0.0
            structure = cls(kind="n:m", keep=keep, group_size=size, sparsity=removed)
            structure._check_implied(sparsity, group)
            return structure
        if text.strip() != "unstructured":
            raise InvalidValueError(
                f"structure '{text[:80]}' is not known; use unstructured or N:M, such as 2:4"
            )
        return cls(sparsity=0.5 if sparsity is None else sparsity, group=group or "row")

    def _check_implied(self, sparsity: float | None, group: str | None) -> None:
        """Raise InvalidValueError for a sparsity or group that contradicts N:M, which implies both."""
        if sparsity is not None and not abs(sparsity - self.removed) <= 1e-3:  # 0.667 is accepted for 1:3
            raise InvalidValueError(
                f"sparsity {sparsity:g} does not go with structure {self}, which removes exactly {self.removed:.6g}; "
                "leave the sparsity out, choose another N:M, or use structure unstructured"
            )
        if group is not None:
            raise InvalidValueError(
                f"group '{group}' does not go with structure {self}, which compares within each {self.group_size} "
                "inputs; leave the group out, or use structure unstructured"
            )

    def check_divides(self, columns: int) -> None:
        """Raise InvalidValueError unless groups of M inputs divide an input dimension of `columns`."""
        if self.kind == "n:m" and columns % self.group_size:
            raise InvalidValueError(
                f"{self} needs an input dimension that {self.group_size} divides; this layer has {columns}; "
                "choose another group or unstructured pruning"
            )

    @property
    def removed(self) -> float:
        """Share of weights removed, 0 to 1; exact for N:M."""
        return 1 - self.keep / self.group_size if self.kind == "n:m" else self.sparsity

    def __str__(self) -> str:
        if self.kind == "n:m":
            return f"{self.keep}:{self.group_size}"
        return f"{100 * self.sparsity:.4g} % per {self.group}"


class Method(_Frozen):
    """A criterion (or decomposition) combined with a continual strategy, written as `copal:accumulate`.

    Options go in brackets: `copal[estimator=finite-difference,epsilon=0.01]:accumulate`.
    """

    name: str
    strategy: str
    options: dict[str, str | float | bool] = Field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Method:
        """Parse NAME:STRATEGY or NAME[OPTION=VALUE,...]:STRATEGY. Raises InvalidValueError for any other form."""
        match = _METHOD.match(text.strip())
        if match is None:
            raise InvalidValueError(
                f"method '{text}' is not of the form NAME:STRATEGY, such as copal:accumulate"
            )
        options: dict[str, str | float | bool] = {}
        for item in filter(None, (match["options"] or "").split(",")):
            key, equals, value = item.partition("=")
            if not equals:
                raise InvalidValueError(f"option '{item}' of method '{text}' is not of the form NAME=VALUE")
            if key.strip() in options:
                raise InvalidValueError(
                    f"option '{key.strip()}' of method '{text}' is given twice; give each option once"
                )
            options[key.strip()] = _option_value(value.strip())
        return cls(name=match["name"], strategy=match["strategy"], options=options)

    def __str__(self) -> str:
        options = ",".join(f"{key}={_option_text(value)}" for key, value in sorted(self.options.items()))
        return f"{self.name}{f'[{options}]' if options else ''}:{self.strategy}"

    @property
    def slug(self) -> str:
        """The method's name as a folder name: letters, digits, dots, dashes and plus signs only."""
        return re.sub(r"[^a-z0-9.+-]", "-", str(self).replace(":", "+").lower())


def _option_text(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _option_value(text: str) -> str | float | bool:
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text


class Protocol(_Frozen):
    """Settings of calibration and evaluation; perplexities are comparable only under equal protocols."""

    calibration: Windows = Windows(count=16, length=256)
    evaluation: Windows = Windows(count=12, length=256)
    propagate: Literal["pruned", "dense"] = "pruned"
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    map_size: int = Field(default=64, ge=8, le=64, description="side of the pooled heatmap tiles")

    @field_validator("calibration", "evaluation", mode="before")
    @classmethod
    def _parse_windows(cls, value: Any) -> Any:
        return Windows.parse(value) if isinstance(value, str) else value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if _DEVICE.match(value) is None:
            raise ValueError(f"device '{value[:80]}' is not known; use auto, cpu, cuda, cuda:N or cuda:all")
        return value


class RunConfig(_Frozen):
    """Everything that decides a run's numbers; equal configurations have equal fingerprints.

    Raises InvalidValueError, in one sentence, for a value that breaks a rule.

    >>> from copal_core import RunConfig
    >>> config = RunConfig(
    ...     checkpoint="tiny", domains=["python-code", "shakespeare"], methods=["copal:accumulate", "wanda:restart"],
    ...     structure={"sparsity": 0.6}, protocol={"calibration": "8x128", "seed": 1},
    ... )
    >>> str(config.methods[0]), str(config.protocol.calibration), config.structure.removed
    ('copal:accumulate', '8x128', 0.6)
    >>> RunConfig.from_json(config.canonical()) == config
    True
    """

    checkpoint: str = Field(min_length=1)
    domains: tuple[str, ...] = Field(min_length=1, max_length=64)
    methods: tuple[Method, ...] = Field(min_length=1, max_length=32)
    structure: Structure = Structure()
    protocol: Protocol = Protocol()
    steps: Literal["all", "last"] = Field(
        default="all",
        description="last: the last domain's step alone, for strategies that need no step before",
    )

    @property
    def first_step(self) -> int:
        """The first step that is computed, counted from 1; the last one is as many as there are domains."""
        return len(self.domains) if self.steps == "last" else 1

    @field_validator("methods", mode="before")
    @classmethod
    def _parse_methods(cls, value: Any) -> Any:
        items = [value] if isinstance(value, str) else value
        return tuple(Method.parse(item) if isinstance(item, str) else item for item in items)

    @model_validator(mode="after")
    def _nothing_twice(self) -> RunConfig:
        for kind, items in (("method", [str(m) for m in self.methods]), ("domain", list(self.domains))):
            twice = {item for item in items if items.count(item) > 1}
            if twice:
                raise ValueError(f"{kind} '{sorted(twice)[0]}' is listed twice; list each {kind} once")
        return self

    def canonical(self) -> str:
        """Return the configuration as JSON with sorted keys: equal configurations give equal text."""
        content = {"format": FORMAT, **self.model_dump(mode="json")}
        if self.steps == "all":
            del content["steps"]  # so that fingerprints from before there was a choice stay what they are
        content["methods"] = [str(method) for method in self.methods]
        return json.dumps(content, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> RunConfig:
        """Parse the output of `canonical`. Raises InvalidValueError for damaged text or another format version."""
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidValueError(f"the run's configuration is not JSON: {error}") from None
        if not isinstance(content, dict):
            raise InvalidValueError("the run's configuration is not a JSON object")
        version = content.pop("format", None)
        if version != FORMAT:
            raise InvalidValueError(
                f"the run was written in format {version}; this version reads {FORMAT}; run it again"
            )
        return cls(**content)

    def fingerprint(self) -> str:
        """Return twelve hexadecimal digits that identify this configuration."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:12]
