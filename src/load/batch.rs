//! Host memory of one stream's rows; recycled.

use crate::base::{StreamId, Task};
use crate::schedule::StepPlan;

/// Images with their targets.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The stream they come from.
    pub stream: StreamId,
    /// What they teach.
    pub task: Task,
    /// Raw ids of the images.
    pub ids: Vec<u32>,
    /// Extent of one image: channels, height, width.
    pub image: [u32; 3],
    /// Normalised pixels `[records, channels, height, width]`.
    pub pixels: Vec<f32>,
    /// Targets of the records.
    pub targets: Targets,
}

/// What the network should say.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// Class of each record.
    Labels(Vec<i64>),
    /// Responses `[records, neurons]`.
    Responses(Vec<f32>),
}

impl Batch {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it has no records.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// The batches of one update.
#[derive(Debug)]
pub struct Step {
    /// The plan they follow.
    pub plan: StepPlan,
    /// One batch for each of the plan's.
    pub batches: Vec<Batch>,
}
