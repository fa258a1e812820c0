"""The language track: question answering tasks in a row, learned by language models."""
