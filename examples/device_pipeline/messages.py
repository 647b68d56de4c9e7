"""The messages of devices: the old format, without a tag, and the new one."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

Device: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class LegacyReading(msgspec.Struct):
    """A reading of old devices: degrees Fahrenheit, milliseconds."""

    device_id: Device
    temp_f: float
    ts: int


class Measurement(msgspec.Struct, tag="measurement", tag_field="type"):
    """A reading of new devices, in a unit that it names, at a time in seconds."""

    device: Device
    temperature: float
    unit: Literal["C", "F", "K"]
    at: float


class DeviceStatus(msgspec.Struct, tag="status", tag_field="type"):
    """The charge of a battery, in percent."""

    device: Device
    battery: Annotated[int, msgspec.Meta(ge=0, le=100)]
    at: float


class Reading(msgspec.Struct):
    """A reading as the pipeline has it, in degrees Celsius."""

    device: str
    celsius: float
    at: float
