"""The small InternVL that ships with lowbeam: tokenizer, model, data feed, trainer."""
