"""The values of limited cost tags that operators see."""

from gateway.domain.ledger import OTHER_VALUES
from gateway.operations.rules import tag_limits

NAMES = ("project", "project:apollo:x", "feature:search")


def test_values_of_the_config_are_listed_and_tags_of_which_each_value_counts():
    assert tag_limits.named(NAMES) == ['{"project":"apollo:x"}', '{"feature":"search"}']
    assert tag_limits.of_every_value(NAMES) == ["project"]


def test_what_is_counted_together_or_has_no_tag_is_no_value():
    """Such rows of usage have no budget of their own."""
    assert tag_limits.listed("project", ["a", OTHER_VALUES, None, "b"]) == ['{"project":"a"}', '{"project":"b"}']
