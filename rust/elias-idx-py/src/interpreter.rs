//! Work of the core beside the interpreter: detached from it, but interruptible, with panics as errors.

use elias_idx::Progress;
use pyo3::prelude::*;

use crate::errors::raise;

/// Attaches work that runs detached to the interpreter for a moment. An error once the interpreter has ended, as it
/// may under a daemon thread: such work stops.
pub(crate) fn attach<T>(work: impl FnOnce(Python<'_>) -> PyResult<T>) -> PyResult<T> {
    Python::try_attach(work).unwrap_or_else(|| Err(raise(elias_idx::Error::Interrupted)))
}

/// Runs the core's `work` detached from the interpreter. A panic, which is a fault of the core, is an error too.
pub(crate) fn detached<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> elias_idx::Result<T> + Send,
) -> PyResult<T> {
    py.detach(|| elias_idx::guard(work).flatten()).map_err(raise)
}

/// Runs `work` [`detached`]; signals are looked at whenever it asks whether to stop.
pub(crate) fn interruptible<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&mut dyn FnMut() -> bool) -> elias_idx::Result<T> + Send,
) -> PyResult<T> {
    let mut signal = None;
    let result = detached(py, || {
        work(&mut || {
            // The first is kept: Python tells of each signal once.
            if signal.is_none() {
                #[expect(
                    clippy::redundant_closure_for_method_calls,
                    reason = "the method is of one lifetime alone"
                )]
                let checked = attach(|py| py.check_signals());
                signal = checked.err();
            }
            signal.is_some()
        })
    });
    signal.map_or(result, Err)
}

/// Runs work as [`interruptible`] does, and calls `report` now and then with the share that is done; what it raises
/// ends the work too.
pub(crate) fn reporting<T: Send>(
    py: Python<'_>,
    report: Py<PyAny>,
    work: impl FnOnce(&Progress, &mut dyn FnMut() -> bool) -> elias_idx::Result<T> + Send,
) -> PyResult<T> {
    let progress = Progress::default();
    let mut failure = None;
    let result = interruptible(py, |stop| {
        work(&progress, &mut || {
            if failure.is_none() {
                failure = attach(|py| report.call1(py, (progress.share(),))).err();
            }
            failure.is_some() || stop()
        })
    });
    failure.map_or(result, Err)
}
