"""Stages by themselves: what one of them takes when nothing else runs."""
