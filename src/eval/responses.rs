//! Predicted responses beside recorded ones, trial by trial.

use super::{EvalError, Evaluation, Parts, TaskScores};
use crate::model::weights::encode;
use crate::objective::score::Predictions;
use crate::runs::{RunError, write_atomic};
use std::path::Path;
use tch::Tensor;

/// Writes `<mode>-<session>.safetensors` for each evaluation and session into `folder`, which is made if it is not there:
/// `predicted` and `recorded`, both `[trials, neurons]`, and `image_ids` `[trials]`, the raw ids of the images. Trials of
/// one id are repeats.
pub fn write_responses(folder: &Path, scored: &[(Evaluation, TaskScores)]) -> Result<(), EvalError> {
    std::fs::create_dir_all(folder).map_err(|source| RunError::Io {
        path: folder.to_path_buf(),
        action: "create",
        source,
    })?;
    for (evaluation, scores) in scored {
        let Parts::Sessions { scores, responses } = &scores.parts else { continue };
        for ((session, _), responses) in scores.iter().zip(responses) {
            let name = format!("{}-{session}.safetensors", evaluation.mode).replace(['/', ' '], "_");
            write_atomic(&folder.join(name), &encode(&tensors(responses)?, &[])?)?;
        }
    }
    Ok(())
}

fn tensors(of: &Predictions) -> Result<Vec<(String, Tensor)>, EvalError> {
    let table = |values: &[f32]| Tensor::f_from_slice(values)?.f_view([-1, of.n_neurons as i64]);
    Ok(vec![
        (
            "image_ids".into(),
            Tensor::f_from_slice(&of.images.iter().map(|&id| i64::from(id)).collect::<Vec<_>>())?,
        ),
        ("predicted".into(), table(&of.predicted)?),
        ("recorded".into(), table(&of.recorded)?),
    ])
}
