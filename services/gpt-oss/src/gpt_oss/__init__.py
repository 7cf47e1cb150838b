"""The model service: an OpenAI-compatible endpoint for GPT-OSS models."""
