"""The messages of devices: the old format, without a tag, and the new one."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

Rows: TypeAlias = dict[str, Any]
"""A row of a sink, or the rows of several by their names."""


class LegacyReading(msgspec.Struct):
    """A reading of old devices: degrees Fahrenheit, milliseconds."""

    device_id: str
    temp_f: float
    ts: int


class Measurement(msgspec.Struct, tag="measurement", tag_field="type"):
    """A reading of new devices, in a unit that it names, at a time in seconds."""

    device: str
    temperature: float
    unit: Literal["C", "F", "K"]
    at: float


class DeviceStatus(msgspec.Struct, tag="status", tag_field="type"):
    """The charge of a battery, in percent."""

    device: str
    battery: Annotated[int, msgspec.Meta(ge=0, le=100)]
    at: float


class Reading(msgspec.Struct):
    """A reading as the pipeline has it, in degrees Celsius."""

    device: str
    celsius: float
    at: float
    alerts: tuple[Rows, ...] = ()
