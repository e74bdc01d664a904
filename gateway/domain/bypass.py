"""Why a request is not shared."""

from enum import StrEnum


class BypassReason(StrEnum):
    """Why a run is not shared. A closed set of tokens, fit for `Cache-Status` and for metrics."""

    DISABLED = "disabled"
    """The config switches the cache off."""
    TRAINING = "training"
    """Trainings are never shared."""
    RULE_NEVER = "rule-never"
    MODEL_UNKNOWN = "model-unknown"
    """A bare version id whose model, and so whose rules and schema, is not known."""
    SCHEMA_UNKNOWN = "schema-unknown"
    """No rule for the target, and its schema could not be read."""
    NO_SEED_INPUT = "no-seed-input"
    """The model takes neither seed nor temperature."""
    NO_SEED = "no-seed"
    """The caller left the seed out, or set it to null."""
    RANDOM_SEED = "random-seed"
    """The seed asks for a random one, such as -1."""
    ODD_SEED = "odd-seed"
    """The seed is no whole number, and what the model makes of it is not known."""
    TEMPERATURE = "temperature"
    """The model takes no seed, and its temperature is not given as 0."""
    ASSERTION_REFUSED = "assertion-refused"
    """The caller asserted it, and its team may not."""
    EXTERNAL_LINK = "external-link"
    """The input links to a file whose content the gateway does not know and which can change."""
    SECRET_INPUT = "secret-input"  # noqa: S105 - the name of a reason
    """The input sets a value that the model's schema marks as secret."""
    INPUT_UNREADABLE = "input-unreadable"
    """The input is too deep, or holds too much, to be compared."""
    NO_STORE = "no-store"
    """The caller's own wish."""
