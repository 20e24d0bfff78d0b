//! How errors end the program: 0 done, 1 the program failed, 2 bad input or usage, 130 interrupted.

use super::show::tell;
use crate::ingest::IngestError;
use crate::load::LoadError;
use crate::runs::RunError;
use crate::schedule::ScheduleError;
use crate::shard::ShardError;
use std::process::ExitCode;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// Stopped by Ctrl-C or SIGTERM, after saving.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; {0}")]
pub(crate) struct Interrupted(pub(crate) String);

/// True once the user has pressed Ctrl-C or the process was asked to end. From the first call on, that
/// no longer ends the program by itself.
pub(crate) fn stop_flag() -> &'static AtomicBool {
    static STOP: AtomicBool = AtomicBool::new(false);
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| {
        // Without a handler Ctrl-C just ends the program, and what is finished stays.
        let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));
    });
    &STOP
}

/// What the user asked for cannot be done with what is there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Prints the error, if there is one, and gives the exit code.
pub fn finish(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if is_closed_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    tell(&format!("nct: {}", chain(&error)));
    ExitCode::from(code(&error))
}

fn code(error: &anyhow::Error) -> u8 {
    let is_input = |cause: &(dyn std::error::Error + 'static)| {
        #[cfg(feature = "torch")]
        let torch = cause.is::<crate::config::ConfigError>()
            || cause.is::<crate::config::DataError>()
            || cause.is::<crate::model::ModelError>()
            || cause.downcast_ref::<crate::eval::EvalError>().is_some_and(crate::eval::EvalError::is_input)
            || cause
                .downcast_ref::<crate::train::TrainError>()
                .is_some_and(crate::train::TrainError::is_input);
        #[cfg(not(feature = "torch"))]
        let torch = false;
        torch
            || cause.is::<Usage>()
            || cause.is::<RunError>()
            || cause.is::<IngestError>()
            || cause.is::<ShardError>()
            || cause.is::<LoadError>()
            || cause.is::<ScheduleError>()
    };
    let stopped = |e: &IngestError| matches!(e, IngestError::Stopped);
    if error.is::<Interrupted>() || error.downcast_ref().is_some_and(stopped) {
        130
    } else if error.chain().any(is_input) {
        2
    } else {
        1
    }
}

/// `nct inspect … | head` is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let closed = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(closed))
}

/// An error and its causes; one that the text before already ends with is not said again.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if !text.ends_with(&cause) {
            let colon = if text.is_empty() { "" } else { ": " };
            text = text + colon + &cause;
        }
    }
    text
}
