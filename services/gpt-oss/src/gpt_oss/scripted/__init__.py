"""The scripted model: an OpenAI-compatible endpoint that plays YAML scripts.

It stands in for a language model in demos and tests. It understands nothing: it follows the play
whose `when` fits the query, and refuses with a diff when the conversation is not what the play
expects. `play` describes the scripts, `template` their small text language, `director` decides
the reply, `wire` and `server` speak the protocol.
"""
