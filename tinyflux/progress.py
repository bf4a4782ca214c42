"""The progress bar of `train_`, drawn by tqdm."""

from contextlib import contextmanager
from operator import length_hint


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
    # Some raise when they are asked for their length: they do not know it either.
    total = length_hint(data) * epochs or None if hasattr(data, "__len__") else None
    with tqdm(total=total, unit="step", mininterval=0.1) as bar:

        def advance(loss):
            bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
            bar.update()

        yield advance
