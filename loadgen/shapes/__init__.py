"""What a model is, in numbers: config.json to parameters, bytes and FLOPs a token; what a GPU can do with them at best
(`roofline`) and what they take in memory (`memory_plan`). Pure: nothing is run, downloaded or imported from torch."""
