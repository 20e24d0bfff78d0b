//! Memory that runs out becomes an error that says what to do. Torch reports it in ways that tch turns into a
//! panic in most places.

use super::TrainError;
use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; where torch has no memory left, gives [`TrainError::Memory`].
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, TrainError>) -> Result<T, TrainError> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            if !(GUARDED.get() && out_of_memory(info.payload()).is_some()) {
                before(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    // What is half changed is not used again: the error ends training.
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    match result {
        Ok(Err(TrainError::Torch(e))) if is_about_memory(&e.to_string()) => {
            Err(TrainError::Memory(first_line(&e.to_string())))
        }
        Ok(result) => result,
        Err(payload) => match out_of_memory(payload.as_ref()) {
            Some(what) => Err(TrainError::Memory(what)),
            None => panic::resume_unwind(payload),
        },
    }
}

fn out_of_memory(payload: &(dyn Any + Send)) -> Option<String> {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())?;
    is_about_memory(text).then(|| first_line(text))
}

fn is_about_memory(text: &str) -> bool {
    ["out of memory", "not enough memory", "can't allocate memory"].iter().any(|words| text.contains(words))
}

/// Torch's own words, without the list of C++ frames.
fn first_line(text: &str) -> String {
    let said = text.split_once("Torch(\"").map_or(text, |(_, rest)| rest);
    said.split(['\n', '\\']).next().unwrap_or(said).trim_end_matches(['"', ')']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn a_tensor_larger_than_memory_is_an_error_that_says_what_to_do() {
        let huge = || -> Result<(), TrainError> {
            let _ = Tensor::zeros([1 << 50], (Kind::Float, Device::Cpu));
            Ok(())
        };
        let error = guarded(huge).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("memory") && message.contains("data.batch_size"), "{message}");
        assert!(!message.contains("frame #"), "{message}");
        let tried = || Ok(drop(Tensor::f_zeros([1 << 50], (Kind::Float, Device::Cpu))?));
        assert!(matches!(guarded(tried), Err(TrainError::Memory(_))));
    }

    #[test]
    fn other_panics_stay_panics() {
        let broken = || -> Result<(), TrainError> { panic!("a bug") };
        let payload = panic::catch_unwind(|| guarded(broken)).unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"a bug"));
    }
}
