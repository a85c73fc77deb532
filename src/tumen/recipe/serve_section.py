"""Sections `serve` and `gate`: which tier answers, and the thresholds that a bundle must reach."""

from __future__ import annotations

from pydantic import Field

from tumen.core.shape import Frozen, Positive, Share


class Serve(Frozen):
    """Which tier answers.

    The device answers first. Below the confidence `unsure` the cloud tier is asked.
    """

    device: str = "device"
    cloud: str | None = Field(
        "cloud", description="default: the tier `cloud`, if the family has one"
    )
    cloud_url: str | None = Field(
        None, description="any OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1"
    )
    cloud_model: str | None = Field(None, description="the model's name at cloud_url")
    cloud_key_env: str = Field(
        "TUMEN_CLOUD_KEY",
        pattern="^TUMEN_[A-Z0-9_]+$",
        description="environment variable that holds the key of cloud_url; begins with TUMEN_, so "
        "that a bundle made elsewhere cannot read another one",
    )
    unsure: Share = 0.5
    threads: Positive = 1
    context: Positive = 512


class Gate(Frozen):
    """Thresholds that a bundle must reach before `talk` and `serve` use it."""

    # Quality.
    exact: Share = Field(0.0, description="exact actions, in each language")
    agreement: Share = Field(
        0.0, description="positions where the exported model writes torch's token"
    )
    # Against the cloud tier.
    of_cloud: Share = Field(0.0, description="device score as a share of the cloud's")
    of_cloud_classes: int = Field(
        0, ge=0, description="scenario classes in which the device reaches `class_of_cloud`"
    )
    class_of_cloud: Share = Field(
        0.98,
        description="device score of a class as a share of the cloud's, at which the class counts "
        "in of_cloud_classes",
    )
    better_teacher: bool = Field(
        True,
        description="refuse a device tier whose teacher or cloud tier is not better than it: the "
        "95 % interval of the paired difference of exact actions must lie above 0",
    )
    alone: str | None = Field(
        None,
        description="tier with the device's shape that learns without the teacher; the teacher "
        "must beat it; default: the device tier as it is",
    )
    # Harm.
    false_acts: Share = Field(1.0, description="most acts on sentences that are not for the home")
    invented: int = Field(0, ge=0, description="most devices that do not exist")
    size_of_cloud: Share = Field(1.0, description="device bytes as a share of the cloud's")
    # Against the bundle that is live (`tumen promote`).
    worse_than_live: Share = Field(
        0.01,
        description="most that a promotion may lose of exact actions, in all and in each language",
    )
    worse_in_class: Share = Field(
        0.05, description="most that a promotion may lose of exact actions in one scenario class"
    )
