"""What the models of all rooms are made of."""

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
