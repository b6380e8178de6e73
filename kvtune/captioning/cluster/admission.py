"""Which workers are let in: those whose captions would be the others'."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvtune.captioning.cluster.messages import Machine, Ready


class Admission:
    """Compares each worker with the driver and with the others.

    Parameters
    ----------
    versions
        Those of the driver.
    mixed
        Whether versions and kinds of devices may differ.
    """

    def __init__(self, versions: Mapping[str, str], mixed: bool = False) -> None:
        self._versions, self._mixed = versions, mixed
        self._device: str | None = None
        """The kind of device that workers are to have."""
        self._first: Ready | None = None
        """The worker that was ready first, whose weights the others are to have."""

    def go_by(self, machines: Iterable[Machine]) -> None:
        """Workers are to have the kind of device that most of these have."""
        devices = [machine.device for machine in machines]
        if devices:
            self._device = max(devices, key=devices.count)

    def why_not(self, machine: Machine) -> str | None:
        """Why a worker on such a machine is not let in; None if it is."""
        self._device = self._device or machine.device
        if self._mixed:
            return None
        for package, ours in self._versions.items():
            theirs = machine.versions.get(package)
            if theirs != ours:
                return (
                    f"{machine.node} has {package} {theirs}, and here is {ours}: in half precision captions would "
                    "differ; install the same, or give --mixed-workers"
                )
        if machine.device != self._device:
            return (
                f"{machine.node} has {machine.device}, and the others have {self._device}: in half precision captions "
                "would differ; leave it out, or give --mixed-workers"
            )
        return None

    def other_weights(self, machine: Machine, ready: Ready) -> str | None:
        """Why what a worker writes would be another model's; None if it is the same."""
        self._first = first = self._first or ready
        same = f"put the same weights of {first.model.name} there"
        for what in ("revision", "dtype_name"):
            theirs, others = getattr(ready.model, what), getattr(first.model, what)
            if theirs != others:
                name = what.removesuffix("_name")
                return f"{machine.node} has the model in {name} {theirs}, and the others in {name} {others}; {same}"
        if ready.weights != first.weights:
            return f"{machine.node} has other weights than the others; {same}"
        return None
