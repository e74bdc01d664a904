"""The flow: authentication, policy, predictions, the tracker, files. Services own what lives long."""
