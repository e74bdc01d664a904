"""Several processes on one store: which are alive, who follows which run, and what they tell each other."""
