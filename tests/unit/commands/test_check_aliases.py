"""`gateway check --upstream`: aliases that hide something at Replicate, and targets that do not exist there."""

from gateway.commands.alias_check import check_aliases
from gateway.config import Config
from gateway.simulator import Simulator
from tests.support.checked import check
from tests.support.config_values import config_of
from tests.support.stack import start_upstream
from tests.support.upstream import version_of


def config(upstream: Simulator, *aliases: tuple[str, str]) -> Config:
    return config_of(
        upstream={"base_url": upstream.base_url},
        aliases=[{"name": name, "target": target} for name, target in aliases],
    )


async def test_aliases_are_looked_up_at_replicate():
    """A warning for each that hides a model or a deployment, or leads nowhere."""
    async with start_upstream() as upstream:
        story = version_of(upstream, "acme/storyteller")
        given = config(
            upstream,
            ("team/story", f"acme/storyteller:{story}"),
            ("team/service", "deployments/acme/story-service"),
            ("acme/painter", "acme/storyteller"),
            ("acme/paint-service", "acme/upscale"),
            ("team/typo", "acme/storyteler"),
            ("team/old", f"acme/storyteller:{'0' * 64}"),
        )
        section = given.upstream.with_token(upstream.token)
        found = await check_aliases(given.model_copy(update={"upstream": section}))
    assert [(each.path, each.message.partition(":")[0]) for each in found] == [
        ("aliases[2].name", "hides the model of that name at Replicate"),
        ("aliases[3].name", "hides the deployment of that name at Replicate"),
        ("aliases[4].target", "acme/storyteler does not exist at Replicate"),
        ("aliases[5].target", "acme/storyteller"),
    ]


async def test_upstream_that_does_not_answer_warns_of_nothing():
    """That it does not is one problem of its own."""
    async with start_upstream() as upstream:
        given = config(upstream, ("acme/painter", "acme/storyteller"))
        assert await check_aliases(given) == []
    assert await check_aliases(given) == []


def test_aliases_are_in_the_summary(folder):
    """What each stands for, and for whom."""
    config = (
        "[[aliases]]\nname = 'acme/image'\ntarget = 'black-forest-labs/flux-schnell'\n"
        "[[aliases]]\nname = 'acme/image'\ntarget = 'deployments/acme/image-service'\nteams = ['acme']\n"
        "[[teams]]\nname = 'acme'\n"
    )
    lines = [line for line in check(config=config).stdout.splitlines() if line.startswith("alias")]
    assert lines == [
        "alias      acme/image: black-forest-labs/flux-schnell",
        "alias      acme/image (team acme): deployments/acme/image-service",
    ]
