"""Words and base models that all rooms share."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """What people write. Frozen and strict: unknown keys, NaN and values of another type are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Record(BaseModel):
    """What parbench writes. As strict as a `Spec`, but fields that it does not know are left out: a parbench of another
    version may have written it.

    So a field that is added later needs a default, with which what older versions have written is read.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


DeviceKind = Literal["cpu", "cuda"]


Scaling = Literal["strong", "weak"]


Precision = Literal["fp32", "tf32", "bf16", "fp16"]


Phase = Literal["train", "score", "generate"]
