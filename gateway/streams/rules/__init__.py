"""Pure rules of event streams: the parser, the bounded log, replay, resume, and the probe stream."""
