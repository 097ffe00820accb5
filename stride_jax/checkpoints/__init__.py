"""Trained models on disk, and how they become processes and drafts."""
