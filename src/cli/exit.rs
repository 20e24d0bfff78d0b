//! How errors end the program: 0 done, 1 the program failed, 2 bad input or usage, 3 another process of the training is
//! gone, 130 interrupted; and what codes their messages end with.

use super::codes;
use super::show::tell;
#[cfg(feature = "torch")]
use std::io::Read;
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

/// Something that was told already; the process ends with this code.
#[derive(Debug, thiserror::Error)]
#[error("ended with code {0}")]
pub(crate) struct Ended(pub(crate) u8);

/// Saves and stops when the command that started this process has ended, however it did: its end of stdin is closed.
#[cfg(feature = "torch")]
pub(crate) fn end_with_parent() {
    let stop = stop_flag();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stop.store(true, Ordering::Relaxed);
    });
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
    if let Some(Ended(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    let code = codes::of(&error);
    tell(&format!("nct: {} [{}]", chain(&error), code.name));
    ExitCode::from(code.exit)
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
