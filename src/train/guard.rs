//! What torch refuses becomes an error, and memory that runs out one that says what to do. tch turns torch's
//! refusals into panics in most places.

use super::TrainError;
use crate::eval::EvalError;
use crate::model::ModelError;
use crate::torch_ext::{GroupError, is_own};
use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; where torch panics, gives [`TrainError::Memory`] if there was none left, else [`TrainError::Refused`].
///
/// # Errors
/// Those, and those of `work`, of which torch's are told apart in the same way.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, TrainError>) -> Result<T, TrainError> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            if !(GUARDED.get() && refusal(info.payload()).is_some()) {
                before(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    // What is half changed is not used again: the error ends training.
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    match result {
        Ok(Err(
            TrainError::Torch(e)
            | TrainError::Model(ModelError::Torch(e))
            | TrainError::Eval(EvalError::Torch(e) | EvalError::Model(ModelError::Torch(e))),
        )) => Err(error(first_line(&e.to_string()))),
        Ok(Err(TrainError::Refused(said))) => Err(error(first_line(&said))),
        Ok(result) => result,
        Err(payload) => match refusal(payload.as_ref()) {
            Some(what) => Err(error(what)),
            None => panic::resume_unwind(payload),
        },
    }
}

/// What torch said, if that is what the panic is about.
fn refusal(payload: &(dyn Any + Send)) -> Option<String> {
    let text = payload.downcast_ref::<String>()?;
    text.contains("Torch(\"").then(|| first_line(text))
}

/// [`TrainError::Memory`] if torch's words `said` are of memory that ran out.
pub fn out_of_memory(said: &str) -> Option<TrainError> {
    let said = first_line(said);
    // A convolution for whose workspace there is none is one that cuDNN has no engine for; handles of its libraries are
    // not allocated.
    let words = [
        "out of memory",
        "not enough memory",
        "can't allocate memory",
        "unable to find an engine",
        "ALLOC_FAILED",
    ];
    words.iter().any(|words| said.contains(words)).then_some(TrainError::Memory(said))
}

fn error(said: String) -> TrainError {
    // Gradients are exchanged within backward passes.
    let exchange = ["gloo", "Gloo", "NCCL", "Connection closed by peer"];
    if !is_own(&said) && exchange.iter().any(|words| said.contains(words)) {
        return GroupError::Lost(said).into();
    }
    out_of_memory(&said).unwrap_or(TrainError::Refused(said))
}

/// Torch's own words, without the list of C++ frames.
fn first_line(text: &str) -> String {
    let said = text.split_once("Torch(\"").map_or(text, |(_, rest)| rest);
    said.split(['\n', '\\']).next().unwrap_or(said).trim_end_matches(['"', ')']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch_ext::{SgdUpdate, update_sgd};
    use tch::{Device, Kind, Tensor};

    /// Exchanges fail where another process has ended, and where this one's GPU has no memory for them.
    #[test]
    fn what_a_process_s_own_gpu_refuses_is_not_told_of_another_process() {
        for said in ["NCCL: another process has ended", "[gloo/transport/tcp] Connection closed by peer"] {
            assert!(matches!(error(said.to_owned()), TrainError::Group(GroupError::Lost(_))), "{said}");
        }
        let refused = error("NCCL: unhandled cuda error (run with NCCL_DEBUG=INFO for details)".to_owned());
        assert!(matches!(refused, TrainError::Refused(_)), "{refused}");
        let memory = error("NCCL: unhandled cuda error Cuda failure 2 'out of memory'".to_owned());
        assert!(matches!(memory, TrainError::Memory(_)), "{memory}");
    }

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
        let tried = || Ok(Tensor::f_zeros([1 << 50], (Kind::Float, Device::Cpu))?);
        assert!(matches!(guarded(tried), Err(TrainError::Memory(_))));
        let evaluated = || -> Result<(), TrainError> {
            let refused = Tensor::f_zeros([1 << 50], (Kind::Float, Device::Cpu)).unwrap_err();
            Err(EvalError::Model(ModelError::Torch(refused)).into())
        };
        assert!(matches!(guarded(evaluated), Err(TrainError::Memory(_))));
        let how = SgdUpdate {
            lr: 0.1,
            weight_decay: 0.1,
            momentum: 0.0,
            dampening: 0.0,
            nesterov: false,
            first: true,
            fused: false,
        };
        let update = || {
            let one = Tensor::zeros([1], (Kind::Float, Device::Cpu)).expand([1 << 50], false);
            update_sgd(&[one.shallow_clone()], &[one], &[], &how, None).map_err(TrainError::Refused)
        };
        assert!(matches!(guarded(update), Err(TrainError::Memory(_))));
    }

    #[test]
    fn what_torch_refuses_is_an_error_with_its_words() {
        let wrong = || -> Result<(), TrainError> {
            let _ = Tensor::ones([2, 3], (Kind::Float, Device::Cpu))
                .matmul(&Tensor::ones([2, 3], (Kind::Float, Device::Cpu)));
            Ok(())
        };
        let message = guarded(wrong).unwrap_err().to_string();
        assert!(message.contains("mat1") && !message.contains("frame #"), "{message}");
    }

    #[test]
    fn other_panics_stay_panics() {
        let broken = || -> Result<(), TrainError> { panic!("a bug") };
        let payload = panic::catch_unwind(|| guarded(broken)).unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"a bug"));
    }
}
