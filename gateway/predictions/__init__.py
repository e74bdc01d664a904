"""The life of a prediction: creates, tracking, adoption of uncertain creates, deadlines, queries."""
