"""News on their way to other nodes: coalesced by topic and name, bounded, and packed into messages of limited size.

A message is a JSON object: topics with lists of names, or with null for "anything of this topic may have changed". A
topic that a reader does not know is left out, so two neighbouring versions understand each other.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from gateway.nodes.news import Topic

Names = Sequence[str] | None
"""Names of one topic; `None` stands for all that there are."""

_TOPICS = frozenset(Topic)
_PUNCTUATION = len(b'"":[],')
"""What a topic and its list take in a message, at most, beside the topic's own letters and the names."""
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(dict[str, list[str] | None])


class Waiting:
    """News that were not sent yet: each name once, in order, and at most `most` names of a topic."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: dict[Topic, dict[str, None] | None] = {}

    def __len__(self) -> int:
        return sum(1 if names is None else len(names) for names in self._names.values())

    def add(self, topic: Topic, name: str) -> bool:
        """Add a name. Return false if there are too many of its topic, which from now on stands for all names."""
        names = self._names.setdefault(topic, {})
        if names is None:
            return True
        names[name] = None
        if len(names) > self._most:
            self._names[topic] = None
            return False
        return True

    def take(self) -> dict[Topic, Names]:
        """Remove and return all news."""
        taken, self._names = self._names, {}
        return {topic: None if names is None else list(names) for topic, names in taken.items()}

    def put_back(self, news: Mapping[Topic, Names]) -> None:
        """Add news again that could not be sent. They come before those that were added meanwhile."""
        later = self.take()
        for each in (news, later):
            for topic, names in each.items():
                if names is None:
                    self._names[topic] = None
                else:
                    for name in names:
                        self.add(topic, name)


def pack(news: Mapping[Topic, Names], max_bytes: int) -> list[str]:
    """Return messages of at most `max_bytes` in UTF-8 that say all of the news.

    A name that does not fit, or is no valid text, makes its topic stand for all names.
    """
    messages: list[str] = []
    current: dict[Topic, list[str] | None] = {}
    size = 2
    for topic, name in _entries(news, max_bytes):
        needed = _size_of(topic, name, is_first=topic not in current)
        if current and size + needed > max_bytes:
            messages.append(_encoded(current))
            current, size = {}, 2
            needed = _size_of(topic, name, is_first=True)
        size += needed
        if name is None:
            current[topic] = None
        else:
            names = current.setdefault(topic, [])
            assert names is not None
            names.append(name)
    if current:
        messages.append(_encoded(current))
    return messages


def unpack(message: str) -> dict[Topic, Names]:
    """Read a message. Raise `ValueError` if it is none."""
    try:
        said = _DECODER.decode(message)
    except (msgspec.MsgspecError, UnicodeEncodeError) as exc:
        raise ValueError(f"no news: {exc}") from exc
    return {Topic(topic): names for topic, names in said.items() if topic in _TOPICS}


def merge(news: dict[Topic, list[str] | None], more: Mapping[Topic, Names]) -> None:
    """Add `more` to `news`."""
    for topic, names in more.items():
        known = news.setdefault(topic, [])
        if names is None:
            news[topic] = None
        elif known is not None:
            known.extend(names)


def _entries(news: Mapping[Topic, Names], max_bytes: int) -> Iterator[tuple[Topic, str | None]]:
    for topic, names in news.items():
        if names is None or not all(_fits(topic, name, max_bytes) for name in names):
            yield topic, None
        else:
            for name in names:
                yield topic, name


def _fits(topic: Topic, name: str, max_bytes: int) -> bool:
    try:
        return 2 + _size_of(topic, name, is_first=True) <= max_bytes
    except UnicodeEncodeError:
        return False


def _size_of(topic: Topic, name: str | None, *, is_first: bool) -> int:
    size = len(topic) + _PUNCTUATION if is_first else 0
    return size + (len(b"null") if name is None else len(_ENCODER.encode(name)) + 1)


def _encoded(news: Mapping[Topic, list[str] | None]) -> str:
    return _ENCODER.encode(news).decode()
