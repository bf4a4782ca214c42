"""The progress bar of `train_`, drawn by tqdm."""

from contextlib import contextmanager


@contextmanager
def progress_bar(wanted, data, epochs):
    """A function that advances the bar by one step and shows the loss; None without a bar."""
    if not wanted:
        yield None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError(
            'progress=True needs tqdm: pip install "tinyflux-autodiff[progress]"'
        ) from None
    total = len(data) * epochs if hasattr(data, "__len__") else None
    with tqdm(total=total, unit="step", mininterval=0.1) as bar:

        def advance(loss):
            bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
            bar.update()

        yield advance
