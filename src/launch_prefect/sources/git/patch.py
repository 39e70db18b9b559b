from launch_prefect.sources.store import CodeStore


def keep_patch(patch: bytes, store: CodeStore) -> str:
    """Keep changes in the code store."""
    raise NotImplementedError
