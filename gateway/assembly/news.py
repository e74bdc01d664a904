"""What the parts tell other nodes, and what they do when other nodes tell of something."""

from collections.abc import Callable, Sequence
from functools import partial

from gateway.assembly.build import Parts
from gateway.assembly.reload import Reloading
from gateway.nodes.news import Topic
from gateway.nodes.reloads import SharedReloads
from gateway.predictions.events import Listener
from gateway.runtime.loops import BackgroundLoop


def connect_news(parts: Parts) -> None:
    """Tell other nodes, and listen to them. Does nothing where this process alone serves from the store."""
    news, predictions, money = parts.base.news, parts.predictions, parts.money
    if not news.is_shared:
        return
    events = predictions.events
    events.add_progressed_listener(Listener.NEWS, lambda run: news.tell(Topic.RUN, run.id))
    # After the other listeners: what they change is told with the end.
    events.add_ended_listener(Listener.NEWS, lambda ended: news.tell(Topic.RUN, ended.run.id))
    events.add_joined_listener(Listener.WEBHOOKS, parts.webhooks.dispatcher.on_prediction_created)
    money.limit_queue.add_freed_listener(lambda team: news.tell(Topic.FREED, team))
    news.add_listener(Topic.FREED, _each(partial(money.limit_queue.freed, is_elsewhere=True), money.limit_queue.retry))
    news.add_listener(Topic.KEY, parts.access.authenticator.forget)
    predictions.other_nodes.add_purged_listener(parts.streams.hub.forget)
    predictions.other_nodes.listen(news)
    parts.base.keep_running(predictions.other_nodes.run, BackgroundLoop.NEWS)


def tell_reloads(parts: Parts, reloading: Reloading) -> None:
    """Reload the config when another node has done so, and tell the others of reloads here."""
    base = parts.base
    if base.store.nodes is None:
        return
    shared = SharedReloads(base.store.nodes, base.news, base.clock, reloading.ask_if_changed)
    reloading.add_reloaded_listener(shared.reloaded)
    base.keep_running(shared.run, BackgroundLoop.SHARED_RELOADS)


def _each(do: Callable[[str], None], do_all: Callable[[], None]) -> Callable[[Sequence[str] | None], None]:
    def listener(names: Sequence[str] | None) -> None:
        if names is None:
            do_all()
        else:
            for name in names:
                do(name)

    return listener
