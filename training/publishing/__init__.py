"""Pushing models, data sets and Spaces to the Hub, from the command line, Lightning and Poutyne."""
