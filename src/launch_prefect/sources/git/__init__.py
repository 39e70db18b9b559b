"""Code that comes from git: its commit pinned, a mirror of each repository on this machine, and files out of it."""

from __future__ import annotations

from launch_prefect.sources.git.code import GitCode, code_key, resolve
from launch_prefect.sources.git.command import GivenUp
from launch_prefect.sources.git.credentials import GitCredentials, credentials_from
from launch_prefect.sources.git.patch import keep_patch
from launch_prefect.sources.git.work_tree import WorkTree, work_tree

__all__ = [
    "GitCode",
    "GitCredentials",
    "GivenUp",
    "WorkTree",
    "code_key",
    "credentials_from",
    "keep_patch",
    "resolve",
    "work_tree",
]
