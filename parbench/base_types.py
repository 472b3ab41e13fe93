"""Base models and words that all of parbench shares."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """Base of what people write in a scenario. Unknown keys, values of another type, NaN and infinity are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Record(BaseModel):
    """Base of what parbench writes to disk or sends. It is as strict as a `Spec`, but ignores unknown fields, because
    another version of parbench may have written it.

    For the same reason a field that is added later needs a default: older records lack it.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


DeviceKind = Literal["cpu", "cuda"]


Scaling = Literal["strong", "weak"]


Precision = Literal["fp32", "tf32", "bf16", "fp16"]


Phase = Literal["train", "score", "generate"]


MallocPolicy = Literal["default", "trim"]
"""What becomes of freed memory: `default` is up to the C library; with `trim` glibc maps large blocks on their own."""


CompileCache = Literal["fresh", "kept"]
"""What torch.compile finds on the disk: `fresh` is nothing, `kept` is what it has compiled for this user before."""
