"""Metrics of news between nodes."""

from gateway.metrics import catalogue
from gateway.metrics.registry import Registry


class NewsMetrics(Registry):
    """Observer of news."""

    def news_took(self, seconds: float) -> None:
        """Observe the time from telling something until it has come back from the server."""
        self.histograms[catalogue.NEWS_DURATION][()].observe(seconds)

    def news_overflowed(self, topic: str) -> None:
        """Count that too many names of a topic waited to be sent."""
        self.counters[catalogue.NEWS_OVERFLOWS][(topic,)].inc()

    def news_reconnected(self) -> None:
        """Count that the connection for news was lost and is there again."""
        self.counters[catalogue.NEWS_RECONNECTS][()].inc()
