"""How many threads BLAS may use."""

from .checks import as_integer


def set_threads_(n):
    """Let NumPy's products of matrices use `n` threads (needs the extra `threads`).

    Parameters
    ----------
    n : int
        At least 1. For small networks 1 is quickest; on a busy machine several threads can be many
        times slower than one, because threads that wait for each other spin.

    Raises
    ------
    ImportError
        If threadpoolctl is not installed. Without it, set OPENBLAS_NUM_THREADS in the environment
        before NumPy is imported.

    Notes
    -----
    This is a setting of the whole process, not of tinyflux alone: call it in your own program, not
    in a library.

    Examples
    --------
    >>> import tinyflux as flux
    >>> flux.set_threads_(0)
    Traceback (most recent call last):
    ValueError: ...
    """
    n = as_integer(n, "set_threads_: n", least=1)
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise ImportError(
            'set_threads_ needs threadpoolctl: pip install "tinyflux-autodiff[threads]"'
        ) from None
    threadpool_limits(n)
