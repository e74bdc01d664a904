"""A simulator of Replicate's HTTP API, for tests, the demo, and development without a token or costs."""

from gateway.simulator.faults import FAULT_KINDS, Fault, load_faults
from gateway.simulator.journal import RecordedRequest
from gateway.simulator.serve import simulate
from gateway.simulator.settings import SimulatorSettings
from gateway.simulator.simulator import Simulator

__all__ = [
    "FAULT_KINDS",
    "Fault",
    "RecordedRequest",
    "Simulator",
    "SimulatorSettings",
    "load_faults",
    "simulate",
]
